
# ======================================================================
# --follow: the same replica, a new upstream; and a former primary that a
# restart makes a replica
# ======================================================================
#
# Connection and slot are set by one rename of postgresql.auto.conf.  So an
# interrupted run leaves the replica on the old upstream or on the new one, and
# the passfile has the password for both.  Before that, the new upstream is
# proved to be one that this data can follow, and nothing is stopped.

old_host=
old_port=
script=

# parse_follow VALUE: HOST[:PORT]; an IPv6 address with a port is in brackets
parse_follow() {
    follow_host=$1
    follow_port=$prk_port
    case $1 in
        \[*\]:*)
            follow_port=${1##*\]:}
            follow_host=${1%\]:*}
            follow_host=${follow_host#\[}
            ;;
        \[*\])
            follow_host=${1%\]}
            follow_host=${follow_host#\[}
            ;;
        *:*:*) ;;
        *:*)
            follow_port=${1##*:}
            follow_host=${1%:*}
            ;;
    esac
    case $follow_host in
        '' | [-.]* | :[!:]* | : | *[!A-Za-z0-9._:-]*) ;;
        *) ! is_port "$follow_port" || return 0 ;;
    esac
    fail 2 "\"$1\" is not HOST or HOST:PORT" \
        "Examples: 10.0.0.2, 10.0.0.2:5433, [fd00::2]:5433."
}

check_follow_options() {
    [ -n "$follow" ] || return 0
    if [ -n "$set_password$demote$port" ]; then
        fail 2 "--follow only sets another upstream" \
            "It excludes --set-password, --demote and --port."
    fi
    parse_follow "$follow"
    prk_host=$follow_host
    prk_port=$follow_port
}

# ------------------------------------------------------ the script that is kept

# own_directory: the data directory beside which this copy of the script lies
own_directory() {
    case $0 in
        join.sh | */join.sh) ;;
        *) return 0 ;;
    esac
    dir=$(cd -P "$(dirname "$0")" 2>/dev/null && pwd) || return 0
    case $dir in
        /*?.pg_replica_kit) printf '%s' "${dir%.pg_replica_kit}" ;;
    esac
}

# Finds the script's own file; a script that is piped into a shell has none.
find_script() {
    script=$0
    case $script in
        /*) ;;
        *) script=$(pwd)/$script ;;
    esac
    # psql adds an empty line
    [ -f "$script" ] &&
        tail -n 3 "$script" 2>/dev/null | grep -q -x -F 'main "$@"' || script=
    if [ -n "$script" ] && [ "$become" != self ] && owns "$script"; then
        say "note: the script belongs to user \"$owner\", who could put something else in its place: run it as that user"
    fi
}

# Keeps the script beside the data directory, with the upstream that the replica
# has now; of a script without a file, the earlier copy gets that.  The copy is
# the server's user's: what root runs is another file.
keep_script() {
    if [ -z "$script" ] && ! as_owner test -f "$state/join.sh"; then
        say "note: the script is not kept in $state: it was not run from a file"
        return 0
    fi
    if [ -n "$script" ]; then
        cat "$script"
    else
        as_owner cat "$state/join.sh"
    fi | sed -e "s/^prk_host='.*/prk_host='$prk_host'/" \
        -e "s/^prk_port='.*/prk_port='$prk_port'/" |
        as_owner sh -c '
            umask 077
            set -C
            rm -f "$1.new" && cat >"$1.new" &&
            tail -n 3 "$1.new" | grep -q -x -F "main \"\$@\"" &&
            mv -f "$1.new" "$1"' sh "$state/join.sh" || fail 8 "could not write \"$state/join.sh\""
}

# script_words: how a person runs the script on this directory
script_words() {
    if [ "$script" = "$state/join.sh" ]; then
        [ "$become" = self ] || printf 'runuser -u %s -- ' "$owner"
        printf 'sh %s' "$(shell_quote "$script")"
        return 0
    elif [ -n "$script" ]; then
        printf 'sh %s' "$(shell_quote "$script")"
    else
        printf 'sh SCRIPT'
    fi
    if [ -n "$cluster" ]; then
        printf ' --cluster %s/%s' "$prk_major" "$cluster"
    else
        printf ' --pgdata %s' "$(shell_quote "$pgdata")"
    fi
}

# upstream_words: the upstream as --follow takes it
upstream_words() {
    case $prk_host in
        *:*) printf '[%s]:%s' "$prk_host" "$prk_port" ;;
        *) printf '%s:%s' "$prk_host" "$prk_port" ;;
    esac
}

# ------------------------------------------------- the connection that it has

