
# ======================================================================
# Does the data fit the upstream's history?  For --follow and --demote
# ======================================================================

unfit=

# For awk: a position as text that sorts as it does.
# shellcheck disable=SC2034 # join_moved.sh reads it, too
padded_lsn='
    function padded(lsn) {
        split(lsn, half, "/")
        return sprintf("%8s%8s", half[1], substr("00000000" half[2], length(half[2]) + 1))
    }'

# control_value NAME: a line of pg_controldata
control_value() {
    tells "$bindir/pg_controldata" -D "$pgdata" | sed -n "s/^$1: *//p"
}

# own_timeline: the newest one of which there is WAL
own_timeline() {
    newest=$(as_owner ls "$pgdata/pg_wal" 2>/dev/null |
        grep -x '[0-9A-F]\{24\}' | sort | tail -n 1)
    newest=$((0x0${newest%????????????????}))
    for number in "$(control_value "Latest checkpoint's TimeLineID")" \
        "$(control_value "Min recovery ending loc's timeline")"; do
        case $number in
            '' | *[!0-9]*) ;;
            *) [ "$number" -le "$newest" ] || newest=$number ;;
        esac
    done
    printf '%s' "$newest"
}

# forks < HISTORY FILE: a line of timeline and position for each fork in it
forks() {
    tr -d '\r' | sed -n 's/^\([0-9]\{1,10\}\)	\([0-9A-F]\{1,8\}\/[0-9A-F]\{1,8\}\)	.*/\1 \2/p' |
        sed 's/ \(.*\)\/0*\([0-9A-F]\)/ \1\/\2/'
}

# upstream_forks: the same, of the answer to TIMELINE_HISTORY
upstream_forks() {
    printf '%s\n' "$answer" | sed '1s/^[0-9A-F]*\.history|//' | forks
}

# ask_history TIMELINE: sets history, the forks before that timeline of the
# upstream's; fails as ask() does
ask_history() {
    history=
    [ "$1" -gt 1 ] || return 0
    answer_bytes=60000
    ask "TIMELINE_HISTORY $1"
    asked=$?
    answer_bytes=1000
    [ "$asked" -eq 0 ] || return "$asked"
    history=$(upstream_forks)
}

# read_wal TIMELINE LSN [OPTION]...: what pg_waldump shows from there on.  That may
# take long, but not its first record.
read_wal() {
    line=$1
    from=$2
    shift 2
    tells "$bindir/pg_waldump" -p "$pgdata/pg_wal" -t "$line" -s "$from" -n 1 \
        >/dev/null
    as_owner timeout -k 2 "$clone_seconds" "$bindir/pg_waldump" -p "$pgdata/pg_wal" \
        -t "$line" -s "$from" "$@" 2>/dev/null
    in_time "$?" "$clone_seconds" pg_waldump
}

