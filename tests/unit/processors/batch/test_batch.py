"""``batch``: sizes, times, contexts, and that nothing is lost."""

import asyncio

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from collector.api import RetryableError
from collector.model import Context, Signal
from collector.testing import (
    FakeClock,
    RecordingTelemetry,
    Sink,
    check_component,
    make_settings,
    traces,
    traces_request,
)
from collector.testing import batch as make_batch
from processors.batch import factory
from processors.batch.config import BatchConfig

A = Context(metadata=(("x-tenant", ("a",)), ("user-agent", ("sdk/1",))), claims=(("sub", "me"),))
A2 = Context(metadata=(("x-tenant", ("a",)), ("user-agent", ("sdk/2",))))
B = Context(metadata=(("x-tenant", ("b",)),))


class Stage:
    """A started batch processor with everything around it."""

    def __init__(self, signal=Signal.TRACES, **keys):
        self.clock, self.sink, self.telemetry = FakeClock(), Sink(signal), RecordingTelemetry()
        made = make_settings(
            factory, signals={signal}, outputs={signal: self.sink}, clock=self.clock, telemetry=self.telemetry
        )
        self.stage = factory.create(made, BatchConfig.model_validate(keys))

    async def give(self, *item_counts, context=None):
        for count in item_counts:
            batch = traces(spans=count) if context is None else traces(spans=count, context=context)
            assert batch.item_count == count
            await self.stage.consume(batch)

    @property
    def sent(self):
        return [batch.item_count for batch in self.sink.batches]


async def test_factory_keeps_the_contract():
    """Life cycle, README examples, and that everything accepted is delivered."""
    await check_component(factory)


def test_defaults_are_the_collectors():
    """Every key has the Collector's default."""
    config = BatchConfig()
    assert (
        config.timeout,
        config.send_batch_size,
        config.send_batch_max_size,
        config.metadata_keys,
        config.metadata_cardinality_limit,
    ) == (
        0.2,
        8192,
        0,
        (),
        1000,
    )


async def test_a_batch_is_taken_at_once_where_nothing_is_due():
    """A batch that starts a timer, completes a batch or has metadata needs ``consume``; others are only added."""
    case = Stage(send_batch_size=10)
    assert not case.stage.try_consume(traces(spans=3))
    await case.give(3)
    assert case.stage.try_consume(traces(spans=4))
    assert not case.stage.try_consume(traces(spans=3))
    assert not case.stage.try_consume(traces(spans=1, context=A))
    assert case.stage.held_items() == 7
    await case.give(3)
    assert case.sent == [10]
    await case.give(1)
    await case.stage.shutdown()
    assert not case.stage.try_consume(traces(spans=1))
    assert case.sent == [10, 1]
    assert case.stage.held_items() == 0


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"send_batch_size": 10, "send_batch_max_size": 9}, "greater than or equal"),
        ({"metadata_keys": ["X-A", "x-a"]}, "duplicate entry"),
        ({"timeout": "-1s"}, "greater than or equal to 0"),
        ({"send_batch_size": -1}, "greater than or equal to 0"),
    ],
)
def test_mistakes_are_refused(keys, message):
    """The rules are those of the Collector."""
    with pytest.raises(ValidationError, match=message):
        BatchConfig.model_validate(keys)


async def test_sent_when_large_enough():
    """At ``send_batch_size``, as one batch with the bytes of all requests."""
    it = Stage(send_batch_size=10)
    await it.give(4, 4)
    assert it.sent == []
    assert it.stage.held_items() == 8
    assert it.stage.held_bytes() > 0
    await it.give(4)
    assert it.sent == [12]
    assert (it.stage.held_items(), it.stage.held_bytes()) == (0, 0)
    assert it.telemetry.value("otelcol_processor_batch_batch_size_trigger_send") == 1
    assert it.telemetry.observations("otelcol_processor_batch_batch_send_size") == [12]
    await it.stage.shutdown()


async def test_sent_when_old_enough():
    """``timeout`` counts from the first item, not from the last."""
    it = Stage(send_batch_size=100, timeout="1s")
    await it.give(3)
    await it.clock.advance(0.6)
    await it.give(4)
    await it.clock.advance(0.39)
    assert it.sent == []
    await it.clock.advance(0.01)
    assert it.sent == [7]
    assert it.telemetry.value("otelcol_processor_batch_timeout_trigger_send") == 1
    await it.give(5)
    await it.clock.advance(1)
    assert it.sent == [7, 5]
    await it.clock.advance(10)
    assert it.sent == [7, 5]
    await it.stage.shutdown()


async def test_size_starts_the_time_anew():
    """Items that arrive after a full batch wait for a timeout of their own."""
    it = Stage(send_batch_size=10, timeout="1s")
    await it.give(5)
    await it.clock.advance(0.9)
    await it.give(5, 2)
    await it.clock.advance(0.9)
    assert it.sent == [10]
    await it.clock.advance(0.1)
    assert it.sent == [10, 2]
    await it.stage.shutdown()


