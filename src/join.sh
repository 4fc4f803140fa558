#!/bin/sh
# shellcheck disable=SC2016 # programs for awk and sh -c are in single quotes
# shellcheck disable=SC2030,SC2031 # LC_ALL is meant to change in a subshell
#
# Makes this machine's PostgreSQL directory a streaming replica.
#
# replica_kit.join_script() puts the values of one replica (prk_...) below
# this comment; without them the script does nothing.
#
# Nothing is changed until every check has passed.  After that:
#
# - DIR is the data directory, DIR.pg_replica_kit our own directory beside it
#   (0700, the server's user): passfile, locks, and the server's log where
#   nobody else keeps one.
# - The clone is made in DIR/pg_replica_kit.clone/data, made a standby there,
#   then marked complete and moved up by renames, "global" last: without it
#   no server starts.  So nothing is ever removed that does not lie in a
#   directory of our own name, and a killed run can be told from foreign data.
#   Tablespaces likewise, in LOCATION/pg_replica_kit.clone.
# - Two locks: fd 9 is held by the script alone, fd 7 by the pg_basebackup it
#   starts.  Who gets the first but not the second has found what a killed run
#   left behind.
#
# The password is only ever in shell variables, here-documents and files that
# the server's user alone can read: never in an argument or the environment.

: "${prk_name:?this file is read by replica_kit.join_script(), not run}"
: "${prk_host:?}" "${prk_port:?}" "${prk_role:?}" "${prk_major:?}"
: "${prk_made_at:?}" "${prk_version:?}" "${prk_system_id:?}"
: "${prk_server_port:?}" "${prk_data_size:?}" "${prk_segment_size:?}"
: "${prk_data_directory:?}" "${prk_libraries?}" "${prk_tablespaces?}"

# ---------------------------------------------------------------- messages

say() {
    printf 'pg_replica_kit: %s\n' "$*"
}

# fail CODE MESSAGE [HINT]: one line each, then the end
fail() {
    fail_code=$1
    progress_end
    printf 'pg_replica_kit: error: %s\n' "$2" >&2
    if [ -n "${3-}" ]; then
        printf 'hint: %s\n' "$3" >&2
    fi
    exit "$fail_code"
}

usage() {
    cat <<EOF
Makes this machine's PostgreSQL directory the streaming replica "$prk_name"
of the server at $prk_host, port $prk_port (PostgreSQL $prk_version).

Usage:
  sh SCRIPT --pgdata DIR [OPTION]...
  sh SCRIPT --cluster $prk_major/NAME [OPTION]...

Run it as root, or as the user that is to own the server.

Options:
  --pgdata DIR         data directory; must be empty or not exist
  --cluster VER/NAME   Debian cluster; made by pg_createcluster if it does not
                       exist
  --port N             port of the replica, when not $prk_server_port
  --no-start           stop before starting the server
  --start-command CMD  start the server with this shell command
  --dry-run            make every check, change nothing
  --help               show this help

The password of role "$prk_role" is taken from PGPASSWORD, PGPASSFILE,
~/.pgpass, or a prompt.

Exit codes:
   0  the replica streams (or what was asked for is done)
   1  something unforeseen failed
   2  wrong usage
   3  programs are missing, or of another major version
   4  the upstream server cannot be reached
   5  the upstream server refuses: password, role or pg_hba.conf
   6  it is not the server this script was made for
   7  the replication slot is missing or in use
   8  the data directory, a tablespace directory or the port cannot be used
   9  not enough disk space
  10  a library that the upstream server preloads is not installed here
  11  the clone failed
  12  the replica's server did not start
  13  it runs, but does not stream
  14  another run is at work on the same directory
  129, 130, 141, 143  ended by a signal (HUP, INT, PIPE, TERM)
EOF
}

# ------------------------------------------------------------------ quoting

# A passfile field: backslash and colon escaped.
passfile_escape() {
    sed 's/[\\:]/\\&/g' <<EOF
$1
EOF
}

# A value in a connection string.
conninfo_quote() {
    printf "'%s'" "$(sed "s/[\\\\']/\\\\&/g" <<EOF
$1
EOF
)"
}

# A value in postgresql.conf.
conf_quote() {
    printf "'%s'" "$(sed "s/\\\\/\\\\\\\\/g; s/'/''/g" <<EOF
$1
EOF
)"
}

# A word for a person to paste into a shell.
shell_quote() {
    case $1 in
        *[!A-Za-z0-9_./:=@%+,-]* | '')
            printf "'%s'" "$(sed "s/'/'\\\\''/g" <<EOF
$1
EOF
)"
            ;;
        *) printf '%s' "$1" ;;
    esac
}

# conninfo PASSFILE: everything but the password
conninfo() {
    printf 'host=%s port=%s user=%s application_name=%s passfile=%s' \
        "$(conninfo_quote "$prk_host")" "$prk_port" \
        "$(conninfo_quote "$prk_role")" "$(conninfo_quote "$prk_name")" \
        "$(conninfo_quote "$1")"
}

# --------------------------------------------------------------- arguments

