
# ======================================================================
# To run it: start, proof that it streams, ends, and the order of all
# ======================================================================

# ------------------------------------------------------------------- to run

unit=

# systemd_unit: the unit whose PGDATA this directory is.  (Debian's clusters
# have one, too, to which root's pg_ctlcluster turns by itself.)
systemd_unit() {
    [ -d /run/systemd/system ] || return 0
    for unit in "postgresql-$prk_major" postgresql; do
        # PGDG's units have a slash at the end.
        dir=$(timeout -k 2 "$program_seconds" systemctl show -p Environment \
            --value "$unit.service" 2>/dev/null | tr ' ' '\n' | sed -n 's/^PGDATA=//p' | tail -n 1)
        if [ -n "$dir" ] && [ "$(readlink -f "$dir")" = "$(readlink -f "$pgdata")" ]; then
            printf '%s' "$unit"
            return 0
        fi
    done
}

# Only root has the unit started and stopped.
is_by_unit() {
    [ -n "$unit" ] && [ "$become" != self ]
}

# What systemd has not started, it does not watch nor stop.
warn_of_unit() {
    name=$unit
    if [ -n "$cluster" ] && [ -d /run/systemd/system ] &&
        [ -z "${PG_CLUSTER_CONF_ROOT-}" ]; then
        name=postgresql@$prk_major-$cluster
    fi
    if [ -n "$name" ] && [ "$become" = self ]; then
        say "note: systemd does not know of this server; to have it started by unit $name, stop it, and as root run: systemctl start $name"
    fi
}

# outside COMMAND...: without our locks, with the operator's own locale
outside() {
    (
        exec 7>&- 8>&- 9>&-
        operator_locale
        "$@"
    )
}

# operator_locale: for a subshell, instead of the C that we parse
operator_locale() {
    if [ -n "$operator_lc_all" ]; then
        LC_ALL=$operator_lc_all
    else
        unset LC_ALL
    fi
}

# start_words: how a person starts this server
start_words() {
    if [ -n "$start_command" ]; then
        printf '%s' "$start_command"
    elif [ -n "$cluster" ]; then
        printf 'pg_ctlcluster %s %s start' "$prk_major" "$cluster"
    elif is_by_unit || { [ -n "$unit" ] && [ -z "$start" ]; }; then
        printf 'systemctl start %s' "$unit"
    else
        printf '%s -D %s -l %s start' "$(shell_quote "$bindir/pg_ctl")" \
            "$(shell_quote "$pgdata")" "$(shell_quote "$state/server.log")"
    fi
}

start_server() {
    [ -z "$unreadable_conf" ] || conf_failed
    find_log
    launch || server_failed
}

# The clone is complete, and what is wrong with its files can be mended.
conf_failed() {
    fail 12 "the replica's configuration cannot be read: $unreadable_conf" \
        "The clone is complete: mend that, and run this script again."
}

# launch: true if there is a server then
launch() {
    say "starting the server: $(start_words)"
    started_here=yes
    if [ -n "$start_command" ]; then
        outside timeout -k 5 "$command_seconds" sh -c "$start_command"
    elif [ -n "$cluster" ]; then
        outside timeout -k 5 "$start_seconds" pg_ctlcluster "$prk_major" \
            "$cluster" start >/dev/null 2>&1
    elif is_by_unit; then
        # It may wait for a server that recovers, without end.
        outside timeout -k 5 15 systemctl start "$unit"
    else
        outside as_owner timeout -k 5 "$start_seconds" "$bindir/pg_ctl" \
            -D "$pgdata" -l "$log" -s -w -t 15 start >/dev/null 2>&1 </dev/null
    fi
    start_status=$?
    case $start_status in
        124 | 137)
            [ -n "$start_command" ] && limit=$command_seconds ||
                limit=$start_seconds
            is_by_unit ||
                say "note: what starts the server did not end within $limit seconds, and was ended"
            ;;
    esac
    # A server that is still recovering is a server.
    [ "$start_status" -eq 0 ] || [ -n "$(server_pid)" ] || return 1
    [ -n "$start_command" ] || warn_of_unit
}

