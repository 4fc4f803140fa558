# man.awk: what the script says for --help, as a man page.
#
#   sh pg_replica_kit_join.sh --help | awk -v version=1.0 -f man.awk
#
# The help is paragraphs, sections ("Options:" alone on a line) and, in
# sections, lines of two columns: what, and what it does.

function escape(text)
{
	gsub(/\\/, "\\e", text)
	gsub(/-/, "\\-", text)
	if (text ~ /^[.']/)
		text = "\\\&" text
	return text
}

# One more line of the section.
function emit(line)
{
	if (paragraph && text[section] != "")
		text[section] = text[section] ".PP\n"
	paragraph = 0
	text[section] = text[section] line "\n"
}

BEGIN { section = "DESCRIPTION" }

/^$/ { paragraph = 1; next }

/^[A-Z][A-Za-z ]*:$/ {
	section = toupper(substr($0, 1, length($0) - 1))
	if (section == "USAGE")
		section = "SYNOPSIS"
	else if (section == "EXIT CODES")
		section = "EXIT STATUS"
	if (section != "SYNOPSIS")
		order[++sections] = section
	paragraph = 0
	next
}

# Text from the left margin on.
/^[^ ]/ {
	if (section == "SYNOPSIS")
		section = "DESCRIPTION"
	emit(escape($0))
	next
}

section == "SYNOPSIS" {
	sub(/^ +/, "")
	emit(".nf\n" escape($0) "\n.fi")
	next
}

# The left column begins at the third or fourth character.
/^   ?[^ ]/ {
	sub(/^ +/, "")
	paragraph = 0
	gap = match($0, /  +/)
	if (gap)
		emit(".TP\n.B " escape(substr($0, 1, gap - 1)) "\n" \
			escape(substr($0, gap + RLENGTH)))
	else
		emit(".TP\n.B " escape($0))
	next
}

{
	sub(/^ +/, "")
	emit(escape($0))
}

END {
	printf ".TH PG_REPLICA_KIT_JOIN 1 \"\" \"pg_replica_kit %s\" \"PostgreSQL\"\n", version
	print ".SH NAME"
	print "pg_replica_kit_join \\- make a streaming replica: the script of replica_kit.join_script()"
	printf ".SH SYNOPSIS\n%s.SH DESCRIPTION\n%s", text["SYNOPSIS"], text["DESCRIPTION"]
	for (i = 1; i <= sections; i++)
		printf ".SH %s\n%s", order[i], text[order[i]]
	print ".SH SEE ALSO\n.BR pg_basebackup (1)"
}
