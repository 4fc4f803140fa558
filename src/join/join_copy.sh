
# ======================================================================
# A copy of the upstream's data directory, made while that was shut down
# ======================================================================
#
# As rsync makes it when pg_upgrade's standbys are upgraded with their primary.
# It is on the upstream's own timeline, so no history tells it from a server
# that has gone its own way since.  WAL does: the record of the checkpoint with
# which it was shut down, with its checksum and its link to the record before,
# stands at the same place in the upstream's WAL, or this is no copy.

# is_copy: has the upstream this directory's last checkpoint?  If not, sets why.
is_copy() {
    why=
    words=$(control_value 'Database cluster state')
    lsn=$(control_value 'Latest checkpoint location')
    timeline=$(control_value "Latest checkpoint's TimeLineID")
    if [ "$words" != 'shut down' ]; then
        why="its control file says \"$words\", not \"shut down\""
    elif ! is_lsn "$lsn" || [ -z "$timeline" ]; then
        why="its control file cannot be read"
    elif ! [ -x "$bindir/pg_waldump" ]; then
        why="pg_waldump is not installed here"
    elif ! [ -x "$bindir/pg_receivewal" ]; then
        why="pg_receivewal is not installed here"
    else
        compare_checkpoint
    fi
    [ -z "$why" ]
}

# The beginning of one WAL segment, up to the end of the record at $lsn.
compare_checkpoint() {
    number=$(calc "$(printf '%d' "0x${lsn%/*}") * (4294967296 / $prk_segment_size) +
        int($(printf '%d' "0x${lsn#*/}") / $prk_segment_size)")
    segment=$(segment_name "$timeline" "$number")
    length=$(tells "$bindir/pg_waldump" -p "$pgdata/pg_wal" \
        -t "$timeline" -s "$lsn" -n 1 |
        sed -n 's/^rmgr: XLOG .* len (rec\/tot): *[0-9]*\/ *\([0-9]\{1,4\}\), .* CHECKPOINT_SHUTDOWN .*/\1/p')
    if [ -z "$length" ]; then
        why="its last checkpoint is not in its WAL"
        return
    fi
    # Length and checksum are at the record's beginning: what page headers take
    # is not missed at its end.
    bytes=$(calc "$(printf '%d' "0x${lsn#*/}") % $prk_segment_size + $length")
    if [ "$bytes" -ge "$prk_segment_size" ]; then
        why="its last checkpoint crosses the end of a WAL segment"
        return
    fi
    say "asking the upstream for its WAL up to $lsn, the last checkpoint here"
    words=$(passfile_line | as_owner sh -c '
        seconds=$1
        shift
        cd / && umask 077 && directory=$(mktemp -d) || exit
        trap "rm -rf \"\$directory\"" EXIT
        cat >"$directory/passfile"
        # that is where it begins
        : >"$directory/$4.partial"
        timeout -k 2 "$seconds" "$1" -D "$directory" --no-loop --no-sync -w \
            --endpos="$2" -d "$3 passfile=$directory/passfile" \
            </dev/null >"$directory/words" 2>&1
        case $? in
            124 | 137) echo "pg_receivewal did not end within $seconds seconds" && exit ;;
        esac
        theirs=$directory/$4
        [ -e "$theirs" ] || theirs=$theirs.partial
        if ! [ -s "$theirs" ]; then
            sed -n "s/^pg_receivewal: error: //p" "$directory/words" | head -n 1
        elif [ "$(head -c "$5" "$theirs" | sha256sum)" = \
            "$(head -c "$5" "$6" | sha256sum)" ]; then
            echo same
        else
            echo other
        fi' sh "$stream_seconds" "$bindir/pg_receivewal" "$(lsn_plus "$lsn" "$length")" \
        "$(conninfo /nonexistent here) connect_timeout=$connect_seconds application_name=pg_replica_kit-script" \
        "$segment" "$bytes" "$pgdata/pg_wal/$segment" 2>/dev/null | cleaned 300)
    case $words in
        same) ;;
        other) why="the upstream has other WAL at $lsn" ;;
        *) why="the upstream does not send its WAL at $lsn${words:+: $words}" ;;
    esac
}

# lsn_plus LSN BYTES: within the same WAL segment
lsn_plus() {
    low=0000000${1#*/}
    low=${low#"${low%????????}"}
    sum=$((0x${low#????} + $2))
    printf '%s/%X%04X' "${1%/*}" "$((0x${low%????} + sum / 65536))" "$((sum % 65536))"
}
