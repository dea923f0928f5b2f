"""One end of an HTTP/2 connection, against another binding of libnghttp2: what it reports, and what it holds."""

import itertools
import subprocess
import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import http2_peer
from collector.transport.http2 import sessions
from collector.transport.http2.codes import ErrorCode
from collector.transport.http2.events import (
    ConnectionEnded,
    GoAwayReceived,
    HTTP2Error,
    PingReceived,
    SettingsReceived,
    StreamClosedError,
    StreamEvent,
)
from collector.transport.http2.header_fields import HeaderFields, decode_header_block
from http2_peer import DataReceived, ResponseReceived, StreamReset, TrailersReceived

CALL = (
    (b":method", b"POST"),
    (b":scheme", b"http"),
    (b":path", b"/a.B/C"),
    (b":authority", b"x"),
    (b"te", b"trailers"),
    (b"content-type", b"application/grpc"),
)
UPLOAD = (*CALL[:4], (b"content-type", b"application/x-protobuf"))
OK = HeaderFields(((b":status", b"200"), (b"content-type", b"application/grpc")))
STATUS = HeaderFields(((b"grpc-status", b"0"),))
EMPTY = bytes(5)
WINDOW = 1 << 24


def message(body, flag=0):
    """Return a gRPC message."""
    return bytes([flag]) + len(body).to_bytes(4, "big") + body


def new_server(max_message_bytes=1 << 20):
    return sessions.server_session(
        max_message_bytes=max_message_bytes, max_concurrent_streams=100, max_header_bytes=1 << 16, cut_off_bytes=1 << 18
    )


def new_client(max_frame_bytes=1 << 14):
    """Return a client of the other binding that has sent its preface."""
    client = http2_peer.client(max_frame_bytes=max_frame_bytes)
    client.set_local_window_size(WINDOW)
    return client


def output(session):
    """Return all output."""
    return b"".join(session.output(1 << 30))


def begun(max_message_bytes=1 << 20):
    """Return a client and a server that have exchanged their settings."""
    client, server = new_client(), new_server(max_message_bytes)
    server.receive(client.data_to_send(), 0.0)
    client.receive_data(output(server))
    server.receive(client.data_to_send(), 0.0)
    client.events()
    return client, server


def ask(client, headers, body, *, end_stream=True):
    """Return the bytes of a request."""
    stream_id = client.send_request(headers, end_stream=end_stream and not body)
    if body:
        client.send_data(stream_id, body, end_stream=end_stream)
    return client.data_to_send()


def summary(events):
    """Combine all events of each stream: id → everything reported."""
    streams = {}
    for event in events:
        if not isinstance(event, StreamEvent):
            continue
        head, messages, data, ends = streams.get(event.stream_id, (None, (), b"", 0))
        assert event.head is None or head is None
        if event.message is not None:
            messages += ((event.is_compressed, event.message),)
        streams[event.stream_id] = (head or event.head, messages, data + event.data, ends + event.is_end)
    return streams


def test_a_call_is_reported_once_it_is_complete():
    """Its header block, its message without prefix, its time-out; equal calls have equal header blocks."""
    client, server = begun()
    blocks = set()
    for timeout, seconds in (
        (b"5S", 5.0),
        (b"1500m", 1.5),
        (b"20u", 2e-5),
        (b"7n", 7e-9),
        (b"2M", 120.0),
        (b"1H", 3600.0),
    ):
        (event,) = server.receive(ask(client, [*CALL, (b"grpc-timeout", timeout)], message(b"abc")), 1.0)
        assert (event.message, event.is_compressed, event.is_end, event.is_closed, event.data) == (
            b"abc",
            False,
            True,
            False,
            b"",
        )
        assert (event.timeout, event.timeout_s, event.is_grpc) == (timeout, pytest.approx(seconds), True)
        assert decode_header_block(event.head) == CALL
        blocks.add(event.head)
    assert len(blocks) == 1


