"""What keeps data over a restart: the interfaces of storage extensions.

A storage extension keeps two kinds of things. A :class:`QueueStorage` keeps the batches of one queue until they are
settled; a :class:`StateStore` keeps one value, the checkpoint of one component. Both belong to one owner at a time and
are found by name, so a component finds its own again after a restart.

The event loop never waits for a disk: methods that may touch one are asynchronous or report through a callback.
Failures are an :class:`OSError` whose text can be shown to the operator.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, Protocol, runtime_checkable

from collector.api.host import Host
from collector.model import Batch, Context

__all__ = [
    "DamagedBatchError",
    "Evicted",
    "OnStored",
    "QueueStorage",
    "StateStore",
    "StorageExtension",
    "StoredBatch",
    "StoredTotals",
    "WhenFull",
    "find_storage",
]

OnStored = Callable[[OSError | None], None]
"""Called once on the event loop, after ``append`` has returned: with None when the batch will survive a restart, or
with the error because of which it was not stored. It must not raise.

Example::

    def on_stored(error: OSError | None) -> None:
        answer.set_result(None) if error is None else answer.set_exception(error)
"""

WhenFull = Literal["reject_newest", "drop_oldest"]
"""What a storage that has reached its maximum size does with further batches."""


class DamagedBatchError(OSError):
    """A stored batch is not what was written; it is lost. The storage keeps what is left of it for an operator.

    >>> raise DamagedBatchError("the checksum of the record is wrong")
    Traceback (most recent call last):
    collector.api.storage.DamagedBatchError: the checksum of the record is wrong
    """


@dataclass(frozen=True, slots=True)
class StoredBatch:
    """What is known of a stored batch without reading it.

    >>> from collector.model import Context
    >>> stored = StoredBatch(key=7, item_count=100, size_bytes=20_000, context=Context(tenant="a"))
    >>> stored.key, stored.request_count
    (7, 1)
    """

    key: int
    item_count: int
    size_bytes: int
    """Length of the batch's ``wire``."""
    context: Context
    """Without the claims, which are not stored."""
    request_count: int = 1
    stored_unix_nano: int = 0
    labels: Mapping[str, str] = field(default_factory=dict)
    """What the owner noted when it appended the batch, such as the reason of a dead letter."""


@dataclass(frozen=True, slots=True)
class StoredTotals:
    """Sums over the batches that are stored and not acknowledged.

    >>> StoredTotals(batch_count=2, request_count=16, item_count=1000, size_bytes=200_000).item_count
    1000
    """

    batch_count: int = 0
    request_count: int = 0
    item_count: int = 0
    size_bytes: int = 0


@dataclass(frozen=True, slots=True)
class Evicted:
    """A run of the oldest batches that was deleted to make room.

    ``totals`` has what was not acknowledged of the keys up to ``last_key``.

    >>> Evicted(last_key=9, totals=StoredTotals(batch_count=10, item_count=5000)).totals.item_count
    5000
    """

    last_key: int
    totals: StoredTotals