server_failed() {
    show_log
    if [ -z "$hint" ] && port_in_use "$port"; then
        explain_log "Address already in use"
    fi
    fail 12 "the replica's server did not start" \
        "${hint:-The clone is complete: mend what the log says, and run this script again.}"
}

# local_state TARGET, as a row: status of the WAL receiver, whether its
# connection has brought WAL up to TARGET, whether WAL up to TARGET is here,
# positions received and replayed, the receiver's pid, whether WAL up to TARGET
# is replayed, whether replay is delayed, and a setting that ends recovery.
# Nothing when nobody may log in.
local_state() {
    local_sql -v "target=$1" <<'EOF'
SELECT coalesce(r.status, 'none'),
    coalesce(r.written_lsn >= :'target', false),
    coalesce(greatest(l.received, l.replayed) >= :'target', false),
    l.received, l.replayed, r.pid,
    coalesce(l.replayed >= :'target', false),
    current_setting('recovery_min_apply_delay') <> '0',
    (SELECT min(name) FROM pg_settings WHERE setting <> ''
        AND (name IN ('recovery_target', 'recovery_target_lsn',
            'recovery_target_name', 'recovery_target_time',
            'recovery_target_xid', 'promote_trigger_file')))
    FROM (SELECT pg_last_wal_receive_lsn() AS received,
        pg_last_wal_replay_lsn() AS replayed) l
    LEFT JOIN pg_stat_wal_receiver r ON true
    WHERE pg_is_in_recovery()
    AND current_setting('is_superuser') = 'on';
EOF
}

# local_sql [OPTION]... < SQL: asks the replica's own server, if it lets in
local_sql() {
    socket=$(as_owner sed -n 5p "$pgdata/postmaster.pid" 2>/dev/null)
    socket=${socket:-$(as_owner sed -n 6p "$pgdata/postmaster.pid" 2>/dev/null)}
    [ -n "$socket" ] || return 0
    # A new session makes a file in its database's directory for a moment. Replay
    # of a CREATE DATABASE that copies that directory ends the server over such a
    # file, so the session goes to the template only where there is no other.
    local_psql postgres "$@" && return
    [ "$?" -ne 2 ] || local_psql template1 "$@"
}

# local_psql DATABASE [OPTION]...
local_psql() {
    database=$1
    shift
    as_owner env PGOPTIONS='-c search_path=pg_catalog -c statement_timeout=5s' \
        PGPASSFILE=/nonexistent timeout -k 2 "$answer_seconds" "$bindir/psql" -XAtqw "$@" \
        -d "host=$(conninfo_quote "$socket") port=$port dbname=$database connect_timeout=5${local_user:+ user=$local_user}" \
        2>/dev/null
}

# field NUMBER: of the row $row
field() {
    printf '%s\n' "$row" | cut -d '|' -f "$1"
}

# lsn_reached LSN TARGET: both have passed upstream_lsn
lsn_reached() {
    here=$(lsn_digits "$1")
    [ "$(printf '%s\n' "$(lsn_digits "$2")" "$here" | sort | tail -n 1)" = "$here" ]
}

# lsn_digits LSN: 16 of them, which sort as the positions do
lsn_digits() {
    printf '%8s%8s' "${1%/*}" "${1#*/}" | tr ' ' 0
}

# Without a login there is the upstream's word: the slot is in use, and was
# moved to TARGET by what the replica reported.
slot_proves() {
    ask_slot && [ -n "$lsn" ] && lsn_reached "$lsn" "$1" && try_slot "$lsn" ||
        return 1
    case $said in
        *55006*) return 0 ;;
    esac
    return 1
}

