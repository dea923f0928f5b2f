"""The stage that holds whole traces until a decider decides them. A trace is a row of a table, never an object.

A batch is looked up and entered when it comes; what its spans say of their traces is read for many batches at once,
before anything is
decided: most of what reading costs is paid a batch, not a span.

A decision falls ``decision_wait_s`` after a trace's first span, ``decision_wait_after_root_s`` after its root's if that
is earlier, when ``max_bytes`` or ``max_traces`` is exceeded (oldest first), and at shutdown. Late spans follow the
remembered decision of their trace.

Order of leaving when bytes run short: held parts from the oldest on; every trace with a span in such a part is decided
and leaves whole, until the rest fits. Nothing is lost undecided, unless ``on_overflow`` says so.
"""

import asyncio
import contextlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal, Protocol

import numpy as np

from collector.api import ConsumeError, Host, Settings, Stage
from collector.model import Batch, Context, KeyTable, Signal, StringColumn, Traces, groups
from collector.model.arrays import F64, I8, I32, I64, U8, U64, Array, Indices, Mask
from collector.otlp.consistent_sampling import RANDOMNESS_BITS, read_trace_state
from collector.tail_sampling.decision_cache import Decisions
from collector.tail_sampling.decision_registry import DECISIONS, Decision
from collector.tail_sampling.held import Arrivals, HeldRows, together
from collector.tail_sampling.reduce import by_trace
from collector.tail_sampling.stamp import ERASE, LEAVE, stamped

__all__ = ["DROPPED", "ERASE", "KEPT", "LEAVE", "OPEN", "UNKNOWN", "Decider", "Settled", "TailSampler", "Verdicts"]

Column = Callable[[str], Array]

UNKNOWN, OPEN, KEPT, DROPPED = (
    each.value for each in (Decision.UNKNOWN, Decision.PENDING, Decision.KEPT, Decision.DROPPED)
)
_LOW_BITS: Final = np.uint64((1 << RANDOMNESS_BITS) - 1)
_TICKS: Final = 10  # checks a wait
_TICK_MAX_S: Final = 1.0
_OUT_BYTES: Final = 64 << 20  # of one batch that leaves; 2 GiB is the most a batch can have
_EARLY_SHARE: Final = 16  # over a budget, 1/16 of it is freed at once: each freeing asks every held row
_COLUMNS: Final[Mapping[str, Any]] = {
    "first_s": np.float64,
    "span_count": np.int64,
    "size_bytes": np.int64,
    "randomness": np.uint64,
    "rv": np.uint64,
    "state": np.uint8,
    "threshold": np.uint64,
}
_ROOT_COLUMNS: Final[Mapping[str, Any]] = {"root_s": np.float64, "has_root": np.bool_}  # where a root shortens the wait


@dataclass(frozen=True, slots=True)
class Verdicts:
    """What a decider says of n traces."""

    kept: Mask
    """bool[n]."""
    thresholds: U64
    """U64[n]: for ``ot=th`` of what is kept, raised to it; LEAVE: as it came; ERASE: gone, the share kept is not known."""
    reasons: I32
    """I32[n]: index into ``Decider.reasons``; -1 = none."""


class Decider(Protocol):
    """Who is kept."""

    @property
    def columns(self) -> Mapping[str, Any]:
        """KeyTable columns it keeps for each trace; zero at a trace's first span."""
        ...

    @property
    def reasons(self) -> Sequence[str]:
        """Names of rules or policies, for metrics."""
        ...

    def observe(self, batch: Traces, slots: I32, column: Column) -> None:
        """Fold the spans of a batch into the columns. ``slots`` I32[n]: each span's trace, -1 = not asked (late)."""
        ...

    def decide(self, slots: I32, column: Column, now_s: float) -> Verdicts:
        """Decide traces, for good. The engine's own columns can be read too: ``first_s span_count size_bytes randomness rv``."""
        ...


@dataclass(frozen=True, slots=True)
class Settled:
    """Traces just decided: for who follows them."""

    trace_ids: U64
    kept: Mask


