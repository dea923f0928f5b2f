"""The parts of the engine against slow references, and how much memory the engine holds."""

import asyncio
import random
import tracemalloc
from types import MappingProxyType

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from collector.model import Context, Signal, Traces
from collector.tail_sampling import ByTrace, Decision, DecisionCache, HeldRows, TailSampler, TraceDecisions
from collector.tail_sampling.decision_registry import DECISIONS
from collector.testing import FakeHost, Sink, make_settings
from collector.testing.generate import traces
from processors.sampling import factory


class KeepsOdd:
    """A decider that keeps traces with an odd randomness, which is that of the trace id unless a span has an ``rv``."""

    columns = MappingProxyType({"seen": np.int64})

    def observe(self, batch, grouped, column):
        grouped.fold(np.add, column("seen"), np.ones(batch.item_count, np.int64))

    def decide(self, slots, column, now_s):
        assert (column("seen")[slots] == column("span_count")[slots]).all()
        kept = column("randomness")[slots] & np.uint64(1) != 0
        return TraceDecisions(kept, np.zeros(len(slots), np.uint64), np.zeros(len(slots), np.int32))


class ReadsAtOnce(TailSampler):
    """Reads every batch when it arrives, as ``tail_sampling`` does with ``span-ingest``."""

    async def consume(self, batch):
        await super().consume(batch)
        self._read_spans()


def sampler(kind=TailSampler, **options):
    settings = make_settings(factory, signals={Signal.TRACES}, outputs={Signal.TRACES: (sink := Sink())})
    options = {"decision_wait_s": 10.0, "kept_cache_size": 1000, "dropped_cache_size": 1000, **options}
    return kind(settings, KeepsOdd(), **options), sink, settings


@given(
    slots=st.lists(st.integers(-1, 6), max_size=40),
    ufunc=st.sampled_from([np.add, np.maximum, np.minimum, np.bitwise_or]),
    seed=st.integers(0, 99),
)
def test_folding_by_trace_is_ufunc_at(slots, ufunc, seed):
    """For any slots, including rows that are left out."""
    array = np.array(slots, np.int32)
    values = np.random.default_rng(seed).integers(0, 1000, len(slots))
    fast, slow = np.arange(7) * 10, np.arange(7) * 10
    ByTrace(array).fold(ufunc, fast, values)
    ufunc.at(slow, array[array >= 0], values[array >= 0])
    assert fast.tolist() == slow.tolist()
    assert ByTrace(array).counts.sum() == (array >= 0).sum()
    assert ByTrace(array).first_rows().tolist() == [slots.index(slot) for slot in sorted(set(slots) - {-1})]


def test_the_decision_cache_is_bounded_and_forgets_the_least_recently_used():
    """The size is exceeded by at most a sixteenth; decisions that are looked up stay."""
    rng, cache = np.random.default_rng(1), DecisionCache(160)
    first = rng.integers(1, 2**63, (100, 2)).astype(np.uint64)
    zeros = np.zeros(100, np.uint64)
    cache.remember(first, thresholds=zeros + np.uint64(7), randomness_to_write=zeros, now_s=0.0)
    cache.find(first[:50])
    for _ in range(20):
        others = rng.integers(1, 2**63, (100, 2)).astype(np.uint64)
        cache.remember(others, thresholds=zeros, randomness_to_write=zeros, now_s=1.0)
        assert len(cache) <= 170
        found = cache.find(first[:50])
        assert (found >= 0).all()
    assert (cache.column("threshold")[found] == 7).all()
    assert (cache.find(first[50:]) < 0).all()
    empty = DecisionCache(0)
    empty.remember(first, thresholds=zeros, randomness_to_write=zeros, now_s=0.0)
    assert len(empty) == 0


