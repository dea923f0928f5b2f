"""HTTP/1.1 byte by byte, without sockets: responses, their order, the end of connections; splits do not matter."""

import asyncio
import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from collector.api import RetryableError
from collector.testing import FakeClock, FakeHost, RecordingTelemetry
from collector.transport.http import Response, Route
from collector.transport.http.http1 import HTTP1Connection
from collector.transport.http.http1_connections import HTTP1Connections
from collector.transport.http.request import HTTPRoutes
from config.blocks import HTTPServerConfig


class Wire(asyncio.Transport):
    """A transport that records what is written."""

    def __init__(self, peer=("192.0.2.7", 4711), tls=None):
        super().__init__({"peername": peer, "sslcontext": tls})
        self.written = bytearray()
        self.is_closed = self.is_aborted = self.is_half_closed = self.is_paused = False

    def write(self, data):
        assert not self.is_closed
        self.written += data

    def close(self):
        self.is_closed = True

    def abort(self):
        self.is_closed = self.is_aborted = True

    def is_closing(self):
        return self.is_closed

    def can_write_eof(self):
        return True

    def write_eof(self):
        self.is_half_closed = True

    def pause_reading(self):
        assert not self.is_paused
        self.is_paused = True

    def resume_reading(self):
        assert self.is_paused
        self.is_paused = False

    @property
    def ends(self):
        return self.is_closed or self.is_half_closed

    @property
    def answers(self):
        """Return (status, body) of each response, without 100 Continue."""
        found, rest = [], bytes(self.written).replace(b"HTTP/1.1 100 Continue\r\n\r\n", b"")
        while rest:
            head, _, rest = rest.partition(b"\r\n\r\n")
            length = int(head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0])
            if b"X-Bodiless" in head:
                length = 0
            found.append((int(head.split()[1]), rest[:length]))
            rest = rest[length:]
        return found


class Later(Route):
    """``/now`` is answered at once, ``/head`` by its head, others when ``answer`` is called."""

    def __init__(self):
        self.waiting = []
        self.served = []

    def check(self, request):
        return Response.text(403, "no") if request.path == "/head" else None

    def serve(self, request):
        self.served.append((request.method, request.path, request.body, request.header_values()))
        if request.path == "/now":
            request.reply(Response.text(200, "now"))
        elif request.path == "/bug":
            raise ZeroDivisionError
        else:
            self.waiting.append(request)

    def answer(self, *, backwards=False):
        waiting, self.waiting = self.waiting, []
        for request in reversed(waiting) if backwards else waiting:
            request.reply(Response(200, request.path.encode() + b":" + request.body))


class Server:
    def __init__(self, host=None, **config):
        self.route = Later()
        self.refused = []
        self.telemetry = RecordingTelemetry()
        self.host = host or FakeHost()
        service = HTTPRoutes(
            HTTPServerConfig.model_validate(config),
            {},
            default_route=self.route,
            key="k",
            clock=FakeClock(),
            log=self.telemetry.log,
        )
        service.open(self.host)
        self.service = service
        self.connections = HTTP1Connections(service, self.refused.append)

    def connect(self, **wire):
        connection = HTTP1Connection(self.connections)
        connection.connection_made(Wire(**wire))
        return connection, connection._transport


def post(path="/x", body=b"", *headers, version="1.1", length=True):
    lines = [f"POST {path} HTTP/{version}", "Host: h", *headers, *([f"Content-Length: {len(body)}"] if length else [])]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


def chunked(path, *parts, trailers=b""):
    body = b"".join(b"%x;e=1\r\n%s\r\n" % (len(part), part) for part in parts)
    return post(path, b"", "Transfer-Encoding: chunked", length=False) + body + b"0\r\n" + trailers + b"\r\n"


def run(data, splits=(), *, backwards=True, **config):
    """Feed ``data`` cut at ``splits``, answer the waiting requests, and return the wire and the server."""

    async def go():
        server = Server(**config)
        connection, wire = server.connect()
        at = [0, *sorted({split % (len(data) + 1) for split in splits}), len(data)]
        for start, end in itertools.pairwise(at):
            connection.feed(memoryview(data[start:end]))
        while server.route.waiting:
            server.route.answer(backwards=backwards)
        assert server.host.admission.used_bytes == 0 or connection._current is not None
        connection.connection_lost(None)
        assert server.host.admission.used_bytes == 0
        return wire, server

    return asyncio.run(go())