class TailSampler(Stage):
    """See the module. Subclasses may count and look: ``decided``, ``late``, ``early``, ``leaving``."""

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
        max_trace_bytes: int = 0,
        kept_cache_size: int,
        dropped_cache_size: int,
        drop_pending_on_shutdown: bool = False,
        on_overflow: Literal["decide", "drop"] = "decide",
    ) -> None:
        """0 = no limit, no cache, no second wait.

        Args:
            settings: Of the component.
            decider: Who is kept.
            decision_wait_s: From a trace's first span.
            decision_wait_after_root_s: From its root's arrival.
            max_bytes: Of the spans held.
            max_traces: Open at a time.
            block_on_overflow: With ``max_traces``: ``consume`` waits for room instead of deciding early.
            max_trace_bytes: A larger trace is dropped (reason ``trace_too_large``).
            kept_cache_size: Kept traces remembered.
            dropped_cache_size: Dropped traces remembered.
            drop_pending_on_shutdown: Open traces are dropped then (reason ``shutdown``).
            on_overflow: Whether traces that leave early are decided or dropped (reason ``overflow``).
        """
        self._settings, self._decider, self._clock = settings, decider, settings.clock
        self._wait_s, self._after_root_s = decision_wait_s, decision_wait_after_root_s
        self._max_bytes, self._max_traces, self._max_trace_bytes = max_bytes, max_traces, max_trace_bytes
        self._blocks, self._drops_pending, self._on_overflow = block_on_overflow, drop_pending_on_shutdown, on_overflow
        self._traces = KeyTable(
            {**_COLUMNS, **(_ROOT_COLUMNS if decision_wait_after_root_s else {}), **decider.columns}
        )
        self._arrivals: Arrivals[Traces] = Arrivals()
        self._held: HeldRows[Traces] = HeldRows()
        self._kept, self._dropped = Decisions(kept_cache_size), Decisions(dropped_cache_size)
        self._empty_table_bytes = self.table_bytes
        self._releasing = asyncio.Lock()
        self._room = asyncio.Event()
        self._blocked_count = 0
        self._task: asyncio.Task[None] | None = None
        self._hands_over = False
        self._outbox: list[Traces] = []
        self._followers: list[Callable[[Settled], None]] = []

    # The component.

    async def start(self, host: Host) -> None:  # noqa: ARG002 - it needs nothing of the host
        """Begin deciding, and answer who asks by this id what was decided."""
        self._settings.shared.get(DECISIONS).register(str(self._settings.id), self._answer)
        self._task = asyncio.ensure_future(self._decide_when_due())

    def hand_over(self, config: Any) -> "TailSampler":  # noqa: ARG002 - any successor decides what is open
        """Itself: the next ``shutdown`` keeps what is held."""
        self._hands_over = True
        return self

    def take_over(self, state: object) -> bool:
        """Hold and remember what the predecessor does. Open traces are decided by the new rules."""
        if not isinstance(state, TailSampler):
            return False
        self._adopt(state)
        return True

    async def shutdown(self) -> None:
        """Decide everything and pass on what is kept."""
        self._settings.shared.get(DECISIONS).unregister(str(self._settings.id), self._answer)
        if self._task is not None:
            task, self._task = self._task, None
            async with self._releasing:  # what is on its way gets there
                task.cancel()
                await asyncio.gather(task, return_exceptions=True)
        self._max_traces, hands_over, self._hands_over = 0, self._hands_over, False
        self._room.set()
        while self._blocked_count:  # noqa: ASYNC110 - who was blocked is let in before the last decision: a turn of the loop each
            await asyncio.sleep(0)
        if not hands_over and len(self._traces):
            live = self._traces.live()
            async with self._releasing:
                if self._drops_pending:
                    self._lose(live, "shutdown")
                else:
                    self._decide(live)
                    await self._release()

    def _adopt(self, previous: "TailSampler") -> None:
        """Take over what another one, shut down after ``hand_over``, holds and remembers. Open traces get the new rules.

        What the rules look at was noted when a span came: it is asked again of every span that is held.
        """
        now_s = self._clock.monotonic_s()
        for mine, theirs in ((self._kept, previous._kept), (self._dropped, previous._dropped)):  # noqa: SLF001 - of this class
            mine.adopt(theirs)
        previous._read()  # noqa: SLF001
        old = previous._traces  # noqa: SLF001
        live, everything = old.live(), np.zeros(len(old.column("state")) + 1, np.bool_)
        everything[live] = True
        parts, _ = previous._held.take(everything, np.zeros_like(everything))  # noqa: SLF001
        for batch, theirs_at in parts:
            ids = old.keys(theirs_at)
            slots = self._enter(ids, np.full(len(ids), -1, np.int32), np.arange(len(ids)))
            self._traces.column("first_s")[slots] = np.minimum(old.column("first_s")[theirs_at], now_s)
            self._arrive(batch, slots)
        old.remove(live)

    def held_items(self) -> int:
        """Spans undecided."""
        return self._held.item_count + self._arrivals.item_count

    def held_bytes(self) -> int:
        """Bytes of the batches they are in, and what the tables grew by."""
        return self.span_bytes + self.table_bytes - self._empty_table_bytes

    @property
    def span_bytes(self) -> int:
        """Bytes of the batches held: what ``max_bytes`` limits."""
        return self._held.size_bytes + self._arrivals.size_bytes

    @property
    def table_bytes(self) -> int:
        """Of the tables of open and of remembered traces."""
        return self._traces.memory_bytes + self._kept.memory_bytes + self._dropped.memory_bytes

    @property
    def open_count(self) -> int:
        """Traces undecided."""
        return len(self._traces)

    @property
    def remembered_count(self) -> int:
        """Decisions remembered."""
        return len(self._kept) + len(self._dropped)

    async def consume(self, batch: Batch) -> None:
        """Hold the spans of open traces, pass on or drop those of decided ones."""
        assert isinstance(batch, Traces)
        if not batch.item_count:
            return
        ids = batch.field("trace_id")
        slots, rest, kept, dropped = self._where(ids)
        while (
            self._blocks
            and self._max_traces
            and len(self._traces) + _distinct(ids[rest[(kept < 0) & (dropped < 0)]]) > self._max_traces
        ):
            if not len(self._traces):  # more new traces in one batch than there may ever be
                break
            self._room.clear()
            self._blocked_count += 1
            try:
                await self._room.wait()
            finally:
                self._blocked_count -= 1
            slots, rest, kept, dropped = self._where(ids)
        late = (kept >= 0) | (dropped >= 0)
        new = rest[~late]
        # held before anything is awaited: a decision that falls meanwhile finds these spans
        if len(new) or len(rest) < len(ids):
            self._arrive(batch, self._enter(ids, slots, new))
        if len(new) < len(rest):
            await self._pass_late(batch, rest, kept, dropped)
        await self._keep_within_limits()

    def states(self, trace_ids: U64) -> U8:
        """uint8[n]: UNKNOWN, OPEN, KEPT or DROPPED, for each id."""
        slots, rest, kept, dropped = self._where(trace_ids)
        states = np.where(slots >= 0, np.uint8(OPEN), np.uint8(UNKNOWN))
        states[rest[kept >= 0]] = KEPT
        states[rest[dropped >= 0]] = DROPPED
        return states

    def _answer(self, trace_ids: U64) -> I8:
        return self.states(trace_ids).astype(np.int8)

    def follow(self, follower: Callable[[Settled], None]) -> None:
        """Have ``follower`` called with every set of traces decided, at once."""
        self._followers.append(follower)

    def unfollow(self, follower: Callable[[Settled], None]) -> None:
        """End that."""
        if follower in self._followers:
            self._followers.remove(follower)

    async def decide_now(self, trace_ids: U64) -> None:
        """Decide those of the traces that are open."""
        slots = self._traces.find(trace_ids)
        slots = np.unique(slots[slots >= 0])
        if len(slots):
            async with self._releasing:
                self._decide(slots)
                await self._release()

    # What subclasses may do.

    def decided(self, slots: I32, verdicts: Verdicts, column: Column) -> None:
        """Called with every set of traces decided, before they leave."""

    def late(self, kept_count: int, dropped_count: int, ages_s: F64) -> None:
        """Called with the number of late spans, and how long after their traces' decisions they came."""

    def early(self, trace_count: int, cause: Literal["bytes", "traces"]) -> None:
        """Called with the number of traces that had to leave before their time."""

    def leaving(self, batch: Traces, slots: I32, column: Column) -> None:
        """Called with every set of kept spans on its way out, and their traces' rows."""

    # Coming in.

    def _where(self, ids: U64) -> tuple[I32, Indices, I32, I32]:
        """(slots I32[n] of open traces, else -1; the k other rows; their slots I32[k] in the kept, in the dropped decisions, else -1)."""
        slots = self._traces.find(ids)
        rest = np.flatnonzero(slots < 0)
        unknown = ids[rest]
        kept, dropped = self._kept.find(unknown), self._dropped.find(unknown)
        dropped[kept >= 0] = -1
        return slots, rest, kept, dropped

    def _enter(self, ids: U64, slots: I32, rows: Indices) -> I32:
        """``slots`` with those of new traces filled in; ``rows`` are theirs."""
        if len(rows):
            of = ids[rows]
            slots[rows], is_new = self._traces.insert(of)
            new, column = slots[rows[is_new]], self._traces.column
            column("first_s")[new] = self._clock.monotonic_s()
            column("state")[new] = OPEN
            column("randomness")[new] = of[is_new, 1] & _LOW_BITS
        return slots

    def _arrive(self, batch: Traces, slots: I32) -> None:
        """Keep the spans whose slot is not negative, to be read."""
        if self._after_root_s:
            has_root, root_s = self._traces.column("has_root"), self._traces.column("root_s")
            of = slots[(batch.field("parent_span_id") == 0) & (slots >= 0)]
            first = of[~has_root[of]]
            has_root[first], root_s[first] = True, self._clock.monotonic_s()
        self._arrivals.add(batch, slots)
        if self._arrivals.is_full or self._max_trace_bytes:  # what is too large goes at once
            self._read()

    def _read(self, *, apart: bool = False) -> None:
        """Note what the spans that arrived say of their traces, and hold them: as one part, or ``apart`` as they came."""
        parts = self._arrivals.take()
        if not parts:
            return
        batch, slots = together(parts)
        one_context = all(part.context == batch.context for part, _ in parts)
        for part in [(batch, slots)] if one_context and not apart else parts:
            self._held.add(*part)
        column = self._traces.column
        grouped = by_trace(slots)
        self._note_randomness(batch, slots)
        column("span_count")[grouped.slots] += grouped.counts
        spans = batch.table().rows
        grouped.fold(np.add, column("size_bytes"), (spans["end"] - spans["start"]).astype(np.int64))
        self._decider.observe(batch, slots, column)
        if self._max_trace_bytes:
            large = grouped.slots[column("size_bytes")[grouped.slots] > self._max_trace_bytes]
            if len(large):
                self._lose(large, "trace_too_large")

    def _note_randomness(self, batch: Traces, slots: I32) -> None:
        """From the first ``rv`` that comes; without one it stays the trace id's."""
        states = batch.field("trace_state")
        if states.distinct_count and states.present.any():
            given = _explicit(states)
            if (given >= 0).any():
                of, column = given[states.codes], self._traces.column
                untold = (column("randomness")[slots] == batch.field("trace_id")[:, 1] & _LOW_BITS) | (
                    column("rv")[slots] != 0
                )
                at = np.flatnonzero((of >= 0) & (slots >= 0) & untold)[::-1]  # the first one is written last and stays
                column("randomness")[slots[at]] = of[at].astype(np.uint64)

    async def _pass_late(self, batch: Traces, rows: Indices, kept: I32, dropped: I32) -> None:
        """Of the spans ``rows``: pass on those whose traces were kept, drop those whose traces were dropped."""
        now_s = self._clock.monotonic_s()
        rows, kept, dropped = rows[kept >= 0], kept[kept >= 0], dropped[dropped >= 0]
        self.late(
            len(kept),
            len(dropped),
            now_s - np.concatenate((self._kept.column("at_s")[kept], self._dropped.column("at_s")[dropped])),
        )
        self._drop(len(dropped))
        if len(rows):
            chosen = np.zeros(batch.item_count, np.bool_)
            chosen[rows] = True
            thresholds, rv = self._kept.column("threshold")[kept], self._kept.column("rv")[kept]
            await self._send([stamped(batch.select(chosen), thresholds, rv)])

    # Decisions.

    async def _decide_when_due(self) -> None:
        waits = [wait for wait in (self._wait_s, self._after_root_s) if wait]
        tick_s = min(min(waits) / _TICKS, _TICK_MAX_S)
        while True:
            await self._clock.sleep(tick_s)
            async with self._releasing:
                due = self._due(self._clock.monotonic_s())
                if len(due):
                    self._decide(due)
                    await self._release()

    def _due(self, now_s: float) -> I32:
        live = self._traces.live()
        column = self._traces.column
        due = column("first_s")[live] <= now_s - self._wait_s
        if self._after_root_s:
            due |= column("has_root")[live] & (column("root_s")[live] <= now_s - self._after_root_s)
        return live[due]

    def _decide(self, slots: I32) -> None:
        """Ask the decider; the traces leave with the next ``_release``."""
        self._read()
        column = self._traces.column
        slots = slots[column("state")[slots] == OPEN]
        if not len(slots):
            return
        verdicts = self._decider.decide(slots, column, self._clock.monotonic_s())
        column("state")[slots] = np.where(verdicts.kept, KEPT, DROPPED)
        column("threshold")[slots] = verdicts.thresholds
        self.decided(slots, verdicts, column)
        self._tell(slots, verdicts.kept)

    def _tell(self, slots: I32, kept: Mask) -> None:
        if self._followers:
            settled = Settled(self._traces.keys(slots), kept)
            for follower in self._followers:
                follower(settled)

    async def _keep_within_limits(self) -> None:
        over_bytes = self._max_bytes and self.span_bytes > self._max_bytes
        over_traces = not self._blocks and self._max_traces and len(self._traces) > self._max_traces
        if not over_bytes and not over_traces:
            return
        async with self._releasing:
            if self._max_traces and not self._blocks and (excess := len(self._traces) - self._max_traces) > 0:
                live = self._traces.live()
                oldest = live[np.argpartition(self._traces.column("first_s")[live], excess - 1)[:excess]]
                self.early(excess, "traces")
                self._settle_early(oldest)
            while self._max_bytes and self.span_bytes > self._max_bytes and len(self._traces):
                slots = self._oldest_of(self.span_bytes - self._max_bytes + self._max_bytes // _EARLY_SHARE)
                self.early(len(slots), "bytes")
                self._settle_early(slots)
            await self._release()

    def _settle_early(self, slots: I32) -> None:
        if self._on_overflow == "drop":
            self._lose(slots, "overflow")
        else:
            self._decide(slots)
            self._outbox += self._collect()

    def _oldest_of(self, excess: int) -> I32:
        """The traces of the oldest parts that hold ``excess`` bytes together."""
        self._read(apart=True)
        chosen: list[I32] = []
        for slots, size_bytes in self._held.oldest():
            chosen.append(slots)
            excess -= size_bytes
            if excess <= 0:
                break
        return np.unique(np.concatenate(chosen)).astype(np.int32)

    # Leaving.

    def _lose(self, slots: I32, reason: str) -> None:
        """Drop undecided traces, and their late spans."""
        self._read()
        column = self._traces.column
        column("state")[slots] = DROPPED
        column("threshold")[slots] = LEAVE
        self._tell(slots, np.zeros(len(slots), np.bool_))
        self._collect(reason)

    def _collect(self, reason: str = "sampled") -> list[Traces]:
        """Take out what has been decided: kept spans, with their thresholds written; the rest is counted as dropped."""
        live, column = self._traces.live(), self._traces.column
        decided = live[column("state")[live] != OPEN]
        if not len(decided):
            return []
        state = column("state")[decided]
        wanted, gone = (np.zeros(len(column("state")) + 1, np.bool_) for _ in range(2))
        wanted[decided[state == KEPT]] = True
        gone[decided[state == DROPPED]] = True
        taken, dropped_count = self._held.take(wanted, gone)
        self._drop(dropped_count, reason)
        now_s = self._clock.monotonic_s()
        for cache, code in ((self._kept, KEPT), (self._dropped, DROPPED)):
            these = decided[state == code]
            cache.note(
                self._traces.keys(these), thresholds=column("threshold")[these], rv=column("rv")[these], now_s=now_s
            )
        parts: list[Traces] = []
        for batch, slots in map(together, _runs(taken)):
            self.leaving(batch, slots, column)
            parts.append(stamped(batch, column("threshold")[slots], column("rv")[slots]))
        self._traces.remove(decided)
        self._room.set()
        return parts

    async def _release(self) -> None:
        """Pass on and drop what has been decided."""
        parts, self._outbox = [*self._outbox, *self._collect()], []
        await self._send(parts)

    async def _send(self, parts: list[Traces]) -> None:
        for batch in parts:
            # An exporter that waits for its backend may have given up. It has counted that; the sender was answered
            # long ago.
            with contextlib.suppress(ConsumeError):
                await self._settings.outputs[Signal.TRACES].consume(batch)

    def _drop(self, item_count: int, reason: str = "sampled") -> None:
        if item_count:
            self._settings.telemetry.dropped(Signal.TRACES, item_count, reason)


def _explicit(states: StringColumn) -> I64:
    """I64[distinct + 1]: the ``rv`` of each distinct trace state, -1 where there is none (the last: no trace state)."""
    values = [
        -1 if "rv:" not in text or (rv := read_trace_state(text).randomness) is None else rv for text in states.distinct
    ]
    return np.array([*values, -1], np.int64)


def _distinct(ids: U64) -> int:
    return groups(ids).count if len(ids) else 0


def _runs(parts: list[tuple[Traces, I32]]) -> list[list[tuple[Traces, I32]]]:
    """The parts of each context, in order, in runs that stay below the size one batch may have."""
    runs: list[list[tuple[Traces, I32]]] = []
    open_: dict[Context, tuple[list[tuple[Traces, I32]], int]] = {}
    for batch, slots in parts:
        run, size_bytes = open_.get(batch.context, ([], _OUT_BYTES))
        if size_bytes + batch.size_bytes > _OUT_BYTES:
            run, size_bytes = [], 0
            runs.append(run)
        run.append((batch, slots))
        open_[batch.context] = run, size_bytes + batch.size_bytes
    return runs
