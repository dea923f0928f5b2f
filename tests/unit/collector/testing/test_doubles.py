"""The doubles behave as what they stand for."""

import asyncio

import pytest

from collector.api import RetryableError
from collector.model import EMPTY_CONTEXT, Signal
from collector.testing import FakeAdmission, FakeHost, RecordingTelemetry, Sink, batch, make_settings, request, traces


@pytest.mark.parametrize("signal", list(Signal))
@pytest.mark.parametrize("items", [1, 7, 64])
def test_generated_batches_are_valid_and_the_same_for_a_seed(signal, items):
    """The door lets them in whole, with as many items as asked for."""
    made = batch(signal, items=items, seed=3)
    assert made.item_count == items
    assert made.wire == batch(signal, items=items, seed=3).wire
    assert made.wire == request(signal, items=items, seed=3)
    assert made.wire != batch(signal, items=items, seed=4).wire


async def test_a_sink_keeps_fails_and_hangs():
    """A sink does what the test tells it to."""
    sink = Sink(Signal.TRACES)
    receipt = await sink.for_transport("grpc").consume_request(traces(spans=3).wire, EMPTY_CONTEXT)
    assert (receipt.accepted_count, sink.item_count, sink.transports) == (3, 3, ["grpc"])
    sink.hang()
    task = asyncio.ensure_future(sink.consume(traces(spans=2)))
    await asyncio.sleep(0)
    assert not task.done()
    sink.resume()
    await task
    assert sink.item_count == 5
    sink.fail_with = RetryableError("no")
    with pytest.raises(RetryableError):
        await sink.consume(traces(spans=2))
    assert sink.refused_count == 2


def test_telemetry_can_be_read():
    """Counters by label, gauges with read, ledger by reason, log by level."""
    telemetry = RecordingTelemetry()
    telemetry.counter("tailrace_a", "A", ("x",)).add(2, x="1")
    telemetry.counter("tailrace_a", "A", ("x",)).add(3, x="2")
    assert telemetry.value("tailrace_a") == 5
    assert telemetry.value("tailrace_a", x="2") == 3
    telemetry.gauge("tailrace_b", "B", read=lambda: 7)
    assert telemetry.value("tailrace_b") == 7
    telemetry.histogram("tailrace_c", "C", (1.0,)).observe(0.5)
    assert telemetry.observations("tailrace_c") == [0.5]
    telemetry.dropped(Signal.LOGS, 2, "old")
    telemetry.dropped(Signal.LOGS, 1, "young")
    assert telemetry.ledger.dropped_count(Signal.LOGS) == 3
    assert telemetry.ledger.dropped_count(Signal.LOGS, "old") == 2
    telemetry.log.bind(part="x").warning("careful", n=1)
    assert telemetry.log.of_level("warning")[0].fields == {"part": "x", "n": 1}
    with pytest.raises(ValueError, match="labels"):
        telemetry.counter("tailrace_a", "A", ("x",)).add()


def test_admission_refuses_above_its_limit_and_releases():
    """It refuses everything while ``refuse`` is set."""
    admission = FakeAdmission(limit_bytes=10)
    with admission.reserve(8):
        with pytest.raises(RetryableError), admission.reserve(8):
            pass
        assert admission.used_bytes == 8
    assert admission.used_bytes == 0
    admission.refuse = True
    with pytest.raises(RetryableError), admission.reserve(1):
        pass


def test_a_host_names_the_extensions_it_has():
    """The error for an unknown extension lists those that exist, as the service's does."""
    with pytest.raises(KeyError, match="only: a"):
        FakeHost({"a": object()}).extension("b")


def test_settings_have_a_sink_for_each_signal():
    """Each signal has a sink unless the test passes other outputs."""
    settings = make_settings(signals={Signal.LOGS})
    assert set(settings.outputs) == {Signal.LOGS}
    assert settings.clock.monotonic_s() == 0