class QueueStorage(Protocol):
    """A first-in first-out store of batches that survives a restart. It has one owner, on one event loop.

    A batch is stored from the call of its ``on_stored`` until ``ack``. One that was not acknowledged when the process
    ended, in whatever way, is there again at the next start.

    Example::

        storage = await extension.queue("otlp_grpc/a traces")
        key = storage.append(batch, on_stored)
        ...
        for stored in await storage.after(-1, 100):
            batch = await storage.read(stored.key)
            storage.ack(stored.key)  # the batch is settled; forget it
        await storage.close()
    """

    @property
    def totals(self) -> StoredTotals:
        """What is stored and not acknowledged, including what is being stored. Known without reading any batch."""
        ...

    @property
    def lost_item_count(self) -> int:
        """How many items were found to be lost to damage when the store was opened; partly an estimate.

        They are not part of ``totals``. The owner counts them as dropped with the reason ``storage_damaged``.
        """
        ...

    @property
    def drops_oldest(self) -> bool:
        """Whether the owner should make room with :meth:`evict_oldest` when there is none for a new batch."""
        ...

    def has_room(self, size_bytes: int) -> bool:
        """Whether a batch of this size could be appended now: within the maximum size, and the last write succeeded.

        While the disk is full the answer is False, except that a batch is let through about once per second to find out
        whether there is room again.
        """
        ...

    def append(self, batch: Batch, on_stored: OnStored, labels: Mapping[str, str] | None = None) -> int:
        """Begin to store the batch and return its key. Keys increase.

        What is appended while the disk is busy is committed together. ``append`` itself does not fail: errors go to
        ``on_stored``, and the batch is then not part of the storage.
        """
        ...

    async def after(self, key: int, count: int) -> Sequence[StoredBatch]:
        """At most ``count`` stored batches with keys above ``key`` that are not acknowledged, oldest first.

        Start with -1. Fewer than ``count``: these are all.

        Raises:
            OSError: the storage cannot be read.
        """
        ...

    async def read(self, key: int) -> Batch:
        """The batch stored under ``key``, without the claims of its context.

        Raises:
            KeyError: there is no such batch; it was acknowledged or evicted.
            DamagedBatchError: what was read is not what was written. The caller acknowledges and counts it.
            OSError: it cannot be read at present.
        """
        ...

    def ack(self, key: int) -> None:
        """Remove the batch: it is settled. Does nothing if it is not stored (any more)."""
        ...

    def evict_oldest(self) -> Evicted | None:
        """Delete a run of the oldest batches; the caller counts them as dropped. None: there is nothing to delete."""
        ...

    async def close(self) -> None:
        """Finish what was begun and give up ownership; everything not acknowledged stays. Safe when called twice."""
        ...


class StateStore(Protocol):
    """One value that survives a restart: the checkpoint of one component.

    The value is replaced as a whole; a crash leaves the old or the new one, never a mixture. What it looks like is the
    component's business: begin it with a version, and treat a value that cannot be understood like none.

    Example::

        store = find_storage(host, self._config.storage, key=key).state("tail_sampling@traces")
        saved = await store.load()
        ...
        await store.save(state)  # from a PeriodicTask
        ...
        store.save_now(state)  # in `shutdown`
    """

    async def load(self) -> bytes | None:
        """The value saved last; None if there is none, or if it was damaged, which the storage logs and counts.

        Raises:
            OSError: the storage cannot be read.
        """
        ...

    async def save(self, value: bytes) -> None:
        """Replace the value. Returns when the new one will survive a power failure.

        Raises:
            OSError: it could not be saved; the previous value stays.
        """
        ...

    def save_now(self, value: bytes) -> None:
        """Like :meth:`save`, but blocking: for ``shutdown``, when there may be no time for another turn of the loop.

        Raises:
            OSError: it could not be saved; the previous value stays.
        """
        ...

    def discard(self) -> None:
        """Remove the value, because a later process must not continue from it. Blocking, but quick.

        Raises:
            OSError: it could not be removed. A full disk is no obstacle.
        """
        ...


@runtime_checkable
class StorageExtension(Protocol):
    """An extension that keys such as ``sending_queue::storage`` may name.

    Example::

        extension = find_storage(host, "file_storage", key="exporters::otlp_grpc::sending_queue::storage")
        storage = await extension.queue("otlp_grpc traces")
    """

    async def queue(
        self, name: str, *, max_size_bytes: int | None = None, when_full: WhenFull | None = None
    ) -> QueueStorage:
        """Open the queue of this name (``otlp_grpc/a traces``): the same one after a restart.

        The limits default to those of the extension's configuration. A queue that is damaged opens with what is left of
        it; the storage logs and counts the rest.

        Raises:
            OSError: the queue cannot be opened, or it is open already.
        """
        ...

    def state(self, name: str) -> StateStore:
        """The state of this name (``tail_sampling@traces/a``): the same one after a restart."""
        ...


def find_storage(host: Host, extension_id: str, *, key: str) -> StorageExtension:
    """The storage extension with this id; ``key`` is the configuration key that names it.

    Example::

        find_storage(host, config.storage, key=f"processors::{settings.id}::storage")

    Raises:
        ValueError: there is no such extension, or it is not a storage extension.
    """
    try:
        extension = host.extension(extension_id)
    except KeyError as exc:
        raise ValueError(
            f"{key}: the extension {extension_id!r} is not configured; list it in service::extensions"
        ) from exc
    if not isinstance(extension, StorageExtension):
        raise ValueError(  # noqa: TRY004 - the configuration is wrong
            f"{key}: the extension {extension_id!r} is not a storage extension"
        )
    return extension
