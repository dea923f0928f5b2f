"""One segment of a queue, and everything that is done with its files. Methods marked "blocking" touch the disk.

The file operations are those of ``os``, so that a test can replace them by ones that fail.
"""

import contextlib
import errno
import os
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from collector.api import StoredTotals
from collector.model import Batch
from collector.storage.directory import sync_directory
from collector.storage.records import (
    ACKED,
    HEADER_BYTES,
    MARKER_BYTES,
    TRAILER_BYTES,
    DamagedRecordError,
    Entry,
    Trailer,
    entries_of,
    footer_of,
    header_of,
    read_record,
    read_trailer,
    scan,
)

__all__ = ["ACKS_SUFFIX", "SEGMENT_SUFFIX", "Segment", "is_out_of_space", "parse_segment_name", "segment_name"]

SEGMENT_SUFFIX: Final = ".seg"
ACKS_SUFFIX: Final = ".acks"
_NAME: Final = re.compile(rf"([0-9]{{20}})-([0-9a-f]{{{2 * MARKER_BYTES}}})\{SEGMENT_SUFFIX}")
_FILE_MODE: Final = 0o600
_ONE_ACK: Final = bytes([ACKED])
_BUFFERS_MAX: Final = 1000  # of one write; IOV_MAX is 1024
_NOT_SUPPORTED: Final = frozenset({errno.EOPNOTSUPP, errno.EINVAL, errno.ENOSYS})
_OUT_OF_SPACE: Final = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})


def segment_name(first_key: int, marker: bytes) -> str:
    """The file name of a segment."""
    return f"{first_key:020d}-{marker.hex()}{SEGMENT_SUFFIX}"


def parse_segment_name(path: Path) -> tuple[int, bytes] | None:
    """First key and marker of a segment; None if this is the name of something else."""
    match = _NAME.fullmatch(path.name)
    return None if match is None else (int(match.group(1)), bytes.fromhex(match.group(2)))


