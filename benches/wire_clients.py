"""The clients of benches/wire.sh that no load generator can play.

    wire_clients.py message MODEL COUNT             a gRPC predict message of COUNT floats, for h2load
    wire_clients.py crowd PORT PID PREDICT_PATH     idle, slow and silent clients beside one that behaves
    wire_clients.py grpcio PORT MODEL               what a Python client measures, also of a grpcio server that does
                                                    nothing; skipped without grpcio
"""

import concurrent.futures
import multiprocessing
import os
import select
import socket
import statistics
import struct
import subprocess
import sys
import time

UNLIMITED = [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)]


def field(number, payload):
    length, size = len(payload), b""
    while length > 127:
        size += bytes([length & 127 | 128])
        length >>= 7
    return bytes([number << 3 | 2]) + size + bytes([length]) + payload


def varint(value):
    text = b""
    while value > 127:
        text += bytes([value & 127 | 128])
        value >>= 7
    return text + bytes([value])


def predict_request(model, count):
    shape = field(2, field(2, b"\x08" + varint(count)))
    tensor = b"\x08\x01" + shape + field(4, struct.pack("<f", 1.0) * count)
    return field(1, field(1, model.encode())) + field(2, field(1, b"x") + field(2, tensor))


def resident(pid):
    with open(f"/proc/{pid}/status") as status:
        return next(int(line.split()[1]) for line in status if line.startswith("VmRSS")) / 1024


def row(*cells):
    print("|", " | ".join(str(cell) for cell in cells), "|", flush=True)


def probe(port, path, seconds):
    """Median and 99th percentile, in milliseconds, of a client that behaves, on 4 connections."""
    body = b'{"instances": [1.0, 2.0, 5.0]}'
    request = b"POST %s HTTP/1.1\r\nHost: h\r\nContent-Length: %d\r\n\r\n%s" % (path.encode(), len(body), body)
    peers = [socket.create_connection(("127.0.0.1", port)) for _ in range(4)]
    times, end = [], time.time() + seconds
    while time.time() < end:
        for peer in peers:
            start = time.perf_counter()
            peer.sendall(request)
            assert peer.recv(4096).startswith(b"HTTP/1.1 200")
            times.append(time.perf_counter() - start)
        time.sleep(0.001)
    times.sort()
    return times[len(times) // 2] * 1000, times[int(len(times) * 0.99)] * 1000


def beside(port, path, seconds, each=lambda: None):
    """The probe in a process of its own, so that it does not wait for what this one does meanwhile."""
    with multiprocessing.get_context("fork").Pool(1) as pool:
        running = pool.apply_async(probe, (port, path, seconds))
        while not running.ready():
            each()
            time.sleep(0.1)
        return running.get()


def crowd(port, pid, path):
    connect = lambda: socket.create_connection(("127.0.0.1", port))
    p50, p99 = beside(port, path, 4)
    row("kinglet, 4 quiet connections", "", f"{p50:.2f}ms", f"{p99:.2f}ms")

    before = resident(pid)
    peers = [connect() for _ in range(10_000)]
    time.sleep(1)
    more = resident(pid) - before
    p50, p99 = beside(port, path, 4)
    row(f"the same beside 10,000 idle connections ({more:.1f} MB more RSS)", "", f"{p50:.2f}ms", f"{p99:.2f}ms")
    for peer in peers:
        peer.close()

    # Bodies that come by single bytes, fast enough to be let live for these seconds.
    peers = [connect() for _ in range(500)]
    for peer in peers:
        peer.sendall(b"POST %s HTTP/1.1\r\nHost: h\r\nContent-Length: 100000\r\n\r\n" % path.encode())

    def dribble():
        for peer in peers:
            peer.send(b" ")

    p50, p99 = beside(port, path, 4, dribble)
    row("the same beside 500 slow senders", "", f"{p50:.2f}ms", f"{p99:.2f}ms")
    for peer in peers:
        peer.close()

    # Answers of a megabyte that are taken by single bytes.
    body = b'{"instances": [%s]}' % b",".join([b"1.5"] * 100_000)
    peers = []
    for _ in range(500):
        peer = socket.socket()
        peer.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        peer.connect(("127.0.0.1", port))
        peer.sendall(b"POST %s HTTP/1.1\r\nHost: h\r\nContent-Length: %d\r\n\r\n" % (path.encode(), len(body)) + body)
        peers.append(peer)

    # Making 500 answers takes its time; what they cost while nobody takes them is the question.
    for peer in peers:
        select.select([peer], [], [], 60)

    def sip():
        for peer in peers:
            peer.recv(1)

    p50, p99 = beside(port, path, 4, sip)
    row(f"the same beside 500 slow readers ({resident(pid):.0f} MB RSS)", "", f"{p50:.2f}ms", f"{p99:.2f}ms")
    for peer in peers:
        peer.close()
    time.sleep(1)
    row("afterwards", f"{resident(pid):.0f} MB RSS", "", "")


def calls_one_by_one(grpc, name, port, sizes):
    with grpc.insecure_channel(f"127.0.0.1:{port}", UNLIMITED) as channel:
        predict = channel.unary_unary("/tensorflow.serving.PredictionService/Predict")
        for message, calls in sizes:
            times, size = [], 0
            for _ in range(calls):
                start = time.perf_counter()
                size = len(predict(message, timeout=30))
                times.append(time.perf_counter() - start)
            median = statistics.median(times)
            rate = (len(message) + size) / median / 1e6
            tail = sorted(times)[int(calls * 0.99)]
            label = f"{name}, grpcio, {calls} calls one after the other, {len(message)} bytes in, {size} out"
            each = f"{rate:.0f} MB/s" if len(message) > 1000 else int(1 / median)
            row(label, each, f"{median * 1000:.3f}ms", f"{tail * 1000:.3f}ms")


def grpcio(port, model):
    try:
        import grpc
    except ImportError:
        print("SKIPPED: grpcio is not installed")
        return
    sizes = [(predict_request(model, count), calls) for count, calls in ((3, 10_000), (150_000, 300), (250_000, 300))]
    calls_one_by_one(grpc, "kinglet", port, sizes)
    peer = subprocess.Popen([sys.executable, __file__, "echo"], stdout=subprocess.PIPE, text=True)
    try:
        calls_one_by_one(grpc, "grpcio's own server, an echo", int(peer.stdout.readline()), sizes)
    finally:
        peer.terminate()
        peer.wait()


def echo():
    """A grpcio server that answers each call with its own message; prints its port."""
    import grpc

    class Echo(grpc.GenericRpcHandler):
        def service(self, _):
            return grpc.unary_unary_rpc_method_handler(lambda message, _: message)

    server = grpc.server(concurrent.futures.ThreadPoolExecutor(2), [Echo()], options=UNLIMITED)
    print(server.add_insecure_port("127.0.0.1:0"), flush=True)
    server.start()
    server.wait_for_termination()


def main():
    command, *rest = sys.argv[1:]
    if command == "message":
        message = predict_request(rest[0], int(rest[1]))
        os.write(1, b"\0" + struct.pack(">I", len(message)) + message)
    elif command == "crowd":
        crowd(int(rest[0]), int(rest[1]), rest[2])
    elif command == "echo":
        echo()
    else:
        grpcio(int(rest[0]), rest[1])


main()
