"""SendingQueue: the queue of one signal of one exporter. It bounds, merges and orders what waits to be sent.

Everything that was added and is not settled yet counts against the bounds, including requests being sent, as in the
Collector's memory queue: the bound is one of memory. Merging (``sending_queue.batch``) only combines batches with equal
contexts. Sending, retries and the ledger are the business of other modules.

Source: the Collector's exporter/exporterhelper/internal/{queue,queuebatch}.
"""

import asyncio
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from itertools import islice
from typing import Final

from collector.api import Clock
from collector.delivery.storage import MemoryStorage, Storage
from collector.model import Batch, Context, Signal
from config.blocks import QueueConfig

__all__ = ["QueuedBatch", "SendUnit", "SendingQueue"]

# Stages and connectors emit from timers, without asking for room first. A queue with `block_on_overflow` may therefore
# grow to this multiple of its bounds before it drops anything.
_OVERSHOOT_FACTOR: Final = 2


@dataclass(slots=True, eq=False)
class QueuedBatch:
    """One batch in the queue. The storage keeps its bytes under ``key``."""

    key: int
    item_count: int
    size_bytes: int
    size: int
    """Size in units of the queue's sizer."""
    charged_bytes: int
    result: asyncio.Future[None] | None
    """Receives the outcome if the caller waits for it."""


@dataclass(slots=True, eq=False)
class SendUnit:
    """Queued batches that are sent as one."""

    batches: list[QueuedBatch]
    unsettled_count: int = 0
    """Items that are not delivered, refused or dropped yet."""
    settled_count: int = 0
    """Items that are, while others of the unit are not."""
    size_bytes: int = 0
    added_at_s: float = 0.0
    """When its oldest batch was added (monotonic)."""
    flush_at_s: float = 0.0

    def add(self, queued: QueuedBatch) -> None:
        """Merge one more batch."""
        self.batches.append(queued)
        self.unsettled_count += queued.item_count
        self.size_bytes += queued.size_bytes