@pytest.mark.parametrize("keys", [{"timeout": "0s"}, {"send_batch_size": 0}])
async def test_nothing_waits_without_time_or_size(keys):
    """Then only ``send_batch_max_size`` has an effect."""
    it = Stage(**{"send_batch_size": 0, **keys}, send_batch_max_size=4)
    await it.give(3, 9)
    assert it.sent == [3, 4, 4, 1]
    assert it.stage.held_items() == 0


async def test_max_size_splits_and_keeps_the_rest():
    """Full parts are sent, less than ``send_batch_size`` stays until it is old enough."""
    it = Stage(send_batch_size=5, send_batch_max_size=6)
    await it.give(14)
    assert it.sent == [6, 6]
    assert it.stage.held_items() == 2
    await it.give(3)
    assert it.sent == [6, 6, 5]
    await it.give(1)
    await it.clock.advance(0.2)
    assert it.sent == [6, 6, 5, 1]


async def test_order_is_kept():
    """The items leave in the order in which they arrived, across merges and splits."""
    it = Stage(send_batch_size=7, send_batch_max_size=7)
    given_ids = []
    for seed in range(6):
        batch = traces(spans=5, seed=seed)
        given_ids += batch.field("span_id").tolist()
        await it.stage.consume(batch)
    await it.stage.shutdown()
    assert [span for batch in it.sink.batches for span in batch.field("span_id").tolist()] == given_ids
    assert it.sent == [7, 7, 7, 7, 2]


async def test_shutdown_sends_what_is_held_and_waits_for_it():
    """This includes what a slow output has not accepted yet; later batches are passed on immediately."""
    it = Stage(send_batch_size=100)
    it.sink.hang()
    await it.give(3)
    await it.clock.advance(0.2)
    await it.give(4)
    stopping = asyncio.ensure_future(it.stage.shutdown())
    await it.clock.advance(0)
    assert not stopping.done()
    it.sink.resume()
    await stopping
    assert it.sent == [3, 4]
    await it.give(2)
    assert it.sent == [3, 4, 2]
    await it.stage.shutdown()
    assert it.clock.sleeper_count == 0


async def test_slow_output_keeps_the_order_and_loses_nothing():
    """A part that is being sent delays the next part, but not the collecting."""
    it = Stage(send_batch_size=4)
    it.sink.hang()
    async with asyncio.TaskGroup() as group:
        for count in (4, 5, 6):
            group.create_task(it.stage.consume(traces(spans=count)))
            await it.clock.advance(0)
        it.sink.resume()
    assert sum(it.sent) == 15
    assert it.sent[0] == 4
    assert it.stage.held_items() == 0


@pytest.mark.parametrize("is_collected", [True, False])
async def test_parts_are_held_until_they_are_sent_and_survive_a_cancelled_sender(is_collected):
    """Each part leaves just before it is sent; what a cancelled call leaves behind is sent by the next timer."""
    it = Stage(
        send_batch_size=2, send_batch_max_size=2, timeout="1s", metadata_keys=["x-tenant"], metadata_cardinality_limit=1
    )
    if not is_collected:
        await it.give(1, context=A)
    it.sink.hang()
    sender = asyncio.ensure_future(it.give(6, context=B))
    await it.clock.advance(0)
    before = 0 if is_collected else 1
    assert it.stage.held_items() == before + 4
    assert it.stage.held_bytes() > 0
    sender.cancel()
    await it.clock.advance(0)
    assert sender.cancelled()
    assert it.stage.held_items() == before + 4
    it.sink.resume()
    await it.clock.advance(1.0)
    assert sorted(it.sent) == [1] * before + [2, 2]
    assert it.stage.held_items() == it.stage.held_bytes() == 0
    await it.stage.shutdown()
    assert it.clock.sleeper_count == 0


async def test_refusing_exporter_does_not_harm_the_other_parts():
    """The exporter has counted what it refused; every part is offered to it."""
    it = Stage(send_batch_size=2, send_batch_max_size=2)
    it.sink.fail_with = RetryableError("no")
    await it.give(6)
    assert it.sink.refused_count == 6
    it.sink.fail_with = None
    await it.give(2)
    assert it.sent == [2]


async def test_metadata_is_dropped_without_keys():
    """All senders share one batch, but tenants and localities stay separate."""
    it = Stage(send_batch_size=100)
    for context in (A, A2, B, Context(tenant="t"), Context(local_peer=True)):
        await it.give(1, context=context)
    await it.clock.advance(0.2)
    assert sorted(it.sent) == [1, 1, 3]
    assert {batch.context for batch in it.sink.batches} == {Context(), Context(tenant="t"), Context(local_peer=True)}


