
# ======================================================================
# The server's own words: since it was started, wherever it writes them, and
# what they mean
# ======================================================================

# So much is read of a log, from its end, and so much is shown.
log_bytes=65536
log_lines=20

# find_log: before the server is started.  Sets log, and what is in it so far,
# and in the logging collector's directory: all that is older than our start.
find_log() {
    log=$state/server.log
    if is_by_unit; then
        log="the journal of unit $unit"
        log_since=$(date '+%Y-%m-%d %H:%M:%S')
    elif [ -n "$cluster" ]; then
        log=/var/log/postgresql/postgresql-$prk_major-$cluster.log
        if [ -L "$confdir/log" ]; then
            log=$(readlink "$confdir/log")
        fi
    fi
    log_marks=
    directory=
    if [ -d "$pgdata" ]; then
        directory=$(setting_in "$pgdata" log_directory)
    fi
    log_marks=$(as_owner sh -c '
        cd "$1" 2>/dev/null || cd / || exit
        wc -c "$2"
        [ -z "$3" ] || find "$3/." -maxdepth 1 -type f -exec wc -c {} +' sh \
        "$pgdata" "$log" "$directory" 2>/dev/null | sed 's|/\./|/|')
}

# new_in FILE: what it has got since find_log
new_in() {
    size=$(printf '%s\n' "$log_marks" | PRK_FILE=$1 awk '
        {
            size = $1
            sub(/^ *[0-9]+ /, "")
            if ($0 == ENVIRON["PRK_FILE"])
                found = size
        }
        END { print found + 0 }')
    as_owner sh -c '
        cd "$1" 2>/dev/null || cd / || exit
        # a file that is smaller than before was begun again
        now=$(wc -c <"$2") || exit
        [ "$now" -ge "$3" ] || set -- "$1" "$2" 0 "$4"
        tail -c "+$(($3 + 1))" "$2" | tail -c "$4"' sh \
        "$pgdata" "$1" "$size" "$log_bytes" 2>/dev/null
}

# log_tail: the end of what the server has logged since it was started.  Of
# several destinations one is enough.
log_tail() {
    {
        if is_by_unit; then
            timeout -k 2 "$program_seconds" journalctl -q -o cat -n "$log_lines" \
                -u "$unit" --since "$log_since"
        else
            new_in "$log"
        fi
        as_owner cat "$pgdata/current_logfiles" | sort -r | sed 1q |
            while read -r kind file; do
                case $kind in
                    stderr) new_in "$file" ;;
                    csvlog) new_in "$file" | csv_text ;;
                    jsonlog) new_in "$file" | json_text ;;
                esac
            done
    } 2>/dev/null | tail -n "$log_lines" | readable 16000
}

