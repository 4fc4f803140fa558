
# ======================================================================
# What the running upstream says of itself, and what of it cannot work here
# ======================================================================
#
# join_script() carried what it knew of the upstream, which is as old as this
# script.  A kit that the upstream preloads answers questions on a replication
# connection (see ask/ in the kit's source): an answer of now wins over what was
# carried.  Where there is none, what was carried counts, and its age is said.
#
# A column of an answer is printable ASCII; decoded() makes bytes of %XX.  It
# decides what is refused, what is shown, how much room is needed, and what is
# looked for on this machine, by the server's user.  Locations of tablespaces
# that the script has not carried come from the upstream alone: root makes none
# of these.

facts=
facts_judged=
unreadable_files=
told_locations=
clone_settings=
local_lines=
kit_silent=
minimums=
minimum_names="max_connections max_worker_processes max_wal_senders
    max_prepared_transactions max_locks_per_transaction"
size_age=" The size is of $prk_made_at."
libraries_age=" What the upstream preloads is of $prk_made_at, when this script was made: if that has changed, get a new one from join_script()."

# ------------------------------------------------------------ questions

# ask_kit QUESTION: true if there is an answer; its columns begin with 2
ask_kit() {
    [ -z "$kit_silent" ] || return 1
    ask_options="-c replica_kit.ask=$(printf '%s' "$1" | sed 's/ /\\ /g')"
    answer_bytes=7000
    ask "SHOW replica_kit.answer"
    asked=$?
    ask_options=
    answer_bytes=1000
    if [ "$asked" -ne 0 ]; then
        kit_silent=yes
        return 1
    fi
    ! upstream_null 1 || return 1
    [ "$(upstream_name 1)" = "${1%% *}" ] || not_upstream "its $1"
}

# decoded TEXT: %XX as the bytes that they are.  Fails where control characters
# would be among them.
decoded() {
    case $1 in
        *%[01][0-9A-F]* | *%7F*) return 1 ;;
        *%*) ;;
        *)
            printf '%s' "$1"
            return 0
            ;;
    esac
    printf '%s\n' "$1" | awk '
        BEGIN { digits = "0123456789ABCDEF" }
        {
            while (match($0, /%[0-9A-F][0-9A-F]/)) {
                high = index(digits, substr($0, RSTART + 1, 1)) - 1
                low = index(digits, substr($0, RSTART + 2, 1)) - 1
                printf "%s%c", substr($0, 1, RSTART - 1), 16 * high + low
                $0 = substr($0, RSTART + 3)
            }
            printf "%s", $0
        }'
}

# ask_facts: all that is to be known before a clone; for less, what will do
ask_facts() {
    case $rebuild:$dir_state in
        :standby | :moving)
            ask_libraries
            return 0
            ;;
        :running) return 0 ;;
    esac
    if ! ask_kit data_directory; then
        say "note: the upstream server does not preload this version of pg_replica_kit: sizes, tablespaces and libraries are those of $prk_made_at"
        return 0
    fi
    facts=yes
    take_size
    ask_tablespaces
    ask_libraries
    ask_settings
}

# Nothing that can be found before a clone is left to be found after it.  What a
# rebuild need not clone, it need not judge.
judge_facts() {
    [ -n "$facts" ] && [ -z "$facts_judged" ] || return 0
    facts_judged=yes
    [ -z "$unreadable_files" ] ||
        fail 16 "the upstream server cannot read files in its data directory, so no base backup is possible: $unreadable_files" \
            "On the upstream's machine give them to the server's user, or move them out of the data directory."
    check_clone_settings
    compare_collations
}

take_size() {
    { number=$(upstream_number 2 15) && count=$(upstream_number 4 10); } ||
        not_upstream "the size of its data directory"
    case $(upstream_name 3) in
        t) prk_data_size=$number ;;
        f)
            # There was no time to look at all files.
            [ "$number" -lt "$prk_data_size" ] || prk_data_size=$number
            ;;
        *) not_upstream "the size of its data directory" ;;
    esac
    size_age=
    [ "$count" -gt 0 ] || return 0
    number=5
    while name=$(upstream_text "$number" 1000); do
        unreadable_files="$unreadable_files${unreadable_files:+, }\"$name\""
        number=$((number + 1))
    done
    number=$((count - number + 5))
    [ "$number" -le 0 ] ||
        unreadable_files="$unreadable_files, and $number more"
}

