"""A sampler with a storage: no held trace is lost by a restart, and none is decided twice without need."""

import asyncio
import errno
import random
from collections import Counter
from types import MappingProxyType

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from collector.model import Context, Signal, Traces
from collector.tail_sampling import Decision, TailSampler, TraceDecisions
from collector.testing import FakeClock, FakeHost, FakeStorage, Sink, eventually, hand_over, make_settings
from processors.sampling import factory

WAIT_S = 10.0
FULL = OSError(errno.ENOSPC, "No space left on device")


class KeepsOdd:
    """Keeps traces with an odd id, and remembers how many spans each trace had when it was decided."""

    columns = MappingProxyType({"seen": np.int64})

    def __init__(self):
        self.decided = []

    def observe(self, batch, grouped, column):
        grouped.fold(np.add, column("seen"), np.ones(batch.item_count, np.int64))

    def decide(self, slots, column, now_s):
        self.decided += column("seen")[slots].tolist()
        kept = column("randomness")[slots] & np.uint64(1) != 0
        return TraceDecisions(kept, np.zeros(len(slots), np.uint64), np.zeros(len(slots), np.int32))


def spans_of(spans, context=None):
    """A batch of (trace, span) pairs."""
    request = ExportTraceServiceRequest()
    scope = request.resource_spans.add().scope_spans.add()
    for trace, span in spans:
        scope.spans.add(trace_id=trace.to_bytes(16, "big"), span_id=span.to_bytes(8, "big"), name="x")
    batch = Traces.from_wire(request.SerializeToString())
    return batch if context is None else batch.with_context(context)


class Config:
    """What a reload passes to ``hand_over``."""

    def __init__(self, storage="disk"):
        self.storage = storage


class Process:
    """One life of a sampler; the clock, the storage and the sink outlive it."""

    def __init__(self, earlier=None, *, previous=None, storage_id="disk", **options):
        self.clock = earlier.clock if earlier else FakeClock()
        self.storage = earlier.storage if earlier else FakeStorage(self.clock)
        self.sink = earlier.sink if earlier else Sink()
        self.settings = make_settings(
            factory, signals={Signal.TRACES}, outputs={Signal.TRACES: self.sink}, clock=self.clock
        )
        self.decider = KeepsOdd()
        options = {"kept_cache_size": 1000, "dropped_cache_size": 1000, **options}
        sut = TailSampler(
            self.settings,
            self.decider,
            decision_wait_s=WAIT_S,
            storage=storage_id,
            checkpoint_interval_s=30.0,
            **options,
        )
        self.sut = hand_over(previous, sut, Config(storage_id))
        self.host = FakeHost(extensions={"disk": self.storage})

    async def start(self):
        await self.sut.start(self.host)
        return self

    async def kill(self):
        await self.sut._checkpointing.stop()
        await self.sut._deciding.stop()
        self.storage.crash()

    @property
    def stored(self):
        [queue] = self.storage.queues.values()
        return queue

    def sent(self):
        """How often each span was passed on."""
        return Counter(int(span) for batch in self.sink.batches for span in batch.field("span_id").tolist())

    def value(self, operation):
        return self.settings.telemetry.value("tailrace_state_failures", operation=operation)


async def test_a_batch_is_accepted_when_it_is_stored_and_settled_when_its_traces_have_left():
    """``consume`` returns with the disk; the storage is empty after the decision."""
    process = await Process().start()
    process.stored.hold()
    taken = asyncio.ensure_future(process.sut.consume(spans_of([(1, 1), (2, 2)])))
    await eventually(lambda: process.stored.totals.item_count == 2)
    assert not taken.done()
    process.stored.resume()
    await taken
    await process.clock.advance(WAIT_S / 2)
    await process.sut.consume(spans_of([(1, 3), (4, 4)]))
    await process.clock.advance(WAIT_S / 2 + 2)
    assert process.sent().keys() == {1, 3}
    assert len(process.stored.batches) == 1, "the second batch has an undecided trace"
    await process.clock.advance(WAIT_S / 2)
    assert process.stored.batches == {}
    await process.sut.shutdown()


