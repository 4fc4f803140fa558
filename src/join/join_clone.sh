
# ======================================================================
# To make the replica's data: lock, Debian cluster, clone, settings
# ======================================================================

# ------------------------------------------------------------- our own state

# Takes the locks in our directory beside the data directory.  They are
# directories: whatever the server's user puts in their place, root's opening
# them waits for nothing and starts no device.
take_lock() {
    if ! as_owner test -d "$state"; then
        make_directory "$state"
        made_state=yes
    fi
    check_state
    as_owner sh -c '[ -d "$1/cloning" ] || mkdir -m 700 "$1/cloning" 2>/dev/null' sh \
        "$state" || fail 8 "could not write to directory \"$state\""
    exec 9<"$state/." 7<"$state/cloning/."
    lock_within 9 3 ||
        fail 14 "another run of this script is at work on \"$pgdata\""
    # mksh passes no descriptor on that is not named
    if ! flock -n 7 7<&7; then
        end_orphan
    fi
    locked=yes
}

# lock_within FD SECONDS: BusyBox's flock cannot wait
lock_within() {
    seconds=$2
    while ! flock -n "$1" 7<&7 9<&9; do
        [ "$seconds" -gt 0 ] || return 1
        seconds=$((seconds - 1))
        sleep 1
    done
}

# A killed run's pg_basebackup, or what else it was, still writes: end it.
end_orphan() {
    pid=$(as_owner cat "$state/clone.pid" 2>/dev/null)
    case $pid in
        '' | *[!0-9]*) ;;
        *)
            # start_job() has begun it: our directory, and then the program
            program=$(tr '\0' '\n' <"/proc/$pid/cmdline" 2>/dev/null |
                awk -v state="$state" 'ours { print; exit } { ours = $0 == state }')
            if [ -n "$program" ]; then
                say "ending the ${program##*/} (pid $pid) of an interrupted run"
                as_owner kill -s TERM -- "-$pid" 2>/dev/null
                # also one that stands still
                as_owner kill -s CONT -- "-$pid" 2>/dev/null
            fi
            ;;
    esac
    lock_within 7 20 ||
        fail 14 "a program of an interrupted run is still at work on \"$pgdata\"" \
            "Its pid is ${pid:-unknown}; end it and run this script again."
}

write_passfile() {
    if [ "$passfile" != "$state/passfile" ] && passfile_has_it "$passfile"; then
        return 0
    fi
    [ "$passfile" = "$state/passfile" ] || ! as_owner test -e "$passfile" ||
        passfile_is_ours "$passfile" ||
        fail 8 "\"$passfile\" holds other passwords, too, and not the right one of role \"$prk_role\"" \
            "Put it there yourself, in a line that begins with $prk_host:$prk_port:*:$prk_role:"
    as_owner test -e "$passfile" || wrote_passfile=yes
    passfile_lines | as_owner sh -c '
        umask 077
        set -C
        rm -f "$1.new" && cat >"$1.new" && mv -f "$1.new" "$1"' sh "$passfile" ||
        fail 8 "could not write \"$passfile\""
}

# ------------------------------------------------------------- Debian's part

# The cluster's configuration comes from pg_createcluster.  The empty database
# that it makes goes to a directory of our own, which is removed again.
make_cluster() {
    unmake_cluster
    [ ! -e "$confdir/postgresql.conf" ] || return 0
    say "making the configuration of cluster $prk_major/$cluster in $confdir"
    as_owner sh -c ': >"$1"' sh "$state/creating"
    # It keeps the clone's lock: should this shell be killed, the next run waits.
    if ! answer=$(exec 8>&- 9>&-; operator_locale; as_owner timeout -k 5 "$start_seconds" pg_createcluster -u "$owner" -d "$state/initial" \
        -p "$port" -o waldir= "$prk_major" "$cluster" 2>&1 7<&7); then
        fail 8 "pg_createcluster failed: $(printf '%s\n' "${answer:-it did not end}" | tail -n 1)"
    fi
    as_owner timeout -k 5 "$program_seconds" pg_conftool "$confdir/postgresql.conf" set data_directory "$pgdata" ||
        fail 8 "could not write \"$confdir/postgresql.conf\""
    as_owner rm -rf "$state/initial" "$state/creating"
    if [ "$become" != self ] && [ -d /run/systemd/system ]; then
        outside timeout -k 5 "$program_seconds" systemctl daemon-reload >/dev/null 2>&1 || :
    fi
}