@pytest.mark.parametrize("block", [b"x", bytes(4), b"\5\0\0\0abc", b"\1\0\0\0a\xff\xff\xff\xff"])
def test_invalid_header_blocks(block):
    """Lengths that exceed the block are an error."""
    with pytest.raises(ValueError, match="not a header block"):
        decode_header_block(block)


@pytest.mark.parametrize("timeout", [b"", b"S", b"5", b"5s", b"123456789S", b"-1S", b"5 S", b"\xff5S"])
def test_a_malformed_timeout_is_negative(timeout):
    """It is reported as negative, with its text."""
    client, server = begun()
    (event,) = server.receive(ask(client, [*CALL, (b"grpc-timeout", timeout)], message(b"")), 1.0)
    assert event.timeout_s < 0
    assert event.timeout == timeout


@pytest.mark.parametrize(
    ("content_type", "is_grpc"),
    [
        (b"application/grpc", True),
        (b"application/grpc+proto", True),
        (b"application/grpc;x=y", True),
        (b"Application/GRPC", True),
        (b"application/grpc-web", False),
        (b"application/grpcx", False),
        (b"application/json", False),
        (b"", False),
    ],
)
def test_what_is_grpc(content_type, is_grpc):
    """The body of any other request is reported as bytes."""
    client, server = begun()
    (event,) = server.receive(ask(client, [*CALL[:5], (b"content-type", content_type)], message(b"abc")), 1.0)
    assert event.is_grpc == is_grpc
    assert (event.message, event.data) == ((b"abc", b"") if is_grpc else (None, message(b"abc")))


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"\0",
        bytes(4),
        message(b"abc")[:-1],
        message(b"abc") + b"\0",
        message(b"abc") * 2,
        message(b"abc", flag=2),
        message(bytes(3000)),
    ],
)
def test_an_invalid_message_is_reported_as_it_arrived(body):
    """All of its bytes, with the prefix: the receiver of the event finds out what is wrong."""
    client, server = begun(max_message_bytes=2000)
    streams = summary(server.receive(ask(client, CALL, body), 1.0))
    assert streams[1][1:] == ((), body, 1)
    assert server.held_bytes == 0


def test_a_message_that_is_too_large_is_reported_as_soon_as_its_length_is_known():
    """It is reported without waiting for the end."""
    client, server = begun(max_message_bytes=2000)
    (event,) = server.receive(ask(client, CALL, message(bytes(3000))[:10], end_stream=False), 1.0)
    assert (event.data, event.is_end) == (message(bytes(3000))[:10], False)


bodies = st.one_of(
    st.binary(max_size=40),
    st.binary(max_size=3000).map(message),
    st.tuples(st.binary(max_size=10), st.integers(0, 255)).map(lambda pair: message(*pair)),
    st.integers(0, 200_000).map(lambda size: message(b"m" * size)),
    st.lists(st.binary(max_size=20).map(message), max_size=3).map(b"".join),
)


@settings(deadline=None, max_examples=150)
@given(
    requests=st.lists(
        st.tuples(st.sampled_from([CALL, UPLOAD]), st.lists(bodies, max_size=4), st.booleans()), max_size=4
    ),
    cuts=st.lists(st.integers(0, 1 << 20), max_size=12),
)
def test_splits_do_not_change_the_events(requests, cuts):
    """Requests in any frames, cut into any reads, are reported equally; nothing stays held."""

    def heard(places):
        client, server = begun(max_message_bytes=100_000)
        octets = b""
        for headers, parts, is_end in requests:
            stream_id = client.send_request(headers)
            for part in parts:
                client.send_data(stream_id, part)
                octets += client.data_to_send()
            if is_end:
                client.end_stream(stream_id)
        octets += client.data_to_send()
        places = sorted({place % (len(octets) + 1) for place in places} | {0, len(octets)})
        events = []
        for start, end in itertools.pairwise(places):
            events += server.receive(octets[start:end], 1.0)
        told = summary(events)
        held = server.held_bytes
        for stream_id in list(told):
            server.reset(stream_id, ErrorCode.CANCEL)
        assert server.held_bytes == 0
        order = [event.stream_id for event in events if isinstance(event, StreamEvent) and event.is_end]
        return told, held, order

    assert heard(cuts) == heard([])


