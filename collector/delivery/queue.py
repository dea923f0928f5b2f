"""SendingQueue: the queue of one signal of one exporter. It bounds, merges and orders what waits to be sent.

Everything that was added and is not settled yet counts against the bounds, including requests being sent, as in the
Collector's memory queue. Merging (``sending_queue.batch``) only combines batches with equal contexts, or with equal
values of ``partition.metadata_keys``. Sending, retries and the ledger are the business of other modules.

With a storage, a batch is part of the queue at once, and is sent after it was stored; its body is read again only if it
did not stay at hand (see :mod:`collector.delivery.backlog`).

Source: the Collector's exporter/exporterhelper/internal/{queue,queuebatch}.
"""

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from functools import partial
from itertools import islice
from typing import Final

from collector.api import Clock, DamagedBatchError, QueueStorage, RetryableError, StoredBatch, StoredTotals
from collector.delivery.backlog import Backlog
from collector.delivery.units import NOT_STORED, LossObserver, QueuedBatch, SendUnit
from collector.model import Batch, Context, Signal
from config.blocks import QueueConfig

__all__ = ["SendUnit", "SendingQueue"]

# Stages and connectors emit from timers, without asking for room first. A queue with `block_on_overflow` may therefore
# grow to this multiple of its bounds before it drops anything.
_OVERSHOOT_FACTOR: Final = 2
_READ_AGAIN_S: Final = 1.0
_STORAGE_RETRY_AFTER_S: Final = 1.0  # a full storage is tried again every second


