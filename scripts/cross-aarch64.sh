# Sourced by scripts that build for aarch64: puts a compiler with the target's standard library under
# .cross (or $KINGLET_CROSS) and sets the variables with which cargo uses it. Everything comes from Debian:
# the cross gcc and the emulator are installed where root allows it; the compiler is unpacked only, as it would
# stand in rustup's way. Which mirror is asked is the machine's own configuration.

cross=${KINGLET_CROSS:-$PWD/.cross}
target=aarch64-unknown-linux-gnu

# The private view of the machine's package sources, with arm64 as a second architecture.
private_apt() {
    command=$1
    shift
    "$command" -o Dir::State="$cross/apt/state" -o Dir::State::status="$cross/apt/status" \
        -o Dir::Cache="$cross/apt/cache" -o APT::Sandbox::User= -o APT::Architecture=amd64 \
        -o APT::Architectures::=amd64 -o APT::Architectures::=arm64 "$@"
}

# The package that `package` depends on and whose name matches `pattern`.
dependency() {
    private_apt apt-cache depends --no-recommends --no-suggests "$1" |
        sed -n "s/^ *Depends: <*\($2\)>*\$/\1/p" | head -n 1
}

fetch_compiler() {
    rm -rf "$cross"
    mkdir -p "$cross/apt/state/lists/partial" "$cross/apt/cache/archives/partial" "$cross/debs" "$cross/bin"
    : >"$cross/apt/status"
    private_apt apt-get -qq update
    version=$(private_apt apt-cache policy rustc-web | sed -n 's/^ *Candidate: //p')
    std=$(dependency libstd-rust-web-dev:amd64 'libstd-rust-web-[0-9][^ ]*')
    llvm=$(dependency "$std:amd64" 'libllvm[^ ]*')
    for package in "$version" "$std" "$llvm"; do
        [ -n "$package" ] || { echo "the package sources have no complete rustc-web" >&2; exit 1; }
    done
    # Libraries of one compiler fit no other: all versions must be equal.
    (cd "$cross/debs" && private_apt apt-get -qq download "rustc-web:amd64=$version" "$std:amd64=$version" \
        "libstd-rust-web-dev:amd64=$version" "libstd-rust-web-dev:arm64=$version" "$llvm:amd64")
    for each in "$cross/debs"/*.deb; do
        dpkg-deb --extract "$each" "$cross/root"
    done
    rm -rf "$cross/debs" "$cross/apt"
    cat >"$cross/bin/rustc" <<'WRAPPER'
#!/bin/sh
root=$(dirname "$(dirname "$0")")/root/usr
llvm=$(echo "$root"/lib/llvm-*/lib)
LD_LIBRARY_PATH=$root/lib/x86_64-linux-gnu:$root/lib:$llvm exec "$root/bin/rustc" "$@"
WRAPPER
    chmod +x "$cross/bin/rustc"
    "$cross/bin/rustc" --version >"$cross/.done"
}

# The cross gcc with the lld that rustup's toolchain brings along: it links faster, and makes the file smaller (build.rs).
# Without one, with the linker that gcc finds.
write_linker() {
    lld=$(env -u RUSTC rustc --print sysroot)/lib/rustlib/x86_64-unknown-linux-gnu/bin/gcc-ld
    [ -x "$lld/ld.lld" ] && use_lld="-B$lld -fuse-ld=lld" || use_lld=
    printf '#!/bin/sh\nexec aarch64-linux-gnu-gcc %s "$@"\n' "$use_lld" >"$cross/bin/linker"
    chmod +x "$cross/bin/linker"
}

case $(uname -m) in
x86_64)
    if ! command -v aarch64-linux-gnu-gcc >/dev/null || ! command -v qemu-aarch64-static >/dev/null; then
        [ "$(id -u)" -eq 0 ] || { echo "install gcc-aarch64-linux-gnu and qemu-user-static first" >&2; exit 1; }
        apt-get -qq update
        apt-get -qq install --yes --no-install-recommends gcc-aarch64-linux-gnu libc6-dev-arm64-cross \
            qemu-user-static >/dev/null
    fi
    [ -e "$cross/.done" ] || fetch_compiler
    write_linker
    export RUSTC="$cross/bin/rustc"
    export CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_LINKER="$cross/bin/linker"
    export CC_aarch64_unknown_linux_gnu=aarch64-linux-gnu-gcc
    ;;
aarch64) ;;
*)
    echo "cross builds start from x86-64" >&2
    exit 1
    ;;
esac