# streams TARGET: does the replica stream, and has it WAL up to TARGET?
#
# "streaming" alone is no proof: a receiver says so before the upstream has
# answered, and dies a moment later.  The proof is WAL that its connection has
# brought; or, where there was nothing to bring, that the same receiver is
# still there a second later.
streams() {
    row=$(local_state "$1")
    find_end
    case $row in
        'streaming|t|'*) ;;
        'streaming|f|t|'*)
            if [ "$(field 6)" != "$receiver_pid" ]; then
                receiver_pid=$(field 6)
                return 1
            fi
            ;;
        '')
            slot_proves "$1" || return 1
            proof="the upstream's slot confirms it up to $1"
            return 0
            ;;
        *) return 1 ;;
    esac
    proof="received $(field 4), replayed $(field 5)"
}

# replays TARGET: has it replayed WAL up to TARGET?  Where nobody may log in,
# nobody can know; and a delay that is to be there is no failure.
replays() {
    row=$(local_state "$1")
    find_end
    case $row in
        '') return 0 ;;
    esac
    [ "$(field 7)" = t ] || [ "$(field 8)" = t ] || return 1
    proof="received $(field 4), replayed $(field 5)"
}

# find_end: sets ending, a setting by which the server in the directory ends its
# recovery, and promoted, if it has.
find_end() {
    if [ -z "$keep_recovery$ending" ] && [ -n "$row" ]; then
        ending=$(field 9)
    fi
    as_owner test -e "$pgdata/standby.signal" || promoted=yes
}

# What changes while the server is on its way.
signs_of_life() {
    if [ -n "$row" ]; then
        field 4,5
    else
        tells "$bindir/pg_controldata" -D "$pgdata" |
            grep -e 'recovery ending' -e 'REDO location'
    fi
}

# Waits until the replica streams and has received what the upstream had when
# the wait began.  Gives up after a time without any progress: a minute, or
# five while the server still recovers and lets nobody in.
wait_streaming() {
    streaming_within "$stream_seconds" &&
        replaying_within "$stream_seconds" && return 0
    [ -n "$(server_pid)" ] || server_failed
    not_streaming
}

# streaming_within SECONDS, without any progress
streaming_within() {
    ask_position
    say "waiting until it streams and has WAL up to $target"
    receiver_pid=
    promoted=
    ending=
    [ -n "$keep_recovery" ] || ending=$(forced_ending)
    proven_within "$1" streams
}

# replaying_within SECONDS: a server that was started here goes on to replay WAL
# that its upstream has written since: no old setting ends its recovery.
replaying_within() {
    [ -n "$started_here" ] || return 0
    [ -z "$keep_recovery" ] || [ -z "$(recovery_set "$pgdata")" ] || return 0
    ask_position
    proven_within "$1" replays
}

# proven_within SECONDS PROOF: waits for streams() or replays() of target
proven_within() {
    signs=
    idle=0
    while :; do
        if "$2" "$target" && [ -z "$ending$promoted" ]; then
            return 0
        fi
        [ -n "$(server_pid)" ] && [ -z "$ending$promoted" ] || return 1
        now=$(signs_of_life)
        idle=$((idle + 1))
        if [ "$now" != "$signs" ]; then
            idle=0
        fi
        signs=$now
        patience=$1
        case $(as_owner sed -n 8p "$pgdata/postmaster.pid" 2>/dev/null) in
            starting*) patience=$(($1 * 5)) ;;
        esac
        case $(log_tail) in
            *"already been removed"* | *"can no longer"*) patience=$(($1 / 6)) ;;
        esac
        [ "$idle" -lt "$patience" ] || return 1
        sleep 1
    done
}

