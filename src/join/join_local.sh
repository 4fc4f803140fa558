
# ======================================================================
# What this machine must have: programs, a user, a directory, a port, room
# ======================================================================

# -------------------------------------------------------- programs and user

# The PostgreSQL programs, all of one place and of the upstream's major
# version.  Debian's wrappers in PATH are no such place: they have no postgres.
find_programs() {
    for word in awk df find flock head mktemp sed setsid sha256sum stty tail \
        timeout tr; do
        command -v "$word" >/dev/null 2>&1 ||
            fail 3 "program \"$word\" is not installed"
    done
    bindir=
    other_version=
    saved_ifs=$IFS
    IFS=:
    set -f
    # shellcheck disable=SC2086 # PATH is split at its colons
    set -- $PATH
    set +f
    IFS=$saved_ifs
    for dir in "$@" "/usr/lib/postgresql/$prk_major/bin" \
        "/usr/pgsql-$prk_major/bin" "/usr/libexec/postgresql$prk_major" \
        /usr/lib/postgresql/bin /usr/local/pgsql/bin; do
        [ -x "$dir/postgres" ] || continue
        version=$(tells "$dir/postgres" --version |
            sed 's/^[^0-9]*//; s/[^0-9].*//')
        if [ "$version" != "$prk_major" ]; then
            other_version=${other_version:-$version}
            continue
        fi
        bindir=$dir
        for word in pg_basebackup pg_controldata pg_ctl psql; do
            [ -x "$dir/$word" ] || bindir=
        done
        [ -z "$bindir" ] || break
    done
    [ -z "$bindir" ] || return 0
    if command -v apt-get >/dev/null 2>&1; then
        install="apt-get install postgresql-$prk_major"
    elif command -v dnf >/dev/null 2>&1; then
        install="dnf install postgresql$prk_major-server"
    elif command -v zypper >/dev/null 2>&1; then
        install="zypper install postgresql$prk_major-server"
    elif command -v apk >/dev/null 2>&1; then
        install="apk add postgresql$prk_major"
    else
        install="install PostgreSQL $prk_major"
    fi
    if [ -n "$other_version" ]; then
        fail 3 "PostgreSQL $prk_major is not installed here, only $other_version" \
            "A replica needs its upstream's major version: $install"
    fi
    fail 3 "PostgreSQL $prk_major is not installed here" "$install"
}

# as_owner COMMAND...: run it as the server's user.  Whatever stands still is ended
# after a time, but for what only looks, or sends a signal.
as_owner() {
    case $1 in
        test | kill) as_owner_endless "$@" ;;
        *) as_owner_endless timeout -k 5 "$work_seconds" "$@" ;;
    esac
}

as_owner_endless() {
    case $become in
        self) "$@" ;;
        setpriv)
            setpriv --reuid="$owner" --regid="$owner_group" --init-groups \
                -- "$@"
            ;;
        runuser) runuser -u "$owner" -- "$@" ;;
        su) su -s /bin/sh "$owner" -c 'exec "$@"' -- sh "$@" ;;
    esac
}

# owns PATH: is it the server's user's?
owns() {
    [ -n "$(find "$1" -prune -user "$owner" 2>/dev/null)" ]
}

# owner_of PATH
owner_of() {
    stat -c %U "$1" 2>/dev/null || stat -f %Su "$1"
}

# be_owner USER: from now on as_owner runs things as this one
be_owner() {
    owner=$1
    if [ "$(id -u)" -ne 0 ]; then
        become=self
        return 0
    fi
    id "$owner" >/dev/null 2>&1 ||
        fail 3 "there is no user \"$owner\" to run the server" \
            "It comes with PostgreSQL's package."
    owner_group=$(id -g "$owner")
    if setpriv --reuid="$owner" --regid="$owner_group" --init-groups -- \
        true 2>/dev/null; then
        become=setpriv
    elif command -v runuser >/dev/null 2>&1; then
        become=runuser
    else
        become=su
    fi
}

