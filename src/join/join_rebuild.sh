
# ======================================================================
# --rebuild: whose data may be replaced, what a restart can do, and the old
# data moved aside, put back, removed
# ======================================================================
#
# What is moved aside is written to STATE/aside before anything moves: one
# line for the data directory, one for each tablespace and WAL directory of
# its own.  With that file and no complete clone, the old data goes back; with
# a complete clone it becomes STATE/kept, and nothing goes back any more.

was_running=
waldir=
old_links=
old_primary=
old_named=
missing=

# ----------------------------------------------------------- whose data is it

# Refuses what --rebuild must not replace; else dir_state becomes "old".
check_old() {
    check_old_cluster
    as_owner test -e "$pgdata/standby.signal" || old_primary=yes
    has_our_settings || check_foreign_old
    if [ -n "$pid" ]; then
        fail 8 "a server (pid $pid) is running in \"$pgdata\"${old_primary:+, as a primary}" \
            "If it is to become a replica, stop it and run this script again."
    fi
    dir_state=old
}

check_old_cluster() {
    pid=$(live_pid)
    check_old_version
    system_id=$(control_system_id)
    case $system_id in
        '' | "$prk_system_id") ;;
        *) fail 8 "\"$pgdata\" is another cluster's: its system identifier is $system_id, not $prk_system_id" \
            "Nothing in it has been touched. Choose another directory." ;;
    esac
}

# The programs of one major version cannot read the data of another.
check_old_version() {
    version=$(as_owner sed -n '1s/^\([0-9]\{1,4\}\)$/\1/p' "$pgdata/PG_VERSION" 2>/dev/null)
    case $version in
        '' | "$prk_major") ;;
        *) fail 8 "\"$pgdata\" is of PostgreSQL $version, and this script is for $prk_major" \
            "pg_upgrade makes another cluster, which no old replica can follow. Make a new replica in another directory; this one serves reads meanwhile." ;;
    esac
}

# A directory of the same cluster that this script has not made.
check_foreign_old() {
    if [ -z "$system_id" ]; then
        fail 8 "cannot tell which server \"$pgdata\" is of: its control file cannot be read" \
            "If nobody needs it, move it away and run this script without --rebuild."
    fi
    if [ -n "$old_primary" ]; then
        [ -z "$pid" ] ||
            fail 8 "\"$pgdata\" is the upstream server's own data directory, or a copy of it" \
                "Choose another directory with --pgdata."
        [ -n "$demote" ] ||
            fail 8 "\"$pgdata\" is a primary's" \
                "If this primary is to become replica \"$prk_name\", add --demote."
        return 0
    fi
    slot_name=$(slot_setting)
    case $slot_name in
        "$prk_name") ;;
        '')
            # The upstream may be a standby, too.
            ! as_owner test -e "$pgdata/postmaster.pid" ||
                fail 8 "the standby in \"$pgdata\" is running, or did not end cleanly" \
                    "If it is to become replica \"$prk_name\", start it, stop it, and run this script again."
            ;;
        *)
            fail 8 "\"$pgdata\" is another standby's: it uses slot \"$slot_name\"" \
                "Use that replica's script: replica_kit.join_script($(sql_literal "$slot_name"))."
            ;;
    esac
}

# A primary's data on the upstream's own timeline is the upstream's, or a copy
# of it.  One that was promoted, or a former primary, is on another.  A copy
# that can be proved becomes a replica as a former primary does.
check_old_timeline() {
    [ "$dir_state" = old ] && [ -n "$old_primary" ] && ! was_rewinding || return 0
    timeline=$(control_value "Latest checkpoint's TimeLineID")
    ask IDENTIFY_SYSTEM || fail 4 "the upstream server no longer answers: $said"
    theirs=$(upstream_number 2 10) || not_upstream "its timeline"
    [ "$timeline" = "$theirs" ] || return 0
    [ -z "$demote" ] || ! is_copy || return 0
    hint="Choose another directory. If it was promoted by mistake, start it and stop it once, and run this script again."
    if [ -n "$demote" ]; then
        hint="It is not proved to be an unused copy of the upstream that was shut down: $why. $hint"
    fi
    fail 8 "\"$pgdata\" is the upstream server's own data directory, or a copy of it" \
        "$hint"
}

