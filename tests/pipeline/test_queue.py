"""The queue between the door and an exporter's senders.

What it takes at once, and that nothing it took is lost on the way.
"""

import asyncio

import pytest

from collector.api import RetryableError
from collector.delivery import ExporterConfig, QueuedExporter
from collector.model import Batch, Signal
from collector.testing import FakeClock, FakeHost, RecordingTelemetry, eventually, make_settings, traces


class Probe(QueuedExporter[Batch]):
    """Keeps what it is told to send until ``gate`` opens."""

    drain_timeout_s = 0.0

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
async def test_a_queue_takes_without_waiting(queue):
    """In a plain call; what was taken is in flight until it is sent."""
    probe = Probe(**queue)
    await probe.start(FakeHost())
    assert probe.try_consume(traces(spans=2))
    assert probe.try_consume(traces(spans=3))
    assert probe.in_flight_items() == {Signal.TRACES: 5}
    probe.gate.set()
    await eventually(lambda: probe.in_flight_items() == {Signal.TRACES: 0})
    assert sum(probe.telemetry.ledger.delivered.values()) == 5
    await probe.shutdown()


@pytest.mark.parametrize("queue", [{"enabled": False}, {"wait_for_result": True}])
async def test_who_has_to_wait_for_the_result_cannot_be_taken_from_at_once(queue):
    """Nothing was done: the batch is consumed after that, once."""
    probe = Probe(**queue)
    probe.gate.set()
    await probe.start(FakeHost())
    assert not probe.try_consume(traces(spans=2))
    assert probe.in_flight_items() == {Signal.TRACES: 0}
    await probe.consume(traces(spans=2))
    assert sum(probe.telemetry.ledger.delivered.values()) == 2
    await probe.shutdown()
    assert not probe.try_consume(traces(spans=2))
    with pytest.raises(RetryableError):
        await probe.consume(traces(spans=2))


async def test_after_the_shutdown_what_is_taken_is_dropped_and_counted():
    """Nobody waits: it is taken and lost at once, with the reason."""
    probe = Probe()
    await probe.start(FakeHost())
    await probe.shutdown()
    assert probe.try_consume(traces(spans=2))
    assert probe.dropped == {"shutdown": 2}
