"""The stage that holds rows until their trace is decided: what samplers of traces and followers of decisions share.

A trace is a row of a table, never an object. A trace is due ``decision_wait_s`` after its first row. Above
``max_bytes`` or ``max_traces`` the oldest rows are evicted: every trace with a row in the oldest held parts is decided
early and leaves whole, until the remaining rows fit.

With a storage, rows are stored before they count as accepted, stay there at shutdown, and are held again after the next
start; see docs/adr/006-state-over-restarts.md.
"""

import contextlib
from abc import abstractmethod
from collections import deque
from collections.abc import Awaitable, Mapping
from typing import Any, Final, Generic, Literal, Self, TypeVar

import numpy as np

from collector.api import ConsumeError, Host, PeriodicTask, SavedState, Settings, Stage, StoredBatch
from collector.model import Batch, KeyTable, Signal
from collector.model.arrays import I32, U64, Mask
from collector.model.checkpoint import Part, Parts, nested, within
from collector.tail_sampling.decision_registry import Decision
from collector.tail_sampling.held_rows import HeldRows, join_parts, runs_by_context
from collector.tail_sampling.stored_rows import StoredRows

__all__ = ["HoldingStage"]

B = TypeVar("B", bound=Batch)

_CHECKS_PER_WAIT: Final = 10
_CHECK_INTERVAL_MAX_S: Final = 1.0
_VERSION: Final = 1  # of the checkpoint
_EVICTED_SHARE: Final = 16  # above a budget, 1/16 of it is freed at once: each eviction looks at every held row