UNSUPPORTED = (
    b"unsupported Content-Encoding: br, supported: [deflate, gzip, lz4, snappy, x-gzip, x-snappy-framed, zlib, zstd]"
)
STREAMS = [
    post("/a", b"1") + post("/now", b"2") + chunked("/b", b"3", b"45" * 700, trailers=b"T: v\r\n") + post("/c", b"6"),
    post("/head", b"x" * 300) + post("/a") + post("/head?q=1") + post("/now"),
    post("/a", b"1", version="1.0") + post("/b"),
    post("/a", b"1", "Connection: keep-alive", version="1.0") + post("/b", b"2", "Connection: close") + post("/c"),
    b"GET http://h/a?x HTTP/1.1\r\nHost: h\r\n\r\nHEAD /b HTTP/1.1\r\nHost: h\r\n\r\nOPTIONS * HTTP/1.1\r\nHost: h\r\n\r\n",
    post("/a", b"body", "Connection: Upgrade, HTTP2-Settings", "Upgrade: h2c") + post("/b", b"2"),
    chunked("/a", b"xy").replace(b"Host: h", b"Host: h\r\nConnection: upgrade\r\nUpgrade: h2c") + post("/b"),
    post("/a", b"", "Connection: upgrade", "Upgrade: websocket", length=False) + post("/b"),
    post("/a") + b"\r\n\r\n" + post("/b"),
    post("/a") + b"CONNECT h:1 HTTP/1.1\r\nHost: h\r\n\r\n\x00\x01\x02",
    post("/a", b"", "Transfer-Encoding: chunked", length=False) + b"zz\r\n",
    post("/a", b"1") + b"nonsense\r\n\r\n" + post("/b"),
    post("/a", b"1", "Content-Length: 1"),
    post("/a", b"1", "Transfer-Encoding: chunked"),
    post("/a", b"", "Transfer-Encoding: gzip, chunked", length=False) + b"0\r\n\r\n" + post("/b"),
    post("/a", b"", "X: a", " folded"),
    post("/a").replace(b"Host: h\r\n", b"") + post("/b"),
    post("/a", b"", "Host: i") + post("/b"),
    post("/big", b"b" * 5000) + post("/b"),
    post("/head", b"b" * 100_000) + post("/b"),
    post("/a", b"1" * 10, "Expect: 100-continue") + post("/b"),
    post("/head", b"1" * 10, "Expect: 100-continue") + post("/b"),
    post("/a", b"1", "Content-Encoding: br") + post("/b"),
    post("/a", b"1", "Content-Encoding: gzip") + post("/b"),
    post("/bug", b"1") + post("/b"),
    b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    b"GET / HTTP/2.0\r\nHost: h\r\n\r\n",
    b"GET /\r\n\r\n",
]


@given(st.sampled_from(STREAMS), st.lists(st.integers(0, 200_000), max_size=8), st.booleans())
def test_no_split_of_the_stream_changes_the_answers(stream, splits, backwards):
    """Requests and responses are those of the unsplit stream, in whatever order the routes answer."""
    whole, server = run(stream, max_request_body_size=4000)
    cut, other = run(stream, splits, backwards=backwards, max_request_body_size=4000)
    assert other.route.served == server.route.served
    assert bytes(cut.written).replace(b"HTTP/1.1 100 Continue\r\n\r\n", b"") == bytes(whole.written).replace(
        b"HTTP/1.1 100 Continue\r\n\r\n", b""
    )
    assert (cut.ends, other.refused) == (whole.ends, server.refused)


@given(st.binary(max_size=300), st.lists(st.integers(0, 300), max_size=4))
def test_junk_is_answered_at_most_once_and_never_served(junk, splits):
    """Whatever the bytes are, the connection is closed gracefully."""
    wire, server = run(junk, splits)
    assert [status for status, _ in wire.answers] in ([], [400])
    assert not server.route.served
    assert not server.telemetry.log.of_level("error")


@pytest.mark.parametrize("stream", STREAMS)
def test_byte_by_byte(stream):
    """One byte at a time."""
    whole, _ = run(stream, max_request_body_size=4000)
    single, _ = run(stream[:6000], range(6000), max_request_body_size=4000)
    if len(stream) <= 6000:
        assert single.answers == whole.answers


