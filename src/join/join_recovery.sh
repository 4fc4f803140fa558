
# ======================================================================
# What recovery reads: settings that only a standby heeds, the server's
# command line, and restore_command
# ======================================================================
#
# A primary ignores these settings, so an old one may stand in its files for
# years.  In a standby it ends recovery, promotes the server at the next commit,
# or runs a program.  So what is not the default is reset in
# postgresql.auto.conf, which wins over every other file, and named.

# recovery_defaults: name and harmless value of each
recovery_defaults() {
    echo recovery_target
    echo recovery_target_lsn
    echo recovery_target_name
    echo recovery_target_time
    echo recovery_target_xid
    echo recovery_target_action pause
    echo recovery_target_inclusive on
    echo recovery_target_timeline latest
    echo recovery_min_apply_delay 0
    echo restore_command
    echo archive_cleanup_command
    echo recovery_end_command
    [ "$prk_major" -gt 15 ] || echo promote_trigger_file
}

# config_options DIR: sets options, for a server or "postgres -C", of what is
# in the data directory; the reader does: eval "set -- $options"
config_options() {
    set -- "$(conf_place "$1")"
    options="-D $(sh_quote "$1")"
    if [ -n "$cluster" ]; then
        options="$options -c $(sh_quote "config_file=$confdir/postgresql.conf")"
        options="$options -c $(sh_quote "data_directory=$1")"
    fi
}

sh_quote() {
    printf "'%s'" "$(sed "s/'/'\\\\''/g" <<EOT
$1
EOT
)"
}

# may_set_recovery DIR: can its files set any?  Without an include, what is not
# in these two files is nowhere; asking the server takes a while.
may_set_recovery() {
    if [ -n "$cluster" ]; then
        set -- "$confdir/postgresql.conf" "$1/postgresql.auto.conf"
    else
        set -- "$1/postgresql.conf" "$1/postgresql.auto.conf"
    fi
    as_owner cat "$@" 2>/dev/null |
        grep -i -q -e '^[[:space:]]*include' -e '^[[:space:]]*recovery_' \
            -e '^[[:space:]]*restore_command' \
            -e '^[[:space:]]*archive_cleanup_command' \
            -e '^[[:space:]]*promote_trigger_file'
}

# recovery_set DIR: the names of those that are not at their default for the
# server in DIR, or cannot be read.  Two targets are an error to the server, so
# each is read with the others reset.
recovery_set() {
    may_set_recovery "$1" || return 0
    config_options "$1"
    eval "set -- $options"
    recovery_defaults | as_owner sh -c '
        seconds=$1
        postgres=$2
        shift 2
        value_of() {
            asked=$1
            shift
            for target in "" _lsn _name _time _xid; do
                [ "recovery_target$target" = "$asked" ] ||
                    set -- "$@" -c "recovery_target$target="
            done
            timeout -k 2 "$seconds" "$postgres" "$@" -C "$asked" 2>/dev/null
        }
        while read -r name default; do
            value=$(value_of "$name" "$@")
            case $?:$value in
                124:* | 137:*) exit 124 ;;
                0:"$default") ;;
                *) printf "%s\n" "$name" ;;
            esac
        done' sh "$program_seconds" "$bindir/postgres" "$@"
    in_time "$?" "$program_seconds" postgres
}

# reset_recovery DIR: resets in DIR what is not to be kept, and names both.  A
# line in postgresql.auto.conf is removed; only where another file sets it, too,
# a line with the default is put there: beside one that resets a target, the
# server would refuse any other.
reset_recovery() {
    resets=
    kept=
    for name in $(recovery_set "$1"); do
        case $name in
            restore_command)
                [ -z "$restore_command" ] || continue
                ;;
            archive_cleanup_command | recovery_end_command)
                resets="$resets $name"
                continue
                ;;
        esac
        if [ -n "$keep_recovery" ]; then
            kept="$kept $name"
        else
            resets="$resets $name"
        fi
    done
    if [ -n "$resets" ]; then
        case $resets in
            *' recovery_target '*' restore_command '*' recovery_end_command'*)
                # all of them, since none could be read
                say "the configuration cannot be read here: whatever recovery would read is reset" ;;
            *) say "settings that recovery would read are reset: $(commas "$resets")" ;;
        esac
        printf '%s\n' "$resets" | tr ' ' '\n' | auto_conf "$1"
        for name in $(recovery_set "$1"); do
            case " $resets " in
                *" $name "*)
                    printf "%s = '%s'\n" "$name" "$(recovery_defaults |
                        sed -n "s/^$name //p")"
                    ;;
            esac
        done | auto_conf "$1"
    fi
    [ -z "$kept" ] ||
        say "settings that recovery reads are kept, as --keep-recovery-settings asks: $(commas "$kept")"
    if [ -n "$restore_command" ]; then
        say "$restore_said"
        printf 'restore_command = %s\n' "$(conf_quote "$restore_command")" |
            auto_conf "$1"
    fi
}