@given(sizes=st.lists(st.integers(1, 30), min_size=1, max_size=12), seed=st.integers(0, 999))
def test_held_rows_give_back_each_row_once(sizes, seed):
    """In order within a context, with its slot; the counts are right."""
    rng, held, expected = random.Random(seed), HeldRows(), {}
    contexts = [Context(), Context(tenant="a")]
    for number, size in enumerate(sizes):
        batch = traces(spans=size, seed=number).with_context(contexts[number % 2])
        slots = np.array([rng.randrange(-1, 6) for _ in range(size)], np.int32)
        held.add(batch, slots)
        for slot, span in zip(slots.tolist(), batch.field("span_id").tolist(), strict=True):
            if slot >= 0:
                expected.setdefault((batch.context, slot), []).append(span)
        assert held.item_count == sum(map(len, expected.values()))
        if rng.random() < 0.4:
            kept, dropped = np.zeros(8, bool), np.zeros(8, bool)
            kept[rng.randrange(6)] = True
            dropped[rng.randrange(6)] = True
            dropped &= ~kept
            taken, discarded = held.take(kept, dropped)
            lost = [key for key in expected if dropped[key[1]]]
            assert sorted(discarded.tolist()) == sorted(key[1] for key in lost for _ in expected.pop(key))
            got = {}
            for part, part_slots in taken:
                for slot, span in zip(part_slots.tolist(), part.field("span_id").tolist(), strict=True):
                    got.setdefault((part.context, slot), []).append(span)
            assert got == {key: expected.pop(key) for key in [key for key in expected if kept[key[1]]]}
    assert sum(len(slots) for _, slots in held.take_all()) == sum(map(len, expected.values()))
    assert (held.item_count, held.size_bytes) == (0, 0)


async def test_memory_is_at_most_a_third_above_the_bytes_held():
    """Small batches are joined, and those of which half the rows have left are rewritten."""
    sut, _, _ = sampler()
    wires = [traces(spans=200, seed=seed).wire for seed in range(200)]
    await sut.consume(Traces.from_wire(wires[0]))
    tracemalloc.start()
    before = tracemalloc.get_traced_memory()[0]
    total = 0
    for wire in wires[1:]:
        await sut.consume(Traces.from_wire(bytes(bytearray(wire))))
        total += len(wire)
    used = tracemalloc.get_traced_memory()[0] - before
    tracemalloc.stop()
    assert used <= 1.3 * total
    assert total <= sut.held_bytes() <= 1.3 * total
    await sut.shutdown()
    assert sut.held_items() == 0


async def test_decide_now_decides_and_subscribers_are_called():
    """A subscriber is called with every decision once."""
    sut, sink, _ = sampler()
    received = []
    sut.subscribe(lambda decided: received.extend(zip(decided.trace_ids.tolist(), decided.kept.tolist(), strict=True)))
    batch = traces(spans=64)
    ids = np.unique(batch.field("trace_id"), axis=0)
    assert set(sut.decisions(ids).tolist()) == {Decision.UNKNOWN}
    await sut.consume(batch)
    assert set(sut.decisions(ids).tolist()) == {Decision.PENDING}
    await sut.decide_now(ids)
    odd = (ids[:, 1] & np.uint64(1)) != 0
    assert sut.decisions(ids).tolist() == np.where(odd, Decision.KEPT, Decision.DROPPED).tolist()
    assert sorted(received) == sorted(zip(ids.tolist(), odd.tolist(), strict=True))
    assert sink.item_count == int(np.isin(batch.field("trace_id")[:, 1], ids[odd, 1]).sum())