# Removes what there is of a cluster when pg_createcluster has not come to its
# end.  Before it began there was no such directory in /etc/postgresql.
unmake_cluster() {
    as_owner test -e "$state/creating" || return 0
    dir=$(cluster_setting "$confdir" data_directory)
    case $dir in
        '' | "$state/initial") as_owner rm -rf "$confdir" ;;
    esac
    as_owner rm -rf "$state/initial" "$state/creating"
}

# ------------------------------------------------------------------ the clone

progress_shown=

# progress LINE: over itself on a terminal, else now and then
progress() {
    if [ -t 1 ]; then
        printf '\rpg_replica_kit: %-60s' "$1"
        progress_shown=yes
    elif [ "$elapsed" -ge "$progress_next" ]; then
        say "$1"
        progress_next=$((elapsed + 30))
    fi
}

progress_end() {
    [ -z "$progress_shown" ] || printf '\n'
    progress_shown=
}

# clone_places: beside the data directory, what a clone goes to
clone_places() {
    printf '%s' "$prk_tablespaces"
    [ -z "$waldir" ] || printf '0 %s\n' "$waldir"
}

# Removes a clone that is not complete: all of it lies under our own name.
remove_partial() {
    clone_places | while read -r size location; do
        [ -n "$size" ] || continue
        if [ "$(as_owner cat "$location/pg_replica_kit.clone/for" 2>/dev/null)" = "$pgdata" ]; then
            as_owner rm -rf "$location/pg_replica_kit.clone"
        fi
    done
    as_owner rm -rf "$clone"
}

make_target() {
    if [ ! -d "$pgdata" ]; then
        make_directory "$pgdata"
        made_pgdata=yes
    fi
    as_owner chmod 700 "$pgdata" ||
        fail 8 "could not set the permissions of \"$pgdata\""
}

# Makes the directories that the clone goes to, with the mark of whose it is.
make_clone_directories() {
    [ -z "$waldir" ] || as_owner test -e "$waldir" || made_waldir=yes
    as_owner mkdir -m 700 "$clone" ||
        fail 8 "could not make directory \"$clone\""
    clone_places | while read -r size location; do
        [ -n "$size" ] || continue
        as_owner test -d "$location" || make_directory "$location"
        as_owner sh -c 'mkdir -p -m 700 "$1" &&
            printf "%s\n" "$2" >"$1/for"' sh \
            "$location/pg_replica_kit.clone" "$pgdata" ||
            fail 8 "could not make directory \"$location/pg_replica_kit.clone\""
    done || exit
}

# A slot that has lost its WAL holds none until it is re-created.
renew_slot() {
    [ -n "$slot_lost" ] || return 0
    if [ "$slot_lost" = missing ]; then
        say "replication slot \"$prk_name\" does not exist: making it"
    else
        say "replication slot \"$prk_name\" retains no WAL: re-creating it"
        ask "DROP_REPLICATION_SLOT \"$prk_name\"" ||
            fail 7 "replication slot \"$prk_name\" cannot be dropped: $said"
    fi
    ask "CREATE_REPLICATION_SLOT \"$prk_name\" PHYSICAL RESERVE_WAL" ||
        fail 7 "replication slot \"$prk_name\" cannot be made: $said" \
            "On the upstream server run: SELECT * FROM replica_kit.provision('$prk_name', 'ADDRESS OF THIS MACHINE');"
    [ "$(upstream_name 1)" = "$prk_name" ] ||
        not_upstream "that it has made the slot"
    slot_lost=
}

run_clone() {
    use_new_passfile
    set -- "$bindir/pg_basebackup" -D "$clone/data" -F plain -X stream \
        -S "$prk_name" -c fast -P -w -d "$(conninfo "$passfile" here)"
    if [ -n "$waldir" ]; then
        set -- "$@" --waldir="$waldir/pg_replica_kit.clone/data"
    fi
    while read -r size location; do
        [ -n "$size" ] || continue
        mapped=$(printf '%s' "$location" | sed 's/=/\\=/g')
        set -- "$@" -T "$mapped=$mapped/pg_replica_kit.clone/data"
    done <<EOF
$prk_tablespaces
EOF
    [ "$compress" = none ] || set -- "$@" --compress="server-$compress"
    say "cloning $prk_host, port $prk_port into $pgdata"
    start_job "$@"
    await_job
    [ "$status" -eq 0 ] || explain_clone
}

