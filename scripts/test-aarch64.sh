#!/bin/sh
# Runs the tests on 64-bit ARM, emulated on x86-64 CPU by CPU, so that each instruction set and the choice among them
# is executed: cortex-a53 and cortex-a72 (NEON), cortex-a76 (with dot products and fp16), max (with i8mm).
# Usage: scripts/test-aarch64.sh [CPU...]. On an ARM machine everything runs once, on its own CPU.
# KINGLET_CLIENT_VENV names a folder with the Python clients (scripts/client-venv.sh makes it).
set -eu
cd "$(dirname "$0")/.."
. scripts/cross-aarch64.sh

step() {
    printf '\n== %s (%s s)\n' "$1" "$(($(date +%s) - start))"
}
start=$(date +%s)
venv=${KINGLET_CLIENT_VENV:-.venv}
scripts/client-venv.sh
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
trap 'exit 1' INT TERM

if [ "$(uname -m)" = aarch64 ]; then
    set -- native
elif [ $# -eq 0 ]; then
    set -- max cortex-a76 cortex-a72 cortex-a53
fi

step "build"
# Under emulation the compiler's time is won back many times over.
export CARGO_PROFILE_DEV_OPT_LEVEL="${CARGO_PROFILE_DEV_OPT_LEVEL:-1}"
cargo_for() {
    command=$1
    shift
    cargo "$command" --quiet --target "$target" --target-dir target-aarch64 "$@"
}
cargo_for build --bin kinglet
# Left out: tests of the source, of candle, of damaged files (minutes), and of the binary, which cannot start emulated ones.
integration=
for file in tests/*.rs; do
    name=$(basename "$file" .rs)
    case $name in
    floors | safety | operators | candle | bundle | onnx_hostile | saved_model_hostile | wire_fuzz | local_commands) ;;
    *) integration="$integration --test=$name" ;;
    esac
done
# shellcheck disable=SC2086
cargo_for test --no-run --lib $integration
binary=$PWD/target-aarch64/$target/debug/kinglet

# The instruction set that a CPU must get.
wanted() {
    case $1 in
    max) echo 'neoni8mm$' ;;
    cortex-a76 | neoverse-n1) echo 'neondot$' ;;
    cortex-*) echo 'neon$' ;;
    esac
}

first=$1
for cpu; do
    run=$work/$cpu
    if [ "$cpu" = native ]; then
        ln -s "$binary" "$run"
    else
        printf '#!/bin/sh\nexec qemu-aarch64-static -cpu %s "%s" "$@"\n' "$cpu" "$binary" >"$run"
        chmod +x "$run"
        export CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_RUNNER="qemu-aarch64-static -cpu $cpu"
    fi

    step "$cpu: which instruction set runs"
    model=weights/digits/1
    said=$("$run" bench "$model" --iterations=1 --warm_up=1)
    echo "$said"
    echo "$said" | grep --quiet "threads, $(wanted "$cpu")" || {
        echo "the CPU $cpu should get $(wanted "$cpu")" >&2
        exit 1
    }

    if [ "$cpu" = "$first" ]; then
        # All that is written in Rust, on the CPU that has every instruction set.
        step "$cpu: unit tests"
        cargo_for test --lib
        step "$cpu: integration tests"
        # shellcheck disable=SC2086
        cargo_for test $integration
    else
        step "$cpu: unit tests of the kernels and what is built on them"
        cargo_for test --lib -- kernels:: ops:: formats::built_in
    fi

    step "$cpu: clients of REST and gRPC"
    KINGLET_BIN=$run "$venv/bin/python" -m unittest discover --start-directory tests/clients
done
step "done"
