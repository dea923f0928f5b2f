"""Behaviour of the exporter, against a real server on the loopback."""

import asyncio
import contextlib
import json

import pytest

from collector.model import Signal
from collector.testing import FakeClock, FakeHost, RecordingTelemetry, eventually, free_port, logs, make
from tailrace_example_plugin.jsonl_tcp import JsonlTcpConfig, factory


@contextlib.asynccontextmanager
async def receiving(lines, port=0):
    """A server that keeps the lines it receives; yields its port."""

    async def receive(reader, writer):
        with contextlib.closing(writer):
            while line := await reader.readline():
                lines.append(json.loads(line))

    server = await asyncio.start_server(receive, "127.0.0.1", port)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()


def exporter(port, telemetry, clock=None, **config):
    """An exporter that sends to the port."""
    chosen = JsonlTcpConfig(endpoint=f"127.0.0.1:{port}", **config)
    return make(factory, chosen, telemetry=telemetry, clock=clock)


async def test_a_batch_is_one_line_of_otlp_json():
    """What was sent counts as delivered."""
    lines, telemetry = [], RecordingTelemetry()
    async with receiving(lines) as port:
        component = exporter(port, telemetry)
        await component.start(FakeHost())
        await component.consume(logs(records=3))
        await component.consume(logs(records=2))
        await eventually(lambda: len(lines) == 2)
        await component.shutdown()
    assert {"resourceLogs"} == {key for line in lines for key in line}
    assert telemetry.ledger.delivered[Signal.LOGS] == 5


async def test_large_batches_are_split():
    """No line is made of more than max_request_bytes of protobuf."""
    lines, batch = [], logs(records=64)
    async with receiving(lines) as port:
        component = exporter(port, RecordingTelemetry(), max_request_bytes=batch.size_bytes // 4)
        await component.start(FakeHost())
        await component.consume(batch)
        await component.shutdown()
        await eventually(lambda: len(lines) >= 4)


async def test_sending_is_retried_until_the_server_is_back():
    """Nothing is lost while the server is away."""
    lines, telemetry, clock, port = [], RecordingTelemetry(), FakeClock(), free_port()
    component = exporter(port, telemetry, clock)
    await component.start(FakeHost())
    await component.consume(logs(records=4))
    await eventually(lambda: telemetry.log.of_level("warning"))
    async with receiving(lines, port):
        await clock.advance(10)
        await eventually(lambda: len(lines) == 1)
        await component.shutdown()
    assert telemetry.ledger.delivered[Signal.LOGS] == 4


async def test_what_is_queued_without_a_server_is_dropped_at_shutdown():
    """The reason is in the ledger."""
    telemetry, clock = RecordingTelemetry(), FakeClock()
    component = exporter(free_port(), telemetry, clock)
    await component.start(FakeHost())
    await component.consume(logs(records=4))
    stopping = asyncio.ensure_future(component.shutdown())
    await clock.advance(60)
    await stopping
    assert telemetry.ledger.dropped_count(Signal.LOGS, "shutdown") == 4


@pytest.mark.parametrize("endpoint", ["localhost", "localhost:", ":5170", "localhost:99999", "localhost:http"])
def test_wrong_endpoints_are_refused(endpoint):
    """The message says what is expected."""
    with pytest.raises(ValueError, match="is not host:port, for example localhost:5170"):
        JsonlTcpConfig(endpoint=endpoint)


def test_ipv6_endpoints():
    """Brackets are removed."""
    assert JsonlTcpConfig(endpoint="[::1]:5170").address() == ("::1", 5170)
