# shellcheck shell=bash
# common.sh: what demo, test and matrix share.  Sourced, never run.
#
# The promises that all three keep: what is missing comes from Debian's own
# packages and nothing that is installed gets upgraded; the tree they are
# started from is only read; servers run as user postgres; everything they
# write lies in one temporary directory, which they remove.

umask 022
prk_source=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)

say()
{
	printf '\n=== %s\n' "$*"
}

die()
{
	printf '%s: %s\n' "${0##*/}" "$*" >&2
	exit 2
}

# The rest needs root: packages, and user postgres to run servers as.
need_root()
{
	[ "$(id -u)" -eq 0 ] || die "must run as root: sudo $0"
	[ -r /etc/debian_version ] || die "works on Debian only"
	command -v apt-get >/dev/null || die "works on Debian only: no apt-get"
}

# The name of this machine's Debian release, such as "bookworm".
debian_release()
{
	# shellcheck disable=SC1091
	. /etc/os-release
	printf '%s\n' "${VERSION_CODENAME:-unknown}"
}

# The PostgreSQL version that a Debian release brings, and the reverse.  No
# release has 19 yet: unstable gets it, and experimental has it before that.
release_postgres()
{
	case $1 in
		bookworm) echo 15 ;;
		trixie) echo 17 ;;
		forky) echo 18 ;;
	esac
}

postgres_release()
{
	case $1 in
		15) echo bookworm ;;
		17) echo trixie ;;
		18) echo forky ;;
		19) echo sid ;;
	esac
}

# The suites of Debian's archive that PostgreSQL version $1 is looked for in.
# Where it is in several, apt takes the newest.
postgres_suites()
{
	case $1 in
		19) echo sid forky experimental ;;
		*) postgres_release "$1" ;;
	esac
}

# What it takes to build with PostgreSQL version $1, and to run it.
packages_to_build()
{
	echo "postgresql-$1 postgresql-server-dev-$1 gcc make libc6-dev" \
		"libkrb5-dev libssl-dev perl dash util-linux procps"
}

# What it takes to run the tests, too.
packages_to_test()
{
	packages_to_build "$1"
	echo libipc-run-perl iproute2 openssl acl locales busybox mksh

	# Peers that are asked beside the kit.  Debian has no repmgr for 18 and 19,
	# and no pg_cron for 19: what needs these is skipped there.
	echo check-postgres
	[ "$1" -ge 18 ] || echo "postgresql-$1-repmgr"
	[ "$1" -ge 19 ] || echo "postgresql-$1-cron"

	# Each release's own have their own taste: one is the judge.
	[ "$1" != 15 ] || echo pg-bsd-indent shellcheck systemd \
		git man-db pgxnclient unzip

	# A driver for the recipe of doc/reads.md.
	[ "$1" != 15 ] || echo python3-psycopg

	# The fuzzers are run with one version, as they are about our own code.
	[ "$1" != 15 ] || echo clang libclang-rt-14-dev
}

# What others watch replicas with and reach them with, as one test or another
# tries it with PostgreSQL version $1, and libraries that only these need.  One
# version is enough; the other has newer ones, and some that the first has not.
packages_outside()
{
	case $1 in
		15) echo prometheus prometheus-alertmanager prometheus-sql-exporter \
			prometheus-node-exporter prometheus-postgres-exporter \
			haproxy liblua5.3-0 libopentracing-c-wrapper0 libopentracing1 \
			pgbouncer libc-ares2 libevent-2.1-7 \
			libpostgresql-jdbc-java python3-psycopg-pool ;;
		18) echo pg-exporter prometheus-sql-exporter prometheus-postgres-exporter ;;
	esac
}

# The mirror that this machine gets its own Debian from.
machine_mirror()
{
	local uri release

	# shellcheck disable=SC2016
	apt-get indextargets 'Created-By: Packages' 'Component: main' \
		--format '$(REPO_URI) $(RELEASE)' |
		while read -r uri release; do
			case $release in
				"$(debian_release)" | stable | oldstable)
					printf '%s\n' "$uri"
					break
					;;
			esac
		done
}

# How this machine's apt reaches it: proxies, certificates and the like.
machine_aptopts()
{
	apt-config dump | grep -E '^Acquire::(https?|Check-|Retries|ForceIP)' |
		grep -v '""'
}