# commas WORDS
commas() {
    printf '%s\n' "$1" | sed 's/^ *//; s/ /, /g'
}

# ------------------------------------------------------------ command line

# forced_in: those settings that the command line in the input sets to anything
# but nothing.  It wins over every file.
forced_in() {
    {
        recovery_defaults
        echo primary_conninfo
        echo primary_slot_name
        echo
        sed '/^[[:space:]]*#/d' | tr 'A-Z-' 'a-z_'
    } | awk '
        !names_end && NF { name[++count] = $1; next }
        !names_end { names_end = 1; next }
        {
            for (i = 1; i <= count; i++) {
                rest = $0
                while (match(rest, "(^|[^a-z0-9_])(__|_c)?" name[i] "[[:space:]]*=")) {
                    rest = substr(rest, RSTART + RLENGTH)
                    if (rest !~ /^(\047\047|"")/ && rest !~ /^["\047]?([[:space:]]|$)/)
                        found[i] = 1
                }
            }
        }
        END {
            for (i = 1; i <= count; i++)
                if (found[i])
                    print name[i]
        }'
}

# is_ending NAME: does it end recovery, promote the server, or have it receive
# from elsewhere?  The others only slow it down.
is_ending() {
    case $1 in
        recovery_target_inclusive) return 1 ;;
        recovery_target* | promote_trigger_file | primary_*) return 0 ;;
    esac
    return 1
}

# check_command_line: what would start the server must not set what ends
# recovery.
check_command_line() {
    [ -n "$start" ] || return 0
    if [ -n "$start_command" ]; then
        place="--start-command"
        words=$(printf '%s\n' "$start_command" | forced_in)
    elif [ -n "$cluster" ]; then
        place="\"$confdir/pg_ctl.conf\""
        words=$(as_owner cat "$confdir/pg_ctl.conf" 2>/dev/null | forced_in)
    elif is_by_unit; then
        place="unit $unit"
        words=$(timeout -k 2 "$program_seconds" systemctl show -p ExecStart -p Environment \
            "$unit.service" 2>/dev/null | forced_in)
    else
        return 0
    fi
    for name in $words; do
        if [ -z "$keep_recovery" ] && is_ending "$name"; then
            fail 12 "$place sets $name on the server's command line, which wins over every file" \
                "With it, the server would not stay this replica: remove it there and run this script again."
        fi
        say "note: $place sets $name on the server's command line, which wins over every file: it stays in force"
    done
}

# forced_ending: such a setting on the command line of the server that runs
forced_ending() {
    for name in $(as_owner cat "$pgdata/postmaster.opts" 2>/dev/null |
        forced_in); do
        if is_ending "$name"; then
            printf '%s' "$name"
            return
        fi
    done
}

# check_standby_target: a replica that is only started, not rebuilt, keeps its
# settings; but one that would end its recovery is not started.
check_standby_target() {
    [ -z "$keep_recovery" ] || return 0
    for name in $(recovery_set "$pgdata"); do
        case $name in
            recovery_target | recovery_target_lsn | recovery_target_name | \
                recovery_target_time | recovery_target_xid)
                fail 12 "$name is set in the replica's configuration: its recovery would end there" \
                    "To reset it, run this script with --rebuild; to have it, add --keep-recovery-settings."
                ;;
        esac
    done
}

# ---------------------------------------------------------- restore_command

# A restore_command of this machine's own, or of --restore-command, is used if
# it fetches WAL here.  One that comes with the clone was written for another
# machine, and is not even tried.
check_restore_command() {
    case $dir_state:$rebuild in
        moving:* | standby: | running:)
            [ -z "$restore_command" ] ||
                fail 2 "--restore-command is for a clone" \
                    "The replica is there already: add --rebuild, or set restore_command there."
            return 0
            ;;
    esac
    restore_said="restore_command is set: it fetches WAL on this machine"
    if [ -n "$restore_command" ]; then
        fetches "$restore_command" ||
            fail 2 "--restore-command does not fetch WAL segment $segment: $why" \
                "Run it by hand as user \"$owner\", from an empty directory."
        ! fetches_elsewhere "$restore_command" ||
            fail 2 "--restore-command fetches $segment, of a timeline that the upstream is not on" \
                "With it, the replica would follow that one. Was a replica promoted that archives to the same place?"
        return 0
    fi
    value=$(local_restore_command)
    [ -n "$value" ] || return 0
    if [ -n "$keep_recovery" ]; then
        restore_command=$value
        restore_said="restore_command is kept, as --keep-recovery-settings asks"
    elif fetches "$value"; then
        if fetches_elsewhere "$value"; then
            say "note: restore_command fetches $segment, of a timeline that the upstream is not on and that the replica would follow: it is reset"
        else
            restore_command=$value
        fi
    else
        say "note: restore_command does not fetch WAL segment $segment on this machine, and is reset: $why"
    fi
}

