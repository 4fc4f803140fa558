#!/bin/sh
# shellcheck disable=SC2016 # programs for awk and sh -c are in single quotes
# shellcheck disable=SC2030,SC2031 # LC_ALL is meant to change in a subshell
#
# Makes this machine's PostgreSQL directory a streaming replica.
#
# The Makefile joins this and its sisters, join_*.sh, and compiles them into the
# library.  replica_kit.join_script() puts the values of one replica (prk_...)
# below this comment; without them the script does nothing.
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
# The password is only ever in shell variables, here-documents, pipes and files
# that the server's user alone can read: never in an argument or the environment.
#
# Whoever answers at the upstream's address may be somebody else.  ask() alone
# listens to it; see join_upstream.sh.  Root only becomes the server's user: what
# that user's files say decides nothing that root does.

: "${prk_name:?this file is a part of replica_kit.join_script(), not run}"
: "${prk_kit:?}"
: "${prk_host:?}" "${prk_port:?}" "${prk_role:?}" "${prk_major:?}"
: "${prk_made_at:?}" "${prk_version:?}" "${prk_system_id:?}"
: "${prk_server_port:?}" "${prk_data_size:?}" "${prk_segment_size:?}"
: "${prk_data_directory:?}" "${prk_libraries?}" "${prk_tablespaces?}"
: "${prk_auth?}" "${prk_tls?}" "${prk_database:?}"

# How long to wait, in seconds: for a connection to the upstream, for its answer
# to one question, for any progress of a stream, and of a clone; for a program
# of this machine, for one that starts or stops the server, for --start-command,
# and for restore_command; for work on this machine's files.
connect_seconds=10
answer_seconds=20
stream_seconds=60
clone_seconds=3600
program_seconds=30
start_seconds=120
command_seconds=600
restore_seconds=60
work_seconds=3600

# How much of the blocks that a rewind overwrites is kept, in MB, if that is not
# more than half of the room there.
keep_megabytes=4096

# How much of an answer is kept, in bytes, and what a connection that asks says
# of its options, and of where to.
answer_bytes=1000
ask_options=
ask_where=replication=1

newline='
'

# ---------------------------------------------------------------- messages

# cleaned BYTES: so much of the input, as it may be shown on any terminal
cleaned() {
    head -c "$1" | tr '\t\r' '  ' | tr -c '\n\040-\176' '?'
}

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

# tells PROGRAM [ARGUMENT]...: what a program of this machine answers that only
# looks, or sends a signal; as the server's user, and without its errors.  One
# that does not end in time ends the script, for no answer is not "no".
tells() {
    as_owner timeout -k 2 "$program_seconds" "$@" 2>/dev/null
    in_time "$?" "$program_seconds" "$1"
}

# tells_all PROGRAM [ARGUMENT]...: with its errors
tells_all() {
    as_owner timeout -k 2 "$program_seconds" "$@" 2>&1
    in_time "$?" "$program_seconds" "$1"
}

# in_time STATUS SECONDS PROGRAM: the status; but where timeout has ended the
# program, the end of the script, from whatever subshell
in_time() {
    case $1 in
        124 | 137) ;;
        *) return "$1" ;;
    esac
    (fail 1 "program \"${3##*/}\" did not end within $2 seconds, and was ended" \
        "Run it by hand, as user \"$owner\": does this machine hang, or its storage?")
    kill -s USR1 "$$"
    exit 1
}

# calc EXPRESSION: of numbers that have been checked.  Some shells count to 2^31
# only.
calc() {
    awk "BEGIN { printf \"%.0f\", $(printf '%s' "$1" | tr '\n' ' ') }"
}

