"""Connections of the HTTP/2 server, byte by byte and with a manual clock: hostile clients, time-outs, shutdown."""

import struct

import pytest

import http2_peer
from collector.transport.grpc.framing import encode_message
from collector.transport.http2 import sessions
from http2_peer import ErrorCode

C = "/a.B/C"
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DATA, HEADERS, PRIORITY, RST_STREAM, SETTINGS, PUSH_PROMISE, PING, GOAWAY, WINDOW_UPDATE, CONTINUATION = range(10)
END_STREAM, END_HEADERS, ACK = 1, 4, 1
# :method POST, :scheme http, :path / from the static table, but no :authority: such a request is reset.
SMALL_HEAD = b"\x83\x86\x84"
# A call: :authority, :path and content-type as literals with indexed names.
CALL_HEAD = b"\x83\x86\x01\x01x\x04\x06/a.B/C\x0f\x10\x10application/grpc"

CALL = [
    (b":method", b"POST"),
    (b":scheme", b"http"),
    (b":path", b"/a.B/C"),
    (b":authority", b"x"),
    (b"content-type", b"application/grpc"),
]


def frame(kind, flags=0, stream_id=0, payload=b""):
    """Return one frame."""
    return struct.pack(">I", len(payload))[1:] + bytes([kind, flags]) + struct.pack(">I", stream_id) + payload


def goaway(written):
    """Return the last stream id and the error code of the GOAWAY in these bytes; None without one."""
    at = 0
    while at < len(written):
        length, kind = int.from_bytes(written[at : at + 3], "big"), written[at + 3]
        if kind == GOAWAY:
            return struct.unpack_from(">II", written, at + 9)
        at += 9 + length
    return None


def goaway_code(written):
    """Return the error code of the GOAWAY in these bytes; None without one."""
    found = goaway(written)
    return None if found is None else found[1]


@pytest.fixture
def raw(grpc_server):
    """A connection that has sent its preface and SETTINGS; raw bytes follow."""
    serving = grpc_server()
    client = serving.connect()
    client.transport.written.clear()
    client.serving = serving
    return client


FLOODS = {
    "settings": frame(SETTINGS) * 4000,
    "settings with values": frame(SETTINGS, 0, 0, struct.pack(">HI", 4, 1) * 40) * 10,
    "rapid reset": b"".join(
        frame(HEADERS, END_HEADERS, 1 + 2 * i, SMALL_HEAD) + frame(RST_STREAM, 0, 1 + 2 * i, bytes([0, 0, 0, 8]))
        for i in range(1000)
    ),
    "empty data": frame(HEADERS, END_HEADERS, 1, CALL_HEAD) + frame(DATA, 0, 1) * 4000,
    "continuation": frame(HEADERS, 0, 1, SMALL_HEAD) + frame(CONTINUATION, 0, 1) * 50,
    "continuation that grows": frame(HEADERS, 0, 1, SMALL_HEAD)
    + frame(CONTINUATION, 0, 1, b"\x40\x01x\x7f\x81\x7d" + bytes(16_000)) * 40,
    "hpack bomb": frame(
        HEADERS, END_HEADERS, 1, SMALL_HEAD + b"\x40\x01a\x7f\xa1\x1e" + b"v" * 4000 + b"\xbe" * 10_000
    ),
    "window updates of zero": frame(HEADERS, END_HEADERS, 1, SMALL_HEAD) + frame(WINDOW_UPDATE, 0, 0, bytes(4)),
}


@pytest.mark.parametrize("flood", FLOODS)
def test_floods_end_the_connection(raw, flood):
    """The client receives a GOAWAY and is cut off; this is counted; its streams are dropped."""
    octets = FLOODS[flood]
    for start in range(0, len(octets), 1000):
        raw.feed(octets[start : start + 1000])
    assert raw.is_cut_off
    assert goaway_code(raw.transport.written) in {
        ErrorCode.ENHANCE_YOUR_CALM,
        ErrorCode.PROTOCOL_ERROR,
        ErrorCode.INTERNAL_ERROR,  # nghttp2's for rapid reset
    }
    assert sum(raw.serving.closed.values()) == 1
    assert not raw.serving.http2.connections
    assert not raw.protocol.streams