async def test_metadata_keys_separate_and_are_all_that_stays():
    """Keys are found whether they are written in upper or lower case."""
    it = Stage(send_batch_size=100, metadata_keys=["X-Tenant"])
    for context in (A, A2, B):
        await it.give(2, context=context)
    assert it.telemetry.value("otelcol_processor_batch_metadata_cardinality") == 2
    await it.clock.advance(0.2)
    assert {batch.context.metadata: batch.item_count for batch in it.sink.batches} == {
        (("x-tenant", ("a",)),): 4,
        (("x-tenant", ("b",)),): 2,
    }
    assert it.telemetry.value("otelcol_processor_batch_metadata_cardinality") == 0


async def test_beyond_the_cardinality_limit_batches_pass_alone():
    """Nothing is refused, and a value that was sent makes room for another one."""
    it = Stage(send_batch_size=100, metadata_keys=["x-tenant"], metadata_cardinality_limit=1)
    await it.give(3, context=A)
    await it.give(1, context=B)
    assert it.sent == [1]
    small = Stage(send_batch_size=2, send_batch_max_size=2, metadata_keys=["x-tenant"], metadata_cardinality_limit=1)
    await small.give(1, context=A)
    await small.give(3, context=B)
    assert small.sent == [2, 1], "send_batch_max_size holds for them, too"
    await small.stage.shutdown()
    assert it.telemetry.value("tailrace_processor_batch_uncollected_batches") == 1
    await it.clock.advance(0.2)
    await it.give(1, context=B)
    assert it.sent == [1, 3]
    await it.stage.shutdown()
    assert it.sent == [1, 3, 1]


async def test_very_large_batches_are_not_merged_beyond_the_bound(monkeypatch):
    """Offsets in a batch have 32 bits, so parts are also limited in bytes."""
    size = traces(spans=10).size_bytes
    monkeypatch.setattr("processors.batch.batch._MAX_PART_BYTES", size * 2)
    it = Stage(send_batch_size=1000)
    await it.give(10, 10)
    assert it.sent == [20]
    await it.give(10)
    await it.stage.shutdown()
    assert it.sent == [20, 10]


@pytest.mark.parametrize("signal", list(Signal))
async def test_every_signal(signal):
    """Merged batches have all the items."""
    it = Stage(signal, send_batch_size=100_000)
    batches = [make_batch(signal, seed=seed) for seed in range(3)]
    for batch in batches:
        await it.stage.consume(batch)
    await it.clock.advance(0.2)
    assert it.sent == [sum(batch.item_count for batch in batches)]


@settings(max_examples=60, deadline=None)
@given(
    counts=st.lists(st.integers(1, 30), max_size=25),
    pauses=st.lists(st.sampled_from([0, 0.05, 0.2, 0.5]), min_size=25, max_size=25),
    size=st.integers(0, 20),
    extra=st.none() | st.integers(0, 20),
    tenants=st.lists(st.sampled_from([A, B]), min_size=25, max_size=25),
    limit=st.sampled_from([0, 1]),
)
def test_everything_given_is_sent_once_and_within_the_bounds(counts, pauses, size, extra, tenants, limit):
    """This holds for any sequence of batches, sizes and pauses."""

    async def run():
        keys = {"send_batch_size": size, "metadata_keys": ["x-tenant"], "metadata_cardinality_limit": limit}
        maximum = 0 if extra is None else max(size + extra, 1)
        it = Stage(**keys, send_batch_max_size=maximum)
        given_ids = {A: [], B: []}
        for seed, (count, pause, tenant) in enumerate(zip(counts, pauses, tenants, strict=False)):
            batch = traces(spans=count, seed=seed, context=tenant)
            given_ids[tenant] += batch.field("span_id").tolist()
            await it.stage.consume(batch)
            assert it.stage.held_items() == sum(map(len, given_ids.values())) - it.sink.item_count
            await it.clock.advance(pause)
        await it.stage.shutdown()
        assert (it.stage.held_items(), it.stage.held_bytes(), it.clock.sleeper_count) == (0, 0, 0)
        for context, ids in given_ids.items():
            name = context.metadata[0][1]
            sent = [b for b in it.sink.batches if b.context.metadata[0][1] == name]
            assert [span for b in sent for span in b.field("span_id").tolist()] == ids
        if maximum:
            assert all(sent <= maximum for sent in it.sent)

    asyncio.run(run())


async def test_empty_batch_is_nothing():
    """Neither a timer nor a shard stays behind."""
    it = Stage()
    await it.stage.consume(traces(spans=1).select(traces(spans=1).field("kind") > 99))
    assert it.stage.held_items() == 0
    assert it.clock.sleeper_count == 0
    assert traces_request(spans=1).ByteSize() > 0