class HoldingStage(Stage, Generic[B]):
    """Holds rows by the slot of their trace, and releases them in the background once the trace is decided.

    Subclasses implement ``consume``, which assigns slots (``_slots_of``) and calls ``_hold`` and
    ``_keep_within_limits``, and ``_decide``. They may override the hooks at the end.
    """

    def __init__(
        self,
        settings: Settings,
        signal: Signal,
        *,
        columns: Mapping[str, Any],
        decision_wait_s: float,
        shortest_wait_s: float,
        max_bytes: int,
        max_traces: int = 0,
        storage: str = "",
        checkpoint_interval_s: float = 0.0,
    ) -> None:
        """The empty stage.

        Args:
            settings: Settings of the component.
            signal: The signal of the rows.
            columns: Columns of the table of traces, besides ``first_s`` and ``decision``.
            decision_wait_s: Time from the first row of a trace to its decision.
            shortest_wait_s: The shortest time to a decision; it determines how often the stage looks for due traces.
            max_bytes: Budget of the held rows; 0 = no limit.
            max_traces: Held traces above which the oldest are evicted; 0 = no limit.
            storage: The storage extension in which held rows survive a restart; empty: they do not.
            checkpoint_interval_s: How often the rest of the state is saved in it.
        """
        self._settings, self._signal, self._clock = settings, signal, settings.clock
        self._wait_s, self._max_bytes, self._max_traces = decision_wait_s, max_bytes, max_traces
        self._traces = KeyTable({"first_s": np.float64, "decision": np.int8, "is_unstored": np.bool_, **columns})
        self._held: HeldRows[B] = HeldRows()
        self._unsent: deque[B] = deque()  # kept rows of decided traces, on their way out
        self._unsent_items = self._unsent_bytes = 0
        self._empty_table_bytes = self.table_bytes
        interval_s = min(shortest_wait_s / _CHECKS_PER_WAIT, _CHECK_INTERVAL_MAX_S)
        self._deciding = PeriodicTask(self._decide_due, interval_s, settings.clock)
        self._hands_over = False
        self._storage_id, self._successor_storage_id = storage, storage
        self.keeps_held_items = bool(storage)
        self._saved = SavedState(
            settings, "processors", kind="tail_sampling", version=_VERSION, has_keys=False, may_be_behind=True
        )
        self._stored = StoredRows[B](self._saved, self._note_unstored) if storage else None
        self._is_taken_over = False
        self._checkpointing = PeriodicTask(self._save, checkpoint_interval_s or 1.0, settings.clock)

    # The component.

    async def start(self, host: Host) -> None:
        """Hold again what a storage has, and begin to decide traces that are due."""
        if self._stored is not None:
            await self._open_storage(host, self._stored)
            self._checkpointing.start()
        self._deciding.start()

    def hand_over(self, config: Any) -> Self:
        """Return the stage itself; the next ``shutdown`` keeps what is held."""
        self._hands_over, self._successor_storage_id = True, config.storage
        return self

    def take_over(self, state: object) -> bool:
        """Continue to hold what the predecessor holds."""
        if not isinstance(state, type(self)):
            return False
        now_s = self._clock.monotonic_s()
        previous = state._traces  # noqa: SLF001 - of this class
        for batch, previous_slots in state._held.take_all():  # noqa: SLF001
            slots = self._slots_of(previous.keys(previous_slots))
            self._traces.column("first_s")[slots] = np.minimum(previous.column("first_s")[previous_slots], now_s)
            self._traces.column("decision")[slots] = previous.column("decision")[previous_slots]
            self._traces.column("is_unstored")[slots] |= previous.column("is_unstored")[previous_slots]
            self._hold(batch, slots)
        self._is_taken_over = True
        if self._stored is not None:
            if state._stored is not None and state._storage_id == self._storage_id:  # noqa: SLF001
                self._stored.take_over(state._stored, self._traces)  # noqa: SLF001
            else:
                self._traces.column("is_unstored")[self._traces.live()] = True
        previous.remove(previous.live())
        while state._unsent:  # noqa: SLF001
            self._make_due([state._next_due()])  # noqa: SLF001
        return True

    async def shutdown(self) -> None:
        """Decide everything that is held and pass on what is kept, unless a successor or a storage keeps it."""
        await self._checkpointing.stop()
        await self._deciding.stop()
        hands_over, self._hands_over = self._hands_over, False
        if self._stored is not None:
            await self._stored.wait_stored()
        if not hands_over and (len(self._traces) or self._unsent):
            async with self._deciding.lock:
                if self._stored is None:
                    await self._decide_all()
                else:
                    await self._decide_unstored()
                await self._release()
        if self._stored is not None:
            await self._close_storage(self._stored, hands_over=hands_over)

    def held_items(self) -> int:
        """Items of undecided traces, and items of decided ones that are not sent yet."""
        return self._held.item_count + self._unsent_items

    def held_bytes(self) -> int:
        """Bytes of the held rows, and what the tables have grown by."""
        stored_bytes = 0 if self._stored is None else self._stored.memory_bytes
        return self.row_bytes + self._unsent_bytes + self.table_bytes - self._empty_table_bytes + stored_bytes

    # The state, for metrics and reports.

    @property
    def row_bytes(self) -> int:
        """Bytes of the held rows, which ``max_bytes`` limits."""
        return self._held.size_bytes

    @property
    def table_bytes(self) -> int:
        """Memory of the tables."""
        return self._traces.memory_bytes

    @property
    def open_count(self) -> int:
        """Number of undecided traces."""
        return len(self._traces)

    # Rows coming in.

    def _slots_of(self, trace_ids: U64) -> I32:
        """The slot of each trace. Traces that have none get one; their wait begins now."""
        slots, is_new = self._traces.insert(trace_ids)
        if is_new.any():
            self._add_traces(slots[is_new], trace_ids[is_new])
        return slots

    def _add_traces(self, slots: I32, trace_ids: U64) -> None:  # noqa: ARG002 - the ids are for subclasses
        """Fill in the columns of new traces."""
        self._traces.column("first_s")[slots] = self._clock.monotonic_s()
        self._traces.column("decision")[slots] = Decision.PENDING

    def _hold(self, batch: B, slots: I32) -> None:
        """Hold the rows whose slot is not negative."""
        self._held.add(batch, slots)

    async def _keep_within_limits(self) -> None:
        """Evict the oldest traces if there are too many or their rows have too many bytes."""
        over_bytes = self._max_bytes and self.row_bytes > self._max_bytes
        over_traces = self._max_traces and len(self._traces) > self._max_traces
        if not over_bytes and not over_traces:
            return
        async with self._deciding.lock:
            if self._max_traces and (excess := len(self._traces) - self._max_traces) > 0:
                live = self._traces.live()
                first_s = self._traces.column("first_s")[live]
                self._evict(live[np.argpartition(first_s, excess - 1)[:excess]], "traces")
            while self._max_bytes and self.row_bytes > self._max_bytes and len(self._traces):
                self._evict(self._oldest(self.row_bytes - self._max_bytes + self._max_bytes // _EVICTED_SHARE), "bytes")
            await self._release()

    def _oldest(self, excess_bytes: int) -> I32:
        """The traces of the oldest parts that have ``excess_bytes`` together."""
        chosen: list[I32] = []
        for slots, size_bytes in self._held.oldest():
            chosen.append(slots)
            excess_bytes -= size_bytes
            if excess_bytes <= 0:
                break
        return np.unique(np.concatenate(chosen))

    def _evict(self, slots: I32, cause: Literal["bytes", "traces"]) -> None:
        """Make room now: decide the traces early; what is kept of them is passed on by the next ``_release``."""
        slots = slots[self._traces.column("decision")[slots] == Decision.PENDING]
        self.on_evicted(len(slots), cause)
        self._decide(slots)
        self._make_due(self._take_decided())

    # Decisions.

    @abstractmethod
    def _decide(self, slots: I32) -> None:
        """Write the decision on undecided traces into the column ``decision``; ``_release`` then passes them on."""

    async def _decide_due(self) -> None:
        due = self._due(self._clock.monotonic_s())
        if len(due):
            self._decide(due)
        await self._release()

    def _due(self, now_s: float) -> I32:
        """The undecided traces whose wait is over."""
        live = self._traces.live()
        is_due = self._traces.column("first_s")[live] <= now_s - self._wait_s
        due: I32 = live[is_due & (self._traces.column("decision")[live] == Decision.PENDING)]
        return due

    async def _decide_all(self) -> None:
        """Decide every trace, because the stage shuts down."""
        self._decide(self._traces.live())

    async def _decide_unstored(self) -> None:
        """Decide the traces that the storage does not have completely, because the stage shuts down."""
        live = self._traces.live()
        self._decide(live[self._traces.column("is_unstored")[live]])

    # Rows leaving.

    async def _release(self) -> None:
        """Pass on or drop the rows of all decided traces. The caller holds the lock of ``_deciding``."""
        self._make_due(self._take_decided())
        while self._unsent:  # what a cancelled call leaves behind is sent by the next one
            await self._send(self._next_due())
        if self._stored is not None:
            self._stored.acknowledge()

    def _make_due(self, batches: list[B]) -> None:
        """Hold the batches until the next ``_release`` gets to them."""
        self._unsent.extend(batches)
        self._unsent_items += sum(batch.item_count for batch in batches)
        self._unsent_bytes += sum(batch.size_bytes for batch in batches)

    def _next_due(self) -> B:
        batch = self._unsent.popleft()
        self._unsent_items -= batch.item_count
        self._unsent_bytes -= batch.size_bytes
        return batch

    def _take_decided(self, reason: str = "sampled") -> list[B]:
        """Remove all decided traces: returns what is kept of them, and counts the other rows as dropped."""
        live = self._traces.live()
        decisions = self._traces.column("decision")
        is_decided = decisions[live] != Decision.PENDING
        if not is_decided.any():
            return []
        decided = live[is_decided]
        kept, dropped = (np.zeros(len(decisions) + 1, np.bool_) for _ in range(2))
        kept[decided] = decisions[decided] == Decision.KEPT
        dropped[decided] = decisions[decided] == Decision.DROPPED
        taken, discarded_slots = self._held.take(kept, dropped)
        if self._stored is not None:
            self._stored.release(kept | dropped)
        self._count_dropped(len(discarded_slots), reason)
        self._before_release(decided, taken, discarded_slots)
        parts = [self._finish(*join_parts(run)) for run in runs_by_context(taken)]
        self._traces.remove(decided)
        return parts

    async def _send(self, batch: B) -> None:
        # An exporter that waits for its backend may have failed. It has counted that, and the client that sent these
        # items got its response long ago.
        with contextlib.suppress(ConsumeError):
            await self._settings.outputs[self._signal].consume(batch)

    def _count_dropped(self, item_count: int, reason: str = "sampled") -> None:
        if item_count:
            self._settings.telemetry.dropped(self._signal, item_count, reason)

    # The storage.

    def _store(self, batch: B, slots: I32, trace_ids: U64) -> Awaitable[None] | None:
        """Begin to store held rows, if there is a storage. The batch is accepted when what is returned is done."""
        return None if self._stored is None else self._stored.store(batch, slots, trace_ids)

    def _note_unstored(self, slots: I32) -> None:
        self._traces.column("is_unstored")[slots] = True

    async def _open_storage(self, host: Host, stored: StoredRows[B]) -> None:
        extension = self._saved.extension(host, self._storage_id)
        stored.storage = await extension.queue(self._saved.name, when_full="reject_newest")
        if (lost_count := stored.storage.lost_item_count) and not self._is_taken_over:
            self._settings.telemetry.created(self._signal, lost_count)
            self._settings.telemetry.dropped(self._signal, lost_count, "storage_damaged")
        parts = await self._saved.open(host, self._storage_id, fingerprint="", restores=not self._is_taken_over)
        released: Parts = StoredRows.NOTHING_RELEASED
        if parts is not None:
            try:
                self._restore(parts, self._saved.elapsed(parts))
                released = within("released", parts)
                stored.check_released(released)
            except (KeyError, TypeError, ValueError) as error:
                self._saved.refuse(error)
                released = StoredRows.NOTHING_RELEASED
        async for entry, batch, has_left in stored.replay(self._signal, released):
            self._replay(stored, entry, batch, has_left)
            await self._keep_within_limits()

    def _replay(self, stored: StoredRows[B], entry: StoredBatch, batch: B, has_left: Mask) -> None:
        """Hold rows again as if they had arrived when they were stored."""
        trace_ids = batch.field("trace_id")
        slots = np.full(batch.item_count, -1, np.int32)
        slots[~has_left] = self._slots_of(np.ascontiguousarray(trace_ids[~has_left]))
        age_s = max(self._clock.time_unix_nano() - entry.stored_unix_nano, 0) / 1e9
        self._hold_since(batch, slots, self._clock.monotonic_s() - age_s)
        stored.add_replayed(entry.key, slots, trace_ids)
        self._settings.telemetry.created(self._signal, int(np.count_nonzero(~has_left)))

    def _hold_since(self, batch: B, slots: I32, arrived_s: float) -> None:
        """Hold rows that arrived some time ago."""
        self._hold(batch, slots)
        first_s, held = self._traces.column("first_s"), slots[slots >= 0]
        first_s[held] = np.minimum(first_s[held], arrived_s)

    async def _close_storage(self, stored: StoredRows[B], *, hands_over: bool) -> None:
        if stored.storage is None:
            return
        if hands_over and self._successor_storage_id != self._storage_id:
            stored.forget_all()  # the successor holds them in memory
        else:
            self._saved.save_now(self._parts())
        await stored.storage.close()
        stored.storage = None

    async def _save(self) -> None:
        async with self._deciding.lock:  # nothing is on its way out, so what is decided has been passed on
            parts = self._parts()
        await self._saved.save(parts)

    def _parts(self) -> dict[str, Part]:
        """The checkpoint."""
        assert self._stored is not None
        return nested("released", self._stored.parts())

    def _restore(self, parts: Parts, elapsed_s: float) -> None:
        """Continue from a checkpoint. Raises KeyError, TypeError or ValueError if it cannot be used."""

    # Hooks.

    def on_evicted(self, trace_count: int, cause: Literal["bytes", "traces"]) -> None:
        """Called with the number of traces that have to leave early, before they are decided."""

    def _before_release(self, decided: I32, kept_parts: list[tuple[B, I32]], discarded_slots: I32) -> None:
        """Called with decided traces before they are removed: their slots, the kept rows, the slots of dropped rows."""

    def _finish(self, batch: B, slots: I32) -> B:  # noqa: ARG002 - the slots are for subclasses
        """The batch of kept rows as it is passed on; ``slots`` are those of its rows."""
        return batch
