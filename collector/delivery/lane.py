"""The queue of one signal of one exporter: what waits, what is merged, what is full.

What counts against the bounds is everything taken and not settled yet, requests being sent included, as in the
Collector's memory queue: the bound is one of memory. Merging (``sending_queue.batch``) puts equal contexts together
only. Not here: sending, retry, the ledger (``base``).

Source: the Collector's exporter/exporterhelper/internal/{queue,queuebatch}.
"""

import asyncio
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from collector.api import Clock
from collector.delivery.storage import Storage
from collector.model import Batch, Context, Signal
from config.blocks import QueueConfig

__all__ = ["Entry", "Lane", "Work"]

# Stages and connectors emit from timers, past the door: a queue that must not lose takes this much more before it does.
_OVERSHOOT: Final = 2


@dataclass(slots=True, eq=False)
class Entry:
    """One batch taken. The storage holds its bytes under ``key``."""

    key: int
    item_count: int
    size_bytes: int
    units: int
    charged_bytes: int
    result: asyncio.Future[None] | None


@dataclass(slots=True, eq=False)
class Work:
    """Entries that are sent as one."""

    entries: list[Entry]
    item_count: int = 0
    """Items that are neither delivered nor refused nor dropped yet."""
    size_bytes: int = 0
    flush_at_s: float = 0.0

    def add(self, entry: Entry) -> None:
        """Merge one more."""
        self.entries.append(entry)
        self.item_count += entry.item_count
        self.size_bytes += entry.size_bytes