# read_conninfo: sets old_conninfo, as the replica has it
read_conninfo() {
    old_conninfo=$(auto_conf_line primary_conninfo |
        sed "s/^primary_conninfo = '//; s/'\$//; s/''/'/g; s/\\\\\\\\/\\\\/g")
    old_conninfo=$(printf '%s\n' "${old_conninfo:-$(setting_in "$pgdata" primary_conninfo)}" |
        cleaned 8000)
}

# conninfo_value NAME: of old_conninfo, or nothing
conninfo_value() {
    printf ' %s\n' "$old_conninfo" | PRK_OPTION=$1 awk '
        {
            start = " " ENVIRON["PRK_OPTION"] "="
            at = index($0, start)
            if (!at)
                exit
            rest = substr($0, at + length(start))
            quoted = substr(rest, 1, 1) == "'\''"
            out = ""
            for (i = 1 + quoted; i <= length(rest); i++) {
                c = substr(rest, i, 1)
                if (c == "\\")
                    c = substr(rest, ++i, 1)
                else if (c == (quoted ? "'\''" : " "))
                    break
                out = out c
            }
            print out
            exit
        }'
}

# holds_replica: is the directory this replica's, of whatever upstream?
holds_replica() {
    as_owner test -e "$pgdata/standby.signal" || return 1
    [ "$(control_system_id)" = "$prk_system_id" ] || return 1
    read_conninfo
    case $(slot_setting) in
        "$prk_name") ;;
        '') [ "$(conninfo_value application_name)" = "$prk_name" ] ;;
        *) return 1 ;;
    esac
}

# Sets old_host and old_port, of the upstream that the replica has.
find_old_upstream() {
    old_host=$(conninfo_value host)
    old_port=$(conninfo_value port)
    case $old_host in
        '' | *[!A-Za-z0-9._:-]*) old_host= ;;
    esac
    is_port "${old_port:=5432}" || old_host=
}

# follows_elsewhere: is it this replica, of another upstream than the script's?
follows_elsewhere() {
    holds_replica || return 1
    find_old_upstream
    [ -n "$old_host" ] && [ "$old_host $old_port" != "$prk_host $prk_port" ]
}

# adopt_connection: what the replica's connection demands of TLS and of
# authentication, one that is made in its place will demand
adopt_connection() {
    PGSSLMODE=${PGSSLMODE-$(conninfo_value sslmode)}
    PGSSLROOTCERT=${PGSSLROOTCERT-$(conninfo_value sslrootcert)}
    PGSSLCRL=${PGSSLCRL-$(conninfo_value sslcrl)}
    PGSSLCERT=${PGSSLCERT-$(conninfo_value sslcert)}
    PGSSLKEY=${PGSSLKEY-$(conninfo_value sslkey)}
    PGCHANNELBINDING=${PGCHANNELBINDING-$(conninfo_value channel_binding)}
    if [ -z "$prk_auth" ]; then
        PGREQUIREAUTH=${PGREQUIREAUTH-$(conninfo_value require_auth)}
    fi
}

# What --rebuild finds before anything is asked: a connection that this script has
# made.
begin_rebuild() {
    has_our_settings || return 0
    read_conninfo
    adopt_connection
}

# What --follow finds before anything is asked of the new upstream.
begin_follow() {
    cd /
    repair
    inspect_directory
    if [ "$dir_state" = moving ]; then
        [ -z "$dry_run" ] ||
            fail 8 "the clone in \"$pgdata\" is not complete" \
                "Run this script without --dry-run."
        [ -n "$locked" ] || take_lock
        say "completing the clone of an interrupted run"
        move_up
    fi
    if was_rewinding; then
        [ -n "$rebuild" ] || fail_rewinding
        read_conninfo
    elif ! holds_replica; then
        fail 8 "\"$pgdata\" does not hold replica \"$prk_name\"" \
            "Name the replica's directory with --pgdata or --cluster. A former primary becomes a replica with --demote."
    fi
    find_old_upstream
    adopt_connection
}

# The role and its password came along by replication: the one that is kept for
# the old upstream counts for the new one.  One that is refused is asked for.
follow_password() {
    [ -n "$password" ] || password=$(operator_password)
    if [ -z "$password" ] && [ -d "$state" ]; then
        password=$(as_owner cat "$passfile" 2>/dev/null | lookup_password)
        [ -n "$password" ] || [ -z "$old_host" ] ||
            password=$(
                prk_host=$old_host
                prk_port=$old_port
                as_owner cat "$passfile" 2>/dev/null | lookup_password
            )
        probe_passfile=/dev/fd/8
        if [ -n "$password" ] && ! ask IDENTIFY_SYSTEM; then
            explain_connection "$said"
            [ -n "$wrong_password" ] || fail "$code" "$said" "$hint"
            say "the password that is kept here is refused: $said"
            prompt_password
            [ -n "$password" ] || fail 5 "the password is empty"
        fi
    fi
    get_password
}

