
# ======================================================================
# --compress: what both sides can do, and what the link asks for
# ======================================================================
#
# The upstream's walsender compresses, pg_basebackup here expands.  lz4 takes
# about a core of the upstream while the clone runs: it gains where the link
# carries less than one core compresses, and loses on a faster one.

# A link that carries more MB a second is no gigabit: there, lz4 may lose.
fast_link=140
# Below so many MB it cannot lose what measuring the link would cost.
measured_size=1024

check_compress_option() {
    case $compress in
        auto | none | lz4 | zstd | gzip) ;;
        lz4:?* | zstd:?* | gzip:?*)
            case ${compress#*:} in
                *[!A-Za-z0-9_,=-]*)
                    fail 2 "\"$compress\" is not METHOD:DETAIL" \
                        "Examples: zstd:3, zstd:level=3,workers=2."
                    ;;
            esac
            ;;
        *)
            fail 2 "\"$compress\" is not a method of compression" \
                "Use auto, none, lz4, zstd or gzip; the last three also as METHOD:DETAIL."
            ;;
    esac
}

# compression_error METHOD[:DETAIL]: why it cannot be done, or nothing
#
# Neither side tells without being asked for a backup.  pg_basebackup judges
# what it is to do itself before it connects; the upstream before it judges
# the label, and with this label no backup begins.
compression_error() {
    words=$(tells_all "$bindir/pg_basebackup" \
        -D - -F tar -X none -w -d host=/nonexistent \
        --compress="client-${1%%:*}")
    case $words in
        *'compression specification: '*)
            printf 'pg_basebackup here: %s' "${words#*specification: }"
            return 0
            ;;
    esac
    options="COMPRESSION '${1%%:*}'"
    case $1 in
        *:*) options="$options, COMPRESSION_DETAIL '${1#*:}'" ;;
    esac
    ask "BASE_BACKUP (LABEL '$(printf 'pg_replica_kit asks for %1010s' "$1")', $options)" \
        "$prk_name" terse || :
    case $said in
        *'compression specification: '* | *'not supported by this build'*)
            words=${said#*ERROR: }
            words=${words# }
            printf 'the upstream server: %s' \
                "${words#invalid compression specification: }"
            ;;
    esac
}

# What was asked for must be possible; "auto" is content with less.
check_compression() {
    case $compress in
        auto | none) return 0 ;;
    esac
    words=$(compression_error "$compress")
    [ -z "$words" ] ||
        fail 2 "no clone with --compress $compress: $words" \
            "Use another method, or --compress auto."
}

# upstream_is_here: no link to it but this machine's own
upstream_is_here() {
    case $prk_host in
        /* | localhost | 127.* | ::1) return 0 ;;
        *[!0-9.]*) return 1 ;;
    esac
    awk -v address="$prk_host" '
        $1 == "|--" { at = $2 }
        /host LOCAL/ && at == address { found = 1 }
        END { exit !found }' /proc/net/fib_trie 2>/dev/null
}

# clone_size: bytes of data and tablespaces
clone_size() {
    {
        printf '%s\n' "$prk_data_size"
        printf '%s' "$prk_tablespaces"
    } | awk '{ sum += $1 } END { printf "%.0f", sum }'
}

# measure_link: sets rate, the MB a second that the upstream sends uncompressed,
# or nothing
#
# Nothing but a backup sends much over a replication connection.  So one is
# begun, read in pieces that double until one of them takes a tenth of a
# second, and ended.  psql takes it: pg_basebackup cannot write a cluster with
# tablespaces to its standard output.
measure_link() {
    say "measuring the link to $prk_host, port $prk_port"
    start_job sh -c '
        now() {
            read -r up rest </proc/uptime
            printf "%s" "${up%.*}${up#*.}"
        }
        (sleep 120 && kill -s TERM 0) &
        "$1/psql" -XAtqw -d "$2" -c "BASE_BACKUP (LABEL '\''pg_replica_kit measures the link'\'', CHECKPOINT '\''fast'\'')" 2>/dev/null | {
            size=65536
            head -c "$size" >/dev/null
            took=0
            while [ "$took" -lt 10 ] && [ "$size" -lt 134217728 ]; do
                size=$((size * 2))
                begun=$(now)
                [ "$(head -c "$size" | wc -c)" -eq "$size" ] || break
                # in hundredths of a second
                took=$(($(now) - begun))
                echo "$((size / 10486 / (took > 0 ? took : 1))) MB/s"
            done
            kill -s TERM 0
        }' sh "$bindir" "$(replication_conninfo "$passfile")" "$clone"
    await_job
    rate=$(clone_words)
    rate=${rate% MB/s}
}

# choose_compression: what "auto" is here
choose_compression() {
    [ "$compress" = auto ] || return 0
    compress=none
    if upstream_is_here; then
        say "not compressing: the upstream is on this machine"
        return 0
    fi
    words=$(compression_error lz4)
    if [ -n "$words" ]; then
        say "not compressing: $words"
        return 0
    fi
    compress=lz4
    if [ "$(calc "int($(clone_size) / 1048576)")" -lt "$measured_size" ]; then
        say "compressing with lz4"
        return 0
    fi
    measure_link
    case $rate in
        '' | *[!0-9]* | ??????????*)
            say "compressing with lz4: the link could not be measured"
            ;;
        *)
            if [ "$rate" -gt "$fast_link" ]; then
                compress=none
                say "not compressing: the link carries $rate MB/s"
            else
                say "compressing with lz4: the link carries $rate MB/s"
            fi
            ;;
    esac
}