# The server's user: of a Debian cluster the owner of its configuration; else
# the owner of the data directory, or of what it is to be made in.
find_owner() {
    operator_home=${HOME-}
    local_user=
    if [ "$(id -u)" -ne 0 ]; then
        # in a container there may be a number and no name
        if ! name=$(id -un 2>/dev/null); then
            name=$(id -u)
            local_user=postgres
        fi
        be_owner "$name"
        if [ -d "$pgdata" ] && ! owns "$pgdata"; then
            fail 8 "directory \"$pgdata\" belongs to another user" \
                "Run this script as its owner or as root."
        fi
        check_state
        return 0
    fi
    dir=$pgdata
    if [ -n "$cluster" ] && [ -e "$confdir/postgresql.conf" ]; then
        dir=$confdir/postgresql.conf
    fi
    while [ ! -e "$dir" ]; do
        dir=$(dirname "$dir")
    done
    dir=$(owner_of "$dir")
    if [ "$dir" = root ]; then
        dir=postgres
    fi
    be_owner "$dir"
    # What libpq looks for in a home directory must not be root's.
    HOME=$(timeout -k 2 "$program_seconds" getent passwd "$owner" | cut -d : -f 6)
    export HOME
    unset TMPDIR
    if [ -d "$pgdata" ] && ! owns "$pgdata"; then
        fail 8 "directory \"$pgdata\" belongs to user \"$(owner_of "$pgdata")\", not to the server's user \"$owner\"" \
            "Nothing in it has been touched. ${named_by:-If the replica is to have it, give it to that user; or choose another directory.}"
    fi
    check_state
}

# Our own directory is the server's user's alone, or it is not ours: somebody
# who may write there may choose what this script does, or read the password.
check_state() {
    [ -e "$state" ] || [ -L "$state" ] || return 0
    [ -z "$(find "$state" -prune -type d -user "$owner" \
        ! -perm -0040 ! -perm -0020 ! -perm -0010 \
        ! -perm -0004 ! -perm -0002 ! -perm -0001 2>/dev/null)" ] || return 0
    hint="Somebody else may have made it. Look at what it holds, and move it away."
    if [ -d "$state" ] && [ ! -L "$state" ] && owns "$state"; then
        hint="Others may have changed what it holds. If you know that they have not, run: chmod 700 $(shell_quote "$state")"
    fi
    fail 8 "\"$state\" is not a directory of user \"$owner\" alone" "$hint"
}

# can_make DIR: can make_directory()?
can_make() (
    dir=$(dirname "$1")
    while ! as_owner test -d "$dir"; do
        [ "$dir" != / ] || return 1
        dir=$(dirname "$dir")
    done
    if as_owner test -w "$dir" && as_owner test -x "$dir"; then
        return 0
    fi
    [ "$become" != self ] && [ -z "$named_by" ] && ! is_told "$1" &&
        is_roots "$1"
)

# is_roots PATH: nobody but root has a hand in where it is
is_roots() (
    dir=$1
    while [ "$dir" != / ]; do
        dir=$(dirname "$dir")
        if [ ! -e "$dir" ] && [ ! -L "$dir" ]; then
            continue
        fi
        [ -n "$(find "$dir" -prune -type d -user 0 ! -perm -0020 \
            ! -perm -0002 2>/dev/null)" ] || return 1
    done
)

# make_directory DIR: new, for the server's user alone; its parents for
# everybody.  The server's user makes it.  Root does where only root can, and
# nobody else could have put something in its place before it is given away.
make_directory() {
    if as_owner sh -c 'umask 022 && mkdir -p "$(dirname "$1")" &&
        umask 077 && mkdir -m 700 "$1"' sh "$1" 2>/dev/null; then
        label_directory "$1"
        return 0
    fi
    { can_make "$1" && [ "$become" != self ] && ! is_told "$1" && is_roots "$1" &&
        (umask 022 && mkdir -p "$(dirname "$1")" && mkdir -m 700 "$1" &&
            chown -h "$owner:$owner_group" "$1"); } ||
        fail 8 "could not make directory \"$1\""
    label_directory "$1"
}