# ------------------------------------------------------------ which upstream

fail_unfit() {
    hint="The replica has what that server does not have"
    if [ -n "$is_standby" ]; then
        hint="That server is a standby: if it is to follow another one first, wait for that. Else"
    fi
    fail 15 "the replica cannot follow $prk_host, port $prk_port: $unfit" \
        "$hint. To clone it from there (the old data is kept), run: $(script_words) --follow $(upstream_words) --rebuild"
}

# A replica of itself, or of one that receives from it, would be sure to stream
# and never get a byte.
check_ring() {
    [ -n "$(server_pid)" ] || return 0
    if upstream_is_here && [ "$(running_port)" = "$prk_port" ]; then
        case $(as_owner sed -n 6p "$pgdata/postmaster.pid" 2>/dev/null) in
            '*' | 0.0.0.0 | :: | localhost | "$prk_host")
                fail 8 "the server at $prk_host, port $prk_port is this replica itself" \
                    "Name the server that it is to follow with --follow."
                ;;
        esac
    fi
    [ -n "$is_standby" ] && ask "SHOW primary_slot_name" &&
        used=$(upstream_name 1) || return 0
    row=$(local_sql -v "used=$used" <<'EOF'
SELECT 't' FROM pg_replication_slots WHERE slot_name = :'used' AND active;
EOF
    )
    [ "$row" != t ] ||
        fail 8 "the server at $prk_host, port $prk_port receives from this replica itself: it uses slot \"$used\" here" \
            "Name a server that does not depend on this replica."
}

# ----------------------------------------------------------------- the change

# receives_from_it: does the replica's connection go to the new upstream?
receives_from_it() {
    row=$(local_sql -v "host=$prk_host" -v "port=$prk_port" <<'EOF'
SELECT coalesce((SELECT sender_host = :'host' AND sender_port = :'port'
    AND status = 'streaming' FROM pg_stat_wal_receiver), false)
    WHERE current_setting('is_superuser') = 'on';
EOF
    )
    case $row in
        t) return 0 ;;
        f) return 1 ;;
    esac
    # nobody may log in
    slot_is_used
}

slot_is_used() {
    ask_slot && [ -n "$lsn" ] && try_slot "$lsn" || return 1
    case $said in
        *55006*) return 0 ;;
    esac
    return 1
}

# is_old_upstream: is the new upstream the old one under another name?  Two
# primaries on one timeline are one server.  Then this replica uses the slot.
is_old_upstream() (
    new_timeline=$theirs
    [ -n "$old_host" ] && [ -z "$is_standby" ] || exit 1
    be_old_upstream
    ask_old_upstream && [ "$timeline" = "$new_timeline" ] &&
        ask "SHOW in_hot_standby" && [ "$(upstream_name 1)" = off ]
)

# For a subshell: from now on the old upstream is asked, which may be gone.
be_old_upstream() {
    prk_host=$old_host
    prk_port=$old_port
    connect_seconds=3
    answer_seconds=5
    probe_passfile=/dev/fd/8
}

# ask_old_upstream: sets timeline, if it answers
ask_old_upstream() {
    ask IDENTIFY_SYSTEM &&
        [ "$(upstream_number 1 20)" = "$prk_system_id" ] &&
        timeline=$(upstream_number 2 10)
}

# receiving_within SECONDS
receiving_within() {
    tries=0
    until receives_from_it; do
        [ "$tries" -lt "$1" ] && [ -n "$(server_pid)" ] || return 1
        tries=$((tries + 1))
        sleep 1
    done
}

