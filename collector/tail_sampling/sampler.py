"""The stage that holds whole traces until a decider decides them.

A batch is looked up and its traces are entered into the table when it arrives. What its spans say about their traces is
read for many batches at once, and at the latest before a decision: most of the cost of reading is per batch, not per
span.

A trace is decided ``decision_wait_s`` after its first span, ``decision_wait_after_root_s`` after its root span if that
is earlier, when ``max_bytes`` or ``max_traces`` is exceeded (oldest first), and at shutdown. Late spans follow the
remembered decision on their trace. No trace is dropped undecided, unless ``on_overflow`` or
``drop_pending_on_shutdown`` says so.
"""

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal

import numpy as np

from collector.api import Host, Settings
from collector.model import Batch, Signal, StringColumn, Traces, groups
from collector.model.arrays import F64, I8, I32, I64, U64, Indices, Mask
from collector.model.checkpoint import Part, Parts, nested, within
from collector.otlp.consistent_sampling import RANDOMNESS_BITS, read_trace_state
from collector.tail_sampling.by_trace import ByTrace
from collector.tail_sampling.decider import THRESHOLD_UNCHANGED, ColumnLookup, Decider, TraceDecisions
from collector.tail_sampling.decision_cache import DecisionCache
from collector.tail_sampling.decision_registry import DECISIONS, Decision
from collector.tail_sampling.held_rows import UnreadRows, join_parts
from collector.tail_sampling.holding_stage import HoldingStage
from collector.tail_sampling.trace_states import with_thresholds

__all__ = ["DecidedTraces", "TailSampler"]

_RANDOMNESS_MASK: Final = np.uint64((1 << RANDOMNESS_BITS) - 1)
_COLUMNS: Final[Mapping[str, Any]] = {
    "span_count": np.int64,
    "randomness": np.uint64,
    "randomness_to_write": np.uint64,  # as rv, plus 1; 0 = write none
    "threshold": np.uint64,
    "is_abandoned": np.bool_,  # dropped undecided
}
_ROOT_COLUMNS: Final[Mapping[str, Any]] = {"root_s": np.float64, "has_root": np.bool_}  # where a root shortens the wait


@dataclass(frozen=True, slots=True)
class DecidedTraces:
    """Traces that have just been decided, for subscribers."""

    trace_ids: U64
    kept: Mask


