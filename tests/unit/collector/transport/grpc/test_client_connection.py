"""A connection that carries calls, byte by byte: the peer is libnghttp2's server, or bytes written by hand."""

import asyncio

import grpc
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import http2_peer
from collector.transport.compression import compress
from collector.transport.grpc import client_connection
from collector.transport.grpc.client_call import ENCODINGS, MAX_RESPONSE_BYTES, ClientCall, UnusableResponse
from collector.transport.grpc.client_connection import ClientConnection
from collector.transport.grpc.framing import encode_message
from collector.transport.grpc.status import CallError, code_from_reset
from collector.transport.http2 import sessions
from collector.transport.http2.header_fields import HeaderFields

HEADERS = (
    (b":method", b"POST"),
    (b":scheme", b"http"),
    (b":path", b"/t.Echo/Echo"),
    (b":authority", b"x"),
    (b"te", b"trailers"),
)
HEAD = ((b":status", b"200"), (b"content-type", b"application/grpc+proto"))
OK = ((b"grpc-status", b"0"),)
EMPTY = encode_message(b"")


class Transport:
    """Records what is written."""

    def __init__(self):
        self.written = bytearray()
        self.is_aborted = self.is_closed = False

    def write(self, data):
        self.written += data

    def writelines(self, pieces):
        self.written += b"".join(pieces)

    def abort(self):
        self.is_aborted = True

    def close(self):
        self.is_closed = True

    def set_write_buffer_limits(self, high):
        self.high = high

    def pause_reading(self):
        raise AssertionError("a client that stops reading may wait for ever")

    def resume_reading(self):
        pass


class RecordedCall(ClientCall):
    """Records every outcome it is settled with."""

    def __init__(self, body):
        super().__init__(self.record, HeaderFields(HEADERS), b"\0" + len(body).to_bytes(4, "big"), body)
        self.outcomes = []

    def record(self, outcome):
        self.outcomes.append(outcome)


class Ends:
    """A client's connection, which it owns, and a server session, with access to the bytes between them."""

    def __init__(self, *, connect=True, **server):
        self.transport = Transport()
        self.connection = ClientConnection(sessions.client_session(max_message_bytes=MAX_RESPONSE_BYTES), self)
        self.connection.connection_made(self.transport)
        self.server = http2_peer.server(**server)
        self.given_back = []
        self.freed_count = 0
        if connect:
            self.exchange()

    def stream_freed(self, connection):
        self.freed_count += 1

    def not_processed(self, call, reason, *, was_sent):
        self.given_back.append((call, was_sent))

    def call(self, body=b"hi"):
        call = RecordedCall(body)
        self.connection.start(call)
        return call

    def to_server(self):
        self.connection.flush()
        sent, self.transport.written = bytes(self.transport.written), bytearray()
        if sent:
            self.server.receive_data(sent)
        return self.server.events()

    def to_client(self):
        data = self.server.data_to_send()
        if data:
            self.connection.receive(data)

    def exchange(self):
        events = []
        for _ in range(4):
            events += self.to_server()
            self.to_client()
        return events

    def answer(self, call, *, head=HEAD, body=EMPTY, trailers=OK, deliver=True):
        self.server.send_response(call.stream_id, head, end_stream=not body and trailers is None)
        if body:
            self.server.send_data(call.stream_id, body, end_stream=trailers is None)
        if trailers is not None:
            self.server.send_trailers(call.stream_id, trailers)
        if deliver:
            self.exchange()

    def only_head(self, call, *headers):
        self.server.send_response(call.stream_id, headers, end_stream=True)
        self.exchange()


def error(call):
    (found,) = call.outcomes
    assert isinstance(found, CallError)
    return found


async def test_a_call_is_answered():
    """Header block, message and trailers; the request is framed as gRPC specifies."""
    ends = Ends()
    await ends.connection.ready
    small, large = ends.call(b"abc"), ends.call(bytes(100_000))
    events = ends.exchange()
    bodies = {small.stream_id: b"", large.stream_id: b""}
    for event in events:
        if isinstance(event, http2_peer.DataReceived):
            bodies[event.stream_id] += event.data
    assert bodies == {small.stream_id: encode_message(b"abc"), large.stream_id: encode_message(bytes(100_000))}
    ends.answer(large)
    ends.answer(small, body=encode_message(b"said"))
    assert (small.outcomes, large.outcomes) == ([b"said"], [b""])
    assert not ends.connection.has_streams()


