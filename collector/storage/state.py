"""FileStateStore: one value in one file, replaced as a whole.

A new value is written beside the old one, synced, and then takes its name, so a crash leaves one of the two. The file
is a header (magic, version, size, CRC-32) and the value.
"""

import asyncio
import contextlib
import errno
import itertools
import os
import struct
import threading
from concurrent.futures import Executor
from pathlib import Path
from typing import Final

from collector.storage.damage import Damage
from collector.storage.directory import sync_directory
from collector.storage.records import crc32

__all__ = ["STATE_SUFFIX", "FileStateStore"]

STATE_SUFFIX: Final = ".state"
_HEADER: Final = struct.Struct("<8sHHIQ")
_MAGIC: Final = b"TRSTATE\n"
_VERSION: Final = 1
_FILE_MODE: Final = 0o600


class FileStateStore:
    """A :class:`collector.api.StateStore`."""

    def __init__(self, path: Path, executor: Executor, damage: Damage) -> None:
        self._path, self._executor, self._damage = path, executor, damage
        self._numbers = itertools.count(1)
        self._lock = threading.Lock()
        self._written = 0

    async def load(self) -> bytes | None:
        """See :class:`collector.api.StateStore`."""
        return await asyncio.get_running_loop().run_in_executor(self._executor, self._load)

    async def save(self, value: bytes) -> None:
        """See :class:`collector.api.StateStore`."""
        number = next(self._numbers)
        await asyncio.get_running_loop().run_in_executor(self._executor, self._save, value, number)

    def save_now(self, value: bytes) -> None:
        """See :class:`collector.api.StateStore`."""
        self._save(value, next(self._numbers))

    def discard(self) -> None:
        """See :class:`collector.api.StateStore`."""
        number = next(self._numbers)
        with self._lock:
            self._path.unlink(missing_ok=True)
            sync_directory(self._path.parent)
            self._written = number

    def _load(self) -> bytes | None:
        try:
            content = self._path.read_bytes()
        except FileNotFoundError:
            return None
        if len(content) < _HEADER.size or not content.startswith(_MAGIC):
            self._damage.whole_file(self._path, "the file does not begin like a saved state")
            return None
        _, version, _, crc, size_bytes = _HEADER.unpack_from(content)
        if version > _VERSION:
            raise OSError(
                errno.EINVAL,
                f"{self._path} was written by a newer release (version {version} of the format); move it away to start"
                " without it",
            )
        value = content[_HEADER.size :]
        if len(value) != size_bytes or crc32(value) != crc:
            self._damage.whole_file(self._path, "the checksum of the saved state is wrong")
            return None
        return value

    def _save(self, value: bytes, number: int) -> None:
        """Replace the file, unless a newer value was saved already (blocking)."""
        with self._lock:
            if number < self._written:
                return
            beside = self._path.with_name(self._path.name + ".new")
            header = _HEADER.pack(_MAGIC, _VERSION, _HEADER.size, crc32(value), len(value))
            try:
                fd = os.open(beside, os.O_CREAT | os.O_TRUNC | os.O_WRONLY | os.O_CLOEXEC, _FILE_MODE)
                with open(fd, "wb", buffering=0) as file:  # noqa: PTH123 - an open descriptor
                    for part in (header, value):
                        rest = memoryview(part)
                        while rest:
                            rest = rest[file.write(rest) :]
                    os.fsync(fd)
                beside.replace(self._path)
                sync_directory(self._path.parent)
            except OSError:
                with contextlib.suppress(OSError):
                    beside.unlink()
                raise
            self._written = number
