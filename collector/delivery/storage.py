"""Where queued batches live until they are settled.

The queue itself keeps keys, sizes and order; a storage keeps the bytes. In memory that is a dictionary; an extension
can keep them on disk, so that a restart finds what was not delivered.
"""

from collections.abc import Iterable
from typing import Protocol, runtime_checkable

from collector.model import Batch

__all__ = ["MemoryStorage", "Storage", "StorageExtension"]


@runtime_checkable
class Storage(Protocol):
    """A first-in first-out store of batches of one signal of one exporter. All methods are quick and do not fail for good data."""

    durable: bool
    """What is not acknowledged at shutdown is there at the next start."""

    def append(self, batch: Batch) -> int:
        """Keep the batch; the key under which. Keys grow.

        Raises:
            OSError: it cannot be kept (disk full).
        """
        ...

    def read(self, key: int) -> Batch:
        """The batch kept under ``key``, without index. Raises KeyError."""
        ...

    def ack(self, key: int) -> None:
        """Forget the batch: it was delivered, refused or dropped."""
        ...

    def oldest(self) -> Iterable[int]:
        """Keys of what is kept, oldest first."""
        ...


class StorageExtension(Protocol):
    """What ``sending_queue::storage`` may name."""

    def storage(self, name: str) -> Storage:
        """The storage of that name (``otlp_grpc/a traces``); the same one after a restart."""
        ...


class MemoryStorage:
    """Batches in memory, gone when the process ends."""

    durable = False

    def __init__(self) -> None:
        self._kept: dict[int, Batch] = {}
        self._next_key = 0

    def append(self, batch: Batch) -> int:
        """See :class:`Storage`."""
        key = self._next_key
        self._next_key += 1
        self._kept[key] = batch
        return key

    def read(self, key: int) -> Batch:
        """See :class:`Storage`."""
        return self._kept[key]

    def ack(self, key: int) -> None:
        """See :class:`Storage`."""
        del self._kept[key]

    def oldest(self) -> Iterable[int]:
        """See :class:`Storage`."""
        return list(self._kept)