NONSENSE = {
    "no preface": b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
    "oversize frame": frame(DATA, 0, 1, b"x")[:0]
    + b"\x20\x00\x00"
    + bytes([DATA, 0])
    + struct.pack(">I", 1)
    + bytes(100),
    "data before headers": frame(DATA, 0, 1, b"x"),
    "stream 0 headers": frame(HEADERS, END_HEADERS, 0, SMALL_HEAD),
    "priority of stream 0": frame(PRIORITY, 0, 0, bytes(5)),
    "a stream id that was passed over": (
        frame(HEADERS, END_HEADERS | END_STREAM, 5, SMALL_HEAD) + frame(HEADERS, END_HEADERS, 3, SMALL_HEAD)
    ),
    "the first stream id after the second": frame(HEADERS, END_HEADERS, 3, SMALL_HEAD)
    + frame(HEADERS, 4, 1, SMALL_HEAD),
    "even stream id": frame(HEADERS, END_HEADERS, 2, SMALL_HEAD),
    "headers on a closed stream": frame(HEADERS, END_HEADERS | END_STREAM, 1, SMALL_HEAD) * 2,
    "push promise from a client": frame(PUSH_PROMISE, END_HEADERS, 1, bytes([0, 0, 0, 2]) + SMALL_HEAD),
    "headers within headers": frame(HEADERS, 0, 1, SMALL_HEAD) + frame(DATA, 0, 1, b"x"),
    "continuation without headers": frame(CONTINUATION, END_HEADERS, 1, SMALL_HEAD),
    "broken hpack": frame(HEADERS, END_HEADERS, 1, b"\xff\xff\xff\xff\xff\xff\xff"),
    "ping of 7 bytes": frame(PING, 0, 0, bytes(7)),
    "window over 2^31-1": frame(WINDOW_UPDATE, 0, 0, struct.pack(">I", 0x7FFFFFFF)),
    "settings of 5 bytes": frame(SETTINGS, 0, 0, bytes(5)),
    "settings that acknowledge with a payload": frame(SETTINGS, ACK, 0, bytes(6)),
    "initial window over 2^31-1": frame(SETTINGS, 0, 0, struct.pack(">HI", 4, 0xFFFFFFFF)),
}


@pytest.mark.parametrize("nonsense", NONSENSE)
def test_nonsense_ends_the_connection_and_no_other(grpc_server, nonsense):
    """RFC 9113's connection errors: GOAWAY, counted; other connections are not affected."""
    serving = grpc_server()
    neighbour, client = serving.connect(), serving.connect()
    client.transport.written.clear()
    if nonsense == "no preface":
        client.protocol = serving.http2.connection()
        client.transport = type(client.transport)(serving.loop, client.protocol)
        client.protocol.connection_made(client.transport)
    client.feed(NONSENSE[nonsense])
    assert client.is_cut_off
    assert goaway_code(client.transport.written) is not None
    assert serving.closed == {"protocol": 1}
    assert neighbour.answer(neighbour.request(C, encode_message(b"m")))[1] == encode_message(b"m")


@pytest.mark.parametrize("at_once", [True, False])
@pytest.mark.parametrize("nonsense", ["priority of stream 0", "broken hpack", "ping of 7 bytes"])
def test_what_came_before_nonsense_is_processed(grpc_server, nonsense, at_once):
    """Whether a call is processed does not depend on how the bytes are split; GOAWAY says up to which one."""
    served = []
    raw = grpc_server(lambda message, _, reply: (served.append(message), reply(message))).connect()
    call = frame(HEADERS, END_HEADERS, 1, CALL_HEAD) + frame(DATA, END_STREAM, 1, encode_message(b"m"))
    for octets in (call + NONSENSE[nonsense],) if at_once else (call, NONSENSE[nonsense]):
        raw.feed(octets)
    assert raw.is_cut_off
    assert served == [b"m"]
    assert goaway(raw.transport.written)[0] == 1


