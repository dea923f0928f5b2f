"""The gRPC server, byte by byte, without sockets and with a manual clock."""

import base64
import gzip

import grpc
import pytest
from google.rpc import error_details_pb2, status_pb2
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import http2_peer
from collector.api import RetryableError
from collector.testing import FakeHost
from collector.testing.doubles import FakeAdmission
from collector.transport.compression import compress
from collector.transport.grpc.framing import encode_message
from collector.transport.grpc.method import Aborted

C = "/a.B/C"


def status(client, stream_id):
    """Return (gRPC status, message) of a response; None: there is none yet."""
    answer = client.answer(stream_id)
    return answer and (int(answer[0][b"grpc-status"]), answer[0].get(b"grpc-message", b"").decode())


def test_answer_is_headers_message_trailers(grpc_server):
    """A call's bytes reach the method, and its response is sent in the order gRPC specifies."""
    client = grpc_server(lambda message, _, reply: reply(message[::-1])).connect()
    stream_id = client.request(C, encode_message(b"abc"))
    fields, body, error = client.answer(stream_id)
    assert (body, error) == (encode_message(b"cba"), None)
    assert list(fields.items()) == [
        (b":status", b"200"),
        (b"content-type", b"application/grpc"),
        (b"grpc-accept-encoding", b"gzip,zstd,snappy"),
        (b"grpc-status", b"0"),
    ]


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(cuts=st.lists(st.integers(0, 3000), max_size=12))
def test_any_split_of_the_bytes_gives_the_same_answers(grpc_server, cuts):
    """Valid and invalid calls in one stream of bytes, however TCP cuts it."""
    whole, cut = grpc_server(), grpc_server()
    clients = [whole.connect(), cut.connect()]
    bodies = [
        encode_message(b"x" * 900),
        encode_message(gzip.compress(b"y" * 50), compressed=True),
        b"\2junk",
        encode_message(b""),
    ]
    for client in clients:
        for body in bodies:
            fields = {b":method": b"POST", b":scheme": b"http", b":path": C.encode(), b":authority": b"x"}
            fields |= {b"content-type": b"application/grpc", b"grpc-encoding": b"gzip"}
            stream_id = client.connection.send_request(fields.items())
            client.connection.send_data(stream_id, body, end_stream=True)
    said = clients[0].connection.data_to_send()
    clients[1].connection.data_to_send()
    clients[0].feed(said)
    ends = sorted({min(cut, len(said)) for cut in cuts} | {len(said)})
    for start, end in zip([0, *ends], ends, strict=False):
        clients[1].feed(said[start:end])
    for client in clients:
        client.exchange()
    answers = [[client.answer(stream_id) for stream_id in (1, 3, 5, 7)] for client in clients]
    assert answers[0] == answers[1]
    assert [status(clients[0], stream_id)[0] for stream_id in (1, 3, 5, 7)] == [0, 0, 13, 0]
    assert whole.refused == cut.refused == {"framing": 1}


def test_a_message_in_pieces(grpc_server):
    """Frames of any size, with the end of the stream in a frame of its own."""
    client = grpc_server().connect()
    stream_id = client.request(C, end_stream=False)
    for octet in encode_message(b"abcdef"):
        client.connection.send_data(stream_id, bytes([octet]))
        client.exchange()
    assert client.answer(stream_id) is None
    client.connection.end_stream(stream_id)
    client.exchange()
    assert client.answer(stream_id)[1] == encode_message(b"abcdef")


@pytest.mark.parametrize(
    ("headers", "http_status", "code", "reason"),
    [
        ({"content_type": "application/grpc+proto"}, b"200", 0, None),
        ({"content_type": "application/grpc;charset=utf-8"}, b"200", 0, None),
        ({"content_type": "application/grpc-web"}, b"415", 3, "media_type"),
        ({"content_type": "application/json"}, b"415", 3, "media_type"),
        ({"content_type": None}, b"415", 3, "media_type"),
        ({":method": "PUT"}, b"405", 13, "method"),
        ({":path": "/a.B/D"}, b"200", 12, "unknown_method"),
        ({"grpc_encoding": "br"}, b"200", 12, "encoding"),
        ({"grpc_encoding": "identity"}, b"200", 0, None),
        ({"te": None}, b"200", 0, None),
        ({"x_bin": "***"}, b"200", 13, "metadata"),
        ({"grpc_timeout": "soon"}, b"200", 13, "timeout_header"),
        ({"grpc_timeout": "9S"}, b"200", 0, None),
    ],
)
@pytest.mark.parametrize("end_stream", [True, False])
def test_heads(grpc_server, headers, http_status, code, reason, end_stream):
    """What the headers alone decide is answered before the body, and the rest of the body is not wanted."""
    serving = grpc_server()
    client = serving.connect()
    for _ in range(2):  # the second one from what is remembered
        stream_id = client.request(headers.get(":path", C), encode_message(b"m"), end_stream=end_stream, **headers)
        if code == 0 and not end_stream:
            assert client.answer(stream_id) is None
            continue
        fields, _, error = client.answer(stream_id)
        assert (fields[b":status"], int(fields[b"grpc-status"])) == (http_status, code)
        assert error == (None if end_stream else 0)
    assert serving.refused == ({reason: 2} if reason else {})


