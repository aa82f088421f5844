"""The rules of HTTP/2 that an outside conformance suite looks at, played against a server on a plain port that has its
defaults: every case opens a connection, sends frames and looks at what comes back. Needs no package.

    http2_rules.py PORT [PATH [CASE]]

A GET and a POST of PATH, else of `/`, have to be answered, with any status and a body of at least four bytes.
"""

import socket
import struct
import sys

PORT = int(sys.argv[1])
TARGET = sys.argv[2] if len(sys.argv) > 2 else "/"
TIMEOUT = 3

DATA, HEADERS, PRIORITY, RST_STREAM, SETTINGS, PUSH_PROMISE, PING, GOAWAY, WINDOW_UPDATE, CONTINUATION = range(10)
END_STREAM = ACK = 1
END_HEADERS, PADDED, PRIORITISED = 4, 8, 32
NO_ERROR, PROTOCOL, INTERNAL, FLOW_CONTROL, _, STREAM_CLOSED, FRAME_SIZE, REFUSED, CANCEL, COMPRESSION = range(10)
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
LARGEST = 2**31 - 1


def frame(kind, flags, stream, payload=b"", length=None):
    length = len(payload) if length is None else length
    return struct.pack(">I", length)[1:] + bytes([kind, flags]) + struct.pack(">I", stream) + payload


def text(value):
    assert len(value) < 127
    return bytes([len(value)]) + value


def literal(name, value, form=0):
    return bytes([form]) + text(name.encode()) + text(value.encode())


def block(*fields):
    return b"".join(literal(name, value) for name, value in fields)


METHOD, SCHEME, PATH, HOST = (":method", "GET"), (":scheme", "http"), (":path", TARGET), (":authority", f"127.0.0.1:{PORT}")
POST = (":method", "POST")
GET_LIST = block(METHOD, SCHEME, PATH, HOST)
POST_LIST = block(POST, SCHEME, PATH, HOST)
WHOLE = END_STREAM | END_HEADERS


def get(stream=1, *more):
    return frame(HEADERS, WHOLE, stream, GET_LIST + block(*more))


def post(stream=1, *more):
    return frame(HEADERS, END_HEADERS, stream, POST_LIST + block(*more))


def listed(*fields):
    return frame(HEADERS, WHOLE, 1, block(*fields))


def packed(more):
    """A GET whose block goes on with these bytes."""
    return frame(HEADERS, WHOLE, 1, GET_LIST + more)


def data(payload, stream=1, end=True):
    return frame(DATA, END_STREAM if end else 0, stream, payload)


def settings(*values):
    return frame(SETTINGS, 0, 0, b"".join(struct.pack(">HI", *value) for value in values))


def window(stream, increment):
    return frame(WINDOW_UPDATE, 0, stream, struct.pack(">I", increment))


def reset(stream, code=CANCEL):
    return frame(RST_STREAM, 0, stream, struct.pack(">I", code))


def priority(stream, dependency, weight=15):
    return frame(PRIORITY, 0, stream, struct.pack(">IB", dependency, weight))


def prioritised(dependency, weight=15, stream=1):
    payload = struct.pack(">IB", dependency, weight) + GET_LIST
    return frame(HEADERS, WHOLE | PRIORITISED, stream, payload)


MARK = b"rules!!!"
MARK_PING = frame(PING, 0, 0, MARK)


class Peer:
    """A client that reads frames; a connection that ends reads as `None`."""

    def __init__(self, opening=PREFACE + settings()):
        self.socket = socket.create_connection(("127.0.0.1", PORT))
        self.socket.settimeout(TIMEOUT)
        self.buffer = b""
        self.settings = {}
        if opening:
            self.send(opening)
            seen = set()
            while len(seen) < 2:
                kind, flags, _, payload = self.frame()
                if kind != SETTINGS:
                    assert seen and kind == WINDOW_UPDATE, kind
                    continue
                seen.add(flags & ACK)
                if not flags & ACK:
                    self.settings = dict(struct.iter_unpack(">HI", payload))
                    self.send(frame(SETTINGS, ACK, 0))

    def send(self, *frames):
        try:
            self.socket.sendall(b"".join(frames))
        except (BrokenPipeError, ConnectionResetError):
            pass

    def exactly(self, count):
        while len(self.buffer) < count:
            more = self.socket.recv(65_536)
            if not more:
                raise EOFError
            self.buffer += more
        taken, self.buffer = self.buffer[:count], self.buffer[count:]
        return taken

    def frame(self):
        try:
            head = self.exactly(9)
            length = int.from_bytes(head[:3], "big")
            assert length <= 16_384, f"a frame of {length} bytes"
            return head[3], head[4], int.from_bytes(head[5:], "big"), self.exactly(length)
        except (EOFError, ConnectionResetError):
            return None

    def frames(self):
        while (found := self.frame()) is not None:
            yield found


