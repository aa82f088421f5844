#!/bin/sh
# Runs the kernels' tests and the first calls on x86-64 CPUs without what the build machine has, under emulation: Nehalem
# (SSE4.2, so the portable kernels) and Haswell (AVX2). An instruction that such a CPU has not ends the process
# with 132. The binary is $KINGLET_BIN, else the release build; the emulator knows no AVX-512.
set -eu
cd "$(dirname "$0")/.."

if ! command -v qemu-x86_64-static >/dev/null; then
    [ "$(id -u)" -eq 0 ] || { echo "install qemu-user-static first" >&2; exit 1; }
    apt-get -qq update
    apt-get -qq install --yes --no-install-recommends qemu-user-static >/dev/null
fi
binary=$(realpath "${KINGLET_BIN:-target/x86_64-unknown-linux-gnu/release/kinglet}")
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
trap 'exit 1' INT TERM

# Under emulation the compiler's time is won back many times over.
export CARGO_PROFILE_DEV_OPT_LEVEL="${CARGO_PROFILE_DEV_OPT_LEVEL:-1}"
# Off is what user programs do not see, and the emulator warns about.
haswell=Haswell,-pcid,-x2apic,-tsc-deadline,-hle,-invpcid,-rtm
for each in Nehalem:portable "$haswell:avx2"; do
    cpu=${each%:*} wanted=${each#*:}
    printf '\n== %s\n' "$cpu"
    printf '#!/bin/sh\nexec qemu-x86_64-static -cpu %s "%s" "$@"\n' "$cpu" "$binary" >"$work/$cpu"
    chmod +x "$work/$cpu"
    said=$("$work/$cpu" bench weights/digits/1 --iterations=1 --warm_up=1)
    echo "$said"
    echo "$said" | grep --quiet "threads, $wanted\$" || {
        echo "the CPU $cpu should get $wanted" >&2
        exit 1
    }
    CARGO_TARGET_X86_64_UNKNOWN_LINUX_GNU_RUNNER="qemu-x86_64-static -cpu $cpu" \
        cargo test --quiet --target-dir target-emulated --lib -- kernels::
    KINGLET_BIN=$work/$cpu scripts/smoke.sh
done
