#!/bin/sh
# Load on the wire, in one run with a tiny_http server as the baseline; prints a table of Markdown.
#
# usage: benches/wire.sh [SECONDS_PER_ROW]
# Needs wrk and h2load (Debian: wrk, nghttp2-client) and python3; with grpcio in $KINGLET_CLIENT_VENV the rows of
# grpcio are measured too. KINGLET_BIN is the binary under test, else the release build. Where other work runs on the
# machine, `chrt --rr 10 benches/wire.sh` keeps it from between the client and the server.
set -eu
cd "$(dirname "$0")/.."

seconds=${1:-5}
binary=${KINGLET_BIN:-target/x86_64-unknown-linux-gnu/release/kinglet}
python=${KINGLET_CLIENT_VENV:-.venv}/bin/python
[ -x "$python" ] || python=python3
work=$(mktemp -d)
started=
finish() {
    for each in $started; do kill "$each" 2>/dev/null || true; done
    rm -rf "$work"
}
trap finish EXIT
trap 'exit 1' INT TERM
ulimit -n "$(ulimit -Hn)"

[ -x benches/baseline/target/x86_64-unknown-linux-gnu/release/baseline ] ||
    cargo build --quiet --release --manifest-path benches/baseline/Cargo.toml
benches/baseline/target/x86_64-unknown-linux-gnu/release/baseline 127.0.0.1:18601 &
started="$started $!"

# Built-in half_plus_three does the same work where TensorFlow Serving's test models are absent.
model=${KINGLET_SHARED:-../shared}/models/tfs/saved_model_half_plus_two_cpu
name=half_plus_three
set -- --port=18500 --rest_api_port=18501 --max_connections=20000
if [ -d "$model" ]; then
    name=half_plus_two
    set -- "$@" --model_name=$name --model_base_path="$(realpath "$model")"
fi
"$binary" serve "$@" --grpc_max_receive_message_bytes=0 2>"$work/log" >&2 &
server=$!
started="$started $server"
until curl --silent --fail --output /dev/null http://127.0.0.1:18501/readyz; do
    kill -0 "$server" || { cat "$work/log" >&2; exit 1; }
    sleep 0.1
done

predict=/v1/models/$name:predict
call=/tensorflow.serving.PredictionService/Predict
printf '{"instances": [1.0, 2.0, 5.0]}' >"$work/json"
"$python" benches/wire_clients.py message "$name" 3 >"$work/message"
cat >"$work/post.lua" <<LUA
wrk.method = "POST"
wrk.body = '{"instances": [1.0, 2.0, 5.0]}'
wrk.headers["Content-Type"] = "application/json"
LUA

# What the answers say, before anything is counted.
curl --silent --fail -d @"$work/json" http://127.0.0.1:18501"$predict" | grep -q predictions

row() { printf '| %s | %s | %s | %s |\n' "$@"; }

http1() { # name port connections
    wrk -t1 -c"$3" -d"${seconds}s" --latency -s "$work/post.lua" "http://127.0.0.1:$2$predict" >"$work/out"
    row "$1, HTTP/1.1 JSON, $3 connections" "$(awk '/Requests\/sec/{printf "%d", $2}' "$work/out")" \
        "$(awk '$1 == "50%"{print $2}' "$work/out")" "$(awk '$1 == "99%"{print $2}' "$work/out")"
    grep -E 'Non-2xx|Socket errors' "$work/out" || true
}

percentile() { # file percent
    awk '{print $3}' "$1" | sort -n | awk -v p="$2" '{v[NR] = $1} END {i = int(NR * p / 100); print v[i < 1 ? 1 : i] / 1000 "ms"}'
}

h2() { # name connections streams [h2load options]
    label=$1 connections=$2 streams=$3
    shift 3
    rm -f "$work/times"
    h2load -t1 -c"$connections" -m"$streams" -D"$seconds" --warm-up-time=1 --log-file="$work/times" "$@" >"$work/out"
    row "$label" "$(awk '/^finished in/{print int($4)}' "$work/out")" \
        "$(percentile "$work/times" 50)" "$(percentile "$work/times" 99)"
    awk '/^requests:/ && $10 + $12 + $14 > 0 {print "  not all well: " $0}' "$work/out"
}

grpc() { # connections streams [h2load options]
    label="kinglet, gRPC, $1 x $2"
    connections=$1 streams=$2
    shift 2
    h2 "$label${1:+ ($*)}" "$connections" "$streams" "$@" -d "$work/message" -H 'content-type: application/grpc' -H 'te: trailers' \
        "http://127.0.0.1:18500$call"
}

row "server, protocol, load" "requests/s" "p50" "p99"
row --- --- --- ---
for connections in 1 16 64 256; do
    http1 tiny_http 18601 "$connections"
    http1 kinglet 18501 "$connections"
done
for connections in 1 16 64 256; do grpc "$connections" 1; done
grpc 16 10
h2 "kinglet, HTTP/1.1 JSON, 64 connections at 30,000/s" 64 1 --h1 --rps=468 -d "$work/json" \
    -H 'content-type: application/json' "http://127.0.0.1:18501$predict"
h2 "kinglet, gRPC, 16 x 10 at 25,000/s" 16 10 --rps=1562 -d "$work/message" \
    -H 'content-type: application/grpc' -H 'te: trailers' "http://127.0.0.1:18500$call"
"$python" benches/wire_clients.py crowd 18501 "$server" "$predict"
"$python" benches/wire_clients.py grpcio 18500 "$name"
