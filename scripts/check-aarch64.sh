#!/bin/sh
# What "one static file" promises, for 64-bit ARM: no interpreter, no library, an empty root is enough, and the first
# calls of the README are answered there. Usage: scripts/check-aarch64.sh BINARY
set -eu
cd "$(dirname "$0")/.."
file=$1

scripts/check_static.py "$file" aarch64

root=$(mktemp -d)
trap 'rm -rf "$root"' EXIT
trap 'exit 1' INT TERM
if [ "$(id -u)" -ne 0 ] || ! command -v chroot >/dev/null; then
    echo "SKIPPED: the empty root; chroot needs root" >&2
    exit 0
fi
cp "$file" "$root/kinglet"
if [ "$(uname -m)" = aarch64 ]; then
    run="chroot $root /kinglet"
else
    cp "$(command -v qemu-aarch64-static)" "$root/qemu"
    run="chroot $root /qemu -cpu cortex-a72 /kinglet"
fi
$run --version
echo "runs in an empty root"

printf '#!/bin/sh\nexec %s "$@"\n' "$run" >"$root/in-root"
chmod +x "$root/in-root"
# Folders do not exist in an empty root: the built-in models only.
KINGLET_BIN=$root/in-root KINGLET_SHARED=/nonexistent scripts/smoke.sh