# What is expected. Each takes a peer that has sent its frames, and fails by an exception.


def connection_error(*codes):
    def check(peer):
        for kind, _, _, payload in peer.frames():
            if kind == GOAWAY:
                found = int.from_bytes(payload[4:8], "big")
                assert found in codes, f"GOAWAY {found}"
        # And the connection is closed.

    return check


def connection_error_told(code):
    def check(peer):
        told = [int.from_bytes(payload[4:8], "big") for kind, _, _, payload in peer.frames() if kind == GOAWAY]
        assert told == [code], told

    return check


def stream_error(*codes):
    def check(peer):
        for kind, _, _, payload in peer.frames():
            if kind == GOAWAY or kind == RST_STREAM:
                found = int.from_bytes(payload[4:8] if kind == GOAWAY else payload, "big")
                assert found in codes, f"kind {kind}: {found}"
                return

    return check


def answered(peer):
    for kind, _, _, _ in peer.frames():
        assert kind not in (RST_STREAM, GOAWAY), kind
        if kind == HEADERS:
            return
    raise AssertionError("closed without an answer")


def alive(peer):
    """A PING is answered; what else comes does not matter."""
    peer.send(MARK_PING)
    for kind, flags, _, payload in peer.frames():
        if kind == PING:
            assert flags & ACK and payload == MARK
            return
        assert kind != GOAWAY, payload
    raise AssertionError("closed")


def alive_or_closed(peer):
    peer.send(MARK_PING)
    for kind, _, _, _ in peer.frames():
        if kind == PING:
            return


def first_data(length):
    def check(peer):
        for kind, _, _, payload in peer.frames():
            assert kind not in (RST_STREAM, GOAWAY), kind
            if kind == DATA:
                assert len(payload) == length, len(payload)
                return
        raise AssertionError("closed without DATA")

    return check


def acknowledged(peer):
    assert peer.frame()[:2] == (SETTINGS, ACK)


def after_answer(then, expected):
    """Sends `then` once a GET has been answered completely."""

    def check(peer):
        for _, flags, stream, _ in peer.frames():
            if stream == 1 and flags & END_STREAM:
                break
        peer.send(then)
        expected(peer)

    return check


def too_many_streams(peer):
    most = peer.settings[3]
    peer.send(settings((4, 0)), *(get(stream) for stream in range(1, 2 * most + 3, 2)))
    stream_error(PROTOCOL, REFUSED)(peer)


def window_shrinks(peer):
    peer.send(settings((4, 3)), get())
    first_data(3)(peer)
    peer.send(settings((4, 2)), window(1, 2))
    first_data(1)(peer)


def window_opens(peer):
    peer.send(settings((4, 0)), get())
    peer.send(settings((4, 1)))
    first_data(1)(peer)


def pong_is_not_answered(peer):
    peer.send(frame(PING, ACK, 0, b"silence!"))
    alive(peer)


PLAIN = b"INVALID CONNECTION PREFACE\r\n\r\n"
HALF, REST = GET_LIST[:10], GET_LIST[10:]
HUFFMAN_GET = b"\x82\x86\x84\x41\x8c\xf1\xe3\xc2\xe5\xf2\x3a\x6b\xa0\xab\x90\xf4\xff"