class SendingQueue:
    """See the module. All methods but :meth:`flush_when_due` and :meth:`wait_empty` are synchronous and quick."""

    def __init__(self, signal: Signal, config: QueueConfig, clock: Clock) -> None:
        self.signal = signal
        self.capacity = config.queue_size
        """Bound of ``size``, in units of the sizer."""
        self.size = 0
        self.size_bytes = 0
        self.item_count = 0
        self._clock = clock
        self._storage: Storage = MemoryStorage()
        self._charge: Callable[[int], None] = _charge_nothing
        self._max_bytes, self._sizer = config.max_bytes, config.sizer
        self._overshoot_factor = _OVERSHOOT_FACTOR if config.block_on_overflow else 1
        self._send: Callable[[SendUnit], None] | None = None
        self._max_sending = 0  # until `start`
        self._sending: set[SendUnit] = set()
        self._ready: deque[SendUnit] = deque()  # empty unless `max_sending` units are being sent
        self._merging: dict[Context, SendUnit] = {}
        self._merging_started = asyncio.Event()
        self._emptied = asyncio.Event()
        batch = config.batch
        self.merges = batch is not None
        self._min_size = batch.min_size if batch else 0
        self._max_size = batch.max_size if batch else 0
        self._merges_by_bytes = batch is not None and config.batch_sizer == "bytes"
        self._flush_timeout_s = batch.flush_timeout if batch else 0.0

    @property
    def is_durable(self) -> bool:
        """Whether the storage keeps what is in the queue until the next start."""
        return self._storage.durable

    def oldest_age_s(self) -> float:
        """How long the oldest batch has been in the queue, in seconds; 0 if the queue is empty."""
        # What is ready or being merged is in order; what is being sent is not, but that are a few.
        candidates = [unit.added_at_s for unit in self._sending]
        candidates += [unit.added_at_s for unit in islice(self._ready, 1)]
        candidates += [unit.added_at_s for unit in islice(self._merging.values(), 1)]
        return max(self._clock.monotonic_s() - min(candidates), 0.0) if candidates else 0.0

    def open(self, storage: Storage | None, charge: Callable[[int], None]) -> int:
        """Use ``storage`` (None: memory), and call ``charge`` with the bytes held and released.

        Returns the number of items that the storage kept from the last run; they are in the queue now.
        """
        self._charge = charge
        if storage is not None:
            self._storage = storage
        for key in self._storage.keys_oldest_first():
            self._enqueue(key, self._storage.read(key), None)
        return self.item_count

    def start(self, max_sending: int, send: Callable[[SendUnit], None]) -> None:
        """Pass units to ``send``, at most ``max_sending`` at a time. It must not release a unit before it returns."""
        self._max_sending = max_sending
        self._send = send
        while len(self._sending) < max_sending and (unit := self.next_unit()) is not None:
            send(unit)

    # Adding.

    def has_room(self, batch: Batch, factor: int = 1) -> bool:
        """Whether the batch fits. An empty queue has room for any batch, which would otherwise never fit."""
        if not self.size:
            return True
        max_bytes = self._max_bytes
        return self.size + self._size_of(batch) <= factor * self.capacity and (
            not max_bytes or self.size_bytes + batch.size_bytes <= factor * max_bytes
        )

    def try_add(self, batch: Batch, result: asyncio.Future[None] | None = None) -> bool:
        """Add the batch and return True, or return False if the queue is full.

        With ``block_on_overflow`` a queue is only full here at twice its bounds: callers asked ``has_room`` before.

        Raises:
            OSError: the storage cannot keep the batch.
        """
        if not self.has_room(batch, self._overshoot_factor):
            return False
        # A batch that is sent right now will need its index; one that has to wait is kept as bytes alone.
        kept = batch if len(self._sending) < self._max_sending and not self.merges else batch.without_index()
        self._enqueue(self._storage.append(kept), kept, result)
        return True

    def _enqueue(self, key: int, batch: Batch, result: asyncio.Future[None] | None) -> None:
        queued = QueuedBatch(key, batch.item_count, batch.size_bytes, self._size_of(batch), batch.memory_bytes, result)
        self.size += queued.size
        self.size_bytes += queued.size_bytes
        self.item_count += queued.item_count
        self._charge(queued.charged_bytes)
        if self.merges:
            self._merge(queued, batch.context)
        else:
            now_s = self._clock.monotonic_s()
            self._dispatch(SendUnit([queued], queued.item_count, size_bytes=queued.size_bytes, added_at_s=now_s))

    def _size_of(self, batch: Batch) -> int:
        match self._sizer:
            case "requests":
                return 1
            case "items":
                return max(batch.item_count, 1)
            case "bytes":
                return max(batch.size_bytes, 1)

    def _dispatch(self, unit: SendUnit) -> None:
        """Send the unit if fewer than ``max_sending`` are being sent, otherwise let it wait for its turn."""
        if self._send is not None and len(self._sending) < self._max_sending:
            self._sending.add(unit)
            self._send(unit)
        else:
            self._ready.append(unit)

    # Merging.

    def flush(self) -> None:
        """Send what is being merged without waiting for more."""
        for unit in self._merging.values():
            self._dispatch(unit)
        self._merging.clear()

    async def flush_when_due(self) -> None:
        """Send merged units when their ``flush_timeout`` is over. Runs until it is cancelled."""
        while True:
            if not self._merging:
                self._merging_started.clear()
                await self._merging_started.wait()
                continue
            now_s = self._clock.monotonic_s()
            # All contexts have the same timeout, so insertion order is the order of deadlines.
            for context, unit in list(self._merging.items()):
                if unit.flush_at_s > now_s:
                    await self._clock.sleep(unit.flush_at_s - now_s)
                    break
                self._dispatch(self._merging.pop(context))

    def _merge(self, queued: QueuedBatch, context: Context) -> None:
        unit = self._merging.get(context)
        size = queued.size_bytes if self._merges_by_bytes else queued.item_count
        if unit is not None and self._max_size and self._merged_size(unit) + size > self._max_size:
            self._dispatch(self._merging.pop(context))
            unit = None
        if unit is None:
            now_s = self._clock.monotonic_s()
            unit = SendUnit([], added_at_s=now_s, flush_at_s=now_s + self._flush_timeout_s)
            self._merging[context] = unit
            self._merging_started.set()
        unit.add(queued)
        if self._merged_size(unit) >= self._min_size:
            self._dispatch(self._merging.pop(context))

    def _merged_size(self, unit: SendUnit) -> int:
        return unit.size_bytes if self._merges_by_bytes else unit.unsettled_count

    # Sending.

    def next_unit(self) -> SendUnit | None:
        """The next unit to send, in the order added, after one was released; None if nothing waits."""
        if not self._ready:
            return None
        unit = self._ready.popleft()
        self._sending.add(unit)
        return unit

    def read_single(self, unit: SendUnit) -> Batch:
        """The batch of a unit of a queue that does not merge."""
        return self._storage.read(unit.batches[0].key)

    def read(self, unit: SendUnit) -> list[Batch]:
        """The unit's content as few batches, each within ``batch.max_size``."""
        batches = [self._storage.read(queued.key) for queued in unit.batches]
        merged = batches[0] if len(batches) == 1 else type(batches[0]).concat(batches)
        if not self._max_size:
            return [merged]
        if self._merges_by_bytes:
            return [merged] if merged.size_bytes <= self._max_size else merged.split(max_bytes=self._max_size)
        return [merged] if merged.item_count <= self._max_size else merged.split(max_items=self._max_size)

    def release(self, unit: SendUnit) -> None:
        """Forget the unit and what it takes of the bounds. Whoever sent it may ask for the :meth:`next_unit`."""
        self._sending.discard(unit)
        for queued in unit.batches:
            self._storage.ack(queued.key)
            self.size -= queued.size
            self.size_bytes -= queued.size_bytes
            self.item_count -= queued.item_count
            self._charge(-queued.charged_bytes)
        if not self.size:
            self._emptied.set()

    def take_all(self) -> list[SendUnit]:
        """End sending and return every unit, those being sent first. They still have to be released."""
        self._max_sending = 0
        self.flush()
        units = [*self._sending, *self._ready]
        self._sending.clear()
        self._ready.clear()
        return units

    async def wait_empty(self) -> None:
        """Return when everything that was added is released."""
        while self.size:
            self._emptied.clear()
            await self._emptied.wait()


def _charge_nothing(size_bytes: int) -> None:
    """Until the queue is opened there is no budget to charge."""