parse_arguments() {
    pgdata=
    cluster=
    port=
    start=yes
    start_command=
    dry_run=
    while [ $# -gt 0 ]; do
        case $1 in
            --pgdata=* | --cluster=* | --port=* | --start-command=*)
                option=${1%%=*}
                value=${1#*=}
                ;;
            --pgdata | --cluster | --port | --start-command)
                option=$1
                [ $# -gt 1 ] ||
                    fail 2 "option $1 needs a value" "Try --help."
                value=$2
                shift
                ;;
            --no-start | --dry-run | --help)
                option=$1
                value=-
                ;;
            *)
                fail 2 "unknown option \"$1\"" "Try --help."
                ;;
        esac
        shift
        [ -n "$value" ] ||
            fail 2 "option $option needs a value" "Try --help."
        case $option in
            --pgdata) pgdata=$value ;;
            --cluster) cluster=$value ;;
            --port) port=$value ;;
            --start-command) start_command=$value ;;
            --no-start) start= ;;
            --dry-run) dry_run=yes ;;
            --help)
                usage
                exit 0
                ;;
        esac
    done
    if [ -n "$pgdata" ] && [ -n "$cluster" ]; then
        fail 2 "--pgdata and --cluster exclude each other" "Try --help."
    elif [ -z "$pgdata$cluster" ]; then
        fail 2 "where is the replica to be?" \
            "Add --pgdata DIR, or on Debian --cluster $prk_major/NAME."
    fi
    if [ -z "$start" ] && [ -n "$start_command" ]; then
        fail 2 "--no-start and --start-command exclude each other" \
            "Try --help."
    fi
    case $port in
        '') ;;
        *[!0-9]* | ??????*) fail 2 "\"$port\" is not a port" "Try --help." ;;
        *)
            if [ "$port" -lt 1 ] || [ "$port" -gt 65535 ]; then
                fail 2 "\"$port\" is not a port" "Try --help."
            fi
            ;;
    esac
    case $cluster in
        '') ;;
        "$prk_major"/?*)
            cluster=${cluster#*/}
            case $cluster in
                *[!A-Za-z0-9_.-]* | -*)
                    fail 2 "\"$cluster\" is not a name of a cluster" \
                        "Use letters, digits, \"_\", \".\" and \"-\"."
                    ;;
            esac
            ;;
        */?*)
            fail 2 "cluster \"$cluster\" is not of PostgreSQL $prk_major" \
                "Use --cluster $prk_major/${cluster#*/}."
            ;;
        *)
            fail 2 "\"$cluster\" is not VERSION/NAME" \
                "Use --cluster $prk_major/$cluster."
            ;;
    esac
}

# -------------------------------------------------------- programs and user

