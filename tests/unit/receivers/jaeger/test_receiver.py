"""The receiver over real sockets: answers, what is counted, and what reaches the door."""

import asyncio
import contextlib
import socket

import aiohttp
import grpc
import jaeger_peer as peer
import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from collector.api import Receipt, RetryableError
from collector.model import Signal
from collector.testing import FakeHost, RecordingTelemetry, make_settings
from collector.transport.datagrams import DatagramServer
from collector.transport.endpoint import Endpoint
from receivers.jaeger import factory

ANY = "127.0.0.1:0"
EVERY = {name: {"endpoint": ANY} for name in ("grpc", "thrift_http", "thrift_compact", "thrift_binary")}
BATCH = {"service": "shop", "tags": [("hostname", "h")], "spans": [{"name": "pay"}, {"name": "ship"}]}
THRIFT = {"Content-Type": "application/x-thrift"}


class Door:
    """Records what it takes; ``error`` makes it refuse, ``is_held`` makes it answer later."""

    def __init__(self):
        self.taken, self.held = [], []
        self.error, self.is_held = None, False

    def for_transport(self, transport):
        return Transport(self, transport)


class Transport:
    def __init__(self, door, name):
        self.door, self.name = door, name

    def try_consume_request(self, wire, context, on_done):
        self.door.taken.append((self.name, wire, context))
        answer = Receipt(1) if self.door.error is None else self.door.error
        if self.door.is_held:
            self.door.held.append(lambda: on_done(answer))
        else:
            on_done(answer)


@contextlib.asynccontextmanager
async def receiving(**protocols):
    door, telemetry, host = Door(), RecordingTelemetry(), FakeHost()
    config = factory.config_type.model_validate({"protocols": protocols or EVERY})
    settings = make_settings(factory, signals={Signal.TRACES}, outputs={Signal.TRACES: door}, telemetry=telemetry)
    receiver = factory.create(settings, config)
    await receiver.start(host)
    try:
        yield door, receiver, telemetry
    finally:
        await receiver.shutdown()
    assert host.admission.used_bytes == 0


def lost_packets(telemetry, reason):
    return telemetry.value("tailrace_receiver_lost_packets", transport="udp_thrift_compact", reason=reason)


async def eventually(holds):
    async with asyncio.timeout(10):
        while not holds():
            await asyncio.sleep(0.005)


def names(wire):
    request = ExportTraceServiceRequest.FromString(wire)
    return [span.name for group in request.resource_spans for scope in group.scope_spans for span in scope.spans]


async def post(receiver, body, headers=THRIFT, method="POST", path="/api/traces"):
    url = f"http://{receiver.addresses['thrift_http']}{path}"
    async with aiohttp.ClientSession() as session, session.request(method, url, data=body, headers=headers) as answer:
        return answer.status, await answer.text(), answer.headers


def send(receiver, name, packet):
    host, _, port = receiver.addresses[name].rpartition(":")
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as udp:
        udp.sendto(packet, (host, int(port)))


async def test_every_protocol_reaches_the_door():
    """With the transport that the Collector names; the sender is known to be local."""
    async with receiving() as (door, receiver, _):
        assert (await post(receiver, peer.thrift_batch(BATCH)))[:2] == (202, "")
        assert (await post(receiver, peer.thrift_batch(BATCH), path="/api/traces?format=jaeger.thrift"))[0] == 202
        async with grpc.aio.insecure_channel(receiver.addresses["grpc"]) as channel:
            call = channel.unary_unary("/jaeger.api_v2.CollectorService/PostSpans")
            assert await call(peer.post_spans(BATCH), timeout=10) == b""
        send(receiver, "thrift_compact", peer.thrift_packet(BATCH, compact=True))
        send(receiver, "thrift_binary", peer.thrift_packet(BATCH, compact=False))
        await eventually(lambda: len(door.taken) == 5)
    assert sorted(name for name, *_ in door.taken) == [
        "collector_http", "collector_http", "grpc", "udp_thrift_binary", "udp_thrift_compact",
    ]  # fmt: skip
    assert all(names(wire) == ["pay", "ship"] and context.local_peer for _, wire, context in door.taken)


@pytest.mark.parametrize(
    ("body", "headers", "method", "status", "text", "reason"),
    [
        (b"\x0c", THRIFT, "POST", 400, "truncated", "malformed"),
        (b"", THRIFT, "POST", 400, "truncated", "malformed"),
        (b"{}", {"Content-Type": "application/json"}, "POST", 400, "supported: [application/vnd", "media_type"),
        (b"", THRIFT, "GET", 405, "supported: [POST]", "method"),
        (b"x", THRIFT | {"Content-Encoding": "odd<b>"}, "POST", 400, "odd&lt;b&gt;", "encoding"),
    ],
)
async def test_bad_requests_get_a_clear_answer(body, headers, method, status, text, reason):
    """400 as in the Collector; text of the sender is escaped; it is counted."""
    async with receiving() as (door, receiver, telemetry):
        found, answer, _ = await post(receiver, body, headers, method)
        assert (found, text in answer) == (status, True), answer
        assert not door.taken
        name = "tailrace_receiver_refused_requests"
        assert telemetry.value(name, transport="collector_http", reason=reason) == 1


