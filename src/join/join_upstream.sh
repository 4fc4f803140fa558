
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
    if [ -z "$password$set_password" ]; then
        password=$(as_owner cat "$passfile" 2>/dev/null | lookup_password)
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
}

passfile_line() {
    cat <<EOF
$(passfile_escape "$prk_host"):$prk_port:*:$(passfile_escape "$prk_role"):$(passfile_escape "$password")
EOF
}

# passfile_lines: also for the upstream that the replica has had
passfile_lines() {
    passfile_line
    [ -z "$old_host" ] || [ "$old_host $old_port" = "$prk_host $prk_port" ] || (
        prk_host=$old_host
        prk_port=$old_port
        passfile_line
    )
}

# ------------------------------------------------------- how it must ask for it

# The kit's own rule in pg_hba.conf asks for SCRAM, and with require_ssl over
# TLS only.  So whoever asks for anything else is not the upstream.
#
# libpq can be told so from 16 on (require_auth).  For libpq 15 channel_binding
# must do, which needs TLS: it refuses all but SCRAM, and proves that the
# certificate is that of the server which knows the password.  The one that
# counts is that of the server's own WAL receiver.
#
# Sets sslmode, channel_binding and require_auth for conninfo().
demand_authentication() {
    sslmode=${PGSSLMODE-}
    channel_binding=${PGCHANNELBINDING-}
    require_auth=${PGREQUIREAUTH-}
    if [ "$prk_tls" = require ]; then
        case $sslmode in
            require | verify-ca | verify-full) ;;
            *) sslmode=require ;;
        esac
    fi
    if [ "$prk_auth" = scram-sha-256 ]; then
        require_auth=$prk_auth
        case $sslmode in
            require | verify-ca | verify-full)
                channel_binding=${channel_binding:-require} ;;
        esac
    fi
    [ -n "$require_auth" ] || return 0
    server_can=
    if server_knows_require_auth; then
        server_can=yes
    fi
    if ! knows_require_auth; then
        require_auth=
    elif [ -n "$server_can" ]; then
        return 0
    fi
    [ -z "${PGREQUIREAUTH-}" ] ||
        fail 3 "PGREQUIREAUTH is set, but libpq here does not know it" \
            "It takes libpq 16; without, set PGCHANNELBINDING=require."
    if [ -z "$allow_risk" ]; then
        channel_binding=require
    fi
}

# knows_require_auth: does libpq of the programs here?
knows_require_auth() {
    case $(tells_all "$bindir/psql" -XAtqw -c '' \
        -d 'host=/nonexistent require_auth=scram-sha-256') in
        *'invalid connection option'*) return 1 ;;
    esac
}

# server_knows_require_auth: does libpq of the server's WAL receiver?
server_knows_require_auth() {
    [ "$prk_major" -lt 16 ] || return 0
    library=$(find_pkglibdir)/libpqwalreceiver.so
    library=$(tells ldd "$library" |
        sed -n 's/^[[:space:]]*libpq\.so\.5 => \(\/[^ ]*\).*/\1/p')
    [ -n "$library" ] && as_owner grep -q require_auth "$library" 2>/dev/null
}

# ------------------------------------------------------------- the upstream
#
# Whoever answers may be somebody else, or stand between.  ask() listens for a
# limited time, with limited memory, and keeps the beginning.  What was said is
# used through these alone, and each lets pass only what it is named for:
#
#   upstream_number COLUMN DIGITS   a decimal number of up to so many digits
#   upstream_lsn COLUMN             a WAL position
#   upstream_name COLUMN            lower-case letters, digits and underscores
#   upstream_text COLUMN LENGTH     printable ASCII, also nothing
#   upstream_null COLUMN            nothing: true if the column is empty
#   upstream_forks                  lines of a timeline's number and a WAL position
#   $said                           one line of printable ASCII, if the question
#                                   failed: to be shown, and to choose words by
#
# None of it gets into SQL but as a variable of psql, nor into arithmetic before
# it is proved: bash runs what stands in a subscript there.

# replication_conninfo PASSFILE
replication_conninfo() {
    printf '%s %s connect_timeout=%s' "$(conninfo "$1" here)" "$ask_where" \
        "$connect_seconds"
}

