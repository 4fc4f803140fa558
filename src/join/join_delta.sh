
# ======================================================================
# To bring a replica back with the changed blocks only (PostgreSQL 17)
# ======================================================================
#
# The upstream makes an incremental backup relative to the old data, from a
# manifest that is written here, and pg_combinebackup makes a new data directory
# of both.  The old data is only read: it stays aside, as with a clone.
#
# What is not in the manifest comes whole.  So left out of it is all that may be
# wrong here, or that the upstream would not tell rightly:
#
# - visibility maps: WAL of 17.10 and before does not name the blocks of theirs
#   that it changes; and free space maps, which have no WAL
# - files whose size is no multiple of a block, and those that pg_checksums finds
#   damaged
# - files of relations that were truncated: rows that were deleted could come
#   back; see src/ask/summaries.c.  Those of which nobody knew before the backup
#   began come whole by another one on top of it.
# - files that end before a block that is taken from them, of which
#   pg_combinebackup would make zeros; by another backup as well
# - files that have a block of zeros where they have grown since the script has
#   come: a server that was started made it so of a file that ended too early.
#
# The result lies where a clone would.  An attempt that fails leaves nothing, and
# everything is cloned.

relation_files='^(base/[0-9]+|global|pg_tblspc/[0-9]+/PG_[0-9]+_[0-9]+/[0-9]+)/(INCREMENTAL[.])?[0-9]+(_init)?([.][0-9]+)?$'

# So many backups on top of each other.
most_parts=4

# The first number in an incremental file.
incremental_magic=3551403789

# bring_changed: true if the clone is there
bring_changed() {
    [ -n "$delta" ] || return 1
    no_delta=
    use_new_passfile
    if make_shadow && verify_shadow && leave_filled && fetch_parts && combine; then
        drop_parts
        return 0
    fi
    drop_parts
    as_owner rm -rf "$clone/data"
    clone_places | while read -r size location; do
        [ -z "$size" ] || as_owner rm -rf "$location/pg_replica_kit.clone/data"
    done
    say_no_delta
    return 1
}

# Removes all but the result.
drop_parts() {
    remove_parts
    as_owner sh -c 'cd "$1" && rm -rf shadow manifest files names holes left_out' sh \
        "$clone"
}

# remove_parts: all that was fetched
remove_parts() {
    part_places | while read -r place; do
        as_owner sh -c 'rm -rf "$1"/part[0-9]*' sh "$place"
    done
}

# part_places: where the parts are
part_places() {
    clone_places | while read -r size location; do
        [ -z "$size" ] || printf '%s\n' "$location/pg_replica_kit.clone"
    done
    printf '%s\n' "$clone"
}

# A directory that looks like a backup of the old data, for programs that read it.
make_shadow() {
    as_owner sh -c '
        mkdir -m 700 "$2/shadow" "$2/shadow/pg_tblspc" && cd "$2/shadow" || exit
        ln -s "$1/base" base && ln -s "$1/global" global &&
            cp "$1/PG_VERSION" . || exit
        for link in "$1"/pg_tblspc/*; do
            [ -e "$link" ] || [ -L "$link" ] || continue
            place=$(readlink "$link") || place=$link
            [ ! -d "$place/pg_replica_kit.old" ] || place=$place/pg_replica_kit.old
            ln -s "$place" "pg_tblspc/${link##*/}" || exit
        done
        printf "START WAL LOCATION: %s (file 000000000000000000000000)\nSTART TIMELINE: %s\n" \
            "$3" "$4" >backup_label' sh "$old" "$clone" "$from" "$from_timeline" ||
        cannot "the old data cannot be read" || return
    printf '%s' "$delta_limits" | as_owner sh -c 'cat >"$1/left_out"' sh "$clone" ||
        cannot "could not write to \"$clone\""
}

