"""Which files there are, which of them have something new, and what that is. It blocks: it runs in a thread."""

import os
import resource
import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from collector.log_operators import Split, Splitter
from receivers.file_log.attributes import file_attributes
from receivers.file_log.config import FileLogConfig
from receivers.file_log.finder import Finder, Found
from receivers.file_log.header import HeaderReader
from receivers.file_log.tail import Tail, digest_of

__all__ = ["Follower", "Portion"]

_ROUND_BYTES: Final = 1024 * 1024  # that are read before the pipeline gets them: more does not fit into the caches
_READ_BYTES: Final = 1024 * 1024
_HOT_S: Final = 30.0  # for so long after new bytes, a file is checked in every poll, and kept open
_SEARCH_SHARE: Final = 0.005  # of the time of a processor core is spent on searches for files, and checks of idle ones
_SEARCH_MAX_S: Final = 10.0
_REMEMBERED_SEARCHES: Final = 300
_REMEMBERED_MAX: Final = 10_000
_COMPARED_BYTES: Final = 256 * 1024


@dataclass(frozen=True, slots=True)
class Portion:
    """Entries of one file."""

    tail: Tail
    split: Split
    before: tuple[int, int, bytes]
    """Where the file was before. See :attr:`Tail.place`."""
    offset: int
    """Where the bytes that were split begin in the file."""
    numbers: NDArray[np.int64]
    """int64[n]: the number of each entry in the file, from 1."""