# csv_text: a csvlog as lines like those of the others.  Fields may hold line
# breaks; what was cut off at the beginning ends with the first line that begins
# with a time.
csv_text() {
    awk '
        function field(    out) {
            if (substr(record, 1, 1) != "\"") {
                match(record, /^[^,]*/)
                out = substr(record, 1, RLENGTH)
                record = substr(record, RLENGTH + 2)
                return out
            }
            record = substr(record, 2)
            while (match(record, /^[^"]*"/)) {
                out = out substr(record, 1, RLENGTH - 1)
                record = substr(record, RLENGTH + 1)
                if (substr(record, 1, 1) != "\"")
                    break
                out = out "\""
                record = substr(record, 2)
            }
            record = substr(record, 2)
            return out
        }
        !begun && !/^[0-9][0-9][0-9][0-9]-[0-9][0-9]-[0-9][0-9] [^,"]*,/ { next }
        { begun = 1 }
        {
            record = record (record == "" ? "" : " ") $0
            copy = record
            if (gsub(/"/, "", copy) % 2)
                next
            for (i = 1; i <= 16; i++)
                f[i] = field()
            record = ""
            printf "%s [%s] %s:  %s: %s\n", f[1], f[4], f[12], f[13], f[14]
            if (f[15] != "")
                print "DETAIL:  " f[15]
            if (f[16] != "")
                print "HINT:  " f[16]
        }'
}

# json_text: likewise a jsonlog
json_text() {
    awk '
        function value(name,    text, out, c) {
            if (!match($0, "[{,]\"" name "\":"))
                return ""
            text = substr($0, RSTART + RLENGTH)
            if (substr(text, 1, 1) != "\"") {
                match(text, /^[^,}]*/)
                return substr(text, 1, RLENGTH)
            }
            text = substr(text, 2)
            while (match(text, /["\\]/)) {
                out = out substr(text, 1, RSTART - 1)
                c = substr(text, RSTART + 1, 1)
                if (substr(text, RSTART, 1) == "\"")
                    break
                out = out (c == "\"" || c == "\\" ? c : " ")
                text = substr(text, RSTART + (c == "u" ? 6 : 2))
            }
            return out
        }
        /^[{].*[}]$/ {
            printf "%s [%s] %s:  %s: %s\n", value("timestamp"), value("pid"),
                value("error_severity"), value("state_code"), value("message")
            if (value("detail") != "")
                print "DETAIL:  " value("detail")
            if (value("hint") != "")
                print "HINT:  " value("hint")
        }'
}

# readable BYTES: the end of the input, in any language: valid UTF-8 that says
# nothing to a terminal and does not turn the direction of what follows
readable() {
    tail -c "$1" | tr '\t\r' '  ' | tr -c '\n\040-\176\200-\377' '?' |
        awk -v plain="$operator_plain" '
        BEGIN {
            for (i = 128; i < 256; i++)
                code[sprintf("%c", i)] = i
        }
        /^[ -~]*$/ { print; next }
        {
            out = ""
            for (i = 1; i <= length($0); i += 1 + more) {
                more = 0
                c = substr($0, i, 1)
                b = code[c] + 0
                if (b == 0) {
                    out = out c
                    continue
                }
                more = b < 194 ? 0 : b < 224 ? 1 : b < 240 ? 2 : b < 245 ? 3 : 0
                good = more > 0 && !plain
                for (j = 1; j <= more; j++) {
                    d[j] = code[substr($0, i + j, 1)] + 0
                    if (d[j] < 128 || d[j] > 191)
                        good = 0
                }
                if ((b == 194 && d[1] < 160) ||
                    (b == 224 && d[1] < 160) || (b == 237 && d[1] > 159) ||
                    (b == 240 && d[1] < 144) || (b == 244 && d[1] > 143) ||
                    (b == 226 && d[1] == 128 && d[2] > 138 && d[2] != 145 &&
                        (d[2] < 144 || d[2] > 167)) ||
                    (b == 226 && d[1] == 129 && d[2] > 159 && d[2] < 176) ||
                    (b == 239 && d[1] == 187 && d[2] == 191))
                    good = 0
                if (good)
                    out = out substr($0, i, 1 + more)
                else {
                    out = out "?"
                    more = 0
                }
            }
            print out
        }'
}

# find_plain: has the operator a terminal that is known not to take UTF-8?
find_plain() {
    operator_plain=
    case ${operator_lc_all:-${LC_CTYPE:-${LANG-}}} in
        '' | C | POSIX | C.* | *[Uu][Tt][Ff]8* | *[Uu][Tt][Ff]-8*) ;;
        *) operator_plain=yes ;;
    esac
}

# ------------------------------------------------------------- what they mean

# What a message of the server's log means: sets hint, or leaves it empty.
explain_log() {
    hint=
    case $1 in
        *"already been removed"* | *"can no longer"*)
            hint="The upstream no longer has the WAL that the replica needs; it must be cloned again: run this script with --rebuild." ;;
        *"password authentication failed"*)
            hint="If the role has a new password, run this script with --set-password." ;;
        *"system identifier differs"*)
            hint="The data belongs to another server than the one at $prk_host, port $prk_port." ;;
        *"insufficient parameter settings"*)
            hint="Raise the setting named there in the replica's configuration, and start it again." ;;
        *"Cannot assign requested address"*)
            hint="listen_addresses names an address that this machine does not have: change it in the replica's configuration, and run this script again." ;;
        *"Address already in use"* | *"could not bind"* | *'lock file "'*)
            hint="Choose another port with --port." ;;
        *"could not load server certificate"* | *"could not access private key"* | \
            *"could not load private key"* | *"could not load root certificate"*)
            hint="Put the certificate or key that it names on this machine, or change the setting in the replica's configuration, and run this script again." ;;
        *"could not open configuration file"* | *"could not open configuration directory"* | \
            *"contains errors"*)
            hint="Mend the replica's configuration as the log says, and run this script again; the clone is complete." ;;
        *"could not access file"*)
            hint="Install the library on this machine." ;;
        *"No space left"*) hint="Make room on the file system." ;;
        *'is active for PID'*)
            hint="Another connection uses slot \"$prk_name\"; each replica needs a name of its own." ;;
        *"failed: "*)
            explain_connection "$1" ;;
    esac
}