usage() {
    cat <<EOF
Makes this machine's PostgreSQL directory the streaming replica "$prk_name"
of the server at $prk_host, port $prk_port (PostgreSQL $prk_version).

Usage:
  sh SCRIPT --pgdata DIR [OPTION]...
  sh SCRIPT --cluster $prk_major/NAME [OPTION]...
  sh SCRIPT --pgdata DIR | --cluster $prk_major/NAME --set-password
  sh SCRIPT --pgdata DIR | --cluster $prk_major/NAME --follow HOST[:PORT]
  sh DIR.pg_replica_kit/join.sh [OPTION]...

Run it as root, or as the user that is to own the server.  Each run keeps the
script as DIR.pg_replica_kit/join.sh, which knows its directory: run that copy
as the server's user, to whom it belongs.

Options:
  --pgdata DIR         data directory; must be empty or not exist
  --cluster VER/NAME   Debian cluster; made by pg_createcluster if it does not
                       exist
  --port N             port of the replica; by default that of the Debian cluster,
                       else $prk_server_port
  --no-start           stop before starting the server
  --start-command CMD  start the server with this shell command
  --rebuild            bring back the replica that is there by the least that is
                       enough: a restart, its slot re-created, WAL from an
                       archive, a rewind, the blocks that have changed (17
                       and later), a full clone; the old data is kept
  --full               with --rebuild: a full clone, even if less would be enough
  --remove-old         with --rebuild: remove the old data when it streams
  --demote             --rebuild where the directory is a former primary's that is
                       to become this replica: without a clone if the upstream
                       has all its WAL
  --discard-diverged   with --rebuild: rewind also where that discards commits
                       that only this data has; their WAL is kept
  --restore-command CMD
                       the replica's restore_command, if it fetches WAL on this
                       machine
  --keep-recovery-settings
                       keep settings that recovery reads and that came with the
                       clone: delay, target, restore_command
  --verify             have pg_verifybackup read the clone before it is used
  --passfile PATH      keep the password there, not in DIR.pg_replica_kit
  --waldir DIR         with the first clone: put the WAL there
  --compress METHOD    let the upstream compress what it sends: lz4, zstd or gzip,
                       as METHOD or METHOD:DETAIL; none; or auto (default):
                       lz4 if that is faster
  --set-password       only take the role's new password, for the replica that
                       is there
  --follow HOST[:PORT] the replica that is there is to receive from this server
                       from now on: without a clone, and without a password;
                       with --rebuild by a clone if its data does not fit
  --allow-cleartext-risk
                       go on although whoever answers at the upstream's address
                       could ask for the password in clear text: for libpq 15
                       without TLS
  --dry-run            make every check, change nothing
  --help               show this help
  --version            show the version of pg_replica_kit that made this script

The password of role "$prk_role" is taken from PGPASSWORD, PGPASSFILE,
~/.pgpass, or a prompt.

Exit codes:
   0  the replica streams (or what was asked for is done)
   1  something unforeseen failed
   2  wrong usage, a compression that one side cannot do, or a restore
      command that fetches nothing
   3  programs are missing, or of another major version
   4  the upstream server cannot be reached
   5  the upstream server refuses: password, role or pg_hba.conf; or it does
      not ask for the password as it must
   6  it is not the server this script was made for
   7  the replication slot is missing or in use
   8  the data directory, a tablespace directory or the port cannot be used
   9  not enough disk space
  10  a library that the upstream server preloads is not installed here
  11  the clone failed
  12  the replica's server did not start
  13  it runs, but does not stream
  14  another run is at work on the same directory
  15  the data does not fit the history of the upstream server, or a rewind
      would discard commits
  16  a file or a setting of the upstream server does not allow a clone that
      works here
  129, 130, 141, 143  ended by a signal (HUP, INT, PIPE, TERM)
EOF
}

# ------------------------------------------------------------------ quoting

# A passfile field: backslash and colon escaped.
passfile_escape() {
    case $1 in
        *[\\:]*)
            sed 's/[\\:]/\\&/g' <<EOF
$1
EOF
            ;;
        *) printf '%s' "$1" ;;
    esac
}

# A value in a connection string.
conninfo_quote() {
    case $1 in
        *[\\\']*)
            printf "'%s'" "$(sed "s/[\\\\']/\\\\&/g" <<EOF
$1
EOF
)"
            ;;
        *) printf "'%s'" "$1" ;;
    esac
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

# conninfo PASSFILE LIBPQ: everything but the password.  What the environment
# says of TLS holds for the replica, too.  LIBPQ is whose it is for: "here" or
# "server"; see demand_authentication().
conninfo() {
    base_conninfo "$1"
    conninfo_option sslmode "$sslmode"
    conninfo_option sslrootcert "${PGSSLROOTCERT-}"
    conninfo_option sslcrl "${PGSSLCRL-}"
    conninfo_option sslcert "${PGSSLCERT-}"
    conninfo_option sslkey "${PGSSLKEY-}"
    conninfo_option channel_binding "$channel_binding"
    if [ "$2" = here ] || [ -n "$server_can" ]; then
        conninfo_option require_auth "$require_auth"
    fi
}

conninfo_option() {
    [ -z "$2" ] || printf ' %s=%s' "$1" "$(conninfo_quote "$2")"
}

base_conninfo() {
    printf 'host=%s port=%s user=%s application_name=%s passfile=%s' \
        "$(conninfo_quote "$prk_host")" "$prk_port" \
        "$(conninfo_quote "$prk_role")" "$(conninfo_quote "$prk_name")" \
        "$(conninfo_quote "$1")"
}

# --------------------------------------------------------------- arguments

is_port() {
    case $1 in
        '' | *[!0-9]* | ??????*) return 1 ;;
    esac
    [ "$1" -ge 1 ] && [ "$1" -le 65535 ]
}