# start_job COMMAND...: in a session of its own, so that a signal reaches it
# and its helper together
start_job() {
    as_owner rm -f "$state/clone.pid" "$state/clone.out" "$state/clone.status"
    (
        # no word of this shell when the clone is ended
        exec 8>&- 9>&- 2>/dev/null
        as_owner_endless setsid sh -c '
            state=$1
            echo $$ >"$state/clone.pid"
            # room for its last words, should it fill the disk
            echo >"$state/clone.out"
            exec >>"$state/clone.out" 2>&1 </dev/null
            shift
            "$@"
            echo $? >"$state/clone.status"' sh "$state" "$@" 7<&7
    ) &
    clone_job=$!
}

# job_runs: setsid may have gone into the background, and then its end is not
# that of the job
job_runs() {
    kill -0 "$clone_job" 2>/dev/null && return 0
    ! as_owner test -s "$state/clone.status" && signal_job 0
}

# signal_job SIGNAL: to the job's shell, its program and its helpers, if any is
# there
signal_job() {
    pid=$(as_owner cat "$state/clone.pid" 2>/dev/null)
    [ -n "$pid" ] && as_owner kill -s "$1" -- "-$pid" 2>/dev/null
}

# await_job [SIGN [WORDS [go_on]]]: sets status; ends a job of which SIGN, by
# default what it says, does not change for clone_seconds, and then the script, or
# sets overdue to why
await_job() {
    elapsed=0
    progress_next=5
    ticks=0
    before=
    silent=0
    overdue=
    while job_runs; do
        sleep 0.2 2>/dev/null || sleep 1
        ticks=$((ticks + 1))
        [ "$((ticks % 5))" -eq 0 ] || continue
        elapsed=$((elapsed + 1))
        words=$("${1:-clone_words}")
        progress "$words"
        silent=$((silent + 1))
        if [ "$words" != "$before" ]; then
            before=$words
            silent=0
        fi
        if [ "$silent" -ge "$clone_seconds" ]; then
            stop_clone
            overdue="${2:-the upstream server has sent nothing} for $clone_seconds seconds"
            [ -z "${3-}" ] || break
            fail 11 "$overdue" \
                "Nothing is left of the clone; run this script again."
        fi
    done
    status=1
    if [ -n "$clone_job" ]; then
        wait "$clone_job"
        status=$?
        clone_job=
    fi
    # What counts is what the program itself has said; without it nothing does.
    words=$(as_owner cat "$state/clone.status" 2>/dev/null)
    case $words in
        '' | *[!0-9]*) [ "$status" -ne 0 ] || status=1 ;;
        *) status=$words ;;
    esac
    progress_end
}

# clone_words: what the job said last
clone_words() {
    as_owner tail -n 1 "$state/clone.out" 2>/dev/null | sed 's/^ *//' |
        cleaned 200
}