ask_tablespaces() {
    ask_kit tablespaces || return 0
    case $(upstream_name 2) in
        t) ;;
        f)
            say "note: the upstream server has not told the size of all tablespaces: the sizes are those of $prk_made_at"
            return 0
            ;;
        *) not_upstream "its tablespaces" ;;
    esac
    list=
    number=3
    while name=$(upstream_text "$number" 5000); do
        size=${name%% *}
        location=$(decoded "${name#* }") || not_upstream "its tablespaces"
        is_number "$size" 15 || not_upstream "its tablespaces"
        case $location in
            */../* | */..) not_upstream "its tablespaces" ;;
            /?*) ;;
            *) not_upstream "its tablespaces" ;;
        esac
        list="$list$size $location$newline"
        printf '%s' "$prk_tablespaces" | sed 's/^[^ ]* //' |
            grep -F -x -q -e "$location" ||
            told_locations="$told_locations$location$newline"
        number=$((number + 1))
    done
    prk_tablespaces=$list
}

# is_told LOCATION: is it the upstream alone that names it?
is_told() {
    printf '%s' "$told_locations" | grep -F -x -q -e "$1"
}

# is_number TEXT DIGITS
is_number() {
    case $1 in
        '' | *[!0-9]* | 0?*) return 1 ;;
    esac
    [ "${#1}" -le "$2" ]
}

ask_libraries() {
    ask_kit libraries || return 0
    list=
    number=2
    while name=$(upstream_text "$number" 5000); do
        name=$(decoded "$name") || not_upstream "its libraries"
        list="$list$name$newline"
        number=$((number + 1))
    done
    prk_libraries=$list
    libraries_age=
}

ask_settings() {
    ask_kit settings || return 0
    number=2
    while name=$(upstream_text "$number" 5000); do
        case $name in
            [a-z]*' auto '* | [a-z]*' main '* | [a-z]*' - '*) ;;
            *) not_upstream "its settings" ;;
        esac
        clone_settings="$clone_settings$name$newline"
        number=$((number + 1))
    done
}

# ------------------------------------------------------------- collations

# Another version of a collation library may sort otherwise: then indexes that
# the upstream has built give wrong answers here.
compare_collations() {
    ask_kit collations || return 0
    theirs=$(upstream_text 2 40) || not_upstream "its collation libraries"
    ours=$(getconf GNU_LIBC_VERSION 2>/dev/null | sed 's/^glibc //')
    their_icu=$(upstream_text 3 40) || not_upstream "its collation libraries"
    our_icu=$(tells ldd "$bindir/postgres" |
        sed -n 's/^.*libicui18n\.so\.\([0-9]*\).*/\1/p' | head -n 1)
    libc=
    icu=
    absent=
    number=4
    while name=$(upstream_text "$number" 200); do
        case $name in
            libc*)
                libc=yes
                has_locale "${name#* }" ||
                    absent="$absent${absent:+, }\"${name#* }\""
                ;;
            icu*) icu=yes ;;
        esac
        number=$((number + 1))
    done
    [ -z "$absent" ] ||
        say "warning: databases of the upstream server use locales that are not installed here: $absent; nobody can connect to them on the replica"
    if [ -n "$libc" ] && [ "$theirs" != "$ours" ]; then
        warn_of_collation "glibc ${theirs:-of none}" "${ours:+glibc $ours}"
    fi
    if [ -n "$their_icu" ] && [ "${their_icu%%.*}" != "$our_icu" ]; then
        warn_of_collation "ICU $their_icu" "${our_icu:+ICU $our_icu}" \
            "${icu:-for columns with an ICU collation}"
    fi
}

