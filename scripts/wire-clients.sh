#!/bin/sh
# Clients of other makes against examples/wire_echo, plain and over TLS on the same port. Not part of the gate: it
# takes some minutes and downloads clients. What is not installed is skipped, and said so.
#
# usage: scripts/wire-clients.sh [PATH_TO_WIRE_ECHO]
# KINGLET_WIRE_VENV is the Python environment to use or make (default: .venv-wire).
set -eu
cd "$(dirname "$0")/.."

echo_server=${1:-}
if [ -z "$echo_server" ]; then
    cargo build --quiet --release --example wire_echo
    echo_server=target/x86_64-unknown-linux-gnu/release/examples/wire_echo
fi
venv=${KINGLET_WIRE_VENV:-.venv-wire}
certificate=tests/fixtures/localhost.pem
work=$(mktemp -d)
"$echo_server" 127.0.0.1:18610 --tls $certificate tests/fixtures/localhost.key &
server=$!
trap 'kill $server; rm -rf "$work"' EXIT
trap 'exit 1' INT TERM
plain=http://127.0.0.1:18610
secure=https://localhost:18610
until curl --silent --output /dev/null $plain; do sleep 0.1; done

has() {
    command -v "$1" >/dev/null || { echo "SKIPPED: $1 is not installed" >&2; return 1; }
}

step() { printf '\n== %s\n' "$*"; }

step curl
dd if=/dev/urandom of="$work/body" bs=1M count=40 2>/dev/null
for protocol in --http1.0 --http1.1 --http2 --http2-prior-knowledge; do
    for url in $plain $secure; do
        case $protocol$url in --http2-prior-knowledgehttps*) continue ;; esac
        curl --silent --fail --cacert $certificate $protocol --data-binary @"$work/body" --output "$work/back" \
            --write-out "curl $protocol $url: HTTP/%{http_version}, 40 MB, %{http_code}\n" $url
        cmp "$work/body" "$work/back"
    done
done
# An upgrade to h2c is declined: the answer comes over HTTP/1.1, and the connection goes on.
curl --silent --http2 --output /dev/null --write-out "h2c upgrade: HTTP/%{http_version}, %{http_code}\n" $plain
curl --silent --fail -T - $plain <"$work/body" | cmp - "$work/body" && echo "curl: a chunked upload"

if has nghttp; then
    step nghttp
    nghttp --no-verify-peer --null-out --stat $plain/size/1000000 $plain/size/10 $secure/size/1000000 | tail -4
fi
if has h2load; then
    step h2load
    for url in $plain $secure; do
        h2load -t1 -c8 -m10 -n20000 $url/ | grep -E '^(finished|requests)'
        h2load -t1 -c4 -m4 -n200 -d "$work/body" $url/ | grep -E '^(finished|requests)' || true
        h2load --h1 -t1 -c8 -n20000 $url/ | grep -E '^(finished|requests)'
    done
fi

step "the rules of HTTP/2"
python3 tests/clients/http2_rules.py 18610 /size/10

step "Python: grpcio, httpx, h2"
[ -x "$venv/bin/python" ] || python3 -m venv "$venv"
"$venv/bin/python" -c "import grpc, httpx, h2" 2>/dev/null ||
    "$venv/bin/pip" --quiet --disable-pip-version-check install grpcio 'httpx[http2]'
"$venv/bin/python" tests/clients/wire_clients.py 18610
"$venv/bin/python" tests/clients/wire_clients.py 18610 $certificate

if has npm; then
    step grpc-js
    (cd tests/clients/node && npm install --silent --no-audit --no-fund)
    node tests/clients/node/client.js 127.0.0.1:18610
    node tests/clients/node/client.js localhost:18610 $certificate
fi

step tonic
cargo build --quiet --manifest-path tests/clients/tonic/Cargo.toml
tonic=tests/clients/tonic/target/x86_64-unknown-linux-gnu/debug/tonic-client
$tonic $plain
$tonic $secure $certificate

step "all well"