def test_memory_follows_what_came_not_what_is_announced():
    """A prefix that announces a megabyte holds nothing; received bytes are counted until reported or dropped."""
    client, server = begun()
    stream_id = client.send_request(CALL)
    client.send_data(stream_id, message(bytes(1_000_000))[:5])
    server.receive(client.data_to_send(), 1.0)
    assert server.held_bytes == 0
    client.send_data(stream_id, bytes(40_000))
    assert server.receive(client.data_to_send(), 2.0) == ()
    assert server.held_bytes == 40_000
    assert server.last_received_s(stream_id) == 2.0
    server.reset(stream_id, ErrorCode.CANCEL)
    assert server.held_bytes == 0
    assert server.last_received_s(stream_id) == float("inf")


def test_raw_gives_what_came_and_what_comes():
    """For a streaming method that handles messages one by one."""
    client, server = begun()
    stream_id = client.send_request(CALL)
    client.send_data(stream_id, message(b"one") + message(b"t")[:3])
    (event,) = server.receive(client.data_to_send(), 1.0)
    assert (event.message, event.data + server.switch_to_raw(stream_id)) == (None, message(b"one") + message(b"t")[:3])
    client.send_data(stream_id, message(b"t")[3:], end_stream=True)
    (event,) = server.receive(client.data_to_send(), 1.0)
    assert (event.data, event.is_end) == (message(b"t")[3:], True)


def test_raw_keeps_the_beginning_of_a_message():
    """The part of a message gathered so far is returned with its prefix."""
    client, server = begun()
    stream_id = client.send_request(CALL)
    client.send_data(stream_id, message(b"abc")[:7])
    server.receive(client.data_to_send(), 1.0)
    assert server.switch_to_raw(stream_id) == message(b"abc")[:7]
    assert server.held_bytes == 0


def test_a_whole_answer():
    """Header block, message, trailers; the stream is then closed, and nothing more is reported of it."""
    client, server = begun()
    (event,) = server.receive(ask(client, CALL, message(b"abc")), 1.0)
    server.respond(event.stream_id, OK, EMPTY, STATUS)
    assert server.queued_bytes == 5
    client.receive_data(output(server))
    said = client.events()
    assert [type(one) for one in said][:3] == [ResponseReceived, DataReceived, TrailersReceived]
    assert said[1].data == EMPTY
    assert server.take_events() == ()
    assert server.queued_bytes == 0
    with pytest.raises(StreamClosedError):
        server.respond(event.stream_id, OK)


def test_large_bodies_are_referred_to_and_in_frames_as_large_as_the_peer_takes():
    """Without copying the body; one frame if the peer accepts a megabyte, several if it accepts 16 KiB."""
    body = bytes(300_000)
    for frame_bytes, referred in ((1 << 20, 1), (16_384, 18)):  # of 19 frames the last is short
        server = new_server()
        client = new_client(frame_bytes)
        server.receive(client.data_to_send(), 0.0)
        client.receive_data(output(server))
        (event,) = server.receive(ask(client, CALL, message(b"")), 0.0)
        server.respond(event.stream_id, OK, body, STATUS)
        pieces = server.output(1 << 30)
        assert (
            sum(piece is body or (isinstance(piece, memoryview) and piece.obj is body) for piece in pieces) == referred
        )
        client.receive_data(b"".join(pieces))
        received = [event for event in client.events() if isinstance(event, DataReceived)]
        assert b"".join(event.data for event in received) == body


