# shellcheck shell=bash
# core_suites.sh: what scripts/core_suites does inside scripts/test, which sources
# it.  Its variables and count() are that script's.
# shellcheck disable=SC2154

core_suites=(src/test/recovery src/test/subscription src/test/authentication
	src/bin/pg_rewind src/bin/pg_basebackup src/bin/pg_verifybackup
	src/bin/pg_combinebackup)

# core_suite WITH SUITE [FILE...]: run its tests, and put "PASSED FAILED SKIPPED
# SUITE/FILE" for each into $work/core_WITH; their logs go to $work/core_logs.
core_suite()
{
	local with=$1 suite=$2 tests=() counts=$work/core_counts logs conf=
	shift 2
	tests=("$@")
	[ ${#tests[@]} -gt 0 ] ||
		mapfile -t tests < <(cd "$core/$suite" && printf '%s\n' t/*.pl)
	[ "$with" = without ] || conf=$work/core.conf
	: >"$counts"
	chown postgres "$counts"
	rm -rf "$core/$suite/tmp_check"
	as_postgres mkdir "$core/$suite/tmp_check"
	(cd "$core/$suite" && as_postgres env -i HOME="$work/home" LANG=C.UTF-8 \
		PATH="$("$PG_CONFIG" --bindir):$PATH" TERM=dumb LOCPATH="$work/locale" \
		PERL5LIB="$build/scripts" TAP_COUNTS="$counts" TMPDIR="$work/tmp" \
		TESTDIR="$core/$suite" TESTLOGDIR="$core/$suite/tmp_check/log" \
		TESTDATADIR="$core/$suite/tmp_check" top_builddir="$core" \
		PGPORT=65432 PG_REGRESS="$(dirname "$("$PG_CONFIG" --pgxs)")/../test/regress/pg_regress" \
		REGRESS_SHLIB="$work/core_lib/regress.so" TAR=tar GZIP_PROGRAM=gzip \
		LZ4=lz4 ZSTD= enable_injection_points=no with_icu=yes with_ssl=openssl \
		PG_TEST_TIMEOUT_DEFAULT="${PG_TEST_TIMEOUT_DEFAULT:-180}" \
		${conf:+TEMP_CONFIG="$conf"} timeout --kill-after=30 "$limit" \
		prove -I "$core/src/test/perl" -I . -j"$jobs" --formatter=TapCount \
		"${tests[@]}" </dev/null) 2>&1 | grep -E '^(All tests|Files=|Result)'
	stop_servers "$core/$suite/tmp_check"
	sed "s, t/, $suite/t/," "$counts" >>"$work/core_$with"
	logs=$work/core_logs/$with/$suite
	mkdir -p "$logs"
	cp "$core/$suite"/tmp_check/log/* "$logs/" 2>/dev/null
	rm -rf "$core/$suite/tmp_check"
}

# core_result WITH FILE: how that went, the last time.
core_result()
{
	grep -F " $2" "$work/core_$1" | tail -n 1 | cut -d ' ' -f 1-3
}

# What two of the tests load.
core_library()
{
	local name=$work/core_lib/regress.so installed

	as_postgres mkdir "$work/core_lib"
	installed=$("$PG_CONFIG" --pkglibdir)/regress.so
	if [ -f "$installed" ]; then
		cp "$installed" "$name"
	else
		as_postgres gcc -w -O2 -fPIC -shared -o "$name" \
			-I"$("$PG_CONFIG" --includedir-server)" \
			"$core/src/test/regress/regress.c"
	fi
}

# What the kit has said in those logs that the same log does not bear out: of a
# slot that was dropped or lost the server itself says so.  Our worker ends with
# 1 when it is told to, and with 2 when all processes are.
core_false_words()
{
	find "$work/core_logs/with" -name '*.log' ! -name 'regress_log_*' \
		-exec perl -e '
		for my $file (@ARGV)
		{
			open my $in, "<", $file or next;
			local $/;
			my $log = <$in>;
			while ($log =~ /^.*WARNING:  replica "([^"]*)" \w+: its slot was dropped/mg)
			{
				my ($name, $line) = ($1, $&);
				print "$file: $line\n"
				  unless $log =~ /(?:drop_replication_slot|DROP_REPLICATION_SLOT|dropped replication slot).*?(?:\Q$name\E|slot_name)|DROP DATABASE/;
			}
			while ($log =~ /^.*WARNING:  replica "([^"]*)" \w+: slot is lost/mg)
			{
				my ($name, $line) = ($1, $&);
				print "$file: $line\n"
				  unless $log =~ /invalidating (?:obsolete replication )?slot "\Q$name\E"/;
			}
			print "$file: $&\n"
			  while $log =~ /^.*(?:pg_replica_kit worker\b.*(?:PANIC|exited with exit code (?![12]\b)|terminated by signal (?:4|6|7|8|11)\b)|TRAP: .*replica_kit).*$/mg;
		}' {} +
}

# Both runs, and what differs.
run_core_suites()
{
	local with suite file a b words

	[ ${#tests[@]} -eq 0 ] || core_suites=("${tests[@]}")
	cat >"$work/core.conf" <<-'CONF'
		shared_preload_libraries = 'pg_replica_kit'
		replica_kit.check_interval = '100ms'
	CONF
	: >"$work/core_without"
	: >"$work/core_with"
	core_library || count FAILED "regress.so compiles" shown
	for with in without with; do
		for suite in "${core_suites[@]}"; do
			[ -d "$core/$suite/t" ] || continue
			say "$suite on PostgreSQL $version, $with the kit"
			core_suite "$with" "$suite"
		done
	done

	# Some of these tests fail now and then: what differs gets one more try.
	say "Results with the kit, where they are not those without"
	while read -r file; do
		a=$(core_result without "$file")
		b=$(core_result with "$file")
		if [ "$a" != "$b" ]; then
			printf '%s: %s without, %s with; once more:\n' "$file" "$a" "$b"
			for with in without with; do
				core_suite "$with" "${file%/t/*}" "t/${file##*/}"
			done
			a=$(core_result without "$file")
			b=$(core_result with "$file")
		fi
		if [ "$a" != "$b" ]; then
			count FAILED "$file: $a (passed, failed, skipped) without the kit, ${b:-nothing} with it" shown
		else
			count ok "$file"
			case $a in
				*" 0 "*) ;;
				*) printf '%s fails without the kit, too: %s\n' "$file" "$a" ;;
			esac
		fi
	done < <(cut -d ' ' -f 4 "$work/core_without" | sort -u)

	say "What the kit says in the logs of those servers"
	grep -rhoE '(WARNING|LOG):  (replica "[^"]*" |server )(critical|warning|still|ok).*' \
		"$work/core_logs/with" | sed -E 's/"[^"]*"/"..."/; s/[0-9]+/N/g' |
		sort | uniq -c | sort -rn | head -n 60
	words=$(core_false_words)
	if [ -z "$words" ]; then
		count ok "the servers' logs bear out what the kit says" shown
	else
		count FAILED "the servers' logs do not bear out what the kit says" shown
		printf '%s\n' "$words"
	fi
}