not_streaming() {
    show_log
    if [ -n "$promoted" ]; then
        fail 13 "the replica's server runs, but has been promoted: it is no standby any more" \
            "To make it the replica again, stop it and run this script with --rebuild."
    elif [ -n "$ending" ]; then
        fail 13 "the replica's server streams, but $ending is set: its recovery will end there" \
            "To reset it, run this script with --rebuild; if it is on the server's command line, remove it there first. To have it, add --keep-recovery-settings."
    fi
    case $row in
        streaming'|'*)
            fail 13 "the replica's server streams, but has not replayed WAL up to $target" \
                "Check in pg_stat_activity there what its startup process waits for."
            ;;
    esac
    [ -n "$hint" ] || explain_by_asking
    fail 13 "the replica's server runs, but does not stream" \
        "${hint:-Check its log, $log; the server keeps trying.}"
}

# --------------------------------------------------------------------- ends

clone_job=
started_here=
unreadable_conf=
ending=
promoted=
locked=
made_state=
made_pgdata=
undo=
tty_mode=

# Ends the clone and its helpers, also one that stands still, and waits until
# they are gone.
stop_clone() {
    tries=0
    signal=TERM
    while kill -0 "$clone_job" 2>/dev/null || signal_job 0; do
        signal_job "$signal"
        signal_job CONT
        tries=$((tries + 1))
        [ "$tries" -lt 10 ] || signal=KILL
        [ "$tries" -lt 100 ] || break
        sleep 0.2 2>/dev/null || sleep 1
    done
    [ "$tries" -ge 100 ] || wait "$clone_job" 2>/dev/null
    clone_job=
}

on_exit() {
    exit_status=$?
    trap '' HUP INT PIPE TERM USR1
    if [ -n "$tty_mode" ]; then
        stty "$tty_mode" </dev/tty
        printf '\n' >/dev/tty
    fi
    [ -z "$clone_job" ] || stop_clone
    remove_plan_dir
    if [ "$undo" = rebuild ]; then
        if undo_rebuild; then
            say "the old data is back in place" >&2
        else
            say "the old data is in $(old_directory aside); run this script again to put it back" >&2
        fi
    elif [ -n "$undo" ]; then
        remove_partial
        [ -z "$made_pgdata" ] || remove_directory "$pgdata"
        as_owner rm -f "$state/passfile" "$state/clone.pid" "$state/clone.out" \
            "$state/clone.status" "$state/join.sh"
        [ -z "$wrote_passfile" ] || as_owner rm -f "$passfile"
        [ -z "$made_waldir" ] || remove_directory "$waldir"
        [ -z "$cluster" ] || unmake_cluster
        if [ -n "$made_state" ]; then
            as_owner rmdir "$state/cloning" 2>/dev/null
            remove_directory "$state"
        fi
    fi
    if [ -n "$was_running" ] && [ -z "$(live_pid)" ] &&
        ! as_owner test -e "$state/aside"; then
        (
            trap - HUP INT PIPE TERM USR1
            launch
        ) >&2
    fi
    if [ -n "$old_named" ]; then
        say "the old data is in $(old_directory kept)" >&2
    fi
    exit "$exit_status"
}

# on_signal NAME NUMBER
on_signal() {
    trap '' HUP INT PIPE TERM
    progress_end
    printf 'pg_replica_kit: error: interrupted by signal %s\n' "$1" >&2
    printf 'hint: Run this script again with the same options to complete the replica.\n' >&2
    exit "$((128 + $2))"
}

# --set-password: a new password for the replica that is there.  Each new
# connection reads the passfile, so a stream that runs is left alone.
change_password() {
    inspect_directory
    if [ "$dir_state" = other ] && follows_elsewhere; then
        # since an earlier --follow
        prk_host=$old_host
        prk_port=$old_port
        inspect_directory
    fi
    [ "$dir_state" = standby ] ||
        fail 8 "\"$pgdata\" does not hold replica \"$prk_name\" of $prk_host, port $prk_port" \
            "Name the replica's directory with --pgdata or --cluster."
    get_password
    check_upstream
    pid=$(server_pid)
    if [ -n "$dry_run" ]; then
        say "the password is right; without --dry-run this script would keep it in ${new_passfile:-$passfile}"
        return 0
    fi
    [ -n "$locked" ] || take_lock
    unit=$(systemd_unit)
    find_log
    write_passfile
    keep_script
    probe_passfile=$passfile
    ask IDENTIFY_SYSTEM || fail 5 "$said"
    say "the password is right, and kept in $passfile"
    if [ -z "$pid" ]; then
        start=
        say "the replica is not running; start it with: $(start_words)"
        return 0
    fi
    port=$(running_port)
    case $(local_state 0/0) in
        streaming* | '') ;;
        # A reload ends its waiting for the next attempt.
        *) tells "$bindir/pg_ctl" -D "$pgdata" -s reload ;;
    esac
    wait_streaming
    say "replica \"$prk_name\" streams from $prk_host, port $prk_port: $proof"
}