# The PostgreSQL programs, all of one place and of the upstream's major
# version.  Debian's wrappers in PATH are no such place: they have no postgres.
find_programs() {
    for word in awk df flock mktemp sed setsid stty tail; do
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
        version=$("$dir/postgres" --version 2>/dev/null |
            sed 's/^[^0-9]*//; s/[^0-9].*//')
        if [ "$version" != "$prk_major" ]; then
            other_version=${other_version:-$version}
            continue
        fi
        bindir=$dir
        for word in pg_basebackup pg_controldata pg_ctl pg_isready psql; do
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

# as_owner COMMAND...: run it as the server's user
as_owner() {
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

# The server's user: the owner of the data directory, or of what it is to be
# made in.
find_owner() {
    operator_home=${HOME-}
    if [ "$(id -u)" -ne 0 ]; then
        owner=$(id -un)
        become=self
        if [ -d "$pgdata" ] && [ ! -O "$pgdata" ]; then
            fail 8 "directory \"$pgdata\" belongs to another user" \
                "Run this script as its owner or as root."
        fi
        return 0
    fi
    dir=$pgdata
    while [ ! -d "$dir" ]; do
        dir=$(dirname "$dir")
    done
    owner=$(stat -c %U "$dir" 2>/dev/null || stat -f %Su "$dir")
    if [ "$owner" = root ]; then
        owner=postgres
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
    # What libpq looks for in a home directory must not be root's.
    HOME=$(getent passwd "$owner" | cut -d : -f 6)
    export HOME
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
        pgdata=$(cluster_setting "$confdir" data_directory)
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

# cluster_setting CONFDIR NAME: what a Debian cluster's postgresql.conf says
cluster_setting() {
    [ -e "$1/postgresql.conf" ] || return 0
    pg_conftool -s "$1/postgresql.conf" show "$2" 2>/dev/null || :
}

# What the directory holds: absent, empty, cloning (a killed run's beginning),
# moving (a killed run's finished clone), standby (ours), or other.
inspect_directory() {
    if [ ! -d "$pgdata" ]; then
        dir_state=absent
    elif as_owner test -d "$clone"; then
        if as_owner test -e "$clone/complete"; then
            dir_state=moving
        elif [ "$(as_owner ls -A "$pgdata")" = pg_replica_kit.clone ]; then
            dir_state=cloning
        else
            dir_state=other
        fi
    else
        # shellcheck disable=SC2012 # asked is whether there is any
        if [ -z "$(ls -A "$pgdata" 2>&1 | head -n 1)" ]; then
            dir_state=empty
        elif as_owner test -e "$pgdata/standby.signal" &&
            [ "$(auto_conf_line primary_conninfo)" = \
                "primary_conninfo = $(conf_quote "$(conninfo "$state/passfile")")" ] &&
            [ "$(auto_conf_line primary_slot_name)" = \
                "primary_slot_name = '$prk_name'" ]; then
            dir_state=standby
        else
            dir_state=other
        fi
    fi
}

auto_conf_line() {
    as_owner sed -n "/^$1 = /p" "$pgdata/postgresql.auto.conf" 2>/dev/null |
        tail -n 1
}

# server_pid: the pid of the server that runs in the directory, or nothing
server_pid() {
    as_owner "$bindir/pg_ctl" status -D "$pgdata" >/dev/null 2>&1 || return 0
    as_owner sed -n 1p "$pgdata/postmaster.pid" 2>/dev/null
}

control_system_id() {
    as_owner "$bindir/pg_controldata" -D "$pgdata" 2>/dev/null |
        sed -n 's/^Database system identifier: *//p'
}

# Refuses every directory that is not free for the replica.
check_directory() {
    inspect_directory
    pid=
    if [ "$dir_state" != absent ]; then
        pid=$(server_pid)
    fi
    if [ "$dir_state" = standby ] && [ -n "$pid" ]; then
        dir_state=running
    fi
    case $dir_state in
        absent | empty)
            check_parents
            return
            ;;
        cloning | moving | standby | running) return ;;
    esac
    system_id=$(control_system_id)
    if [ "$system_id" = "$prk_system_id" ] &&
        { [ "$pgdata" = "$prk_data_directory" ] ||
            ! as_owner test -e "$pgdata/standby.signal"; }; then
        fail 8 "\"$pgdata\" is the upstream server's own data directory, or a copy of it" \
            "Choose another directory with --pgdata."
    fi
    if [ -n "$pid" ]; then
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

# The directories that must be made can be made.
check_parents() {
    dir=$(dirname "$pgdata")
    while [ ! -d "$dir" ]; do
        dir=$(dirname "$dir")
    done
    if [ "$become" != self ] || [ -w "$dir" ]; then
        return 0
    fi
    if [ "$dir_state" = empty ] && [ -O "$state" ]; then
        return 0
    fi
    fail 8 "directory \"$dir\" is not writable for user \"$owner\"" \
        "As root run: install -d -m 700 -o $owner $(shell_quote "$pgdata") $(shell_quote "$state")"
}

# Locations of tablespaces must be free here, too: the server's links to them
# are absolute.
check_tablespaces() {
    printf '%s' "$prk_tablespaces" | while read -r size location; do
        [ -n "$size" ] || continue
        [ -e "$location" ] || [ -L "$location" ] || continue
        if [ -d "$location/pg_replica_kit.clone" ]; then
            whose=$(as_owner cat "$location/pg_replica_kit.clone/for" 2>/dev/null)
            case $whose in
                "$pgdata" | '') continue ;;
            esac
            fail 8 "tablespace directory \"$location\" is in use by another clone, for \"$whose\""
        fi
        # shellcheck disable=SC2012 # asked is whether there is any
        if [ -n "$(ls -A "$location" 2>&1 | head -n 1)" ]; then
            fail 8 "tablespace directory \"$location\" is not empty" \
                "The replica's tablespaces lie where the upstream's do; empty this directory, or use another machine."
        fi
    done || exit
}

# port_in_use N: does anything listen on it?
port_in_use() {
    cat /proc/net/tcp /proc/net/tcp6 2>/dev/null |
        awk -v port="$(printf ':%04X' "$1")" '
        $4 == "0A" && substr($2, length($2) - 4) == port { found = 1 }
        END { exit !found }'
}

# The replica's port: as asked for, or as the Debian cluster has it, or the
# upstream's.
check_port() {
    if [ -z "$port" ] && [ -n "$cluster" ]; then
        port=$(cluster_setting "$confdir" port)
    fi
    port=${port:-$prk_server_port}
    if [ -n "$start" ] && port_in_use "$port"; then
        fail 8 "port $port is in use" "Choose the replica's port with --port."
    fi
}

# ------------------------------------------------------ space and libraries

# Space is added up by file system; a tenth more, and four segments of WAL.
check_space() {
    margin=$((4 * prk_segment_size))
    {
        printf '%s %s\n' "$prk_data_size" "$pgdata"
        printf '%s' "$prk_tablespaces"
    } | while read -r size dir; do
        [ -n "$size" ] || continue
        while [ ! -d "$dir" ]; do
            dir=$(dirname "$dir")
        done
        printf '%s ' "$((size + size / 10))"
        df -Pk "$dir" | awk 'NR == 2 {
            available = $4
            sub(/^.*% +/, "")
            print available, $0
        }'
    done | awk -v margin="$margin" '
        {
            need = $1; available = $2
            sub(/^[^ ]+ [^ ]+ /, "")
            needs[$0] += need
            has[$0] = available * 1024
        }
        END {
            for (mount in needs)
                if (has[mount] < needs[mount] + margin) {
                    printf "%s needs %.0f MB, has %.0f MB\n", mount,
                        (needs[mount] + margin) / 1048576 + 1,
                        has[mount] / 1048576
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
    [ -z "$short" ] ||
        fail 9 "not enough disk space: $short" \
            "The size is of $prk_made_at; make room, or choose another directory."
}

# Each library that the upstream preloads must be loadable here.
check_libraries() {
    pkglibdir=
    for dir in "$bindir/../lib" "$bindir/../lib/postgresql" \
        "$bindir/../lib/pgsql" "$bindir/../lib64/pgsql" \
        "/usr/lib/postgresql$prk_major" /usr/lib64/pgsql; do
        if [ -e "$dir/libpqwalreceiver.so" ]; then
            pkglibdir=$dir
            break
        fi
    done
    if [ -z "$pkglibdir" ]; then
        say "note: the server's library directory was not found, libraries are not checked"
        return 0
    fi
    missing=
    while read -r library; do
        [ -n "$library" ] || continue
        case $library in
            '$libdir/'*) file=$pkglibdir/${library#*/} ;;
            */*) file=$library ;;
            *) file=$pkglibdir/$library ;;
        esac
        if [ ! -e "$file.so" ] && [ ! -e "$file" ]; then
            missing="$missing${missing:+, }$library"
        fi
    done <<EOF
$prk_libraries
EOF
    [ -z "$missing" ] ||
        fail 10 "the upstream server preloads what is not installed here: $missing" \
            "Install the same packages as there, for PostgreSQL $prk_major."
}

# ---------------------------------------------------------------- password

# lookup_password < PASSFILE: as libpq would find it
lookup_password() {
    PRK_HOST=$prk_host PRK_PORT=$prk_port PRK_ROLE=$prk_role awk '
        function field(    i, c, out) {
            out = ""
            for (i = 1; i <= length(rest); i++) {
                c = substr(rest, i, 1)
                if (c == ":")
                    break
                if (c == "\\" && i < length(rest))
                    c = substr(rest, ++i, 1)
                out = out c
            }
            rest = substr(rest, i + 1)
            return out
        }
        BEGIN {
            want[1] = ENVIRON["PRK_HOST"]; want[2] = ENVIRON["PRK_PORT"]
            want[3] = "replication"; want[4] = ENVIRON["PRK_ROLE"]
        }
        /^#/ { next }
        {
            sub(/\r+$/, "")
            rest = $0
            for (f = 1; f <= 4; f++) {
                any = substr(rest, 1, 2) == "*:"
                value = field()
                if (!any && value != want[f])
                    next
            }
            print field()
            exit
        }'
}

# The operator's own passfile, by libpq's rules: private, or it does not count.
operator_password() {
    file=${PGPASSFILE:-$operator_home/.pgpass}
    [ -f "$file" ] && [ -r "$file" ] || return 0
    # shellcheck disable=SC2012 # only the mode is read
    case $(ls -lnLd "$file") in
        -???------*) lookup_password <"$file" ;;
        *) say "note: \"$file\" has group or world access and is ignored" >&2 ;;
    esac
}

prompt_password() {
    (: </dev/tty) 2>/dev/null ||
        fail 5 "there is no password for role \"$prk_role\"" \
            "Set PGPASSWORD or PGPASSFILE, or run this script in a terminal."
    tty_mode=$(stty -g </dev/tty)
    stty -echo </dev/tty
    printf 'Password of role "%s": ' "$prk_role" >/dev/tty
    IFS= read -r password </dev/tty || :
    stty "$tty_mode" </dev/tty
    tty_mode=
    printf '\n' >/dev/tty
}

get_password() {
    if [ -z "$password" ]; then
        password=$(operator_password)
    fi
    if [ -z "$password" ] && [ -d "$state" ]; then
        password=$(as_owner cat "$state/passfile" 2>/dev/null | lookup_password)
    fi
    if [ -z "$password" ]; then
        prompt_password
    fi
    cr=$(printf '\r')
    case $password in
        '') fail 5 "the password is empty" ;;
        *"
"* | *"$cr"*) fail 5 "a password with a line break in it cannot be kept in a passfile" ;;
    esac
    # For the checks: a file without a name, gone with this process.
    probe=$(mktemp) || fail 1 "could not make a temporary file"
    exec 8<>"$probe"
    rm -f "$probe"
    if [ "$become" != self ]; then
        chown "$owner" /dev/fd/8
    fi
    passfile_line >&8
}

passfile_line() {
    cat <<EOF
$(passfile_escape "$prk_host"):$prk_port:*:$(passfile_escape "$prk_role"):$(passfile_escape "$password")
EOF
}

# ------------------------------------------------------------- the upstream

# upstream COMMAND: one replication command; rows, or PostgreSQL's words
upstream() {
    as_owner "$bindir/psql" -XAtqw -v VERBOSITY=sqlstate \
        -d "$(conninfo "$probe_passfile") replication=1 connect_timeout=10" \
        -c "$1" 2>&1
}

# sql_literal VALUE
sql_literal() {
    printf "'%s'" "$(sed "s/'/''/g" <<EOF
$1
EOF
)"
}

# What an error of the connection means: sets code and hint.
explain_connection() {
    provision="SELECT * FROM replica_kit.provision($(sql_literal "$prk_name"),"
    "$bindir/pg_isready" -q -t 10 -h "$prk_host" -p "$prk_port"
    case $? in
        0) code=5 ;;
        *)
            code=4
            hint="Is the server running, does its listen_addresses reach this machine, is a firewall between?"
            case $1 in
                *"could not translate host name"*)
                    hint="Make the script for an address: join_script('$prk_name', 'ADDRESS')." ;;
            esac
            return 0
            ;;
    esac
    hint="See the upstream server's log."
    case $1 in
        *pg_hba.conf*)
            address=$(printf '%s\n' "$1" | sed 's/.*failed: //' |
                sed -n 's/.*[^0-9A-Fa-f:.]\([0-9A-Fa-f]*[:.][0-9A-Fa-f:.]*[0-9A-Fa-f]\)[^0-9A-Fa-f:.].*/\1/p')
            hint="On the upstream server run: $provision '${address:-ADDRESS OF THIS MACHINE}');"
            ;;
        *password*)
            hint="Use the password that provision() returned for role \"$prk_role\"." ;;
        *"does not exist"*)
            hint="On the upstream server run: $provision 'ADDRESS OF THIS MACHINE');" ;;
    esac
}

