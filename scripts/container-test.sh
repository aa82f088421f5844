#!/bin/sh
# Builds the image of packaging/Containerfile, runs a container of it with its own user, and its health check in that
# container; asks it for a prediction.
#   scripts/container-test.sh [BINARY]     without one, the release build
# Needs root and buildah (apt-get install buildah): no daemon, no network, nothing is kept. Takes some seconds.
set -eu
[ $# -eq 0 ] || set -- "$(realpath "$1")"
cd "$(dirname "$0")/.."
binary=${1:-target/x86_64-unknown-linux-gnu/release/kinglet}

skip() {
    echo "SKIPPED: the container image: $1" >&2
    exit 0
}
[ "$(id -u)" -eq 0 ] || skip "it needs root"
command -v buildah >/dev/null || skip "it needs buildah: apt-get install buildah"

work=$(mktemp -d)
server=
trap '[ -z "$server" ] || kill "$server" 2>/dev/null; rm -rf "$work"' EXIT
trap 'exit 1' INT TERM
# An image of one file needs no overlay; without one, it works inside of other containers, too.
images() {
    command=$1
    shift
    buildah --root "$work/store" --runroot "$work/run" --storage-driver vfs "$command" "$@"
}

mkdir "$work/context"
cp "$binary" "$work/context/kinglet"
images bud --quiet --isolation chroot --format docker --file packaging/Containerfile --tag kinglet:test \
    --build-arg BINARY=kinglet "$work/context" >/dev/null
images inspect --type image kinglet:test >"$work/image.json"
# What the image says of itself: user, health check, and the words of its command.
python3 - "$work/image.json" >"$work/command" <<'PYTHON'
import json, sys
config = json.load(open(sys.argv[1]))["Docker"]["config"]
assert config["User"] == "65532:65532", config
assert config["Healthcheck"]["Test"] == ["CMD", "/kinglet", "health"], config
print(*config["Entrypoint"], *config["Cmd"])
PYTHON

container=$(images from kinglet:test)
port=$(python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')
in_container() {
    images run --isolation chroot --env KINGLET_HTTP_PORT="$port" "$container" -- "$@"
}
# `buildah run` does not take the image's command by itself.
# shellcheck disable=SC2046 # words without blanks
in_container $(cat "$work/command") >"$work/log" 2>&1 &
tries=0
until in_container /kinglet health >"$work/health" 2>&1; do
    tries=$((tries + 1))
    [ "$tries" -lt 50 ] || { cat "$work/log" "$work/health" >&2; exit 1; }
    sleep 0.1
done
cat "$work/health"
server=$(python3 - "$port" <<'PYTHON'
# The process that listens on the port: the runner in between passes no signals on.
import os, sys
wanted = {line.split()[9] for line in open("/proc/net/tcp").readlines()[1:] if line.split()[1].endswith(f":{int(sys.argv[1]):04X}") and line.split()[3] == "0A"}
for process in filter(str.isdigit, os.listdir("/proc")):
    try:
        files = {os.readlink(f"/proc/{process}/fd/{file}") for file in os.listdir(f"/proc/{process}/fd")}
        name = open(f"/proc/{process}/cmdline").read().split("\0")[0]
    except OSError:
        continue
    if name == "/kinglet" and files & {f"socket:[{inode}]" for inode in wanted}:
        print(process)
        break
PYTHON
)
[ "$(awk '/^Uid:/ { print $2 }' "/proc/$server/status")" = 65532 ] || { echo "the container runs as another user" >&2; exit 1; }
said=$(curl --silent --fail --data '{"instances": [1.0, 2.0, 5.0]}' "http://127.0.0.1:$port/v1/models/half_plus_three:predict")
echo "$said" | tr -d ' \n' | grep -q '\[3.5,4.0,5.5\]' || { echo "it answers $said" >&2; exit 1; }
kill "$server"
wait
server=
echo "the image was built, runs as 65532, is healthy and answers"
