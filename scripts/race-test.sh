#!/bin/sh
# Looks for data races with ThreadSanitizer: the tests of the thread pool, of the kernels that share work among threads and
# of graphs, and small models that several callers run on one pool at once (tests/race). Every report fails it.
# The sanitizer's part of the compiler is switched on for a stable one; the standard library is the one that is there, so
# what happens inside of it is not seen: tests/race/suppressions names what looks like a race for that reason, and tests run
# one after the other, for their harness hands results over by the library. Arguments choose other tests of the kernels.
set -eu
cd "$(dirname "$0")/.."

target=x86_64-unknown-linux-gnu
library=$(rustc --print sysroot)/lib/rustlib/$target/lib
if ! ls "$library"/librustc*_rt.tsan.a >/dev/null 2>&1; then
    echo "SKIPPED: the compiler comes without ThreadSanitizer ($library)" >&2
    exit 0
fi
export RUSTC_BOOTSTRAP=1 CARGO_TARGET_DIR=$PWD/target-race
# A flag of the product's configuration (a static C library) would not go with the sanitizer: this takes its place.
export CARGO_ENCODED_RUSTFLAGS="-Zsanitizer=thread$(printf '\037')-Cunsafe-allow-abi-mismatch=sanitizer"
export TSAN_OPTIONS="halt_on_error=0 exitcode=66 suppressions=$PWD/tests/race/suppressions ${TSAN_OPTIONS:-}"
run() {
    test=$1
    shift
    cargo test --manifest-path tests/race/Cargo.toml --target "$target" --quiet \
        --test "$test" -- --test-threads=1 "$@"
}
[ $# -gt 0 ] || set -- kernels::threads kernels::conv kernels::gemm kernels::product kernels::depthwise \
    kernels::attention kernels::quantise kernels::pool kernels::winograd kernels::broadcast
run kernels "$@"
run models