def test_output_is_bounded_and_continues():
    """About as much as requested at a time; the rest is not lost."""
    client, server = begun()
    (event,) = server.receive(ask(client, CALL, message(b"")), 0.0)
    body = bytes(range(256)) * 4000
    server.respond(event.stream_id, OK, body, STATUS)
    said = b""
    while pieces := server.output(100_000):
        assert sum(map(len, pieces)) < 150_000
        said += b"".join(pieces)
        client.receive_data(b"".join(pieces))
        server.receive(client.data_to_send(), 0.0)
    received = b"".join(event.data for event in client.events() if isinstance(event, DataReceived))
    assert received == body


def test_an_answer_in_parts():
    """A streaming method sends whenever it has something, and its trailers at the end."""
    client, server = begun()
    (event,) = server.receive(ask(client, CALL, message(b"")), 0.0)
    server.respond(event.stream_id, OK, message(b"1"), is_end=False)
    client.receive_data(output(server))
    server.send(event.stream_id, message(b"2"))
    client.receive_data(output(server))
    server.send(event.stream_id, b"", STATUS, is_end=True)
    client.receive_data(output(server))
    said = client.events()
    assert b"".join(one.data for one in said if isinstance(one, DataReceived)) == message(b"1") + message(b"2")
    assert any(isinstance(one, TrailersReceived) for one in said)
    with pytest.raises(StreamClosedError):
        server.send(event.stream_id, b"late")


def test_a_request_that_is_given_up():
    """Reported as closed with its code, unless it was answered; nothing of it stays held."""
    client, server = begun()
    stream_id = client.send_request(CALL)
    client.send_data(stream_id, message(bytes(1000))[:500])
    octets = client.data_to_send()
    client.reset_stream(stream_id)
    events = server.receive(octets + client.data_to_send(), 1.0)
    assert [(event.head is not None, event.is_closed, event.error_code) for event in events] == [
        (True, True, ErrorCode.CANCEL)
    ]
    assert server.held_bytes == 0
    (event,) = server.receive(ask(client, CALL, message(b"")), 1.0)
    server.respond(event.stream_id, OK, EMPTY, STATUS)
    client.reset_stream(event.stream_id)
    assert server.receive(client.data_to_send(), 1.0) == ()


def test_the_end_is_reported_once():
    """A complete request that is cancelled is closed, and does not end a second time."""
    client, server = begun()
    server.receive(ask(client, CALL, message(b"")), 1.0)
    client.reset_stream(1)
    (event,) = server.receive(client.data_to_send(), 1.0)
    assert (event.is_end, event.is_closed, event.message, event.head) == (False, True, None, None)


def test_reset_tells_the_peer_and_nobody_else():
    """Nothing is reported about the stream after RST_STREAM."""
    client, server = begun()
    stream_id = client.send_request(CALL)
    server.receive(client.data_to_send(), 1.0)
    server.reset(stream_id, ErrorCode.NO_ERROR)
    client.receive_data(output(server))
    assert any(isinstance(event, StreamReset) for event in client.events())
    server.reset(99, ErrorCode.NO_ERROR)


def test_a_client_hears_an_answer_when_its_stream_is_over():
    """One event per unary call; interim responses before it are not reported."""
    server, client = http2_peer.server(), sessions.client_session(max_message_bytes=1000)
    server.receive_data(output(client))
    assert [type(event) for event in client.receive(server.data_to_send(), 0.0)] == [SettingsReceived]
    stream_id = client.request(HeaderFields(CALL), b"\0\0\0\0\3", b"abc")
    server.receive_data(output(client))
    assert b"".join(event.data for event in server.events() if isinstance(event, DataReceived)) == message(b"abc")
    server.send_informational_response(stream_id, [(b":status", b"103")])
    server.send_response(stream_id, OK.pairs)
    server.send_data(stream_id, message(b"answer"))
    server.send_trailers(stream_id, STATUS.pairs)
    (event,) = client.receive(server.data_to_send(), 0.0)
    assert (event.message, event.is_end, event.is_closed, event.error_code) == (b"answer", True, True, 0)
    assert decode_header_block(event.head) == OK.pairs
    assert decode_header_block(event.trailers) == STATUS.pairs


