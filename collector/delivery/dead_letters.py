"""DeadLetters: keeps what an exporter could not deliver, so that it can be looked at and sent again.

The data counts as refused or dropped all the same; it is a copy for the operator, which ``tailrace dead-letters`` shows
and ``tailrace replay`` sends. The newest data is the most valuable: the oldest is removed when there is no more room.
"""

import asyncio
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Self

import numpy as np

from collector.api import Host, PermanentError, QueueStorage, RetryableError, Settings, StoredBatch, find_storage
from collector.delivery.log import RateLimitedLog, printable
from collector.model import Batch, Signal
from collector.model.arrays import I32, Indices
from config.blocks import DeadLetterConfig

__all__ = ["DeadLetters", "LetterFilter", "LostPart", "dead_letter_queue", "matching"]

# Data without room in the queue arrives faster than a disk may be. More than this never waits to be stored.
_PENDING_MAX_BYTES: Final = 64 * 1024 * 1024
_PAGE: Final = 256
_END_OF_TIME: Final = 1 << 63


def dead_letter_queue(exporter_id: object, signal: Signal) -> str:
    """The name of the storage queue with the dead letters of one signal of one exporter.

    >>> from collector.model import Signal
    >>> dead_letter_queue("otlp_grpc/a", Signal.TRACES)
    'dead_letters otlp_grpc/a traces'
    """
    return f"dead_letters {exporter_id} {signal}"


@dataclass(frozen=True)
class LetterFilter:
    """Which letters are meant: a condition that is not given always holds."""

    exporter: frozenset[str] = frozenset()
    signal: frozenset[str] = frozenset()
    reason: frozenset[str] = frozenset()
    after_unix_nano: int = 0
    before_unix_nano: int = _END_OF_TIME

    def matches(self, stored: StoredBatch) -> bool:
        """Whether the letter is meant."""
        return self.after_unix_nano <= stored.stored_unix_nano < self.before_unix_nano and all(
            not wanted or stored.labels.get(key, "") in wanted
            for key, wanted in (("exporter", self.exporter), ("signal", self.signal), ("reason", self.reason))
        )

    def may_include(self, exporter_id: str) -> bool:
        """Whether letters of the exporter may be meant."""
        return not self.exporter or exporter_id in self.exporter

    def to_query(self) -> dict[str, str]:
        """As the parameters of a URL, which :meth:`from_query` reads."""
        texts = {key: ",".join(sorted(getattr(self, key))) for key in ("exporter", "signal", "reason")}
        times = {"after_unix_nano": str(self.after_unix_nano), "before_unix_nano": str(self.before_unix_nano)}
        return {key: text for key, text in texts.items() if text} | times

    @classmethod
    def from_query(cls, query: Mapping[str, str]) -> Self:
        """The filter that the parameters of a URL describe. Raises ValueError."""
        names = {key: frozenset(query[key].split(",")) for key in ("exporter", "signal", "reason") if query.get(key)}
        after, before = query.get("after_unix_nano") or 0, query.get("before_unix_nano") or _END_OF_TIME
        return cls(**names, after_unix_nano=int(after), before_unix_nano=int(before))


async def matching(storage: QueueStorage, wanted: LetterFilter, limit: int = 0) -> AsyncGenerator[StoredBatch, None]:
    """The letters that are meant, oldest first; ``limit`` 0: all of them."""
    key, count = -1, 0
    while page := await storage.after(key, _PAGE):
        for stored in page:
            if wanted.matches(stored):
                yield stored
                count += 1
                if count == limit:
                    return
        key = page[-1].key


class LostPart:
    """A part of a batch that was refused or given up."""

    __slots__ = ("error", "item_count", "payload", "reason", "rows")

    def __init__(
        self,
        payload: object,
        item_count: int,
        reason: str,
        error: PermanentError | RetryableError,
        rows: Indices | I32 | None = None,
    ) -> None:
        self.payload = payload
        self.item_count = item_count
        self.reason = reason
        self.error = error
        self.rows = rows
        """Of its items in the batch, if they are known."""

    @property
    def is_known(self) -> bool:
        """Whether its items are known."""
        return self.rows is not None or isinstance(self.payload, Batch)


