
# ======================================================================
# Can the old data serve as the base for the changed blocks?
# ======================================================================
#
# PostgreSQL's own programs do not detect everything that makes a copy wrong.
# So this is checked here: that the old data belongs to the upstream's history
# (18 accepts data that has left it), that data checksums are as there, and
# which relations were truncated; see join_delta.sh for what is asked afterwards.
#
# delta is yes where it is possible, else no_delta says why not.

delta=
no_delta=
delta_bytes=
delta_all=
whole_bytes=
delta_unseen=
history=

# With more truncated files, or more questions, a whole clone is better.
most_limits=20000
most_questions=500

# cannot REASON: for a check that ends there
cannot() {
    no_delta=$1
    return 1
}

# judge_delta: sets delta, or no_delta; changes nothing
judge_delta() {
    delta=
    no_delta=
    [ "$prk_major" -ge 17 ] || return 0
    if judge_old_data && judge_upstream && judge_old_history && judge_changes &&
        judge_delta_space; then
        delta=yes
    fi
}

# say_no_delta: why a whole clone it is; nothing where nobody expects less
say_no_delta() {
    [ -z "$no_delta" ] ||
        say "not possible with the changed blocks only: $no_delta: cloning everything"
}

judge_old_data() {
    [ -z "$full" ] || cannot "--full is given" || return
    [ -z "$old_primary" ] || cannot "the old data is a primary's" || return
    [ -z "$unfit" ] || cannot "$unfit" || return
    words=$(missing_file)
    [ -z "$words" ] || cannot "\"$pgdata/$words\" is missing" || return
    # A person who stops before the start suspects the data, and blocks that
    # have not changed would stay as they are.
    [ -n "$start" ] || cannot "with --no-start the old data is taken to be damaged" ||
        return
    as_owner test -x "$bindir/pg_combinebackup" ||
        cannot "program \"pg_combinebackup\" is not installed" || return
    as_owner test -e "$pgdata/standby.signal" ||
        cannot "the old data is no standby's" || return
    ! as_owner test -e "$pgdata/backup_label" ||
        cannot "the old data is a base backup that was never consistent" || return
    case $(control_value 'Database cluster state') in
        'shut down in recovery' | 'in archive recovery') ;;
        *) cannot "the old data is in no recovery" || return ;;
    esac
    [ "$(control_system_id)" = "$prk_system_id" ] ||
        cannot "the old data is another cluster's" || return
    block_size=$(control_value 'Database block size')
    catalog=$(control_value 'Catalog version number')
    from=$(control_value "Latest checkpoint's REDO location")
    from_timeline=$(control_value "Latest checkpoint's TimeLineID")
    end=$(control_value 'Minimum recovery ending location')
    end_timeline=$(control_value "Min recovery ending loc's timeline")
    if [ "$end" = 0/0 ] || [ "$end" = 0/00000000 ]; then
        end=$from
        end_timeline=$from_timeline
    fi
    { is_lsn "$from" && is_lsn "$end" && is_number "$from_timeline" 10 &&
        is_number "$end_timeline" 10 && is_number "$block_size" 5 &&
        is_number "$catalog" 9; } ||
        cannot "the control file of the old data cannot be read"
}

judge_upstream() {
    ask "SHOW summarize_wal" || cannot "$said" || return
    [ "$(upstream_name 1)" = on ] ||
        cannot "summarize_wal is off on the upstream server" || return
    ask "SHOW data_checksums" || cannot "$said" || return
    case $(control_value 'Data page checksum version'):$(upstream_name 1) in
        0:off | 1:on) ;;
        *) cannot "data checksums were switched on or off since" || return ;;
    esac
}

# What the old data has replayed must be a part of what the upstream has: where
# it was left behind, blocks of the old data are newer than the fork and no
# summary tells of them.
judge_old_history() {
    ask IDENTIFY_SYSTEM || cannot "$said" || return
    theirs=$(upstream_number 2 10) || not_upstream "its timeline"
    target=$(upstream_lsn 3) || not_upstream "its WAL position"
    ask_history "$theirs" || cannot "$said" || return
    if [ "$end_timeline" -gt 1 ]; then
        file=$(printf '%s/pg_wal/%08X.history' "$pgdata" "$end_timeline")
        own=$(as_owner cat "$file" 2>/dev/null | forks)
        [ -n "$own" ] ||
            cannot "the history of timeline $end_timeline is not in the old data" ||
            return
        strange=$(printf '%s\n' "$own" | while read -r line; do
            printf '%s\n' "$history" | grep -x -q -F -e "$line" ||
                printf '%s\n' "$line"
        done)
        [ -z "$strange" ] ||
            cannot "the old data has left timeline ${strange%% *} where the upstream server has not" ||
            return
    fi
    is_in_history "$from_timeline" "$from" && is_in_history "$end_timeline" "$end"
}