# label_directory DIR: what SELinux, where it is on, demands of a server's
# directory.  What is made in it gets its label.
label_directory() {
    [ "$become" != self ] && selinuxenabled 2>/dev/null || return 0
    timeout -k 2 "$program_seconds" restorecon "$1" 2>/dev/null || :
    # shellcheck disable=SC2012 # only the label is read
    case $(ls -dZ "$1" 2>/dev/null) in
        *postgresql_db_t*) ;;
        *)
            say "note: SELinux may keep the server out of \"$1\"; if so, as root run: semanage fcontext -a -t postgresql_db_t $(shell_quote "$1(/.*)?") && restorecon -R $(shell_quote "$1")"
            ;;
    esac
}

# remove_directory DIR: one that make_directory() has made, if it is empty
remove_directory() {
    as_owner rmdir "$1" 2>/dev/null ||
        { [ "$become" != self ] && is_roots "$1" && rmdir "$1" 2>/dev/null; }
}

# ------------------------------------------------------------ the directory

# Where the data directory is, or is to be, with symbolic links resolved: one
# directory has one name here.
resolve_directory() {
    if [ -n "$cluster" ]; then
        command -v pg_createcluster >/dev/null 2>&1 ||
            fail 3 "this machine has no Debian clusters" \
                "Install postgresql-common, or use --pgdata DIR."
        confdir=${PG_CLUSTER_CONF_ROOT:-/etc/postgresql}/$prk_major/$cluster
        # A killed run may have left it at the database for removal.
        pgdata=$(cluster_setting "$confdir" data_directory)
        pgdata=${pgdata%.pg_replica_kit/initial}
        # The server's user decides what it says.
        [ -z "$pgdata" ] || named_by="\"$confdir/postgresql.conf\" names it."
        if [ -z "$pgdata" ]; then
            pgdata=$(sed -n "s/^[[:space:]]*data_directory[[:space:]]*=[[:space:]]*'\\{0,1\\}\\([^'#]*\\).*/\\1/p" \
                /etc/postgresql-common/createcluster.conf 2>/dev/null |
                tail -n 1 | sed 's/[[:space:]]*$//')
            pgdata=$(printf '%s\n' "${pgdata:-/var/lib/postgresql/%v/%c}" |
                sed "s/%v/$prk_major/g; s/%c/$cluster/g")
        fi
    fi
    case $pgdata in
        *"
"*) fail 2 "the directory's name has a line break in it" ;;
        /*) ;;
        *) pgdata=$(pwd)/$pgdata ;;
    esac
    if [ -d "$pgdata" ]; then
        pgdata=$(cd -P "$pgdata" 2>/dev/null && pwd) ||
            fail 8 "directory \"$pgdata\" cannot be entered" \
                "Run this script as its owner or as root."
    elif [ -e "$pgdata" ] || [ -L "$pgdata" ]; then
        fail 8 "\"$pgdata\" is not a directory"
    else
        parent=$(dirname "$pgdata")
        base=$(basename "$pgdata")
        dir=$(cd -P "$parent" 2>/dev/null && pwd) && parent=$dir
        pgdata=${parent%/}/$base
    fi
    case $pgdata in
        / | /*/../* | /../* | */..)
            fail 2 "\"$pgdata\" cannot be a data directory" ;;
    esac
    if [ -z "$cluster" ]; then
        for conf in "${PG_CLUSTER_CONF_ROOT:-/etc/postgresql}/$prk_major"/*/postgresql.conf; do
            [ -e "$conf" ] || continue
            dir=$(cluster_setting "$(dirname "$conf")" data_directory)
            dir=$(cd -P "${dir:-/nonexistent}" 2>/dev/null && pwd) || continue
            if [ "$dir" = "$pgdata" ]; then
                confdir=$(dirname "$conf")
                cluster=$(basename "$confdir")
            fi
        done
    fi
    state=$pgdata.pg_replica_kit
    clone=$pgdata/pg_replica_kit.clone
}

# cluster_setting CONFDIR NAME: what a Debian cluster's postgresql.conf says,
# as its owner can read it
cluster_setting() {
    [ -e "$1/postgresql.conf" ] || return 0
    (
        be_owner "$(owner_of "$1/postgresql.conf")"
        tells pg_conftool -s "$1/postgresql.conf" show "$2"
    ) || :
}

# contents: what the data directory holds, but for what a mount point has and
# old data that was moved aside there
contents() {
    as_owner ls -A "$pgdata" 2>&1 |
        grep -v -x -e lost+found -e pg_replica_kit.old
}

# What the directory holds: absent, empty, cloning (a killed run's beginning),
# moving (a killed run's finished clone), standby (ours), or other.
inspect_directory() {
    if [ ! -d "$pgdata" ]; then
        dir_state=absent
    elif as_owner test -d "$clone"; then
        if as_owner test -e "$clone/complete"; then
            dir_state=moving
        elif [ "$(contents)" = pg_replica_kit.clone ]; then
            dir_state=cloning
        else
            dir_state=other
        fi
    else
        if [ -z "$(contents)" ]; then
            dir_state=empty
        elif is_this_replica; then
            dir_state=standby
        else
            dir_state=other
        fi
    fi
}

# Is it a standby that this script has made, for this slot of this upstream?
is_this_replica() {
    as_owner test -e "$pgdata/standby.signal" && has_our_settings
}

# Do its settings say so, at least?  For a rebuild they need not name a slot,
# as long as it is no other.
has_our_settings() {
    if [ -n "$follow" ]; then
        holds_replica
        return
    fi
    if ! uses_slot; then
        [ -n "$rebuild" ] && [ -z "$(slot_setting)" ] || return 1
    fi
    line="primary_conninfo = $(conf_quote "$(base_conninfo "$passfile")")"
    case $(auto_conf_line primary_conninfo) in
        "${line%\'}"*) return 0 ;;
    esac
    return 1
}

# Does the script's own setting name the slot?
uses_slot() {
    [ "$(auto_conf_line primary_slot_name)" = \
        "primary_slot_name = '$prk_name'" ]
}

# slot_setting: the slot that the server in the directory uses
slot_setting() {
    name=$(auto_conf_line primary_slot_name | sed "s/^[^']*'//; s/'\$//" |
        cleaned 200)
    printf '%s' "${name:-$(setting_in "$pgdata" primary_slot_name)}"
}

# auto_conf_line NAME: the last line of postgresql.auto.conf that sets it
auto_conf_line() {
    as_owner sed -n "/^$1 = /p" \
        "$(conf_place "$pgdata")/postgresql.auto.conf" 2>/dev/null | tail -n 1
}

# server_pid: the pid of the server that runs in the directory, or nothing
server_pid() {
    as_owner test -e "$pgdata/postmaster.pid" &&
        tells "$bindir/pg_ctl" status -D "$pgdata" >/dev/null || return 0
    as_owner sed -n 1p "$pgdata/postmaster.pid" 2>/dev/null
}

# live_pid: the pid of the server in the directory, however damaged that is
live_pid() {
    number=$(as_owner sed -n 1p "$pgdata/postmaster.pid" 2>/dev/null)
    case $number in
        '' | *[!0-9]*) return 0 ;;
    esac
    [ "$(as_owner readlink "/proc/$number/cwd" 2>/dev/null)" != "$pgdata" ] ||
        printf '%s' "$number"
}

# control_system_id: of the control file, or nothing if that is damaged
control_system_id() {
    answer=$(tells_all "$bindir/pg_controldata" -D "$pgdata") || return 0
    case $answer in
        *"CRC checksum does not match"* | *"nvalid WAL segment size"*) ;;
        *) printf '%s\n' "$answer" |
            sed -n 's/^Database system identifier: *//p' ;;
    esac
}

