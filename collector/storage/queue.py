"""FileQueue: the batches of one queue in segment files. It decides what is written when; ``segment`` does it.

Everything in memory belongs to the event loop; one thread does the writing, in order. While it is busy, further batches
gather, and are then written and synced together (group commit), so that a slow disk costs latency and not throughput.
Reading is done by other threads, so it does not wait for a sync.

Memory: of a batch that waits on the disk there is one byte here, and an entry of its index while its segment is among
the first or the last few.
"""

import asyncio
import errno
from bisect import bisect_right
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Final

from collector.api import Clock, DamagedBatchError, Evicted, OnStored, StoredBatch, StoredTotals, WhenFull
from collector.model import Batch, Context
from collector.storage.commit import Acks, Append, Commit, complete_segment, report, save_acks
from collector.storage.damage import Damage
from collector.storage.records import (
    RECORD_HEADER_BYTES,
    DamagedRecordError,
    Entry,
    meta_of,
    new_marker,
    record_header_of,
    stored_batch,
)
from collector.storage.recovery import open_segments
from collector.storage.segment import Segment, is_out_of_space, segment_name
from collector.storage.worker import Worker

__all__ = ["FileQueue", "QueueLimits"]

SEGMENT_BYTES: Final = 64 * 1024 * 1024
_SEGMENT_BYTES_MIN: Final = 64 * 1024
_SEGMENTS_PER_QUEUE: Final = 8  # at least as many fit into the maximum size, so that room is made in small steps
_SEGMENT_KEYS_MAX: Final = 16 * 1024  # bounds the index of a segment
_LOADED_MAX: Final = 4  # complete segments whose index stays in memory although they are not read yet
_AHEAD_BYTES: Final = 4 * 1024 * 1024
_GROUP_BYTES: Final = 16 * 1024 * 1024
_GROUP_BATCHES: Final = 512
_ACKS_DELAY_S: Final = 0.01  # acknowledgements are written together; after a crash those of this time are repeated
_FULL_RETRY_S: Final = 1.0


