"""One file that is read from where reading ended last, and what tells it from other files."""

import base64
import fcntl
import hashlib
import os
import zlib
from dataclasses import dataclass, field
from typing import Any, Final, Self

__all__ = ["Tail", "digest_of"]

_TAIL_BYTES: Final = 64  # in front of the offset: they tell whether a file is still the one that was read
_CHUNK_BYTES: Final = 256 * 1024


def digest_of(head: bytes) -> bytes:
    """What stands for the first bytes of a file."""
    return hashlib.blake2b(head, digest_size=16).digest()


@dataclass(slots=True, eq=False)
class Tail:
    """A file and how far it has been read. Its methods block."""

    path: str
    device: int
    inode: int
    is_gzip: bool = False
    offset: int = 0
    """How far it has been read; of a compressed file, in what it contains."""
    head_size: int = 0
    """How many of its first bytes ``digest`` stands for."""
    digest: bytes = b""
    tail: bytes = b""
    """The last bytes in front of the offset."""
    record_count: int = 0
    """How many entries it has had."""
    header: dict[str, Any] | None = None
    """The attributes of its header, if that has been read."""
    committed: tuple[int, int, bytes] = (0, 0, b"")
    """Offset, record count and tail up to which the pipeline has accepted the entries."""
    read_size: int = 0
    changed_s: float = 0.0
    """When it last had new bytes."""
    missing_count: int = 0
    """In how many searches it has not been found since."""
    twin: "Tail | None" = None
    """A file that it has been the copy of so far."""
    same_size: int = 0
    """How many of its bytes are those of its twin."""
    stamp: tuple[int, int] = (-1, -1)
    """Size and time of modification when it was last checked."""
    has_more: bool = False
    """Whether there may be bytes that no attempt to read has seen."""
    is_partial: bool = False
    """Whether an incomplete entry is at the end."""
    has_failed: bool = False
    """Whether the last attempt to read failed."""
    fd: int = -1
    attributes: dict[str, Any] = field(default_factory=dict)
    _reader: "_Gunzip | None" = None

    @property
    def key(self) -> tuple[int, int]:
        """What the file system identifies the file by."""
        return self.device, self.inode

    def open(self) -> int:
        """The file descriptor. The file may be another one than expected: then the number of its inode differs.

        Raises:
            OSError: It cannot be opened, or is another file by now.
        """
        if self.fd < 0:
            fd = os.open(self.path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
            found = os.fstat(fd)
            if (found.st_dev, found.st_ino) != self.key:
                os.close(fd)
                raise FileNotFoundError(f"{self.path} is another file by now")
            self.fd = fd
        return self.fd

    def close(self) -> None:
        """Close it."""
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1
        self._reader = None

    def lock(self) -> bool:
        """Whether a shared lock could be had."""
        try:
            fcntl.flock(self.open(), fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True

    def unlock(self) -> None:
        """Give the lock back."""
        if self.fd >= 0:
            fcntl.flock(self.fd, fcntl.LOCK_UN)

    def read_at(self, offset: int, size: int) -> bytes:
        """Up to ``size`` bytes from a place; fewer only at the end.

        Raises:
            OSError: It cannot be read.
        """
        if self.is_gzip:
            fd = self.open()
            if self._reader is None or offset < self._reader.low:
                self._reader = _Gunzip(fd)
            return self._reader.read_at(offset, size)
        return os.pread(self.open(), size, offset)

    def identify(self, head_size: int) -> bytes:
        """Learn the first bytes, and return them."""
        head = self.read_at(0, head_size)
        self.head_size, self.digest = len(head), digest_of(head)
        return head

    def is_same(self) -> bool:
        """Whether the bytes in front of the offset, and at the beginning, are those that were read."""
        if self.tail and self.read_at(self.offset - len(self.tail), len(self.tail)) != self.tail:
            return False
        if self.offset > len(self.tail) or not self.head_size:
            return True  # a rewritten file would have to agree in the tail, at the same place
        return digest_of(self.read_at(0, self.head_size)) == self.digest

    def moved_to(self, offset: int, record_count: int, tail: bytes) -> None:
        """Reading ended there."""
        self.offset, self.record_count, self.tail = offset, record_count, tail

    def advance(self, data: bytes, consumed: int, record_count: int) -> None:
        """``consumed`` bytes of ``data``, which was read at the offset, have become entries."""
        tail = (self.tail + data[max(0, consumed - _TAIL_BYTES) : consumed])[-_TAIL_BYTES:]
        self.moved_to(self.offset + consumed, self.record_count + record_count, tail)

    def skip_to_end(self) -> None:
        """Begin at the end."""
        size = self._end()
        begin = max(0, size - _TAIL_BYTES)
        self.moved_to(size, 0, self.read_at(begin, size - begin))
        self.commit()

    @property
    def place(self) -> tuple[int, int, bytes]:
        """How far it has been read: offset, count of entries, last bytes."""
        return self.offset, self.record_count, self.tail

    def commit(self) -> None:
        """Everything that was read has been accepted."""
        self.committed = self.place

    def roll_back(self) -> None:
        """Read again what has not been accepted."""
        self.moved_to(*self.committed)

    def restart(self) -> None:
        """Read from the beginning: its content has been replaced."""
        self.moved_to(0, 0, b"")
        self.header = None
        self.head_size, self.digest, self._reader = 0, b"", None
        self.commit()

    def continue_from(self, other: "Tail") -> None:
        """It has the content of ``other``: read on where that ended."""
        self.moved_to(other.offset, other.record_count, other.tail)
        self.header = other.header
        self.committed = other.committed

    def _end(self) -> int:
        if not self.is_gzip:
            return os.fstat(self.open()).st_size
        at = 0
        while size := len(self.read_at(at, _CHUNK_BYTES)):
            at += size
        return at

    def saved(self) -> list[Any]:
        """Its state as values of JSON."""
        offset, record_count, tail = self.committed
        parts = (self.digest, tail)
        digest, last = (base64.b64encode(part).decode() for part in parts)
        return [self.path, self.device, self.inode, offset, self.head_size, digest, last, record_count, self.header]

    @classmethod
    def restored(cls, saved: Any) -> Self:
        """The file of :meth:`saved`.

        Raises:
            ValueError: It is not of that form.
        """
        path, device, inode, offset, head_size, digest, tail, record_count, header = saved
        numbers = (device, inode, offset, head_size, record_count)
        if not isinstance(path, str) or not all(isinstance(number, int) for number in numbers):
            raise ValueError("not the state of a file")
        made = cls(path, device, inode, offset=offset, head_size=head_size, record_count=record_count)
        made.digest, made.tail = base64.b64decode(digest), base64.b64decode(tail)
        made.header = header if isinstance(header, dict) else None
        made.commit()
        return made


class _Gunzip:
    """The content of a compressed file, read forwards; what was read last is kept."""

    def __init__(self, fd: int) -> None:
        self._fd, self._at = fd, 0
        self._inflate: Any = zlib.decompressobj(31)
        self._kept = b""
        self.low = 0
        """Where what is kept begins; what is in front of it needs a new reader."""

    def read_at(self, offset: int, size: int) -> bytes:
        while self.low + len(self._kept) < offset + size:
            more = self._more()
            if not more:
                break
            self._kept += more
            begin = offset - self.low - _TAIL_BYTES
            if begin > _CHUNK_BYTES:
                self._kept, self.low = self._kept[begin:], self.low + begin
        begin = offset - self.low
        return self._kept[begin : begin + size]

    def _more(self) -> bytes:
        """Further content; nothing at the end, or at what has not been written yet or is damaged."""
        while True:
            if self._inflate.eof:
                rest = self._inflate.unused_data
                self._inflate = zlib.decompressobj(31)
            else:
                rest = self._inflate.unconsumed_tail
            if not rest:
                rest = os.pread(self._fd, 64 * 1024, self._at)
                self._at += len(rest)
            if not rest:
                return b""
            try:
                made: bytes = self._inflate.decompress(rest, _CHUNK_BYTES)
            except zlib.error as error:
                raise OSError(f"it is not compressed with gzip, or is damaged: {error}") from None
            if made:
                return made
