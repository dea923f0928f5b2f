"""The processor ``tail_sampling``: the Collector's, with its policies, over whole traces.

Batches are held as the bytes they came in, each with the row of every span's trace; a trace is a row of a table, never an object. What
the policies need of the spans is folded into columns of that table on arrival, so that nothing is read again for a decision.
Rules: the Collector's (``processor.go`` of tailsamplingprocessor 0.156); docs/tail_sampling.md lists where this differs and why.
"""

import asyncio
import contextlib
from collections import Counter, deque
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from collector.api import Component, ConsumeError, Host, Settings, Stage
from collector.model import Batch, Context, KeyTable, Signal, Traces, groups
from processors.tail_sampling.cache import DecisionCache
from processors.tail_sampling.config import TailSamplingConfig
from processors.tail_sampling.decider import UNDECIDED, Decider
from processors.tail_sampling.policies import DROPPED, SAMPLED
from processors.tail_sampling.policies import Traces as Asked
from processors.tail_sampling.sizes import framed, parts_of

__all__ = ["TailSamplingProcessor", "create"]

I32 = NDArray[np.int32]
Mask = NDArray[np.bool_]

_PREFIX: Final = "otelcol_processor_tail_sampling_"
# What became of a trace. Beyond the first two the names are the ledger's reasons.
_PENDING, _KEPT, _NOT_SAMPLED, _DROPPED, _TOO_LARGE, _EVICTED, _SHUTDOWN = range(7)
_REASONS: Final = {
    _NOT_SAMPLED: "not_sampled",
    _DROPPED: "drop_policy",
    _TOO_LARGE: "trace_too_large",
    _EVICTED: "num_traces",
    _SHUTDOWN: "shutdown",
}
_NEVER_S: Final = float("inf")
_AGE_BUCKETS_S: Final = (0, 5, 10, 25, 50, 75, 100, 250, 500, 750, 1000, 2500, 5000, 7500, 10000)
_TIMER_BUCKETS_MS: Final = (
    1, 2, 5, 10, 25, 50, 75, 100, 150, 200, 300, 400, 500, 750, 1000, 2000, 3000, 4000, 5000, 10000, 20000, 30000, 50000,
)  # fmt: skip


@dataclass(slots=True)
class _Held:
    """One batch and what of it is undecided."""

    batch: Traces
    slots: I32
    serials: NDArray[np.uint32]
    """Of each span's trace: a row is used again, a serial is not."""
    waiting: Mask
    size_bytes: int
    next_due_s: float