# warn_of_collation THEIRS OURS [FOR]
warn_of_collation() {
    case ${3-} in
        '' | yes) words= ;;
        *) words=" $3" ;;
    esac
    say "warning: the upstream server sorts text with $1, this machine with ${2:-another library}: indexes on text may give wrong answers on the replica$words, and no REINDEX is possible there; use the upstream's operating system release"
}

# has_locale NAME: is it installed here?  Unknown is yes.
has_locale() {
    command -v locale >/dev/null 2>&1 || return 0
    list=$(locale -a 2>/dev/null) && [ -n "$list" ] || return 0
    printf '%s\n' "$list" | plain_locale | grep -F -x -q \
        -e "$(printf '%s\n' "$1" | plain_locale)"
}

# as glibc compares: de_DE.UTF-8 is de_DE.utf8
plain_locale() {
    tr '[:upper:]' '[:lower:]' | sed 's/\([.][^@]*\)-/\1/g'
}

# --------------------------------------- settings that cannot work here

# come_along NAME: sets value, and place ("here", "out" or "-"), of a setting
# that the replica will have from the upstream's files.  One with a
# configuration of its own gets postgresql.auto.conf only.
come_along() {
    value=$(printf '%s' "$clone_settings" | grep "^$1 " | head -n 1)
    [ -n "$value" ] || return 1
    case ${value#* } in
        main\ *) [ -z "$cluster" ] || return 1 ;;
        auto\ *) ;;
        *) return 1 ;;
    esac
    value=${value#* * }
    place=${value%% *}
    value=$(decoded "${value#* }") || return 1
}

# running_setting NAME: sets value
running_setting() {
    value=$(printf '%s' "$clone_settings" | sed -n "s/^$1 - - //p")
    [ -n "$value" ]
}

# is_on VALUE: as the server reads it, or so that it does no harm
is_on() {
    case $(printf '%s' "$1" | tr '[:upper:]' '[:lower:]') in
        on | true | tru | tr | t | yes | ye | y | 1) return 0 ;;
    esac
    return 1
}

# What cannot work here is refused where a person has to bring it here, and
# changed in the replica's own settings where that costs nothing: both before
# the clone.  local_lines are what configure() adds to postgresql.auto.conf.
check_clone_settings() {
    local_lines=
    [ -n "$clone_settings" ] || return 0
    check_foreign_directory
    check_includes
    check_setting_files
    check_listen_addresses
    check_huge_pages
    check_memory
    check_io_method
    check_socket_group
    check_log_directory
    check_setting_locales
}

# ask_minimums: what a standby may not have lower, asked for before the clone:
# an upstream that is away when the clone is complete is no reason to lose it
ask_minimums() {
    for name in $minimum_names; do
        find_minimum "$name"
        minimums="$minimums$name $wanted$newline"
    done
}

# find_minimum NAME: sets wanted
find_minimum() {
    wanted=$(printf '%s' "$minimums" | sed -n "s/^$1 //p")
    [ -z "$wanted" ] || return 0
    if running_setting "$1" && is_number "$value" 7; then
        wanted=$value
        return 0
    fi
    ask "SHOW $1" ||
        fail 1 "the upstream server does not tell $1: $said"
    wanted=$(upstream_number 1 7) || not_upstream "$1"
}

# set_here NAME VALUE WHY: for the replica alone
set_here() {
    say "note: $3: the replica gets $1 = $(conf_quote "$2")"
    local_lines="$local_lines
$1 = $(conf_quote "$2")"
}

check_foreign_directory() {
    come_along data_directory || return 0
    [ "$value" != "$pgdata" ] || return 0
    fail 16 "the upstream's postgresql.conf, which the clone brings along, sets data_directory = \"$(shown "$value")\"" \
        "Remove that line on the upstream server: it is in the data directory itself and says nothing. No reload is needed."
}

# shown TEXT: for any terminal
shown() {
    printf '%s' "$1" | cleaned 1000
}