# Refuses every directory that is not free for the replica.
check_directory() {
    inspect_directory
    pid=
    if [ "$dir_state" != absent ]; then
        pid=$(server_pid)
        pid=${pid:-$(live_pid)}
    fi
    if [ "$dir_state" = standby ] && [ -n "$pid" ]; then
        dir_state=running
    fi
    ! check_rewinding || return 0
    case $dir_state in
        absent | empty)
            check_parents
            return
            ;;
        cloning | moving) return ;;
        standby | running)
            [ -z "$rebuild" ] || check_old_cluster
            return
            ;;
    esac
    if [ -n "$rebuild" ]; then
        check_old
        return
    fi
    if follows_elsewhere; then
        fail 8 "\"$pgdata\" holds replica \"$prk_name\", but it follows $old_host, port $old_port" \
            "If it is to follow $prk_host, port $prk_port, run: $(script_words) --follow $(upstream_words)"
    fi
    system_id=$(control_system_id)
    if [ "$system_id" = "$prk_system_id" ] && [ -z "$pid" ] &&
        has_our_settings; then
        fail 8 "\"$pgdata\" was this replica, but is no standby any more" \
            "If it was promoted by mistake, run this script with --rebuild."
    fi
    if [ "$system_id" = "$prk_system_id" ] &&
        { [ "$pgdata" = "$prk_data_directory" ] ||
            ! as_owner test -e "$pgdata/standby.signal"; }; then
        fail 8 "\"$pgdata\" is the upstream server's own data directory, or a copy of it" \
            "Choose another directory with --pgdata."
    fi
    if [ -n "$pid" ] && [ -n "$cluster" ]; then
        fail 8 "a server (pid $pid) is running in \"$pgdata\", the data directory of cluster $prk_major/$cluster" \
            "If nobody needs it, run: pg_dropcluster --stop $prk_major $cluster; else choose another name with --cluster."
    elif [ -n "$pid" ]; then
        fail 8 "a server (pid $pid) is running in \"$pgdata\"" \
            "Choose another directory with --pgdata."
    fi
    if [ -n "$cluster" ]; then
        fail 8 "the data directory \"$pgdata\" of cluster $prk_major/$cluster is not empty" \
            "If nobody needs it, run: pg_dropcluster $prk_major $cluster; else choose another name with --cluster."
    fi
    fail 8 "directory \"$pgdata\" is not empty" \
        "Nothing in it has been touched. Move it away, or choose another directory."
}

