
# ======================================================================
# pg_rewind: data that has left the upstream's history, back to where it left
# ======================================================================
#
# pg_rewind has no undo, and destroys what only this data has.  So before it
# runs, the commits since the fork are counted; and STATE/diverged/TIME keeps the
# WAL since then, and all that it will overwrite, by its own plan: in "data" the
# files that it removes, cuts or replaces as a whole; in "blocks" of the others
# the blocks, each at its place in a sparse file of the old size.
#
# It writes the control file last, so an interrupted pg_rewind leaves data
# that a server would start, and that is neither the old nor the new.  While it
# runs, PG_VERSION, which it does not touch, holds a version that no server
# accepts; and STATE/rewinding tells the next run.
#
# It brings along the upstream's configuration.  What does not belong to
# PostgreSQL's own directories is put back as it was.  Until then the copy counts,
# for the next run, too: half_rewound is where that is.

half_rewound=
rewindable=
commits=
fork_line=
plan_dir=

# was_rewinding: was an earlier run's pg_rewind interrupted?
was_rewinding() {
    as_owner test -e "$state/rewinding"
}

# find_half_rewound: sets half_rewound, if such a run has kept the configuration
find_half_rewound() {
    half_rewound=$(as_owner cat "$state/rewinding" 2>/dev/null)
    case $half_rewound in
        "$state"/diverged/*[!0-9]*) half_rewound= ;;
        "$state"/diverged/?*) ;;
        *) half_rewound= ;;
    esac
    [ -z "$half_rewound" ] ||
        as_owner test -e "$half_rewound/data/postgresql.auto.conf" ||
        half_rewound=
}

# conf_place DIR: where the configuration of the data in DIR is
conf_place() {
    if [ -n "$half_rewound" ] && [ "$1" = "$pgdata" ]; then
        printf '%s' "$half_rewound/data"
    else
        printf '%s' "$1"
    fi
}

# check_rewinding: true for such data, which then is old data
check_rewinding() {
    case $dir_state in
        standby | other) was_rewinding && [ -z "$pid" ] || return 1 ;;
        *) return 1 ;;
    esac
    [ -n "$rebuild" ] || fail_rewinding
    check_old_cluster
    old_primary=yes
    dir_state=old
}

fail_rewinding() {
    fail 8 "a rewind of \"$pgdata\" was interrupted, and no server can use that data" \
        "Run this script with --rebuild, which clones everything."
}

# as_rewinder COMMAND...: as the role that allow_rewind() has made
as_rewinder() {
    own_role=$prk_role
    prk_role=${prk_name}_rewind
    ask_where="dbname=$(conninfo_quote "$prk_database")"
    if "$@"; then
        result=0
    else
        result=1
    fi
    prk_role=$own_role
    ask_where=replication=1
    return "$result"
}

# rewind_conninfo: of the same role, which has the replica's password
rewind_conninfo() {
    printf '%s %s connect_timeout=%s' "$(conninfo "$plan_dir/passfile" here)" \
        "$ask_where" "$connect_seconds"
}

# make_plan_dir: a directory that nobody else can read, for the plan and the
# passfile; gone with the script
make_plan_dir() {
    plan_dir=$(as_owner mktemp -d) &&
        as_rewinder passfile_line |
        as_owner sh -c 'umask 077 && cat >"$1/passfile"' sh "$plan_dir"
}

remove_plan_dir() {
    [ -z "$plan_dir" ] || as_owner rm -rf "$plan_dir"
    plan_dir=
}

# ---------------------------------------------------------------- the fork

# history_lines NEWEST < forks: a line of timeline and end for each of a history,
# the last without an end
history_lines() {
    sort -n | awk -v newest="$1" 'NF == 2 && $1 + 0 < newest + 0'
    echo "$1 -"
}

# find_fork: sets fork_line, where this data and the upstream part: lines of
# timeline, beginning and end of what only this data has
find_fork() {
    ask_history "$theirs" ||
        fail 6 "the upstream server does not tell its history: $said"
    ours=$(as_owner cat "$(printf '%s/pg_wal/%08X.history' "$pgdata" "$timeline")" 2>/dev/null | forks)
    fork_line=$({
        printf '%s\n' "$history" | history_lines "$theirs"
        echo
        printf '%s\n' "$ours" | history_lines "$timeline"
    } | awk '
        function padded(lsn,    half) {
            if (lsn == "-")
                return "~"
            split(lsn, half, "/")
            return sprintf("%8s%8s", half[1], substr("00000000" half[2], length(half[2]) + 1))
        }
        NF == 0 { own = 1; next }
        !own { their[++nt] = $1; their_end[nt] = $2 }
        own { our[++no] = $1; our_end[no] = $2 }
        END {
            for (i = 1; i <= nt && i <= no; i++)
                if (their[i] != our[i] || (i > 1 && their_end[i - 1] != our_end[i - 1]))
                    break
            if (--i < 1)
                exit
            start = padded(our_end[i]) < padded(their_end[i]) ? our_end[i] : their_end[i]
            for (; i <= no && start != "-"; i++) {
                if (start != our_end[i])
                    print our[i], start, our_end[i]
                start = our_end[i]
            }
        }')
    [ -n "$fork_line" ]
}

# lost_records TIMELINE FROM TO: positions and texts of the Transaction and XLOG
# records that only this data has, as pg_waldump shows them.  It reads from well
# before: see last_record().
lost_records() {
    number=$(segment_number "$2")
    if [ "$number" -gt 0 ] &&
        as_owner test -e "$pgdata/pg_wal/$(segment_name "$1" "$((number - 1))")"; then
        number=$((number - 1))
    fi
    read_wal "$1" "$(segment_start "$number")" --rmgr=Transaction --rmgr=XLOG |
        awk -v from="$2" -v to="$3" '
            function padded(lsn,    half) {
                split(lsn, half, "/")
                return sprintf("%8s%8s", half[1], substr("00000000" half[2], length(half[2]) + 1))
            }
            match($0, /, lsn: [0-9A-F]+\/[0-9A-F]+/) {
                lsn = substr($0, RSTART + 7, RLENGTH - 7)
                if (padded(lsn) >= padded(from) && (to == "-" || padded(lsn) < padded(to)))
                    print lsn, $0
            }'
}

# count_commits: sets commits, and commits_span, when the first and the last of
# them were made.  Fails if the WAL here is not complete.
count_commits() {
    records=$(printf '%s\n' "$fork_line" | while read -r line from to; do
        lost_records "$line" "$from" "$to"
    done | awk '
        { newest = $1 }
        match($0, /, desc: COMMIT(_PREPARED [0-9]+:)? [0-9]+-[0-9]+-[0-9]+ [0-9:]+/) {
            last = substr($0, RSTART, RLENGTH)
            sub(/^.*COMMIT(_PREPARED [0-9]+:)? /, "", last)
            zone = substr($0, RSTART + RLENGTH)
            sub(/^[.0-9]* */, "", zone)
            sub(/[^A-Za-z0-9+-].*/, "", zone)
            last = last " " zone
            if (!count++)
                first = last
        }
        END { print newest "|" count + 0 "|" first "|" last }')
    newest=${records%%|*}
    commits=${records#*|}
    commits_span=${commits#*|}
    commits_span="between ${commits_span%|*} and ${commits_span#*|}"
    commits=${commits%%|*}
    checkpoint=$(control_value 'Latest checkpoint location')
    is_lsn "$newest" && is_lsn "$checkpoint" && lsn_reached "$newest" "$checkpoint"
}

# ------------------------------------------------------------ can it be done

# judge_rewind: sets rewindable, or says in one line what stands in the way.
# Ends the script where commits would be lost that nobody has given up.
judge_rewind() {
    find_rewind_obstacle
    if [ -n "$obstacle" ]; then
        say "not by rewind: $obstacle"
        return 0
    fi
    if [ "$commits" -gt 0 ] && [ -z "$discard_diverged" ]; then
        word=--rebuild
        [ -z "$demote" ] || word=--demote
        fail 15 "a rewind discards what only this data has: commits: $commits, made $commits_span" \
            "To discard them (their WAL is kept), run: $(script_words) $word --discard-diverged${newline}hint: To clone everything instead, and keep the old data whole, run: $(script_words) $word --full"
    fi
    rewindable=yes
}

# find_rewind_obstacle: sets obstacle, or nothing
find_rewind_obstacle() {
    obstacle=
    for word in pg_rewind pg_waldump; do
        if ! [ -x "$bindir/$word" ]; then
            obstacle="program \"$word\" is not installed"
            return 0
        fi
        tells "$bindir/$word" --version >/dev/null
    done
    timeline=$(own_timeline)
    ask IDENTIFY_SYSTEM || fail 4 "the upstream server no longer answers: $said"
    theirs=$(upstream_number 2 10) || not_upstream "its timeline"
    ask "SHOW in_hot_standby" ||
        fail 6 "the upstream server does not tell whether it is a standby: $said"
    if [ -n "$missing" ]; then
        obstacle="\"$pgdata/$missing\" is missing"
    elif [ "$(upstream_name 1)" = on ]; then
        obstacle="the upstream server is a standby"
    elif [ "$(control_value 'Data page checksum version')" = 0 ] &&
        [ "$(control_value 'wal_log_hints setting')" != on ]; then
        obstacle="neither data checksums nor wal_log_hints are on in this data"
    elif as_owner test -e "$pgdata/backup_label"; then
        obstacle="\"$pgdata/backup_label\" is there: this data is a backup that was never started"
    elif as_owner ls "$pgdata" | grep -q '^pg_replica_kit[.]'; then
        obstacle="the old data of an earlier rebuild lies in the data directory"
    elif ! find_fork; then
        obstacle="this data and the upstream have no timeline in common, or have not parted"
    elif ! count_commits; then
        obstacle="the WAL since the fork is not complete here, so what would be lost cannot be told"
    else
        find_new_tablespace
        [ -n "$obstacle" ] || find_rewind_right
        [ -n "$obstacle" ] || try_rewind_plan
    fi
}

# try_rewind_plan: sets obstacle to why pg_rewind would give up, or moved.  Of
# data that was not shut down cleanly nobody can know before its recovery.
try_rewind_plan() {
    moved=
    case $(control_value 'Database cluster state') in
        'shut down'*) ;;
        *) return 0 ;;
    esac
    plan_rewind "$bindir/pg_rewind" -n --debug || obstacle=$words
    remove_plan_dir
}