# One line of what psql said of a failed connection, without its own name.
connection_words() {
    printf '%s\n' "$1" | sed -e 's/^psql: error: //' -e '/^WARNING/d' \
        -e '/^password retrieved from file/d' |
        tr -s '\n\t' '  ' | sed 's/ *$//'
}

# upstream_show NAME
upstream_show() {
    upstream "SHOW $1"
}

check_upstream() {
    probe_passfile=/dev/fd/8
    if ! answer=$(upstream IDENTIFY_SYSTEM); then
        explain_connection "$answer"
        fail "$code" "$(connection_words "$answer")" "$hint"
    fi
    answer=$(printf '%s\n' "$answer" | tail -n 1)
    if [ "${answer%%|*}" != "$prk_system_id" ]; then
        fail 6 "the server at $prk_host, port $prk_port is another one: its system identifier is ${answer%%|*}, not $prk_system_id" \
            "This script is of $prk_made_at; make a new one with replica_kit.join_script()."
    fi
    version=$(upstream_show server_version_num) ||
        fail 6 "the upstream server does not tell its version: $version"
    if [ "$((version / 10000))" != "$prk_major" ]; then
        fail 6 "the upstream server runs PostgreSQL $((version / 10000)) now, this script is for $prk_major" \
            "Make a new one with replica_kit.join_script()."
    fi
}

