"""What a sending queue consists of, and whom it tells about losses."""

import asyncio
from dataclasses import dataclass
from typing import Final, Protocol

from collector.model import Batch, Context

__all__ = ["NOT_STORED", "LossObserver", "QueuedBatch", "SendUnit"]

NOT_STORED: Final = -1
"""Instead of a key: the batch is in memory alone."""


@dataclass(slots=True, eq=False)
class QueuedBatch:
    """One batch in the queue."""

    item_count: int
    size_bytes: int
    size: int
    """Size in units of the queue's sizer."""
    context: Context
    result: asyncio.Future[None] | None
    """Receives the outcome if the caller waits for it."""
    batch: Batch | None
    """None: it is in the storage alone."""
    added_at_s: float = 0.0
    charged_bytes: int = 0
    key: int = NOT_STORED
    """Its key in the storage."""


@dataclass(slots=True, eq=False)
class SendUnit:
    """Queued batches that are sent as one."""

    batches: list[QueuedBatch]
    unsettled_count: int = 0
    """Items that are not delivered, refused or dropped yet."""
    size_bytes: int = 0
    added_at_s: float = 0.0
    """When its oldest batch was added (monotonic)."""
    flush_at_s: float = 0.0
    context: Context | None = None
    """The context of the merged batch."""
    settled_count: int = 0
    """Items that are settled, while others of the unit are not."""

    def add(self, queued: QueuedBatch) -> None:
        """Merge one more batch."""
        self.batches.append(queued)
        self.unsettled_count += queued.item_count
        self.size_bytes += queued.size_bytes

    def remove(self, queued: QueuedBatch) -> None:
        """The batch is lost and will not be sent."""
        self.batches.remove(queued)
        self.unsettled_count -= queued.item_count
        self.size_bytes -= queued.size_bytes


class LossObserver(Protocol):
    """Whom a queue tells about what it loses. All of it was counted as received before."""

    def drop_unstored(self, item_count: int, error: OSError) -> None:
        """The storage failed to keep a batch; the caller was told."""
        ...

    def drop_evicted(self, item_count: int) -> None:
        """The oldest data was deleted to make room for new data."""
        ...

    def drop_damaged(self, item_count: int, error: Exception) -> None:
        """A stored batch cannot be read any more."""
        ...

    def note_unreadable(self, error: OSError) -> None:
        """The storage cannot be read at present; it is tried again."""
        ...