# A clone is complete when pg_basebackup has said so, and has written the whole
# of its manifest, which it does last: the checksum of the manifest is its last
# line.
check_clone() {
    words=$(as_owner sh -c '
        file=$1/backup_manifest
        said=$(sed -n "\$s/^\"Manifest-Checksum\": \"\([0-9a-f]*\)\"}\$/\1/p" "$file") &&
        is=$(sed "\$d" "$file" | sha256sum) &&
        [ -n "$said" ] && [ "${is%% *}" = "$said" ]' sh "$clone/data" 2>&1) ||
        fail 11 "the clone is not complete: its manifest is missing or damaged${words:+: $(printf '%s' "$words" | cleaned 500)}" \
            "Nothing is left of it; run this script again."
    check_new_tablespaces
    find_moved "$clone/data"
    [ -z "$moved" ] ||
        fail 11 "the clone cannot be used: $moved" \
            "Nothing is left of it. Run this script again, and no ALTER DATABASE ... SET TABLESPACE while it runs.${newline}hint: If the upstream is a standby, first run there: CHECKPOINT;"
    [ -z "$verify" ] || verify_clone
    empty_log_directory
}

# A tablespace that is younger than this script was cloned to where it lies at
# the upstream, which must not be below what is moved up.
check_new_tablespaces() {
    inside=$(as_owner sh -c '
        for link in "$1"/data/pg_tblspc/*; do
            location=$(cd -P "$link" 2>/dev/null && pwd) || continue
            case $location in
                "$2"/pg_replica_kit.*) ;;
                "$2"/*) printf "%s\n" "$location" && exit ;;
            esac
        done' sh "$clone" "$pgdata")
    [ -n "$inside" ] || return 0
    as_owner rm -rf "$inside"
    fail 8 "tablespace directory \"$inside\" lies inside the data directory" \
        "The tablespace is younger than this script, which is of $prk_made_at. Choose another data directory, or have the tablespace elsewhere on the upstream server."
}

# --verify: every file against its checksum in the manifest, and the WAL
verify_clone() {
    [ -x "$bindir/pg_verifybackup" ] ||
        fail 3 "program \"pg_verifybackup\" is not installed"
    say "verifying the clone"
    start_job "$bindir/pg_verifybackup" -e "$clone/data"
    await_job verify_words "pg_verifybackup has done nothing"
    [ "$status" -eq 0 ] ||
        fail 11 "the clone does not pass pg_verifybackup: $(clone_words)" \
            "Nothing is left of it; run this script again."
    say "the clone is verified"
}

# verify_words: how much has been read, since the program does not tell
verify_words() {
    as_owner sh -c '
        read -r pid <"$1/clone.pid" &&
        read -r pid rest <"/proc/$pid/task/$pid/children" &&
        sed -n "s/^rchar: //p" "/proc/$pid/io"' sh "$state" 2>/dev/null |
        awk '{ printf "verifying: %d MB read", $1 / 1048576 }'
}

# The upstream's log is no word of this server's.
empty_log_directory() {
    directory=$(setting log_directory)
    case $directory in
        '' | /* | . | ./* | .. | ../* | */.. | */../* | base | base/* | global | \
            global/* | pg_*/* | pg_commit_ts | pg_dynshmem | pg_logical | \
            pg_multixact | pg_notify | pg_replslot | pg_serial | pg_snapshots | \
            pg_stat | pg_stat_tmp | pg_subtrans | pg_tblspc | pg_twophase | \
            pg_wal | pg_xact) return 0 ;;
    esac
    as_owner sh -c '
        [ ! -L "$1" ] && cd "$1" 2>/dev/null || exit 0
        find . -type f -exec rm -f {} +' sh "$clone/data/$directory"
}

# What the process that receives the WAL has said tells more than that it ended.
explain_clone() {
    words=$(as_owner sed -n 's/^pg_basebackup: error: //p' "$state/clone.out" |
        cleaned 2000)
    cause=$(printf '%s\n' "$words" |
        grep -v -x 'background process terminated unexpectedly' | tail -n 1)
    words=${cause:-$words}
    case $words in
        *"No space left"*) fail 9 "the clone failed: $words" \
            "Make room and run this script again." ;;
    esac
    explain_log "$words"
    fail 11 "the clone failed: ${words:-pg_basebackup ended with status $status}" \
        "${hint:-Nothing is left of it; run this script again.}"
}

# --------------------------------------------------- the replica's settings

# setting NAME: what the clone's server would use
setting() {
    setting_in "$clone/data" "$1"
}

# setting_in DIR NAME: what a server would use, from the files as they are
setting_in() {
    asked=$2
    config_options "$1"
    eval "set -- $options"
    tells "$bindir/postgres" "$@" -C "$asked"
}

# Where the upstream keeps its configuration elsewhere, the clone has none.
write_missing_conf() {
    [ -z "$cluster" ] || return 0
    ! as_owner test -e "$clone/data/postgresql.conf" || return 0
    say "the upstream's configuration is not in its data directory: writing a plain one"
    as_owner sh -c '
        cd "$1" || exit
        echo "# PostgreSQL defaults apply; see also postgresql.auto.conf" \
            >postgresql.conf
        printf "%s\n" "local all all peer" \
            "host all all 127.0.0.1/32 scram-sha-256" \
            "host all all ::1/128 scram-sha-256" >pg_hba.conf
        : >>pg_ident.conf' sh "$clone/data" ||
        fail 1 "could not write the configuration in \"$clone/data\""
}

# auto_conf DIR < LINES: puts them into its postgresql.auto.conf for those of
# the same names; a name alone only removes them
auto_conf() {
    as_owner sh -c '
        umask 077
        cd "$1" && cat >postgresql.auto.conf.tmp &&
        {
            sed "/^#/!d" postgresql.auto.conf
            awk "FILENAME ~ /tmp\$/ { mine[\$1] = 1; next }
                !/^#/ && !(\$1 in mine)" \
                postgresql.auto.conf.tmp postgresql.auto.conf
            sed -n "/=/p" postgresql.auto.conf.tmp
        } >postgresql.auto.conf.new &&
        mv postgresql.auto.conf.new postgresql.auto.conf &&
        rm postgresql.auto.conf.tmp' sh "$1" ||
        fail 1 "could not write postgresql.auto.conf in \"$1\""
}