# The replica follows the new upstream after this.  It is not told to while
# replay is paused, since it would not look for its new connection then.
follow_upstream() {
    if [ -n "$rebuild" ] && { was_rewinding || [ -n "$(missing_file)" ]; }; then
        return 0
    fi
    pid=$(server_pid)
    port=$(running_port)
    follow_password
    check_upstream
    check_history
    if [ -n "$unfit" ]; then
        [ -n "$rebuild" ] || fail_unfit
        old_primary=yes
        return 0
    fi
    check_ring
    demands=
    [ "$paused" = 'not paused' ] || find_demands
    case $paused$demands in
        '' | 'not paused' | *=*) ;;
        *) fail 8 "replay is paused on this replica" \
            "Run there: SELECT pg_wal_replay_resume(); and this script again." ;;
    esac
    at_once=
    if [ -n "$pid" ] && ! follows_elsewhere && receives_from_it; then
        at_once=yes
    elif [ -z "$pid" ] || ! slot_is_used || ! is_old_upstream; then
        check_slot
    fi
    unit=$(systemd_unit)
    find_log
    check_command_line
    if [ -z "$pid" ]; then
        find_port
        [ -z "$start" ] || check_standby_target
    fi
    if [ -n "$dry_run" ]; then
        say "all checks passed; without --dry-run this script would:"
        say "- set the replica's upstream to $prk_host, port $prk_port${old_host:+ instead of $old_host, port $old_port}"
        if [ -n "$pid" ]; then
            say "- have the running server read that, or restart it if that is not enough"
        elif [ -n "$start" ]; then
            say "- start the server: $(start_words)"
        fi
        exit 0
    fi
    [ -n "$locked" ] || take_lock
    change_upstream
    if [ -z "$pid" ] && [ -z "$start" ]; then
        say "the replica is to follow $prk_host, port $prk_port; start it with: $(start_words)"
        exit 0
    fi
    await_follow
    say "replica \"$prk_name\" streams from $prk_host, port $prk_port: $proof"
    [ -z "$rebuild$old_named" ] || end_rebuild
    tell_old_upstream
    exit 0
}

# Sets demands: settings without which this server's replay stays paused.  What
# it has replayed demands them, and a restart; they are in its control file.
find_demands() {
    demands=
    while read -r name item; do
        wanted=$(control_value "$item setting")
        value=$(setting_in "$pgdata" "$name")
        case $wanted:$value in
            *[!0-9:]* | :* | *:) ;;
            *) [ "$value" -ge "$wanted" ] || demands="$demands
$name = $wanted" ;;
        esac
    done <<EOF
max_connections max_connections
max_worker_processes max_worker_processes
max_wal_senders max_wal_senders
max_prepared_transactions max_prepared_xacts
max_locks_per_transaction max_locks_per_xact
EOF
}

# Sets connection and slot, and no setting lower than the upstream has it.
change_upstream() {
    [ -z "$slot_lost" ] || renew_slot
    lines="primary_conninfo = $(conf_quote "$(conninfo "$passfile" server)")
primary_slot_name = '$prk_name'"
    had=$lines
    raise_settings "$pgdata"
    # of two for one setting the higher
    if [ -n "$demands" ]; then
        lines="$(printf '%s%s\n' "$lines" "$demands" |
            awk '$1 in line && $3 + 0 <= value[$1] + 0 { next }
                !($1 in line) { order[++count] = $1 }
                { line[$1] = $0; value[$1] = $3 }
                END { for (i = 1; i <= count; i++) print line[order[i]] }')"
    fi
    # Part of a record behind the fork is not read again before a restart.
    restart=
    if [ "$lines" != "$had" ] ||
        { is_lsn "$received" && is_lsn "$fork" && ! lsn_reached "$fork" "$received"; }; then
        restart=yes
    fi
    write_passfile
    before=$(auto_conf_line primary_conninfo)$(auto_conf_line primary_slot_name)
    auto_conf "$pgdata" <<EOF
$lines
EOF
    # One that receives from there with another role or slot has to connect again.
    [ "$before" = "$(auto_conf_line primary_conninfo)$(auto_conf_line primary_slot_name)" ] ||
        at_once=
    keep_script
}

await_follow() {
    if [ -z "$pid" ]; then
        start_server
    elif [ -z "$at_once" ]; then
        say "the replica is told to follow $prk_host, port $prk_port"
        if [ -z "$restart" ]; then
            tells "$bindir/pg_ctl" -D "$pgdata" -s reload
            receiving_within 30 || restart=yes
            case $delay in
                '' | 0) ;;
                *) [ -z "$restart" ] || fail_delayed ;;
            esac
        fi
        if [ -n "$restart" ]; then
            say "that takes a restart"
            was_running=yes
            stop_server
            start_server
            was_running=
        fi
    fi
    streaming_within "$stream_seconds" &&
        replaying_within "$stream_seconds" && return 0
    [ -n "$(server_pid)" ] || server_failed
    # It may have received more from the old upstream meanwhile.
    check_history
    [ -z "$unfit" ] || fail_unfit
    not_streaming
}