async def test_nothing_starts_before_the_servers_settings():
    """Before that, the limit of streams is unknown; a server of another protocol never sends SETTINGS."""
    ends = Ends(connect=False, max_concurrent_streams=1)
    assert not ends.connection.has_room()
    ends.exchange()
    assert ends.connection.has_room()
    first = ends.call()
    assert not ends.connection.has_room()
    ends.exchange()
    ends.answer(first)
    assert ends.connection.has_room()


@pytest.mark.parametrize("name", sorted(ENCODINGS))
async def test_compressed_answers_are_read(name):
    """Every encoding that was offered is accepted."""
    ends = Ends()
    call = ends.call()
    ends.exchange()
    body = encode_message(compress(ENCODINGS[name], b"x" * 1000), compressed=True)
    ends.answer(call, head=(*HEAD, (b"grpc-encoding", name.encode())), body=body)
    assert call.outcomes == [b"x" * 1000]


ODD_ANSWERS = {
    "trailers only": (
        {"head": ((b":status", b"200"), (b"grpc-status", b"5"), (b"grpc-message", b"not%20here"))},
        "NOT_FOUND",
        "not here",
    ),
    "status in trailers": ({"trailers": ((b"grpc-status", b"14"),)}, "UNAVAILABLE", ""),
    "no status": ({"trailers": ((b"x", b"y"),)}, "UNKNOWN", "without a status"),
    "no trailers": ({"trailers": None}, "UNKNOWN", "without a status"),
    "unknown status": ({"trailers": ((b"grpc-status", b"99"),)}, "UNKNOWN", ""),
    "HTTP 503": ({"head": ((b":status", b"503"), (b"content-type", b"text/html"))}, "UNAVAILABLE", "HTTP status 503"),
    "HTTP 404": ({"head": ((b":status", b"404"),)}, "UNIMPLEMENTED", "HTTP status 404"),
    "HTTP 418": ({"head": ((b":status", b"418"),)}, "UNKNOWN", "HTTP status 418"),
    "no gRPC": ({"head": ((b":status", b"200"), (b"content-type", b"text/html"))}, "UNKNOWN", "text/html"),
}
UNUSABLE_RESPONSES = {
    "no message": ({"body": b""}, "sent no response message"),
    "half a message": ({"body": encode_message(b"abc")[:-1]}, "ends within"),
    "two messages": ({"body": 2 * encode_message(b"abc")}, "more than"),
    "an empty message and another": ({"body": encode_message(b"") + encode_message(b"a")}, "more than"),
    "a wrong flag": ({"body": b"\x07\0\0\0\0"}, "flag"),
    "too large": ({"body": b"\0" + (MAX_RESPONSE_BYTES + 1).to_bytes(4, "big")}, "larger than max"),
    "an encoding not offered": ({"body": encode_message(b"a", compressed=True)}, "not offered"),
    "a bomb": (
        {
            "head": (*HEAD, (b"grpc-encoding", b"gzip")),
            "body": encode_message(compress("gzip", bytes(MAX_RESPONSE_BYTES + 1)), compressed=True),
        },
        "larger than",
    ),
    "corrupt": (
        {"head": (*HEAD, (b"grpc-encoding", b"gzip")), "body": encode_message(b"zzz", compressed=True)},
        "gzip",
    ),
}


@pytest.mark.parametrize("name", ODD_ANSWERS)
async def test_odd_answers_become_statuses(name):
    """They are mapped as gRPC maps them, and the connection remains usable."""
    answer, code, said = ODD_ANSWERS[name]
    ends = Ends()
    call = ends.call()
    ends.exchange()
    if dict(answer.get("head", ())).keys() & {b"grpc-status"} or dict(answer.get("head", HEAD))[b":status"] != b"200":
        ends.only_head(call, *answer["head"])
    else:
        ends.answer(call, **answer)
    assert error(call).code.name == code
    assert said in error(call).text
    after = ends.call()
    ends.exchange()
    ends.answer(after)
    assert after.outcomes == [b""]
    assert not ends.connection.has_streams()


@pytest.mark.parametrize("name", UNUSABLE_RESPONSES)
@pytest.mark.parametrize("at_once", [True, False])
async def test_ok_is_final_whatever_the_message_is(name, at_once):
    """The server has accepted the request, also if its status arrives after the message that cannot be read."""
    answer, said = UNUSABLE_RESPONSES[name]
    ends = Ends()
    call = ends.call()
    ends.exchange()
    if at_once:
        ends.answer(call, **answer)
    else:
        ends.server.send_response(call.stream_id, answer.get("head", HEAD))
        ends.exchange()
        ends.server.send_data(call.stream_id, answer["body"])
        ends.exchange()
        assert call.outcomes == []
        ends.server.send_trailers(call.stream_id, OK)
        ends.exchange()
    (outcome,) = call.outcomes
    assert isinstance(outcome, UnusableResponse)
    assert outcome == b""
    assert said in outcome.problem
    assert not ends.connection.has_streams()


