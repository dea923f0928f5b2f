"""The receiver over a real socket, and what its decoders make of hostile and unusual input."""

import contextlib
import gzip
import json
import random
import zlib

import aiohttp
import pytest
import zipkin_peer as peer
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from collector.api import Receipt, RetryableError
from collector.model import MalformedBatch, Signal, Traces
from collector.testing import FakeHost, RecordingTelemetry, make_settings
from receivers.zipkin import _v1, _v2, factory

SPAN = {"traceId": "1", "id": "2", "name": "get", "timestamp": 5, "duration": 3}
JSON = {"Content-Type": "application/json"}


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
    settings = make_settings(factory, signals={Signal.TRACES}, outputs={Signal.TRACES: door}, telemetry=telemetry)
    receiver = factory.create(settings, factory.config_type.model_validate({"endpoint": "127.0.0.1:0"} | config))
    await receiver.start(host)
    try:
        yield door, receiver, telemetry
    finally:
        await receiver.shutdown()
    assert host.admission.used_bytes == 0


async def post(receiver, body, headers=JSON, path="/api/v2/spans", method="POST"):
    url = f"http://{receiver.address}{path}"
    async with aiohttp.ClientSession() as session, session.request(method, url, data=body, headers=headers) as answer:
        return answer.status, await answer.text(), answer.headers


def spans(wire):
    request = ExportTraceServiceRequest.FromString(wire)
    return [
        (group.resource, scope.scope, span)
        for group in request.resource_spans
        for scope in group.scope_spans
        for span in scope.spans
    ]


def attributes(holder):
    return {pair.key: getattr(pair.value, pair.value.WhichOneof("value")) for pair in holder.attributes}


async def test_every_format_reaches_the_door():
    """By path and media type, compressed or not; the transports are the Collector's."""
    rng = random.Random(1)
    v1 = peer.v1_spans(rng, 1)
    v2 = peer.v2_spans(rng, 1)
    async with receiving() as (door, receiver, _):
        for path, media_type, body in (
            ("/api/v2/spans", "application/json", peer.v2_json(v2)),
            ("/", "", peer.v2_json(v2)),
            ("/api/v2/spans", "application/x-protobuf", peer.v2_proto(v2)),
            ("/api/v1/spans", "application/json; charset=utf-8", peer.v1_json(v1)),
            ("/prefix/api/v1/spans", "application/x-thrift", peer.v1_thrift(v1)),
        ):
            assert (await post(receiver, body, {"Content-Type": media_type}, path))[:2] == (202, "")
        for encoding, compress in (("gzip", gzip.compress), ("deflate", zlib.compress), ("zlib", zlib.compress)):
            headers = JSON | {"Content-Encoding": encoding}
            assert (await post(receiver, compress(peer.v2_json(v2)), headers))[0] == 202
    assert [name for name, *_ in door.taken] == [
        "http_v2_json", "http_v2_json", "http_v2_proto", "http_v1_json", "http_v1_thrift", *["http_v2_json"] * 3,
    ]  # fmt: skip
    assert all(Traces.check(wire).batch is not None and context.local_peer for _, wire, context in door.taken)


async def test_bad_requests_get_a_clear_answer():
    """400 names the span and the field; 503 when there is no room; 405 for other methods."""
    async with receiving() as (door, receiver, telemetry):
        status, text, _ = await post(receiver, json.dumps([SPAN, SPAN | {"id": "<x>"}]))
        assert (status, text) == (400, "spans[1].id: expected 1 to 16 hexadecimal digits")
        assert (await post(receiver, b"[]"))[0] == 202
        assert (await post(receiver, b"", method="GET"))[0] == 405
        assert not door.taken
        door.error = RetryableError("no memory", reason="memory_limit", retry_after_s=3)
        status, _, headers = await post(receiver, json.dumps([SPAN]))
        assert (status, headers["Retry-After"]) == (503, "3")
        name = "tailrace_receiver_refused_requests"
        assert telemetry.value(name, transport="http_v2_json", reason="malformed") == 1
        assert telemetry.value(name, transport="http_v2_json", reason="memory_limit") == 1


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"traceId": ""}, "traceId"),
        ({"traceId": "f" * 33}, "traceId"),
        ({"traceId": "+1"}, "traceId"),
        ({"traceId": 5}, "traceId"),
        ({"id": "0"}, "id"),
        ({"id": "1_0"}, "id"),
        ({"parentId": "xyz"}, "parentId"),
        ({"timestamp": -1}, "timestamp"),
        ({"timestamp": 1.5}, "timestamp"),
        ({"timestamp": 1 << 64}, "timestamp"),
        ({"name": {}}, "name"),
        ({"tags": []}, ""),
        ({"tags": "x"}, "tags"),
        ({"annotations": {}}, ""),
        ({"annotations": [7]}, "annotations"),
        ({"localEndpoint": 1}, "localEndpoint"),
        ({"remoteEndpoint": {"port": 70000}}, "remoteEndpoint"),
        ({"localEndpoint": {"serviceName": 5}}, "localEndpoint"),
    ],
)
def test_json_of_version_2_is_checked(change, field):
    """A wrong type or an id that is none refuses the request; an empty list where an object belongs does not."""
    body = json.dumps([SPAN | change]).encode()
    if not field:
        assert len(spans(_v2.decode_json(body))) == 1
        return
    with pytest.raises(MalformedBatch) as caught:
        _v2.decode_json(body)
    assert caught.value.path == f"spans[0].{field}"