@pytest.mark.parametrize(
    ("stream", "answers", "ends"),
    [
        (STREAMS[0], [(200, b"/a:1"), (200, b"now"), (200, b"/b:3" + b"45" * 700), (200, b"/c:6")], False),
        (STREAMS[1], [(403, b"no"), (200, b"/a:"), (403, b"no"), (200, b"now")], False),
        (STREAMS[2], [(200, b"/a:1")], True),
        (STREAMS[3], [(200, b"/a:1"), (200, b"/b:2")], True),
        (STREAMS[5], [(200, b"/a:body"), (200, b"/b:2")], False),
        (STREAMS[6], [(200, b"/a:xy"), (200, b"/b:")], False),
        (STREAMS[7], [(200, b"/a:"), (200, b"/b:")], False),
        (STREAMS[8], [(200, b"/a:"), (200, b"/b:")], False),
        (STREAMS[9], [(200, b"/a:"), (200, b"h:1:")], True),
        (STREAMS[10], [(400, b"the framing of the body does not match its headers")], True),
        (STREAMS[11], [(200, b"/a:1"), (400, b"400 bad request")], True),
        (STREAMS[12], [(400, b"400 bad request")], True),
        (STREAMS[13], [(400, b"400 bad request")], True),
        (STREAMS[14], [(501, b"501 unsupported transfer encoding")], True),
        (STREAMS[15], [(400, b"400 bad request")], True),
        (STREAMS[16], [(400, b"400 bad request")], True),
        (STREAMS[17], [(400, b"400 bad request")], True),
        (STREAMS[18], [(413, b"request body too large: at most 4000 bytes, also after decompression")], True),
        (STREAMS[19], [(403, b"no")], True),
        (STREAMS[20], [(200, b"/a:1111111111"), (200, b"/b:")], False),
        (STREAMS[21], [(403, b"no")], True),
        (STREAMS[22], [(400, UNSUPPORTED), (200, b"/b:")], False),
        (STREAMS[24], [(500, b"500 internal server error"), (200, b"/b:")], False),
        (STREAMS[25], [(400, b"400 bad request")], True),
        (STREAMS[26], [(505, b"505 http version not supported")], True),
        (STREAMS[27], [(505, b"505 http version not supported")], True),
    ],
)
def test_what_is_answered(stream, answers, ends):
    """Statuses, order, and whether the connection stays open."""
    wire, _ = run(stream, max_request_body_size=4000)
    assert (wire.answers, wire.ends) == (answers, ends)


async def test_answers_keep_the_order_of_the_requests():
    """They keep it even if a later response is ready first."""
    server = Server()
    connection, wire = server.connect()
    connection.feed(post("/a") + post("/b") + post("/now"))
    server.route.waiting[1].reply(Response(200, b"b"))
    assert not wire.written
    server.route.waiting[0].reply(Response(200, b"a"))
    assert [body for _, body in wire.answers] == [b"a", b"b", b"now"]


async def test_second_answer_to_a_request_is_ignored():
    """Only the first response is sent."""
    server = Server()
    connection, wire = server.connect()
    connection.feed(post("/a"))
    request = server.route.waiting[0]
    request.reply(Response(200, b"1"))
    request.reply(Response(200, b"2"))
    assert wire.answers == [(200, b"1")]


async def test_100_continue_is_sent_in_turn_and_only_if_the_body_waits():
    """Not before earlier responses, not if the body arrived with the head, not for HTTP/1.0."""
    server = Server()
    connection, wire = server.connect()
    connection.feed(post("/a") + post("/b", b"body", "Expect: 100-continue")[:-4])
    assert not wire.written
    server.route.answer()
    assert wire.written.endswith(b"/a:HTTP/1.1 100 Continue\r\n\r\n")
    connection.feed(b"body")
    server.route.answer()
    assert wire.answers == [(200, b"/a:"), (200, b"/b:body")]
    for request in (post("/c", b"x", "Expect: 100-continue"), post("/c", b"x", "Expect: 100-continue", version="1.0")):
        connection, wire = server.connect()
        connection.feed(request)
        assert b" 100 " not in wire.written


async def test_many_pipelined_requests_stop_the_reading_until_they_are_answered():
    """Reading pauses for a client that does not wait for responses."""
    server = Server()
    connection, wire = server.connect()
    connection.feed(post("/a") * 40)
    assert wire.is_paused
    server.route.answer()
    assert not wire.is_paused
    assert len(wire.answers) == 40


async def test_sender_that_takes_no_answers_is_not_read_and_cut_off(monkeypatch):
    """The connection is closed after ``write_timeout``, or after a minute."""
    server = Server(write_timeout="10ms")
    connection, wire = server.connect()
    connection.pause_writing()
    assert wire.is_paused
    connection.resume_writing()
    assert not wire.is_paused
    connection.pause_writing()
    async with asyncio.timeout(5):
        while not wire.is_aborted:
            await asyncio.sleep(0.001)


async def test_half_closed_sender_gets_its_answers():
    """It gets the responses to its requests; an incomplete request gets none."""
    server = Server()
    connection, wire = server.connect()
    connection.feed(post("/a") + post("/b", b"12")[:-1])
    assert connection.eof_received()
    server.route.answer()
    assert (wire.answers, wire.is_closed) == ([(200, b"/a:")], True)
    connection, wire = server.connect()
    connection.feed(post("/b", b"12")[:-1])
    assert not connection.eof_received()


async def test_sender_that_goes_away_is_not_answered():
    """The route may still answer; the response is dropped."""
    server = Server()
    connection, wire = server.connect()
    connection.feed(post("/a"))
    connection.connection_lost(ConnectionResetError())
    server.route.answer()
    assert not wire.written


