#!/bin/sh
# Makes the packages: a .deb and a .tar.gz for each architecture, and their SHA256SUMS.
#   scripts/package.sh FOLDER amd64=BINARY [arm64=BINARY]
# Needs dpkg-deb. The same binaries and commit give the same bytes.
set -eu
[ $# -ge 2 ] || { sed -n '2,3s/^# *//p' "$0" >&2; exit 2; }
folder=$1
shift
mkdir -p "$folder"
folder=$(cd "$folder" && pwd)
start=$(pwd)
cd "$(dirname "$0")/.."

version=$(sed -n 's/^version = "\(.*\)"$/\1/p' Cargo.toml | head -n 1)
SOURCE_DATE_EPOCH=${SOURCE_DATE_EPOCH:-$(git log -1 --format=%ct 2>/dev/null || echo 0)}
export SOURCE_DATE_EPOCH
maintainer=${KINGLET_MAINTAINER:-The kinglet authors <kinglet@localhost.invalid>}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

# The machine that an ELF file is for.
machine() {
    case "$(od -An -t u2 -j 18 -N 2 "$1" | tr -d ' ')" in
        62) echo amd64 ;;
        183) echo arm64 ;;
        *) echo unknown ;;
    esac
}

# A kinglet that runs here: one of the packed, under emulation if need be.
runs_here() {
    for pair in "$@"; do
        binary=$(absolute "${pair#*=}")
        for run in "" qemu-aarch64-static; do
            if $run "$binary" --version >/dev/null 2>&1; then
                echo "$run $binary"
                return
            fi
        done
    done
    echo "none of the binaries runs here, to print the man page" >&2
    exit 1
}

absolute() {
    case "$1" in /*) echo "$1" ;; *) echo "$start/$1" ;; esac
}

# The man page and what shells complete, below $1.
generated() {
    mkdir -p "$1/man/man1" "$1/bash-completion/completions" "$1/zsh/vendor-completions" "$1/fish/vendor_completions.d"
    $kinglet generate man | gzip -n -9 >"$1/man/man1/kinglet.1.gz"
    $kinglet generate completions bash >"$1/bash-completion/completions/kinglet"
    $kinglet generate completions zsh >"$1/zsh/vendor-completions/_kinglet"
    $kinglet generate completions fish >"$1/fish/vendor_completions.d/kinglet.fish"
}

documents() {
    mkdir -p "$1"
    cp README.md CHANGELOG.md LICENSE docs/DEPLOY.md docs/CONTAINERS.md docs/OPERATIONS.md docs/FLAGS.md docs/SECURITY.md "$1"
}

# Files get the same owner, time and order each time.
pack() {
    tar --sort=name --owner=0 --group=0 --numeric-owner --mtime="@$SOURCE_DATE_EPOCH" -C "$work" -cf - "$1" |
        gzip -n -9
}

deb() {
    root=$work/deb-$1
    install -D -m 755 "$2" "$root/usr/bin/kinglet"
    for unit in kinglet.service kinglet.socket; do
        install -D -m 644 "packaging/$unit" "$root/usr/lib/systemd/system/$unit"
    done
    install -D -m 644 packaging/kinglet.conf "$root/etc/kinglet/kinglet.conf"
    install -D -m 644 packaging/kinglet.sysusers "$root/usr/lib/sysusers.d/kinglet.conf"
    generated "$root/usr/share"
    documents "$root/usr/share/doc/kinglet"
    mv "$root/usr/share/doc/kinglet/LICENSE" "$root/usr/share/doc/kinglet/copyright"
    find "$root" -type d -exec chmod 755 {} +
    find "$root" -type f ! -path '*/usr/bin/*' -exec chmod 644 {} +
    size=$(du -sk "$root" | cut -f 1)
    mkdir "$root/DEBIAN"
    for script in postinst prerm postrm; do
        install -m 755 "packaging/debian/$script" "$root/DEBIAN/$script"
    done
    echo /etc/kinglet/kinglet.conf >"$root/DEBIAN/conffiles"
    sed -e "s/@VERSION@/$version/" -e "s/@ARCHITECTURE@/$1/" -e "s/@SIZE@/$size/" -e "s/@MAINTAINER@/$maintainer/" \
        packaging/debian/control >"$root/DEBIAN/control"
    dpkg-deb --root-owner-group -Zxz --build "$root" "$folder/kinglet_${version}_$1.deb" >/dev/null
}

archive() {
    name=kinglet-$version-linux-$1
    install -D -m 755 "$2" "$work/$name/kinglet"
    documents "$work/$name"
    generated "$work/$name/share"
    cp -r packaging "$work/$name/packaging"
    rm -r "$work/$name/packaging/debian"
    pack "$name" >"$folder/$name.tar.gz"
}

kinglet=$(runs_here "$@")
made=
for pair in "$@"; do
    architecture=${pair%%=*}
    binary=$(absolute "${pair#*=}")
    [ "$(machine "$binary")" = "$architecture" ] || { echo "$binary is not for $architecture" >&2; exit 1; }
    deb "$architecture" "$binary"
    archive "$architecture" "$binary"
    made="$made kinglet_${version}_$architecture.deb kinglet-$version-linux-$architecture.tar.gz"
done
cd "$folder"
# shellcheck disable=SC2086 # a list of names without blanks
sha256sum $made >SHA256SUMS
ls -l $made SHA256SUMS