# What the server would need, said and not done.
show_plan() {
    say "all checks passed; without --dry-run this script would:"
    case $dir_state in
        absent | empty | cloning)
            if [ -n "$cluster" ] && [ ! -e "$confdir/postgresql.conf" ]; then
                say "- make Debian cluster $prk_major/$cluster, port $port"
            fi
            show_clone
            say "- keep the password in ${new_passfile:-$passfile}"
            ;;
        standby | running)
            [ -z "$rebuild" ] || {
                judge_delta
                show_step
                show_rebuild
            }
            ;;
        old)
            if [ -n "$demotable" ]; then
                say "step: restart"
                say "- make this former primary a standby, without a clone"
            elif [ -n "$rewindable" ]; then
                say "step: rewind"
                say "- rewind this data, and move ${moved:+about }${moved:-a number of} MB from $prk_host, port $prk_port; what only this data has is kept in $state/diverged"
            else
                judge_delta
                say "step: $(last_step)"
                show_rebuild
            fi
            ;;
    esac
    if [ -n "$start" ]; then
        say "- start it: $(start_words)"
    fi
}

show_rebuild() {
    say "- move the old data aside${remove_old:+, and remove it in the end}"
    if [ -n "$delta" ]; then
        say "- fetch what has changed since $from from $prk_host, port $prk_port: about $(megabytes "$delta_bytes") MB of $(megabytes "$delta_all") MB$(unseen_words)"
        return 0
    fi
    say_no_delta
    show_clone
}

show_clone() {
    case $compress in
        auto) words=", compressed with lz4 if the link is slow" ;;
        none) words= ;;
        *) words=", compressed with $compress" ;;
    esac
    say "- clone $(calc "int($prk_data_size / 1048576)") MB from $prk_host, port $prk_port into $pgdata$words"
}

make_replica() {
    case $dir_state in
        absent | empty | cloning)
            undo=yes
            [ -z "$cluster" ] || make_cluster
            make_target
            remove_partial
            choose_compression
            make_clone_directories
            renew_slot
            run_clone
            check_clone
            configure
            undo=
            move_up
            ;;
        moving)
            say "completing the clone of an interrupted run"
            move_up
            ;;
        old) rebuild_replica ;;
        standby)
            say "\"$pgdata\" already holds this replica; it is not cloned again"
            ;;
    esac
    as_owner rm -f "$state/clone.pid" "$state/clone.out" "$state/clone.status"
}