class TailSamplingProcessor(Stage):
    """See the module."""

    def __init__(self, settings: Settings, config: TailSamplingConfig) -> None:
        self._settings = settings
        self._config = config
        self._clock = settings.clock
        telemetry = settings.telemetry
        self._decider = Decider(config, telemetry, settings.clock, settings.id.name)
        self._on_ingest = config.sampling_strategy == "span-ingest"
        self._table = KeyTable(
            {
                "arrived": np.float64,
                "due": np.float64,
                "decided": np.float64,
                "serial": np.uint32,
                "decision": np.uint8,
                "spans": np.int64,
                "bytes": np.int64,
                "framed": np.int64,
                **self._decider.columns,
            },
            capacity=int(min(max(config.expected_new_traces_per_sec * config.decision_wait, 1024), config.num_traces)),
        )
        self._serial = 0
        self._sampled = DecisionCache(config.decision_cache.sampled_cache_size)
        self._not_sampled = DecisionCache(config.decision_cache.non_sampled_cache_size)
        self._held: deque[_Held] = deque()
        self._held_bytes = self._held_items = 0
        self._look_everywhere = False  # a batch may be due before its next_due_s says so
        self._unreleased = False  # a trace is decided and still has spans held
        self._releasing = asyncio.Lock()
        self._room = asyncio.Condition()
        self._blocked_count = 0
        self._closing = False
        self._task: asyncio.Task[None] | None = None
        wait_s = min(config.decision_wait, config.decision_wait_after_root_received or config.decision_wait)
        self._tick_s = min(1.0, max(0.05, wait_s / 10))
        self._new = telemetry.counter(_PREFIX + "new_trace_id_received", "Traces seen for the first time")
        self._early = telemetry.counter(_PREFIX + "early_releases_from_cache_decision", "Spans decided by the decision cache", ("sampled",))
        self._too_early = telemetry.counter(_PREFIX + "sampling_trace_dropped_too_early", "Traces evicted before their decision")
        self._too_large = telemetry.counter(_PREFIX + "traces_dropped_too_large", "Traces beyond maximum_trace_size_bytes")
        self._timer = telemetry.histogram(
            _PREFIX + "sampling_decision_timer_latency", "Duration of each round of decisions, in milliseconds", _TIMER_BUCKETS_MS
        )
        self._late_age = telemetry.histogram(
            _PREFIX + "sampling_late_span_age", "Seconds from a trace's decision to the arrival of a late span", _AGE_BUCKETS_S
        )
        self._removal_age = telemetry.histogram(
            _PREFIX + "sampling_trace_removal_age", "Seconds from a trace's arrival to its removal from memory", _AGE_BUCKETS_S
        )
        telemetry.gauge(_PREFIX + "sampling_traces_on_memory", "Traces in memory, decided or not", read=lambda: float(len(self._table)))

    async def start(self, host: Host) -> None:  # noqa: ARG002 - it needs nothing of the host
        """Begin deciding."""
        for policy in self._config.policies:
            if policy.composite is not None:
                given = {each.policy for each in policy.composite.rate_allocation}
                if without := [sub.name for sub in policy.composite.composite_sub_policy if sub.name not in given]:
                    self._settings.telemetry.log.warning(
                        "a composite policy's sub-policies without rate_allocation let nothing through", policy=policy.name, without=without
                    )
        self._closing = False
        self._task = asyncio.ensure_future(self._decide_when_due())

    async def shutdown(self) -> None:
        """Decide what is undecided, or drop it if so configured; pass on what is kept."""
        self._closing = True
        async with self._room:
            self._room.notify_all()
            await self._room.wait_for(lambda: not self._blocked_count)
        if self._task is not None:
            task, self._task = self._task, None
            async with self._releasing:  # what is on its way gets there
                task.cancel()
                await asyncio.gather(task, return_exceptions=True)
        if self._held:
            await self._finish(self._undecided(), at_shutdown=True)

    def held_items(self) -> int:
        """Spans undecided."""
        return self._held_items

    def held_bytes(self) -> int:
        """Memory of the batches they are in."""
        return self._held_bytes

    async def consume(self, batch: Batch) -> None:
        """Hold the spans of open traces, pass on or drop those of decided ones."""
        assert isinstance(batch, Traces)
        rest, kept = self._not_remembered(batch)
        emitted = [kept] if kept is not None else []
        while rest is not None:
            slots, is_new = self._table.insert(rest.field("trace_id"), limit=0 if self._closing else self._config.num_traces)
            room = slots >= 0
            taken = rest.select(room) if not room.all() else rest
            if taken.item_count:
                emitted += self._take(taken, slots[room], is_new[room])
            rest = rest.select(~room) if taken is not rest else None
            if rest is not None:
                await self._emit([*emitted, *self._left_over()])
                emitted = []
                await self._make_room(rest)
        await self._emit(emitted)

    # What comes in.

    def _not_remembered(self, batch: Traces) -> tuple[Traces | None, Traces | None]:
        """The spans of traces the caches do not know, and those the cache of sampled traces knows."""
        if not len(self._sampled) and not len(self._not_sampled):
            return batch, None
        trace_ids = batch.field("trace_id")
        sampled = self._sampled.find(trace_ids)
        unwanted = self._not_sampled.find(trace_ids) & ~sampled
        for mask, word in ((sampled, "true"), (unwanted, "false")):
            if count := int(np.count_nonzero(mask)):
                self._early.add(count, sampled=word)
        self._drop(Counter({_NOT_SAMPLED: int(np.count_nonzero(unwanted))}))
        known = sampled | unwanted
        return (None if known.all() else batch.select(~known)), (batch.select(sampled) if sampled.any() else None)

    def _take(self, batch: Traces, slots: I32, is_new: Mask) -> list[Traces]:
        """Fold the spans in and hold them; returns those that can go at once."""
        now_s = self._clock.monotonic_s()
        column = self._table.column
        self._note_new(slots[is_new], now_s)
        late = column("decision")[slots] != _PENDING
        emitted = []
        if late.any():
            if (leaving := self._late(batch.select(late), slots[late], now_s)) is not None:
                emitted.append(leaving)
            if late.all():
                return emitted
            batch, slots = batch.select(~late), slots[~late]
        if self._config.decision_wait_after_root_received:
            hurried = slots[batch.field("parent_span_id") == 0]
            due_s = now_s + self._config.decision_wait_after_root_received
            self._look_everywhere |= bool((column("due")[hurried] > due_s).any())
            column("due")[hurried] = np.minimum(column("due")[hurried], due_s)
        self._add_up(batch, slots, now_s)
        self._hold(batch, slots)
        self._unreleased |= bool((column("decision")[slots] != _PENDING).any())
        return emitted

    def _note_new(self, slots: I32, now_s: float) -> None:
        if not len(slots):
            return
        column = self._table.column
        column("arrived")[slots] = now_s
        column("due")[slots] = now_s + self._config.decision_wait
        column("serial")[slots] = (np.arange(self._serial, self._serial + len(slots)) & 0xFFFFFFFF).astype(np.uint32)
        self._serial += len(slots)
        self._new.add(len(slots))

    def _late(self, batch: Traces, slots: I32, now_s: float) -> Traces | None:
        """Spans behind their trace's decision follow it."""
        column = self._table.column
        decision = column("decision")[slots]
        traces = np.unique(slots)
        traces = traces[column("decision")[traces] != _TOO_LARGE]
        self._observe_ages(self._late_age, now_s - column("decided")[traces])
        kept = decision == _KEPT
        self._drop(_tally(decision[~kept]))
        return batch.select(kept) if kept.any() else None

    def _add_up(self, batch: Traces, slots: I32, now_s: float) -> None:
        """Count spans and bytes, fold the policies' columns; decide what can be decided at once."""
        column = self._table.column
        if not self._on_ingest and not self._decider.needs_sizes:
            np.add.at(column("spans"), slots, 1)
            self._decider.observe(batch, slots, column)
            return
        parts = parts_of(batch, slots, with_sizes=self._decider.needs_sizes)
        before = column("spans")[parts.slots], column("framed")[parts.slots]
        np.add.at(column("spans"), parts.slots, parts.span_counts)
        np.add.at(column("bytes"), parts.slots, parts.size_bytes)
        np.add.at(column("framed"), parts.slots, framed(parts.size_bytes))
        if limit := self._config.maximum_trace_size_bytes:
            large = np.unique(parts.slots[column("bytes")[parts.slots] > limit])
            if len(large):
                column("decision")[large] = _TOO_LARGE
                column("decided")[large] = now_s
                self._too_large.add(len(large))
        if not self._on_ingest:
            self._decider.observe(batch, slots, column)
            return
        own = {name: np.zeros(len(parts.slots), dtype) for name, dtype in self._decider.columns.items()}
        self._decider.observe(batch, parts.codes, own.__getitem__)
        open_ = column("decision")[parts.slots] == _PENDING
        if not open_.any():
            return
        rows = np.flatnonzero(open_)
        started_s = self._clock.monotonic_s()
        verdict = self._decider.judge(
            Asked(
                self._table.keys(parts.slots[rows]),
                (before[0] + _running(parts.slots, parts.span_counts))[rows],
                (before[1] + _running(parts.slots, framed(parts.size_bytes)))[rows],
                self._decider.values(rows, own.__getitem__),
                now_s,
                self._clock.time_unix_nano() // 1_000_000_000,
            ),
            parts.slots[rows],
        )
        self._timer.observe((self._clock.monotonic_s() - started_s) * 1e3)
        decisive = verdict != UNDECIDED
        chosen = parts.slots[rows][decisive]
        column("decision")[chosen] = np.where(verdict[decisive] == SAMPLED, _KEPT, _DROPPED)
        column("decided")[chosen] = now_s

    def _hold(self, batch: Traces, slots: I32) -> None:
        column = self._table.column
        batch = batch.without_index()
        serials = column("serial")[slots]
        size_bytes = batch.memory_bytes + slots.nbytes + serials.nbytes + len(slots)
        held = _Held(batch, slots, serials, np.ones(len(slots), np.bool_), size_bytes, float(column("due")[slots].min()))
        self._held.append(held)
        self._held_bytes += size_bytes
        self._held_items += len(slots)

    def _left_over(self) -> list[Traces]:
        """The spans of decided traces that are still held: their rows are about to be given away."""
        return self._release(everything=True) if self._unreleased else []

    async def _make_room(self, batch: Traces) -> None:
        """Evict as many traces as the batch needs rows, or wait until there is one."""
        live = self._table.live()
        column = self._table.column
        pending = column("decision")[live] == _PENDING
        candidates = live[~pending] if self._config.block_on_overflow else live
        if not len(candidates):
            self._blocked_count += 1
            async with self._room:
                await self._room.wait_for(lambda: self._closing or self._has_decided())
                self._blocked_count -= 1
                self._room.notify_all()
            return
        needed = min(groups(batch.field("trace_id")).count, len(candidates))
        # Decided traces first, then the oldest.
        age = (self._serial - column("serial")[candidates].astype(np.int64)) & 0xFFFFFFFF
        rank = (column("decision")[candidates] == _PENDING) * np.int64(2**40) - age
        evicted = candidates[np.argpartition(rank, needed - 1)[:needed]]
        undecided = evicted[column("decision")[evicted] == _PENDING]
        if len(undecided):
            self._too_early.add(len(undecided))
            column("decision")[undecided] = _EVICTED
            self._look_everywhere = True
        self._remove(evicted)

    def _has_decided(self) -> bool:
        decision = self._table.column("decision")[self._table.live()]
        return len(decision) < self._config.num_traces or bool((decision != _PENDING).any())

    # Decisions.

    async def _decide_when_due(self) -> None:
        while True:
            await self._clock.sleep(self._tick_s)
            async with self._releasing:
                started_s = self._clock.monotonic_s()
                undecided = self._undecided()
                due = undecided[self._table.column("due")[undecided] <= started_s]
                if len(due) or self._look_everywhere or self._unreleased:
                    await self._finish(due)
                self._timer.observe((self._clock.monotonic_s() - started_s) * 1e3)
            if self._blocked_count:
                async with self._room:
                    self._room.notify_all()

    def _undecided(self) -> I32:
        live = self._table.live()
        undecided: I32 = live[self._table.column("decision")[live] == _PENDING]
        return undecided

    async def _finish(self, slots: I32, *, at_shutdown: bool = False) -> None:
        """Decide these and let go of what is decided."""
        column = self._table.column
        slots = slots[np.argsort(column("serial")[slots], kind="stable")]
        trace_ids = self._table.keys(slots)
        if at_shutdown and self._config.drop_pending_traces_on_shutdown:
            column("decision")[slots] = _SHUTDOWN
        elif self._on_ingest:
            column("decision")[slots] = _NOT_SAMPLED
            self._decider.count_cleanup(len(slots))
        elif len(slots):
            verdict = self._decider.decide(
                Asked(
                    trace_ids,
                    column("spans")[slots],
                    column("framed")[slots],
                    self._decider.values(slots, column),
                    self._clock.monotonic_s(),
                    self._clock.time_unix_nano() // 1_000_000_000,
                )
            )
            column("decision")[slots] = np.select([verdict == SAMPLED, verdict == DROPPED], [_KEPT, _DROPPED], _NOT_SAMPLED)
        column("decided")[slots] = self._clock.monotonic_s()
        parts = self._release(everything=at_shutdown)
        if self._on_ingest:  # such a trace is forgotten, as in the Collector: its next span begins a new one
            known = self._table.find(trace_ids)
            self._remove(known[known >= 0])
        await self._emit(parts)

    def _release(self, *, everything: bool = False) -> list[Traces]:
        """Take what is decided out of the held batches; returns what is to be passed on."""
        now_s = self._clock.monotonic_s()
        everything = everything or self._look_everywhere or self._unreleased
        self._look_everywhere = self._unreleased = False
        column = self._table.column
        decisions, serials, dues = column("decision"), column("serial"), column("due")
        parts: list[Traces] = []
        remaining: deque[_Held] = deque()
        lost: Counter[int] = Counter()
        for held in self._held:
            if not everything and held.next_due_s > now_s:
                remaining.append(held)
                continue
            decision = np.where(serials[held.slots] == held.serials, decisions[held.slots], _EVICTED)
            decision[~held.waiting] = _PENDING
            gone = decision != _PENDING
            kept = decision == _KEPT
            if kept.any():
                parts.append(held.batch.select(kept))
            lost.update(_tally(decision[gone & ~kept]))
            self._held_items -= int(np.count_nonzero(gone))
            waiting = held.waiting & ~gone
            self._held_bytes -= held.size_bytes
            if waiting.any():
                held = self._shrunk(held, waiting)  # noqa: PLW2901 - the same batch, with less in it
                held.next_due_s = float(dues[held.slots[held.waiting]].min())
                self._held_bytes += held.size_bytes
                remaining.append(held)
        self._held = remaining
        self._drop(lost)
        live = self._table.live()
        self._remember(live[column("decision")[live] != _PENDING])
        return parts

    @staticmethod
    def _shrunk(held: _Held, waiting: Mask) -> _Held:
        """What still waits of a batch, in bytes of its own once that is less than half of it."""
        held.waiting = waiting
        if 2 * np.count_nonzero(waiting) > len(waiting):
            return held
        batch = held.batch.select(waiting).without_index()
        slots, serials = held.slots[waiting], held.serials[waiting]
        size_bytes = batch.memory_bytes + slots.nbytes + serials.nbytes + len(slots)
        return _Held(batch, slots, serials, np.ones(len(slots), np.bool_), size_bytes, held.next_due_s)

    def _remember(self, slots: I32) -> None:
        """Hand decided traces to the caches; those they took need no row any more."""
        if not len(slots) or not (self._config.decision_cache.sampled_cache_size or self._config.decision_cache.non_sampled_cache_size):
            return
        slots = slots[np.argsort(self._table.column("serial")[slots], kind="stable")]
        kept = self._table.column("decision")[slots] == _KEPT
        for cache, chosen in ((self._sampled, slots[kept]), (self._not_sampled, slots[~kept])):
            if len(chosen):
                self._remove(chosen[cache.put(self._table.keys(chosen))])

    def _remove(self, slots: I32) -> None:
        if len(slots):
            self._observe_ages(self._removal_age, self._clock.monotonic_s() - self._table.column("arrived")[slots])
            self._table.remove(slots)

    # Leaving.

    async def _emit(self, batches: list[Traces]) -> None:
        """Pass on, one batch a context."""
        by_context: dict[Context, list[Traces]] = {}
        for batch in batches:
            by_context.setdefault(batch.context, []).append(batch)
        for each in by_context.values():
            # An exporter that waits for its backend may have given up. It has counted that; the sender was answered long ago.
            with contextlib.suppress(ConsumeError):
                await self._settings.outputs[Signal.TRACES].consume(Traces.concat(each))

    def _drop(self, lost: "Counter[int]") -> None:
        for code, count in lost.items():
            if count:
                self._settings.telemetry.dropped(Signal.TRACES, count, _REASONS[code])

    @staticmethod
    def _observe_ages(histogram: Any, ages_s: NDArray[np.float64]) -> None:
        """Whole seconds, as the Collector records them; once a distinct value."""
        for age, count in zip(*(array.tolist() for array in np.unique(ages_s.astype(np.int64), return_counts=True)), strict=True):
            histogram.observe(float(age), count)


def _tally(codes: NDArray[np.uint8]) -> "Counter[int]":
    return Counter({code: count for code, count in enumerate(np.bincount(codes).tolist()) if count})


def _running(owners: I32, counts: NDArray[np.int64]) -> NDArray[np.int64]:
    """int64[k]: of each row, the sum over its owner's rows up to and including it."""
    order = np.argsort(owners, kind="stable")
    sums = np.cumsum(counts[order])
    first = np.flatnonzero(np.diff(owners[order], prepend=-1))
    base = np.zeros(len(counts), np.int64)
    base[first] = np.diff(np.concatenate(([0], sums[first] - counts[order][first])))
    result = np.empty(len(counts), np.int64)
    result[order] = sums - np.cumsum(base)
    return result


def create(settings: Settings, config: TailSamplingConfig, previous: Component | None) -> TailSamplingProcessor:  # noqa: ARG001 - the old object decides what it holds at its shutdown
    """The component."""
    return TailSamplingProcessor(settings, config)
