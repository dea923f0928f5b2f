"""The receiver over real sockets, what it makes of push requests, and hostile ones."""

import contextlib
import gzip
import io
import json
import random
import struct

import aiohttp
import cramjam
import grpc
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jaeger_peer import varint
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest

from collector.api import Receipt, RetryableError
from collector.model import Logs, MalformedBatch, Signal
from collector.testing import FakeHost, RecordingTelemetry, make_settings
from receivers.loki import factory
from receivers.loki._push import decode_json, decode_proto
from receivers.loki.labels import attributes_of, parse_labels

ANY = "127.0.0.1:0"
JSON = {"Content-Type": "application/json"}
PROTOBUF = {"Content-Type": "application/x-protobuf"}
NOW = 1_800_000_000_000_000_000


def field(number, data):
    return varint(number << 3 | 2) + varint(len(data)) + data


def quoted(text):
    return '"' + "".join(f"\\U{ord(c):08x}" if c in '"\\\n' or not c.isprintable() else c for c in text) + '"'


def push_proto(streams):
    """A PushRequest of (labels, [(ns, line, metadata)])."""
    out = b""
    for labels, entries in streams:
        text = "{" + ", ".join(f"{name}={quoted(value)}" for name, value in labels.items()) + "}"
        stream = field(1, text.encode())
        for time_ns, line, metadata in entries:
            seconds, nanos = divmod(time_ns, 10**9)
            entry = field(1, varint(8) + varint(seconds) + varint(16) + varint(nanos)) + field(2, line.encode())
            for key, value in metadata.items():
                entry += field(3, field(1, key.encode()) + field(2, value.encode()))
            stream += field(2, entry)
        out += field(1, stream)
    return out


def push_json(streams):
    return json.dumps(
        {
            "streams": [
                {"stream": labels, "values": [[str(at), line, metadata] for at, line, metadata in entries]}
                for labels, entries in streams
            ]
        }
    ).encode()


def records(wire):
    """(time, observed, body, attributes) of each record."""
    Logs.check(wire)
    return [
        (
            record.time_unix_nano,
            record.observed_time_unix_nano,
            record.body.string_value,
            [(pair.key, pair.value.string_value) for pair in record.attributes],
        )
        for resource in ExportLogsServiceRequest.FromString(wire).resource_logs
        for scope in resource.scope_logs
        for record in scope.log_records
    ]


NAMES = st.from_regex(r"\A[a-z_][a-z0-9_]{0,8}\Z")
TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
ENTRIES = st.tuples(st.integers(1, 2**62), TEXTS, st.dictionaries(TEXTS, TEXTS, max_size=2))
STREAMS = st.lists(st.tuples(st.dictionaries(NAMES, TEXTS, max_size=3), st.lists(ENTRIES, max_size=3)), max_size=3)


@settings(deadline=None)
@given(streams=STREAMS, keeps=st.booleans())
def test_both_encodings_become_the_same_records(streams, keeps):
    """Labels and structured metadata are attributes; internal labels are not."""
    expected = [
        (
            at if keeps else NOW,
            NOW,
            line,
            [(name, value) for name, value in labels.items() if not name.startswith("__")] + list(metadata.items()),
        )
        for labels, entries in streams
        for at, line, metadata in entries
    ]
    for wire in (
        decode_proto(push_proto(streams), NOW, keeps, attributes_of),
        decode_json(push_json(streams), NOW, keeps, attributes_of),
    ):
        assert (records(wire) if wire else []) == expected


@pytest.mark.parametrize(
    ("text", "labels"),
    [
        ("{}", {}),
        (' { job = "a" , b=`c\\d`, } ', {"job": "a", "b": "c\\d"}),
        (r'{a="\x41\u00e9\101\n\"\\"}', {"a": 'AéA\n"\\'}),
        ('{a.b="c"}', {"a.b": "c"}),
    ],
)
def test_labels_are_read_as_in_go(text, labels):
    """Strings in quotes with escapes, and in backticks."""
    assert parse_labels(text) == labels


@pytest.mark.parametrize(
    "text",
    [
        "",
        "job",
        "{job}",
        '{job="a}',
        '{="a"}',
        '{a="b" c="d"}',
        '{a="b", a="c"}',
        r'{a="\q"}',
        r'{a="\uD800"}',
        "{a=1}",
    ],
)
def test_other_labels_are_refused(text):
    """With an example of what is expected."""
    with pytest.raises(MalformedBatch, match=r"streams\.labels"):
        parse_labels(text)


def test_the_older_form_of_json():
    """Labels as text, and times in RFC 3339 with nanoseconds."""
    body = {
        "streams": [{"labels": '{job="a"}', "entries": [{"ts": "2024-02-03T04:05:06.123456789+01:00", "line": "x"}]}]
    }
    ((at, _, line, attributes),) = records(decode_json(json.dumps(body).encode(), NOW, True, attributes_of))
    assert (at, line, attributes) == (1706929506123456789, "x", [("job", "a")])


@pytest.mark.parametrize(
    "body",
    [
        "", "[]", "{}", '{"streams": {}}', '{"streams": [7]}', '{"streams": [{"stream": {"a": 1}, "values": []}]}',
        '{"streams": [{"stream": {}, "values": [["1"]]}]}', '{"streams": [{"stream": {}, "values": [["x", "y"]]}]}',
        '{"streams": [{"stream": {}, "values": [["1", 2]]}]}', '{"streams": [{"labels": "x", "entries": [{"line": "y"}]}]}',
        '{"streams": [{"stream": {}, "values": [["1", "y", []]]}]}', '{"streams": [{"stream": {}, "values": "x"}]}',
        '{"streams": [{"stream": {}, "values": [[1.5, "y"]]}]}',
    ],
)  # fmt: skip
def test_json_that_is_no_push_request(body):
    """It is refused as a whole."""
    with pytest.raises(MalformedBatch):
        decode_json(body.encode(), NOW, True, attributes_of)