# Files that the cloned configuration includes and that no backup sends.
check_includes() {
    [ -z "$cluster" ] || return 0
    printf '%s' "$clone_settings" |
        sed -n 's/^\(include[a-z_]*\) main out \(.*\)/\1 \2/p' |
        while read -r keyword path; do
            path=$(decoded "$path") || continue
            case $path in
                /*) ! as_owner test -r "$path" || continue ;;
            esac
            if [ "$keyword" = include_if_exists ]; then
                say "note: \"$(shown "$path")\" is not on this machine: the replica goes without the settings that the upstream has there"
                continue
            fi
            fail 16 "the upstream's configuration includes \"$(shown "$path")\", which is not in its data directory and not on this machine" \
                "Copy it from the upstream's machine, readable for user \"$owner\"; or move it into the data directory there."
        done || exit
}

# Files that settings name, elsewhere or behind a symbolic link.
check_setting_files() {
    for name in hba_file ident_file krb_server_keyfile ssl_cert_file \
        ssl_key_file ssl_ca_file ssl_crl_file ssl_crl_dir \
        ssl_dh_params_file; do
        { come_along "$name" && [ "$place" = out ]; } || continue
        case $value in
            /*) ! as_owner test -r "$value" || continue ;;
        esac
        case $name in
            ssl_*) hint="With ssl = on the replica needs it: put a certificate and key of this machine in that place, readable for user \"$owner\"." ;;
            *) hint="Copy it from the upstream's machine, readable for user \"$owner\"." ;;
        esac
        case $value in
            /*) ;;
            *) hint="No base backup sends it: it is missing there, or a symbolic link. On the upstream server put the file itself in that place, or name it with its full path and have it on this machine, too." ;;
        esac
        fail 16 "the upstream's setting $name = \"$(shown "$value")\", which the clone brings along, names a file that is not on this machine" \
            "$hint"
    done
}

# has_address ADDRESS: does this machine have it?  Unknown is yes.
has_address() {
    case $1 in
        '*' | 0.0.0.0 | :: | localhost | 127.* | ::1) return 0 ;;
        *[!0-9.]*)
            case $1 in
                *:*) ;;
                *)
                    # a name: of this machine, or of none that can be looked up
                    list=$(timeout -k 2 "$program_seconds" getent ahosts "$1" 2>/dev/null |
                        sed 's/[[:space:]].*//' | sort -u)
                    [ -n "$list" ] || return 0
                    for name in $list; do
                        ! has_address "$name" || return 0
                    done
                    return 1
                    ;;
            esac
            ;;
    esac
    list=$(all_addresses)
    [ -n "$list" ] || return 0
    printf '%s\n' "$list" | grep -F -x -q -e "$1"
}

# all_addresses: of this machine, one a line; nothing if that cannot be told
all_addresses() {
    if command -v ip >/dev/null 2>&1; then
        ip -o addr show 2>/dev/null |
            sed -n 's/^.* inet6\{0,1\} \([0-9A-Fa-f:.]*\).*/\1/p'
    else
        awk '/32 host LOCAL/ { print address } { address = $2 }' \
            /proc/net/fib_trie 2>/dev/null
    fi
}

check_listen_addresses() {
    come_along listen_addresses || return 0
    list=$value
    found=
    foreign=
    set -f
    for address in $(printf '%s' "$list" | tr ',"' '  '); do
        if has_address "$address"; then
            found=yes
        else
            foreign="$foreign${foreign:+, }$address"
        fi
    done
    set +f
    [ -n "$foreign" ] || return 0
    foreign=$(shown "$foreign")
    if [ -n "$found" ]; then
        say "note: listen_addresses of the upstream server names $foreign, which is no address of this machine: the replica does not listen there"
        return 0
    fi
    set_here listen_addresses localhost \
        "listen_addresses of the upstream server names only $foreign, which is no address of this machine, and the server would not start"
}

check_huge_pages() {
    come_along huge_pages && is_on "$value" || return 0
    running_setting shared_memory_size_in_huge_pages || value=
    is_number "$value" 12 && [ "$value" -gt 0 ] || value=1
    pages=$(sed -n 's/^HugePages_Free: *\([0-9]*\).*/\1/p' /proc/meminfo 2>/dev/null)
    [ "${pages:-0}" -lt "$value" ] || return 0
    set_here huge_pages try \
        "huge_pages = on needs $value free huge pages, this machine has ${pages:-0}, and the server would not start"
}

