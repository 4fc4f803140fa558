
# ======================================================================
# Which WAL a replica that is there still needs, and who has it: the upstream,
# or an archive
# ======================================================================
#
# What the upstream has from on, it has all.  So the segment at the replica's own
# position is asked for; and of an archive the first segment and the last, each
# as the server would have it fetched.  restore_command is this machine's own or
# the command line's, never the upstream's.

gap=
gap_words=

# segment_number LSN
segment_number() {
    calc "$(printf '%d' "0x${1%/*}") * (4294967296 / $prk_segment_size) +
        int($(printf '%d' "0x${1#*/}") / $prk_segment_size)"
}

# segment_start NUMBER: the position where a segment begins
segment_start() {
    printf '%X/%08X' "$(calc "int($1 / (4294967296 / $prk_segment_size))")" \
        "$(calc "$1 % (4294967296 / $prk_segment_size) * $prk_segment_size")"
}

# own_position: how far the WAL here goes; nothing if that cannot be told
own_position() {
    if is_lsn "$received"; then
        printf '%s' "$received"
        return 0
    fi
    lsn=$(control_value 'Minimum recovery ending location')
    case $lsn in
        0/0 | '') lsn=$(control_value 'Latest checkpoint location') ;;
    esac
    is_lsn "$lsn" || return 0
    further=$(last_record "$lsn" "$(own_timeline)")
    printf '%s' "${further:-$lsn}"
}

# upstream_has NUMBER TIMELINE: does it still have that segment?  It is asked to
# stream it, without a slot, and to stop at once.
upstream_has() {
    [ "$1" -gt 0 ] && [ -x "$bindir/pg_receivewal" ] || return 1
    passfile_line | as_owner sh -c '
        cd / && umask 077 && secret=$(mktemp) && directory=$(mktemp -d) || exit
        exec 8<>"$secret" 2>/dev/null
        rm -f "$secret"
        cat >&8
        trap "rm -rf \"\$directory\"" EXIT
        # begins behind the newest file that is there, which nobody reads
        dd if=/dev/null of="$directory/$1" bs="$2" seek=1 2>/dev/null || exit
        shift 2
        timeout -k 2 "$@" -D "$directory" </dev/null >/dev/null 2>&1' sh \
        "$(segment_name "$2" "$(($1 - 1))")" "$prk_segment_size" \
        "$answer_seconds" "$bindir/pg_receivewal" -n -w --no-sync \
        -E "$(segment_start "$1" | sed 's/0$/8/')" \
        -d "$(conninfo /dev/fd/8 here) connect_timeout=$connect_seconds application_name=pg_replica_kit-script" \
        7>&- 9>&-
    in_time "$?" "$answer_seconds" pg_receivewal
}

# find_gap: sets gap, how many segments neither this data nor the upstream has,
# with first and last, or to nothing.  After the slot has been re-created, its
# position is where the upstream's WAL begins for sure.
find_gap() {
    gap=
    gap_words=
    lsn=$(own_position)
    timeline=$(own_timeline)
    is_lsn "$lsn" || return 0
    first=$(segment_number "$lsn")
    # It has the one that it writes, even if there is nothing in that yet.
    ask IDENTIFY_SYSTEM && upstream_lsn 3 >/dev/null || return 0
    [ "$first" -lt "$(segment_number "$(upstream_lsn 3)")" ] || return 0
    ! upstream_has "$first" "$timeline" || return 0
    if ! ask_slot || [ -z "$lsn" ] || [ -n "$slot_lost" ]; then
        ask IDENTIFY_SYSTEM || return 0
        lsn=$(upstream_lsn 3) || return 0
    fi
    last=$(($(segment_number "$lsn") - 1))
    [ "$last" -lt "$first" ] || gap=$((last - first + 1))
}

# judge_archive: are the segments of the gap in an archive?  Sets gap_words, with
# an estimate, or says why not and fails.
judge_archive() {
    gap_words=
    if [ -z "$restore_command" ]; then
        say "not from the archive: no restore_command is set on this machine; --restore-command gives one"
        return 1
    fi
    began=$(date +%s)
    for number in "$first" "$last"; do
        tries=0
        # the last may be on its way there
        until fetch_any_line "$number"; do
            tries=$((tries + 1))
            if stops_recovery; then
                give_up_command "not from the archive"
                return 1
            elif [ "$number" -lt "$last" ] || [ "$tries" -ge 5 ]; then
                say "not from the archive: WAL segment $segment is not there: $why"
                return 1
            fi
            sleep 1
        done
    done
    seconds=$(($(date +%s) - began))
    gap_words="$gap WAL segments, $(calc "$gap * $prk_segment_size / 1048576") MB, from the archive, in about $(calc "int($seconds * $gap / 2) + 1") s"
}

# fetch_any_line NUMBER: by the name that the segment has on the newest timeline
# or, where that has forked later, on an earlier one.  Sets segment and why.
fetch_any_line() {
    ask IDENTIFY_SYSTEM && line=$(upstream_number 2 10) || line=$timeline
    while [ "$line" -ge "$timeline" ]; do
        segment=$(segment_name "$line" "$1")
        ! fetch_segment "$restore_command" "$segment" || return 0
        ! stops_recovery || return 1
        line=$((line - 1))
    done
    return 1
}

# give_up_command WORDS: with such a restore_command no server of ours recovers
give_up_command() {
    say "$1: restore_command fails for WAL segment $segment: $why; it is not used"
    restore_command=
    restore_option=
}

# explain_gap: after a start that was not enough: which segment was missing
explain_gap() {
    [ -n "$gap_words" ] || return 0
    received=
    number=$(segment_number "$(own_position)")
    if [ "$number" -le "$last" ] && ! fetch_any_line "$number"; then
        ! stops_recovery || {
            give_up_command "the archive is not enough"
            return 0
        }
        say "the archive is not enough: WAL segment $segment is not there: $why"
    else
        say "the archive is not enough: the replica has WAL up to $(own_position), and did not get what follows"
    fi
}

# archive_ending: what has become of a restore_command of the command line's
archive_ending() {
    [ -n "$restore_option" ] ||
        return 0
    say "note: restore_command stays set, as --restore-command says; to remove it, run on the replica: ALTER SYSTEM RESET restore_command; and reload"
}

# ----------------------------------------------------------- which step it is

# find_step: which step is the first that can be enough for a replica that is
# there, and not damaged: sets step, the last one if it is none, and step_words
find_step() {
    step=restart
    step_words=
    [ -z "$slot_lost" ] || step=slot
    [ -z "$slot_lost" ] || step_words=", with the slot re-created"
    find_gap
    [ -n "$gap" ] || return 0
    if judge_archive; then
        step=archive
        step_words="$step_words, with $gap_words"
    else
        step=$(last_step)
    fi
}

# last_step: which of the two that make a new data directory it is, by judge_delta
last_step() {
    [ -n "$delta" ] && printf 'changed blocks' || printf 'full clone'
}

# show_step: the first that can be enough for the replica that is there
show_step() {
    step=$(last_step)
    if [ -z "$full$missing" ] && [ -n "$start" ]; then
        check_slot_lost
        find_step
    fi
    say "step: $step"
    case $step in
        'full clone' | 'changed blocks') ;;
        *)
            say "- restart the server$step_words, and stop there if it streams; if not:"
            ;;
    esac
}

# check_slot_lost: check_slot, where the replica may hold the slot itself
check_slot_lost() {
    slot_lost=
    if ! ask_slot; then
        slot_lost=missing
    elif [ -z "$lsn" ]; then
        slot_lost=yes
    elif slot_is_lost; then
        slot_lost=yes
    fi
}