@pytest.mark.parametrize(
    "octets",
    [
        frame(HEADERS, END_HEADERS | END_STREAM, 1, SMALL_HEAD) + frame(DATA, END_STREAM, 1, b"late"),
        frame(HEADERS, END_HEADERS, 1, SMALL_HEAD) + frame(DATA, END_STREAM, 1, b"x") * 3,
        frame(HEADERS, END_HEADERS, 1, SMALL_HEAD + b"\x00\x01A\x01b"),  # an upper-case name
        frame(HEADERS, END_HEADERS, 1, b"\x83"),  # no :path
        frame(HEADERS, END_HEADERS, 1, SMALL_HEAD) + frame(WINDOW_UPDATE, 0, 1, bytes(4)),
        frame(0x77, 0xFF, 9, b"unknown frame"),
        frame(PRIORITY, 0, 3, bytes(5)),
        # Trailers of a stream that the server has ended meanwhile: they were sent before the client knew.
        frame(HEADERS, END_HEADERS, 3, SMALL_HEAD)
        + frame(HEADERS, END_HEADERS | END_STREAM, 5, SMALL_HEAD)
        + frame(HEADERS, END_HEADERS | END_STREAM, 3, b""),
        # Every client passes over some ids; only a frame on such an id is an error.
        b"".join(frame(HEADERS, END_HEADERS | END_STREAM, 4 * i + 3, SMALL_HEAD) for i in range(20)),
    ],
)
def test_stream_errors_leave_the_connection_usable(raw, octets):
    """At most the stream is reset; the connection serves the next request, or the client was sent the reason."""
    raw.feed(octets)
    raw.feed(frame(PING, 0, 0, b"are you?"))
    assert frame(PING, ACK, 0, b"are you?") in raw.transport.written or goaway_code(raw.transport.written) is not None
    assert not raw.protocol.streams


def test_streams_over_the_limit(grpc_server):
    """REFUSED_STREAM, for a retry, as long as the client may not know the limit; then it is a connection error."""
    serving = grpc_server(lambda *_: None, max_concurrent_streams=2)
    client = serving.connect()
    client.protocol = serving.http2.connection()
    client.transport = type(client.transport)(serving.loop, client.protocol)
    client.protocol.connection_made(client.transport)
    octets = b"".join(frame(HEADERS, END_HEADERS, stream_id, CALL_HEAD) for stream_id in (1, 3, 5))
    client.feed(PREFACE + frame(SETTINGS) + octets)
    assert frame(RST_STREAM, 0, 5, struct.pack(">I", ErrorCode.REFUSED_STREAM)) in client.transport.written
    client.feed(frame(SETTINGS, ACK) + frame(HEADERS, END_HEADERS, 7, CALL_HEAD))
    assert client.is_cut_off
    assert goaway_code(client.transport.written) == ErrorCode.PROTOCOL_ERROR


def test_a_client_that_does_not_read_is_not_read_from(grpc_server):
    """The transport pauses writing: nothing more is taken out of the session, and nothing is read."""
    client = grpc_server().connect()
    client.protocol.pause_writing()
    assert client.transport.is_reading_paused
    stream_id = client.request(C, encode_message(b"m"))
    assert client.answer(stream_id) is None
    client.protocol.resume_writing()
    assert not client.transport.is_reading_paused
    client.exchange()
    assert client.answer(stream_id)[1] == encode_message(b"m")


def test_a_client_without_a_window_is_cut_off_after_a_minute(grpc_server):
    """It accepts no responses: SETTINGS with an initial window of zero."""
    serving = grpc_server()
    client = serving.connect()
    client.feed(frame(SETTINGS, 0, 0, struct.pack(">HI", 4, 0)))
    client.request(C, encode_message(b"m"))
    serving.loop.run(59)
    assert not client.is_cut_off
    serving.loop.run(61)
    assert client.is_cut_off
    assert serving.closed == {"not_reading": 1}