async def test_decisions_can_be_looked_up_by_component_id():
    """From start to shutdown, as the exemplars of ``span_metrics`` do."""
    sut, _, settings = sampler()
    registry = settings.shared.get(DECISIONS)
    batch = traces(spans=64)
    ids = np.unique(batch.field("trace_id"), axis=0)
    assert registry.decisions(str(settings.id), ids) is None
    await sut.start(FakeHost())
    await sut.consume(batch)
    assert set(registry.decisions(str(settings.id), ids).tolist()) == {Decision.PENDING}
    await sut.decide_now(ids)
    odd = (ids[:, 1] & np.uint64(1)) != 0
    assert registry.decisions(str(settings.id), ids).tolist() == np.where(odd, Decision.KEPT, Decision.DROPPED).tolist()
    await sut.shutdown()
    assert registry.decisions(str(settings.id), ids) is None


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"max_traces": 4, "on_overflow": "drop"}, "overflow"),
        ({"drop_pending_on_shutdown": True}, "shutdown"),
    ],
)
async def test_traces_dropped_undecided_are_counted_by_reason(options, reason):
    """Every span is either passed on or counted as dropped."""
    sut, sink, settings = sampler(**options)
    await sut.start(FakeHost())
    for seed in range(4):
        await sut.consume(traces(spans=16, seed=seed))
    await sut.shutdown()
    ledger = settings.telemetry.ledger
    assert ledger.dropped_count(Signal.TRACES, reason) > 0
    assert sink.item_count + ledger.dropped_count(Signal.TRACES) == 64


@given(
    sizes=st.lists(st.integers(1, 40), min_size=1, max_size=8),
    seed=st.integers(0, 999),
    max_bytes=st.sampled_from([0, 0, 9000]),
)
async def test_reading_batches_together_is_reading_them_one_by_one(sizes, seed, max_bytes):
    """For any sizes and contexts, with a budget or without: the same spans leave, the same wait, and all are read.

    ``KeepsOdd`` asserts the latter.
    """
    rng, contexts = random.Random(seed), [Context(), Context(tenant="a")]
    together, sink, _ = sampler(max_bytes=max_bytes)
    one_by_one, other_sink, _ = sampler(ReadsAtOnce, max_bytes=max_bytes)
    for number, size in enumerate(sizes):
        batch = traces(spans=size, seed=seed + number // 2).with_context(rng.choice(contexts))
        ids = batch.field("trace_id")[: rng.randrange(3)]
        for sut in (together, one_by_one):
            await sut.consume(batch)
            await sut.decide_now(np.ascontiguousarray(ids))
        assert (together.held_items(), together.open_count) == (one_by_one.held_items(), one_by_one.open_count)
    for sut in (together, one_by_one):
        await sut.shutdown()
        assert (sut.held_items(), sut.row_bytes) == (0, 0)

    def passed_on(sink):
        return sorted(
            (str(batch.context.tenant), span) for batch in sink.batches for span in batch.field("span_id").tolist()
        )

    assert passed_on(sink) == passed_on(other_sink)


@pytest.mark.parametrize("kind", [TailSampler, ReadsAtOnce])
async def test_the_first_explicit_randomness_of_a_trace_stays(kind):
    """Whether the batches are read together or one by one."""
    sut, sink, _ = sampler(kind)
    batch = traces(spans=1)
    even = int(batch.field("trace_id")[0, 1]) % 2 == 0  # KeepsOdd would drop the trace by its id
    for rv in ("00000000000001" if even else "00000000000002", "00000000000004" if even else "00000000000003"):
        await sut.consume(batch.edit().set_field("trace_state", f"ot=rv:{rv}").apply())
    await sut.shutdown()
    assert sink.item_count == (2 if even else 0)


async def test_released_parts_are_held_until_they_are_sent_and_survive_a_cancelled_call():
    """Each part leaves just before it is sent; the next release, or a successor, sends what is left behind."""
    stage, sink, settings = sampler()
    for tenant in "abcd":
        spans = traces(spans=40, seed=3).with_context(Context(tenant=tenant))
        await stage.consume(spans)
    sink.hang()
    await stage.start(FakeHost())
    stopping = asyncio.ensure_future(stage.shutdown())
    await settings.clock.advance(0)
    held_count = stage.held_items()
    assert held_count > 0
    assert held_count % 3 == 0, "the first of four equal parts is being sent"
    assert stage.held_bytes() > 0
    stopping.cancel()
    await settings.clock.advance(0)
    assert stage.held_items() == held_count
    successor, its_sink, _ = sampler()
    assert successor.take_over(stage)
    assert (stage.held_items(), successor.held_items()) == (0, held_count)
    await successor.shutdown()
    assert sum(batch.item_count for batch in its_sink.batches) == held_count
    assert successor.held_items() == 0