class Lane:
    """See the module. All methods but :meth:`flush_when_due` and :meth:`wait_empty` are synchronous and do not block.

    ``send`` is given what a sender is free for; it may not settle it before it returns.
    """

    def __init__(
        self,
        signal: Signal,
        config: QueueConfig,
        clock: Clock,
        storage: Storage,
        charge: Callable[[int], None],
        send: "Callable[[Lane, Work], None]",
    ) -> None:
        self.signal = signal
        self.storage = storage
        self.units = 0
        self.size_bytes = 0
        self.item_count = 0
        self.in_flight_requests = 0
        self._capacity, self._max_bytes, self._sizer = config.queue_size, config.max_bytes, config.sizer
        self._overshoot = _OVERSHOOT if config.block_on_overflow else 1
        self._clock = clock
        self._charge = charge
        self._send = send
        self._sender_count = 0  # none before the start
        self._sending: set[Work] = set()  # never more than senders
        self._ready: deque[Work] = deque()  # empty while a sender is free
        self._merging: dict[Context, Work] = {}
        self._wake_timer = asyncio.Event()
        self._empty = asyncio.Event()
        batch = config.batch
        self._merges = batch is not None
        self._min_size = batch.min_size if batch else 0
        self._max_size = batch.max_size if batch else 0
        self._by_bytes = batch is not None and config.batch_sizer == "bytes"
        self._flush_timeout_s = batch.flush_timeout if batch else 0.0

    @property
    def capacity(self) -> int:
        """In units of the configured sizer."""
        return self._capacity

    def has_room(self, batch: Batch, factor: int = 1) -> bool:
        """Whether it fits. An empty queue takes one batch of any size: it would never fit otherwise."""
        if not self.units:
            return True
        max_bytes = self._max_bytes
        return self.units + self._units(batch) <= factor * self._capacity and (
            not max_bytes or self.size_bytes + batch.size_bytes <= factor * max_bytes
        )

    def offer(self, batch: Batch, result: asyncio.Future[None] | None = None) -> bool:
        """Take the batch, unless the queue is full. With ``block_on_overflow`` full means twice full: see the module.

        Raises:
            OSError: the storage cannot keep it.
        """
        if not self.has_room(batch, self._overshoot):
            return False
        # A free sender will want the index at once; what has to wait is kept as bytes alone.
        held = batch if len(self._sending) < self._sender_count and not self._merges else batch.without_index()
        self._take(self.storage.append(held), held, result)
        return True

    def start(self, sender_count: int) -> None:
        """Begin to send: at most so many works at the same time."""
        self._sender_count = sender_count
        while len(self._sending) < sender_count and (work := self.next()) is not None:
            self._send(self, work)

    def restore(self) -> int:
        """Queue what the storage kept from the last run; how many items."""
        before = self.item_count
        for key in self.storage.oldest():
            self._take(key, self.storage.read(key), None)
        return self.item_count - before

    def next(self) -> Work | None:
        """What a sender that settled its work sends next, in the order taken; None: nothing waits, the sender is free."""
        if not self._ready:
            return None
        work = self._ready.popleft()
        self._sending.add(work)
        return work

    def read(self, work: Work) -> list[Batch]:
        """The work's bytes as few batches, each within ``batch.max_size``."""
        batches = [self.storage.read(entry.key) for entry in work.entries]
        merged = batches[0] if len(batches) == 1 else type(batches[0]).concat(batches)
        if not self._max_size or (merged.size_bytes if self._by_bytes else merged.item_count) <= self._max_size:
            return [merged]
        return merged.split(max_bytes=self._max_size) if self._by_bytes else merged.split(max_items=self._max_size)

    def settled(self, work: Work, error: Exception | None) -> None:
        """Forget the work: its items are delivered, refused or dropped. Who waits for the result gets it. Its sender goes :meth:`next`."""
        self._sending.discard(work)
        for entry in work.entries:
            self.storage.ack(entry.key)
            self.release(entry)
            if entry.result is not None and not entry.result.done():
                if error is None:
                    entry.result.set_result(None)
                else:
                    entry.result.set_exception(error)

    def release(self, entry: Entry) -> None:
        """Give back what the entry takes of the bounds."""
        self.units -= entry.units
        self.size_bytes -= entry.size_bytes
        self.item_count -= entry.item_count
        self._charge(-entry.charged_bytes)
        if not self.units:
            self._empty.set()

    def flush(self) -> None:
        """Send what is being merged now."""
        for work in self._merging.values():
            self._put(work)
        self._merging.clear()

    def left(self) -> list[Work]:
        """Take out everything, what is being sent first; no sender may go on with that."""
        self._sender_count = 0
        self.flush()
        left = [*self._sending, *self._ready]
        self._sending.clear()
        self._ready.clear()
        return left

    async def wait_empty(self) -> None:
        """Until all that was taken is settled."""
        while self.units:
            self._empty.clear()
            await self._empty.wait()

    async def flush_when_due(self) -> None:
        """Send merged work when its ``flush_timeout`` is over; for ever."""
        while True:
            if not self._merging:
                self._wake_timer.clear()
                await self._wake_timer.wait()
                continue
            now_s = self._clock.monotonic_s()
            # Insertion order is order of deadlines: every context waits equally long.
            for context, work in list(self._merging.items()):
                if work.flush_at_s > now_s:
                    await self._clock.sleep(work.flush_at_s - now_s)
                    break
                self._put(self._merging.pop(context))

    def _put(self, work: Work) -> None:
        """To a sender that is free, else into the queue."""
        if len(self._sending) < self._sender_count:
            self._sending.add(work)
            self._send(self, work)
        else:
            self._ready.append(work)

    def _take(self, key: int, held: Batch, result: asyncio.Future[None] | None) -> None:
        entry = Entry(key, held.item_count, held.size_bytes, self._units(held), held.memory_bytes, result)
        self.units += entry.units
        self.size_bytes += entry.size_bytes
        self.item_count += entry.item_count
        self._charge(entry.charged_bytes)
        if self._merges:
            self._merge(entry, held.context)
        else:
            self._put(Work([entry], entry.item_count, entry.size_bytes))

    def _merge(self, entry: Entry, context: Context) -> None:
        work = self._merging.get(context)
        size = entry.size_bytes if self._by_bytes else entry.item_count
        if work is not None and self._max_size and self._merged_size(work) + size > self._max_size:
            self._put(self._merging.pop(context))
            work = None
        if work is None:
            work = Work([], flush_at_s=self._clock.monotonic_s() + self._flush_timeout_s)
            self._merging[context] = work
            self._wake_timer.set()
        work.add(entry)
        if self._merged_size(work) >= self._min_size:
            self._put(self._merging.pop(context))

    def _merged_size(self, work: Work) -> int:
        return work.size_bytes if self._by_bytes else work.item_count

    def _units(self, batch: Batch) -> int:
        match self._sizer:
            case "requests":
                return 1
            case "items":
                return max(batch.item_count, 1)
            case "bytes":
                return max(batch.size_bytes, 1)