# ask COMMAND [NAME [VERBOSITY]]: one replication command, as the replica or under
# another name.  Fails if the upstream does; then $said is why.  By the semicolon the
# kit there knows it from a question of the replica's WAL receiver.
ask() {
    answer=$(passfile_line | as_owner sh -c '
        seconds=$1
        bytes=$2
        shift 2
        cd / && umask 077 &&
        secret=$(mktemp) && rows=$(mktemp) && words=$(mktemp) || exit
        # files without a name, gone with this process; and no word of this
        # shell when psql is ended
        exec 8<>"$secret" 6<>"$rows" 5<>"$words" 2>/dev/null
        rm -f "$secret" "$rows" "$words"
        cat >&8
        (
            ulimit -c 0
            ulimit -f 2048
            ulimit -v 524288
            exec timeout -k 2 "$seconds" "$@"
        ) </dev/null >/dev/fd/6 2>/dev/fd/5
        echo "$?"
        sed -e "s/^psql: error: //" -e "/^WARNING/d" \
            -e "s/^password retrieved from file.*/[28P01]/" </dev/fd/5 |
            head -c 1000 | tr "\n\t\r" "   " | tr -s " " |
            tr -c "\040-\176" "?"
        echo
        head -c "$bytes" </dev/fd/6 | tr -d "\000"
        ' sh "$answer_seconds" "$answer_bytes" "$bindir/psql" -XAtqw \
        -v "VERBOSITY=${3:-sqlstate}" -d "$(replication_conninfo "$probe_passfile")${2:+ application_name=$2}${ask_options:+ options=$(conninfo_quote "$ask_options")}" \
        -c "$1;" 7>&- 9>&-) || :
    status=${answer%%"$newline"*}
    answer=${answer#*"$newline"}
    said=${answer%%"$newline"*}
    said=${said% }
    # libpq says in English when a password was wrong
    wrong_password=
    case $said in
        *' [28P01]')
            said=${said% *}
            wrong_password=yes
            ;;
    esac
    case $answer in
        *"$newline"*) answer=${answer#*"$newline"} ;;
        *) answer= ;;
    esac
    case $status in
        0) return 0 ;;
        '') fail 1 "user \"$owner\" could not make a temporary file" ;;
        124 | 137 | 143) said="no answer within $answer_seconds seconds" ;;
        153) said="the answer does not end" ;;
    esac
    said=${said:-the answer cannot be read}
    return 1
}

# upstream_column COLUMN: sets column, of the one row of the answer; for the
# next four alone
upstream_column() {
    column=$answer
    case $column in
        *"$newline"*) return 1 ;;
    esac
    number=$1
    while [ "$number" -gt 1 ]; do
        case $column in
            *'|'*) column=${column#*'|'} ;;
            *) return 1 ;;
        esac
        number=$((number - 1))
    done
    column=${column%%'|'*}
}

upstream_number() {
    upstream_column "$1" || return 1
    case $column in
        '' | *[!0-9]* | 0?*) return 1 ;;
    esac
    [ "${#column}" -le "$2" ] || return 1
    printf '%s' "$column"
}

upstream_lsn() {
    upstream_column "$1" && is_lsn "$column" || return 1
    printf '%s' "$column"
}

is_lsn() {
    case $1 in
        *[!0-9A-F/]* | */*/* | /* | */ | *?????????/* | */?????????*) return 1 ;;
        */*) return 0 ;;
    esac
    return 1
}

upstream_name() {
    upstream_column "$1" || return 1
    case $column in
        '' | *[!a-z0-9_]*) return 1 ;;
    esac
    [ "${#column}" -le 63 ] || return 1
    printf '%s' "$column"
}

upstream_text() {
    upstream_column "$1" || return 1
    case $column in
        *[!\ -~]*) return 1 ;;
    esac
    [ "${#column}" -le "$2" ] || return 1
    printf '%s' "$column"
}

upstream_null() {
    upstream_column "$1" && [ -z "$column" ]
}

# not_upstream WHAT: the end, for who does not answer as a server does
not_upstream() {
    fail 6 "the server at $prk_host, port $prk_port does not tell $1 as PostgreSQL does" \
        "Check that it is the upstream server that answers there."
}

# this_address: where connections from here to the upstream come from, if that
# can be told
this_address() {
    address=$(timeout -k 2 "$program_seconds" getent ahosts "$prk_host" 2>/dev/null | sed -n '1s/ .*//p')
    address=$(ip -o route get "${address:-$prk_host}" 2>/dev/null |
        sed -n 's/.* src \([0-9A-Fa-f.:]*\).*/\1/p')
    printf '%s' "${address:-ADDRESS OF THIS MACHINE}"
}

# sql_literal VALUE
sql_literal() {
    printf "'%s'" "$(sed "s/'/''/g" <<EOF
$1
EOF
)"
}