@dataclass(slots=True, eq=False)
class Segment:
    """A segment file with its acknowledgements, as far as they are known in memory."""

    path: Path
    first_key: int
    marker: bytes
    last_key: int
    ahead_bytes: int = 4 * 1024 * 1024
    """Space is allocated in such steps, so that few commits change the file's size; that halves their cost on ext4."""
    size_bytes: int = HEADER_BYTES
    """Bytes of the header and the records."""
    has_footer: bool = False
    entries: dict[int, Entry] | None = field(default_factory=dict)
    """The records that are not acknowledged, by key; None: they are in the footer and have not been read."""
    acked: bytearray = field(default_factory=bytearray)
    """``ACKED`` at ``key - first_key`` of each record that is acknowledged."""
    batch_count: int = 0
    """Records that are not acknowledged; the following are their sums."""
    request_count: int = 0
    item_count: int = 0
    body_bytes: int = 0
    is_deleted: bool = False
    unsaved_acks: list[int] = field(default_factory=list)
    """Keys whose acknowledgement is not in the file yet."""
    _fd: int = -1
    _acks_fd: int = -1
    _allocated_bytes: int = 0
    _syncs_in_write: bool = True

    @property
    def totals(self) -> StoredTotals:
        """What is not acknowledged."""
        return StoredTotals(self.batch_count, self.request_count, self.item_count, self.body_bytes)

    @property
    def acks_path(self) -> Path:
        """The file of acknowledgements."""
        return self.path.with_suffix(ACKS_SUFFIX)

    # In memory.

    def add(self, entries: Iterable[Entry]) -> None:
        """Note records that were written."""
        assert self.entries is not None  # only complete segments are unloaded
        for entry in entries:
            self.entries[entry.key] = entry
            self._count(entry, 1)
            self.last_key, self.size_bytes = entry.key, entry.end

    def ack(self, key: int) -> bool:
        """Note that a record is settled. False: it is not one of those that are stored."""
        place = key - self.first_key
        if place < len(self.acked) and self.acked[place]:
            return False
        try:
            entry = self.loaded().pop(key, None)
        except OSError:  # the index cannot be read: the batch is settled all the same
            entry = None
        else:
            if entry is None:
                return False
        if place >= len(self.acked):
            self.acked.extend(bytes(place + 1 - len(self.acked)))
        self.acked[place] = ACKED
        self.unsaved_acks.append(key)
        if entry is not None:
            self._count(entry, -1)
        return True

    def _count(self, entry: Entry, sign: int) -> None:
        self.batch_count += sign
        self.request_count += sign * entry.request_count
        self.item_count += sign * entry.item_count
        self.body_bytes += sign * entry.body_size

    # Writing (blocking).

    def create(self) -> None:
        """Create the file, and make sure that it is found after a power failure."""
        self._fd = os.open(self.path, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, _FILE_MODE)
        try:
            _write_all(self._fd, [header_of(self.first_key)], 0, 0)
            sync_directory(self.path.parent)
        except OSError:
            self.close()
            with contextlib.suppress(OSError):
                self.path.unlink()
            raise

    def write(self, buffers: Sequence[bytes], size_bytes: int, offset: int, *, sync: bool) -> None:
        """Append the buffers at ``offset``; with ``sync`` they are on the disk when this returns.

        If it fails, the file is as long as before.
        """
        try:
            if offset + size_bytes > self._allocated_bytes:
                self._allocate(offset + size_bytes)
            if not sync:
                _write_all(self._fd, buffers, offset, 0)
            elif self._syncs_in_write:
                self._write_in_sync(buffers, offset)
            else:
                _write_all(self._fd, buffers, offset, 0)
                os.fdatasync(self._fd)
        except OSError:
            os.ftruncate(self._fd, offset)
            self._allocated_bytes = offset
            raise

    def _write_in_sync(self, buffers: Sequence[bytes], offset: int) -> None:
        """Write and sync in one call: the thread asks for the interpreter's lock once instead of twice."""
        try:
            _write_all(self._fd, buffers, offset, os.RWF_DSYNC)
        except OSError as error:
            if error.errno not in _NOT_SUPPORTED:
                raise
            self._syncs_in_write = False
            _write_all(self._fd, buffers, offset, 0)
            os.fdatasync(self._fd)

    def _allocate(self, end: int) -> None:
        ahead = -(-end // self.ahead_bytes) * self.ahead_bytes
        try:
            os.posix_fallocate(self._fd, 0, ahead)
        except OSError:  # there is not as much space, or the file system cannot do it: the write decides
            ahead = end
        self._allocated_bytes = ahead

    def seal(self, entries: Sequence[Entry]) -> None:
        """Complete the file with a footer of these records, so that the next start need not read all of it."""
        fd = self._fd if self._fd >= 0 else os.open(self.path, os.O_WRONLY | os.O_CLOEXEC)
        self._fd = -1
        try:
            footer = footer_of(entries)
            _write_all(fd, [footer], self.size_bytes, 0)
            os.ftruncate(fd, self.size_bytes + len(footer))
            self.has_footer = True
        finally:
            os.close(fd)

    def close(self) -> None:
        """Close the files."""
        fds, self._fd, self._acks_fd = (self._fd, self._acks_fd), -1, -1
        for fd in fds:
            if fd >= 0:
                os.close(fd)

    def save_acks(self, keys: Sequence[int]) -> None:
        """Write acknowledgements. They are not synced: after a power failure some batches are sent twice."""
        if self._acks_fd < 0:
            self._acks_fd = os.open(self.acks_path, os.O_CREAT | os.O_WRONLY | os.O_CLOEXEC, _FILE_MODE)
        if len(keys) == 1:  # as usual with one client
            os.pwrite(self._acks_fd, _ONE_ACK, keys[0] - self.first_key)
            return
        places = sorted(key - self.first_key for key in keys)
        start = 0
        for number, place in enumerate(places, 1):
            if number == len(places) or places[number] != place + 1:
                run = places[start:number]
                os.pwrite(self._acks_fd, bytes([ACKED]) * len(run), run[0])
                start = number

    def delete(self) -> None:
        """Delete the files. The acknowledgements go last: without them the records would come back."""
        self.close()
        for path in (self.path, self.acks_path):
            with contextlib.suppress(FileNotFoundError):
                path.unlink()

    # Reading (blocking).

    def loaded(self) -> dict[int, Entry]:
        """The records that are not acknowledged, by key; read from the file if need be, which is rare.

        Raises:
            OSError: the file cannot be read.
        """
        return self.entries if self.entries is not None else self.load(self.read_entries())

    def load(self, entries: Iterable[Entry]) -> dict[int, Entry]:
        """Use the entries that ``read_entries`` found."""
        self.entries = {entry.key: entry for entry in entries if not self.is_acked(entry.key)}
        return self.entries

    def read_entries(self) -> list[Entry]:
        """All records, from the footer, or if that is damaged from the whole file."""
        footer = self.read_footer()
        return scan(self.path.read_bytes(), self.marker).entries if footer is None else footer[1]

    def is_acked(self, key: int) -> bool:
        """Whether the record is settled."""
        place = key - self.first_key
        return place < len(self.acked) and self.acked[place] == ACKED

    def read_trailer(self) -> tuple[Trailer, int] | None:
        """The trailer and the size of the file; None if it has none that is intact."""
        with self.path.open("rb", buffering=0) as file:
            size_bytes = file.seek(0, os.SEEK_END)
            tail = os.pread(file.fileno(), TRAILER_BYTES, max(size_bytes - TRAILER_BYTES, 0))
        trailer = read_trailer(tail)
        return None if trailer is None or trailer.footer_size > size_bytes else (trailer, size_bytes)

    def read_footer(self) -> tuple[Trailer, list[Entry]] | None:
        """The trailer and all entries; None if the footer is missing or damaged."""
        found = self.read_trailer()
        if found is None:
            return None
        trailer, size_bytes = found
        try:
            return trailer, entries_of(self.read_bytes(size_bytes - trailer.footer_size, trailer.footer_size), trailer)
        except DamagedRecordError:
            return None

    def read(self, entry: Entry) -> Batch:
        """The batch of a record.

        Raises:
            DamagedRecordError: it is not what was written.
            OSError: it cannot be read.
        """
        return read_record(
            self.read_bytes(entry.offset, entry.end - entry.offset), entry._replace(offset=0), self.marker
        )

    def read_bytes(self, offset: int, size_bytes: int) -> bytes:
        """Bytes of the file; fewer if it is shorter."""
        with self.path.open("rb", buffering=0) as file:
            return os.pread(file.fileno(), size_bytes, offset)

    def load_acks(self) -> None:
        """Read the acknowledgements, if there are any."""
        with contextlib.suppress(FileNotFoundError):
            self.acked = bytearray(self.acks_path.read_bytes()[: self.last_key - self.first_key + 1])


def is_out_of_space(error: OSError) -> bool:
    """Whether the error means that there is no room, so that the file itself is as good as before."""
    return error.errno in _OUT_OF_SPACE


def _write_all(fd: int, buffers: Sequence[bytes], offset: int, flags: int) -> None:
    """Write the buffers, however many calls it takes."""
    for start in range(0, len(buffers), _BUFFERS_MAX):
        rest: list[bytes | memoryview] = list(buffers[start : start + _BUFFERS_MAX])
        while rest:
            written = os.pwritev(fd, rest, offset, flags)
            offset += written
            while rest and written >= len(rest[0]):
                written -= len(rest.pop(0))
            if rest and written:
                rest[0] = memoryview(rest[0])[written:]