def test_a_connection_that_cannot_be_written_to_is_lost_alone(grpc_server):
    """The responses of one turn leave one after the other, whatever happens to the first."""
    replies = []
    serving = grpc_server(lambda message, _, reply: replies.append(reply))
    first, second = serving.connect(), serving.connect()
    streams = [client.request(C, encode_message(b"x")) for client in (first, second)]

    def fail(_):
        raise RuntimeError("no")

    first.transport.write = fail
    for reply in replies:
        reply(b"")
    second.exchange()
    assert first.is_cut_off
    assert second.answer(streams[1])[0][b"grpc-status"] == b"0"
    assert "no" in str(serving.loop.errors)


def test_no_preface_in_time(grpc_server):
    """A connection that sends nothing, or half of the preface."""
    serving = grpc_server()
    client = serving.connect()
    silent = serving.http2.connection()
    transport = type(client.transport)(serving.loop, silent)
    silent.connection_made(transport)
    silent.receive(PREFACE[:10])
    serving.loop.run(21)
    assert transport.is_closed
    assert not client.is_cut_off
    assert serving.closed == {"no_preface": 1}


def test_half_a_head_is_cut_off(raw):
    """Headers that arrive byte by byte, never completely: detected by a ping that cannot be acknowledged meanwhile."""
    octets = frame(HEADERS, END_HEADERS, 1, SMALL_HEAD + b"\x40\x01a\x7f\xa1\x1e" + b"v" * 4000)
    for octet in octets[:20]:
        raw.feed(bytes([octet]))
        raw.serving.loop.run(10)
    assert raw.is_cut_off
    assert raw.serving.closed == {"stalled": 1}


def test_frames_without_events_do_not_look_like_half_a_head(raw):
    """The ping is acknowledged: the client stays."""
    raw.feed(frame(PRIORITY, 0, 3, bytes(5)))
    for _ in range(30):
        raw.serving.loop.run(10)
        raw.exchange()
    assert not raw.is_cut_off


def pings(client, count, apart_s):
    for i in range(count):
        client.loop.run(apart_s)
        if client.is_cut_off:
            return
        client.connection.ping(struct.pack(">Q", i))
        client.exchange()


@pytest.mark.parametrize(
    ("policy", "apart_s", "is_cut_off"),
    [
        ({}, 60, True),
        ({"min_time": "10s", "permit_without_stream": True}, 11, False),
        ({"min_time": "10s", "permit_without_stream": True}, 9, True),
        ({"min_time": "10s"}, 11, True),  # without a stream every two hours at most
    ],
)
def test_too_many_pings(grpc_server, policy, apart_s, is_cut_off):
    """At the third ping too many: GOAWAY ENHANCE_YOUR_CALM, too_many_pings."""
    serving = grpc_server(keepalive={"enforcement_policy": policy})
    client = serving.connect()
    pings(client, 6, apart_s)
    assert client.is_cut_off == is_cut_off
    assert client.goaways() == ([(ErrorCode.ENHANCE_YOUR_CALM, b"too_many_pings")] if is_cut_off else [])
    assert serving.closed == ({"too_many_pings": 1} if is_cut_off else {})


def test_pings_between_answers_are_free(grpc_server):
    """Bandwidth probes of clients that send data."""
    client = grpc_server().connect()
    for _ in range(10):
        client.request(C, encode_message(b"m"))
        pings(client, 1, 0.01)
    assert not client.is_cut_off


def test_silent_client_is_pinged_and_cut_off(grpc_server):
    """keepalive.server_parameters.time and timeout; a client that acknowledges stays."""
    serving = grpc_server(keepalive={"server_parameters": {"time": "10s", "timeout": "3s"}})
    alive, dead = serving.connect(), serving.connect()
    for _ in range(12):
        serving.loop.run(1.5)
        alive.exchange()
    assert dead.is_cut_off
    assert not alive.is_cut_off
    assert serving.closed == {"keepalive": 1}