# What else belongs to the old data: a WAL directory of its own, and the
# tablespaces.
find_old_places() {
    old_links=$(as_owner sh -c '
        for link in "$1"/pg_tblspc/*; do
            readlink "$link"
        done' sh "$pgdata")
    waldir=$(as_owner readlink "$pgdata/pg_wal") || return 0
    dir=$waldir
    waldir=$(as_owner sh -c 'cd -P "$1" && cd -P "$2" 2>/dev/null && pwd' sh \
        "$pgdata" "$dir") ||
        fail 8 "the WAL directory \"$dir\" of the old data does not exist" \
            "Make it, or remove the symbolic link \"$pgdata/pg_wal\" to have the WAL in the data directory."
}

# is_old_tablespace LOCATION
is_old_tablespace() {
    [ -n "$old_links" ] && printf '%s\n' "$old_links" | grep -F -x -q -e "$1"
}

# old_tablespaces: all that the old data has, also those that the upstream has
# dropped since
old_tablespaces() {
    printf '%s\n' "$old_links" | while read -r location; do
        case $location in
            /*) ! as_owner test -d "$location" || printf '%s\n' "$location" ;;
        esac
    done
}

# Old data of an earlier rebuild is in the way of another.
check_kept() {
    if as_owner test -e "$state/kept"; then
        fail 8 "the old data of an earlier rebuild is still there: $(old_directory kept)" \
            "If nobody needs it, run: $(remove_words)"
    fi
    {
        printf '%s\n' "$state/old" "$pgdata/pg_replica_kit.old"
        old_tablespaces | sed 's|$|/pg_replica_kit.old|'
        clone_places | while read -r size location; do
            [ -z "$size" ] || printf '%s/pg_replica_kit.old\n' "$location"
        done
    } | while read -r place; do
        ! as_owner test -e "$place" ||
            fail 8 "\"$place\" is in the way" \
                "It is what an earlier rebuild has kept; move it away."
    done || exit
}

# ------------------------------------------------------------- a restart first

stop_server() {
    pid=$(live_pid)
    [ -n "$pid" ] || return 0
    say "stopping the server (pid $pid)"
    if [ -n "$cluster" ]; then
        outside timeout -k 5 "$start_seconds" pg_ctlcluster "$prk_major" \
            "$cluster" stop >/dev/null 2>&1
    elif is_by_unit; then
        outside timeout -k 5 "$start_seconds" systemctl stop "$unit"
    else
        as_owner timeout -k 5 "$start_seconds" "$bindir/pg_ctl" -D "$pgdata" -s -m fast -w -t 30 stop \
            >/dev/null 2>&1
    fi
    tries=0
    while [ "$(live_pid)" = "$pid" ]; do
        tries=$((tries + 1))
        if [ "$tries" -eq 1 ]; then
            as_owner kill -s INT "$pid"
        fi
        [ "$tries" -le 60 ] ||
            fail 8 "the server (pid $pid) in \"$pgdata\" does not stop"
        sleep 1
    done
}

# missing_file: what is missing in the data directory, if anything.  A replica
# can stream without: replay makes the directories again, and they stay empty.
missing_file() {
    as_owner sh -c '
        cd "$1" || exit
        for file in PG_VERSION global/pg_control global/pg_filenode.map \
            pg_xact/[0-9A-F]* pg_multixact/offsets/[0-9A-F]* \
            pg_multixact/members/[0-9A-F]* base/1; do
            [ -e "$file" ] || { echo "$file" && exit; }
        done
        for directory in base/[0-9]*; do
            for file in PG_VERSION pg_filenode.map; do
                [ -e "$directory/$file" ] ||
                    { echo "$directory/$file" && exit; }
            done
        done' sh "$pgdata"
}

# Ends the script if the replica streams after a restart, with its slot
# re-created where it was lost; else dir_state becomes "old", and nothing runs.
try_restart() {
    case $dir_state in
        standby | running) ;;
        *) return 0 ;;
    esac
    missing=$(missing_file)
    if [ -n "$missing$unfit$full" ] || [ -z "$start" ]; then
        # It will be cloned, so a running server is not stopped in vain.
        check_nesting
        check_kept
        (dir_state=old && check_disk) || exit
    fi
    own_state
    if [ -n "$(live_pid)" ]; then
        was_running=yes
        stop_server
    fi
    check_slot
    if [ -n "$full" ]; then
        say "everything is cloned, as --full says"
    elif [ -n "$missing" ]; then
        say "a restart is not enough: \"$pgdata/$missing\" is missing"
    elif [ -n "$unfit" ]; then
        say "a restart is not enough: $unfit"
    elif [ -n "$start" ]; then
        find_step
        say "trying first whether a restart is enough$step_words"
        renew_slot
        use_slot
        reset_recovery "$pgdata"
        keep_sizes
        find_log
        if launch && streaming_within 20 && restart_replays; then
            say "a restart was enough$step_words: replica \"$prk_name\" streams from $prk_host, port $prk_port: $proof; nothing has been rebuilt"
            [ -z "$gap_words" ] || archive_ending
            as_owner rm -f "$state/sizes"
            end_rebuild
            exit 0
        fi
        give_up_restart
        explain_gap
        # Whatever the slot holds, it is not what the old data needs.
        case $words in
            *"already been removed"* | *"can no longer"*)
                slot_lost=${slot_lost:-yes} ;;
        esac
    fi
    dir_state=old
}

# restart_replays: a server that streams and runs, and only has not replayed what
# it got, needs no clone.
restart_replays() {
    replaying_within "$stream_seconds" && return 0
    [ -z "$(server_pid)" ] || not_streaming
    return 1
}

# give_up_restart: sets words, the server's own of why a restart did not do
give_up_restart() {
    words=$(last_failure "$(log_tail)")
    say "a restart is not enough${words:+: $words}"
    stop_server
    check_slot
}

# A replica whose setting was taken away would stream without its slot.
use_slot() {
    ! uses_slot || return 0
    say "the replica does not use its slot: setting primary_slot_name"
    auto_conf "$pgdata" <<EOF
primary_slot_name = '$prk_name'
EOF
}

# ---------------------------------------------------------- aside, and back

# old_directory LIST: where the old data directory is
old_directory() {
    as_owner sed -n 's/^data //p' "$state/$1" 2>/dev/null
}

# move_contents FROM TO PATTERNS: by renames, but nothing of our own.  Without
# "global" no server starts: from the data directory it leaves first, and
# comes back last.
move_contents() {
    as_owner sh -c '
        to=$2
        move() {
            for file in "$@"; do
                case $file in
                    . | .. | lost+found | pg_replica_kit.*) continue ;;
                esac
                [ -e "$file" ] || [ -L "$file" ] || continue
                if [ -e "$to/$file" ] || [ -L "$to/$file" ]; then
                    echo "\"$to/$file\" is in the way" >&2
                    exit 1
                fi
                mv -f "./$file" "$to/" || exit
            done
        }
        [ -d "$1" ] || exit 0
        cd "$1" || exit
        [ "$1" != "$4" ] || move global
        # shellcheck disable=SC2086 # these are patterns
        set -- $3
        for name in "$@"; do
            [ "$name" = global ] || move "$name"
        done
        move global' sh "$1" "$2" "$3" "$pgdata"
}

# each_aside COMMAND: with each place that is moved, where to, and of which
# files.  The data directory leaves first, and comes back last.
each_aside() {
    order=
    if [ "$1" = back ]; then
        order='1!G;h;$!d'
    fi
    as_owner sed "$order" "$state/aside" | while read -r kind place; do
        case $kind in
            data) "$1" "$pgdata" "$place" '* .[!.]* ..?*' ;;
            wal) "$1" "$place" "$place/pg_replica_kit.old" '* .[!.]* ..?*' ;;
            tablespace)
                "$1" "$place" "$place/pg_replica_kit.old" "PG_${prk_major}_*"
                ;;
        esac || exit
    done
}

aside() {
    as_owner mkdir -p -m 700 "$2" && move_contents "$1" "$2" "$3"
}

back() {
    move_contents "$2" "$1" "$3" || return
    ! as_owner test -d "$2" || as_owner rmdir "$2"
}

move_aside() {
    old=$state/old
    if mountpoint -q "$pgdata" 2>/dev/null ||
        [ "$(stat -c %d "$pgdata")" != "$(stat -c %d "$state")" ]; then
        old=$pgdata/pg_replica_kit.old
    fi
    {
        printf 'data %s\n' "$old"
        [ -z "$waldir" ] || printf 'wal %s\n' "$waldir"
        old_tablespaces | sed 's/^/tablespace /'
    } | as_owner sh -c 'cat >"$1.new" && mv -f "$1.new" "$1"' sh \
        "$state/aside" || fail 8 "could not write \"$state/aside\""
    undo=rebuild
    say "moving the old data aside, to $old"
    each_aside aside || fail 1 "could not move the old data to \"$old\""
}

# What is left of a run that did not come to its end: the old data goes back,
# or stays aside if the clone is complete.
repair() {
    if ! as_owner test -e "$state/aside"; then
        if as_owner test -e "$state/kept" && as_owner test -d "$clone"; then
            old_named=yes
        fi
        if clone_is_done; then
            begin_repair
            as_owner rmdir "$clone" 2>/dev/null
        fi
        return 0
    fi
    begin_repair
    if as_owner test -e "$clone/complete"; then
        keep_old
        return 0
    fi
    say "putting back the data that an interrupted rebuild had moved aside"
    undo_rebuild || fail 1 "the old data could not be put back" \
        "It is in $(old_directory aside); make way, and run this script again."
}

begin_repair() {
    if [ -n "$dry_run" ]; then
        say "an earlier run is under way or was interrupted: without --dry-run this script would first mend that"
        exit 0
    fi
    take_lock
}

undo_rebuild() {
    waldir=$(as_owner sed -n 's/^wal //p' "$state/aside")
    remove_partial
    each_aside back && as_owner rm -f "$state/aside"
}

# The clone is complete: from now on the old data is only kept.
keep_old() {
    as_owner mv -f "$state/aside" "$state/kept" ||
        fail 1 "could not write \"$state/kept\""
    as_owner rm -f "$state/rewinding" "$state/sizes"
    half_rewound=
    undo=
    was_running=
    old_named=yes
}

# ------------------------------------------------------------------- removed

# old_places: all directories of the old data
old_places() {
    as_owner cat "$state/kept" | while read -r kind place; do
        case $kind:$place in
            data:"$state/old" | data:"$pgdata/pg_replica_kit.old")
                printf '%s\n' "$place"
                ;;
            wal:/?* | tablespace:/?*)
                printf '%s/pg_replica_kit.old\n' "$place"
                ;;
        esac
    done
}

# remove_words: how a person removes them
remove_words() {
    printf 'rm -rf'
    {
        old_places
        printf '%s\n' "$state/kept"
    } | while read -r place; do
        printf ' %s' "$(shell_quote "$place")"
    done
}

# The replica streams: what becomes of the old data?
end_rebuild() {
    old_named=
    as_owner test -e "$state/kept" || return 0
    if [ -n "$remove_old" ] && [ -z "$old_primary" ]; then
        say "removing the old data in $(old_directory kept)"
        old_places | while read -r place; do
            as_owner rm -rf "$place" || exit
        done || fail 1 "the old data could not be removed" \
            "Run: $(remove_words)"
        as_owner rm -f "$state/kept"
    elif [ -n "$remove_old" ]; then
        say "note: the old data may hold changes that no other server has: it is kept"
    fi
    if as_owner test -e "$state/kept"; then
        say "the old data is in $(old_directory kept); if nobody needs it, run: $(remove_words)"
    fi
}

# With data that cannot become this replica again, nobody needs what the slot
# holds.  16 and 17 do not tell a role like ours whether it is lost: once used
# after that, it looks like any other, and never holds WAL again.
doubt_slot() {
    case $prk_major in
        16 | 17) ;;
        *) return 0 ;;
    esac
    if [ -n "$missing$old_primary" ]; then
        slot_lost=${slot_lost:-yes}
    fi
}

rebuild_replica() {
    doubt_slot
    judge_delta
    say_no_delta
    choose_compression
    move_aside
    remove_partial
    make_clone_directories
    renew_slot
    bring_changed || run_clone
    check_clone
    configure
    keep_old
    move_up
}
