"""Behaviour of the receiver."""

from collector.api import RetryableError
from collector.model import Signal
from collector.testing import FakeClock, FakeHost, RecordingTelemetry, Sink, hand_over, make
from tailrace_example_plugin.heartbeat import HeartbeatConfig, factory


def receiver(sink, clock, **settings):
    """A receiver with the default interval of 30 s."""
    return make(factory, outputs={Signal.METRICS: sink}, clock=clock, **settings)


def values(sink):
    """The points received, in order."""
    return [value for batch in sink.batches for value in batch.field("value").tolist()]


async def test_it_beats_at_the_interval_until_it_is_stopped():
    """The count is cumulative from the start."""
    sink, clock = Sink(Signal.METRICS), FakeClock()
    start = clock.time_unix_nano()
    component = receiver(sink, clock)
    await component.start(FakeHost())
    await clock.advance(95)
    await component.shutdown()
    await clock.advance(95)
    assert values(sink) == [1, 2, 3]
    assert sink.batches[0].field("name", "metrics").to_list() == ["heartbeat.count"]
    assert {int(batch.field("start_time_unix_nano")[0]) for batch in sink.batches} == {start}


async def test_a_successor_continues_the_count():
    """A reload resets neither the count nor its start time."""
    sink, clock = Sink(Signal.METRICS), FakeClock()
    first = receiver(sink, clock)
    await first.start(FakeHost())
    await clock.advance(60)
    second = hand_over(first, receiver(sink, clock), HeartbeatConfig())
    await first.shutdown()
    await second.start(FakeHost())
    await clock.advance(30)
    await second.shutdown()
    assert values(sink) == [1, 2, 3]
    assert len({int(batch.field("start_time_unix_nano")[0]) for batch in sink.batches}) == 1


def test_foreign_state_is_not_taken_over():
    """The state of another version of the component may be anything."""
    assert not receiver(Sink(Signal.METRICS), FakeClock()).take_over(object())


async def test_a_refused_heartbeat_does_not_stop_it():
    """The next one carries the total."""
    sink, clock, telemetry = Sink(Signal.METRICS), FakeClock(), RecordingTelemetry()
    component = receiver(sink, clock, telemetry=telemetry)
    await component.start(FakeHost())
    sink.fail_with = RetryableError("no room", reason="memory_limit")
    await clock.advance(30)
    sink.fail_with = None
    await clock.advance(30)
    await component.shutdown()
    assert values(sink) == [2]
    assert [event.event for event in telemetry.log.of_level("warning")] == ["a heartbeat was refused"]