async def test_framing_of_chunks_is_bounded_by_what_they_hold():
    """Extensions, trailers and one-byte chunks without end (CVE-2023-39326)."""
    head = post("/a", b"", "Transfer-Encoding: chunked", length=False)
    for flood in (b"1;" + b"e" * 500 + b"\r\nx\r\n", b"1\r\nx\r\n", None):
        server = Server()
        connection, wire = server.connect()
        connection.feed(head + (b"0\r\nT: " if flood is None else b""))
        fed = 0
        while not wire.ends and fed < 1_000_000:
            connection.feed(flood or b"t" * 1000)
            fed += len(flood or b"t" * 1000)
        assert wire.answers == [(400, b"the framing of the body does not match its headers")]
        connection.connection_lost(None)
    server = Server()
    connection, wire = server.connect()
    connection.feed(head)
    for _ in range(4000):
        connection.feed(b"64\r\n" + bytes(100) + b"\r\n")
    connection.feed(b"0\r\n\r\n")
    assert len(server.route.waiting[0].body) == 400_000


async def test_head_that_never_ends_is_431_whatever_its_pieces():
    """A head may have 64 KiB at most."""
    server = Server()
    connection, wire = server.connect()
    for _ in range(200):
        connection.feed(b"POST / HTTP/1.1\r\nX: " if not wire.written and not connection._in_head else b"a" * 1000)
    assert [status for status, _ in wire.answers] == [431]
    assert server.refused == ["head_too_large"]
    assert wire.is_half_closed


async def test_announced_length_alone_occupies_little():
    """20 MiB announced, 64 KiB reserved; the reservation grows with the input and ends with the connection."""
    server = Server()
    connection, _ = server.connect()
    connection.feed(post("/a", b"", "Content-Length: 20000000", length=False))
    assert server.host.admission.used_bytes == 64 * 1024
    connection.feed(bytes(200_000))
    assert 200_000 <= server.host.admission.used_bytes <= 400_000
    connection.connection_lost(None)
    assert server.host.admission.used_bytes == 0


class Slow:
    def __init__(self):
        self.gate = asyncio.Event()

    async def authenticate(self, headers):
        await self.gate.wait()
        if headers["authorization"] == ("bad",):
            raise RetryableError("later")
        return (("who", "me"),)


async def test_nothing_is_read_while_the_sender_is_authenticated():
    """The body of an unknown caller is not read; what arrived with the head waits."""
    slow = Slow()
    server = Server(FakeHost(extensions={"slow": slow}), auth={"authenticator": "slow"})
    connection, wire = server.connect()
    connection.feed(post("/a", b"12", "Authorization: x") + post("/b", b"34", "Authorization: x")[:-1])
    assert wire.is_paused
    assert not server.route.served
    slow.gate.set()
    async with asyncio.timeout(5):
        while wire.is_paused:
            await asyncio.sleep(0)
    connection.feed(b"4")
    await asyncio.sleep(0)
    assert [body for _, _, body, _ in server.route.served] == [b"12", b"34"]
    assert server.route.waiting[0].claims == (("who", "me"),)


@pytest.mark.parametrize("is_authenticated", [False, True])
async def test_neither_a_slow_authenticator_nor_a_slow_body_holds_the_place(is_authenticated):
    """read_timeout counts from the head."""
    slow = Slow()
    server = Server(FakeHost(extensions={"slow": slow}), auth={"authenticator": "slow"}, read_timeout="30ms")
    connection, wire = server.connect()
    connection.feed(post("/a", b"12", "Authorization: x")[:-1])
    if is_authenticated:
        slow.gate.set()
    async with asyncio.timeout(5):
        while not wire.ends:
            await asyncio.sleep(0.001)
    assert wire.answers == [(408, b"the body did not arrive in time")]
    slow.gate.set()
    await asyncio.sleep(0)
    assert not server.route.served


async def test_connection_that_comes_while_draining_is_closed():
    """Its TLS handshake was in progress when the listener closed."""
    server = Server()
    await server.connections.drain(0.01)
    connection, wire = server.connect()
    assert wire.is_closed
    connection.connection_lost(None)


async def test_draining_finishes_what_was_begun():
    """An idle connection closes at once, one with requests after its responses, which say so."""
    server = Server()
    idle, idle_wire = server.connect()
    busy, busy_wire = server.connect()
    busy.feed(post("/a") + post("/b", b"12")[:-1])
    draining = asyncio.ensure_future(server.connections.drain(5))
    await asyncio.sleep(0)
    assert idle_wire.is_closed
    assert not busy_wire.is_closed
    busy.feed(b"2" + post("/c"))
    server.route.answer()
    assert busy_wire.answers == [(200, b"/a:"), (200, b"/b:12")]
    assert busy_wire.written.count(b"Connection: close") == 1
    assert busy_wire.is_closed
    idle.connection_lost(None)
    busy.connection_lost(None)
    await draining