# Blocks of the old data that have not changed stay as they are.  Where they have
# checksums, and the server was stopped, these are verified.
verify_shadow() {
    words=
    if [ "$(shadow_value 'Data page checksum version')" = 0 ]; then
        words="since it has no data checksums"
    elif [ "$(shadow_value 'Database cluster state')" != 'shut down in recovery' ]; then
        words="since its server did not end cleanly"
    fi
    if [ -n "$words" ]; then
        say "note: unchanged blocks of the old data cannot be verified, $words"
        return 0
    fi
    [ -x "$bindir/pg_checksums" ] ||
        cannot "program \"pg_checksums\" is not installed" || return
    say "verifying the data checksums of the old data"
    start_job "$bindir/pg_checksums" --check -D "$clone/shadow"
    await_job verify_words "pg_checksums has done nothing"
    [ "$status" -ne 0 ] || return 0
    # All that is not about the checksum of a file is a reason not to trust it.
    words=$(as_owner sed -n '/ checksum verification failed in file /d; s/^pg_checksums: error: //p' \
        "$state/clone.out" | tail -n 1 | cleaned 300)
    files=$(as_owner sed -n 's/^pg_checksums: error: checksum verification failed in file ".*\/shadow\/\(.*\)", block [0-9]*: .*/\1/p' \
        "$state/clone.out" | sort -u)
    { [ -z "$words" ] && [ -n "$files" ]; } ||
        cannot "the old data cannot be verified${words:+: $words}" || return
    leave_out "files of the old data are damaged"
}

# leave_out WORDS: fetches those in files whole, and says why
leave_out() {
    say "$1: $(printf '%s\n' "$files" | wc -l | tr -d ' ') ($(printf '%s\n' "$files" | head -n 3 | tr '\n' ' ' | sed 's/ $//')); fetching them whole"
    printf '%s\n' "$files" | as_owner sh -c 'cat >>"$1/left_out"' sh "$clone" ||
        cannot "could not write to \"$clone\""
}

# keep_sizes: of the files, before a server is started.  What replays WAL fills a
# file that ends too early with zeros, up to the block that it writes.  Where an
# earlier run has kept them and not come to its end, those are the true ones.
keep_sizes() {
    [ "$prk_major" -ge 17 ] && ! as_owner test -e "$state/sizes" || return 0
    list_files "$pgdata" | as_owner sh -c '
        cat >"$1/sizes.new" && mv -f "$1/sizes.new" "$1/sizes"' sh "$state" ||
        fail 8 "could not write to \"$state\""
}