# upstream_position: where its WAL is now
upstream_position() {
    upstream IDENTIFY_SYSTEM | awk -F '|' 'END { print $3 }'
}

# The slot is there, and nobody uses it.  A connection that has just been cut
# holds it for a moment still.
check_slot() {
    slot=$(upstream "READ_REPLICATION_SLOT \"$prk_name\"") ||
        fail 7 "replication slot \"$prk_name\": $slot"
    case $slot in
        physical*) ;;
        *)
            fail 7 "replication slot \"$prk_name\" does not exist" \
                "On the upstream server run: SELECT * FROM replica_kit.provision('$prk_name', 'ADDRESS OF THIS MACHINE');"
            ;;
    esac
    lsn=$(printf '%s\n' "$slot" | cut -d '|' -f 2)
    slot_lost=
    if [ -z "$lsn" ]; then
        slot_lost=yes
        return 0
    fi
    tries=0
    while :; do
        answer=$(upstream "START_REPLICATION SLOT \"$prk_name\" PHYSICAL $lsn")
        case $answer in
            *55006*)
                tries=$((tries + 1))
                [ "$tries" -lt 10 ] ||
                    fail 7 "replication slot \"$prk_name\" is in use by another connection" \
                        "On the upstream server: SELECT * FROM pg_stat_replication; each replica needs a name of its own."
                sleep 1
                ;;
            *PQresultStatus*) return 0 ;;
            *) fail 7 "replication slot \"$prk_name\" cannot be used: $answer" ;;
        esac
    done
}

# ------------------------------------------------------------- our own state

# Opens the locks in our directory beside the data directory.
take_lock() {
    if ! as_owner test -d "$state"; then
        if [ "$become" = self ]; then
            mkdir -p "$state"
        else
            mkdir -p "$(dirname "$state")" && mkdir -m 700 "$state" &&
                chown "$owner:$owner_group" "$state"
        fi || fail 8 "could not make directory \"$state\""
        made_state=yes
    fi
    as_owner sh -c 'umask 077; : >>"$1/lock" && : >>"$1/clone.lock"' sh \
        "$state" || fail 8 "could not write to directory \"$state\""
    exec 9<"$state/lock" 7<"$state/clone.lock"
    flock -w 3 9 ||
        fail 14 "another run of this script is at work on \"$pgdata\""
    if ! flock -n 7; then
        end_orphan
    fi
    locked=yes
}

# A killed run's pg_basebackup still writes: end it.
end_orphan() {
    pid=$(as_owner cat "$state/clone.pid" 2>/dev/null)
    case $pid in
        '' | *[!0-9]*) ;;
        *)
            if tr '\0' ' ' <"/proc/$pid/cmdline" 2>/dev/null |
                grep -F -q -e "$clone"; then
                say "ending the pg_basebackup (pid $pid) of an interrupted run"
                as_owner kill -s TERM -- "-$pid" 2>/dev/null
            fi
            ;;
    esac
    flock -w 20 7 ||
        fail 14 "an interrupted run's pg_basebackup is still at work on \"$pgdata\"" \
            "Its pid is ${pid:-unknown}; end it and run this script again."
}

write_passfile() {
    passfile_line | as_owner sh -c '
        umask 077
        cat >"$1.new" && mv -f "$1.new" "$1"' sh "$state/passfile" ||
        fail 8 "could not write \"$state/passfile\""
}

# ------------------------------------------------------------- Debian's part