# install_missing PACKAGE...: install those that are not there.  Without any,
# apt-get is not even called.
install_missing()
{
	local missing=() package dropin=

	for package; do
		[ "$(dpkg-query -W -f '${db:Status-Status}' "$package" \
			2>/dev/null)" = installed ] || missing+=("$package")
	done
	[ ${#missing[@]} -gt 0 ] || return 0

	say "Installing ${missing[*]}"
	export DEBIAN_FRONTEND=noninteractive NEEDRESTART_SUSPEND=1
	local apt=(apt-get -y -q -o Dpkg::Use-Pty=0 -o DPkg::Lock::Timeout=300
		--no-install-recommends)
	local pins='' upgrades status=0

	"${apt[@]}" update </dev/null || die "apt-get update failed"

	# An upgrade of an installed server would restart its clusters: better what is
	# of its version, and an upgrade only where there is none and no server runs.
	upgrades=$(server_upgrades "${apt[@]}" install "${missing[@]}")
	if [ -n "$upgrades" ]; then
		pins=$(mktemp) || die "mktemp failed"
		pin_servers <<<"$upgrades" >"$pins"
		local pinned=("${apt[@]}" -o "Dir::Etc::Preferences=$pins")
		if "${pinned[@]}" -s install "${missing[@]}" </dev/null >/dev/null 2>&1 &&
			[ -z "$(server_upgrades "${pinned[@]}" install "${missing[@]}")" ]; then
			apt=("${pinned[@]}")
		elif grep -q '^Remv' <<<"$upgrades" || server_runs; then
			rm -f "$pins"
			printf '%s\n' "$upgrades" >&2
			die "not installing ${missing[*]}: that would upgrade or remove" \
				"the packages above"
		fi
	fi

	# Debian makes a cluster along with the first server: not for us.
	if [[ " ${missing[*]} " =~ \ postgresql-[0-9]+\  ]]; then
		mkdir -p /etc/postgresql-common/createcluster.d
		dropin=/etc/postgresql-common/createcluster.d/zz-$$.conf
		echo 'create_main_cluster = false' >"$dropin"
	fi
	"${apt[@]}" install "${missing[@]}" </dev/null || status=$?
	rm -f "$dropin" "$pins"
	[ "$status" -eq 0 ] || die "apt-get install failed"
}

# server_upgrades APT-GET-COMMAND: what it says of servers that it would upgrade, and
# of anything that it would remove.
server_upgrades()
{
	"$@" -s </dev/null | grep -E '^(Inst postgresql-[0-9]+ \[|Remv )'
}

# Preferences that keep the servers of server_upgrades, on stdin, and all else that
# is built with them at the version that is installed.
pin_servers()
{
	local kind package version
	cat /etc/apt/preferences 2>/dev/null
	while read -r kind package version _; do
		[ "$kind" = Inst ] || continue
		printf '\nPackage: src:%s\nPin: version %s\nPin-Priority: 1001\n' \
			"$package" "$(tr -d '[]' <<<"$version")"
	done
}

# Does any server of Debian's packages run?
server_runs()
{
	readlink /proc/[0-9]*/exe 2>/dev/null |
		grep -q '^/usr/lib/postgresql/[0-9]*/bin/postgres'
}

# as_postgres COMMAND...: run it as the user that servers run as.
as_postgres()
{
	runuser -u postgres -- "$@"
}

# make_workdir NAME: a directory of its own that user postgres can reach and
# write, kept short because sockets have their path in it.
make_workdir()
{
	local base dir

	for base in "${TMPDIR:-/tmp}" /tmp; do
		[ ${#base} -le 40 ] || continue
		dir=$(mktemp -d "$base/$1.XXXXXX") || continue
		chown postgres:postgres "$dir"
		if as_postgres test -w "$dir"; then
			printf '%s\n' "$dir"
			return 0
		fi
		rmdir "$dir"
	done
	die "found no directory for temporary files that user postgres can use"
}

# copy_source DIR: this tree as it lies there, uncommitted changes included,
# without what was built or run in it.
copy_source()
{
	mkdir -p "$1"
	# 1: something was built there meanwhile, which is left out anyway
	{
		tar -C "$prk_source" -cf - \
			--exclude=./.git --exclude='./tmp_*' --exclude=./results \
			--exclude=./log --exclude=./output_iso --exclude='./regression.*' \
			--exclude='*.o' --exclude='*.bc' --exclude='*.so' . ||
			[ $? -eq 1 ]
	} | tar -C "$1" --no-same-owner -xf -
	chown -R postgres:postgres "$1"
}

# private_postgres VERSION DIR [ROOT]: a copy of the PostgreSQL that is installed
# in this system, or below ROOT, that works from DIR, since its programs find
# each other relative to themselves.  So an extension can be installed and
# preloaded, and no server that somebody uses gets to see it.
private_postgres()
{
	local version=$1 dir=$2 root=${3:-}

	mkdir -p "$dir/lib/postgresql" "$dir/share/postgresql"
	cp -a "$root/usr/lib/postgresql/$version" "$dir/lib/postgresql/"
	cp -a "$root/usr/share/postgresql/$version" "$dir/share/postgresql/"
	ln -s /usr/include "$dir/include"
	ln -s "/usr/lib/$(gcc -print-multiarch)" "$dir/lib/"
	ln -s /usr/share/locale "$dir/share/locale"
}

# other_minor VERSION DIR: in DIR another minor version of PostgreSQL VERSION
# than the installed one, where apt knows one and can get it.  Debian has two
# where its security archive is ahead of the release.
other_minor()
{
	local version=$1 dir=$2 installed other package
	local bin=$dir/usr/lib/postgresql/$version/bin

	installed=$(dpkg-query -W -f '${Version}' "postgresql-$version") || return 1
	other=$(apt-cache madison "postgresql-$version" 2>/dev/null |
		awk '{ print $3 }' | grep -vF -- "${installed%%-*}-" | head -n 1)
	[ -n "$other" ] || return 1
	say "Getting PostgreSQL $other beside $installed"
	mkdir -p "$dir/packages"
	for package in "postgresql-$version" "postgresql-client-$version"; do
		(cd "$dir/packages" &&
			timeout 120 apt-get -q -o APT::Sandbox::User=root \
				-o Acquire::Retries=0 download "$package=$other" &&
			dpkg -x "$package"_*.deb "$dir") </dev/null || return 1
	done
	rm -r "$dir/packages"
	"$bin/postgres" --version && "$bin/psql" --version
}

# outside_programs VERSION DIR: packages_outside, as far as apt can get them, below
# DIR.  They are only unpacked, as Debian starts the servers that it installs.
outside_programs()
{
	local package packages

	read -ra packages < <(packages_outside "$1")
	[ ${#packages[@]} -gt 0 ] || return 0
	say "Getting ${packages[*]}"
	mkdir -p "$2/packages"

	# a chroot has no lists
	[ -n "$(apt-cache policy "${packages[0]}" 2>/dev/null)" ] ||
		apt-get -q update </dev/null >/dev/null
	for package in "${packages[@]}"; do
		(cd "$2/packages" &&
			timeout 120 apt-get -qq -o APT::Sandbox::User=root \
				-o Acquire::Retries=0 download "$package" &&
			dpkg -x "$package"_*.deb "$2") </dev/null
	done
	rm -r "$2/packages"
	chmod -R go+rX "$2"
}

# postgres_source VERSION DIR: Debian's source package of PostgreSQL VERSION,
# unpacked in DIR/source with Debian's patches: that of the installed server, or
# else the newest that can be had from where apt gets its packages.
postgres_source()
{
	local version=$1 dir=$2 uri release file key candidate installed
	local apt=(-q -o Dir::Etc::sourcelist="$dir/apt/sources.list"
		-o Dir::Etc::sourceparts=- -o Dir::State::lists="$dir/apt/lists"
		-o Dir::Cache::pkgcache= -o Dir::Cache::srcpkgcache=
		-o APT::Sandbox::User=root -o Acquire::Retries=0)

	install_missing dpkg-dev
	mkdir -p "$dir/apt/lists/partial"
	for file in /usr/share/keyrings/debian-archive-keyring.*; do
		[ ! -f "$file" ] || key=[signed-by=$file]
	done
	# a chroot has no lists until then
	apt-get -q update </dev/null >/dev/null
	# shellcheck disable=SC2016
	apt-get indextargets 'Created-By: Packages' 'Component: main' 'Origin: Debian' \
		--format '$(REPO_URI) $(RELEASE)' |
		while read -r uri release; do
			printf 'deb-src %s %s %s main\n' "${key:-}" "$uri" "$release"
		done | sort -u >"$dir/apt/sources.list"
	apt-get "${apt[@]}" update </dev/null || return 1

	installed=$(dpkg-query -W -f '${Version}' "postgresql-$version" 2>/dev/null)
	for candidate in "$installed" $(apt-cache "${apt[@]}" showsrc \
		--only-source "postgresql-$version" |
		awk '$1 == "Version:" { print $2 }' | sort -rVu); do
		[ -n "$candidate" ] || continue
		(cd "$dir" && apt-get "${apt[@]}" --download-only source \
			"postgresql-$version=$candidate") </dev/null || continue
		say "Unpacking the source of postgresql-$version $candidate"
		dpkg-source --no-check -x "$dir/postgresql-${version}_${candidate#*:}.dsc" \
			"$dir/source" >/dev/null && return 0
	done
	return 1
}

# stop_servers DIR: at once, every server whose data directory is below DIR.
stop_servers()
{
	local file pid

	find "$1" -name postmaster.pid 2>/dev/null | while read -r file; do
		read -r pid <"$file" || continue
		[ "$(readlink "/proc/$pid/cwd")" = "${file%/*}" ] || continue
		kill -QUIT "$pid"
		while [ -d "/proc/$pid" ]; do
			sleep 0.1
		done
	done
}
