
# ======================================================================
# Databases that replay would lose
# ======================================================================
#
# ALTER DATABASE ... SET TABLESPACE, and CREATE DATABASE with STRATEGY file_copy
# and DROP DATABASE of its template, write into the WAL that one directory was
# copied to another, and then that the first was removed.  Replay does the same,
# and where the first is not there, it makes an empty one and copies that
# (dbase_redo() in src/backend/commands/dbcommands.c).  A base backup that is
# taken meanwhile may have neither, since tablespaces are copied first; nor has
# data that was rewound the first.  pg_basebackup and pg_rewind end with 0 then,
# the server starts and streams, and the database is empty.  So the WAL of that
# time is read before any server does.

# find_moved DIR: sets moved, the database of which data in DIR cannot be trusted
# for that, and why; empty where there is none.  What DIR's backup_label says is
# where replay begins.
find_moved() {
    moved=
    if ! [ -x "$bindir/pg_waldump" ]; then
        say "note: whether a database was moved meanwhile, and is lost, cannot be told: program \"pg_waldump\" is not installed"
        return 0
    fi
    first=$(as_owner sed -n 's/^START WAL LOCATION: .* (file [0-9A-F]\{8\}\([0-9A-F]\{16\}\))$/\1/p' \
        "$1/backup_label" 2>/dev/null)
    begins=$(as_owner sed -n 's/^START WAL LOCATION: \([0-9A-F]*\/[0-9A-F]*\) .*/\1/p' \
        "$1/backup_label" 2>/dev/null)
    # Each segment by itself: of a rewound server several timelines are there.  A
    # segment that is not full ends with an error.
    # shellcheck disable=SC2016 # for the job's shell
    start_job sh -c '
        cd "$2" || exit
        for file in ????????????????????????; do
            [ "$(printf "%s\n" "${file#????????}" "$3" | sort | head -n 1)" = "$3" ] || continue
            "$1/pg_waldump" --rmgr=Database "$file" "$file" 2>/dev/null
        done
        echo end' sh "$bindir" "$1/pg_wal" "$first"
    await_job verify_words "pg_waldump has read nothing"
    words=$(as_owner cat "$state/clone.out" | awk -v from="$begins" "$padded_lsn"'
        # A backup of a standby begins in the midst of a segment.
        match($0, /, lsn: [0-9A-F]+\/[0-9A-F]+/) &&
            padded(substr($0, RSTART + 7, RLENGTH - 7)) < padded(from) { next }
        / desc: CREATE_FILE_COPY copy dir / {
            sub(/.* copy dir /, "")
            copied[$1] = $3
        }
        / desc: DROP dir/ {
            sub(/.* desc: DROP dir/, "")
            for (i = 1; i <= NF; i++)
                if ($i in copied && copied[$i] ~ /^[0-9]+\/[0-9]+$/) {
                    sub(/.*\//, "", copied[$i])
                    lost = copied[$i]
                }
        }
        $0 == "end" { end = 1 }
        END { print end ? "read " lost : "" }')
    { [ -n "$words" ] && [ -n "$first" ] && is_lsn "$begins"; } ||
        fail 1 "the WAL in \"$1/pg_wal\" could not be read: $(clone_words)"
    lost=${words#read }
    [ -z "$lost" ] ||
        moved="the directory of database $lost was moved meanwhile, and replay would leave that database empty"
}