# The cluster's configuration comes from pg_createcluster.  The empty database
# that it makes goes to a directory of our own, which is removed again.
make_cluster() {
    initial=$state/initial
    if [ -e "$state/creating" ]; then
        # killed in the midst of this function
        if [ -d "$confdir" ] && {
            dir=$(cluster_setting "$confdir" data_directory)
            [ "${dir:-$initial}" = "$initial" ]
        }; then
            rm -rf "$confdir"
        fi
        as_owner rm -rf "$initial" "$state/creating"
    fi
    [ ! -e "$confdir/postgresql.conf" ] || return 0
    say "making the configuration of cluster $prk_major/$cluster in $confdir"
    as_owner sh -c ': >"$1"' sh "$state/creating"
    if ! answer=$(outside pg_createcluster -u "$owner" -d "$initial" \
        -p "$port" -o waldir= "$prk_major" "$cluster" 2>&1); then
        fail 8 "pg_createcluster failed: $(printf '%s\n' "$answer" | tail -n 1)"
    fi
    as_owner pg_conftool "$confdir/postgresql.conf" set data_directory "$pgdata" ||
        fail 8 "could not write \"$confdir/postgresql.conf\""
    as_owner rm -rf "$initial" "$state/creating"
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

# Removes a clone that is not complete: all of it lies under our own name.
remove_partial() {
    printf '%s' "$prk_tablespaces" | while read -r size location; do
        [ -n "$size" ] || continue
        if [ "$(as_owner cat "$location/pg_replica_kit.clone/for" 2>/dev/null)" = "$pgdata" ]; then
            as_owner rm -rf "$location/pg_replica_kit.clone"
        fi
    done
    as_owner rm -rf "$clone"
}

# Makes the directories that the clone goes to, with the mark of whose it is.
make_directories() {
    if [ ! -d "$pgdata" ]; then
        if [ "$become" = self ]; then
            mkdir -m 700 "$pgdata"
        else
            mkdir -m 700 "$pgdata" && chown "$owner:$owner_group" "$pgdata"
        fi || fail 8 "could not make directory \"$pgdata\""
        made_pgdata=yes
    elif [ "$become" != self ]; then
        chown "$owner:$owner_group" "$pgdata"
    fi
    as_owner chmod 700 "$pgdata" ||
        fail 8 "could not set the permissions of \"$pgdata\""
    as_owner mkdir -m 700 "$clone" ||
        fail 8 "could not make directory \"$clone\""
    printf '%s' "$prk_tablespaces" | while read -r size location; do
        [ -n "$size" ] || continue
        if [ "$become" != self ] && [ ! -d "$location" ]; then
            mkdir -p "$(dirname "$location")" && mkdir -m 700 "$location" &&
                chown "$owner:$owner_group" "$location"
        fi
        as_owner sh -c 'mkdir -p -m 700 "$1" &&
            printf "%s\n" "$2" >"$1/for"' sh \
            "$location/pg_replica_kit.clone" "$pgdata" ||
            fail 8 "could not make directory \"$location/pg_replica_kit.clone\""
    done || exit
}

# A slot that has lost its WAL holds none until it is made anew.
renew_slot() {
    [ -n "$slot_lost" ] || return 0
    say "replication slot \"$prk_name\" holds no WAL: making it anew"
    for command in "DROP_REPLICATION_SLOT \"$prk_name\"" \
        "CREATE_REPLICATION_SLOT \"$prk_name\" PHYSICAL RESERVE_WAL"; do
        answer=$(upstream "$command") ||
            fail 7 "replication slot \"$prk_name\" cannot be made anew: $answer"
    done
}

run_clone() {
    set -- "$bindir/pg_basebackup" -D "$clone/data" -F plain -X stream \
        -S "$prk_name" -c fast -P -w -d "$(conninfo "$state/passfile")"
    while read -r size location; do
        [ -n "$size" ] || continue
        mapped=$(printf '%s' "$location" | sed 's/=/\\=/g')
        set -- "$@" -T "$mapped=$mapped/pg_replica_kit.clone/data"
    done <<EOF
$prk_tablespaces
EOF
    say "cloning $prk_host, port $prk_port into $pgdata"
    # In a session of its own: a signal reaches it and its helper together.
    (
        exec 8>&- 9>&-
        as_owner setsid sh -c 'echo $$ >"$1"; shift; exec "$@"' sh \
            "$state/clone.pid" "$@" >"$state/clone.out" 2>&1 </dev/null
    ) &
    clone_job=$!
    elapsed=0
    progress_next=5
    ticks=0
    while kill -0 "$clone_job" 2>/dev/null; do
        sleep 0.2 2>/dev/null || sleep 1
        ticks=$((ticks + 1))
        if [ "$((ticks % 5))" -eq 0 ]; then
            elapsed=$((elapsed + 1))
            progress "$(clone_words)"
        fi
    done
    wait "$clone_job"
    status=$?
    clone_job=
    progress_end
    [ "$status" -eq 0 ] || explain_clone
}

# clone_words: what pg_basebackup said last
clone_words() {
    tail -n 1 "$state/clone.out" | sed 's/^ *//'
}

explain_clone() {
    words=$(sed -n 's/^pg_basebackup: error: //p' "$state/clone.out" | tail -n 1)
    case $words in
        *"No space left"*) fail 9 "the clone failed: $words" \
            "Make room and run this script again." ;;
    esac
    explain_log "$words"
    fail 11 "the clone failed: ${words:-pg_basebackup ended with status $status}" \
        "${hint:-Nothing is left of it; run this script again.}"
}

# --------------------------------------------------- the replica's settings

