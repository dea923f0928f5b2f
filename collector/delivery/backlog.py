"""Backlog: which batches of a durable queue are in memory, and which are on the disk alone.

The queue keeps the next few batches at hand; what is stored beyond them is only counted and loaded when its turn
comes. A queue of any size therefore opens at once and needs little memory.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Final

from collector.api import QueueStorage, StoredBatch

__all__ = ["Backlog"]

_AT_HAND_MAX: Final = 512
"""Batches at hand that are not being sent yet."""
_AT_HAND_BYTES_MAX: Final = 32 * 1024 * 1024
"""Bytes of batches at hand that were never read from the disk, because they have just been received."""


class Backlog:
    """See the module. ``at_hand_count`` and ``at_hand_bytes`` are kept by the queue."""

    def __init__(self, storage: QueueStorage) -> None:
        self._storage = storage
        self.at_hand_count = 0
        self.at_hand_bytes = 0
        self._is_behind = storage.totals.batch_count > 0
        self._last_key = -1
        """Of the batches that are, or have been, at hand."""
        self._newest_key = -1
        """Of the batches that were stored while the queue was behind."""
        self._wanted = asyncio.Event()
        if self._is_behind:
            self._wanted.set()

    def takes(self, key: int) -> bool:
        """Whether a batch that was just stored stays at hand; otherwise it is loaded when its turn comes."""
        if not self._is_behind and self.at_hand_count < _AT_HAND_MAX and self.at_hand_bytes < _AT_HAND_BYTES_MAX:
            self._last_key = key
            return True
        self._is_behind = True
        self._newest_key = key
        self.want()
        return False

    def want(self) -> None:
        """Load more if there is more and few batches are at hand."""
        if self._is_behind and self.at_hand_count <= _AT_HAND_MAX // 2:
            self._wanted.set()

    async def load(
        self,
        add: Callable[[Sequence[StoredBatch]], None],
        on_error: Callable[[OSError], Awaitable[None]],
    ) -> None:
        """Pass what is stored to ``add``, a part at a time, as it is wanted. Runs until it is cancelled.

        ``on_error`` is awaited before the next attempt to read.
        """
        while True:
            await self._wanted.wait()
            self._wanted.clear()
            if not self._is_behind:  # caught up since: what is stored now is at hand already
                continue
            count = _AT_HAND_MAX - self.at_hand_count
            try:
                found = await self._storage.after(self._last_key, count)
            except OSError as error:
                await on_error(error)
                self._wanted.set()
                continue
            if found:
                self._last_key = found[-1].key
                add(found)
            if len(found) < count and self._newest_key <= self._last_key:
                self._is_behind = False
            self.want()

    def skip_to(self, key: int) -> None:
        """The batches up to this key were evicted."""
        self._last_key = max(self._last_key, key)