# Linux refuses at once what is more than all memory, mapped or not.
check_memory() {
    come_along shared_buffers && running_setting shared_memory_size &&
        is_number "$value" 9 || return 0
    total=$(awk '/^(MemTotal|SwapTotal):/ { total += $2 }
        /^MemTotal:/ { memory = $2 }
        END { printf "%.0f %.0f", total / 1024, memory / 4 }' /proc/meminfo 2>/dev/null)
    is_number "${total% *}" 9 && is_number "${total#* }" 12 &&
        [ "$value" -gt "${total% *}" ] || return 0
    set_here shared_buffers "${total#* }kB" \
        "the upstream server has $value MB of shared memory, this machine ${total% *} MB in all, and the server would not start"
}

check_io_method() {
    come_along io_method || return 0
    case $(printf '%s' "$value" | tr '[:upper:]' '[:lower:]') in
        io_uring) ;;
        *) return 0 ;;
    esac
    if tells ldd "$bindir/postgres" | grep -q liburing; then
        case $(cat /proc/sys/kernel/io_uring_disabled 2>/dev/null) in
            0 | '') return 0 ;;
        esac
    fi
    set_here io_method worker \
        "io_method = io_uring is not possible on this machine, and the server would not start"
}

# The server gives its sockets to that group, so its user has to be in it.
check_socket_group() {
    come_along unix_socket_group && [ -n "$value" ] || return 0
    number=$value
    case $value in
        *[!0-9]*)
            command -v getent >/dev/null 2>&1 || return 0
            number=$(timeout -k 2 "$program_seconds" getent group "$value" 2>/dev/null | cut -d : -f 3)
            ;;
    esac
    groups=$(as_owner id -G) || return 0
    case " $groups " in
        *" ${number:-none} "*) return 0 ;;
    esac
    set_here unix_socket_group "" \
        "user \"$owner\" is in no group \"$(shown "$value")\" on this machine, and the server would not start"
}

check_log_directory() {
    come_along logging_collector && is_on "$value" || return 0
    come_along log_directory && [ "$place" = out ] || return 0
    case $value in
        /*)
            ! as_owner test -w "$value" || return 0
            as_owner test -e "$value" ||
                ! as_owner test -w "$(dirname "$value")" || return 0
            ;;
    esac
    set_here log_directory log \
        "log_directory = \"$(shown "$value")\" is no directory here that user \"$owner\" may write to"
}

# In the clone, since PostgreSQL's own default may not be there, either.
adapt_socket_directories() {
    [ -z "$cluster" ] || return 0
    list=$(setting unix_socket_directories)
    found=
    set -f
    saved_ifs=$IFS
    IFS=,
    for name in $list; do
        name=$(printf '%s' "$name" | sed 's/^[ "]*//; s/[ "]*$//')
        case $name in
            @*) ;;
            *) as_owner test -w "$name" || found=no ;;
        esac
    done
    IFS=$saved_ifs
    set +f
    [ -n "$found" ] || return 0
    value=/tmp
    as_owner test -w "$value" || value=$state
    set_here unix_socket_directories "$value" \
        "unix_socket_directories = \"$(shown "$list")\" names a directory that user \"$owner\" cannot write to here"
}

check_setting_locales() {
    for name in lc_messages lc_monetary lc_numeric lc_time; do
        come_along "$name" || continue
        case $value in
            '' | C | POSIX) continue ;;
        esac
        has_locale "$value" || set_here "$name" C \
            "locale \"$(shown "$value")\" is not installed here"
    done
}

# ------------------------------------------------------------ the slot

# slot_is_lost: says the kit, where the protocol does not
slot_is_lost() {
    ask_kit "slot $prk_name" || return 1
    case $(upstream_name 2) in
        t) ;;
        f) return 1 ;;
        *) not_upstream "the state of the slot" ;;
    esac
    [ "$(upstream_name 4)" = lost ] || ! upstream_null 5
}