def test_idle_connections_are_drained(grpc_server):
    """max_connection_idle, counted from the last response; not while a call is open."""
    replies = []
    serving = grpc_server(
        lambda _message, _call, reply: replies.append(reply),
        keepalive={"server_parameters": {"max_connection_idle": "10s"}},
    )
    idle, busy = serving.connect(), serving.connect()
    busy.request(C, encode_message(b""))
    for _ in range(30):
        serving.loop.run(1)
        for client in (idle, busy):
            if not client.is_cut_off:
                client.exchange()
    assert idle.is_cut_off
    assert {code for code, _ in idle.goaways()} == {ErrorCode.NO_ERROR}
    assert not busy.is_cut_off
    assert serving.closed == {"idle": 1}


def test_old_connection_finishes_its_calls_and_goes(grpc_server):
    """max_connection_age, ±10 %: a GOAWAY that refuses nothing, then one that does; calls in progress are answered."""
    replies = []
    serving = grpc_server(
        lambda message, _call, reply: replies.append((reply, message)),
        keepalive={"server_parameters": {"max_connection_age": "100s"}},
    )
    client = serving.connect()
    first = client.request(C, encode_message(b"1"))
    serving.loop.run(89)
    client.exchange()
    assert not client.goaways()
    # Sent before the GOAWAY was seen: still served.
    late = client.connection.send_request(CALL)
    client.connection.send_data(late, encode_message(b"2"), end_stream=True)
    while not client.transport.written:
        serving.loop.run(0.5)
    client.exchange()
    serving.loop.run(2)
    client.exchange()
    assert len(client.goaways()) == 2
    assert not client.is_cut_off
    for reply, message in replies:
        reply(message)
    client.exchange()
    serving.loop.run()
    assert [client.answer(stream_id)[1] for stream_id in (first, late)] == [encode_message(b"1"), encode_message(b"2")]
    assert client.is_cut_off
    assert serving.closed == {"age": 1}


def test_what_a_client_sends_after_the_end_is_dropped(grpc_server):
    """Our side is closed first, so that the client reads our GOAWAY and no reset; later it is cut off."""
    serving = grpc_server()
    client = serving.connect()
    client.transport.peer_closes = False
    client.feed(NONSENSE["broken hpack"])
    assert client.transport.is_ended
    said = bytes(client.transport.written)
    client.feed(frame(DATA, END_STREAM, 1, b"late") * 100)
    assert (client.transport.written, client.is_cut_off) == (said, False)
    serving.loop.run(2)
    assert client.is_cut_off
    assert serving.closed == {"protocol": 1}


def test_grace_of_an_old_connection_ends(grpc_server):
    """max_connection_age_grace: afterwards, unanswered calls are cut off."""
    serving = grpc_server(
        lambda *_: None,
        keepalive={"server_parameters": {"max_connection_age": "100s", "max_connection_age_grace": "20s"}},
    )
    client = serving.connect()
    client.request(C, encode_message(b"1"))
    for _ in range(108):  # the age is 90 to 110 s
        serving.loop.run(1)
        client.exchange()
    assert not client.is_cut_off
    for _ in range(24):
        serving.loop.run(1)
        client.exchange()
    assert client.is_cut_off
    assert serving.closed == {"age": 1, "age_grace": 1}


def test_memory_of_an_idle_connection_is_small(grpc_server):
    """What we keep in addition to libnghttp2: no attribute dictionary, nothing created before it is needed."""
    client = grpc_server().connect()
    assert not hasattr(client.protocol, "__dict__")


def test_the_peer_receives_our_limits():
    """SETTINGS contains the limits of the session."""
    peer = http2_peer.client()
    ours = sessions.server_session(
        max_message_bytes=1000, max_concurrent_streams=7, max_header_bytes=1000, cut_off_bytes=2000
    )
    peer.receive_data(b"".join(ours.output(1000)))
    [told] = [event.settings for event in peer.events() if isinstance(event, http2_peer.SettingsReceived)]
    assert told[http2_peer.Setting.MAX_CONCURRENT_STREAMS] == 7
    assert told[http2_peer.Setting.MAX_FRAME_SIZE] == sessions.MAX_FRAME_BYTES