async def test_the_status_after_an_unusable_message_counts():
    ends = Ends()
    call = ends.call()
    ends.exchange()
    ends.answer(call, body=b"\x07\0\0\0\0", trailers=((b"grpc-status", b"14"),))
    assert error(call).code.name == "UNAVAILABLE"


async def test_an_unusable_message_without_end_is_cut_off():
    """The status does not come, so the request is not known to be accepted."""
    ends = Ends()
    call = ends.call()
    ends.exchange()
    ends.server.send_response(call.stream_id, HEAD)
    ends.server.send_data(call.stream_id, b"\x07\0\0\0\0")
    for _ in range(MAX_RESPONSE_BYTES // 16_000 + 2):
        assert call.outcomes == []
        ends.server.send_data(call.stream_id, bytes(16_000))
        ends.exchange()
        if call.outcomes:
            break
    assert error(call).code.name == "INTERNAL"
    assert "flag" in error(call).text
    assert not ends.connection.has_streams()


async def test_details_are_decoded():
    """The status details are decoded from base64 without padding."""
    ends = Ends()
    call = ends.call()
    ends.exchange()
    ends.answer(call, trailers=((b"grpc-status", b"8"), (b"grpc-status-details-bin", b"AQID/w")))
    assert error(call).details == b"\x01\x02\x03\xff"


@pytest.mark.parametrize(
    ("reset", "code"),
    [
        (0, "INTERNAL"),
        (1, "INTERNAL"),
        (2, "INTERNAL"),
        (8, "CANCELLED"),
        (11, "RESOURCE_EXHAUSTED"),
        (12, "PERMISSION_DENIED"),
    ],
)
async def test_resets_become_statuses(reset, code):
    """Reset codes are mapped as PROTOCOL-HTTP2 specifies."""
    ends = Ends()
    call = ends.call()
    ends.exchange()
    ends.server.reset_stream(call.stream_id, reset)
    ends.exchange()
    assert error(call).code.name == code
    assert code_from_reset(999) is grpc.StatusCode.UNKNOWN


@pytest.mark.parametrize(
    ("left_s", "code"), [(0.0, grpc.StatusCode.DEADLINE_EXCEEDED), (60.0, grpc.StatusCode.CANCELLED)]
)
async def test_a_server_that_cancels_at_the_deadline_means_the_deadline(left_s, code):
    """The server may notice the deadline before our timer does; an earlier reset has another reason."""
    ends = Ends()
    call = ends.call()
    call.deadline_s = ends.connection.loop.time() + left_s
    ends.to_server()
    ends.server.reset_stream(call.stream_id, http2_peer.ErrorCode.CANCEL)
    ends.to_client()
    assert error(call).code is code


async def test_a_refused_stream_goes_back():
    """The server never processed it."""
    ends = Ends()
    call = ends.call()
    ends.exchange()
    ends.server.reset_stream(call.stream_id, http2_peer.ErrorCode.REFUSED_STREAM)
    ends.exchange()
    assert ends.given_back == [(call, True)]
    assert call.outcomes == []


async def test_goaway_ends_some_and_gives_back_the_rest():
    """Streams above the last id were not processed; those below finish, then the connection closes."""
    ends = Ends()
    first, second = ends.call(), ends.call()
    ends.exchange()
    unsent = ends.call()
    ends.server.send_goaway(http2_peer.ErrorCode.NO_ERROR, last_stream_id=first.stream_id, debug_data=b"max_age")
    ends.to_client()
    assert "max_age" in ends.connection.unusable.result()
    assert not ends.connection.has_room()
    ends.exchange()
    assert [call for call, _ in ends.given_back] == [second, unsent]
    ends.answer(first)
    assert first.outcomes == [b""]
    await asyncio.sleep(0)
    assert ends.transport.is_closed


async def test_too_many_pings_is_noted():
    """The owner pings less often afterwards."""
    ends = Ends()
    ends.server.send_goaway(http2_peer.ErrorCode.ENHANCE_YOUR_CALM, debug_data=b"too_many_pings")
    ends.to_client()
    assert ends.connection.got_too_many_pings


async def test_an_early_answer_stops_the_request():
    """A server that refuses a message by its size need not read the rest."""
    ends = Ends()
    call = ends.call(bytes(20_000_000))
    ends.to_server()
    ends.server.send_response(call.stream_id, ((b":status", b"200"), (b"grpc-status", b"8")), end_stream=True)
    ends.to_client()
    assert error(call).code is grpc.StatusCode.RESOURCE_EXHAUSTED
    events = ends.exchange()
    assert http2_peer.StreamReset in {type(event) for event in events}
    assert ends.connection.session.queued_bytes == 0


async def test_a_cancelled_call_is_reset():
    """The server is notified, and what it still sends has no effect."""
    ends = Ends()
    call = ends.call()
    ends.to_server()
    ends.server.send_response(call.stream_id, HEAD)
    late = ends.server.data_to_send()
    call.is_settled = True
    ends.connection.cancel(call)
    ends.connection.receive(late)
    (event,) = [event for event in ends.to_server() if isinstance(event, http2_peer.StreamReset)]
    assert (event.stream_id, event.error_code) == (call.stream_id, http2_peer.ErrorCode.CANCEL)
    assert ends.connection.has_room()


async def test_a_lost_connection_fails_its_calls():
    """They may have been processed: the queue decides whether to send them again."""
    ends = Ends()
    call = ends.call()
    ends.exchange()
    ends.connection.connection_lost(ConnectionResetError("reset by peer"))
    assert (error(call).code, "reset by peer" in error(call).text) == (grpc.StatusCode.UNAVAILABLE, True)
    assert ends.connection.closed.done()


async def test_an_answer_before_a_violation_counts():
    """The call was processed: sending it again would duplicate it."""
    ends = Ends()
    answered, unanswered = ends.call(), ends.call()
    ends.exchange()
    ends.answer(answered, deliver=False)
    priority_of_stream_0 = b"\0\0\5\2\0\0\0\0\0" + bytes(5)
    ends.connection.receive(ends.server.data_to_send() + priority_of_stream_0)
    assert ends.transport.is_aborted
    ends.connection.connection_lost(None)
    assert answered.outcomes == [b""]
    assert "violated HTTP/2" in error(unanswered).text


async def test_a_server_of_another_protocol_is_reported():
    """The error says so, for example if the port belongs to an HTTP/1.1 server."""
    ends = Ends(connect=False)
    ends.connection.receive(b"HTTP/1.1 400 Bad Request\r\n\r\n")
    assert ends.transport.is_closed
    ends.connection.connection_lost(None)
    with pytest.raises(ConnectionError, match="violated HTTP/2"):
        await ends.connection.ready


async def test_pings_find_a_dead_server():
    """Without input and with an unacknowledged ping, the connection is cut."""
    ends = Ends()
    call = ends.call()
    ends.exchange()
    ends.connection.keep_alive(0.01, 0.01, without_streams=False)
    async with asyncio.timeout(5):
        while not ends.transport.is_aborted:
            await asyncio.sleep(0.005)
    assert any(isinstance(event, http2_peer.PingReceived) for event in ends.to_server())
    ends.connection.connection_lost(None)
    assert "keepalive" in error(call).text


async def test_a_server_that_does_not_read_is_read_from():
    """If both ends waited for the other to read, they would wait forever."""
    ends = Ends()
    ends.connection.pause_writing()
    ends.call()
    ends.server.ping(b"12345678")
    ends.to_client()
    assert not ends.transport.written
    ends.connection.resume_writing()
    assert ends.transport.written


@pytest.mark.parametrize(
    "flood",
    [
        b"\x00\x00\x08\x06\x00\x00\x00\x00\x0012345678" * 50_000,  # PING, our answers unread
        b"\x00\x00\x00\x04\x00\x00\x00\x00\x00" * 50_000,  # SETTINGS
        b"\x00\x00\x01\x01\x00\x00\x00\x00\x01\x88" + b"\x00\x00\x00\x09\x00\x00\x00\x00\x01" * 100_000,  # CONTINUATION
    ],
    ids=["ping", "settings", "continuation"],
)
async def test_floods_end_the_connection(flood):
    """Bounded by libnghttp2's own limits while the server reads nothing."""
    ends = Ends()
    call = ends.call()
    ends.to_server()
    ends.connection.pause_writing()
    ends.connection.receive(flood)
    assert ends.transport.is_aborted
    ends.connection.connection_lost(None)
    assert error(call).code is grpc.StatusCode.UNAVAILABLE


@pytest.mark.parametrize(
    ("wire", "said"),
    [
        (b"\x00\x00\x04\x05\x04\x00\x00\x00\x01\x00\x00\x00\x02", "PUSH_PROMISE"),
        (b"\x00\x00\x01\x00\x00\x00\x00\x00\x00a", "DATA"),
    ],
)
async def test_breaking_the_protocol_ends_the_connection(wire, said):
    """Pushes were never enabled; the calls fail with that reason."""
    ends = Ends()
    call = ends.call()
    ends.to_server()
    ends.connection.receive(wire)
    assert ends.transport.is_closed
    ends.connection.connection_lost(None)
    assert (error(call).code, said in error(call).text) == (grpc.StatusCode.UNAVAILABLE, True)


async def test_a_server_that_reads_nothing_is_left(monkeypatch):
    """Otherwise the calls waiting for it would wait forever."""
    monkeypatch.setattr(client_connection, "_STALLED_S", 0.01)
    ends = Ends()
    call = ends.call()
    ends.connection.pause_writing()
    async with asyncio.timeout(5):
        while not ends.transport.is_aborted:
            await asyncio.sleep(0.005)
    ends.connection.connection_lost(None)
    assert "has not read any data" in error(call).text


async def test_headers_without_end_are_cut_off():
    """A header list over the limit is never kept."""
    ends = Ends()
    call = ends.call()
    ends.to_server()
    ends.server.send_response(call.stream_id, (*HEAD, *((b"x-%d" % n, b"") for n in range(1000))), end_stream=True)
    ends.to_client()
    assert ends.transport.is_aborted
    ends.connection.connection_lost(None)
    assert error(call).code is grpc.StatusCode.UNAVAILABLE


ANSWERS = st.lists(
    st.one_of(
        st.builds(lambda body: (HEAD, encode_message(body), OK), st.binary(max_size=300)),
        st.just((HEAD, b"", ((b"grpc-status", b"13"), (b"grpc-message", b"100%25")))),
        st.just(
            ((*HEAD, (b"grpc-encoding", b"gzip")), encode_message(compress("gzip", b"z" * 500), compressed=True), OK)
        ),
        st.just(((*HEAD, (b"x-pad", b"p" * 200)), 2 * encode_message(b"a"), OK)),
        st.integers(1, 13),
    ),
    min_size=1,
    max_size=6,
)


@settings(max_examples=60, deadline=None)
@given(ANSWERS, st.data())
def test_any_split_of_the_bytes_gives_the_same_answers(answers, data):
    """Frames may be cut anywhere, and several may arrive at once."""

    def outcomes(split):
        async def run():
            ends = Ends()
            calls = [ends.call(b"q%d" % n) for n in range(len(answers))]
            ends.to_server()
            for call, answer in zip(calls, answers, strict=True):
                if isinstance(answer, int):
                    ends.server.reset_stream(call.stream_id, answer)
                    continue
                head, body, trailers = answer
                ends.server.send_response(call.stream_id, head)
                if body:
                    ends.server.send_data(call.stream_id, body)
                ends.server.send_trailers(call.stream_id, trailers)
            ends.server.send_goaway(http2_peer.ErrorCode.NO_ERROR, last_stream_id=calls[-1].stream_id)
            wire = ends.server.data_to_send()
            for start, end in split(wire):
                ends.connection.receive(wire[start:end])
            assert not ends.connection.has_streams()
            given_back = {call for call, _ in ends.given_back}
            return [
                "again"
                if call in given_back
                else (
                    (error(call).code, error(call).text) if isinstance(call.outcomes[0], CallError) else call.outcomes
                )
                for call in calls
            ]

        return asyncio.run(run())

    def cut(wire):
        cuts = sorted(data.draw(st.lists(st.integers(0, len(wire)), max_size=12)))
        return zip([0, *cuts], [*cuts, len(wire)], strict=True)

    whole = outcomes(lambda wire: [(0, len(wire))])
    assert outcomes(cut) == whole
    assert outcomes(lambda wire: [(n, n + 1) for n in range(len(wire))]) == whole


@settings(max_examples=100, deadline=None)
@given(st.binary(max_size=400), st.booleans())
def test_no_bytes_raise(garbage, as_frames):
    """Whatever a server sends, the connection continues or is cut; calls are settled or wait."""

    async def run():
        ends = Ends()
        call = ends.call()
        ends.to_server()
        wire = garbage
        if as_frames:
            wire = b"".join(
                len(part).to_bytes(3, "big") + bytes((kind % 11, kind, 0, 0, 0, kind & 1)) + part
                for kind, part in (
                    (garbage[n], garbage[n + 1 : n + 1 + garbage[n] % 40]) for n in range(0, len(garbage), 41)
                )
            )
        ends.connection.receive(wire)
        ends.connection.flush()
        ends.connection.connection_lost(None)
        assert len(call.outcomes) == 1 or ends.given_back

    asyncio.run(run())