class DeadLetters:
    """The dead letters of one signal of one exporter. Does nothing before :meth:`open`."""

    def __init__(
        self,
        settings: Settings,
        signal: Signal,
        config: DeadLetterConfig,
        log: RateLimitedLog,
        *,
        callers_wait: bool,
        count_lost: Callable[[Signal, str, int], None],
    ) -> None:
        """``callers_wait``: callers learn of failures and send again what may be accepted later, so it is not kept.

        ``count_lost`` receives signal, reason and number of items that the store does not have.
        """
        self._settings = settings
        self._callers_wait = callers_wait
        self._signal = signal
        self._config = config
        self._log = log
        self._count_lost = count_lost
        self._storage: QueueStorage | None = None
        self._pending_bytes = 0

    @property
    def includes_overflow(self) -> bool:
        """Whether data for which the queue has no room is kept as well."""
        return self._config.include_overflow and self._storage is not None

    @property
    def item_count(self) -> int:
        """Items that are kept."""
        return self._storage.totals.item_count if self._storage is not None else 0

    @property
    def size_bytes(self) -> int:
        """Bytes that are kept."""
        return self._storage.totals.size_bytes if self._storage is not None else 0

    @property
    def store_name(self) -> str:
        """The storage extension and the name of the store in it, which has one user at a time."""
        return f"{self._config.storage}: {dead_letter_queue(self._settings.id, self._signal)}"

    async def open(self, host: Host) -> None:
        """Open the store.

        Raises:
            ValueError: there is no such storage extension.
            OSError: the store cannot be opened.
        """
        key = f"exporters::{self._settings.id}::dead_letter::storage"
        extension = find_storage(host, self._config.storage, key=key)
        name = dead_letter_queue(self._settings.id, self._signal)
        self._storage = await extension.queue(name, max_size_bytes=self._config.max_size, when_full="drop_oldest")

    async def close(self) -> None:
        """Finish what was begun and close the store."""
        if self._storage is not None:
            storage, self._storage = self._storage, None
            await storage.close()

    async def stored(self, wanted: LetterFilter, limit: int = 0) -> AsyncGenerator[StoredBatch, None]:
        """The letters that are meant, oldest first; ``limit`` 0: all of them. Raises OSError."""
        if self._storage is not None:
            async for stored in matching(self._storage, wanted, limit):
                yield stored

    async def read(self, key: int) -> Batch:
        """The batch of a letter. Raises KeyError, OSError."""
        if self._storage is None:
            raise OSError("the store of the dead letters is closed")
        return await self._storage.read(key)

    def remove(self, key: int) -> None:
        """Remove a letter."""
        if self._storage is not None:
            self._storage.ack(key)

    async def keep_parts(self, batch: Batch, parts: Sequence[LostPart]) -> None:
        """Keep the lost parts of the batch; returns when they are stored.

        If it is not known which items they are, the whole batch is kept once.
        """
        if self._callers_wait:
            parts = [part for part in parts if isinstance(part.error, PermanentError)]
        if not parts:
            return
        if not all(part.is_known for part in parts):
            await self.keep(batch, parts[0].reason, str(parts[0].error), sum(part.item_count for part in parts))
            return
        by_reason: dict[str, list[LostPart]] = {}
        for part in parts:
            by_reason.setdefault(part.reason, []).append(part)
        for reason, alike in by_reason.items():
            batches = [part.payload for part in alike if isinstance(part.payload, Batch)]
            rows = [part.rows for part in alike if part.rows is not None]
            if rows:
                is_lost = np.zeros(batch.item_count, np.bool_)
                is_lost[np.concatenate(rows)] = True
                batches.append(batch.select(is_lost))
            kept = batches[0] if len(batches) == 1 else type(batch).concat(batches)
            await self.keep(kept, reason, str(alike[0].error))

    async def keep(self, batch: Batch, reason: str, error: str, item_count: int | None = None) -> None:
        """Keep the batch; returns when it is stored. ``item_count``: how many of its items were lost, if not all."""
        stored = asyncio.Event()
        self._append(batch, reason, error, item_count, stored.set)
        await stored.wait()

    def keep_soon(self, batch: Batch, reason: str, error: str) -> None:
        """Begin to keep the batch, unless too much is being stored already."""
        if self._pending_bytes and self._pending_bytes + batch.size_bytes > _PENDING_MAX_BYTES:
            self._lose(batch.item_count, "storage_busy")
            return
        self._append(batch, reason, error, None, lambda: None)

    def _append(
        self, batch: Batch, reason: str, error: str, item_count: int | None, on_done: Callable[[], None]
    ) -> None:
        lost_count = batch.item_count if item_count is None else item_count
        size_bytes = batch.size_bytes
        storage = self._storage
        if storage is None or not self._make_room(storage, size_bytes):
            self._lose(lost_count, "storage_full" if storage is not None else "shutdown")
            on_done()
            return

        def on_stored(failure: OSError | None) -> None:
            self._pending_bytes -= size_bytes
            if failure is None:
                self._settings.telemetry.dead_lettered(self._signal, lost_count)
            else:
                self._lose(lost_count, "storage_failed", str(failure))
            on_done()

        self._pending_bytes += size_bytes
        labels = {
            "exporter": str(self._settings.id),
            "signal": str(self._signal),
            "reason": reason,
            "error": printable(error),
        }
        storage.append(batch, on_stored, labels)

    def _make_room(self, storage: QueueStorage, size_bytes: int) -> bool:
        """Remove the oldest letters while that can help. False: there is no room."""
        if size_bytes > self._config.max_size:
            return False
        while storage.totals.batch_count and storage.totals.size_bytes + size_bytes > self._config.max_size:
            evicted = storage.evict_oldest()
            if evicted is None:
                return False  # all of it is being stored at this moment
            self._lose(evicted.totals.item_count, "evicted")
        return storage.has_room(size_bytes)

    def _lose(self, item_count: int, reason: str, error: str = "") -> None:
        """Count items that the store does not have, or not any more."""
        self._count_lost(self._signal, reason, item_count)
        self._log.warning(
            "dead letters are lost", signal=str(self._signal), items=item_count, reason=reason, error=error
        )