# local_restore_command: what the files on this machine say before a clone
local_restore_command() {
    case $dir_state in
        standby | running | old) setting_in "$pgdata" restore_command ;;
        *)
            [ -n "$cluster" ] && [ -e "$confdir/postgresql.conf" ] ||
                return 0
            tells "$bindir/postgres" -D "$confdir" -C restore_command
            ;;
    esac
}

# segment_name TIMELINE NUMBER: the file name of a WAL segment; numbers count
# from 0
segment_name() {
    printf '%08X%08X%08X' "$1" \
        "$(calc "int($2 / (4294967296 / $prk_segment_size))")" \
        "$(calc "$2 % (4294967296 / $prk_segment_size)")"
}

# fetches COMMAND: does it fetch one of the last complete segments, as the
# server would have it do?  Sets segment and why.
fetches() {
    ask IDENTIFY_SYSTEM || fail 4 "the upstream server no longer answers: $said"
    timeline=$(upstream_number 2 10) || not_upstream "its timeline"
    lsn=$(upstream_lsn 3) || not_upstream "its WAL position"
    number=$(calc "$(printf '%d' "0x${lsn%/*}") * (4294967296 / $prk_segment_size) +
        int($(printf '%d' "0x${lsn#*/}") / $prk_segment_size)")
    segment=$(segment_name "$timeline" "$((number > 0 ? number - 1 : 0))")
    first=$segment
    first_why=
    for back in 1 2 3; do
        [ "$number" -gt "$back" ] || break
        for line in "$timeline" "$((timeline - 1))"; do
            [ "$line" -gt 0 ] || continue
            segment=$(segment_name "$line" "$((number - back))")
            if fetch_segment "$1" "$segment"; then
                return 0
            fi
            ! stops_recovery || return 1
            [ "$segment" != "$first" ] || first_why=$why
        done
    done
    segment=$first
    why=${first_why:-the upstream has no complete one yet}
    return 1
}

# fetches_elsewhere COMMAND: does it fetch the history of a timeline that is newer
# than the upstream's?  Recovery would go there.  Sets segment.
fetches_elsewhere() {
    segment=$(printf '%08X.history' "$((timeline + 1))")
    ! fetch_segment "$1" "$segment" || return 0
    case $why in
        *'status 0, but the file has '[1-9]*) return 0 ;;
    esac
    return 1
}

# stops_recovery: is $why more than a segment that is not there?  A server that
# recovers stops when its restore_command ends with more than 125, and waits
# without end for one that does not end; see RestoreArchivedFile().
stops_recovery() {
    case $why in
        'it did not end within '* | *', with which a server stops') return 0 ;;
    esac
    return 1
}

# fetch_segment COMMAND SEGMENT: into a temporary directory, which is removed.
# Sets why.
fetch_segment() {
    why=$(as_owner sh -c '
        umask 077
        cd / && directory=$(mktemp -d) || exit
        trap "rm -rf \"\$directory\"" EXIT
        cd "$directory" || exit
        file=$directory/RECOVERYXLOG
        command=$(printf "%s\n" "$1" | awk -v segment="$2" -v file="$file" "{
            out = \"\"
            for (i = 1; i <= length(\$0); i++) {
                c = substr(\$0, i, 2)
                if (c == \"%p\") { out = out file; i++ }
                else if (c == \"%f\" || c == \"%r\") { out = out segment; i++ }
                else if (c == \"%%\") { out = out \"%\"; i++ }
                else out = out substr(\$0, i, 1)
            }
            print out
        }")
        timeout -k 2 "$4" sh -c "$command" </dev/null >/dev/null 2>&1 9>&- 7>&-
        status=$?
        size=$(wc -c 2>/dev/null <"$file") || size=0
        if [ "$status" -eq 124 ] || [ "$status" -eq 137 ]; then
            echo "it did not end within $4 seconds"
        elif [ "$status" -gt 125 ]; then
            echo "it ended with status $status, with which a server stops"
        elif [ "$status" -ne 0 ]; then
            echo "it ended with status $status"
        elif [ "$size" -ne "$3" ]; then
            echo "it ended with status 0, but the file has $((size)) bytes"
        elif [ "$(od -An -v -tu8 -j 24 -N 8 "$file" | tr -d " ")" != "$5" ]; then
            # see XLogLongPageHeaderData
            echo "it ended with status 0, but the file is of another cluster"
        fi' sh "$1" "$2" "$prk_segment_size" "$restore_seconds" "$prk_system_id" 2>/dev/null) ||
        why="user \"$owner\" could not make a temporary directory"
    [ -z "$why" ]
}