class SendingQueue:
    """See the module. Only the methods that say so wait for anything; the others are quick."""

    def __init__(self, signal: Signal, config: QueueConfig, clock: Clock) -> None:
        self.signal = signal
        self.capacity = config.queue_size
        """Bound of ``size``, in units of the sizer."""
        self.size = 0
        self.size_bytes = 0
        self.item_count = 0
        self._clock = clock
        self._storage: QueueStorage | None = None
        self._backlog: Backlog | None = None
        self._losses: LossObserver | None = None
        self._evicted_key = -1
        self._charge: Callable[[int], None] = _charge_nothing
        self._max_bytes, self._sizer = config.bound_bytes, config.sizer
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
        self._partition_keys = tuple(key.lower() for key in batch.partition.metadata_keys) if batch else ()

    @property
    def is_durable(self) -> bool:
        """Whether a storage keeps what is in the queue until the next start."""
        return self._storage is not None

    def oldest_age_s(self) -> float:
        """How long the oldest batch has been in the queue, in seconds; 0 if the queue is empty."""
        # What is ready or being merged is in order; what is being sent is not, but that are a few.
        candidates = [unit.added_at_s for unit in self._sending]
        candidates += [unit.added_at_s for unit in islice(self._ready, 1)]
        candidates += [unit.added_at_s for unit in islice(self._merging.values(), 1)]
        return max(self._clock.monotonic_s() - min(candidates), 0.0) if candidates else 0.0

    def open(
        self, storage: QueueStorage | None, charge: Callable[[int], None], losses: LossObserver | None = None
    ) -> int:
        """Use ``storage`` (None: memory), and call ``charge`` with the bytes of memory held and released.

        Returns the number of items that the storage kept from the last run; they are in the queue now. They are sent
        once :meth:`load` runs. ``losses`` is only needed with a storage.
        """
        self._charge = charge
        if storage is None:
            return 0
        self._storage, self._losses = storage, losses
        totals = storage.totals
        self._backlog = Backlog(storage)
        self._count(totals.item_count, totals.size_bytes, self._size_of_totals(totals))
        return totals.item_count

    def start(self, max_sending: int, send: Callable[[SendUnit], None]) -> None:
        """Pass units to ``send``, at most ``max_sending`` at a time. It must not release a unit before it returns."""
        self._max_sending = max_sending
        self._send = send
        while len(self._sending) < max_sending and (unit := self.next_unit()) is not None:
            send(unit)

    async def close(self) -> None:
        """Give the storage back, with everything in it that is not released. Returns when all of it is stored."""
        if self._storage is None:
            return
        await self._storage.close()
        for unit in (*self._sending, *self._ready, *self._merging.values()):
            for queued in unit.batches:
                self._drop_body(queued)

    # Adding.

    def has_room(self, batch: Batch, factor: int = 1) -> bool:
        """Whether the batch fits. An empty queue has room for any batch, which would otherwise never fit."""
        storage = self._storage
        if storage is not None and not (storage.drops_oldest or storage.has_room(batch.size_bytes)):
            return False
        if not self.size:
            return True
        max_bytes = self._max_bytes
        return self.size + self._size_of(batch) <= factor * self.capacity and (
            not max_bytes or self.size_bytes + batch.size_bytes <= factor * max_bytes
        )

    def try_add(self, batch: Batch, result: asyncio.Future[None] | None = None) -> bool:
        """Add the batch and return True, or return False if the queue is full.

        With ``block_on_overflow`` a queue is only full here at twice its bounds: callers asked ``has_room`` before.
        ``result`` receives the outcome of sending the batch, or, with a storage, that of storing it.
        """
        if not self.has_room(batch, self._overshoot_factor):
            return False
        storage = self._storage
        # A batch that is sent right now will need its index; one that has to wait is kept as bytes alone.
        is_next = len(self._sending) < self._max_sending and not self.merges
        kept = batch if is_next else batch.without_index()
        queued = QueuedBatch(
            kept.item_count,
            kept.size_bytes,
            self._size_of(kept),
            kept.context,
            result,
            kept,
            self._clock.monotonic_s(),
            kept.memory_bytes,
        )
        if storage is None:
            self._count(queued.item_count, queued.size_bytes, queued.size)
            self._charge(queued.charged_bytes)
            self._schedule(queued)
            return True
        while storage.drops_oldest and not storage.has_room(kept.size_bytes):
            if not self._evict(storage):
                return False
        self._count(queued.item_count, queued.size_bytes, queued.size)
        self._charge(queued.charged_bytes)
        queued.key = storage.append(kept, partial(self._on_stored, queued))
        return True

    def _schedule(self, queued: QueuedBatch) -> None:
        if self.merges:
            self._merge(queued)
        else:
            self._dispatch(SendUnit([queued], queued.item_count, queued.size_bytes, queued.added_at_s))

    def _size_of(self, batch: Batch) -> int:
        match self._sizer:
            case "requests":
                return batch.request_count
            case "items":
                return max(batch.item_count, 1)
            case "bytes":
                return max(batch.size_bytes, 1)

    def _count(self, item_count: int, size_bytes: int, size: int) -> None:
        self.item_count += item_count
        self.size_bytes += size_bytes
        self.size += size
        if not self.size:
            self._emptied.set()

    def _drop_body(self, queued: QueuedBatch) -> None:
        if queued.charged_bytes:
            self._charge(-queued.charged_bytes)
            queued.charged_bytes = 0
        queued.batch = None

    def _dispatch(self, unit: SendUnit) -> None:
        """Send the unit if fewer than ``max_sending`` are being sent, otherwise let it wait for its turn."""
        if self._send is not None and len(self._sending) < self._max_sending:
            self._begin(unit)
            self._send(unit)
        else:
            self._ready.append(unit)

    def _begin(self, unit: SendUnit) -> None:
        self._sending.add(unit)
        if self._backlog is not None:
            self._backlog.at_hand_count -= len(unit.batches)
            self._backlog.at_hand_bytes -= unit.size_bytes
            self._backlog.want()

    # Storing.

    def _on_stored(self, queued: QueuedBatch, error: OSError | None) -> None:
        """A batch was stored, or could not be."""
        backlog, losses, result = self._backlog, self._losses, queued.result
        assert backlog is not None
        assert losses is not None
        if error is not None:
            self._drop_body(queued)
            self._count(-queued.item_count, -queued.size_bytes, -queued.size)
            losses.drop_unstored(queued.item_count, error)
            if result is not None and not result.done():
                message = f"the data cannot be stored: {error}"
                result.set_exception(
                    RetryableError(message, reason="storage_full", retry_after_s=_STORAGE_RETRY_AFTER_S)
                )
            return
        if result is not None and not result.done():
            result.set_result(None)
        queued.result = None
        if backlog.takes(queued.key):
            self._put_at_hand(backlog, queued)
        else:
            self._drop_body(queued)

    def _put_at_hand(self, backlog: Backlog, queued: QueuedBatch) -> None:
        backlog.at_hand_count += 1
        backlog.at_hand_bytes += queued.size_bytes
        self._schedule(queued)

    async def load(self) -> None:
        """Send what is in the storage alone when its turn comes. Runs until it is cancelled, if there is a storage."""
        if self._backlog is not None:
            await self._backlog.load(self._add_stored, self._on_unreadable)

    def _add_stored(self, found: Sequence[StoredBatch]) -> None:
        assert self._backlog is not None
        now_s, now_unix_nano = self._clock.monotonic_s(), self._clock.time_unix_nano()
        for stored in found:
            age_s = max(now_unix_nano - stored.stored_unix_nano, 0) / 1e9
            size = self._size_of_totals(StoredTotals(1, stored.request_count, stored.item_count, stored.size_bytes))
            queued = QueuedBatch(
                stored.item_count, stored.size_bytes, size, stored.context, None, None, now_s - age_s, 0, stored.key
            )
            self._put_at_hand(self._backlog, queued)

    async def _on_unreadable(self, error: OSError) -> None:
        assert self._losses is not None
        self._losses.note_unreadable(error)
        await self._clock.sleep(_READ_AGAIN_S)

    def _size_of_totals(self, totals: StoredTotals) -> int:
        match self._sizer:
            case "requests":
                return totals.request_count
            case "items":
                return totals.item_count
            case "bytes":
                return totals.size_bytes

    def _evict(self, storage: QueueStorage) -> bool:
        """Delete some of the oldest batches from the storage; False if there are none. What is being sent goes on."""
        evicted = storage.evict_oldest()
        if evicted is None:
            return False
        backlog, losses, totals = self._backlog, self._losses, evicted.totals
        assert backlog is not None
        assert losses is not None
        first_key, self._evicted_key = self._evicted_key + 1, evicted.last_key
        keys = range(first_key, evicted.last_key + 1)
        kept = [queued for unit in self._sending for queued in unit.batches if queued.key in keys]
        for queued in kept:
            queued.key = NOT_STORED
        for unit in [*self._ready, *self._merging.values()]:
            for queued in [queued for queued in unit.batches if queued.key in keys]:
                unit.remove(queued)
                self._drop_body(queued)
                backlog.at_hand_count -= 1
                backlog.at_hand_bytes -= queued.size_bytes
        self._ready = deque(unit for unit in self._ready if unit.batches)
        self._merging = {context: unit for context, unit in self._merging.items() if unit.batches}
        backlog.skip_to(evicted.last_key)
        lost_count = totals.item_count - sum(queued.item_count for queued in kept)
        self._count(
            -lost_count,
            sum(queued.size_bytes for queued in kept) - totals.size_bytes,
            sum(queued.size for queued in kept) - self._size_of_totals(totals),
        )
        losses.drop_evicted(lost_count)
        return True

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

    def _merge(self, queued: QueuedBatch) -> None:
        context = self._merged_context(queued.context)
        unit = self._merging.get(context)
        size = queued.size_bytes if self._merges_by_bytes else queued.item_count
        if unit is not None and self._max_size and self._merged_size(unit) + size > self._max_size:
            self._dispatch(self._merging.pop(context))
            unit = None
        if unit is None:
            flush_at_s = self._clock.monotonic_s() + self._flush_timeout_s
            unit = SendUnit([], added_at_s=queued.added_at_s, flush_at_s=flush_at_s, context=context)
            self._merging[context] = unit
            self._merging_started.set()
        unit.add(queued)
        if self._merged_size(unit) >= self._min_size:
            self._dispatch(self._merging.pop(context))

    def _merged_context(self, context: Context) -> Context:
        """The context that a batch has after merging: only equal ones are merged."""
        keys = self._partition_keys
        if not keys:
            return context
        metadata = tuple(pair for pair in context.metadata if pair[0] in keys)
        return Context(metadata=metadata, tenant=context.tenant)

    def _merged_size(self, unit: SendUnit) -> int:
        return unit.size_bytes if self._merges_by_bytes else unit.unsettled_count

    # Sending.

    def next_unit(self) -> SendUnit | None:
        """The next unit to send, in the order added, after one was released; None if nothing waits."""
        if not self._ready:
            return None
        unit = self._ready.popleft()
        self._begin(unit)
        return unit

    def read_single(self, unit: SendUnit) -> Batch | None:
        """The batch of a unit of a queue that does not merge; None if it has to be read from the storage."""
        return unit.batches[0].batch

    async def read(self, unit: SendUnit) -> list[Batch]:
        """The unit's content as few batches, each within ``batch.max_size``. What cannot be read is left out."""
        batches: list[Batch] = []
        for queued in list(unit.batches):
            batch = queued.batch if queued.batch is not None else await self._read_stored(unit, queued)
            if batch is not None:
                batches.append(batch)
        if not batches:
            return []
        context = unit.context
        if context is not None:
            batches = [batch if batch.context == context else batch.with_context(context) for batch in batches]
        merged = batches[0] if len(batches) == 1 else type(batches[0]).concat(batches)
        if not self._max_size:
            return [merged]
        if self._merges_by_bytes:
            return [merged] if merged.size_bytes <= self._max_size else merged.split(max_bytes=self._max_size)
        return [merged] if merged.item_count <= self._max_size else merged.split(max_items=self._max_size)

    async def _read_stored(self, unit: SendUnit, queued: QueuedBatch) -> Batch | None:
        """A batch from the storage; None if it is lost."""
        assert self._storage is not None
        assert self._losses is not None
        while True:
            try:
                batch = await self._storage.read(queued.key)
            except (KeyError, DamagedBatchError) as error:  # KeyError: evicted meanwhile
                unit.remove(queued)
                self._storage.ack(queued.key)
                self._count(-queued.item_count, -queued.size_bytes, -queued.size)
                if isinstance(error, KeyError):
                    self._losses.drop_evicted(queued.item_count)
                else:
                    self._losses.drop_damaged(queued.item_count, error)
                return None
            except OSError as error:
                await self._on_unreadable(error)
                continue
            queued.batch, queued.charged_bytes = batch, batch.memory_bytes
            self._charge(queued.charged_bytes)
            return batch

    def release(self, unit: SendUnit) -> None:
        """Forget the unit and what it takes of the bounds. Whoever sent it may ask for the :meth:`next_unit`."""
        self._sending.discard(unit)
        for queued in unit.batches:
            if self._storage is not None and queued.key != NOT_STORED:
                self._storage.ack(queued.key)
            self._drop_body(queued)
            self._count(-queued.item_count, -queued.size_bytes, -queued.size)

    def take_all(self) -> list[SendUnit]:
        """End sending and return every unit, those being sent first. They still have to be released."""
        self._max_sending = 0
        self.flush()
        units = [*self._sending, *self._ready]
        if self._storage is None:
            self._sending.clear()
            self._ready.clear()
        else:
            for unit in self._sending:
                self._drop_unstored(unit)
        return units

    def _drop_unstored(self, unit: SendUnit) -> None:
        """Batches that were evicted while they were being sent are not there after a restart."""
        assert self._losses is not None
        for queued in [queued for queued in unit.batches if queued.key == NOT_STORED]:
            lost_count = min(queued.item_count, unit.unsettled_count)
            unit.batches.remove(queued)
            unit.unsettled_count -= lost_count
            self._drop_body(queued)
            self._count(-queued.item_count, -queued.size_bytes, -queued.size)
            self._losses.drop_evicted(lost_count)

    async def wait_empty(self) -> None:
        """Return when everything that was added is released."""
        while self.size:
            self._emptied.clear()
            await self._emptied.wait()


def _charge_nothing(size_bytes: int) -> None:
    """Until the queue is opened there is no budget to charge."""