# The directories that must be made can be made, and entered.
check_parents() {
    if [ -n "$cluster" ] && [ -e "$confdir" ] &&
        [ ! -e "$confdir/postgresql.conf" ] && [ ! -e "$state/creating" ]; then
        fail 8 "\"$confdir\" holds remains of a cluster" \
            "If nobody needs them, run: pg_dropcluster $prk_major $cluster"
    fi
    if [ -n "$cluster" ] && [ ! -e "$confdir/postgresql.conf" ]; then
        can_make "$confdir" ||
            fail 8 "directory \"$(dirname "$confdir")\" is not writable for user \"$owner\"" \
                "As root run: install -d -o $owner $(shell_quote "$(dirname "$confdir")")"
    fi
    dir=$(dirname "$pgdata")
    while [ ! -d "$dir" ]; do
        dir=$(dirname "$dir")
    done
    as_owner test -x "$dir" ||
        fail 8 "directory \"$dir\" cannot be entered by user \"$owner\"" \
            "Choose another directory, or change its permissions."
    { [ "$dir_state" = empty ] || can_make "$pgdata"; } &&
        { [ -d "$state" ] || can_make "$state"; } && return 0
    fail 8 "directory \"$dir\" is not writable for user \"$owner\"" \
        "${named_by:-As root run: install -d -m 700 -o $owner $(shell_quote "$pgdata") $(shell_quote "$state")}"
}