async def test_no_room_is_retryable():
    """503 with Retry-After, and UNAVAILABLE; over UDP, where nobody can be told, it is counted and logged."""
    async with receiving() as (door, receiver, telemetry):
        door.error = RetryableError("no memory", reason="memory_limit", retry_after_s=1.5)
        status, _, headers = await post(receiver, peer.thrift_batch(BATCH))
        assert (status, headers["Retry-After"]) == (503, "2")
        async with grpc.aio.insecure_channel(receiver.addresses["grpc"]) as channel:
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await channel.unary_unary("/jaeger.api_v2.CollectorService/PostSpans")(
                    peer.post_spans(BATCH), timeout=10
                )
        assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
        send(receiver, "thrift_compact", peer.thrift_packet(BATCH, compact=True))
        await eventually(lambda: lost_packets(telemetry, "memory_limit") == 1)


async def test_large_bodies_are_decoded_in_a_thread():
    """With the same result, and the memory for it is released."""
    batch = BATCH | {"spans": [{"name": f"n{i}", "tags": [("k", "v" * 100)]} for i in range(3000)]}
    async with receiving() as (door, receiver, _):
        assert (await post(receiver, peer.thrift_batch(batch)))[0] == 202
        assert (await post(receiver, peer.thrift_batch(batch)[:-5]))[0] == 400
    assert len(names(door.taken[0][1])) == 3000


async def test_packets_that_are_not_for_us():
    """Each is counted by its reason, and the log says what to do."""
    async with receiving(thrift_compact={"endpoint": ANY, "max_packet_size": 500}) as (door, receiver, telemetry):
        send(receiver, "thrift_compact", b"junk")
        await eventually(lambda: lost_packets(telemetry, "malformed") == 1)
        send(receiver, "thrift_compact", bytes(501))
        await eventually(lambda: lost_packets(telemetry, "too_large") == 1)
        send(receiver, "thrift_compact", peer.thrift_packet(BATCH, compact=True))
        await eventually(lambda: len(door.taken) == 1)
    events = [event.fields["hint"] for event in telemetry.log.events if event.event == "Jaeger packets were lost"]
    assert len(events) == 2
    assert "max_packet_size" in events[1]


async def test_zipkin_thrift_is_named():
    """Old clients send it to agents: the log says what to change."""
    async with receiving(thrift_compact={"endpoint": ANY}) as (_, receiver, telemetry):
        send(receiver, "thrift_compact", peer.thrift_packet(BATCH, compact=True, method="emitZipkinBatch"))
        await eventually(lambda: telemetry.log.of_level("warning"))
    assert "Zipkin Thrift" in telemetry.log.of_level("warning")[0].fields["hint"]


async def test_waiting_packets_are_bounded():
    """With queue_size packets waiting for exporters, the rest stays in the kernel's buffer; nothing is lost."""
    async with receiving(thrift_compact={"endpoint": ANY, "queue_size": 2}) as (door, receiver, _):
        door.is_held = True
        for _ in range(5):
            send(receiver, "thrift_compact", peer.thrift_packet(BATCH, compact=True))
        await eventually(lambda: len(door.held) == 2)
        while len(door.taken) < 5 or door.held:
            count = len(door.taken)
            assert len(door.held) <= 2
            door.held.pop(0)()
            await eventually(lambda: len(door.taken) > count or len(door.taken) == 5)  # noqa: B023 - awaited here


async def test_overflow_of_the_kernels_buffer_is_counted():
    """What the kernel drops is counted with the next packets, exactly."""
    received, lost = [], []
    server = DatagramServer(
        Endpoint.parse(ANY), lambda packet, _: received.append(packet), lambda *found: lost.append(found), key="k",
        buffer_bytes=4096,
    )  # fmt: skip
    server.start(FakeHost())
    server.pause()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as udp:
        for _ in range(200):
            udp.sendto(bytes(1000), ("127.0.0.1", server.port))
    server.resume()
    await eventually(lambda: received)
    await eventually(lambda: len(received) + sum(count for count, _ in lost) == 200)
    assert {reason for _, reason in lost} == {"buffer_overflow"}
    server.close()
    server.close()


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"protocols": {}}, "at least one protocol"),
        ({"protocols": {"thrift_compact": {"endpoint": "0.0.0.0:5775"}}}, "6831"),
        ({"protocols": {"thrift_http": {"endpoint": "nowhere"}}}, "host:port"),
        ({"protocols": {"thrift_binary": {"endpoint": "unix:///x"}}}, "not a valid UDP endpoint"),
        ({"protocols": {"grpc": None}, "remote_sampling": {"strategy_file": "x"}}, "jaeger_remote_sampling"),
    ],
)
def test_what_cannot_work_is_refused(config, message):
    """With what to write instead."""
    with pytest.raises(ValueError, match=message):
        factory.config_type.model_validate(config)


def test_a_bare_protocol_has_its_defaults():
    """The Collector's ports; workers has no effect, which is said."""
    config = factory.config_type.model_validate(
        {"protocols": {"grpc": None, "thrift_http": None, "thrift_compact": {"workers": 2}, "thrift_binary": None}}
    )
    found = config.protocols
    assert [block.endpoint for block in (found.grpc, found.thrift_http, found.thrift_compact, found.thrift_binary)] == [
        "localhost:14250", "localhost:14268", "localhost:6831", "localhost:6832",
    ]  # fmt: skip
    assert [key for key, _ in found.thrift_compact.warnings()] == ["workers"]