@pytest.mark.parametrize("is_killed", [True, False], ids=["kill -9", "SIGTERM"])
async def test_a_trace_that_spans_a_restart_is_decided_once_and_whole_at_its_time(is_killed):
    """Its wait goes on from its arrival; its spans of before and after are decided together."""
    first = await Process().start()
    await first.sut.consume(spans_of([(1, 1), (2, 2)], Context(tenant="a")))
    await first.clock.advance(WAIT_S - 4)
    await (first.kill() if is_killed else first.sut.shutdown())
    assert first.sink.batches == []
    second = await Process(first).start()
    assert second.sut.held_items() == 2
    await second.sut.consume(spans_of([(1, 3)], Context(tenant="a")))
    assert second.settings.telemetry.ledger.created[Signal.TRACES] == 2
    await second.clock.advance(2)
    assert second.sink.batches == []
    await second.clock.advance(3)
    assert second.sent() == {1: 1, 3: 1}
    assert second.sink.batches[0].context.tenant == "a"
    assert second.decider.decided == [2, 1]
    assert second.stored.batches == {}
    await second.sut.shutdown()


@pytest.mark.parametrize("is_killed", [True, False], ids=["kill -9", "SIGTERM"])
async def test_decisions_hold_after_a_restart(is_killed):
    """Late spans follow the decision on their trace, and other components can ask for it."""
    first = await Process().start()
    await first.sut.consume(spans_of([(1, 1), (2, 2)]))
    await first.clock.advance(WAIT_S + 2)
    if is_killed:
        await first.clock.advance(31)  # a checkpoint
    await (first.kill() if is_killed else first.sut.shutdown())
    second = await Process(first).start()
    ids = spans_of([(1, 1), (2, 2), (3, 3)]).field("trace_id")
    assert second.sut.decisions(ids).tolist() == [Decision.KEPT, Decision.DROPPED, Decision.UNKNOWN]
    await second.sut.consume(spans_of([(1, 5), (2, 6)]))
    assert second.sent() == {1: 1, 5: 1}
    await second.sut.shutdown()


async def test_what_has_left_a_stored_batch_is_not_repeated_after_a_regular_end():
    """Even if the decision is not remembered: which traces have left is part of the checkpoint."""
    caches = {"kept_cache_size": 0, "dropped_cache_size": 0}
    first = await Process(**caches).start()
    await first.sut.consume(spans_of([(1, 1)]))
    await first.clock.advance(WAIT_S / 2)
    await first.sut.consume(spans_of([(1, 2), (3, 3)]))
    await first.clock.advance(WAIT_S / 2 + 1)
    assert first.sent() == {1: 1, 2: 1}
    await first.sut.shutdown()
    second = await Process(first, **caches).start()
    assert second.sut.held_items() == 1
    await second.sut.shutdown()
    third = await Process(first, **caches).start()
    assert third.sut.held_items() == 1
    await third.clock.advance(WAIT_S)
    assert third.sent() == {1: 1, 2: 1, 3: 1}
    assert third.stored.batches == {}
    await third.sut.shutdown()


@given(seed=st.integers(0, 10_000), has_kills=st.booleans())
def test_restarts_lose_nothing(seed, has_kills):
    """Whatever happens in whatever order, each span of a kept trace arrives; without kills exactly once."""

    async def run():
        rng, accepted = random.Random(seed), set()
        process = await Process(max_bytes=rng.choice([0, 3000])).start()
        for _ in range(40):
            match rng.choice(["send", "send", "send", "wait", "checkpoint", "end"]):
                case "send":
                    spans = [(rng.randrange(1, 12), rng.randrange(1, 2**60)) for _ in range(rng.randrange(1, 6))]
                    await process.sut.consume(spans_of(spans))
                    accepted |= set(spans)
                case "wait":
                    await process.clock.advance(rng.choice([1, 3, WAIT_S]))
                case "checkpoint":
                    await process.sut._save()
                case "end":
                    await (process.kill() if has_kills and rng.random() < 0.5 else process.sut.shutdown())
                    process = await Process(process).start()
        for _ in range(4):
            await process.clock.advance(WAIT_S)
        sent = process.sent()
        assert sent.keys() == {span for trace, span in accepted if trace % 2}
        if not has_kills:
            assert set(sent.values()) <= {1}
        assert process.stored.batches == {}
        await process.sut.shutdown()

    asyncio.run(run())