# is_in_history TIMELINE LSN
is_in_history() {
    if [ "$1" = "$theirs" ]; then
        lsn_reached "$target" "$2" ||
            cannot "the old data has replayed to $2 on timeline $1, the upstream server has WAL only up to $target"
        return
    fi
    fork=$(fork_of "$1")
    is_lsn "$fork" ||
        cannot "timeline $1 of the old data is not in the upstream server's history" ||
        return
    lsn_reached "$fork" "$2" ||
        cannot "the old data has replayed to $2 on timeline $1, which the upstream server has left at $fork: it holds changes that the upstream never had"
}

fork_of() {
    printf '%s\n' "$history" | sed -n "s/^$1 //p" | head -n 1
}

# timeline_ranges TIMELINE FROM TIMELINE TO: a line of timeline, begin and end
# for each timeline between, on the upstream's history
timeline_ranges() {
    printf '%s\n' "$history" | awk -v first="$1" -v begin="$2" -v last="$3" -v to="$4" '
        NF == 2 && $1 + 0 >= first + 0 && $1 + 0 < last + 0 {
            print $1, begin, $2
            begin = $2
        }
        END { print last, begin, to }'
}

# upstream_files COLUMN: paths of the files that an answer of the kit's names
# from there on, a line each; behind some, which number of blocks the old data
# should have of it, and bytes.  All else in it is an error.
upstream_files() {
    printf '%s\n' "$answer" | awk -F '|' -v column="$1" -v catalog="PG_${prk_major}_$catalog" '
        {
            if (NR > 1)
                bad = 1
            for (i = column; i <= NF && !bad; i++) {
                if ($i !~ /^[0-9]+ [0-9]+ [0-9]+ [03] [0-9]+( [0-9]+ [0-9]+)?$/ || length($i) > 80) {
                    bad = 1
                    break
                }
                count = split($i, number, " ")
                if (count == 7 && (length(number[6]) > 9 || length(number[7]) > 15)) {
                    bad = 1
                    break
                }
                if (number[1] == 1664)
                    path = "global"
                else if (number[1] == 1663)
                    path = "base/" number[2]
                else
                    path = "pg_tblspc/" number[1] "/" catalog "/" number[2]
                path = path "/" number[3] (number[4] == 3 ? "_init" : "")
                path = path (number[5] == 0 ? "" : "." number[5])
                print path (count == 5 ? "" : " " number[6] " " number[7])
            }
        }
        END { exit bad }'
}

# ask_limits TIMELINE FROM TO: sets reached, up to where there are summaries, and
# gap, where the next one begins if some are missing; adds to limits, with what
# stands behind files, and to delta_bytes
ask_limits() {
    skip=0
    questions=0
    while :; do
        ask_kit "limits $1 $2 $3 $skip" ||
            cannot "the upstream server does not tell which relations were truncated" ||
            return
        reached=$(upstream_lsn 2) || not_upstream "its WAL summaries"
        case $(upstream_name 3) in
            t) ;;
            f) cannot "the upstream server's WAL summaries cannot be read in time" ||
                return ;;
            *) not_upstream "its WAL summaries" ;;
        esac
        gap=
        upstream_null 4 || gap=$(upstream_lsn 4) ||
            not_upstream "its WAL summaries"
        { number=$(upstream_number 5 15) && total=$(upstream_number 6 9) &&
            files=$(upstream_files 7); } || not_upstream "its WAL summaries"
        [ "$skip" -gt 0 ] || delta_bytes=$(calc "$delta_bytes + $number")
        [ "$total" -le "$most_limits" ] ||
            cannot "$total relations were truncated" || return
        if [ -n "$files" ]; then
            limits="$limits$files$newline"
            skip=$((skip + $(printf '%s\n' "$files" | wc -l)))
        elif [ "$skip" -lt "$total" ]; then
            not_upstream "its WAL summaries"
        fi
        [ "$skip" -lt "$total" ] || return 0
        questions=$((questions + 1))
        [ "$questions" -lt "$most_questions" ] || not_upstream "its WAL summaries"
    done
}

# find_limits TIMELINE FROM TIMELINE TO: sets limits, the files that were
# truncated in that range, grown, those that end with unused pages, and
# delta_bytes; complete if all of it is summarized, else reached up to where
find_limits() {
    limits=
    delta_bytes=0
    complete=yes
    while read -r timeline begin to; do
        # 19 writes positions with zeros that others leave out
        if [ "$(lsn_digits "$begin")" = "$(lsn_digits "$to")" ]; then
            continue
        fi
        ask_limits "$timeline" "$begin" "$to" || return
        [ -z "$gap" ] || no_summaries || return
        lsn_reached "$reached" "$to" || complete=
    done <<EOF
$(timeline_ranges "$1" "$2" "$3" "$4")
EOF
    grown=$(printf '%s' "$limits" | grep ' ')
    limits=$(printf '%s' "$limits" | grep -v ' ')
    limits=${limits:+$limits$newline}
}

