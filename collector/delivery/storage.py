"""Where queued batches are stored until they are settled.

The queue itself keeps keys, sizes and order; a storage keeps the bytes. In memory that is a dictionary; an extension
can keep them on disk, so that they are still there after a restart.
"""

from collections.abc import Iterable
from typing import Protocol, runtime_checkable

from collector.api import Host
from collector.model import Batch

__all__ = ["MemoryStorage", "Storage", "StorageExtension", "open_storage"]


class Storage(Protocol):
    """A first-in first-out store of the batches of one signal of one exporter.

    All methods are quick, and do not fail because of the content of a batch.

    Example::

        storage = extension.storage("otlp_grpc/a traces")
        key = storage.append(batch)
        batch = storage.read(key)
        storage.ack(key)  # the batch is settled; forget it
    """

    durable: bool
    """True: what is not acknowledged at shutdown is still there at the next start."""

    def append(self, batch: Batch) -> int:
        """Store the batch and return its key. Keys increase.

        Raises:
            OSError: the batch cannot be stored (disk full).
        """
        ...

    def read(self, key: int) -> Batch:
        """The batch stored under ``key``. Raises KeyError."""
        ...

    def ack(self, key: int) -> None:
        """Remove the batch: it was delivered, refused or dropped."""
        ...

    def keys_oldest_first(self) -> Iterable[int]:
        """The keys of all stored batches, oldest first."""
        ...


@runtime_checkable
class StorageExtension(Protocol):
    """An extension that ``sending_queue::storage`` may name."""

    def storage(self, name: str) -> Storage:
        """The storage with this name (``otlp_grpc/a traces``); the same one after a restart."""
        ...


class MemoryStorage:
    """Batches in memory, lost when the process ends.

    >>> from collector.testing import traces
    >>> storage = MemoryStorage()
    >>> key = storage.append(traces(spans=10))
    >>> storage.read(key).item_count
    10
    >>> storage.ack(key)
    >>> list(storage.keys_oldest_first())
    []
    """

    durable = False

    def __init__(self) -> None:
        self._batches: dict[int, Batch] = {}
        self._next_key = 0

    def append(self, batch: Batch) -> int:
        """See :class:`Storage`."""
        key = self._next_key
        self._next_key += 1
        self._batches[key] = batch
        return key

    def read(self, key: int) -> Batch:
        """See :class:`Storage`."""
        return self._batches[key]

    def ack(self, key: int) -> None:
        """See :class:`Storage`."""
        del self._batches[key]

    def keys_oldest_first(self) -> Iterable[int]:
        """See :class:`Storage`."""
        return list(self._batches)


def open_storage(host: Host, extension_id: str, name: str, *, key: str) -> Storage:
    """The storage called ``name`` of a storage extension; ``key`` is the configuration key that names the extension.

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
    return extension.storage(name)
