#!/bin/sh
# Builds the static binary for 64-bit ARM (Raspberry Pi 3 and later, Jetson, servers) on x86-64.
# Usage: scripts/build-aarch64.sh [--profile release|quick|dev]; the file's path is printed last.
set -eu
cd "$(dirname "$0")/.."

profile=release
case $# in
0) ;;
2) [ "$1" = --profile ] || { echo "usage: $0 [--profile NAME]" >&2; exit 2; } && profile=$2 ;;
*) echo "usage: $0 [--profile NAME]" >&2; exit 2 ;;
esac

. scripts/cross-aarch64.sh
cargo build --profile "$profile" --bin kinglet --target "$target" --target-dir target-aarch64

[ "$profile" = dev ] && profile=debug
echo "target-aarch64/$target/$profile/kinglet"