# setting NAME: what the server would use, from the files as they are
setting() {
    set -- "$1" -D "$clone/data"
    if [ -n "$cluster" ]; then
        set -- "$@" -c "config_file=$confdir/postgresql.conf" \
            -c "data_directory=$clone/data"
    fi
    as_owner "$bindir/postgres" -C "$@" 2>/dev/null
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

# auto_conf < LINES: puts them into postgresql.auto.conf for those of the
# same names
auto_conf() {
    as_owner sh -c '
        umask 077
        cd "$1" && cat >postgresql.auto.conf.tmp &&
        {
            sed "/^#/!d" postgresql.auto.conf
            awk "NR == FNR { mine[\$1] = 1; next }
                !/^#/ && !(\$1 in mine)" \
                postgresql.auto.conf.tmp postgresql.auto.conf
            cat postgresql.auto.conf.tmp
        } >postgresql.auto.conf.new &&
        mv postgresql.auto.conf.new postgresql.auto.conf &&
        rm postgresql.auto.conf.tmp' sh "$clone/data" ||
        fail 1 "could not write postgresql.auto.conf in \"$clone/data\""
}

# Makes the clone a standby: connection, slot, and no setting lower than the
# upstream's that a standby may not have lower.
configure() {
    write_missing_conf
    lines="primary_conninfo = $(conf_quote "$(conninfo "$state/passfile")")
primary_slot_name = '$prk_name'"
    for name in max_connections max_worker_processes max_wal_senders \
        max_prepared_transactions max_locks_per_transaction; do
        wanted=$(upstream_show "$name") ||
            fail 1 "the upstream server does not tell $name: $wanted"
        value=$(setting "$name")
        [ -n "$value" ] ||
            fail 1 "the replica's configuration cannot be read: $(as_owner "$bindir/postgres" -C "$name" -D "$clone/data" 2>&1 | tail -n 1)"
        if [ "$value" -lt "$wanted" ]; then
            say "raising $name from $value to the upstream's $wanted"
            lines="$lines
$name = $wanted"
        fi
    done
    if [ "$(setting port)" != "$port" ]; then
        lines="$lines
port = $port"
    fi
    auto_conf <<EOF
$lines
EOF
    as_owner sh -c ': >"$1/data/standby.signal" && : >"$1/complete"' sh \
        "$clone" || fail 1 "could not write to \"$clone\""
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

# ------------------------------------------------------------------- to run

# systemd_unit: the unit whose PGDATA this directory is
systemd_unit() {
    [ -d /run/systemd/system ] && [ "$become" != self ] || return 0
    for unit in "postgresql-$prk_major" postgresql; do
        if systemctl show -p Environment --value "$unit.service" 2>/dev/null |
            tr ' ' '\n' | grep -F -x -q -e "PGDATA=$pgdata"; then
            printf '%s' "$unit"
            return 0
        fi
    done
}

# outside COMMAND...: without our locks, with the operator's own locale
outside() {
    (
        exec 7>&- 8>&- 9>&-
        if [ -n "$operator_lc_all" ]; then
            LC_ALL=$operator_lc_all
        else
            unset LC_ALL
        fi
        "$@"
    )
}

# start_words: how a person starts this server
start_words() {
    if [ -n "$start_command" ]; then
        printf '%s' "$start_command"
    elif [ -n "$cluster" ]; then
        printf 'pg_ctlcluster %s %s start' "$prk_major" "$cluster"
    elif [ -n "$unit" ]; then
        printf 'systemctl start %s' "$unit"
    else
        printf '%s -D %s -l %s start' "$(shell_quote "$bindir/pg_ctl")" \
            "$(shell_quote "$pgdata")" "$(shell_quote "$state/server.log")"
    fi
}

find_log() {
    log=$state/server.log
    if [ -n "$cluster" ]; then
        log=/var/log/postgresql/postgresql-$prk_major-$cluster.log
        if [ -L "$confdir/log" ]; then
            log=$(readlink "$confdir/log")
        fi
    fi
    log_size=$(as_owner cat "$log" 2>/dev/null | wc -c)
}

# log_tail: what the server has logged since it was started
log_tail() {
    {
        as_owner tail -c "+$((log_size + 1))" "$log"
        file=$(as_owner sed -n 's/^stderr //p' "$pgdata/current_logfiles")
        case $file in
            '') ;;
            /*) as_owner tail -n 20 "$file" ;;
            *) as_owner tail -n 20 "$pgdata/$file" ;;
        esac
    } 2>/dev/null | tail -n 20
}

start_server() {
    say "starting the server: $(start_words)"
    if [ -n "$start_command" ]; then
        outside sh -c "$start_command"
    elif [ -n "$cluster" ]; then
        outside pg_ctlcluster "$prk_major" "$cluster" start >/dev/null 2>&1
    elif [ -n "$unit" ]; then
        outside systemctl start "$unit"
    else
        outside as_owner "$bindir/pg_ctl" -D "$pgdata" -l "$log" -s -w -t 15 \
            start >/dev/null 2>&1 </dev/null
    fi
    start_status=$?
    # A server that is still recovering is a server.
    [ "$start_status" -eq 0 ] || [ -n "$(server_pid)" ] || server_failed
}

# What a line of the server's log means: sets hint, or leaves it empty.
explain_log() {
    hint=
    case $1 in
        *"already been removed"*)
            hint="The upstream no longer has the WAL that the replica needs; it must be cloned anew." ;;
        *"system identifier differs"*)
            hint="The data is of another server than the one at $prk_host, port $prk_port." ;;
        *"insufficient parameter settings"*)
            hint="Raise the setting named there in the replica's configuration, and start it again." ;;
        *"Address already in use"* | *"could not bind"* | *'lock file "'*)
            hint="Choose another port with --port." ;;
        *"could not access file"*)
            hint="Install the library on this machine." ;;
        *"No space left"*) hint="Make room on the file system." ;;
        *'is active for PID'*)
            hint="Another connection uses slot \"$prk_name\"; each replica needs a name of its own." ;;
        *"failed: "*)
            explain_connection "$1" ;;
    esac
}

show_log() {
    words=$(log_tail)
    if [ -n "$words" ]; then
        say "the end of $log:" >&2
        printf '%s\n' "$words" | sed 's/^/  /' >&2
    fi
    explain_log "$words"
}

server_failed() {
    show_log
    fail 12 "the replica's server did not start" \
        "${hint:-The clone is complete: mend what the log says, and run this script again.}"
}

# local_state TARGET, as a row: status of the WAL receiver, whether its
# connection has brought WAL up to TARGET, whether WAL up to TARGET is here,
# positions received and replayed, the receiver's pid.  Nothing when nobody
# may log in.
local_state() {
    socket=$(as_owner sed -n 5p "$pgdata/postmaster.pid" 2>/dev/null)
    socket=${socket:-$(as_owner sed -n 6p "$pgdata/postmaster.pid" 2>/dev/null)}
    [ -n "$socket" ] || return 0
    as_owner env PGOPTIONS='-c search_path=pg_catalog' \
        PGPASSFILE=/nonexistent "$bindir/psql" -XAtqw \
        -d "host=$(conninfo_quote "$socket") port=$port dbname=template1 connect_timeout=5" \
        -c "SELECT coalesce(r.status, 'none'),
            coalesce(r.written_lsn >= '$1', false),
            coalesce(greatest(l.received, l.replayed) >= '$1', false),
            l.received, l.replayed, r.pid
            FROM (SELECT pg_last_wal_receive_lsn() AS received,
                pg_last_wal_replay_lsn() AS replayed) l
            LEFT JOIN pg_stat_wal_receiver r ON true
            WHERE pg_is_in_recovery()
            AND current_setting('is_superuser') = 'on'" 2>/dev/null
}

# field NUMBER: of the row $row
field() {
    printf '%s\n' "$row" | cut -d '|' -f "$1"
}

# lsn_number LSN: as a number
lsn_number() {
    printf '%s' "$(((0x${1%%/*} << 32) + 0x${1##*/}))"
}

