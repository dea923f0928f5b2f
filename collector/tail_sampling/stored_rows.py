"""Which held rows are in a storage: a stored batch is settled when all of its traces have been released.

A batch is stored as it is held. Traces are decided one by one, so a stored batch is kept until the last of them has
left; which of them have left already is part of the checkpoint, so that a replay does not repeat them.
"""

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any, ClassVar, Final, Generic, TypeVar

import numpy as np

from collector.api import DamagedBatchError, QueueStorage, SavedState, StoredBatch
from collector.model import Batch, KeyTable, Signal, groups
from collector.model.arrays import I32, I64, U64, Mask
from collector.model.checkpoint import CheckpointError, Part, Parts, part_of
from collector.model.runs import run_starts

__all__ = ["StoredRows"]

B = TypeVar("B", bound=Batch)

_READ_AT_ONCE: Final = 128


class StoredRows(Generic[B]):
    """The batches of one queue and the traces in them: one row for each trace of each batch."""

    NOTHING_RELEASED: ClassVar[Parts] = {"keys": np.zeros(0, np.int64), "trace_ids": np.zeros((0, 2), np.uint64)}

    def __init__(self, report: SavedState, on_unstored: Callable[[I32], None]) -> None:
        """``report``: told of failures. ``on_unstored``: called with the slots of traces that are not stored whole."""
        self._report, self._on_unstored = report, on_unstored
        self.storage: QueueStorage | None = None
        self._keys: I64 = np.zeros(0, np.int64)
        """(rows,) of the batches in the storage, ascending."""
        self._slots: I32 = np.zeros(0, np.int32)
        """(rows,) of the traces; -1: the trace has been released."""
        self._trace_ids: U64 = np.zeros((0, 2), np.uint64)
        self._added: list[tuple[int, I32, U64]] = []
        """What was added since the columns were last joined."""
        self._storing: dict[int, asyncio.Future[None]] = {}
        self._settled: list[int] = []
        """Batches whose traces have all been released, but not yet passed on completely."""

    @property
    def memory_bytes(self) -> int:
        """Memory of the rows."""
        return self._keys.nbytes + self._slots.nbytes + self._trace_ids.nbytes

    @property
    def known_keys(self) -> set[int]:
        """The batches of which something is held or on its way out."""
        self._join()
        return {*np.unique(self._keys).tolist(), *self._settled}

    def store(self, batch: Batch, slots: I32, trace_ids: U64) -> asyncio.Future[None] | None:
        """Begin to store the rows whose slot is not negative; the future is done when they are stored, or cannot be."""
        storage = self.storage
        assert storage is not None
        waiting = slots >= 0
        if not waiting.any():
            return None
        if not storage.has_room(batch.size_bytes):
            self._on_unstored(np.unique(slots[waiting]))
            self._report.failed("store", OSError("there is no room in the storage"))
            return None
        done = asyncio.get_running_loop().create_future()
        key = storage.append(
            batch if waiting.all() else batch.select(waiting), lambda error: self._on_stored(key, done, error)
        )
        self._storing[key] = done
        distinct, first = np.unique(slots, return_index=True)
        is_slot = distinct >= 0
        self._added.append((key, distinct[is_slot], trace_ids[first[is_slot]]))
        return done

    def add_replayed(self, key: int, slots: I32, trace_ids: U64) -> None:
        """Note the traces of a batch that is stored already; slot -1: the trace has left."""
        of_trace = groups(trace_ids)
        self._added.append((key, slots[of_trace.first], trace_ids[of_trace.first]))

    async def wait_stored(self) -> None:
        """Return when nothing is being stored any more."""
        if self._storing:
            await asyncio.wait(list(self._storing.values()))

    def release(self, decided: Mask) -> None:
        """The traces leave whose slots are True in ``decided``; its last element stands for slot -1."""
        self._join()
        leaves = decided[self._slots]
        if not leaves.any():
            return
        self._slots[leaves] = -1
        starts = np.flatnonzero(run_starts(self._keys))
        is_settled = ~np.logical_or.reduceat(self._slots >= 0, starts)
        if is_settled.any():
            self._settled += self._keys[starts[is_settled]].tolist()
            is_kept = ~np.repeat(is_settled, np.diff(starts, append=len(self._keys)))
            self._take(is_kept)

    def acknowledge(self) -> None:
        """Everything that was released has been passed on: its batches need not be stored any longer."""
        if not self._settled or self.storage is None:
            return
        settled, self._settled = self._settled, []
        for key in settled:
            if key in self._storing:  # it cannot be removed before it is there
                self._settled.append(key)
            else:
                self.storage.ack(key)

    def take_over(self, other: "StoredRows[B]", traces: KeyTable) -> None:
        """Continue for the stage of which ``traces`` is the table; ``other`` has nothing afterwards."""
        other._join()  # noqa: SLF001 - of this class
        self._keys, self._slots, self._trace_ids = other._keys, other._slots, other._trace_ids  # noqa: SLF001
        self._settled = other._settled  # noqa: SLF001
        other._settled = []  # noqa: SLF001
        other._take(np.zeros(len(other._keys), np.bool_))  # noqa: SLF001
        waiting = self._slots >= 0
        self._slots[waiting] = traces.find(np.ascontiguousarray(self._trace_ids[waiting]))

    def forget_all(self) -> None:
        """Remove all batches from the storage; somebody else is responsible for the rows from now on."""
        self._settled = sorted(self.known_keys)
        self._take(np.zeros(len(self._keys), np.bool_))
        self.acknowledge()

    # Checkpoints.

    def parts(self) -> dict[str, Part]:
        """The traces that have left stored batches, for a checkpoint."""
        self._join()
        is_released = self._slots < 0
        return {"keys": self._keys[is_released], "trace_ids": self._trace_ids[is_released]}

    @staticmethod
    def check_released(parts: Parts) -> None:
        """Raise CheckpointError unless the parts are what :meth:`parts` returns."""
        keys = part_of(parts, "keys", np.int64)
        if part_of(parts, "trace_ids", np.uint64, len(keys)).shape[1:] != (2,) or (np.diff(keys) < 0).any():
            raise CheckpointError("the traces that have left are not in order")

    # Replay.

    async def replay(self, signal: Signal, released: Parts) -> AsyncIterator[tuple[StoredBatch, B, Mask]]:
        """The stored batches that are not known yet, oldest first, and which of their rows have left already.

        What is damaged is left out; the storage counts it. What cannot be read at present stays for the next start.
        """
        storage, known, key = self.storage, self.known_keys, -1
        assert storage is not None
        try:
            while found := await storage.after(key, _READ_AT_ONCE):
                for entry in found:
                    key = entry.key
                    if key in known:
                        continue
                    try:
                        batch: Any = await storage.read(key)
                    except (KeyError, DamagedBatchError):
                        batch = None
                    if batch is None or batch.signal is not signal:
                        storage.ack(key)
                        continue
                    has_left = _has_left(released, key, batch.field("trace_id"))
                    if has_left.all():
                        storage.ack(key)
                    else:
                        yield entry, batch, has_left
        except OSError as error:
            self._report.refuse(error)

    def _on_stored(self, key: int, done: asyncio.Future[None], error: OSError | None) -> None:
        del self._storing[key]
        if error is None:
            self._report.succeeded("store")
        else:
            self._forget(key, error)
        if not done.done():
            done.set_result(None)

    def _forget(self, key: int, error: OSError) -> None:
        self._join()
        is_of_key = self._keys == key
        slots = self._slots[is_of_key & (self._slots >= 0)]
        self._take(~is_of_key)
        if key in self._settled:
            self._settled.remove(key)
        self._on_unstored(slots)
        self._report.failed("store", error)

    def _take(self, rows: Mask) -> None:
        self._keys, self._slots, self._trace_ids = self._keys[rows], self._slots[rows], self._trace_ids[rows]

    def _join(self) -> None:
        if not self._added:
            return
        added, self._added = self._added, []
        keys = np.repeat(np.array([key for key, _, _ in added], np.int64), [len(slots) for _, slots, _ in added])
        self._keys = np.concatenate((self._keys, keys))
        self._slots = np.concatenate((self._slots, *(slots for _, slots, _ in added)))
        self._trace_ids = np.concatenate((self._trace_ids, *(trace_ids for _, _, trace_ids in added)))


def _has_left(released: Parts, key: int, trace_ids: U64) -> Mask:
    """(n,) which traces had left the batch when the checkpoint was made."""
    first, last = np.searchsorted(released["keys"], [key, key + 1]).tolist()
    if first == last:
        return np.zeros(len(trace_ids), np.bool_)
    table = KeyTable(capacity=last - first)
    table.insert(np.ascontiguousarray(released["trace_ids"][first:last]))
    had_left: Mask = table.find(trace_ids) >= 0
    return had_left
