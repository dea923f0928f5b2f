"""A double of a storage extension: what is stored survives the component, as a disk survives the process."""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import replace

from collector.api import Clock, DamagedBatchError, Evicted, OnStored, StoredBatch, StoredTotals, WhenFull
from collector.model import Batch

__all__ = ["FakeQueueStorage", "FakeStateStore", "FakeStorage"]


class FakeQueueStorage:
    """A :class:`collector.api.QueueStorage` in memory.

    A batch is stored one turn of the loop after it was appended, or, between :meth:`hold` and :meth:`resume`, when the
    test says so.
    """

    def __init__(
        self, when_full: WhenFull = "reject_newest", max_batches: int = 0, *, clock: Clock | None = None
    ) -> None:
        self.when_full = when_full
        self._clock = clock
        self.max_batches = max_batches
        """Bound of the batches stored; 0: none."""
        self.fail_with: OSError | None = None
        """What ``append`` reports while it is set: the disk is full."""
        self.unreadable: set[int] = set()
        """Keys for which ``read`` raises DamagedBatchError: the disk has damaged them."""
        self.batches: dict[int, tuple[StoredBatch, Batch]] = {}
        """What is stored and not acknowledged, by key."""
        self.is_open = False
        self.lost_item_count = 0
        self._next_key = 0
        self._storing: dict[int, tuple[StoredBatch, Batch, OnStored]] = {}
        self._is_held = False

    def hold(self) -> None:
        """Store nothing until :meth:`resume`: the disk is slow."""
        self._is_held = True

    def resume(self) -> None:
        """Store what was appended meanwhile."""
        self._is_held = False
        for key in list(self._storing):
            self._store(key)

    @property
    def totals(self) -> StoredTotals:
        """See :class:`collector.api.QueueStorage`."""
        stored = [entry[0] for entry in self.batches.values()] + [entry[0] for entry in self._storing.values()]
        return StoredTotals(
            batch_count=len(stored),
            request_count=sum(each.request_count for each in stored),
            item_count=sum(each.item_count for each in stored),
            size_bytes=sum(each.size_bytes for each in stored),
        )

    @property
    def drops_oldest(self) -> bool:
        """See :class:`collector.api.QueueStorage`."""
        return self.when_full == "drop_oldest"

    def has_room(self, size_bytes: int) -> bool:  # noqa: ARG002 - the bound is one of batches
        """See :class:`collector.api.QueueStorage`."""
        held_count = len(self.batches) + len(self._storing)
        return self.fail_with is None and not 0 < self.max_batches <= held_count

    def append(self, batch: Batch, on_stored: OnStored, labels: Mapping[str, str] | None = None) -> int:
        """See :class:`collector.api.QueueStorage`."""
        key = self._next_key
        self._next_key += 1
        stored = StoredBatch(
            key,
            batch.item_count,
            batch.size_bytes,
            replace(batch.context, claims=()),
            batch.request_count,
            0 if self._clock is None else self._clock.time_unix_nano(),
            dict(labels or {}),
        )
        self._storing[key] = (stored, batch.without_index().with_context(stored.context), on_stored)
        if not self._is_held:
            asyncio.get_running_loop().call_soon(self._store, key)
        return key

    async def after(self, key: int, count: int) -> Sequence[StoredBatch]:
        """See :class:`collector.api.QueueStorage`."""
        await asyncio.sleep(0)
        return [stored for each, (stored, _) in self.batches.items() if each > key][:count]

    async def read(self, key: int) -> Batch:
        """See :class:`collector.api.QueueStorage`."""
        await asyncio.sleep(0)
        if key in self.unreadable:
            raise DamagedBatchError(f"the batch {key} is damaged")
        return self.batches[key][1]

    def ack(self, key: int) -> None:
        """See :class:`collector.api.QueueStorage`."""
        self.batches.pop(key, None)

    def evict_oldest(self) -> Evicted | None:
        """See :class:`collector.api.QueueStorage`. Evicts one batch."""
        if not self.batches:
            return None
        key = next(iter(self.batches))
        stored = self.batches.pop(key)[0]
        return Evicted(key, StoredTotals(1, stored.request_count, stored.item_count, stored.size_bytes))

    async def close(self) -> None:
        """See :class:`collector.api.QueueStorage`."""
        self.resume()
        self.is_open = False

    def crash(self) -> None:
        """The process ends at once: what was not stored yet is lost, and the next process can open the queue."""
        self._storing.clear()
        self.is_open = False

    def _store(self, key: int) -> None:
        if self._is_held or key not in self._storing:
            return
        stored, batch, on_stored = self._storing.pop(key)
        if self.fail_with is None:
            self.batches[key] = (stored, batch)
        on_stored(self.fail_with)


class FakeStateStore:
    """A :class:`collector.api.StateStore` in memory."""

    def __init__(self) -> None:
        self.value: bytes | None = None
        """What was saved last."""
        self.save_count = 0
        self.fail_with: OSError | None = None
        """What ``save`` raises while it is set: the disk is full."""

    async def load(self) -> bytes | None:
        """See :class:`collector.api.StateStore`."""
        return self.value

    async def save(self, value: bytes) -> None:
        """See :class:`collector.api.StateStore`."""
        await asyncio.sleep(0)
        self.save_now(value)

    def save_now(self, value: bytes) -> None:
        """See :class:`collector.api.StateStore`."""
        if self.fail_with is not None:
            raise self.fail_with
        self.value = value
        self.save_count += 1

    def discard(self) -> None:
        """See :class:`collector.api.StateStore`."""
        self.value = None


class FakeStorage:
    """A :class:`collector.api.StorageExtension`: pass it to ``FakeHost(extensions={"file_storage": FakeStorage()})``.

    Keep it and start another component with it, as a restart does.
    """

    def __init__(self, clock: Clock | None = None) -> None:
        """``clock``: says when batches are stored; without it, at 0."""
        self._clock = clock
        self.queues: dict[str, FakeQueueStorage] = {}
        self.states: dict[str, FakeStateStore] = {}

    async def queue(
        self,
        name: str,
        *,
        max_size_bytes: int | None = None,  # noqa: ARG002 - the bound is that of the double
        when_full: WhenFull | None = None,
    ) -> FakeQueueStorage:
        """See :class:`collector.api.StorageExtension`."""
        storage = self.queues.setdefault(name, FakeQueueStorage(clock=self._clock))
        if storage.is_open:
            raise OSError(f"the queue {name!r} is in use")
        storage.is_open = True
        storage.when_full = when_full or storage.when_full
        return storage

    def crash(self) -> None:
        """The process ends at once."""
        for queue in self.queues.values():
            queue.crash()

    def state(self, name: str) -> FakeStateStore:
        """See :class:`collector.api.StorageExtension`."""
        return self.states.setdefault(name, FakeStateStore())
