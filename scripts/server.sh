# Sourced by scripts that need a running kinglet: start_server ARGUMENT... sets $rest and $grpc to
# free ports of 127.0.0.1 and waits until $ready_path, a model's status, says that it is there. Servers are stopped at exit.

binary=${KINGLET_BIN:-target/x86_64-unknown-linux-gnu/release/kinglet}
work=$(mktemp -d)
servers=
trap 'stop_servers; rm -rf "$work"' EXIT
trap 'exit 1' INT TERM

free_ports() {
    python3 - "$1" <<'PYTHON'
import socket, sys
sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(int(sys.argv[1]))]
print(*(each.getsockname()[1] for each in sockets))
PYTHON
}

start_server() {
    ports=$(free_ports 2)
    rest=${ports% *}
    grpc=${ports#* }
    "$binary" serve --rest_api_port="$rest" --port="$grpc" "$@" >"$work/out" 2>"$work/log" &
    server=$!
    servers="$servers $server"
    tries=0
    until curl --silent --fail "http://127.0.0.1:$rest${ready_path:?}" | grep --quiet '"AVAILABLE"'; do
        tries=$((tries + 1))
        if [ "$tries" -gt 300 ] || ! kill -0 "$server" 2>/dev/null; then
            echo "the server does not answer $ready_path:" >&2
            cat "$work/log" >&2
            exit 1
        fi
        sleep 0.1
    done
}

stop_servers() {
    for each in $servers; do
        kill "$each" 2>/dev/null || true
        wait "$each" 2>/dev/null || true
    done
    servers=
}
