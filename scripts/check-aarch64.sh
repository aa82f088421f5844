#!/bin/sh
# What "one static file" promises, for 64-bit ARM: no interpreter, no library, an empty root is enough, and the first
# calls of the README are answered there. Usage: scripts/check-aarch64.sh BINARY
set -eu
cd "$(dirname "$0")/.."
file=$1

limit=12000000
size=$(stat --format %s "$file")
echo "size: $size bytes"
[ "$size" -lt "$limit" ] || { echo "larger than $limit bytes" >&2; exit 1; }

python3 - "$file" <<'PYTHON'
import struct, sys
# ELF-64, little endian: machine 183 is AArch64; program headers name the interpreter (3) and the dynamic section (2),
# whose entries name needed libraries (1).
data = open(sys.argv[1], "rb").read()
assert data[:6] == b"\x7fELF\x02\x01", "no ELF file of 64 bits"
kind, machine = struct.unpack_from("<HH", data, 16)
assert machine == 183, f"made for machine {machine}, not for AArch64"
offset, = struct.unpack_from("<Q", data, 32)
size, count = struct.unpack_from("<HH", data, 54)
headers = [struct.unpack_from("<IIQQQQ", data, offset + size * i) for i in range(count)]
assert not any(header[0] == 3 for header in headers), "it asks for an interpreter"
for header in headers:
    if header[0] == 2:
        for at in range(header[2], header[2] + header[5], 16):
            tag, value = struct.unpack_from("<qQ", data, at)
            if tag == 0:
                break
            assert tag != 1, "it needs a shared library"
print("static" + ("-pie" if kind == 3 else "") + ": no interpreter, no shared library")
PYTHON

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