parse_arguments() {
    pgdata=
    cluster=
    port=
    start=yes
    start_command=
    compress=
    set_password=
    rebuild=
    remove_old=
    full=
    demote=
    discard_diverged=
    follow=
    dry_run=
    allow_risk=
    restore_command=
    restore_option=
    keep_recovery=
    verify=
    passfile_option=
    waldir_option=
    new_passfile=
    while [ $# -gt 0 ]; do
        case $1 in
            --pgdata=* | --cluster=* | --port=* | --start-command=* | \
                --compress=* | --restore-command=* | --follow=* | \
                --passfile=* | --waldir=*)
                option=${1%%=*}
                value=${1#*=}
                ;;
            --pgdata | --cluster | --port | --start-command | --compress | \
                --restore-command | --follow | --passfile | --waldir)
                option=$1
                [ $# -gt 1 ] ||
                    fail 2 "option $1 needs a value" "Try --help."
                value=$2
                shift
                ;;
            --no-start | --set-password | --rebuild | --remove-old | --full | \
                --discard-diverged | --demote | --keep-recovery-settings | --verify | \
                --allow-cleartext-risk | --dry-run | --help | --version)
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
            --compress) compress=$value ;;
            --passfile) passfile_option=$value ;;
            --waldir) waldir_option=$value ;;
            --no-start) start= ;;
            --set-password) set_password=yes ;;
            --rebuild) rebuild=yes ;;
            --remove-old) remove_old=yes ;;
            --full) full=yes ;;
            --discard-diverged) discard_diverged=yes ;;
            --demote)
                demote=yes
                rebuild=yes
                ;;
            --follow) follow=$value ;;
            --restore-command)
                restore_command=$value
                restore_option=yes
                ;;
            --keep-recovery-settings) keep_recovery=yes ;;
            --verify) verify=yes ;;
            --allow-cleartext-risk) allow_risk=yes ;;
            --dry-run) dry_run=yes ;;
            --version)
                printf 'pg_replica_kit %s\n' "$prk_kit"
                exit 0
                ;;
            --help)
                usage
                exit 0
                ;;
        esac
    done
    [ -n "$pgdata$cluster" ] || pgdata=$(own_directory)
    if [ -n "$pgdata" ] && [ -n "$cluster" ]; then
        fail 2 "--pgdata and --cluster exclude each other" "Try --help."
    elif [ -z "$pgdata$cluster" ]; then
        fail 2 "no target given" \
            "Add --pgdata DIR, or on Debian --cluster $prk_major/NAME."
    fi
    if [ -z "$start" ] && [ -n "$start_command" ]; then
        fail 2 "--no-start and --start-command exclude each other" \
            "Try --help."
    fi
    if [ -n "$set_password" ] &&
        { [ -n "$port$start_command$compress$rebuild$waldir_option" ] || [ -z "$start" ]; }; then
        fail 2 "--set-password only sets the password" "Try --help."
    fi
    if [ -n "$remove_old" ] && [ -z "$rebuild" ]; then
        fail 2 "--remove-old belongs to --rebuild" "Try --help."
    elif [ -n "$remove_old" ] && [ -z "$start" ]; then
        fail 2 "--remove-old and --no-start exclude each other" \
            "The old data is only removed when the replica streams."
    fi
    if [ -n "$full$discard_diverged" ] && [ -z "$rebuild" ]; then
        fail 2 "--full and --discard-diverged belong to --rebuild" "Try --help."
    elif [ -n "$full" ] && [ -n "$discard_diverged" ]; then
        fail 2 "--full and --discard-diverged exclude each other" \
            "A full clone keeps the old data."
    fi
    case $restore_command in
        *"$newline"*) fail 2 "the restore command has a line break in it" ;;
    esac
    compress=${compress:-auto}
    check_compress_option
    [ -z "$port" ] || is_port "$port" ||
        fail 2 "\"$port\" is not a port" "Try --help."
    check_follow_options
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