@pytest.mark.parametrize(
    ("body", "code", "text"),
    [
        (b"", 13, "without a request message"),
        (b"\0\0\0", 13, "ends within a message"),
        (b"\0\0\0\0\5abc", 13, "ends within a message"),
        (encode_message(b"a") * 2, 13, "more than one message"),
        (b"\7" + encode_message(b"a")[1:], 13, "neither 0 nor 1"),
        (b"\0\xff\xff\xff\xff", 8, "received message larger than max (4294967295 vs. 67108864)"),
        (b"\1\0\0\0\1a", 13, "compressed flag set"),
    ],
)
def test_invalid_messages(grpc_server, body, code, text):
    """They are refused with the codes and texts of grpc-go."""
    client = grpc_server().connect()
    stream_id = client.request(C, body)
    assert status(client, stream_id)[0] == code
    assert text in status(client, stream_id)[1]


def test_too_large_is_refused_by_the_header_of_the_message(grpc_server):
    """No byte of the message has to arrive; bytes that arrive anyway are dropped."""
    client = grpc_server(max_recv_msg_size_mib=1).connect()
    stream_id = client.request(C, b"\0\0\x20\0\0", end_stream=False)
    fields, _, error = client.answer(stream_id)
    assert (fields[b"grpc-status"], error) == (b"8", 0)


@pytest.mark.parametrize("name", ["gzip", "zstd", "snappy"])
def test_compressed_bomb_is_stopped_at_the_limit(grpc_server, name):
    """A small message that decompresses to too much is RESOURCE_EXHAUSTED, and nothing stays reserved."""
    serving = grpc_server(max_recv_msg_size_mib=1)
    client = serving.connect()
    bomb = compress("x-snappy-framed" if name == "snappy" else name, bytes(2_000_000))
    stream_id = client.request(C, encode_message(bomb, compressed=True), grpc_encoding=name)
    assert status(client, stream_id) == (8, "grpc: received message after decompression larger than max 1048576")
    assert serving.host.admission.used_bytes == 0


def test_metadata_over_the_limit_ends_the_call_and_not_the_connection(grpc_server):
    """RESOURCE_EXHAUSTED; several times the limit ends the connection, as only a hostile client sends that."""
    serving = grpc_server()
    client = serving.connect()
    client = _reconnect(serving, http2_peer.client(max_sent_header_bytes=1 << 24))
    stream_id = client.request(C, encode_message(b""), **{f"x{i}": "v" * 1000 for i in range(70)})
    assert status(client, stream_id)[0] == 8
    assert status(client, client.request(C, encode_message(b""))) == (0, "")
    client.connection.send_request([(b":method", b"POST"), *((b"x%d" % i, b"v" * 2500) for i in range(110))])
    client.exchange()
    assert client.is_cut_off
    assert serving.closed == {"flood": 1}


def _reconnect(serving, client_connection):
    client = serving.connect()
    client.protocol = serving.http2.connection()
    client.transport = type(client.transport)(serving.loop, client.protocol)
    client.connection, client.events = client_connection, []
    client.protocol.connection_made(client.transport)
    client.exchange()
    return client


def test_metadata_of_both_kinds_reaches_the_method_and_equal_calls_share_it(grpc_server):
    """Several values, binary ones decoded; calls that differ only in their deadline share one object."""
    calls = []
    client = grpc_server(lambda _, call, reply: (calls.append(call), reply(b""))).connect()
    binary = base64.b64encode(b"\xff\0").rstrip(b"=") + b"," + base64.b64encode(b"text")
    for timeout in ("5S", "4999u", "3M"):
        client.request(C, encode_message(b""), grpc_timeout=timeout, x_tenant="a", x_bin=binary)
    client.request(C, encode_message(b""), x_tenant="b")
    assert calls[0] is calls[1] is calls[2]
    assert calls[0].metadata["x-tenant"] == ("a",)
    assert calls[0].metadata["x-bin"] == ("/wA=", "text")
    assert ":path" not in calls[0].metadata
    assert calls[3].metadata["x-tenant"] == ("b",)
    assert calls[0].is_local is True


def test_what_is_remembered_of_headers_is_bounded(grpc_server):
    """A client that varies its headers makes the server slower, but not larger."""
    serving = grpc_server()
    client = serving.connect()
    for i in range(600):
        assert status(client, client.request(C, encode_message(b""), x=str(i))) == (0, "")
    assert len(serving.server._calls.heads) <= 256


