"""grpcio (sync and aio), httpx and the h2 package against examples/wire_echo; scripts/wire-clients.sh runs it.

    wire_clients.py PORT [AUTHORITIES.pem]
"""

import asyncio
import socket
import ssl
import sys
import time

import grpc
import h2.config
import h2.connection
import h2.events
import httpx

PORT = int(sys.argv[1])
AUTHORITIES = sys.argv[2] if len(sys.argv) > 2 else None
SIZES = (0, 1, 16_383, 16_384, 65_535, 65_536, 1 << 20, 5_000_000, 40_000_000)
OPTIONS = [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)]
TIMEOUT = 60


def message_of(size):
    return (b"kinglet " * (size // 8 + 1))[:size]


def channel(module=grpc):
    if not AUTHORITIES:
        return module.insecure_channel(f"127.0.0.1:{PORT}", OPTIONS)
    with open(AUTHORITIES, "rb") as file:
        return module.secure_channel(f"localhost:{PORT}", grpc.ssl_channel_credentials(file.read()), OPTIONS)


def check_grpcio():
    with channel() as connection:
        echo = connection.unary_unary("/test/Echo")
        for size in SIZES:
            message = message_of(size)
            assert echo(message, timeout=TIMEOUT) == message, size
            assert echo(message, timeout=TIMEOUT, compression=grpc.Compression.Gzip) == message, size
        assert len(connection.unary_unary("/test/Size")(b"40000000", timeout=TIMEOUT)) == 40_000_000
        for method, code, text in (
            ("Fail", grpc.StatusCode.INVALID_ARGUMENT, "so nicht: ä % \n"),
            ("Panic", grpc.StatusCode.INTERNAL, None),
        ):
            try:
                connection.unary_unary(f"/test/{method}")("so nicht: ä % \n".encode(), timeout=TIMEOUT)
                raise AssertionError(method)
            except grpc.RpcError as error:
                assert error.code() == code and text in (None, error.details()), error
        try:
            connection.unary_unary("/test/Sleep")(b"2000", timeout=0.1)
            raise AssertionError("no deadline")
        except grpc.RpcError as error:
            assert error.code() == grpc.StatusCode.DEADLINE_EXCEEDED, error
        start = time.perf_counter()
        for turn in range(10_000):
            assert echo(b"%d" % turn, timeout=TIMEOUT) == b"%d" % turn
        each = (time.perf_counter() - start) / 10_000
    print(f"grpcio: sizes 0 to 40 MB, gzip, statuses, deadline, 10,000 calls in a row ({each * 1e6:.0f} us each)")


async def check_grpcio_aio():
    async with channel(grpc.aio) as connection:
        echo = connection.unary_unary("/test/Echo")
        for size in SIZES:
            message = message_of(size)
            assert await echo(message, timeout=TIMEOUT) == message, size
        for _ in range(10):
            answers = await asyncio.gather(*(echo(b"%d" % turn, timeout=TIMEOUT) for turn in range(500)))
            assert answers == [b"%d" % turn for turn in range(500)]
        stream = connection.stream_stream("/test/Stream")
        sent = [message_of(size) for size in (1, 100_000, 3)]
        assert [answer async for answer in stream(iter(sent), timeout=TIMEOUT)] == sent
    print("grpcio aio: sizes 0 to 40 MB, 500 calls at once, a stream")


def check_httpx():
    scheme, host = ("https", "localhost") if AUTHORITIES else ("http", "127.0.0.1")
    verify = ssl.create_default_context(cafile=AUTHORITIES) if AUTHORITIES else True
    for http1 in (True, False):
        with httpx.Client(http1=http1, http2=not http1, verify=verify, timeout=TIMEOUT) as client:
            for size in SIZES[1:]:
                message = message_of(size)
                # In one piece, httpcore would copy what is left of the message for each frame.
                pieces = (message[at : at + 65_536] for at in range(0, size, 65_536))
                answer = client.post(f"{scheme}://{host}:{PORT}/", content=pieces)
                assert answer.content == message, size
                assert answer.http_version == ("HTTP/1.1" if http1 else "HTTP/2"), answer.http_version
            answer = client.post(f"{scheme}://{host}:{PORT}/", content=message_of(100_000))
            assert answer.content == message_of(100_000)
    print("httpx: HTTP/1.1 and HTTP/2, sizes 1 B to 40 MB, lengths told and not")


def check_h2():
    """A scripted client with strict checks of what the server sends."""
    peer = socket.create_connection(("127.0.0.1", PORT))
    if AUTHORITIES:
        context = ssl.create_default_context(cafile=AUTHORITIES)
        context.set_alpn_protocols(["h2"])
        peer = context.wrap_socket(peer, server_hostname="localhost")
        assert peer.selected_alpn_protocol() == "h2"
    connection = h2.connection.H2Connection(h2.config.H2Configuration(client_side=True))
    connection.initiate_connection()
    head = [(":method", "GET"), (":scheme", "http"), (":path", "/size/300000"), (":authority", "h")]
    for stream in (1, 3, 5):
        connection.send_headers(stream, head, end_stream=True)
    connection.ping(b"12345678")
    got, ended, ponged = {1: 0, 3: 0, 5: 0}, set(), False
    while len(ended) < 3 or not ponged:
        peer.sendall(connection.data_to_send())
        for event in connection.receive_data(peer.recv(65_536)):
            if isinstance(event, h2.events.DataReceived):
                got[event.stream_id] += len(event.data)
                connection.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
            elif isinstance(event, h2.events.StreamEnded):
                ended.add(event.stream_id)
            elif isinstance(event, h2.events.PingAckReceived):
                ponged = True
    assert set(got.values()) == {300_000}, got
    connection.close_connection()
    peer.sendall(connection.data_to_send())
    while peer.recv(65_536):
        pass
    print("h2: three streams with windows of 64 KiB, PING, GOAWAY")


check_grpcio()
asyncio.run(check_grpcio_aio())
check_httpx()
check_h2()
