
# ======================================================================
# Where things are to be on machines that are re-created: the passfile, the
# WAL, temporary files; and a replica that is finished
# ======================================================================

waldir_option=
passfile_option=
passfile=
made_waldir=
wrote_passfile=

# ---------------------------------------------------------- places as options

# resolve_place PATH: sets place, as an absolute path; not in the data directory
resolve_place() {
    place=${1%/}
    case $1 in
        *"$newline"*) fail 2 "\"$1\" has a line break in it" ;;
        /*) ;;
        *) place=$(pwd)/$place ;;
    esac
    case $place/ in
        "$pgdata"/* | */../*)
            fail 2 "\"$1\" lies in the data directory, or its name has \"..\" in it" \
                "Name a place beside the data directory." ;;
    esac
}

# What the command line says of places, before the working directory changes.
resolve_places() {
    if [ -n "$passfile_option" ]; then
        resolve_place "$passfile_option"
        passfile_option=$place
    fi
    if [ -n "$waldir_option" ]; then
        resolve_place "$waldir_option"
        waldir_option=$place
        case $pgdata/ in
            "$waldir_option"/*)
                fail 2 "the data directory lies in the WAL directory \"$waldir_option\"" \
                    "Name another with --waldir." ;;
        esac
    fi
}

# A read-only file system has no place for temporary files; where the replica's
# data is to be there is one.
find_scratch() {
    for dir in "${TMPDIR:-/tmp}" /dev/shm "$state" "$(dirname "$pgdata")"; do
        if as_owner test -d "$dir" && as_owner test -w "$dir"; then
            [ "$dir" = /tmp ] || export TMPDIR="$dir"
            return 0
        fi
    done
}

# ----------------------------------------------------------------- the passfile

# Where it is: as the command line says, else where the replica in the directory
# looks for it, else in our own directory.
find_passfile() {
    known=$(auto_conf_line primary_conninfo |
        sed -n "s/.* application_name=''[^']*'' passfile=''\\(\\/[^'\\\\]*\\)''.*/\\1/p" | cleaned 4096)
    passfile=${known:-${passfile_option:-$state/passfile}}
    [ -n "$passfile_option" ] || return 0
    check_passfile
    [ "$passfile" != "$passfile_option" ] || return 0
    [ -n "$rebuild" ] ||
        fail 2 "the replica in \"$pgdata\" has its passfile in \"$known\"" \
            "Leave out --passfile, or name that file."
    new_passfile=$passfile_option
}

# passfile_is_ours: true if it holds nothing but our own lines
passfile_is_ours() {
    [ -z "$(as_owner grep -v -F -e ":*:$(passfile_escape "$prk_role"):" "$1" 2>&1)" ]
}

# The file that --passfile names: libpq must be able to use it, and what else is
# in it stays.
check_passfile() {
    if ! as_owner test -e "$passfile_option"; then
        as_owner test -w "$(dirname "$passfile_option")" ||
            fail 8 "user \"$owner\" cannot make \"$passfile_option\"" \
                "Name a place in a directory where that user may write."
        return 0
    fi
    # shellcheck disable=SC2012 # only the mode is read
    case $(as_owner ls -lnLd "$passfile_option") in
        -r??------*) ;;
        *)
            fail 8 "\"$passfile_option\" is no file that user \"$owner\" alone may read" \
                "PostgreSQL ignores a passfile that others may read; run: chmod 600 $(shell_quote "$passfile_option")" ;;
    esac
    as_owner test -r "$passfile_option" ||
        fail 8 "user \"$owner\" cannot read \"$passfile_option\""
}

# passfile_has_it FILE: does libpq find the right password there?
passfile_has_it() {
    [ -n "$password" ] &&
        [ "$(as_owner cat "$1" 2>/dev/null | lookup_password)" = "$password" ]
}

# The new clone of a rebuild may have its passfile elsewhere.
use_new_passfile() {
    [ -n "$new_passfile" ] || return 0
    passfile=$new_passfile
    new_passfile=
    write_passfile
}

# ------------------------------------------------------------ the WAL directory

# --waldir: for the first clone; later runs find the link to it.
check_waldir() {
    [ -n "$waldir_option" ] || return 0
    case $dir_state in
        absent | empty | cloning) ;;
        old)
            [ "$waldir" = "$waldir_option" ] ||
                fail 2 "the WAL of \"$pgdata\" lies in \"${waldir:-$pgdata/pg_wal}\", and a rebuild leaves it there" \
                    "Leave out --waldir."
            return 0
            ;;
        *) return 0 ;;
    esac
    waldir=$waldir_option
    if ! as_owner test -e "$waldir" && ! as_owner test -L "$waldir"; then
        can_make "$waldir" ||
            fail 8 "WAL directory \"$waldir\" cannot be made by user \"$owner\"" \
                "As root run: install -d -m 700 -o $owner $(shell_quote "$waldir")"
        return 0
    fi
    { [ -d "$waldir" ] && owns "$waldir/"; } ||
        fail 8 "WAL directory \"$waldir\" is not a directory of user \"$owner\"" \
            "Give it to that user, or name another."
    if as_owner test -d "$waldir/pg_replica_kit.clone" &&
        [ "$(as_owner cat "$waldir/pg_replica_kit.clone/for" 2>/dev/null)" = "$pgdata" ]; then
        return 0
    fi
    # shellcheck disable=SC2010 # asked is whether there is any
    if as_owner ls -A "$waldir" 2>&1 | grep -v -x -q -e lost+found; then
        fail 8 "WAL directory \"$waldir\" is not empty" \
            "Name another, or one that does not exist."
    fi
}

# --------------------------------------------------------- a finished replica

# With --no-start, what is finished needs no upstream: where a container is
# re-created, this script runs before each start of the server, also while the
# upstream is away.
end_if_finished() {
    [ -z "$start$rebuild$dry_run" ] || return 0
    case $dir_state in
        standby | running) ;;
        moving)
            [ -n "$locked" ] || take_lock
            say "completing the clone of an interrupted run"
            move_up
            ;;
        *) return 0 ;;
    esac
    if ! as_owner test -r "$passfile"; then
        say "the passfile \"$passfile\" is gone: writing it again"
        get_password
        [ -n "$locked" ] || take_lock
        write_passfile
    fi
    say "\"$pgdata\" already holds replica \"$prk_name\" of $prk_host, port $prk_port; nothing to do"
    exit 0
}