# leave_filled: a file that has grown since, with a block of zeros there, cannot be
# told from one that was filled.  Only what has grown is read.
leave_filled() {
    as_owner test -s "$state/sizes" || return 0
    files=$(list_files "$clone/shadow" | as_owner sh -c '
        cd "$1/shadow" || exit
        awk -v block="$3" -v relation="$4" '\''
            NR == FNR { before[$2] = int($1 / block); next }
            NF == 2 && $2 ~ relation && int($1 / block) > before[$2] + 0 {
                print before[$2] + 0, $2
            }'\'' "$2/sizes" - | while read -r blocks name; do
            if tail -c "+$((blocks * $3 + 1))" "$name" | tr "\000-\377" " x" |
                fold -b -w "$3" | grep -q "^ *\$"; then
                printf "%s\n" "$name"
            fi
        done 2>/dev/null' sh "$clone" "$state" "$block_size" "$relation_files") ||
        cannot "the old data cannot be read" || return
    [ -z "$files" ] || leave_out "files of the old data have grown with empty blocks"
}

# shadow_value NAME: of the old data's control file
shadow_value() {
    (
        pgdata=$clone/shadow
        control_value "$1"
    )
}

# --------------------------------------------------------------- the manifest

# list_files DIR: the size and path of each file of a database, below DIR
list_files() {
    as_owner sh -c '
        cd "$1" || exit
        set -- base/ global/
        for name in pg_tblspc/*/PG_*/; do
            [ ! -d "$name" ] || set -- "$@" "$name"
        done
        find "$@" -type f -exec stat -c "%s %n" {} +' sh "$1"
}

# write_manifest DIR RANGES: of the files in DIR, but for those in left_out
write_manifest() {
    list_files "$1" | as_owner sh -c 'cat >"$1/files"' sh "$clone"
    as_owner sh -c '
        cd "$1" && [ -s files ] || exit
        {
            printf "{ \"PostgreSQL-Backup-Manifest-Version\": 2,\n"
            printf "\"System-Identifier\": %s,\n\"Files\": [" "$2"
            awk -v block="$3" -v relation="$4" '\''
                FILENAME == "left_out" { left_out[$0] = 1; next }
                NF != 2 || $2 !~ relation || $1 == 0 { next }
                {
                    name = $2
                    if (!sub(/INCREMENTAL[.]/, "", name) && $1 % block != 0)
                        next
                    if (name in left_out)
                        next
                    printf "%s\n{ \"Path\": \"%s\", \"Size\": %s, \"Last-Modified\": \"2000-01-01 00:00:00 GMT\" }", comma, $2, $1
                    comma = ","
                }'\'' left_out files
            printf "\n],\n\"WAL-Ranges\": [\n"
            printf "%s\n" "$5" | awk '\''
                {
                    printf "%s{ \"Timeline\": %s, \"Start-LSN\": \"%s\", \"End-LSN\": \"%s\" }", comma, $1, $2, $3
                    comma = ",\n"
                }'\''
            printf "\n],\n"
        } >manifest && sum=$(sha256sum <manifest) &&
            printf "\"Manifest-Checksum\": \"%s\"}\n" "${sum%% *}" >>manifest' sh \
        "$clone" "$prk_system_id" "$block_size" "$relation_files" "$2" ||
        cannot "could not write a manifest of the old data"
}

# ------------------------------------------------------------------ the fetch

# fetch_parts: the incremental backup, and others on top of it for files that
# have to come whole after all; sets parts, how many there are
fetch_parts() {
    parts=1
    fetches=1
    say "fetching what has changed since $from"
    first_manifest || return
    previous=$from
    previous_timeline=$from_timeline
    while :; do
        fetch_part "$parts" || return
        find_limits "$previous_timeline" "$previous" "$part_timeline" \
            "$part_from" || return
        [ -n "$complete" ] ||
            cannot "the upstream server does not tell all relations that were truncated" ||
            return
        holes=
        if [ "$parts" -eq 1 ]; then
            holes=$(find_holes) ||
                cannot "what was fetched cannot be read" || return
            holes=${holes:+$holes$newline}
        fi
        more=$(printf '%s' "$limits$holes" | sort -u | as_owner sh -c '
            grep -v -x -F -f "$1/left_out" || [ "$?" -eq 1 ]' sh "$clone") ||
            cannot "what was fetched cannot be read" || return
        [ -n "$more" ] || return 0
        [ "$fetches" -lt "$most_parts" ] ||
            cannot "relations are truncated again and again" || return
        fetches=$((fetches + 1))
        prepare_more || return
    done
}

# first_manifest: of the old data
first_manifest() {
    write_manifest "$clone/shadow" \
        "$(timeline_ranges "$from_timeline" "$from" "$end_timeline" "$end")" ||
        return
    as_owner sh -c 'cd "$1" && cp manifest shadow/backup_manifest && cp files names' sh \
        "$clone" || cannot "could not write to \"$clone\""
}

# prepare_more: a manifest for a backup that has the files in more whole.  A standby
# begins its backups at its last restart point: one on top would begin where this
# one does, which the server refuses; so all of it is fetched again.
prepare_more() {
    fetched=$(part_bytes)
    again=$(calc "$whole_bytes + $prk_segment_size")
    from_standby=
    if as_owner grep -q '^BACKUP FROM: standby' "$clone/part$parts/backup_label"; then
        from_standby=yes
        again=$fetched
    fi
    bytes=$(calc "$fetched + $again + $(more_bytes)")
    [ "$(calc "($bytes < $delta_all)")" = 1 ] ||
        cannot "with files that have to come whole after all, about $(megabytes "$bytes") MB would be fetched, and everything is $(megabytes "$delta_all") MB" ||
        return
    say "fetching more files whole: $(printf '%s\n' "$more" | wc -l | tr -d ' ')"
    if [ -n "$from_standby" ]; then
        remove_parts
        printf '%s\n' "$more" | as_owner sh -c 'cat >>"$1/left_out"' sh "$clone" &&
            first_manifest
        return
    fi
    printf '%s\n' "$more" | as_owner sh -c 'cat >"$1/left_out"' sh "$clone" &&
        write_manifest "$clone/part$parts" \
            "$part_timeline $part_from $part_from" || return
    previous=$part_from
    previous_timeline=$part_timeline
    parts=$((parts + 1))
}

# more_bytes: how long are the files in more on the upstream?
more_bytes() {
    printf '%s\n' "$more" | as_owner sh -c '
        cd "$1" || exit
        while read -r name; do
            part=${name%/*}/INCREMENTAL.${name##*/}
            if [ -e "$part" ]; then
                head -c 12 "$part" | od -An -v -tu4 |
                    awk -v block="$2" "{ printf \"%.0f\\n\", \$3 * block }"
            elif [ -e "$name" ]; then
                stat -c %s "$name"
            fi
        done' sh "$clone/part$parts" "$block_size" |
        awk '{ sum += $1 } END { printf "%.0f", sum }'
}

# fetch_part NUMBER: sets part_from and part_timeline, where its WAL begins
fetch_part() {
    part=part$1
    set -- "$bindir/pg_basebackup" -D "$clone/$part" -F plain -X stream \
        -S "$prk_name" -c fast -P -w --manifest-checksums=NONE \
        --incremental="$clone/manifest" -d "$(conninfo "$passfile" here)"
    while read -r size location; do
        [ -n "$size" ] || continue
        mapped=$(printf '%s' "$location" | sed 's/=/\\=/g')
        set -- "$@" -T "$mapped=$mapped/pg_replica_kit.clone/$part"
    done <<EOF
$prk_tablespaces
EOF
    [ "$compress" = none ] || set -- "$@" --compress="server-$compress"
    start_job "$@"
    await_job fetch_words
    if [ "$status" -ne 0 ]; then
        explain_fetch
        return 1
    fi
    # A tablespace of which the upstream has not told went to its own place.
    words=$(as_owner sh -c '
        for link in "$1"/pg_tblspc/*; do
            place=$(readlink "$link") || continue
            case $place in
                */pg_replica_kit.clone/"$2") ;;
                *) printf "%s\n" "$place" && rm -rf "$place"/PG_* ;;
            esac
        done' sh "$clone/$part" "$part")
    [ -z "$words" ] || cannot "tablespace \"$words\" is new" || return
    words=$(as_owner sed -n 's/^START WAL LOCATION: \([0-9A-F/]*\) .*/\1/p; s/^START TIMELINE: \([0-9]*\)$/ \1/p' \
        "$clone/$part/backup_label" | tr -d '\n')
    part_from=${words%% *}
    part_timeline=${words#* }
    { is_lsn "$part_from" && is_number "$part_timeline" 10; } ||
        cannot "what was fetched cannot be read" || return
    [ "$part_timeline" = "$theirs" ] ||
        cannot "the upstream server has switched its timeline meanwhile"
}

# fetch_words: pg_basebackup counts against the size of everything
fetch_words() {
    clone_words | sed 's|^\([0-9]*\)/[0-9]* kB.*|\1 kB fetched|'
}

# explain_fetch: sets no_delta to the upstream's own words
explain_fetch() {
    words=$(as_owner sed -n 's/^pg_basebackup: error: .*ERROR:  //p' \
        "$state/clone.out" | head -n 1 | cleaned 500)
    detail=
    if [ -n "$words" ]; then
        detail=$(as_owner sed -n 's/^DETAIL:  //p' "$state/clone.out" |
            head -n 1 | cleaned 500)
    else
        words=$(as_owner sed -n 's/^pg_basebackup: error: //p' \
            "$state/clone.out" | tail -n 1 | cleaned 500)
    fi
    no_delta="${words:-pg_basebackup ended with status $status}${detail:+ ($detail)}"
}

# find_holes: files that lack blocks, neither fetched nor in the old data.  Pages
# that the upstream has made and never used are such, too, and rightly zero.
find_holes() {
    as_owner sh -c '
        cd "$1/part1" || exit
        block=$2
        magic=$3
        set -- base/ global/
        for name in pg_tblspc/*/PG_*/; do
            [ ! -d "$name" ] || set -- "$@" "$name"
        done
        find "$@" -type f -name "INCREMENTAL.*" >../holes || exit
        [ -s ../holes ] || exit 0
        xargs head -q -c 12 <../holes | od -An -v -tu4 |
            awk -v block="$block" -v magic="$magic" '\''
                FILENAME == "../names" { old[$2] = int($1 / block); next }
                FILENAME == "../holes" { name[n++] = $1; next }
                { for (i = 1; i <= NF; i++) header[h++] = $i }
                END {
                    if (h != 3 * n)
                        exit 1
                    for (i = 0; i < n; i++) {
                        if (header[3 * i] != magic)
                            exit 1
                        path = name[i]
                        sub(/INCREMENTAL[.]/, "", path)
                        if (old[path] + 0 < header[3 * i + 2])
                            print name[i], header[3 * i + 1], old[path] + 0, header[3 * i + 2]
                    }
                }'\'' ../names ../holes - >../files || exit
        while read -r name count from to; do
            there=$(head -c "$((12 + 4 * count))" "$name" | od -An -v -tu4 |
                awk -v from="$from" -v to="$to" '\''
                    {
                        for (i = 1; i <= NF; i++)
                            if (++n > 3 && $i >= from + 0 && $i < to + 0)
                                there++
                    }
                    END { print there + 0 }'\'') || exit
            [ "$there" -eq "$((to - from))" ] || printf "%s\n" "$name"
        done <../files >../holes || exit
        sed "s/INCREMENTAL[.]//" ../holes' sh "$clone" "$block_size" \
        "$incremental_magic"
}

# --------------------------------------------------------------- put together

# part_bytes: of all that was fetched
part_bytes() {
    part_places | while read -r place; do
        as_owner sh -c '
            cd "$1" 2>/dev/null || exit
            for part in part[0-9]*; do
                [ ! -d "$part" ] || find "$part" -type f -exec stat -c %s {} +
            done' sh "$place"
    done | awk '{ sum += $1 } END { printf "%.0f", sum }'
}

combine() {
    fetched=$(part_bytes)
    say "bringing back only what changed since $from ($(megabytes "$fetched") MB of $(megabytes "$delta_all") MB fetched)"
    set -- "$bindir/pg_combinebackup" -o "$clone/data" --manifest-checksums=NONE
    if shares_blocks; then
        say "blocks that have not changed are shared with the old data, as this file system can"
        set -- "$@" --copy-file-range
    fi
    while read -r size location; do
        [ -n "$size" ] || continue
        mapped=$(printf '%s' "$location/pg_replica_kit.clone" | sed 's/=/\\=/g')
        set -- "$@" -T "$mapped/part$parts=$mapped/data"
    done <<EOF
$prk_tablespaces
EOF
    set -- "$@" "$clone/shadow"
    part=1
    while [ "$part" -le "$parts" ]; do
        set -- "$@" "$clone/part$part"
        part=$((part + 1))
    done
    start_job "$@"
    await_job combine_words "pg_combinebackup has done nothing"
    # It ends with 0 where it leaves something out, too, but says so.
    words=$(as_owner tail -n 1 "$state/clone.out" | cleaned 300)
    { [ "$status" -eq 0 ] && [ -z "$words" ]; } ||
        cannot "${words:-pg_combinebackup ended with status $status}" || return
    words=$(as_owner sh -c '
        cd "$1" || exit
        for name in PG_VERSION backup_label global/pg_control pg_wal/0*; do
            [ -e "$name" ] || { echo "$name is missing" && exit; }
        done
        for name in . pg_tblspc/*/; do
            [ ! -d "$name" ] || find "$name" -name "INCREMENTAL.*"
        done | head -n 1' sh "$clone/data" 2>&1)
    [ -z "$words" ] || cannot "the result is not complete: $words" || return
    find_moved "$clone/data"
    [ -z "$moved" ] || cannot "$moved" || return
    place_wal
}

# combine_words: how much has been read, since the program does not tell
combine_words() {
    verify_words | sed 's/^verifying/putting it together/'
}

# shares_blocks: can files share blocks here, and is it worth it?  Each piece that
# has changed costs more than to copy it.
shares_blocks() {
    [ "$(calc "($fetched * 10 < $delta_all)")" = 1 ] && as_owner sh -c '
        cd "$1" && cp --reflink=always manifest holes 2>/dev/null' sh "$clone"
}

# The WAL that was fetched goes where a clone would have put it.
place_wal() {
    [ -n "$waldir" ] || return 0
    as_owner sh -c '
        mkdir -m 700 "$2/data" && cd "$1/pg_wal" || exit
        for file in * .[!.]*; do
            [ ! -e "$file" ] || mv "./$file" "$2/data/" || exit
        done
        cd .. && rmdir pg_wal && ln -s "$2/data" pg_wal && sync' sh \
        "$clone/data" "$waldir/pg_replica_kit.clone" ||
        cannot "could not move the WAL to its directory"
}