# A clone is made inside the data directory and then moved up: neither can a
# tablespace lie there, nor the data directory in a tablespace's.
check_nesting() {
    printf '%s' "$prk_tablespaces" | while read -r size location; do
        [ -n "$size" ] || continue
        case $(real_path "$location")/ in
            "$pgdata"/*)
                fail 8 "tablespace directory \"$location\" lies inside the data directory \"$pgdata\"" \
                    "Choose another data directory; or on the upstream server make a tablespace outside of its data directory, and move what this one holds there: ALTER TABLE ALL IN TABLESPACE ... SET TABLESPACE ..."
                ;;
        esac
        case $pgdata/ in
            "$(real_path "$location")"/*)
                fail 8 "the data directory \"$pgdata\" lies inside tablespace directory \"$location\"" \
                    "Choose another data directory." ;;
        esac
    done || exit
}

# real_path PATH: with symbolic links resolved, as far as it exists
real_path() {
    dir=$1
    rest=
    while ! as_owner test -d "$dir"; do
        rest=/$(basename "$dir")$rest
        dir=$(dirname "$dir")
    done
    dir=$(as_owner sh -c 'cd -P "$1" && pwd' sh "$dir")
    printf '%s%s' "${dir%/}" "$rest"
}

# Locations of tablespaces must be free here, too: the server's links to them
# are absolute.
check_tablespaces() {
    case $dir_state:$rebuild in
        # What lies there is this replica's own.
        moving:* | standby: | running:) return 0 ;;
        standby:* | running:*) ;;
        *) check_nesting ;;
    esac
    printf '%s' "$prk_tablespaces" | while read -r size location; do
        [ -n "$size" ] || continue
        if ! as_owner test -e "$location" && ! as_owner test -L "$location"; then
            can_make "$location" ||
                fail 8 "tablespace directory \"$location\" cannot be made by user \"$owner\"" \
                    "As root run: install -d -m 700 -o $owner $(shell_quote "$location")"
            continue
        fi
        [ -d "$location" ] && owns "$location/" ||
            fail 8 "tablespace directory \"$location\" is not a directory of user \"$owner\"" \
                "The replica's tablespaces lie where the upstream's do; give it to that user, or use another machine."
        if as_owner test -d "$location/pg_replica_kit.clone"; then
            whose=$(as_owner cat "$location/pg_replica_kit.clone/for" 2>/dev/null)
            case $whose in
                "$pgdata" | '') continue ;;
            esac
            fail 8 "tablespace directory \"$location\" is in use by another clone, for \"$whose\""
        fi
        ours=
        if [ -n "$rebuild" ] && is_old_tablespace "$location"; then
            ours="PG_${prk_major}_.*"
        fi
        # shellcheck disable=SC2010 # asked is whether there is any
        if as_owner ls -A "$location" 2>&1 | grep -v -x -q -e "$ours" \
            -e lost+found -e pg_replica_kit.old; then
            fail 8 "tablespace directory \"$location\" is not empty" \
                "The replica's tablespaces lie where the upstream's do. If nobody needs what is in it, move that away; else use another machine."
        fi
    done || exit
}

# running_port: of the server that runs in the directory
running_port() {
    number=$(as_owner sed -n 4p "$pgdata/postmaster.pid" 2>/dev/null)
    case $number in
        *[!0-9]* | ??????*) return 0 ;;
    esac
    printf '%s' "$number"
}

# port_in_use N: does anything listen on it?
port_in_use() {
    cat /proc/net/tcp /proc/net/tcp6 2>/dev/null |
        awk -v port="$(printf ':%04X' "$1")" '
        $4 == "0A" && substr($2, length($2) - 4) == port { found = 1 }
        END { exit !found }'
}

# next_cluster_port: the one that pg_createcluster would take
next_cluster_port() {
    taken=$(for conf in "${PG_CLUSTER_CONF_ROOT:-/etc/postgresql}"/*/*/postgresql.conf; do
        [ -e "$conf" ] || continue
        number=$(cluster_setting "$(dirname "$conf")" port)
        printf ' %s ' "${number:-5432}"
    done)
    number=5432
    while :; do
        case $taken in
            *" $number "*) ;;
            *) port_in_use "$number" || break ;;
        esac
        number=$((number + 1))
    done
    printf '%s' "$number"
}

