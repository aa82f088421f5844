#!/bin/sh
# What takes too long for .ci/run, or needs more than it: other CPUs under emulation, packages, a booted system, a container image, CUDA. Run it before
# a release, after .ci/run. Needs root on Debian, x86-64; half an hour on two cores.
set -eu
cd "$(dirname "$0")/.."
start=$(date +%s)

step() {
    printf '\n==== %s (%s s)\n' "$1" "$(($(date +%s) - start))"
}

step "the binary for 64-bit ARM"
scripts/build-aarch64.sh
scripts/check-aarch64.sh target-aarch64/aarch64-unknown-linux-gnu/release/kinglet

step "tests on 64-bit ARM"
scripts/test-aarch64.sh

step "older x86-64 CPUs"
[ -e target/x86_64-unknown-linux-gnu/release/kinglet ] || cargo build --release
scripts/test-x86-dispatch.sh

step "packages"
scripts/package.sh target/packages amd64=target/x86_64-unknown-linux-gnu/release/kinglet \
    arm64=target-aarch64/aarch64-unknown-linux-gnu/release/kinglet

# Each of these says itself what it needs.
for optional in scripts/systemd-test.sh scripts/container-test.sh scripts/check-cuda.sh; do
    if [ -x "$optional" ]; then
        step "$optional"
        "$optional"
    fi
done
step "done"
