
# ======================================================================
# What the upstream server must say: password, identity, slot
# ======================================================================

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
    # Not when it is to be replaced.
    if [ -z "$password$set_password" ] && [ -d "$state" ]; then
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

# replication_conninfo PASSFILE
replication_conninfo() {
    printf '%s replication=1 connect_timeout=10' "$(conninfo "$1")"
}

# upstream COMMAND [NAME]: one replication command, as the replica or under
# another name; its last row, or PostgreSQL's words and failure
upstream() {
    if words=$(as_owner "$bindir/psql" -XAtqw -v VERBOSITY=sqlstate \
        -d "$(replication_conninfo "$probe_passfile")${2:+ application_name=$2}" \
        -c "$1" 2>&1); then
        printf '%s\n' "$words" | tail -n 1
    else
        printf '%s\n' "$words"
        return 1
    fi
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
            hint="Use the password that provision() returned for role \"$prk_role\", or rotate_password() since." ;;
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

# try_slot LSN: the upstream's words when somebody asks for the slot.  Under a
# name that no slot can have, and which the kit there knows: that it is in use
# is no failure of the replica.
try_slot() {
    upstream "START_REPLICATION SLOT \"$prk_name\" PHYSICAL $1" pg_replica_kit-script
}

# The slot is there, and nobody uses it.  A connection that has just been cut
# holds it for a moment still.
check_slot() {
    slot=$(upstream "READ_REPLICATION_SLOT \"$prk_name\"") ||
        fail 7 "replication slot \"$prk_name\": $slot"
    case $slot in
        physical*) ;;
        *)
            if [ -n "$rebuild" ]; then
                slot_lost=missing
                return 0
            fi
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
        answer=$(try_slot "$lsn")
        case $answer in
            *55006*)
                tries=$((tries + 1))
                [ "$tries" -lt 10 ] ||
                    fail 7 "replication slot \"$prk_name\" is in use by another connection" \
                        "On the upstream server: SELECT * FROM pg_stat_replication; each replica needs a name of its own."
                sleep 1
                ;;
            *PQresultStatus*) return 0 ;;
            *55000*)
                slot_lost=yes
                return 0
                ;;
            *) fail 7 "replication slot \"$prk_name\" cannot be used: $answer" ;;
        esac
    done
}