# messages: the log as one message a line, the last one first: F for a failure
# that ended something, E for an error, L for the others; then its text
messages() {
    awk '
        # in a language that is not English no word is known
        {
            if (/(^|[^A-Za-z])(FATAL|PANIC):/)
                kind[++n] = "F"
            else if (/(^|[^A-Za-z])ERROR:/)
                kind[++n] = "E"
            else if (match($0, /(DETAIL|HINT|CONTEXT|STATEMENT|QUERY|LOCATION):/))
                # it has a prefix of its own
                $0 = substr($0, RSTART)
            else if (!/^ /)
                kind[++n] = "L"
            if (n)
                text[n] = text[n] " " $0
        }
        END {
            for (; n > 0; n--)
                print kind[n] text[n]
        }'
}

# explain_last LOG: a cause is looked for in the last failure.  Where that is
# not understood, in the messages that led to it; errors that ended nothing may
# be those of any session.
explain_last() {
    hint=
    ended=
    failures=$(printf '%s\n' "$1" | messages)
    any=$(printf '%s\n' "$failures" | grep -c '^[FE]')
    while read -r kind text; do
        case $kind in
            F)
                [ -z "$ended" ] || break
                ended=yes
                ;;
            E) [ -z "$ended" ] || break ;;
            L) [ -n "$ended" ] || [ "$any" -eq 0 ] || continue ;;
            *) break ;;
        esac
        explain_log "$text"
        [ -z "$hint" ] || break
    done <<EOF
$failures
EOF
}

# last_failure LOG: its words
last_failure() {
    printf '%s\n' "$1" | messages | sed -n 's/^[FE] //p' | sed -n 1p |
        sed 's/^.*FATAL: *//; s/^.*PANIC: *//; s/^.*ERROR: *//; s/ DETAIL: .*//; s/ HINT: .*//'
}

# explain_by_asking: what the upstream says when it is asked again, in case the
# log's language is not English or the log cannot be read
explain_by_asking() {
    probe_passfile=$passfile
    if ! ask IDENTIFY_SYSTEM; then
        explain_connection "$said"
        hint="The upstream server says now: $said. $hint"
    elif ! ask "READ_REPLICATION_SLOT \"$prk_name\""; then
        return 0
    elif upstream_null 1; then
        hint="Replication slot \"$prk_name\" does not exist: run this script with --rebuild, which makes it."
    elif upstream_null 2 || wal_is_gone; then
        explain_log "already been removed"
    fi
}

# wal_is_gone: does the slot hold WAL from a later position than the one that
# the replica needs?
wal_is_gone() {
    lsn=$(upstream_lsn 2) || return 1
    row=$(local_state 0/0)
    here=
    if [ -n "$row" ]; then
        here=$(field 5)
    fi
    here=${here:-$(control_value "Latest checkpoint's REDO location")}
    case $here in
        [0-9A-F]*/[0-9A-F]*) ! lsn_reached "$here" "$lsn" ;;
        *) return 1 ;;
    esac
}

show_log() {
    words=$(log_tail)
    if [ -n "$words" ]; then
        say "the end of $log:" >&2
        printf '%s\n' "$words" | sed 's/^/  /' >&2
    fi
    explain_last "$words"
    case $(setting_in "$pgdata" log_destination) in
        *stderr* | *csvlog* | *jsonlog* | '') ;;
        *syslog*)
            say "note: the server logs to syslog, as \"$(setting_in "$pgdata" syslog_ident | cleaned 100)\": look there, this script cannot" >&2
            ;;
    esac
}
