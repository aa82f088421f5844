#!/usr/bin/env python3
"""Abuses a wire_echo server and measures what that does to a client that behaves.

usage: wire_abuse.py PATH_TO_WIRE_ECHO        (standard library only; Linux)

Each attack runs while a well-behaved client goes on; the server must survive, answer it, and give the memory
back. Prints a table; exits with 1 if anything failed.
"""
import os
import resource
import socket
import struct
import subprocess
import sys
import threading
import time

PORT = 8690
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
GET = b"GET / HTTP/1.1\r\nHost: h\r\n\r\n"


def frame(kind, flags, stream, payload=b""):
    return struct.pack(">I", len(payload))[1:] + bytes([kind, flags]) + struct.pack(">I", stream) + payload


SETTINGS = frame(4, 0, 0)
BLOCK = b"\x82\x86\x84\x41\x01h"  # GET http / with the authority h


def connect(timeout=10):
    peer = socket.create_connection(("127.0.0.1", PORT), timeout=timeout)
    peer.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return peer


def rss(pid):
    for line in open(f"/proc/{pid}/status"):
        if line.startswith("VmRSS"):
            return int(line.split()[1]) / 1024
    return 0.0


class Victim(threading.Thread):
    """Sends one request after the other over one connection, reconnecting if it has to."""

    def __init__(self):
        super().__init__(daemon=True)
        self.times, self.failures, self.running = [], 0, True

    def run(self):
        peer = None
        while self.running:
            start = time.perf_counter()
            try:
                peer = peer or connect()
                peer.sendall(GET)
                if not peer.recv(4096).startswith(b"HTTP/1.1 200"):
                    raise OSError("refused")
            except OSError:
                self.failures += 1
                peer = None
            self.times.append(time.perf_counter() - start)
            time.sleep(0.001)

    def finish(self):
        self.running = False
        self.join()
        times = sorted(self.times)
        return len(times), self.failures, times[int(len(times) * 0.99)] * 1000


def drain(peer):
    """Reads until the server ends the connection; False if it does not."""
    peer.settimeout(15)
    try:
        while peer.recv(65536):
            pass
    except TimeoutError:
        return False
    except OSError:
        pass
    return True


def flood(payload, start=SETTINGS):
    """Sends `payload` for as long as the server stands it; it has to end that."""

    def attack(server):
        peer = connect()
        peer.sendall(PREFACE + start)
        try:
            for _ in range(20000):
                peer.sendall(payload)
        except OSError:
            return True
        return drain(peer)

    return attack


def rapid_reset(server):
    peer = connect()
    peer.sendall(PREFACE + SETTINGS)
    try:
        for stream in range(1, 200_000, 2):
            peer.sendall(frame(1, 5, stream, BLOCK) + frame(3, 0, stream, struct.pack(">I", 8)))
    except OSError:
        return True
    return drain(peer)


def continuation_flood(server):
    return flood(frame(9, 0, 1, b""), SETTINGS + frame(1, 1, 1, BLOCK))(server)


def hpack_bomb(server):
    entry = b"\x40\x01a\x7f\xd1\x1e" + b"x" * 4048
    bomb = BLOCK + entry + b"\xbe" * 12_000
    ends = 0
    for _ in range(50):
        peer = connect()
        for stream in range(1, 40, 2):
            try:
                peer.sendall((PREFACE + SETTINGS if stream == 1 else b"") + frame(1, 5, stream, bomb))
            except OSError:
                break
        peer.close()
        ends += 1
    return ends == 50


def slow_heads(server):
    peers = [connect() for _ in range(500)]
    for _ in range(11):
        for peer in peers:
            try:
                peer.send(b"G")
            except OSError:
                pass
        time.sleep(1)
    return all(drain(peer) for peer in peers)


def slow_readers(server):
    peers = []
    for _ in range(500):
        peer = socket.socket()
        peer.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        peer.connect(("127.0.0.1", PORT))
        peer.sendall(b"GET /size/100000 HTTP/1.1\r\nHost: h\r\n\r\n")
        peers.append(peer)
    for _ in range(5):
        for peer in peers:
            peer.settimeout(1)
            try:
                peer.recv(1)
            except OSError:
                pass
        time.sleep(1)
    for peer in peers:
        peer.close()
    return True


def half_bodies(server):
    head = b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 60000000\r\n\r\n"
    peers = []
    for _ in range(40):
        peer = connect()
        try:
            peer.sendall(head + b"x" * 8_000_000)
        except OSError:
            pass
        peers.append(peer)
    print(f"  {40 * 8} MB held as halves of bodies: {rss(server.pid):.1f} MB RSS")
    for peer in peers:
        peer.close()
    return True


