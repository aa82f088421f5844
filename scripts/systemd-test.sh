#!/bin/sh
# Boots a clean Debian with systemd in a container, installs the package there and lives through a service's life:
# start, calls, reload, credentials, a stuck server, restarts under load, removal (tests/systemd/guest.py).
#   scripts/systemd-test.sh [PACKAGE.deb]     without one, a package is made of $KINGLET_BIN or the release build
# Needs root and systemd-nspawn (systemd-container); mmdebstrap or debootstrap once, to make the Debian:
# $KINGLET_DEBIAN_ROOT, default target/debian-root, is left as it is for the next run. It takes half a minute.
set -eu
[ $# -eq 0 ] || set -- "$(realpath "$1")"
cd "$(dirname "$0")/.."

suite=${KINGLET_DEBIAN_SUITE:-trixie}
root=${KINGLET_DEBIAN_ROOT:-target/debian-root}
binary=${KINGLET_BIN:-target/x86_64-unknown-linux-gnu/release/kinglet}
packages=systemd,systemd-sysv,curl,python3-minimal,libpython3-stdlib,openssl

skip() {
    echo "SKIPPED: the boot with systemd: $1" >&2
    exit 0
}
[ "$(id -u)" -eq 0 ] || skip "it needs root"
command -v systemd-nspawn >/dev/null || skip "it needs systemd-nspawn: apt-get install systemd-container"
# Where the machine has control groups of version 1 in their place, those of version 2 are mounted over them, for
# this script's eyes only. Their controllers may then be missing: limits of memory have no effect in the test.
if [ ! -e /sys/fs/cgroup/cgroup.controllers ] && [ -z "${KINGLET_UNSHARED:-}" ]; then
    grep -q cgroup2 /proc/filesystems || skip "the kernel has no control groups of version 2"
    KINGLET_UNSHARED=1 exec unshare --mount sh -c 'mount -t cgroup2 cgroup2 /sys/fs/cgroup && exec "$@"' - scripts/systemd-test.sh "$@"
fi

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
trap 'exit 1' INT TERM

if [ ! -e "$root/.complete" ]; then
    rm -rf "$root"
    mkdir -p "$(dirname "$root")"
    if command -v mmdebstrap >/dev/null; then
        mmdebstrap --quiet --variant=minbase --include="$packages" "$suite" "$root"
    elif command -v debootstrap >/dev/null; then
        debootstrap --variant=minbase --include="$packages" "$suite" "$root" >"$work/debootstrap.log"
    else
        skip "there is no Debian at $root, and neither mmdebstrap nor debootstrap to make one"
    fi
    touch "$root/.complete"
fi

if [ $# -gt 0 ]; then
    mkdir "$work/packages"
    cp "$1" "$work/packages/"
else
    scripts/package.sh "$work/packages" "amd64=$binary" >/dev/null
fi

mkdir "$work/out"
cat >"$work/guest.service" <<'UNIT'
[Unit]
Description=test of kinglet
SuccessAction=poweroff-force
FailureAction=poweroff-force
[Service]
Type=oneshot
ExecStart=/usr/bin/python3 /opt/test/guest.py /opt/test/packages /opt/weights /opt/fixtures /opt/test/DEPLOY.md /out
StandardOutput=file:/out/log
StandardError=inherit
TimeoutStartSec=300
UNIT
cp tests/systemd/guest.py docs/DEPLOY.md "$work"

# A layer in memory over the tree: each run finds it clean.
timeout 400 systemd-nspawn --quiet --register=no --keep-unit --private-network --volatile=overlay \
    --directory="$root" --console=pipe --bind="$work/out:/out" --bind-ro="$work:/opt/test" \
    --bind-ro="$PWD/weights:/opt/weights" --bind-ro="$PWD/tests/fixtures:/opt/fixtures" \
    --bind-ro="$work/guest.service:/etc/systemd/system/guest.service" \
    --boot systemd.unit=guest.service systemd.journald.forward_to_console=0 </dev/null >"$work/console" 2>&1 || true

cat "$work/out/log" 2>/dev/null || tail -n 30 "$work/console"
if [ "$(cat "$work/out/result" 2>/dev/null)" != passed ]; then
    echo "the test with systemd failed; the last lines of the journal:" >&2
    tail -n 60 "$work/out/journal" >&2 || true
    exit 1
fi