def test_damaged_input_is_decoded_or_refused():
    """Bit flips, cuts and insertions."""
    rng = random.Random(1)
    streams = [({"job": "a", "b": "c"}, [(5, "line", {"k": "v"}), (2**62, "x", {})])] * 3
    whole = [(push_proto(streams), decode_proto), (push_json(streams), decode_json)]
    accepted = 0
    for _ in range(3000):
        octets, decode = rng.choice(whole)
        octets = bytearray(octets)
        at = rng.randrange(len(octets))
        kind = rng.randrange(3)
        if kind == 0:
            octets[at] ^= 1 << rng.randrange(8)
        elif kind == 1:
            del octets[at : at + rng.choice((1, 4, 40))]
        else:
            octets[at:at] = rng.choice((b"\0", b"\xff", b"\x7f\xff", struct.pack(">I", 2**31)))
        try:
            wire = decode(bytes(octets), NOW, True, attributes_of)
        except MalformedBatch:
            continue
        if wire:
            accepted += Logs.check(wire).batch is not None
    assert accepted


class Door:
    """Records what it takes; ``error`` makes it refuse."""

    def __init__(self):
        self.taken, self.error = [], None

    def for_transport(self, transport):
        door = self

        class Transport:
            def try_consume_request(self, wire, context, on_done):
                door.taken.append((transport, wire, context))
                on_done(Receipt(1) if door.error is None else door.error)

        return Transport()


@contextlib.asynccontextmanager
async def receiving(**config):
    door, telemetry, host = Door(), RecordingTelemetry(), FakeHost()
    made = make_settings(factory, signals={Signal.LOGS}, outputs={Signal.LOGS: door}, telemetry=telemetry)
    protocols = {"http": {"endpoint": ANY}, "grpc": {"endpoint": ANY}}
    receiver = factory.create(made, factory.config_type.model_validate({"protocols": protocols} | config))
    await receiver.start(host)
    try:
        yield door, receiver, telemetry
    finally:
        await receiver.shutdown()
    assert host.admission.used_bytes == 0


async def post(receiver, body, headers, path="/loki/api/v1/push", method="POST"):
    url = f"http://{receiver.addresses['http']}{path}"
    async with (
        aiohttp.ClientSession() as session,
        session.request(method, url, data=io.BytesIO(body), headers=headers) as answer,
    ):
        return answer.status, await answer.text(), answer.headers


async def test_every_way_reaches_the_door():
    """Snappy with and without the header, gzip, both paths, and gRPC."""
    streams = [({"job": "a"}, [(5, "line", {})])]
    proto = push_proto(streams)
    snappy = bytes(cramjam.snappy.compress_raw(proto))
    async with receiving(use_incoming_timestamp=True) as (door, receiver, _):
        for body, headers, path in (
            (snappy, PROTOBUF, "/loki/api/v1/push"),
            (snappy, PROTOBUF | {"Content-Encoding": "snappy"}, "/api/prom/push"),
            (gzip.compress(proto), PROTOBUF | {"Content-Encoding": "gzip"}, "/loki/api/v1/push"),
            (push_json(streams), {"Content-Type": "application/json; charset=utf-8"}, "/loki/api/v1/push"),
            (gzip.compress(push_json(streams)), JSON | {"Content-Encoding": "gzip"}, "/loki/api/v1/push"),
        ):
            assert (await post(receiver, body, headers, path))[:2] == (204, "")
        async with grpc.aio.insecure_channel(receiver.addresses["grpc"]) as channel:
            assert await channel.unary_unary("/logproto.Pusher/Push")(proto, timeout=10) == b""
    assert [name for name, *_ in door.taken] == ["http"] * 5 + ["grpc"]
    assert all(records(wire)[0][0] == 5 and context.local_peer for _, wire, context in door.taken)


async def test_bad_requests_get_a_clear_answer():
    """400, 405, 415, and 503 if there is no room."""
    bomb = bytes(cramjam.snappy.compress_raw(bytes(30_000_000)))
    async with receiving() as (door, receiver, telemetry):
        for body, headers, status, text in (
            (b"junk", PROTOBUF, 400, "snappy"),
            (bomb, PROTOBUF, 400, "after decompression"),
            (b'{"streams": [{"labels": "x", "entries": [{"line": "y"}]}]}', JSON, 400, "streams.labels"),
            (b"x", {"Content-Type": "text/plain"}, 415, "application/x-protobuf"),
        ):
            found, answer, _ = await post(receiver, body, headers)
            assert (found, text in answer) == (status, True), answer
        assert (await post(receiver, b"", JSON, method="GET"))[0] == 405
        assert not door.taken
        door.error = RetryableError("no memory", reason="memory_limit", retry_after_s=3)
        body = push_json([({"job": "a"}, [(5, "line", {})])])
        status, _, headers = await post(receiver, body, JSON)
        assert (status, headers["Retry-After"]) == (503, "3")
        name = "tailrace_receiver_refused_requests"
        assert telemetry.value(name, transport="http", reason="malformed") == 3
        assert telemetry.value(name, transport="http", reason="memory_limit") == 1