CASES = [
    # Starting, and everything that has to work.
    ("3.4 a client's preface", [], alive),
    ("GET", [get()], answered),
    ("HEAD", [listed((":method", "HEAD"), SCHEME, PATH, HOST)], answered),
    ("POST", [post(), data(b"test")], answered),
    ("POST with trailers", [post(), data(b"test", end=False), frame(HEADERS, WHOLE, 1, block(("x-test", "ok")))], answered),
    ("POST in several DATA frames", [post(), data(b"te", end=False), data(b"st")], answered),
    ("POST with padding", [post(), frame(DATA, PADDED | END_STREAM, 1, b"\x06test" + bytes(6))], answered),
    ("GET with padding", [frame(HEADERS, WHOLE | PADDED, 1, b"\x06" + GET_LIST + bytes(6))], answered),
    ("GET with a priority", [prioritised(0, 255)], answered),
    ("PRIORITY of weight 1", [priority(1, 0, 0), get()], answered),
    ("PRIORITY of weight 256", [priority(1, 0, 255), get()], answered),
    ("PRIORITY with a dependency", [priority(3, 0), priority(1, 3), get()], answered),
    ("PRIORITY that is exclusive", [priority(3, 0), priority(1, 3 | 1 << 31), get()], answered),
    ("PRIORITY of a higher idle stream, then a lower one opens", [priority(5, 0), get(3)], answered),
    ("PRIORITY of a stream that is half closed", [get(), priority(1, 0)], alive),
    ("PRIORITY of a closed stream", [get()], after_answer(priority(1, 0), alive)),
    ("WINDOW_UPDATE of a stream that is half closed", [get(), window(1, 1)], alive),
    ("RST_STREAM of a stream that is half closed", [get(), reset(1)], alive),
    ("RST_STREAM", [post(), reset(1)], alive),
    ("SETTINGS", [settings((1, 4096), (4, 65_535))], acknowledged),
    ("GOAWAY", [frame(GOAWAY, 0, 0, struct.pack(">II", 0, NO_ERROR) + b"bye")], alive_or_closed),
    ("WINDOW_UPDATE of the connection", [window(0, 1), get()], answered),
    ("CONTINUATION", [frame(HEADERS, END_STREAM, 1, HALF), frame(CONTINUATION, END_HEADERS, 1, REST)], answered),
    (
        "several CONTINUATION",
        [frame(HEADERS, END_STREAM, 1, HALF), frame(CONTINUATION, 0, 1, REST[:9]), frame(CONTINUATION, 4, 1, REST[9:])],
        answered,
    ),
    # RFC 7541: representations.
    ("an indexed field", [packed(b"\x90")], answered),
    ("a literal with indexing, name indexed", [packed(b"\x50" + text(b"x"))], answered),
    ("a literal with indexing, name new", [packed(literal("x-a", "b", 0x40))], answered),
    ("a literal that is indexed and used", [packed(literal("x-a", "b", 0x40) + b"\xbe")], answered),
    ("a literal without indexing, name indexed", [packed(b"\x0f\x01" + text(b"x"))], answered),
    ("a literal without indexing, name new", [packed(literal("x-a", "b"))], answered),
    ("a literal never indexed, name indexed", [packed(b"\x1f\x01" + text(b"x"))], answered),
    ("a literal never indexed, name new", [packed(literal("x-a", "b", 0x10))], answered),
    ("Huffman codes", [frame(HEADERS, WHOLE, 1, HUFFMAN_GET)], answered),
    ("a table size", [frame(HEADERS, WHOLE, 1, b"\x3f\x61" + GET_LIST)], answered),
    ("two table sizes", [frame(HEADERS, WHOLE, 1, b"\x3f\x61\x3f\xe1\x1f" + GET_LIST)], answered),
    # 3.4, 4.1 to 4.3
    ("3.4 no preface", PLAIN, None),
    ("4.1 an unknown kind of frame", [frame(22, 0, 0, bytes(8))], alive),
    ("4.1 undefined flags", [frame(PING, 0x16, 0, MARK)], alive),
    ("4.1 the reserved bit", [frame(PING, 0, 1 << 31, MARK)], alive),
    ("4.2 DATA of 2^14 octets", [post(), data(bytes(16_384))], answered),
    ("4.2 DATA above the limit", [post(), data(bytes(16_385))], stream_error(FRAME_SIZE)),
    ("4.2 HEADERS above the limit", [frame(HEADERS, WHOLE, 1, GET_LIST + bytes(17_000))], connection_error(FRAME_SIZE)),
    ("4.3 a block that is no block", [frame(HEADERS, WHOLE, 1, b"\x40")], connection_error(COMPRESSION)),
    ("4.3 a block interrupted by PRIORITY", [frame(HEADERS, 1, 1, GET_LIST), priority(1, 0)], connection_error(PROTOCOL)),
    ("4.3 a block interrupted by another", [frame(HEADERS, 1, 1, GET_LIST), get(3)], connection_error(PROTOCOL)),
    # 5.1: states of streams
    ("5.1 idle: DATA", [data(b"test")], connection_error(PROTOCOL)),
    ("5.1 idle: RST_STREAM", [reset(1)], connection_error(PROTOCOL)),
    ("5.1 idle: WINDOW_UPDATE", [window(1, 100)], connection_error(PROTOCOL)),
    ("5.1 idle: CONTINUATION", [frame(CONTINUATION, END_HEADERS, 1, GET_LIST)], connection_error(PROTOCOL)),
    ("5.1 half closed: DATA", [get(), data(b"test")], stream_error(STREAM_CLOSED)),
    ("5.1 half closed: HEADERS", [get(), get()], stream_error(STREAM_CLOSED)),
    ("5.1 half closed: CONTINUATION", [get(), frame(CONTINUATION, 4, 1, GET_LIST)], stream_error(STREAM_CLOSED, PROTOCOL)),
    ("5.1 reset: DATA", [post(), reset(1), data(b"test")], stream_error(STREAM_CLOSED)),
    ("5.1 reset: HEADERS", [post(), reset(1), get()], stream_error(STREAM_CLOSED)),
    ("5.1 reset: CONTINUATION", [post(), reset(1), frame(CONTINUATION, 4, 1, b"")], stream_error(STREAM_CLOSED, PROTOCOL)),
    ("5.1 closed: DATA", [get()], after_answer(data(b"test"), stream_error(STREAM_CLOSED))),
    ("5.1 closed: HEADERS", [get()], after_answer(get(), connection_error(STREAM_CLOSED))),
    ("5.1 closed: CONTINUATION", [get()], after_answer(frame(CONTINUATION, 4, 1, b""), connection_error(STREAM_CLOSED, PROTOCOL))),
    ("5.1.1 an even stream", [get(2)], connection_error(PROTOCOL)),
    ("5.1.1 a stream below the last", [get(5), get(3)], connection_error(PROTOCOL)),
    ("5.1.2 more streams than allowed", [], too_many_streams),
    ("5.3.1 HEADERS that depends on itself", [prioritised(1)], stream_error(PROTOCOL)),
    ("5.3.1 PRIORITY that depends on itself", [priority(1, 1)], stream_error(PROTOCOL)),
    ("5.3.1 the same on an open stream", [post(), priority(1, 1)], stream_error(PROTOCOL)),
    ("5.4.1 the connection is closed after an error", [frame(PING, 0, 0, bytes(6))], connection_error(FRAME_SIZE)),
    ("5.4.1 and told before", [frame(PING, 0, 0, bytes(6))], connection_error_told(FRAME_SIZE)),
    ("5.5 an extension frame", [frame(0xf0, 0, 0, b"test"), get()], answered),
    (
        "5.5 an extension frame within a block",
        [frame(HEADERS, 1, 1, HALF), frame(0xf0, 0, 1, b"test"), frame(CONTINUATION, 4, 1, REST)],
        connection_error(PROTOCOL),
    ),
    # 6: frames
    ("6.1 DATA on stream 0", [data(b"test", 0)], connection_error(PROTOCOL)),
    ("6.1 DATA on a stream that is not open", [get(), data(b"test")], stream_error(STREAM_CLOSED)),
    ("6.1 DATA with too much padding", [post(), frame(DATA, PADDED | 1, 1, b"\x06test")], connection_error(PROTOCOL)),
    ("6.2 HEADERS on stream 0", [get(0)], connection_error(PROTOCOL)),
    ("6.2 HEADERS with too much padding", [frame(HEADERS, WHOLE | PADDED, 1, b"\xff" + GET_LIST)], connection_error(PROTOCOL)),
    ("6.3 PRIORITY on stream 0", [priority(0, 1)], connection_error(PROTOCOL)),
    ("6.3 PRIORITY of four octets", [post(), frame(PRIORITY, 0, 1, bytes(4))], stream_error(FRAME_SIZE)),
    ("6.4 RST_STREAM on stream 0", [reset(0)], connection_error(PROTOCOL)),
    ("6.4 RST_STREAM on an idle stream", [reset(1)], connection_error(PROTOCOL)),
    ("6.4 RST_STREAM of three octets", [post(), frame(RST_STREAM, 0, 1, bytes(3))], connection_error(FRAME_SIZE)),
    ("6.5 SETTINGS ACK with a payload", [frame(SETTINGS, ACK, 0, b"\0")], connection_error(FRAME_SIZE)),
    ("6.5 SETTINGS on a stream", [frame(SETTINGS, 0, 1, struct.pack(">HI", 3, 100))], connection_error(PROTOCOL)),
    ("6.5 SETTINGS of three octets", [frame(SETTINGS, 0, 0, bytes(3))], connection_error(FRAME_SIZE)),
    ("6.5.2 ENABLE_PUSH 2", [settings((2, 2))], connection_error(PROTOCOL)),
    ("6.5.2 INITIAL_WINDOW_SIZE 2^31", [settings((4, 1 << 31))], connection_error(FLOW_CONTROL)),
    ("6.5.2 MAX_FRAME_SIZE 2^14 - 1", [settings((5, 16_383))], connection_error(PROTOCOL)),
    ("6.5.2 MAX_FRAME_SIZE 2^24", [settings((5, 1 << 24))], connection_error(PROTOCOL)),
    ("6.5.2 an unknown setting", [settings((0xff, 1))], alive),
    ("6.5.3 values in order", [settings((4, 100), (4, 1)), get()], first_data(1)),
    ("6.5.3 SETTINGS is acknowledged", [settings()], acknowledged),
    ("6.7 PING", [], alive),
    ("6.7 PING with ACK", [], pong_is_not_answered),
    ("6.7 PING on a stream", [frame(PING, 0, 1, MARK)], connection_error(PROTOCOL)),
    ("6.7 PING of six octets", [frame(PING, 0, 0, bytes(6))], connection_error(FRAME_SIZE)),
    ("6.8 GOAWAY on a stream", [frame(GOAWAY, 0, 1, bytes(8))], connection_error(PROTOCOL)),
    ("6.9 WINDOW_UPDATE of 0", [window(0, 0)], connection_error(PROTOCOL)),
    ("6.9 WINDOW_UPDATE of 0 on a stream", [post(), window(1, 0)], stream_error(PROTOCOL)),
    ("6.9 WINDOW_UPDATE of three octets", [frame(WINDOW_UPDATE, 0, 0, bytes(3))], connection_error(FRAME_SIZE)),
    ("6.9.1 a window of one octet", [settings((4, 1)), get()], first_data(1)),
    ("6.9.1 the connection's window overflows", [window(0, LARGEST), window(0, LARGEST)], connection_error(FLOW_CONTROL)),
    ("6.9.1 a stream's window overflows", [post(), window(1, LARGEST), window(1, LARGEST)], stream_error(FLOW_CONTROL)),
    ("6.9.2 the initial window changes after HEADERS", [], window_opens),
    ("6.9.2 a window becomes negative", [], window_shrinks),
    ("6.10 CONTINUATION, then DATA", [frame(HEADERS, 0, 1, HALF), frame(CONTINUATION, 0, 1, REST), data(b"x")], connection_error(PROTOCOL)),
    ("6.10 CONTINUATION on stream 0", [frame(HEADERS, 1, 1, HALF), frame(CONTINUATION, 4, 0, REST)], connection_error(PROTOCOL)),
    ("6.10 CONTINUATION after a whole HEADERS", [post(), frame(CONTINUATION, 4, 1, b"")], connection_error(PROTOCOL)),
    (
        "6.10 CONTINUATION after a whole CONTINUATION",
        [frame(HEADERS, 0, 1, HALF), frame(CONTINUATION, 4, 1, REST), frame(CONTINUATION, 4, 1, b"")],
        connection_error(PROTOCOL),
    ),
    ("6.10 CONTINUATION after DATA", [post(), data(b"x", end=False), frame(CONTINUATION, 4, 1, b"")], connection_error(PROTOCOL)),
    # 7: error codes
    ("7 GOAWAY with an unknown code", [frame(GOAWAY, 0, 0, struct.pack(">II", 0, 0xff))], alive_or_closed),
    ("7 RST_STREAM with an unknown code", [post(), reset(1, 0xff)], alive),
    # 8: requests
    ("8.1 HEADERS in the middle without END_STREAM", [post(), data(b"x", end=False), post()], stream_error(PROTOCOL)),
    ("8.1 two HEADERS without END_STREAM", [post(), post()], stream_error(PROTOCOL)),
    ("8.2 a name in upper case", [get(1, ("X-TEST", "ok"))], stream_error(PROTOCOL)),
    ("8.2.2 connection", [get(1, ("connection", "keep-alive"))], stream_error(PROTOCOL)),
    ("8.2.2 te other than trailers", [get(1, ("te", "trailers, deflate;q=0.5"))], stream_error(PROTOCOL)),
    ("8.3 an unknown pseudo-field", [get(1, (":test", "ok"))], stream_error(PROTOCOL)),
    ("8.3 a pseudo-field of responses", [get(1, (":status", "200"))], stream_error(PROTOCOL)),
    (
        "8.3 a pseudo-field in trailers",
        [post(), data(b"x", end=False), frame(HEADERS, WHOLE, 1, block((":method", "POST")))],
        stream_error(PROTOCOL),
    ),
    ("8.3 a pseudo-field after a field", [listed(METHOD, SCHEME, HOST, ("x-test", "ok"), PATH)], stream_error(PROTOCOL)),
    ("8.3.1 an empty path", [listed(METHOD, SCHEME, (":path", ""), HOST)], stream_error(PROTOCOL)),
    ("8.3.1 no method", [listed(SCHEME, PATH, HOST)], stream_error(PROTOCOL)),
    ("8.3.1 no scheme", [listed(METHOD, PATH, HOST)], stream_error(PROTOCOL)),
    ("8.3.1 no path", [listed(METHOD, SCHEME, HOST)], stream_error(PROTOCOL)),
    ("8.3.1 two methods", [listed(METHOD, METHOD, SCHEME, PATH, HOST)], stream_error(PROTOCOL)),
    ("8.3.1 two schemes", [listed(METHOD, SCHEME, SCHEME, PATH, HOST)], stream_error(PROTOCOL)),
    ("8.3.1 two paths", [listed(METHOD, SCHEME, PATH, PATH, HOST)], stream_error(PROTOCOL)),
    ("8.1.1 content-length of another body", [post(1, ("content-length", "1")), data(b"test")], stream_error(PROTOCOL)),
    (
        "8.1.1 the same in several DATA frames",
        [post(1, ("content-length", "1")), data(b"te", end=False), data(b"st")],
        stream_error(PROTOCOL),
    ),
    ("8.1.1 a body that is too short", [post(1, ("content-length", "9")), data(b"test")], stream_error(PROTOCOL)),
    ("8.4 PUSH_PROMISE", [get(), frame(PUSH_PROMISE, 4, 1, struct.pack(">I", 2) + GET_LIST)], connection_error(PROTOCOL)),
    # RFC 7541: errors
    ("7541 2.3.3 an index behind the tables", [packed(b"\xc6")], connection_error(COMPRESSION)),
    ("7541 2.3.3 a name's index behind the tables", [packed(b"\x7f\x07" + text(b"x"))], connection_error(COMPRESSION)),
    ("7541 4.2 a table size at the end", [packed(b"\x20")], connection_error(COMPRESSION)),
    ("7541 5.2 padding of more than seven bits", [packed(b"\x00\x01a\x82\x1f\xff")], connection_error(COMPRESSION)),
    ("7541 5.2 padding with zeros", [packed(b"\x00\x01a\x81\x18")], connection_error(COMPRESSION)),
    ("7541 5.2 EOS", [packed(b"\x00\x01a\x84\xff\xff\xff\xff")], connection_error(COMPRESSION)),
    ("7541 6.1 index 0", [packed(b"\x80")], connection_error(COMPRESSION)),
    ("7541 6.3 a table size above the setting", [frame(HEADERS, WHOLE, 1, b"\x3f\xe2\x1f" + GET_LIST)], connection_error(COMPRESSION)),
]


def play(steps, expected):
    if expected is None:
        peer = Peer(opening=None)
        peer.send(steps)
        # The port speaks HTTP/1, too: whatever it says, it closes.
        while peer.socket.recv(4096):
            pass
        return
    peer = Peer()
    peer.send(*steps)
    expected(peer)


def main():
    failed = 0
    wanted = [case for case in CASES if len(sys.argv) < 4 or sys.argv[3] in case[0]]
    for name, steps, expected in wanted:
        try:
            play(steps, expected)
        except (AssertionError, TimeoutError, OSError, TypeError) as error:
            failed += 1
            print(f"FAILED: {name}: {error!r}")
    print(f"http2 rules: {len(wanted) - failed} of {len(wanted)} cases")
    sys.exit(failed > 0)


main()