main() {
    umask 077
    password=${PGPASSWORD-}
    unset PGPASSWORD
    operator_lc_all=${LC_ALL-}
    find_plain
    LC_ALL=C
    export LC_ALL
    unset PGHOST PGHOSTADDR PGPORT PGDATABASE PGUSER PGSERVICE PGOPTIONS \
        PGAPPNAME PGDATA PGTARGETSESSIONATTRS PGREQUIREPEER PGCLIENTENCODING
    named_by=
    parse_arguments "$@"
    trap on_exit EXIT
    trap 'on_signal HUP 1' HUP
    trap 'on_signal INT 2' INT
    trap 'on_signal PIPE 13' PIPE
    trap 'on_signal TERM 15' TERM
    trap 'exit 1' USR1

    resolve_directory
    find_owner
    resolve_places
    find_scratch
    find_half_rewound
    find_passfile
    find_programs
    find_script
    if [ -n "$follow" ]; then
        begin_follow
    elif [ -n "$rebuild" ]; then
        begin_rebuild
    fi
    demand_authentication
    cd /
    repair
    if [ -n "$set_password" ]; then
        change_password
        exit 0
    fi
    [ -z "$follow" ] || follow_upstream
    check_directory
    unit=$(systemd_unit)
    case $rebuild:$dir_state in
        yes:standby | yes:running | yes:old) find_old_places ;;
    esac
    end_if_finished
    check_waldir
    if [ "$dir_state" = running ]; then
        port=$(running_port)
    else
        check_port
    fi
    get_password
    check_upstream
    ask_facts
    if [ "$dir_state" != running ] || [ -n "$rebuild" ]; then
        check_tablespaces
        # These may wait until a restart has been tried.
        case $dir_state in
            running | old) ;;
            *) check_disk ;;
        esac
        case $rebuild:$dir_state in
            yes:standby | yes:running | yes:old) ;;
            *) judge_facts ;;
        esac
        check_libraries
    fi
    check_compression
    check_old_timeline
    judge_former_primary
    if [ "$dir_state" = old ] && [ -z "$demotable$rewindable" ]; then
        check_disk
        judge_facts
    fi
    check_command_line
    [ "$dir_state:$rebuild" != standby: ] || [ -z "$start" ] ||
        check_standby_target
    check_restore_command
    find_log
    if [ "$dir_state" = running ] && [ -n "$rebuild" ]; then
        if [ -z "$follow$full" ] && uses_slot && [ -z "$(missing_file)" ] && streaming_within 6; then
            say "replica \"$prk_name\" streams from $prk_host, port $prk_port: $proof; there is nothing to rebuild"
            say "if its data is damaged nevertheless: stop it, and run this script with --rebuild --no-start"
            if [ -z "$dry_run" ]; then
                [ -n "$locked" ] || take_lock
                end_rebuild
            fi
            exit 0
        fi
    elif [ "$dir_state" = running ]; then
        wait_streaming
        say "already a running replica of $prk_host, port $prk_port: $proof; nothing to do"
        if [ -z "$dry_run" ] && [ -n "$script" ] &&
            ! as_owner test -e "$state/join.sh"; then
            [ -n "$locked" ] || take_lock
            keep_script
        fi
        exit 0
    fi
    # What an interrupted run has left may still hold the slot.
    if [ -z "$dry_run" ] && [ -d "$state" ] && [ -z "$locked" ]; then
        take_lock
    fi
    # One that runs may hold its slot itself.
    [ "$dir_state" = running ] || check_slot
    if [ -n "$dry_run" ]; then
        case $rebuild:$dir_state in
            yes:standby | yes:running)
                missing=$(missing_file)
                (dir_state=old && check_disk) || exit
                judge_facts
                own_state
                ;;
        esac
        show_plan
        exit 0
    fi

    [ -n "$locked" ] || take_lock
    before=$dir_state
    inspect_directory
    if [ "$before" = old ]; then
        dir_state=old
    fi
    write_passfile
    keep_script
    if [ -n "$rebuild" ]; then
        try_restart
        try_demotion
        try_rewind
        if [ "$dir_state" = old ]; then
            check_nesting
            check_kept
            check_disk
            judge_facts
        fi
    fi
    case $dir_state in
        absent | empty | cloning | old) ask_minimums ;;
    esac
    make_replica
    if [ -z "$start" ]; then
        [ -z "$unreadable_conf" ] || conf_failed
        say "the replica is ready; start it with: $(start_words)"
        old_named=
        [ -z "$rebuild" ] || end_rebuild
        exit 0
    fi
    start_server
    wait_streaming
    say "replica \"$prk_name\" streams from $prk_host, port $prk_port: $proof"
    if [ -n "$rebuild$old_named" ]; then
        end_rebuild
    fi
}

main "$@"