# no_summaries: says why some are missing.  A timeline may begin with a WAL segment,
# and its summaries behind the header of that, which the server takes for a gap.
no_summaries() {
    words="summarize_wal was off, or they were removed after wal_summary_keep_time"
    if [ "$(lsn_digits "$reached")" = "$(lsn_digits "$begin")" ] &&
        [ "$(calc "($(lsn_bytes "$gap") - $(lsn_bytes "$begin") == 40)")" = 1 ]; then
        words="timeline $timeline begins exactly with a WAL segment, behind whose header the summaries begin"
    fi
    cannot "the upstream server has no WAL summaries from $reached to $gap: $words"
}

judge_changes() {
    [ -n "$facts" ] ||
        cannot "the upstream server does not preload pg_replica_kit, which knows the relations that were truncated" ||
        return
    find_limits "$from_timeline" "$from" "$theirs" "$target" || return
    delta_limits=$limits
    whole_bytes=$(always_whole)
    delta_bytes=$(calc "$delta_bytes + $whole_bytes + $prk_segment_size")
    delta_all=$(clone_size)
    add_grown
    [ "$(calc "($delta_bytes < $delta_all)")" = 1 ] ||
        cannot "about $(megabytes "$delta_bytes") MB would be fetched, and everything is $(megabytes "$delta_all") MB" ||
        return
    # What that has changed is not among them.
    delta_unseen=0
    [ -n "$complete" ] ||
        delta_unseen=$(calc "$(lsn_bytes "$target") - $(lsn_bytes "$reached")")
}

# lsn_bytes LSN: as a number
lsn_bytes() {
    calc "$(printf '%d' "0x${1%/*}") * 4294967296 + $(printf '%d' "0x${1#*/}")"
}

# Files that end with pages that are in no WAL, where the old data is shorter: a
# second backup would have to fetch them.
add_grown() {
    [ -n "$grown" ] || return 0
    words=$(printf '%s\n' "$grown" | as_owner sh -c '
        cd "$1" || exit
        while read -r name least more; do
            size=$(stat -c %s "$name" 2>/dev/null) || size=0
            [ "$((size / $2))" -ge "$least" ] || printf "%s %s\n" "$more" "$name"
        done' sh "$pgdata" "$block_size" | sort -u)
    [ -n "$words" ] || return 0
    delta_limits=$delta_limits$(printf '%s\n' "$words" | sed 's/^[0-9]* //')$newline
    delta_bytes=$(printf '%s\n' "$words" |
        awk -v sum="$delta_bytes" '{ sum += $1 } END { printf "%.0f", sum }')
}

# always_whole: bytes of the files that come whole in any case; those of the old
# data are about as many
always_whole() {
    as_owner sh -c '
        cd "$1" || exit
        for name in base/ global/ pg_tblspc/*/PG_*/ pg_xact/ pg_multixact/ \
            pg_commit_ts/ pg_logical/ pg_twophase/; do
            [ ! -d "$name" ] || find "$name" -type f -exec stat -c "%s %n" {} +
        done 2>/dev/null' sh "$pgdata" |
        awk -v relation="$relation_files" '
            $2 !~ relation { sum += $1 }
            END { printf "%.0f", sum }'
}

# Beside the old data must be room for what is fetched, and for what becomes of
# it.
judge_delta_space() {
    words=$(
        prk_tablespaces=$(printf '%s' "$prk_tablespaces" | awk -v more="$delta_bytes" '
            {
                size = $1
                sub(/^[^ ]* /, "")
                printf "%.0f %s\n", size + (more < size ? more : size), $0
            }')
        prk_tablespaces=${prk_tablespaces:+$prk_tablespaces$newline}
        prk_data_size=$(calc "$prk_data_size + $delta_bytes")
        check_space
    )
    [ -z "$words" ] ||
        cannot "not enough disk space for what is fetched beside the old and the new data: $words"
}

# unseen_words: what an estimate lacks, where it matters
unseen_words() {
    [ "$(calc "($delta_unseen * 10 > $delta_bytes)")" = 0 ] ||
        printf ', and what has changed in %s MB of WAL that is not summarized yet' \
            "$(megabytes "$delta_unseen")"
}

# megabytes BYTES
megabytes() {
    calc "int($1 / 1048576 + 0.5)"
}