# raise_settings DIR: adds to lines what a standby in DIR may not have lower
# than the upstream, where it has
raise_settings() {
    for name in $minimum_names; do
        find_minimum "$name"
        value=$(setting_in "$1" "$name")
        if [ -z "$value" ]; then
            # Files that cannot be read are no reason to clone again.
            lines="$lines
$name = $wanted"
        elif [ "$value" -lt "$wanted" ]; then
            say "raising $name from $value to the upstream's $wanted"
            lines="$lines
$name = $wanted"
        fi
    done
}

# Makes the clone a standby: connection, slot, and no setting lower than the
# upstream's that a standby may not have lower.
configure() {
    write_missing_conf
    adapt_socket_directories
    reset_recovery "$clone/data"
    lines="primary_conninfo = $(conf_quote "$(conninfo "$passfile" server)")
primary_slot_name = '$prk_name'$local_lines"
    raise_settings "$clone/data"
    if [ "$(setting port)" != "$port" ]; then
        lines="$lines
port = $port"
    fi
    auto_conf "$clone/data" <<EOF
$lines
EOF
    find_unreadable_conf "$clone/data"
    # The port, since who completes it may find the configuration half moved.
    as_owner sh -c ': >"$1/data/standby.signal" &&
        echo "$2" >"$1/port" && mv -f "$1/port" "$1/complete"' sh \
        "$clone" "$port" || fail 1 "could not write to \"$clone\""
}

# find_unreadable_conf DIR: sets unreadable_conf, why a server there could not
# read its configuration
find_unreadable_conf() {
    unreadable_conf=
    [ -z "$(setting_in "$1" port)" ] || return 0
    config_options "$1"
    eval "set -- $options"
    unreadable_conf=$(tells_all "$bindir/postgres" "$@" -C port |
        readable 4000 |
        grep -v 'contains errors' | tail -n 1 | sed 's/^.*LOG: *//; s/^.*FATAL: *//')
    unreadable_conf=${unreadable_conf:-for a reason that postgres does not tell}
}

# Moves the finished clone up to where it belongs; can be run again.
move_up() {
    printf '%s' "$prk_tablespaces" | while read -r size location; do
        [ -n "$size" ] || continue
        as_owner sh -c '
            up=$1/pg_replica_kit.clone
            [ -d "$up" ] || exit 0
            if [ -d "$up/data" ]; then
                cd "$up/data" || exit
                for file in PG_*; do
                    [ ! -e "$file" ] || mv "$file" "$1/" || exit
                done
            fi
            for link in "$2"/data/pg_tblspc/* "$3"/pg_tblspc/*; do
                [ "$(readlink "$link")" != "$up/data" ] ||
                    ln -sfn "$1" "$link" || exit
            done
            rm -rf "$up"' sh "$location" "$clone" "$pgdata" ||
            fail 1 "could not move the clone of tablespace \"$location\""
    done || exit
    move_up_wal || fail 1 "could not move the clone's WAL to its directory"
    as_owner sh -c '
        if [ -d "$1/data" ]; then
            cd "$1/data" || exit
            for file in * .[!.]*; do
                [ -e "$file" ] || [ -L "$file" ] || continue
                [ "$file" = global ] || mv "./$file" "$2/" || exit
            done
            [ ! -e global ] || mv global "$2/" || exit
            cd / && rmdir "$1/data" || exit
        fi
        rm -f "$1/complete" && rmdir "$1"' sh "$clone" "$pgdata" ||
        fail 1 "could not move the clone from \"$clone\""
}

# clone_is_done: true if only the last step of move_up is missing
clone_is_done() {
    as_owner test -d "$clone" && [ -z "$(as_owner ls -A "$clone")" ] &&
        is_this_replica
}

# A WAL directory of its own: the link to it comes last.
move_up_wal() {
    as_owner sh -c '
        for link in "$1/data/pg_wal" "$2/pg_wal"; do
            target=$(readlink "$link") || continue
            up=${target%/data}
            place=${up%/pg_replica_kit.clone}
            [ "$place/pg_replica_kit.clone/data" = "$target" ] || continue
            for file in "$target"/*; do
                [ ! -e "$file" ] || mv "$file" "$place/" || exit
            done
            rm -rf "$up" && ln -sfn "$place" "$link" || exit
        done' sh "$clone" "$pgdata"
}