class TailSampler(HoldingStage[Traces]):
    """See the module. Subclasses may override the hooks, whose names begin with ``on_``."""

    def __init__(
        self,
        settings: Settings,
        decider: Decider,
        *,
        decision_wait_s: float,
        decision_wait_after_root_s: float = 0.0,
        max_bytes: int = 0,
        max_traces: int = 0,
        block_on_overflow: bool = False,
        kept_cache_size: int,
        dropped_cache_size: int,
        abandoned_cache_size: int = 0,
        drop_pending_on_shutdown: bool = False,
        on_overflow: Literal["decide", "drop"] = "decide",
        storage: str = "",
        checkpoint_interval_s: float = 0.0,
    ) -> None:
        """The empty sampler. 0 stands for no limit, no cache and no second wait.

        Args:
            settings: Settings of the component.
            decider: Decides which traces are kept.
            decision_wait_s: Time from the first span of a trace to its decision.
            decision_wait_after_root_s: Time from the arrival of its root span to the decision, if that is earlier.
            max_bytes: Budget of the held spans.
            max_traces: Limit on undecided traces.
            block_on_overflow: At ``max_traces``, ``consume`` waits for room instead of evicting the oldest traces.
            kept_cache_size: Number of kept traces that are remembered.
            dropped_cache_size: Number of dropped traces that are remembered.
            abandoned_cache_size: Number of traces dropped undecided that are remembered in addition.
            drop_pending_on_shutdown: Undecided traces are dropped at shutdown (reason ``shutdown``), not decided.
            on_overflow: Whether evicted traces are decided, or dropped (reason ``overflow``).
            storage: The storage extension in which spans and decisions survive a restart; empty: they do not.
            checkpoint_interval_s: How often decisions are saved in it.
        """
        self._kept = DecisionCache(kept_cache_size)
        self._dropped = DecisionCache(dropped_cache_size, abandoned_cache_size)
        super().__init__(
            settings,
            Signal.TRACES,
            columns={**_COLUMNS, **(_ROOT_COLUMNS if decision_wait_after_root_s else {}), **decider.columns},
            decision_wait_s=decision_wait_s,
            shortest_wait_s=min(filter(None, (decision_wait_s, decision_wait_after_root_s))),
            max_bytes=max_bytes,
            max_traces=0 if block_on_overflow else max_traces,
            storage=storage,
            checkpoint_interval_s=checkpoint_interval_s,
        )
        self._decider = decider
        self._after_root_s = decision_wait_after_root_s
        self._drops_pending, self._on_overflow = drop_pending_on_shutdown, on_overflow
        self._unread: UnreadRows[Traces] = UnreadRows()
        self._blocking_limit = max_traces if block_on_overflow else 0
        self._has_room = asyncio.Event()
        self._blocked_count = self._blocked_items = 0
        self._subscribers: list[Callable[[DecidedTraces], None]] = []

    # The component.

    async def start(self, host: Host) -> None:
        """Begin to decide traces that are due, and answer for this component in the registry of decisions."""
        self._settings.shared.get(DECISIONS).register(str(self._settings.id), self.decisions)
        await super().start(host)

    def take_over(self, state: object) -> bool:
        """Continue to hold and remember what the predecessor does. Open traces are decided by the new rules.

        The new decider observes every held span again, because its columns differ from its predecessor's.
        """
        if not isinstance(state, TailSampler):
            return False
        state._read_spans()  # noqa: SLF001 - of this class
        if not super().take_over(state):
            return False
        self._kept.take_over(state._kept)  # noqa: SLF001
        self._dropped.take_over(state._dropped)  # noqa: SLF001
        return True

    async def shutdown(self) -> None:
        """Decide everything that is held and pass on what is kept, unless a successor or a storage keeps it."""
        self._settings.shared.get(DECISIONS).unregister(str(self._settings.id), self.decisions)
        await self._deciding.stop()
        self._blocking_limit = 0
        self._has_room.set()
        # Blocked callers are let in before the last decision.
        while self._blocked_count:  # noqa: ASYNC110 - one turn of the loop each
            await asyncio.sleep(0)
        await super().shutdown()

    def held_items(self) -> int:
        """Spans of undecided traces, of decided ones that are not sent yet, and of callers that wait for room."""
        return super().held_items() + self._unread.item_count + self._blocked_items

    async def consume(self, batch: Batch) -> None:
        """Hold the spans of undecided traces, pass on or drop those of decided ones."""
        assert isinstance(batch, Traces)
        if not batch.item_count:
            return
        trace_ids = batch.field("trace_id")
        slots, closed_rows, kept, dropped = self._find(trace_ids)
        while self._blocking_limit:
            new_ids = trace_ids[closed_rows[(kept < 0) & (dropped < 0)]]
            new_count = groups(new_ids).count if len(new_ids) else 0
            if len(self._traces) + new_count <= self._blocking_limit:
                break
            if not len(self._traces):  # the batch alone has more new traces than the limit
                break
            self._has_room.clear()
            self._blocked_count += 1
            self._blocked_items += batch.item_count
            try:
                await self._has_room.wait()
            except asyncio.CancelledError:
                self._count_dropped(batch.item_count, "overflow")
                raise
            finally:
                self._blocked_count -= 1
                self._blocked_items -= batch.item_count
            slots, closed_rows, kept, dropped = self._find(trace_ids)
        new_rows = closed_rows[(kept < 0) & (dropped < 0)]
        # Held before anything is awaited: a decision that is made in the meantime includes these spans.
        if len(new_rows) or len(closed_rows) < len(trace_ids):
            if len(new_rows):
                slots[new_rows] = self._slots_of(trace_ids[new_rows])
            self._hold(batch, slots)
        stored = self._store(batch, slots, trace_ids)
        if len(new_rows) < len(closed_rows):
            await self._pass_late_spans(batch, closed_rows, kept, dropped)
        await self._keep_within_limits()
        if stored is not None:
            await stored

    # The state.

    @property
    def row_bytes(self) -> int:
        """Bytes of the held spans, which ``max_bytes`` limits."""
        return self._held.size_bytes + self._unread.size_bytes

    @property
    def table_bytes(self) -> int:
        """Memory of the tables of undecided and of remembered traces."""
        return self._traces.memory_bytes + self._kept.memory_bytes + self._dropped.memory_bytes

    @property
    def remembered_count(self) -> int:
        """Number of remembered decisions."""
        return len(self._kept) + len(self._dropped)

    def decisions(self, trace_ids: U64) -> I8:
        """The ``Decision`` on each trace, I8[n]."""
        slots, closed_rows, kept, dropped = self._find(trace_ids)
        decisions = np.where(slots >= 0, np.int8(Decision.PENDING), np.int8(Decision.UNKNOWN))
        decisions[closed_rows[kept >= 0]] = Decision.KEPT
        decisions[closed_rows[dropped >= 0]] = Decision.DROPPED
        return decisions

    def subscribe(self, subscriber: Callable[[DecidedTraces], None]) -> None:
        """Have ``subscriber`` called with every set of traces as soon as it is decided."""
        self._subscribers.append(subscriber)

    def unsubscribe(self, subscriber: Callable[[DecidedTraces], None]) -> None:
        """Undo ``subscribe``. Does nothing if ``subscriber`` is not subscribed."""
        if subscriber in self._subscribers:
            self._subscribers.remove(subscriber)

    async def decide_now(self, trace_ids: U64) -> None:
        """Decide those of the traces that are undecided, and release them."""
        if not len(self._open_slots(trace_ids)):
            return
        async with self._deciding.lock:  # while waiting for it, traces may have been decided
            slots = self._open_slots(trace_ids)
            if len(slots):
                self._decide(slots)
                await self._release()

    def drop_now(self, trace_ids: U64, reason: str) -> int:
        """Drop those of the traces that are undecided, and their late spans; returns how many traces these are."""
        slots = self._open_slots(trace_ids)
        self._drop_undecided(slots, reason)
        return len(slots)

    # Hooks.

    def on_decided(self, slots: I32, decisions: TraceDecisions, column: ColumnLookup) -> None:
        """Called with every set of traces that is decided, before they leave."""

    def on_late_spans(self, kept_count: int, dropped_count: int, ages_s: F64) -> None:
        """Called with the number of late spans, and the time from their traces' decisions to their arrival."""

    def on_release(self, batch: Traces, slots: I32, column: ColumnLookup) -> None:
        """Called with every batch of kept spans before it is passed on, and the slots of its spans."""

    # Spans coming in.

    def _find(self, trace_ids: U64) -> tuple[I32, Indices, I32, I32]:
        """Look traces up among the undecided ones, and those that are not there in the caches.

        Returns:
            ``slots`` I32[n] of undecided traces, else -1; the k rows where it is -1; for these rows the slots I32[k]
            among kept and among dropped decisions, else -1.
        """
        slots = self._traces.find(trace_ids)
        closed_rows = np.flatnonzero(slots < 0)
        closed_ids = trace_ids[closed_rows]
        kept, dropped = self._kept.find(closed_ids), self._dropped.find(closed_ids)
        dropped[kept >= 0] = -1
        return slots, closed_rows, kept, dropped

    def _open_slots(self, trace_ids: U64) -> I32:
        slots = self._traces.find(trace_ids)
        return np.unique(slots[slots >= 0])

    def _add_traces(self, slots: I32, trace_ids: U64) -> None:
        super()._add_traces(slots, trace_ids)
        self._traces.column("randomness")[slots] = trace_ids[:, 1] & _RANDOMNESS_MASK

    def _hold(self, batch: Traces, slots: I32) -> None:
        """Hold the spans whose slot is not negative, and read them later with others."""
        if self._after_root_s:
            has_root, root_s = self._traces.column("has_root"), self._traces.column("root_s")
            roots = slots[(batch.field("parent_span_id") == 0) & (slots >= 0)]
            first_roots = roots[~has_root[roots]]
            has_root[first_roots], root_s[first_roots] = True, self._clock.monotonic_s()
        self._unread.add(batch, slots)
        if self._unread.is_full:
            self._read_spans()

    def _read_spans(self, *, keep_parts: bool = False) -> None:
        """Note what unread spans say about their traces, and hold them as one part, or as they are (``keep_parts``)."""
        parts = self._unread.take()
        if not parts:
            return
        batch, slots = join_parts(parts)
        have_one_context = all(part.context == batch.context for part, _ in parts)
        for part in [(batch, slots)] if have_one_context and not keep_parts else parts:
            self._held.add(*part)
        grouped = ByTrace(slots)
        self._note_randomness(batch, slots)
        self._traces.column("span_count")[grouped.slots] += grouped.counts
        self._decider.observe(batch, grouped, self._traces.column)

    def _note_randomness(self, batch: Traces, slots: I32) -> None:
        """Take the randomness of a trace from its first span with an ``rv``; else it stays that of the trace id."""
        states = batch.field("trace_state")
        if not states.distinct_count or not states.present.any():
            return
        explicit = _explicit_randomness(states)
        if not (explicit >= 0).any():
            return
        column = self._traces.column
        values = explicit[states.codes]
        is_from_id = column("randomness")[slots] == batch.field("trace_id")[:, 1] & _RANDOMNESS_MASK
        is_replaceable = is_from_id | (column("randomness_to_write")[slots] != 0)
        rows = np.flatnonzero((values >= 0) & (slots >= 0) & is_replaceable)[
            ::-1
        ]  # the first is written last and stays
        column("randomness")[slots[rows]] = values[rows].astype(np.uint64)

    async def _pass_late_spans(self, batch: Traces, rows: Indices, kept: I32, dropped: I32) -> None:
        """Pass on the spans ``rows`` whose traces were kept, and drop those whose traces were dropped."""
        rows, kept, dropped = rows[kept >= 0], kept[kept >= 0], dropped[dropped >= 0]
        decided_s = np.concatenate((self._kept.column("decided_s")[kept], self._dropped.column("decided_s")[dropped]))
        self.on_late_spans(len(kept), len(dropped), self._clock.monotonic_s() - decided_s)
        self._count_dropped(len(dropped))
        if len(rows):
            chosen = np.zeros(batch.item_count, np.bool_)
            chosen[rows] = True
            thresholds = self._kept.column("threshold")[kept]
            randomness = self._kept.column("randomness_to_write")[kept]
            await self._send(with_thresholds(batch.select(chosen), thresholds, randomness))

    # The storage.

    def _hold_since(self, batch: Traces, slots: I32, arrived_s: float) -> None:
        super()._hold_since(batch, slots, arrived_s)
        if self._after_root_s:
            root_s, roots = self._traces.column("root_s"), slots[(batch.field("parent_span_id") == 0) & (slots >= 0)]
            root_s[roots] = np.minimum(root_s[roots], arrived_s)

    def _parts(self) -> dict[str, Part]:
        return super()._parts() | nested("kept", self._kept.snapshot()) | nested("dropped", self._dropped.snapshot())

    def _restore(self, parts: Parts, elapsed_s: float) -> None:
        self._kept.restore(within("kept", parts), elapsed_s)
        self._dropped.restore(within("dropped", parts), elapsed_s)

    # Decisions.

    def _due(self, now_s: float) -> I32:
        if not self._after_root_s:
            return super()._due(now_s)
        live = self._traces.live()
        column = self._traces.column
        is_due = column("first_s")[live] <= now_s - self._wait_s
        is_due |= column("has_root")[live] & (column("root_s")[live] <= now_s - self._after_root_s)
        return live[is_due]

    def _decide(self, slots: I32) -> None:
        self._read_spans()
        column = self._traces.column
        decisions = self._decider.decide(slots, column, self._clock.monotonic_s())
        column("decision")[slots] = np.where(decisions.kept, Decision.KEPT, Decision.DROPPED)
        column("threshold")[slots] = decisions.thresholds
        self.on_decided(slots, decisions, column)
        self._notify(slots, decisions.kept)

    async def _decide_unstored(self) -> None:
        if self._drops_pending:
            self._drop_undecided(self._traces.live(), "shutdown")
        else:
            await super()._decide_unstored()

    async def _decide_all(self) -> None:
        if self._drops_pending:
            self._drop_undecided(self._traces.live(), "shutdown")
        else:
            self._decide(self._traces.live())

    def _drop_undecided(self, slots: I32, reason: str) -> None:
        """Drop undecided traces, and their late spans."""
        if not len(slots):
            return
        self._read_spans()
        self._traces.column("decision")[slots] = Decision.DROPPED
        self._traces.column("threshold")[slots] = THRESHOLD_UNCHANGED
        self._traces.column("is_abandoned")[slots] = True
        self._notify(slots, np.zeros(len(slots), np.bool_))
        self._take_decided(reason)

    def _notify(self, slots: I32, kept: Mask) -> None:
        if self._subscribers:
            decided = DecidedTraces(self._traces.keys(slots), kept)
            for subscriber in self._subscribers:
                subscriber(decided)

    def _oldest(self, excess_bytes: int) -> I32:
        self._read_spans(keep_parts=True)
        return super()._oldest(excess_bytes)

    def _evict(self, slots: I32, cause: Literal["bytes", "traces"]) -> None:
        if self._on_overflow == "decide":
            super()._evict(slots, cause)
        else:
            self.on_evicted(len(slots), cause)
            self._drop_undecided(slots, "overflow")

    # Spans leaving.

    def _before_release(
        self,
        decided: I32,
        kept_parts: list[tuple[Traces, I32]],  # noqa: ARG002 - the hook's signature
        discarded_slots: I32,  # noqa: ARG002 - the hook's signature
    ) -> None:
        """Remember the decisions, and let blocked callers in."""
        column, now_s = self._traces.column, self._clock.monotonic_s()
        for cache, decision in ((self._kept, Decision.KEPT), (self._dropped, Decision.DROPPED)):
            slots = decided[column("decision")[decided] == decision]
            cache.remember(
                self._traces.keys(slots),
                thresholds=column("threshold")[slots],
                randomness_to_write=column("randomness_to_write")[slots],
                now_s=now_s,
                are_abandoned=column("is_abandoned")[slots],
            )
        self._has_room.set()

    def _finish(self, batch: Traces, slots: I32) -> Traces:
        column = self._traces.column
        self.on_release(batch, slots, column)
        return with_thresholds(batch, column("threshold")[slots], column("randomness_to_write")[slots])


def _explicit_randomness(states: StringColumn) -> I64:
    """The ``rv`` of each distinct trace state, -1 if it has none; the last element, -1, stands for no trace state."""
    values = [
        -1 if "rv:" not in text or (randomness := read_trace_state(text).randomness) is None else randomness
        for text in states.distinct
    ]
    return np.array([*values, -1], np.int64)