# last_record LSN TIMELINE: where the last record begins that there is at LSN
# or behind; nothing if there is none.
#
# What lies behind the end of the WAL in a file is older WAL, and may look like
# a record.  So records are read from well before, each of which names the
# previous one.
last_record() {
    [ -x "$bindir/pg_waldump" ] || return 0
    # in MB, since not every shell counts further than 2^31
    size=$((prk_segment_size / 1048576))
    high=$((0x${1%/*}))
    number=0000000${1#*/}
    number=${number#"${number%????????}"}
    number=$((0x${number%?????} / size))
    as_owner test -e "$pgdata/pg_wal/$(wal_name "$2" "$high" "$number")" ||
        return 0
    if [ "$number" -gt 0 ]; then
        before="$high $((number - 1))"
    else
        before="$((high - 1)) $((4096 / size - 1))"
    fi
    # shellcheck disable=SC2086 # two numbers
    if [ "$number" -gt 0 ] || [ "$high" -gt 0 ]; then
        set -- "$1" "$2" $before
        if as_owner test -e "$pgdata/pg_wal/$(wal_name "$2" "$3" "$4")"; then
            high=$3
            number=$4
        fi
    fi
    read_wal "$2" "$(printf '%X/%03X00000' "$high" "$((number * size))")" |
        awk -v from="$1" "$padded_lsn"'
            match($0, /, lsn: [0-9A-F]+\/[0-9A-F]+/) {
                lsn = substr($0, RSTART + 7, RLENGTH - 7)
                if (padded(lsn) >= padded(from))
                    last = lsn
            }
            END { print last }'
}

# wal_name TIMELINE HIGH NUMBER
wal_name() {
    printf '%08X%08X%08X' "$1" "$2" "$3"
}

# furthest LSN TIMELINE: sets position to how far the data is behind LSN, or
# to nothing if it is not.  A part of a record counts for nothing: replay stops
# before it.
furthest() {
    position=$(last_record "$1" "$2")
    for lsn in "$replayed" "$(control_value 'Minimum recovery ending location')" \
        "$(control_value 'Latest checkpoint location')"; do
        is_lsn "$lsn" || continue
        # replayed and minimum are ends of records, which may be the fork
        if ! lsn_reached "$1" "$lsn" && { [ -z "$position" ] ||
            lsn_reached "$lsn" "$position"; }; then
            position=$lsn
        fi
    done
}

# own_state: sets received, replayed, paused and delay, where somebody may log in
own_state() {
    received=
    replayed=
    paused=
    delay=
    [ -n "$(server_pid)" ] || return 0
    row=$(local_sql <<'EOF'
SELECT pg_last_wal_receive_lsn(), pg_last_wal_replay_lsn(),
    pg_get_wal_replay_pause_state(),
    current_setting('recovery_min_apply_delay')
    WHERE pg_is_in_recovery();
EOF
    )
    received=$(field 1)
    replayed=$(field 2)
    paused=$(field 3)
    delay=$(field 4)
}

# Sets unfit: why this data cannot go on with the upstream's WAL, or nothing.
# The own position is read first, so that it is not ahead of an upstream that
# goes on.
check_history() {
    unfit=
    own_state
    timeline=$(own_timeline)
    ask IDENTIFY_SYSTEM || fail 4 "the upstream server no longer answers: $said"
    theirs=$(upstream_number 2 10) || not_upstream "its timeline"
    target=$(upstream_lsn 3) || not_upstream "its WAL position"
    is_standby=
    ask "SHOW in_hot_standby" ||
        fail 6 "the upstream server does not tell whether it is a standby: $said"
    [ "$(upstream_name 1)" != on ] || is_standby=yes
    if [ "$timeline" -gt "$theirs" ]; then
        unfit="the data here is on timeline $timeline, that server on $theirs"
        return 0
    fi
    fork=
    if [ "$theirs" -gt 1 ]; then
        ask_history "$theirs" ||
            fail 6 "the upstream server does not tell its history: $said"
        file=$(printf '%s/pg_wal/%08X.history' "$pgdata" "$timeline")
        strange=$(as_owner cat "$file" 2>/dev/null | forks |
            while read -r line; do
                printf '%s\n' "$history" | grep -x -q -F -e "$line" ||
                    printf '%s\n' "$line"
            done)
        fork=$(printf '%s\n' "$history" | sed -n "s/^$timeline //p" | head -n 1)
        if [ -n "$strange" ]; then
            strange=${strange%%"$newline"*}
            fork=$(printf '%s\n' "$history" | sed -n "s/^${strange% *} //p" | head -n 1)
            unfit="the data here has left timeline ${strange% *} at ${strange#* }, and that server has left it at ${fork:-no position}"
        elif [ "$timeline" != "$theirs" ] && ! is_lsn "$fork"; then
            unfit="timeline $timeline of the data here is not in the history of that server's timeline $theirs"
        fi
        [ -z "$unfit" ] || return 0
    fi
    if [ "$timeline" != "$theirs" ]; then
        furthest "$fork" "$timeline"
        [ -z "$position" ] ||
            unfit="the data here has WAL up to $position on timeline $timeline, and that server has left timeline $timeline at $fork"
    elif [ -z "$is_standby" ]; then
        if [ -n "$(server_pid)" ]; then
            position=
            for lsn in "$received" "$replayed"; do
                if is_lsn "$lsn" && ! lsn_reached "$target" "$lsn"; then
                    position=$lsn
                fi
            done
        else
            furthest "$target" "$timeline"
        fi
        [ -z "$position" ] ||
            unfit="the data here has WAL up to $position on timeline $timeline, and that server only up to $target"
    fi
}
