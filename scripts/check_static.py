#!/usr/bin/env python3
"""What "one static file" promises of the file itself: its size, the machine it is made for, no interpreter, no library.

Usage: scripts/check_static.py FILE x86_64|aarch64. The only place that knows the limit of the size.
"""

import struct
import sys

LIMIT = 12_000_000
# e_machine of the ELF header.
MACHINES = {"x86_64": 62, "aarch64": 183}
# Types of program headers, and of entries of the dynamic section.
INTERPRETER, DYNAMIC = 3, 2
END, NEEDED = 0, 1
POSITION_INDEPENDENT = 3


def main(path, machine):
    with open(path, "rb") as file:
        data = file.read()
    print(f"size: {len(data)} bytes")
    require(len(data) < LIMIT, f"larger than {LIMIT} bytes")
    require(data[:6] == b"\x7fELF\x02\x01", "no ELF file of 64 bits, little endian")
    kind, made_for = struct.unpack_from("<HH", data, 16)
    require(made_for == MACHINES[machine], f"made for machine {made_for}, not for {machine}")
    # rustc makes static-pie of this kind of target on x86-64 only.
    require(kind == POSITION_INDEPENDENT or machine == "aarch64", "not position independent")
    headers_at, = struct.unpack_from("<Q", data, 32)
    size, count = struct.unpack_from("<HH", data, 54)
    headers = [struct.unpack_from("<IIQQQQ", data, headers_at + size * index) for index in range(count)]
    require(all(header[0] != INTERPRETER for header in headers), "it asks for an interpreter")
    for header_kind, _, offset, _, _, length in headers:
        if header_kind == DYNAMIC:
            for tag, _ in struct.iter_unpack("<qQ", data[offset : offset + length]):
                if tag == END:
                    break
                require(tag != NEEDED, "it needs a shared library")
    print(f"{'static-pie' if kind == POSITION_INDEPENDENT else 'static'}: no interpreter, no shared library")


def require(condition, problem):
    if not condition:
        sys.exit(f"{sys.argv[1]}: {problem}")


if __name__ == "__main__":
    if len(sys.argv) != 3 or sys.argv[2] not in MACHINES:
        sys.exit(__doc__)
    main(*sys.argv[1:])
