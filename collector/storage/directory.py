"""The directory of a storage: its layout, its names, and the lock that gives it to one process at a time."""

import contextlib
import errno
import fcntl
import os
import re
from pathlib import Path
from typing import Final

__all__ = ["QUEUES", "STATES", "DirectoryLock", "file_name", "make_directory", "name_of", "prepare", "sync_directory"]

QUEUES: Final = "queues"
STATES: Final = "states"
_LOCK: Final = "tailrace.lock"
_UNSAFE: Final = re.compile(r"[^A-Za-z0-9._-]")
_ESCAPED: Final = re.compile(r"(?:~[0-9A-F]{4})+")
_NAME_MAX_CHARS: Final = 200  # file systems allow 255 bytes, and suffixes follow


def file_name(name: str) -> str:
    """A file name for the name of a queue or state: what is not safe becomes ``~`` and its UTF-16 code in hexadecimal.

    >>> file_name("otlp_grpc/a traces")
    'otlp_grpc~002Fa~0020traces'

    Raises:
        OSError: the name is too long.

    Source: the Collector's file storage escapes names of components in this way.
    """
    escaped = _UNSAFE.sub(_escape, name)
    if escaped in {"", ".", ".."}:
        escaped = escaped.replace(".", "~002E") or "~0000"
    if len(escaped) > _NAME_MAX_CHARS:
        raise OSError(
            errno.ENAMETOOLONG, f"the name {name[:40]!r}… is too long for a file; use a shorter component name"
        )
    return escaped


def name_of(escaped: str) -> str:
    """The name that became this file name.

    >>> name_of("otlp_grpc~002Fa~0020traces")
    'otlp_grpc/a traces'
    """
    return _ESCAPED.sub(_unescape, escaped)


def _escape(found: re.Match[str]) -> str:
    code = found.group().encode("utf-16-be", "surrogatepass").hex().upper()
    return "".join(f"~{code[place : place + 4]}" for place in range(0, len(code), 4))


def _unescape(found: re.Match[str]) -> str:
    return bytes.fromhex(found.group().replace("~", "")).decode("utf-16-be", "surrogatepass")


def prepare(directory: Path, *, create: bool, mode: int) -> None:
    """Make sure that the directory can be used (blocking).

    Raises:
        OSError: it cannot.
    """
    if create:
        directory.mkdir(mode=mode, parents=True, exist_ok=True)
    if not directory.exists():
        raise FileNotFoundError(
            errno.ENOENT, f"the directory {directory} does not exist; create it, or set create_directory: true"
        )
    if not directory.is_dir():
        raise NotADirectoryError(errno.ENOTDIR, f"{directory} is not a directory")
    for name in (QUEUES, STATES):
        make_directory(directory / name, mode)


def make_directory(path: Path, mode: int) -> None:
    """Create the directory unless it exists, and make sure that it survives a power failure (blocking)."""
    if not path.is_dir():
        path.mkdir(mode=mode, exist_ok=True)
        sync_directory(path.parent)


def sync_directory(path: Path) -> None:
    """Make sure that the names of new files in it survive a power failure (blocking)."""
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


class DirectoryLock:
    """Held while a process uses the directory. The kernel releases it when the process ends, in whatever way."""

    def __init__(self, directory: Path) -> None:
        self._path = directory / _LOCK
        self._fd = -1

    def try_acquire(self) -> bool:
        """Take the lock and return True, or return False if another process has it (blocking).

        Raises:
            OSError: the file cannot be used.
        """
        fd = os.open(self._path, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(fd)
            return False
        except OSError:
            os.close(fd)
            raise
        self._fd = fd
        with contextlib.suppress(OSError):  # the disk may be full; the lock holds all the same
            os.ftruncate(fd, 0)
            os.pwrite(fd, str(os.getpid()).encode(), 0)
        return True

    def owner(self) -> str:
        """The process that has the lock, for messages."""
        with contextlib.suppress(OSError, ValueError):
            return f"process {int(self._path.read_text('ascii')[:20])}"
        return "another process"

    def release(self) -> None:
        """Give the lock back. Safe when it is not held."""
        if self._fd >= 0:
            fd, self._fd = self._fd, -1
            os.close(fd)