# pg_rewind makes the links to new tablespaces, and not the places they lead to.
find_new_tablespace() {
    while read -r size location; do
        [ -z "$size" ] || is_old_tablespace "$location" ||
            obstacle="the upstream has a tablespace in \"$location\", which this data has not"
    done <<EOF
$prk_tablespaces
EOF
}

# find_rewind_right: may we read files there?
find_rewind_right() {
    if as_rewinder ask "SELECT pg_catalog.bool_and(pg_catalog.has_function_privilege(f, 'EXECUTE'))
        FROM pg_catalog.unnest(ARRAY['pg_catalog.pg_ls_dir(text,boolean,boolean)',
        'pg_catalog.pg_stat_file(text,boolean)', 'pg_catalog.pg_read_binary_file(text)',
        'pg_catalog.pg_read_binary_file(text,bigint,bigint,boolean)']) f" &&
        [ "$(upstream_name 1)" = t ]; then
        return 0
    fi
    obstacle="role \"${prk_name}_rewind\" may not read files on the upstream; to allow it for an hour, run there, in database \"$(shown "$prk_database")\": SELECT replica_kit.allow_rewind('$prk_name', '1 hour');"
}

# ------------------------------------------------------------ before it runs

# recover_old COMMAND...: what pg_rewind does with data that was not shut down cleanly, done
# before its plan is made.  Fails with words.
recover_old() {
    case $(control_value 'Database cluster state') in
        'shut down' | 'shut down in recovery') return 0 ;;
    esac
    say "this data was not shut down cleanly: recovering it"
    config_options "$pgdata"
    eval "set -- \"\$@\" $options"
    words=$(as_owner timeout -k 5 "$clone_seconds" "$@" template1 \
        </dev/null 2>&1 7>&- 9>&-)
    case $? in
        0) return 0 ;;
        124 | 137) words="it did not end within $clone_seconds seconds" ;;
        *) words=$(printf '%s\n' "$words" | readable 2000 | tail -n 1) ;;
    esac
    return 1
}