# What an error of the connection, $1, means: sets code and hint.
explain_connection() {
    provision="SELECT * FROM replica_kit.provision($(sql_literal "$prk_name"),"
    code=5
    hint="See the upstream server's log."
    # libpq's own words are English here, the upstream's need not be.  Another
    # connection, to tell them apart, would look like an attack in its log.
    case $1 in
        *"could not translate host name"*)
            code=4
            hint="Make the script for an address: join_script('$prk_name', 'ADDRESS')."
            return 0
            ;;
        *"Connection refused"* | *"onnection timed out"* | *"timeout expired"* | \
            *"No route to host"* | *"is unreachable"* | *"no answer within"* | \
            *"Connection reset"* | *"closed the connection unexpectedly"* | \
            *"system is starting up"* | *"system is shutting down"* | \
            *"in recovery mode"* | *"not yet accepting connections"* | \
            *"received invalid response"*)
            code=4
            hint="Check that the server is running, that its listen_addresses includes an address this machine can reach, and that no firewall is between."
            return 0
            ;;
    esac
    case $1 in
        *"channel binding"*)
            hint="Without TLS, libpq here cannot make sure that it is asked for SCRAM: turn on ssl at the upstream server, install libpq 16 here, or accept that whoever answers at $prk_host could ask for the password in clear text, with --allow-cleartext-risk." ;;
        *"authentication method requirement"*)
            hint="The upstream's pg_hba.conf asked for SCRAM when this script was made. Is it the upstream server that answers there? If its rules have changed, get a new script from join_script()." ;;
        *"incorrect server signature"* | *"invalid SCRAM response"* | *"invalid server signature"*)
            hint="The server that answers there does not know the password. Check that it is the upstream server." ;;
        *pg_hba.conf*)
            address=$(printf '%s\n' "$1" | sed 's/.*failed: //' |
                sed -n 's/.*[^0-9A-Fa-f:.]\([0-9A-Fa-f]*[:.][0-9A-Fa-f:.]*[0-9A-Fa-f]\)[^0-9A-Fa-f:.].*/\1/p')
            [ "${#address}" -le 45 ] || address=
            hint="On the upstream server run: $provision '${address:-ADDRESS OF THIS MACHINE}');${address:+ if that is an address of this machine there}"
            ;;
        *password* | "${wrong_password:+$said}")
            hint="Use the password that provision() returned for role \"$prk_role\", or rotate_password() since." ;;
        *"does not exist"*)
            hint="On the upstream server run: $provision 'ADDRESS OF THIS MACHINE');" ;;
    esac
}

check_upstream() {
    probe_passfile=/dev/fd/8
    if ! ask IDENTIFY_SYSTEM; then
        explain_connection "$said"
        fail "$code" "$said" "$hint"
    fi
    system_id=$(upstream_number 1 20) || not_upstream "its system identifier"
    if [ "$system_id" != "$prk_system_id" ]; then
        hint="This script is of $prk_made_at; make a new one with replica_kit.join_script()."
        if ask "SHOW server_version_num" && version=$(upstream_number 1 7) &&
            [ "$((version / 10000))" != "$prk_major" ]; then
            hint="It runs PostgreSQL $((version / 10000)), this script is for $prk_major. After pg_upgrade no old replica can follow it.${newline}hint: Run there provision('$prk_name', '$(this_address)'), and make a new replica beside the old one, with a new script of join_script()."
        fi
        fail 6 "the server at $prk_host, port $prk_port is another one: its system identifier is $system_id, not $prk_system_id" \
            "$hint"
    fi
    ask "SHOW server_version_num" ||
        fail 6 "the upstream server does not tell its version: $said"
    version=$(upstream_number 1 7) || not_upstream "its version"
    if [ "$((version / 10000))" != "$prk_major" ]; then
        fail 6 "the upstream server runs PostgreSQL $((version / 10000)) now, this script is for $prk_major" \
            "Make a new one with replica_kit.join_script()."
    fi
}

# ask_position: sets target, where the upstream's WAL is now
ask_position() {
    ask IDENTIFY_SYSTEM || fail 4 "the upstream server no longer answers: $said"
    target=$(upstream_lsn 3) || not_upstream "its WAL position"
}

# try_slot LSN: asks for the slot, and $said is the upstream's word.  Under a
# name that no slot can have, and which the kit there knows: that it is in use
# is no failure of the replica.
try_slot() {
    ! ask "START_REPLICATION SLOT \"$prk_name\" PHYSICAL $1" pg_replica_kit-script
}

# ask_slot: sets lsn, the slot's position, or nothing if it holds no WAL.  Fails
# if there is no such slot.
ask_slot() {
    ask "READ_REPLICATION_SLOT \"$prk_name\"" ||
        fail 7 "replication slot \"$prk_name\": $said"
    if upstream_null 1; then
        return 1
    fi
    case $(upstream_name 1) in
        physical) ;;
        logical) return 1 ;;
        *) not_upstream "the kind of the slot" ;;
    esac
    lsn=
    upstream_null 2 || lsn=$(upstream_lsn 2) ||
        not_upstream "the position of the slot"
}

# The slot is there, and nobody uses it.  A connection that has just been cut
# holds it for a moment still.
check_slot() {
    if ! ask_slot; then
        if [ -n "$rebuild" ]; then
            slot_lost=missing
            return 0
        fi
        fail 7 "replication slot \"$prk_name\" does not exist" \
            "On the upstream server run: SELECT * FROM replica_kit.provision('$prk_name', '$(this_address)');"
    fi
    slot_lost=
    if [ -z "$lsn" ]; then
        slot_lost=yes
        return 0
    fi
    tries=0
    while :; do
        try_slot "$lsn" || not_upstream "whether the slot is free"
        case $said in
            *55006*)
                tries=$((tries + 1))
                [ "$tries" -lt 10 ] ||
                    fail 7 "replication slot \"$prk_name\" is in use by another connection" \
                        "On the upstream server: SELECT * FROM pg_stat_replication; each replica needs a name of its own."
                sleep 1
                ;;
            *PQresultStatus*)
                ! slot_is_lost || slot_lost=yes
                return 0
                ;;
            *55000*)
                slot_lost=yes
                return 0
                ;;
            *) fail 7 "replication slot \"$prk_name\" cannot be used: $said" ;;
        esac
    done
}