@pytest.mark.parametrize("body", [b"", b"{}", b"7", b"[7]", b"[[]]", b'"x"', b"[" * 5000, b'[{"a":' * 2000])
def test_bodies_that_are_no_spans(body):
    """Both versions refuse them."""
    for decode in (_v1.decode_json, _v2.decode_json):
        with pytest.raises(MalformedBatch):
            decode(body)


def test_nothing_is_lost_that_the_collector_loses():
    """Texts with bars, links and events that are not whole, other types of tags, resources of spans without a service."""
    span = SPAN | {
        "tags": {"otlp.link.0": "short", "n": 7, "t": True, "z": None, "host.name": "h"},
        "annotations": [{"timestamp": 1, "value": "a|b"}, {"timestamp": 1, "value": "x|{no json|0"}],
        "remoteEndpoint": {"ipv4": "not an address"},
    }
    ((resource, _, found),) = spans(_v2.decode_json(json.dumps([span]).encode()))
    assert attributes(resource) == {"host.name": "h"}
    assert attributes(found) == {
        "otlp.link.0": "short", "n": "7", "t": "true", "network.peer.address": "not an address",
    }  # fmt: skip
    assert [event.name for event in found.events] == ["a|b", "x|{no json|0"]
    spans_of_two_hosts = [
        SPAN | {"localEndpoint": {"serviceName": "s"}, "tags": {"host.name": host}} for host in ("a", "b", "a")
    ]
    found = spans(_v2.decode_json(json.dumps(spans_of_two_hosts).encode()))
    assert [attributes(resource)["host.name"] for resource, *_ in found] == ["a", "a", "b"]


def test_version_1_takes_what_real_clients_send():
    """The address annotations of the core have the value true; the text of an error is the message."""
    span = {
        "traceId": "0" * 15 + "1",
        "id": "0" * 15 + "2",
        "name": "get",
        "timestamp": 5,
        "binaryAnnotations": [
            {"key": "sa", "value": True, "endpoint": {"serviceName": "db"}},
            {"key": "error", "value": "no stock"},
        ],
    }
    ((resource, _, found),) = spans(_v1.decode_json(json.dumps([span]).encode()))
    assert attributes(resource) == {"service.name": "db"}
    assert (found.status.code, found.status.message) == (2, "no stock")
    assert attributes(found) == {"sa": "true"}
    for change in ({"traceId": "1"}, {"id": "0" * 16}, {"traceId": "0" * 32}, {"parentId": "0" * 16}):
        with pytest.raises(MalformedBatch):
            _v1.decode_json(json.dumps([span | change]).encode())


def test_text_that_is_not_unicode_is_repaired():
    """Half an emoji, as JavaScript cuts it, and bytes that are not UTF-8."""
    body = json.dumps([SPAN | {"name": "X"}]).encode().replace(b'"X"', b'"a\\ud83d\xff"')
    ((_, _, found),) = spans(_v2.decode_json(body))
    assert found.name.startswith("a\ufffd")


@pytest.mark.parametrize("seed", range(3))
def test_damaged_input_is_decoded_or_refused(seed):
    """Bit flips, cuts and insertions: what comes out is valid OTLP; otherwise it is refused."""
    rng = random.Random(seed)
    v1, v2 = peer.v1_spans(rng, 1), peer.v2_spans(rng, 2)
    whole = [
        (peer.v1_json(v1), _v1.decode_json),
        (peer.v1_thrift(v1), _v1.decode_thrift),
        (peer.v2_json(v2), _v2.decode_json),
        (peer.v2_proto(v2), _v2.decode_proto),
    ]
    accepted = 0
    for _ in range(1500):
        octets, decode = rng.choice(whole)
        octets = bytearray(octets)
        for _ in range(rng.choice((1, 1, 3))):
            at = rng.randrange(len(octets))
            kind = rng.randrange(3)
            if kind == 0:
                octets[at] ^= 1 << rng.randrange(8)
            elif kind == 1:
                del octets[at : at + rng.choice((1, 4, 40))]
            else:
                octets[at:at] = rng.choice((b"\0", b"\xff", b"\x7f\xff\xff\xff", b"null", b"1e9", b"[]"))
        try:
            wire = decode(bytes(octets))
        except MalformedBatch:
            continue
        if wire:
            accepted += Traces.check(wire).batch is not None
    assert accepted
