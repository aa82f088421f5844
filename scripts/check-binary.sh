#!/bin/sh
# What "one static file" promises: no interpreter, no library, an empty root is enough; small, quick
# to start, modest when idle. Numbers are printed; only the size has a limit (scripts/check_static.py), as timing on
# a shared machine is no test.
set -eu
cd "$(dirname "$0")/.."
. scripts/server.sh

scripts/check_static.py "$binary" x86_64

if [ "$(id -u)" -eq 0 ] && command -v chroot >/dev/null; then
    mkdir "$work/root"
    cp "$binary" "$work/root/kinglet"
    chroot "$work/root" /kinglet --version
    echo "runs in an empty root"
else
    echo "SKIPPED: the empty root; chroot needs root" >&2
fi

# From exec to the first answered prediction, and memory when idle.
python3 - "$binary" <<'PYTHON'
import http.client, re, socket, subprocess, sys, time
def once():
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(2)]
    rest, grpc = (each.getsockname()[1] for each in sockets)
    for each in sockets:
        each.close()
    begin = time.perf_counter()
    server = subprocess.Popen(
        [sys.argv[1], "serve", f"--rest_api_port={rest}", f"--port={grpc}"],
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )
    try:
        while True:
            try:
                connection = http.client.HTTPConnection("127.0.0.1", rest, timeout=5)
                connection.request("POST", "/v1/models/half_plus_three:predict", '{"instances": [1.0]}')
                answer = connection.getresponse()
                body = answer.read()
                if answer.status == 200:
                    break
            except OSError:
                pass
            if server.poll() is not None or time.perf_counter() - begin > 30:
                sys.exit("the server does not answer")
            time.sleep(0.0005)
        took = time.perf_counter() - begin
        assert b"3.5" in body, body
        time.sleep(0.3)
        status = open(f"/proc/{server.pid}/status").read()
        return took, int(re.search(r"VmRSS:\s+(\d+)", status)[1])
    finally:
        server.terminate()
        server.wait()
runs = sorted(once() for _ in range(5))
print(f"first answer: {runs[2][0] * 1000:.0f} ms after exec (median of 5, best {runs[0][0] * 1000:.0f} ms)")
print(f"idle memory: {runs[2][1] / 1024:.1f} MiB resident")
PYTHON