# A restart does not help: the server connects when it has replayed what it has.
fail_delayed() {
    fail 13 "the replica is told to follow $prk_host, port $prk_port, but replays with a delay of $delay: it connects there once it has replayed what it has" \
        "Until then the slot there retains its WAL. To have it connect now: ALTER SYSTEM SET recovery_min_apply_delay = 0; reload; and set it again afterwards."
}

find_port() {
    port=
    dir_state=standby
    check_port
}

# The slot on the old upstream retains WAL for nobody.  One that is in use is
# this replica's: then old and new upstream are one server.
tell_old_upstream() (
    new_timeline=$theirs
    [ -n "$old_host" ] &&
        [ "$old_host $old_port" != "$prk_host $prk_port" ] || exit 0
    be_old_upstream
    ask_old_upstream || exit 0
    if [ "$timeline" -lt "$new_timeline" ] && ask "SHOW in_hot_standby" &&
        [ "$(upstream_name 1)" = off ]; then
        say "note: the old upstream, $prk_host, port $prk_port, still runs as a primary, of timeline $timeline: stop it, two primaries lose data"
    fi
    ask "READ_REPLICATION_SLOT \"$prk_name\"" &&
        [ "$(upstream_name 1)" = physical ] || exit 0
    tries=0
    while lsn=$(upstream_lsn 2); do
        try_slot "$lsn" || break
        case $said in
            *55006*) ;;
            *) break ;;
        esac
        [ "$tries" -lt 5 ] || exit 0
        tries=$((tries + 1))
        sleep 1
        ask "READ_REPLICATION_SLOT \"$prk_name\"" || exit 0
    done
    say "the old upstream, $prk_host, port $prk_port, still has slot \"$prk_name\", which retains WAL; to remove it, run there: SELECT * FROM replica_kit.deprovision('$prk_name', keep_role => true);"
)

# ------------------------------------------------------------ a former primary

demotable=

# A former primary that was shut down cleanly, with all its WAL in the history
# of the upstream, needs no clone.  Sets demotable, or says what stands in the
# way.
judge_former_primary() {
    [ "$dir_state" = old ] && [ -n "$old_primary" ] && [ -z "$full" ] || return 0
    words=$(control_value 'Database cluster state')
    missing=$(missing_file)
    if was_rewinding; then
        unfit="an earlier rewind was interrupted, and it is neither the old data nor the new"
    elif [ "$words" != 'shut down' ]; then
        unfit="it was not shut down cleanly (state \"$words\")"
    elif [ -n "$missing" ]; then
        unfit="\"$pgdata/$missing\" is missing"
    else
        check_history
    fi
    if [ -z "$unfit" ]; then
        demotable=yes
    else
        say "a restart is not enough for this former primary: $unfit"
        was_rewinding || judge_rewind
    fi
}

# Ends the script if the former primary streams after a restart as a standby.
# One that does not streams from nowhere, but stays a standby.
try_demotion() {
    [ -n "$demotable" ] || return 0
    say "all WAL of this former primary is in the upstream's history: making it a standby, without a clone"
    renew_slot
    make_standby
    if [ -z "$start" ]; then
        say "the replica is ready; start it with: $(start_words)"
        tell_own_slots
        exit 0
    fi
    find_log
    if launch && streaming_within 20 && restart_replays; then
        say "replica \"$prk_name\" streams from $prk_host, port $prk_port: $proof; nothing has been cloned"
        tell_own_slots
        exit 0
    fi
    give_up_restart
}

# make_standby: of data that has all its WAL in the upstream's history
make_standby() {
    reset_recovery "$pgdata"
    lines="primary_conninfo = $(conf_quote "$(conninfo "$passfile" server)")"
    # what somebody has added behind, such as keepalives_idle, stays
    case $(auto_conf_line primary_conninfo) in
        "${lines%\'} "*) lines=$(auto_conf_line primary_conninfo) ;;
    esac
    lines="$lines
primary_slot_name = '$prk_name'"
    raise_settings "$pgdata"
    if [ "$(setting_in "$pgdata" port)" != "$port" ]; then
        lines="$lines
port = $port"
    fi
    auto_conf "$pgdata" <<EOF
$lines
EOF
    as_owner sh -c ': >"$1/standby.signal"' sh "$pgdata" ||
        fail 1 "could not write to \"$pgdata\""
}

# Its slots from when it was a primary retain WAL here for nobody.
tell_own_slots() {
    as_owner ls "$pgdata/pg_replslot" 2>/dev/null |
        grep -x '[a-z0-9_]\{1,63\}' | while read -r name; do
        say "note: slot \"$name\" is left from when this server was a primary, and retains WAL here; unless a server uses it, run here: SELECT pg_drop_replication_slot('$name');"
    done
}