async def test_a_full_disk_stops_no_spans():
    """They are held in memory, with a warning; at shutdown they are decided, as without a storage."""
    process = await Process().start()
    process.stored.fail_with = FULL
    await process.sut.consume(spans_of([(1, 1)]))
    process.stored.fail_with = None
    await process.sut.consume(spans_of([(3, 3)]))
    process.stored.hold()
    taken = asyncio.ensure_future(process.sut.consume(spans_of([(5, 5)])))
    await eventually(lambda: process.stored.totals.batch_count == 2)
    process.stored.fail_with = FULL
    process.stored.resume()
    await taken
    assert process.value("store") == 2
    assert [check.healthy for check in process.host.health()] == [False]
    assert [event.level for event in process.settings.telemetry.log.events] == ["warning", "info", "warning"]
    process.stored.fail_with = None
    await process.sut.shutdown()
    assert process.sent() == {1: 1, 5: 1}
    assert process.sut.held_items() == 1, "it stays in the storage"
    assert len(process.stored.batches) == 1


async def test_a_damaged_batch_and_a_damaged_checkpoint_prevent_no_start():
    """The rest is held again; the damage is reported."""
    first = await Process().start()
    for trace in (1, 3, 5):
        await first.sut.consume(spans_of([(trace, trace)]))
    await first.sut.shutdown()
    first.stored.unreadable.add(1)
    [state] = first.storage.states.values()
    state.value = state.value[:-30]
    second = await Process(first).start()
    assert second.sut.held_items() == 2
    assert second.value("load") == 1
    assert len(second.stored.batches) == 2
    await second.clock.advance(WAIT_S)
    assert second.sent() == {1: 1, 5: 1}
    await second.sut.shutdown()


@pytest.mark.parametrize("successor", ["disk", ""])
async def test_a_reload_hands_over_what_is_held_and_stored(successor):
    """The successor continues with the storage, or without: then nothing stays there that would come back later."""
    first = await Process().start()
    await first.sut.consume(spans_of([(1, 1), (3, 2)]))
    second = Process(first, previous=first.sut, storage_id=successor)
    await first.sut.shutdown()
    assert first.sink.batches == []
    await second.start()
    assert second.sut.held_items() == 2
    assert len(second.stored.batches) == bool(successor)
    await second.sut.consume(spans_of([(1, 3)]))
    await second.clock.advance(WAIT_S + 2)
    assert second.sent() == {1: 1, 2: 1, 3: 1}
    assert second.stored.batches == {}
    await second.sut.shutdown()


async def test_a_storage_that_a_reload_adds_has_what_arrives_from_then_on():
    """What was held before is in memory alone, so it is decided at shutdown."""
    first = await Process(storage_id="").start()
    await first.sut.consume(spans_of([(1, 1)]))
    second = Process(first, previous=first.sut)
    await first.sut.shutdown()
    await second.start()
    await second.sut.consume(spans_of([(3, 3)]))
    await second.sut.shutdown()
    assert second.sent() == {1: 1}
    assert len(second.stored.batches) == 1


async def test_undecided_traces_are_dropped_at_shutdown_if_the_configuration_says_so():
    """With a storage as without."""
    process = await Process(drop_pending_on_shutdown=True).start()
    await process.sut.consume(spans_of([(1, 1)]))
    await process.sut.shutdown()
    assert process.stored.batches == {}
    assert process.settings.telemetry.ledger.dropped_count(Signal.TRACES) == 1