# Without a login there is the upstream's word: the slot is in use, and was
# moved to TARGET by what the replica reported.
slot_proves() {
    lsn=$(upstream "READ_REPLICATION_SLOT \"$prk_name\"" | cut -d '|' -f 2)
    case $lsn in
        */*) ;;
        *) return 1 ;;
    esac
    [ "$(lsn_number "$lsn")" -ge "$(lsn_number "$1")" ] || return 1
    case $(upstream "START_REPLICATION SLOT \"$prk_name\" PHYSICAL $lsn") in
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

# What changes while the server is on its way.
signs_of_life() {
    if [ -n "$row" ]; then
        field 4,5
    else
        as_owner "$bindir/pg_controldata" -D "$pgdata" 2>/dev/null |
            grep -e 'recovery ending' -e 'REDO location'
    fi
}

# Waits until the replica streams and has received what the upstream had when
# the wait began.  Gives up after a time without any progress: a minute, or
# five while the server still recovers and lets nobody in.
wait_streaming() {
    target=$(upstream_position)
    case $target in
        */*) ;;
        *) fail 4 "the upstream server no longer answers" ;;
    esac
    say "waiting until it streams and has WAL up to $target"
    receiver_pid=
    signs=
    idle=0
    until streams "$target"; do
        [ -n "$(server_pid)" ] || server_failed
        now=$(signs_of_life)
        idle=$((idle + 1))
        if [ "$now" != "$signs" ]; then
            idle=0
        fi
        signs=$now
        patience=60
        case $(as_owner sed -n 8p "$pgdata/postmaster.pid" 2>/dev/null) in
            starting*) patience=300 ;;
        esac
        [ "$idle" -lt "$patience" ] || not_streaming
        sleep 1
    done
}

not_streaming() {
    show_log
    fail 13 "the replica's server runs, but does not stream" \
        "${hint:-See its log, $log; it keeps trying.}"
}

# --------------------------------------------------------------------- ends

clone_job=
locked=
made_state=
made_pgdata=
undo=
tty_mode=

# Ends the clone and its helper, and waits until they are gone.
stop_clone() {
    pid=$(cat "$state/clone.pid" 2>/dev/null)
    if [ -n "$pid" ]; then
        as_owner kill -s TERM -- "-$pid" 2>/dev/null
    fi
    wait "$clone_job" 2>/dev/null
    clone_job=
}

on_exit() {
    exit_status=$?
    trap '' HUP INT PIPE TERM
    if [ -n "$tty_mode" ]; then
        stty "$tty_mode" </dev/tty
    fi
    [ -z "$clone_job" ] || stop_clone
    if [ -n "$undo" ]; then
        remove_partial
        [ -z "$made_pgdata" ] || rmdir "$pgdata" 2>/dev/null
        as_owner rm -f "$state/passfile" "$state/clone.pid" "$state/clone.out"
        if [ -n "$made_state" ] && [ ! -e "$state/creating" ]; then
            as_owner rm -f "$state/lock" "$state/clone.lock"
            rmdir "$state" 2>/dev/null
        fi
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

# What the server would need, said and not done.
show_plan() {
    say "all checks passed; without --dry-run this script would:"
    case $dir_state in
        absent | empty | cloning)
            if [ -n "$cluster" ] && [ ! -e "$confdir/postgresql.conf" ]; then
                say "- make Debian cluster $prk_major/$cluster, port $port"
            fi
            say "- clone $((prk_data_size / 1048576)) MB from $prk_host, port $prk_port into $pgdata"
            say "- keep the password in $state/passfile"
            ;;
    esac
    if [ -n "$start" ]; then
        say "- start it: $(start_words)"
    fi
}

make_replica() {
    case $dir_state in
        absent | empty | cloning)
            undo=yes
            [ -z "$cluster" ] || make_cluster
            remove_partial
            make_directories
            renew_slot
            run_clone
            configure
            undo=
            move_up
            ;;
        moving)
            say "completing the clone of an interrupted run"
            move_up
            ;;
        standby)
            say "\"$pgdata\" already holds this replica; it is not cloned again"
            ;;
    esac
    as_owner rm -f "$state/clone.pid" "$state/clone.out"
}

main() {
    umask 077
    password=${PGPASSWORD-}
    unset PGPASSWORD
    operator_lc_all=${LC_ALL-}
    LC_ALL=C
    export LC_ALL
    unset PGHOST PGHOSTADDR PGPORT PGDATABASE PGUSER PGSERVICE PGOPTIONS \
        PGAPPNAME PGDATA PGTARGETSESSIONATTRS PGREQUIREPEER PGCLIENTENCODING
    parse_arguments "$@"
    trap on_exit EXIT
    trap 'on_signal HUP 1' HUP
    trap 'on_signal INT 2' INT
    trap 'on_signal PIPE 13' PIPE
    trap 'on_signal TERM 15' TERM

    find_programs
    resolve_directory
    find_owner
    cd /
    check_directory
    unit=$(systemd_unit)
    if [ "$dir_state" = running ]; then
        port=$(as_owner sed -n 4p "$pgdata/postmaster.pid")
    else
        check_port
        check_tablespaces
        check_disk
        check_libraries
    fi
    get_password
    check_upstream
    find_log
    if [ "$dir_state" = running ]; then
        wait_streaming
        say "already a running replica of $prk_host, port $prk_port: $proof; nothing to do"
        exit 0
    fi
    # What an interrupted run has left may still hold the slot.
    if [ -z "$dry_run" ] && [ -d "$state" ]; then
        take_lock
    fi
    check_slot
    if [ -n "$dry_run" ]; then
        show_plan
        exit 0
    fi

    [ -n "$locked" ] || take_lock
    inspect_directory
    write_passfile
    make_replica
    if [ -z "$start" ]; then
        say "the replica is ready; start it with: $(start_words)"
        exit 0
    fi
    start_server
    wait_streaming
    say "replica \"$prk_name\" streams from $prk_host, port $prk_port: $proof"
}

main "$@"