# The replica's port: as asked for, or as the Debian cluster has it or would get
# it, or the upstream's.
check_port() {
    if [ -z "$port" ] && [ -n "$cluster" ]; then
        port=$(cluster_setting "$confdir" port)
        [ -e "$confdir/postgresql.conf" ] || port=$(next_cluster_port)
    fi
    if [ -z "$port" ]; then
        case $dir_state in
            standby | old)
                port=$(setting_in "$pgdata" port)
                port=${port:-$(auto_conf_line port | sed 's/[^0-9]//g')}
                ;;
            moving) port=$(as_owner cat "$clone/complete") ;;
        esac
    fi
    port=${port:-$prk_server_port}
    if [ -n "$start" ] && port_in_use "$port"; then
        fail 8 "port $port is in use" "Choose the replica's port with --port."
    fi
}

# ------------------------------------------------------ space and libraries

# Space is added up by file system; a tenth more, and four segments of WAL
# where that goes.
check_space() {
    {
        printf '%s %s\n' "$prk_data_size" "$pgdata"
        clone_places
    } | while read -r size dir; do
        [ -n "$size" ] || continue
        need=$(calc "$size * 1.1")
        [ "$dir" != "${waldir:-$pgdata}" ] ||
            need=$(calc "$need + 4 * $prk_segment_size")
        while [ ! -d "$dir" ]; do
            dir=$(dirname "$dir")
        done
        printf '%s ' "$need"
        df -Pk "$dir" | awk 'NR == 2 {
            available = $4
            sub(/^.*% +/, "")
            print available, $0
        }'
    done | awk '
        {
            need = $1; available = $2
            sub(/^[^ ]+ [^ ]+ /, "")
            needs[$0] += need
            has[$0] = available * 1024
        }
        END {
            for (mount in needs)
                if (has[mount] < needs[mount]) {
                    printf "%s needs %.0f MB, has %.0f MB\n", mount,
                        needs[mount] / 1048576 + 1, has[mount] / 1048576
                    exit
                }
        }'
}

check_disk() {
    # What a killed run left is removed before the clone begins.
    case $dir_state in
        moving | standby) return 0 ;;
    esac
    short=$(check_space)
    [ -z "$short" ] || [ "$dir_state" != old ] ||
        fail 9 "not enough disk space for a new clone beside the old data: $short" \
            "The old data has not been touched. Make room; or remove it yourself, and run this script without --rebuild.$size_age"
    [ -z "$short" ] ||
        fail 9 "not enough disk space: $short" \
            "Make room, or choose another directory.$size_age"
}

# find_pkglibdir: where the server's libraries are, or nothing
find_pkglibdir() {
    for dir in "$bindir/../lib" "$bindir/../lib/postgresql" \
        "$bindir/../lib/pgsql" "$bindir/../lib64/pgsql" \
        "/usr/lib/postgresql$prk_major" /usr/lib64/pgsql; do
        if [ -e "$dir/libpqwalreceiver.so" ]; then
            printf '%s' "$dir"
            return
        fi
    done
}

# Each library that the upstream preloads must be loadable here.
check_libraries() {
    pkglibdir=$(find_pkglibdir)
    if [ -z "$pkglibdir" ]; then
        say "note: the server's library directory was not found, libraries are not checked"
        return 0
    fi
    absent=
    while read -r library; do
        [ -n "$library" ] || continue
        case $library in
            '$libdir/'*) file=$pkglibdir/${library#*/} ;;
            */*) file=$library ;;
            *) file=$pkglibdir/$library ;;
        esac
        if [ ! -e "$file.so" ] && [ ! -e "$file" ]; then
            absent="$absent${absent:+, }$library"
        fi
    done <<EOF
$prk_libraries
EOF
    [ -z "$absent" ] ||
        fail 10 "the upstream server preloads what is not installed here: $absent" \
            "Install the same packages as there, for PostgreSQL $prk_major.$libraries_age"
}