def test_deadline_is_answered_alone_and_the_late_answer_is_dropped(grpc_server):
    """DEADLINE_EXCEEDED at the time the client asked for; the method continues."""
    replies = []
    serving = grpc_server(lambda _message, _call, reply: replies.append(reply))
    client = serving.connect()
    ids = [client.request(C, encode_message(b""), grpc_timeout=timeout) for timeout in ("3S", "1S", "100m", "2S")]
    serving.loop.run(1.5)
    client.exchange()
    assert [answer and answer[0] for answer in (status(client, stream_id) for stream_id in ids)] == [None, 4, 4, None]
    for reply in replies:
        reply(b"late")
    client.exchange()
    assert [status(client, stream_id)[0] for stream_id in ids] == [0, 4, 4, 0]
    assert serving.refused == {"deadline": 2}


def test_cancelled_call_gets_nothing(grpc_server):
    """After RST_STREAM, a later reply is dropped and affects nothing else."""
    replies = []
    serving = grpc_server(lambda _message, _call, reply: replies.append(reply))
    client = serving.connect()
    stream_id = client.request(C, encode_message(b""))
    client.connection.reset_stream(stream_id)
    client.exchange()
    events = len(client.events)
    replies[0](b"late")
    client.exchange()
    assert not [event for event in client.events[events:] if getattr(event, "stream_id", 0) == stream_id]
    assert not client.protocol.streams
    assert not serving.refused
    client.transport.close()
    serving.loop.run()
    replies[0](b"later")


def test_errors_carry_details_and_any_text(grpc_server):
    """grpc-status-details-bin without padding, grpc-message percent-encoded."""

    def method(_message, _call, reply):
        reply(Aborted(grpc.StatusCode.ABORTED, "ä\n%", reason="r", details=b"\xff\xfe"))

    client = grpc_server(method).connect()
    fields, body, _ = client.answer(client.request(C, encode_message(b"")))
    assert body == b""
    assert (fields[b"grpc-status"], fields[b"grpc-message"], fields[b"grpc-status-details-bin"]) == (
        b"10",
        b"%C3%A4%0A%25",
        b"//4",
    )


def test_a_bug_in_a_method_is_answered_and_logged_at_most_once_a_second(grpc_server):
    """INTERNAL, without the text of the exception."""

    def method(_message, _call, _reply):
        raise ZeroDivisionError("secret")

    serving = grpc_server(method)
    client = serving.connect()
    assert [status(client, client.request(C, encode_message(b""))) for _ in range(3)] == [(13, "internal error")] * 3
    assert len(serving.log.of_level("error")) == 1


def test_half_sent_message_gives_up_its_place(grpc_server):
    """After a minute without input: UNAVAILABLE, and the rest is not wanted."""
    serving = grpc_server()
    client = serving.connect()
    stream_id = client.request(C, b"\0\0\0", end_stream=False)
    serving.loop.run(59)
    client.exchange()
    assert client.answer(stream_id) is None
    serving.loop.run(40)
    client.exchange()
    assert status(client, stream_id)[0] == 14
    assert client.answer(stream_id)[2] == 0
    assert serving.refused == {"timeout": 1}


def test_memory_of_messages_on_their_way_is_booked_and_bounded(grpc_server):
    """Above the budget, incomplete requests are answered UNAVAILABLE with RetryInfo; nothing stays reserved."""
    admission = FakeAdmission(300_000)
    serving = grpc_server(host=FakeHost(admission=admission))
    client = serving.connect()
    ids = []
    for _ in range(3):
        ids.append(client.request(C, b"\0\0\x10\0\0" + bytes(90_000), end_stream=False))
        assert admission.used_bytes <= 300_000
    assert [status(client, stream_id)[0] for stream_id in ids] == [14] * 3
    assert admission.used_bytes == 0
    assert serving.refused == {"memory_limit": 3}
    client.request(C, b"\0\0\x10\0\0" + bytes(90_000), end_stream=False)
    assert admission.used_bytes >= 90_000
    client.transport.close()
    serving.loop.run()
    assert admission.used_bytes == 0


def test_over_budget_says_when_to_come_back(grpc_server):
    """The status has a RetryInfo if the budget suggests a delay."""

    class Full(FakeAdmission):
        def reserve(self, size_bytes):
            raise RetryableError("full", reason="memory_limit", retry_after_s=1.5)

    client = grpc_server(host=FakeHost(admission=Full())).connect()
    fields, _, _ = client.answer(client.request(C, b"\0\0\x10\0\0" + bytes(90_000), end_stream=False))
    details = status_pb2.Status.FromString(base64.b64decode(fields[b"grpc-status-details-bin"] + b"=="))
    retry = error_details_pb2.RetryInfo()
    assert details.details[0].Unpack(retry)
    assert retry.retry_delay.ToNanoseconds() == 1_500_000_000
