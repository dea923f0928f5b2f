"""The queue of an exporter as the graph sees it: what it accepts at once, and that it loses nothing it accepted."""

import asyncio

import pytest

from collector.api import RetryableError
from collector.delivery import ExporterConfig, QueuedExporter
from collector.model import Batch, Signal
from collector.testing import FakeClock, FakeHost, RecordingTelemetry, eventually, make_settings, traces


class Probe(QueuedExporter[Batch]):
    """An exporter that sends nothing until ``gate`` opens."""

    def __init__(self, **queue) -> None:
        self.telemetry = RecordingTelemetry()
        settings = make_settings(
            signals=frozenset({Signal.TRACES}), telemetry=self.telemetry, clock=FakeClock(), component_id="probe"
        )
        super().__init__(settings, ExporterConfig.model_validate({"sending_queue": queue}))
        self.gate = asyncio.Event()

    async def send(self, payload: Batch) -> None:
        await self.gate.wait()

    @property
    def dropped(self) -> dict[str, int]:
        return {reason: count for (_, reason), count in self.telemetry.ledger.dropped.items()}


@pytest.mark.parametrize("queue", [{}, {"num_consumers": 1}, {"batch": {"flush_timeout": "1s", "min_size": 2}}])
async def test_a_queue_accepts_batches_without_waiting(queue):
    """Batches are accepted in a plain call, and are in flight until they are sent."""
    probe = Probe(**queue)
    await probe.start(FakeHost(shutdown_timeout_s=0.0))
    assert probe.try_consume(traces(spans=2))
    assert probe.try_consume(traces(spans=3))
    assert probe.in_flight_items() == {Signal.TRACES: 5}
    probe.gate.set()
    await eventually(lambda: probe.in_flight_items() == {Signal.TRACES: 0})
    assert sum(probe.telemetry.ledger.delivered.values()) == 5
    await probe.shutdown()


@pytest.mark.parametrize("queue", [{"enabled": False}, {"wait_for_result": True}])
async def test_an_exporter_that_waits_for_the_result_accepts_nothing_at_once(queue):
    """``try_consume`` does nothing, and ``consume`` then delivers the batch once."""
    probe = Probe(**queue)
    probe.gate.set()
    await probe.start(FakeHost(shutdown_timeout_s=0.0))
    assert not probe.try_consume(traces(spans=2))
    assert probe.in_flight_items() == {Signal.TRACES: 0}
    await probe.consume(traces(spans=2))
    assert sum(probe.telemetry.ledger.delivered.values()) == 2
    await probe.shutdown()
    assert not probe.try_consume(traces(spans=2))
    with pytest.raises(RetryableError):
        await probe.consume(traces(spans=2))


async def test_after_the_shutdown_batches_are_dropped_and_counted():
    """The caller does not wait for the result, so batches are accepted and dropped at once, with the reason."""
    probe = Probe()
    await probe.start(FakeHost(shutdown_timeout_s=0.0))
    await probe.shutdown()
    assert probe.try_consume(traces(spans=2))
    assert probe.dropped == {"shutdown": 2}