def window_games(server):
    """Asks for large answers and opens the window by single bytes."""
    peers = []
    for _ in range(50):
        peer = connect()
        peer.sendall(PREFACE + frame(4, 0, 0, struct.pack(">HI", 4, 0)))
        path = b"/size/1000000"
        block = b"\x82\x86\x04" + bytes([len(path)]) + path + b"\x41\x01h"
        for stream in range(1, 40, 2):
            peer.sendall(frame(1, 5, stream, block))
        peers.append(peer)
    for _ in range(3):
        for peer in peers:
            for stream in range(1, 40, 2):
                try:
                    peer.sendall(frame(8, 0, stream, struct.pack(">I", 1)))
                except OSError:
                    pass
        time.sleep(1)
    print(f"  50 x 20 answers of 1 MB that nobody takes: {rss(server.pid):.1f} MB RSS")
    for peer in peers:
        peer.close()
    return True


def descriptors(server):
    """Takes away the descriptors of the running server, then connects more often than it can accept."""
    used = len(os.listdir(f"/proc/{server.pid}/fd"))
    limits = resource.prlimit(server.pid, resource.RLIMIT_NOFILE)
    resource.prlimit(server.pid, resource.RLIMIT_NOFILE, (used + 20, limits[1]))
    peers = []
    for _ in range(200):
        try:
            peers.append(connect(1))
        except OSError:
            pass
    time.sleep(2)
    for peer in peers:
        peer.close()
    resource.prlimit(server.pid, resource.RLIMIT_NOFILE, limits)
    time.sleep(1)
    answered = 0
    for _ in range(20):
        peer = connect()
        peer.sendall(GET)
        answered += peer.recv(100).startswith(b"HTTP/1.1 200")
    return answered == 20


def idle_connections(server):
    count = min(10_000, resource.getrlimit(resource.RLIMIT_NOFILE)[0] - 100)
    before = rss(server.pid)
    peers = []
    for _ in range(count):
        peers.append(connect())
    time.sleep(1)
    print(f"  {count} idle connections: {rss(server.pid) - before:.1f} MB more RSS")
    for peer in peers:
        peer.close()
    return rss(server.pid) - before < 15


ATTACKS = [
    ("idle connections", idle_connections),
    ("rapid reset", rapid_reset),
    ("CONTINUATION flood", continuation_flood),
    ("HPACK bombs", hpack_bomb),
    ("PING flood", flood(frame(6, 0, 0, b"12345678") * 100)),
    ("SETTINGS flood", flood(SETTINGS * 100)),
    ("empty DATA flood", flood(frame(0, 0, 1) * 100, SETTINGS + frame(1, 4, 1, b"\x83\x86\x84\x41\x01h"))),
    ("PRIORITY flood", flood(frame(2, 0, 3, b"\0\0\0\0\1") * 100)),
    ("window games", window_games),
    ("500 slow heads", slow_heads),
    ("500 slow readers", slow_readers),
    ("halves of bodies", half_bodies),
    ("descriptors run out", descriptors),
]


def main():
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    command = [sys.argv[1], f"127.0.0.1:{PORT}", "--connections", "20000"]
    server = subprocess.Popen(command, stderr=subprocess.DEVNULL)
    failed = []
    try:
        time.sleep(0.5)
        victim = Victim()
        victim.start()
        time.sleep(2)
        calls, failures, p99 = victim.finish()
        print(f"quiet: {calls} calls, p99 {p99:.2f} ms, {rss(server.pid):.1f} MB RSS")
        for name, attack in ATTACKS:
            victim = Victim()
            victim.start()
            start = time.time()
            held = attack(server)
            while time.time() - start < 2:
                time.sleep(0.1)
            calls, failures, p99 = victim.finish()
            # Where descriptors run out, one refusal is in order.
            ok = held and server.poll() is None and (failures == 0 or attack is descriptors)
            print(f"{'ok  ' if ok else 'FAIL'} {name}: {calls} calls of others, {failures} failed, "
                  f"p99 {p99:.2f} ms, {rss(server.pid):.1f} MB RSS after {time.time() - start:.1f} s", flush=True)
            if not ok:
                failed.append(name)
        time.sleep(1)
        print(f"at the end: {rss(server.pid):.1f} MB RSS, {len(os.listdir(f'/proc/{server.pid}/fd'))} descriptors")
    finally:
        server.kill()
    sys.exit(1 if failed else 0)


main()