# rewind_options: sets options, for pg_rewind; the reader does: eval
rewind_options() {
    options="-D $(sh_quote "$pgdata") --no-ensure-shutdown -P"
    options="$options --source-server=$(sh_quote "$(as_rewinder rewind_conninfo)")"
    [ -z "$cluster" ] ||
        options="$options --config-file=$(sh_quote "$confdir/postgresql.conf")"
    [ -z "$(setting_in "$pgdata" restore_command)" ] || options="$options -c"
}

# plan_rewind COMMAND...: what pg_rewind will do, in a file of plan_dir; sets moved, in MB.
# Its dry run would fetch all of that, so it is ended when it has said it.  Fails
# with words.
plan_rewind() {
    moved=
    make_plan_dir || {
        words="user \"$owner\" could not make a temporary directory"
        return 1
    }
    rewind_options
    eval "set -- \"\$@\" $options"
    as_owner sh -c '
        umask 077
        plan=$1/plan
        shift
        {
            timeout -k 2 "$@" </dev/null 2>&1
            case $? in
                124 | 137) echo "pg_rewind did not end within $1 seconds" ;;
            esac
        } | sed "/need to copy/q" >"$plan"' sh \
        "$plan_dir" "$clone_seconds" "$@" 7>&- 9>&-
    moved=$(as_owner sed -n 's/^pg_rewind: need to copy \([0-9]*\) MB.*/\1/p' "$plan_dir/plan" | head -n 1)
    [ -z "$moved" ] || return 0
    words=$(as_owner tail -n 1 "$plan_dir/plan" | rewind_words)
    case $words in
        *'no rewind required'*)
            words="the upstream's control file does not show its new timeline yet; run there: CHECKPOINT;" ;;
    esac
    return 1
}