class Follower:
    """Follows files over rotations. Not for two threads at a time."""

    def __init__(
        self, config: FileLogConfig, header: HeaderReader | None, on_error: Callable[[str, str], None]
    ) -> None:
        """``on_error`` gets a reason and a path. It is called in the thread."""
        self._config, self._header, self._on_error = config, header, on_error
        self._splitter = Splitter(
            config.multiline,
            encoding=config.encoding,
            trim=config,
            max_log_size=config.max_log_size,
            keeps_empty=config.include_file_record_number,
        )
        self._max_read = max(_READ_BYTES, config.max_log_size + 64 * 1024)
        self._finder = Finder(
            config.include,
            config.exclude,
            config.exclude_older_than,
            config.ordering_criteria,
            lambda error: on_error("unreadable", str(error.filename or "")),
        )
        self.tails: dict[tuple[int, int], Tail] = {}
        self.gone: list[Tail] = []
        """Files that have vanished or whose content was replaced, the latest last: their copies may appear."""
        self.open_count = 0
        """How many files were open after the last search."""
        limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
        self._max_open = min(config.max_concurrent_files, max(limit // 2, 1))
        self._hot: dict[Tail, None] = {}
        self._next_search_s = 0.0
        self._starts_at_end = config.start_at == "end"

    def restore(self, tails: Iterable[Tail], *, knows_all: bool) -> None:
        """Continue with files of an earlier run. ``knows_all``: files that are not among them are new."""
        for tail in tails:
            tail.is_gzip = self._is_gzip(tail.path)
            tail.read_size = self._config.initial_buffer_size
            self.tails[tail.key] = tail
        self._starts_at_end = self._starts_at_end and not knows_all

    def poll(self) -> list[Tail]:
        """The files with something to read."""
        now = time.monotonic()
        finds_rotation = self._check_hot(now)
        if finds_rotation or now >= self._next_search_s:
            self._search(now)
        return self._ready(now)

    def read(self, tails: deque[Tail]) -> list[Portion]:
        """What the first of the files have to give, up to about 1 MiB; those with more are put in again at the end."""
        portions: list[Portion] = []
        size = 0
        while tails:
            tail = tails.popleft()
            portion = self._read(tail)
            if portion is not None:
                if tail.has_more:
                    tails.append(tail)
                portions.append(portion)
                size += len(portion.split.text)
                if size >= _ROUND_BYTES:
                    break
        return portions

    def delete_read(self, tails: Iterable[Tail]) -> None:
        """Delete files of which everything has been accepted."""
        for tail in tails:
            try:
                if tail.has_more or tail.is_partial or os.fstat(tail.open()).st_size != tail.stamp[0]:
                    continue
                if not tail.offset or tail.committed[0] != tail.offset:
                    continue
                Path(tail.path).unlink()
                self._forget(tail)
            except OSError as error:
                self._failed(tail, "undeletable", error)

    def close(self) -> None:
        """Close all files."""
        for tail in self.tails.values():
            tail.close()
        self._hot.clear()

    # Which files there are.

    def _check_hot(self, now: float) -> bool:
        """Checks files that were written to lately. Whether a search must follow, as one has been moved or deleted."""
        finds_rotation = False
        for tail in list(self._hot):
            try:
                found = os.stat(tail.path)  # noqa: PTH116 - Path is several times slower
                is_here = (found.st_dev, found.st_ino) == tail.key
            except OSError:
                is_here = False
            if not is_here:
                if not tail.missing_count:
                    finds_rotation = True
                if tail.fd < 0:
                    self._hot.pop(tail)
                    continue
                found = os.fstat(tail.fd)
            self._observe(tail, found, now)
            idle_s = now - tail.changed_s
            if idle_s > _HOT_S and not tail.has_more and not tail.is_partial:
                self._hot.pop(tail)
        return finds_rotation

    def _observe(self, tail: Tail, found: os.stat_result, now: float) -> None:
        stamp = (found.st_size, found.st_mtime_ns)
        if stamp == tail.stamp:
            return
        try:
            if tail.stamp != (-1, -1) or tail.offset:
                self._check_content(tail, found)
            if tail.head_size < self._config.fingerprint_size and found.st_size > tail.head_size:
                tail.identify(self._config.fingerprint_size)
        except OSError as error:
            self._failed(tail, "unreadable", error)
            return
        tail.stamp = stamp
        tail.has_failed = False
        tail.changed_s = now
        tail.has_more = True
        self._hot[tail] = None

    def _check_content(self, tail: Tail, found: os.stat_result) -> None:
        """Begins anew with a file that has been cut off or rewritten."""
        is_shorter = not tail.is_gzip and found.st_size < tail.offset
        if is_shorter or not tail.is_same():
            old = Tail(tail.path, *tail.key, head_size=tail.head_size, digest=tail.digest, header=tail.header)
            old.moved_to(*tail.place)
            old.committed = tail.committed
            self.gone.append(old)
            tail.restart()

    def _search(self, now: float) -> None:
        began_s = time.thread_time()
        seen: set[tuple[int, int]] = set()
        new: list[Found] = []
        for found in self._finder.find():
            key = (found.stat.st_dev, found.stat.st_ino)
            if key in seen:
                continue
            seen.add(key)
            tail = self.tails.get(key)
            if tail is None:
                new.append(found)
                continue
            tail.missing_count = 0
            if tail.path != found.path:
                tail.path, tail.attributes = found.path, {}
            self._observe(tail, found.stat, now)
        if len(seen) - len(new) != len(self.tails):
            for key in [key for key in self.tails if key not in seen]:
                tail = self.tails[key]
                tail.missing_count += 1
                if tail.fd >= 0:
                    self._observe(tail, os.fstat(tail.fd), now)
                is_being_read = tail.fd >= 0 and (tail.has_more or tail.is_partial or os.fstat(tail.fd).st_nlink)
                if not is_being_read:
                    self._forget(tail)
        self._next_search_s = now + min((time.thread_time() - began_s) / _SEARCH_SHARE, _SEARCH_MAX_S)
        self._meet(new, now)
        for tail in self.gone:
            tail.missing_count += 1
        remembered = _REMEMBERED_SEARCHES + self._config.polls_to_archive
        self.gone = [tail for tail in self.gone if tail.missing_count <= remembered][-_REMEMBERED_MAX:]
        self._starts_at_end = False
        self._close_idle()

    def _close_idle(self) -> None:
        """Closes files if too many are open, those first that have been idle for the longest time."""
        opened = [tail for tail in self.tails.values() if tail.fd >= 0]
        self.open_count = len(opened)
        if len(opened) > self._max_open:
            opened.sort(key=lambda tail: tail.changed_s)
            for tail in opened[: len(opened) - self._max_open]:
                tail.close()

    def _forget(self, tail: Tail) -> None:
        tail.close()
        self._hot.pop(tail, None)
        if self.tails.pop(tail.key, None) is not None:
            self.gone.append(tail)

    def _meet(self, new: Sequence[Found], now: float) -> None:
        """Files that were not there in the last search."""
        if not new:
            return
        index: dict[tuple[int, bytes], list[Tail]] = {}
        for known in (*reversed(self.gone), *self.tails.values()):
            if known.head_size and known.twin is None:
                index.setdefault((known.head_size, known.digest), []).append(known)
        sizes = sorted({size for size, _ in index}, reverse=True)
        for found in new:
            key = (found.stat.st_dev, found.stat.st_ino)
            tail = Tail(found.path, *key, is_gzip=self._is_gzip(found.path))
            tail.read_size = self._config.initial_buffer_size
            self.tails[key] = tail
            if len(self.tails) % 256 == 0:
                self._close_idle()  # thousands may be new at once
            try:
                head = tail.identify(self._config.fingerprint_size) if found.stat.st_size else b""
                candidates = [
                    known
                    for size in sizes
                    if size <= len(head)
                    for known in index.get((size, digest_of(head[:size])), ())
                ]
                self._begin(tail, candidates)
            except OSError as error:
                self._failed(tail, "unreadable", error)
                self.tails.pop(key)
                tail.close()
                continue
            self._observe(tail, found.stat, now)

    def _begin(self, tail: Tail, candidates: Sequence[Tail]) -> None:
        """Sets where reading a new file begins."""
        for known in candidates:
            if self.tails.get(known.key) is known:
                tail.twin = known
                return
            if self._has_content_of(tail, known):
                tail.continue_from(known)
                self.gone.remove(known)
                return
        if self._starts_at_end:
            tail.skip_to_end()
            found = os.fstat(tail.open())
            tail.stamp = (found.st_size, found.st_mtime_ns)

    @staticmethod
    def _has_content_of(tail: Tail, known: Tail) -> bool:
        size = len(known.tail)
        return not known.offset or tail.read_at(known.offset - size, size) == known.tail

    def _is_gzip(self, path: str) -> bool:
        return self._config.compression == "gzip" or (self._config.compression == "auto" and path.endswith(".gz"))

    # What they have.

    def _ready(self, now: float) -> list[Tail]:
        """The files that are worth an attempt to read."""
        flush_s = self._config.force_flush_period
        ready: list[Tail] = []
        for tail in list(self._hot):
            if tail.twin is not None:
                self._compare(tail)
            is_due = tail.is_partial and flush_s and now - tail.changed_s >= flush_s
            if tail.twin is None and (tail.has_more or is_due):
                ready.append(tail)
        size = self._config.max_concurrent_files
        if self._config.max_batches and len(ready) > size * self._config.max_batches:
            ready.sort(key=lambda tail: tail.changed_s)  # those that have waited longest come first
            ready = list(islice(ready, size * self._config.max_batches))
        return ready

    def _compare(self, tail: Tail) -> None:
        """Finds out whether a file with a known beginning is a copy of the known one, which is not read again."""
        known = tail.twin
        assert known is not None
        try:
            if self.tails.get(known.key) is not known or known.offset < tail.same_size:
                tail.twin = None  # the known one has been deleted or cut off: the copy is what is left
                for old in (known, *reversed(self.gone)):
                    if old.digest == digest_of(tail.read_at(0, old.head_size)) and self._has_content_of(tail, old):
                        tail.continue_from(old)
                        break
                return
            while True:
                size = min(_COMPARED_BYTES, known.offset - tail.same_size)
                ours = tail.read_at(tail.same_size, size)
                if ours != known.read_at(tail.same_size, len(ours)):
                    tail.twin = None  # they are two files, which begin alike
                    return
                tail.same_size += len(ours)
                if len(ours) < size or not size:
                    break
            if not known.has_more and not known.is_partial and tail.read_at(tail.same_size, 1):
                tail.twin = None
        except OSError as error:
            self._failed(tail, "unreadable", error)

    def _read(self, tail: Tail) -> Portion | None:
        config = self._config
        try:
            if config.acquire_fs_lock and not tail.lock():
                return None
            try:
                return self._split(tail)
            finally:
                if config.acquire_fs_lock:
                    tail.unlock()
        except OSError as error:
            self._failed(tail, "unreadable", error)
            return None

    def _split(self, tail: Tail) -> Portion | None:
        config = self._config
        while True:
            size = min(max(tail.read_size, 1), self._max_read)
            data = tail.read_at(tail.offset, size)
            is_full = len(data) == size
            if is_full:
                tail.read_size = min(2 * size, self._max_read)
            is_due = not is_full and (config.delete_after_read or self._is_due(tail, len(data)))
            skipped = 0
            if self._header is not None and tail.header is None:
                made = self._header.read(data, is_end=is_due)
                if made is None:
                    if is_full and size < self._max_read:
                        continue
                    tail.has_more, tail.is_partial = False, bool(data)
                    return None
                skipped, tail.header = made
                data_after = data[skipped:]
            else:
                data_after = data
            split = self._splitter.split(data_after, is_end=is_due)
            if not is_full or skipped or split.consumed or size == self._max_read:
                break  # otherwise, the entry is longer
        before, offset = tail.place, tail.offset + skipped
        count = len(split.starts)
        numbers = np.arange(tail.record_count + 1, tail.record_count + 1 + count)
        if config.include_file_record_number:  # empty lines count, although they are not entries
            full = split.starts < split.ends
            numbers = numbers[full]
            split = Split(split.text, split.starts[full], split.ends[full], split.offsets[full], split.consumed)
        consumed = skipped + split.consumed
        tail.advance(data, consumed, count)
        tail.has_more = is_full
        tail.is_partial = not is_full and consumed < len(data)
        if not tail.attributes:
            tail.attributes = file_attributes(tail, config)
        return Portion(tail, split, before, offset, numbers) if consumed else None

    def _is_due(self, tail: Tail, size: int) -> bool:
        """Whether an incomplete entry was there before, and nothing has followed, also not since the last check."""
        flush_s = self._config.force_flush_period
        if not flush_s or tail.has_more or not tail.is_partial or time.monotonic() - tail.changed_s < flush_s:
            return False
        return tail.is_gzip or tail.offset + size == tail.stamp[0]

    def _failed(self, tail: Tail, reason: str, error: OSError) -> None:
        if not tail.has_failed:
            tail.has_failed = True
            self._on_error(reason if not isinstance(error, FileNotFoundError) else "vanished", tail.path)
        tail.has_more = False
        tail.is_partial = False
        tail.stamp = (-1, -1)  # the next check tries again
        tail.close()
        self._hot.pop(tail, None)