def test_a_header_block_that_cannot_be_sent_is_reported():
    """Larger than libnghttp2 sends: the stream fails, the connection continues."""
    client = sessions.client_session(max_message_bytes=1000)
    server = http2_peer.server()
    server.receive_data(output(client))
    client.receive(server.data_to_send(), 0.0)
    stream_id = client.request(HeaderFields((*CALL, (b"x", b"y" * 100_000))), b"")
    server.receive_data(output(client))
    (event,) = client.take_events()
    assert (event.stream_id, event.is_closed) == (stream_id, True)
    assert event.failure
    assert not client.has_ended()


def test_goaway_ends_both():
    """Reported with its debug data; the end follows once nothing is left to send."""
    client, server = begun()
    client.receive_data(output(server))
    client.send_goaway(2, debug_data=b"why")
    events = server.receive(client.data_to_send(), 0.0)
    assert [type(event) for event in events] == [GoAwayReceived, ConnectionEnded]
    assert [(event.error_code, event.debug_data) for event in events] == [(2, b"why")] * 2
    assert server.has_output()
    assert server.has_ended()


def test_pings():
    """They are acknowledged automatically and reported."""
    client, server = begun()
    client.ping(b"12345678")
    (event,) = server.receive(client.data_to_send(), 0.0)
    assert isinstance(event, PingReceived)
    assert event.opaque_data == b"12345678"
    assert server.has_output()


def test_after_an_error_nothing_works():
    """Every further use raises an error or returns nothing, and nothing crashes."""
    server = new_server()
    with pytest.raises(HTTP2Error):
        server.receive(b"GET / HTTP/1.1\r\n\r\n" * 2, 0.0)
    for use in (
        lambda: server.receive(b"", 0.0),
        lambda: server.output(1),
        lambda: server.respond(1, OK),
        lambda: server.ping(bytes(8)),
        lambda: server.send_goaway(),
    ):
        with pytest.raises(HTTP2Error):
            use()
    assert (server.has_ended(), server.has_output(), server.switch_to_raw(1), server.take_events()) == (
        True,
        True,
        b"",
        (),
    )


IN_A_PROCESS_WITHOUT_NGH2 = """
import sys
sys.modules["ngh2"] = None
from collector.transport.http2 import nghttp2, sessions
{}
"""


def run_without_ngh2(code):
    return subprocess.run(
        [sys.executable, "-c", IN_A_PROCESS_WITHOUT_NGH2.format(code)],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


def test_the_system_library_is_the_fallback():
    """An older one as well: functions it lacks are not used."""
    ran = run_without_ngh2(
        """
try:
    print(nghttp2.version())
except nghttp2.MissingLibraryError:
    sys.exit(3)
s = sessions.server_session(max_message_bytes=9, max_concurrent_streams=9, max_header_bytes=99, cut_off_bytes=99)
assert s.output(1 << 20)
"""
    )
    if ran.returncode == 3:
        pytest.skip("this machine has no libnghttp2 of its own")
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout[0].isdigit()


def test_without_a_library_the_message_says_what_to_install():
    """It also names the setting that works without the library."""
    ran = run_without_ngh2(
        """
nghttp2._SYSTEM = ()
try:
    sessions.require_http2("receivers::otlp")
except OSError as error:
    print(error)
"""
    )
    assert ran.returncode == 0, ran.stderr
    for word in ("receivers::otlp::transport", "ngh2", "libnghttp2-14", "grpcio"):
        assert word in ran.stdout


def test_equal_heads_are_one_object():
    """Equal consecutive blocks are one object; other ones are reported as they are, also after a large one."""
    client, server = begun()
    other = (*CALL, (b"x", b"1"))
    large = (*CALL, (b"x", b"v" * 3000))
    heads = []
    for headers in (CALL, CALL, other, CALL, large, CALL):
        (event,) = server.receive(ask(client, headers, message(b"a")), 0.0)
        heads.append(event.head)
    assert heads[0] is heads[1]
    assert [decode_header_block(head) for head in heads] == [CALL, CALL, other, CALL, large, CALL]