@dataclass(frozen=True, slots=True)
class QueueLimits:
    """What bounds a queue."""

    max_size_bytes: int = 0
    """Largest size of its files; 0: no limit."""
    when_full: WhenFull = "reject_newest"

    @property
    def segment_bytes(self) -> int:
        """Size at which a segment is complete."""
        if not self.max_size_bytes:
            return SEGMENT_BYTES
        return min(SEGMENT_BYTES, max(self.max_size_bytes // _SEGMENTS_PER_QUEUE, _SEGMENT_BYTES_MIN))


class FileQueue:
    """A :class:`collector.api.QueueStorage` in a directory of its own."""

    def __init__(
        self,
        directory: Path,
        limits: QueueLimits,
        *,
        sync: bool,
        clock: Clock,
        readers: Executor,
        damage: Damage,
        on_close: Callable[[], None],
    ) -> None:
        """``sync``: whether a batch counts as stored only once it would survive a power failure."""
        self._directory, self._limits, self._sync, self._clock = directory, limits, sync, clock
        self._readers, self._damage, self._on_close = readers, damage, on_close
        self._loop = asyncio.get_running_loop()
        self._worker = Worker(f"storage {directory.name}")
        self._segments: list[Segment] = []
        self._active: Segment | None = None
        self._next_key = 0
        self._waiting: list[Append] = []
        self._waiting_bytes = 0
        self._writing: Commit | None = None
        self._write_is_due = False
        self._size_bytes = 0
        self._full_until_s = -1.0
        self._acks_timer: asyncio.TimerHandle | None = None
        self._unsaved: list[Segment] = []
        self._meta: tuple[Context | None, bytes] = (None, b"")
        self._is_closed = False
        self.commit_count = 0
        self.failed_commit_count = 0
        self.problem = ""
        """Why the last commit failed; empty if it did not."""

    async def open(self) -> None:
        """Find what is stored.

        Raises:
            OSError: the directory cannot be used.
        """
        recovered = await self._worker.run(partial(open_segments, self._directory, self._damage))
        self._segments = recovered.segments
        self._next_key = recovered.next_key
        self._size_bytes = sum(segment.size_bytes for segment in self._segments)
        self._unload_middle()

    @property
    def size_bytes(self) -> int:
        """Size of the files."""
        return self._size_bytes

    # See collector.api.QueueStorage for the following.

    @property
    def totals(self) -> StoredTotals:
        """See :class:`collector.api.QueueStorage`."""
        batches = [append.batch for append in self._waiting]
        if self._writing is not None:
            batches += [append.batch for append in self._writing.appends]
        return StoredTotals(
            len(batches) + sum(segment.batch_count for segment in self._segments),
            sum(batch.request_count for batch in batches) + sum(segment.request_count for segment in self._segments),
            sum(batch.item_count for batch in batches) + sum(segment.item_count for segment in self._segments),
            sum(batch.size_bytes for batch in batches) + sum(segment.body_bytes for segment in self._segments),
        )

    @property
    def lost_item_count(self) -> int:
        """See :class:`collector.api.QueueStorage`."""
        return self._damage.lost_item_count

    @property
    def drops_oldest(self) -> bool:
        """See :class:`collector.api.QueueStorage`."""
        return self._limits.when_full == "drop_oldest"

    def has_room(self, size_bytes: int) -> bool:
        """See :class:`collector.api.QueueStorage`."""
        if self._full_until_s >= 0 and self._clock.monotonic_s() < self._full_until_s:
            return False
        limit = self._limits.max_size_bytes
        return not limit or self._size_bytes + self._waiting_bytes + size_bytes <= limit

    def append(self, batch: Batch, on_stored: OnStored, labels: Mapping[str, str] | None = None) -> int:
        """See :class:`collector.api.QueueStorage`."""
        key = self._next_key
        self._next_key += 1
        if self._is_closed:
            self._loop.call_soon(on_stored, OSError(f"the queue {self._directory.name} is closed"))
            return key
        meta = self._meta_of(batch.context, labels)
        append = Append(key, batch, meta, on_stored, RECORD_HEADER_BYTES + len(meta) + batch.size_bytes)
        self._waiting.append(append)
        self._waiting_bytes += append.size_bytes
        if self._writing is None and not self._write_is_due:
            # In the next turn, so that what arrives in this one is part of the same commit.
            self._write_is_due = True
            self._loop.call_soon(self._write)
        return key

    async def after(self, key: int, count: int) -> Sequence[StoredBatch]:
        """See :class:`collector.api.QueueStorage`."""
        found: list[StoredBatch] = []
        for segment in list(self._segments):
            if segment.last_key <= key or not segment.batch_count or segment.is_deleted:
                continue
            entries = await self._entries_of(segment)
            rest = (entry for entry in entries.values() if entry.key > key)
            found += [stored_batch(entry) for entry in islice(rest, count - len(found))]
            if len(found) == count:
                break
        return found

    async def read(self, key: int) -> Batch:
        """See :class:`collector.api.QueueStorage`."""
        segment = self._segment_of(key)
        if segment is None:
            raise KeyError(key)
        entry = (await self._entries_of(segment))[key]
        return await asyncio.get_running_loop().run_in_executor(self._readers, self._read, segment, entry)

    async def _entries_of(self, segment: Segment) -> dict[int, Entry]:
        """The index of a segment, loaded if need be."""
        if segment.entries is None:
            found = await asyncio.get_running_loop().run_in_executor(self._readers, segment.read_entries)
            if segment.entries is None:  # nobody else has loaded it meanwhile
                return segment.load(found)
        return segment.entries

    def _read(self, segment: Segment, entry: Entry) -> Batch:
        try:
            return segment.read(entry)
        except DamagedRecordError as error:
            self._damage.record(segment.path, entry.offset, entry.end, str(error))
            raise DamagedBatchError(f"{segment.path} is damaged at {entry.offset}: {error}") from error
        except OSError as error:
            if error.errno != errno.EIO:
                raise
            self._damage.record(segment.path, entry.offset, entry.end, str(error))
            raise DamagedBatchError(f"{segment.path} cannot be read at {entry.offset}: {error}") from error

    def ack(self, key: int) -> None:
        """See :class:`collector.api.QueueStorage`."""
        segment = self._segment_of(key)
        if segment is None or self._is_closed:
            return
        if not segment.ack(key):
            return
        if len(segment.unsaved_acks) == 1:
            self._unsaved.append(segment)
        if not segment.batch_count and segment is not self._active:
            self._delete(segment)
        elif self._acks_timer is None:
            self._acks_timer = self._loop.call_later(_ACKS_DELAY_S, self._save_acks)

    def evict_oldest(self) -> Evicted | None:
        """See :class:`collector.api.QueueStorage`."""
        for segment in self._segments:
            is_written = self._writing is not None and self._writing.segment is segment
            if segment.batch_count and not is_written:
                evicted = Evicted(segment.last_key, segment.totals)
                if segment is self._active:
                    self._active = None
                self._delete(segment)
                return evicted
        return None

    async def close(self) -> None:
        """See :class:`collector.api.QueueStorage`."""
        if self._is_closed:
            return
        self._is_closed = True
        while self._waiting or self._writing is not None:
            self._write()
            await self._worker.run(_nothing)
        if self._acks_timer is not None:
            self._acks_timer.cancel()
        self._save_acks()
        active, self._active = self._active, None
        if active is not None and not active.batch_count:
            self._delete(active)
        elif active is not None:
            self._worker.submit(partial(complete_segment, active, _entries_in(active)), _ignore)
        for segment in self._segments:
            self._worker.submit(segment.close, _ignore)
        await self._worker.close()
        self._on_close()

    # Writing.

    def _write(self) -> None:
        """Let the thread write what waits, unless it is writing."""
        self._write_is_due = False
        if self._writing is not None or not self._waiting:
            return
        appends, size_bytes = self._next_group()
        active, complete = self._active, None
        if active is not None and self._is_complete(active, size_bytes):
            active, complete = None, active
        is_new = active is None
        if active is None:
            first_key = appends[0].key
            marker = new_marker()
            path = self._directory / segment_name(first_key, marker)
            active = Segment(path, first_key, marker, first_key, min(_AHEAD_BYTES, self._limits.segment_bytes))
        self._writing = write = self._prepare(appends, size_bytes, active, is_new=is_new, complete=complete)
        self._active = active
        self._worker.submit(write.run, self._written)

    def _next_group(self) -> tuple[list[Append], int]:
        """What is written next, and its size."""
        size_bytes = count = 0
        for append in self._waiting:
            if count == _GROUP_BATCHES or (count and size_bytes + append.size_bytes > _GROUP_BYTES):
                break
            count += 1
            size_bytes += append.size_bytes
        group = self._waiting[:count]
        del self._waiting[:count]
        return group, size_bytes

    def _is_complete(self, segment: Segment, size_bytes: int) -> bool:
        """Whether a group of this size begins a new segment."""
        limit = self._limits.segment_bytes
        if segment.size_bytes + size_bytes > limit or self._next_key - segment.first_key > _SEGMENT_KEYS_MAX:
            return True
        return not segment.batch_count and segment.size_bytes > limit // 2  # all of it is settled: give the room back

    def _prepare(
        self, appends: Sequence[Append], size_bytes: int, segment: Segment, *, is_new: bool, complete: Segment | None
    ) -> Commit:
        now = self._clock.time_unix_nano()
        offset = place = segment.size_bytes
        entries: list[Entry] = []
        buffers: list[bytes] = []
        for append in appends:
            batch = append.batch
            entry = Entry(append.key, place, batch.size_bytes, batch.item_count, batch.request_count, now, append.meta)
            entries.append(entry)
            buffers += (record_header_of(batch, append.key, now, append.meta, segment.marker), append.meta, batch.wire)
            place = entry.end
        complete_entries = [] if complete is None else _entries_in(complete)
        return Commit(
            appends,
            segment,
            is_new,
            complete,
            complete_entries,
            entries,
            buffers,
            size_bytes,
            offset,
            self._sync,
            self._take_acks(),
        )

    def _written(self, outcome: Exception | None) -> None:
        write = self._writing
        assert write is not None
        self._writing = None
        segment = write.segment
        self._waiting_bytes -= write.size_bytes
        if write.complete is not None:
            self._retire(write.complete)
        if isinstance(outcome, Exception):
            self._fail(write, outcome)
        else:
            self.commit_count += 1
            self.problem = ""
            self._full_until_s = -1.0
            if write.is_new:
                self._segments.append(segment)
                self._size_bytes += segment.size_bytes
            self._size_bytes += write.size_bytes
            segment.add(write.entries)
            report(write.appends, None)
        self._write()

    def _fail(self, write: Commit, error: Exception) -> None:
        """Report that a group could not be written. New batches are refused for a while."""
        self.failed_commit_count += 1
        self._full_until_s = self._clock.monotonic_s() + _FULL_RETRY_S
        if write.is_new:
            self._active = None
            self._worker.submit(write.segment.delete, _ignore)
        elif not (isinstance(error, OSError) and is_out_of_space(error)):
            # What the file system makes of the file after another error is not known: leave it alone from now on.
            self._active = None
            self._worker.submit(write.segment.close, _ignore)
        problem = error if isinstance(error, OSError) else OSError(f"the queue cannot be written: {error}")
        self.problem = str(problem)
        report(write.appends, problem)

    def _retire(self, segment: Segment) -> None:
        """A segment is complete: nothing is appended to it any more."""
        if segment.is_deleted:  # all of it was settled meanwhile
            return
        if not segment.batch_count:
            self._delete(segment)
        else:
            self._unload_middle()

    def _unload_middle(self) -> None:
        """Forget the index of complete segments that are neither read nor written for some time."""
        loaded = [segment for segment in self._segments if segment.has_footer and segment.entries is not None]
        for segment in loaded[_LOADED_MAX:]:
            segment.entries = None

    def _delete(self, segment: Segment) -> None:
        segment.is_deleted = True
        self._segments.remove(segment)
        self._size_bytes -= segment.size_bytes
        self._full_until_s = -1.0
        self._worker.submit(segment.delete, _ignore)

    # Acknowledgements.

    def _save_acks(self) -> None:
        """Save them now, because nothing was written meanwhile."""
        self._acks_timer = None
        if self._unsaved:
            self._worker.submit(partial(save_acks, self._take_acks()), _ignore)

    def _take_acks(self) -> list[Acks]:
        """What is to be saved next."""
        segments, self._unsaved = self._unsaved, []
        acks = [(segment, segment.unsaved_acks) for segment in segments if not segment.is_deleted]
        for segment in segments:
            segment.unsaved_acks = []
        return acks

    def _segment_of(self, key: int) -> Segment | None:
        place = bisect_right(self._segments, key, key=_first_key) - 1
        return self._segments[place] if place >= 0 else None

    def _meta_of(self, context: Context, labels: Mapping[str, str] | None) -> bytes:
        if labels:
            return meta_of(context, labels)
        if context is not self._meta[0]:
            self._meta = (context, meta_of(context, None))
        return self._meta[1]


def _first_key(segment: Segment) -> int:
    return segment.first_key


def _entries_in(segment: Segment) -> list[Entry]:
    return list(segment.entries.values()) if segment.entries else []


def _nothing() -> None:
    """What ``close`` waits for."""


def _ignore(outcome: object) -> None:
    """Of an operation whose failure costs nothing but a repetition."""