# rewind_words: a line of pg_rewind's, as it may be shown
rewind_words() {
    sed 's/^pg_rewind: //; s/^error: //; s/^fatal: //' | cleaned 500
}

# list_overwritten: makes of the plan a list of what is overwritten in files of
# relations, a line of first block, number of blocks, and file for each piece: no
# blocks for the size alone, and "-" for the whole of a file that is cut.  Pieces
# with little between them are one.
list_overwritten() {
    as_owner sh -c '
        awk "
            function put() { if (count) print first, count, file; count = 0 }
            /^pg_rewind: .* [(][A-Z_]*[)]\$/ {
                put()
                action = \$NF
                file = \$0
                sub(/^pg_rewind: /, \"\", file)
                sub(/ [(][A-Z_]*[)]\$/, \"\", file)
                if (action == \"(TRUNCATE)\")
                    print 0, \"-\", file
                else if (action == \"(NONE)\" || action == \"(COPY_TAIL)\")
                    print 0, 0, file
                next
            }
            /^pg_rewind: block [0-9]+\$/ && action != \"(TRUNCATE)\" {
                if (count && \$3 - first - count > 16)
                    put()
                if (!count)
                    first = \$3
                count = \$3 - first + 1
            }
            END { put() }" "$1/plan" >"$1/pieces"' sh "$plan_dir"
}

# keep_overwritten: copies those to kept_in, if there is room; what is not kept it
# says
keep_overwritten() {
    block_size=$(control_value 'Database block size')
    room=$(as_owner df -Pk "$kept_in" | awk 'NR == 2 { print int($4 / 2048) }')
    size=$(as_owner sh -c '
        cd "$1" || exit
        while read -r first count file; do
            [ "$count" != - ] || count="0 $(stat -c %s "$file")"
            echo "$count"
        done <"$2/pieces"' sh "$pgdata" "$plan_dir" | awk -v block="$block_size" '
        { sum += $1 * block + $2 }
        END { printf "%d", sum / 1048576 }')
    if [ "$size" -gt "$room" ] || [ "$size" -gt "$keep_megabytes" ]; then
        [ "$room" -lt "$keep_megabytes" ] || room=$keep_megabytes
        say "note: what the rewind overwrites in $size MB of files is not kept, since that is more than $room MB; it is in the WAL that is kept, as far as that goes back"
        return 0
    fi
    words=$(as_owner sh -c '
        umask 077
        cd "$1" || exit
        while read -r first count file; do
            [ -f "$file" ] || continue
            case $count in
                -)
                    mkdir -p "$2/data/$(dirname "$file")" &&
                        cp -p "$file" "$2/data/$file" || exit
                    ;;
                0)
                    mkdir -p "$2/blocks/$(dirname "$file")" &&
                        dd if=/dev/null of="$2/blocks/$file" bs=1 \
                            seek="$(stat -c %s "$file")" || exit
                    ;;
                *)
                    dd if="$file" of="$2/blocks/$file" bs="$4" skip="$first" \
                        seek="$first" count="$count" conv=notrunc || exit
                    ;;
            esac
        done <"$3/pieces" && { sync -f "$2" 2>/dev/null || sync; }' sh \
        "$pgdata" "$kept_in" "$plan_dir" "$block_size" 2>&1) && return 0
    words=$(printf '%s\n' "$words" | grep -v -e ' records ' -e ' copied')
    return 1
}

# keep_diverged: copies to STATE/diverged what is lost by the plan; removed files
# are linked where that is possible.  Sets kept_in; fails with words.
keep_diverged() {
    kept_in=$state/diverged/$(date -u +%Y%m%d%H%M%S)
    list_overwritten
    words=$(as_owner sh -c '
        umask 077
        mkdir -p "$2/data/global" "$2/data/pg_wal" && cd "$1" || exit
        sed -n "s/^pg_rewind: \(.*\) (\([A-Z_]*\))\$/\2 \1/p" "$3" |
            while read -r action file; do
                case $action in
                    COPY | REMOVE) ;;
                    *) continue ;;
                esac
                [ -f "$file" ] && [ ! -L "$file" ] || continue
                mkdir -p "$2/data/$(dirname "$file")" || exit
                [ "$action" = COPY ] || ! ln "$file" "$2/data/$file" 2>/dev/null || continue
                cp -p "$file" "$2/data/$file" || exit
            done || exit
        cp -p global/pg_control "$2/data/global/" || exit
        for file in pg_wal/*; do
            name=${file#pg_wal/}
            case $name in
                *.history) ;;
                *[!0-9A-F]*) continue ;;
                ????????????????????????)
                    [ "$(printf "%s\n" "${name#????????}" "$4" | sort | head -n 1)" = "$4" ] || continue
                    ;;
                *) continue ;;
            esac
            [ -e "$2/data/$file" ] || cp -p "$file" "$2/data/$file" || exit
        done
        cp "$3" "$2/plan" || exit
        sync -f "$2" 2>/dev/null || sync' sh "$pgdata" "$kept_in" "$plan_dir/plan" "$(fork_segment)" 2>&1) &&
        keep_overwritten && return 0
    words=$(printf '%s\n' "$words" | tail -n 1 | cleaned 500)
    as_owner rm -rf "$kept_in"
    return 1
}

# fork_segment: the name, without timeline, of the segment of the fork
fork_segment() {
    printf '%s\n' "$fork_line" | {
        read -r line from to
        name=$(segment_name "$line" "$(segment_number "$from")")
        printf '%s' "${name#????????}"
    }
}

# restore_own_files: puts back what is not PostgreSQL's own, from the copies, and
# removes what has come along
restore_own_files() {
    as_owner sh -c '
        cd "$1" || exit
        sed -n "s/^pg_rewind: \(.*\) (\([A-Z_]*\))\$/\2 \1/p" "$2/plan" |
            while read -r action file; do
                case $file in
                    base/* | global/* | pg_commit_ts/* | pg_dynshmem/* | \
                        pg_logical/* | pg_multixact/* | pg_notify/* | \
                        pg_replslot/* | pg_serial/* | pg_snapshots/* | pg_stat/* | \
                        pg_stat_tmp/* | pg_subtrans/* | pg_tblspc/* | \
                        pg_twophase/* | pg_wal/* | pg_xact/* | PG_VERSION | \
                        backup_label | tablespace_map | backup_manifest | \
                        standby.signal | recovery.signal | postmaster.* | \
                        current_logfiles) continue ;;
                esac
                case $action in
                    COPY | REMOVE) ;;
                    *) continue ;;
                esac
                if [ -f "$2/data/$file" ]; then
                    mkdir -p "$(dirname "$file")" &&
                        cp -p "$2/data/$file" "$file.pg_replica_kit" &&
                        mv -f "$file.pg_replica_kit" "$file" || exit
                elif [ "$action" = COPY ]; then
                    rm -f "$file" || exit
                fi
            done' sh "$pgdata" "$kept_in"
}

# ----------------------------------------------------------------- the step

# try_rewind: ends the script if the data streams after a rewind; else says why
# not, and nothing runs.
try_rewind() {
    [ -n "$rewindable" ] || return 0
    why_not=
    if ! recover_old "$bindir/postgres" --single -F; then
        why_not="the recovery of this data failed: $words"
    elif ! plan_rewind "$bindir/pg_rewind" -n --debug; then
        why_not=$words
    elif ! keep_diverged; then
        why_not="what it would discard cannot be kept in \"$state/diverged\": $words"
    elif ! rewind_fits; then
        why_not=$words
        as_owner rm -rf "$kept_in"
    fi
    if [ -n "$why_not" ]; then
        remove_plan_dir
        say "not by rewind: $why_not"
        return 0
    fi
    say "rewinding: about $moved MB from $prk_host, port $prk_port; WAL, files and blocks that only this data has are kept in $kept_in"
    rewind "$bindir/pg_rewind"
    if [ -n "$untouched" ]; then
        say "not by rewind: $words"
        as_owner rm -rf "$kept_in"
        return 0
    elif [ -z "$rewound" ]; then
        say "the rewind failed, and no server can use this data any more: $words"
        return 0
    fi
    if [ -z "$start" ]; then
        say "the replica is ready; start it with: $(start_words)"
        exit 0
    fi
    find_log
    if launch && streaming_within 20 && restart_replays; then
        say "replica \"$prk_name\" streams from $prk_host, port $prk_port: $proof; it was rewound, nothing has been cloned"
        exit 0
    fi
    give_up_restart
}

# rewind_fits: is there room for what is fetched, but for what is overwritten in
# place?  Fails with words.
rewind_fits() {
    room=$(as_owner df -Pk "$pgdata" | awk 'NR == 2 { print int($4 / 1024) }')
    need=$(as_owner sh -c 'grep -c "^pg_rewind: block [0-9]*\$" "$1/plan"' sh "$plan_dir")
    need=$(calc "int($moved - $need * $(control_value 'Database block size') / 1048576) +
        int(2 * $prk_segment_size / 1048576)")
    [ "$need" -gt "$room" ] || return 0
    words="not enough disk space: it needs $need MB in \"$pgdata\", there are $room MB"
    return 1
}

# rewind COMMAND: sets rewound, or words; and untouched, if it has not begun
rewind() {
    renew_slot
    as_owner sh -c '
        printf "%s\n" "$2" >"$1/rewinding" && echo rewinding >"$3/PG_VERSION" || exit
        sync -f "$3/PG_VERSION" 2>/dev/null || sync' sh \
        "$state" "$kept_in" "$pgdata" || fail 1 "could not write to \"$pgdata\""
    rewind_options
    eval "set -- \"\$@\" $options"
    start_job "$@"
    await_job clone_words "pg_rewind has done nothing" go_on
    rewound=
    untouched=
    moved=
    words=$(as_owner tail -n 1 "$state/clone.out" | rewind_words)
    words=${overdue:-$words}
    [ "$status" -ne 0 ] || find_moved "$pgdata"
    if [ -n "$moved" ]; then
        words=$moved
        half_rewound=$kept_in
    elif [ "$status" -eq 0 ]; then
        rewound=yes
    elif ! as_owner grep -q '^pg_rewind: need to copy ' "$state/clone.out"; then
        # what it says before it touches anything
        untouched=yes
    else
        half_rewound=$kept_in
    fi
    remove_plan_dir
    end_rewind_right
    if [ -n "$rewound" ]; then
        restore_own_files ||
            fail 1 "could not put back the configuration in \"$pgdata\"" \
                "It is in $kept_in/data; run this script again."
        make_standby
    elif [ -z "$untouched" ]; then
        return 0
    fi
    as_owner sh -c '
        echo "$2" >"$1/PG_VERSION" || exit
        sync -f "$1" 2>/dev/null || sync
        rm -f "$3"' sh \
        "$pgdata" "$prk_major" "$state/rewinding" ||
        fail 1 "could not write to \"$pgdata\""
}

# end_rewind_right: the last that is done with it
end_rewind_right() {
    as_rewinder ask 'SELECT replica_kit.end_rewind()' ||
        say "note: role \"${prk_name}_rewind\" may read files on the upstream until its time is over: $said; to end that, run there: SELECT replica_kit.revoke_rewind('$prk_name');"
}
