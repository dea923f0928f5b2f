"""A file that is written in whole records and replaced by a new one when it becomes too large.

Old files are named ``name-2026-01-31T23-59-59.123.ext``, as by lumberjack, which the Collector uses. Rotation is a
rename, so a reader sees either the complete old file or the new one, and no record is lost or duplicated.

A file that is deleted, renamed or replaced from outside (by logrotate, for example) is left alone, and the next record
is written to a new one at the path. After each write it is checked that the file still has a name, so that a record in
a file that was deleted meanwhile is written again.
"""

import errno
import os
import re
import stat
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from collector.api import Clock
from exporters.file.config import RotationConfig

__all__ = ["RotatingFile"]

_STAMP: Final = "%Y-%m-%dT%H-%M-%S"
_STAMP_PATTERN: Final = re.compile(r"^(\d{4}-\d\d-\d\dT\d\d-\d\d-\d\d)\.\d{3}$")
_DAY_S: Final = 24 * 3600
_FILE_MODE: Final = 0o600  # as lumberjack and fileexporter: telemetry may be confidential


class RotatingFile:
    """See the module. Not safe for use from several threads at a time.

    ``keep`` preserves the content that the file has when it is opened; ``directory_mode`` is the mode of missing
    directories, which are created unless it is None.
    """

    def __init__(
        self, path: str, rotation: RotationConfig | None, clock: Clock, *, keep: bool, directory_mode: int | None
    ) -> None:
        self._path = Path(path)
        self._rotation = rotation
        self._max_bytes = rotation.max_megabytes * 1024 * 1024 if rotation else 0
        self._clock = clock
        self._keep = keep
        self._directory_mode = directory_mode
        self._descriptor = -1
        self._size_bytes = 0
        self._is_named = False

    def keep_existing(self) -> None:
        """Preserve the content that the file has when it is opened."""
        self._keep = True

    def open(self) -> None:
        """Open the file. Raises OSError if it cannot be written."""
        self._create(truncate=not self._keep)

    def close(self) -> None:
        """Close the file; safe to call twice."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def write(self, record: bytes) -> None:
        """Write all of the record, or nothing.

        Raises:
            OSError: nothing was written (disk full, file system gone), or only to a file that has been deleted.
        """
        self._check_path()
        if self._descriptor < 0:  # moved or deleted, or the last rotation failed after closing the file
            self._create(truncate=False)
        if self._max_bytes and self._size_bytes and self._size_bytes + len(record) > self._max_bytes:
            self._rotate()
        try:
            view = memoryview(record)
            while view:
                view = view[os.write(self._descriptor, view) :]
        except OSError:
            with suppress(OSError):  # devices and pipes cannot be truncated
                os.ftruncate(self._descriptor, self._size_bytes)
            raise
        self._size_bytes += len(record)
        if self._is_named and not os.fstat(self._descriptor).st_nlink:
            raise FileNotFoundError(errno.ENOENT, "the file was deleted while it was written")

    def _create(self, *, truncate: bool) -> None:
        if self._directory_mode is not None:
            self._path.parent.mkdir(self._directory_mode, parents=True, exist_ok=True)
        self._open(truncate=truncate)

    def _open(self, *, truncate: bool) -> None:
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | (os.O_TRUNC if truncate else 0)
        self._descriptor = os.open(self._path, flags, _FILE_MODE)
        status = os.fstat(self._descriptor)
        self._size_bytes = status.st_size
        self._is_named = stat.S_ISREG(status.st_mode) and status.st_nlink > 0

    def _check_path(self) -> None:
        """Close the open file if the path no longer leads to it; otherwise note its size, which others may change."""
        if self._descriptor < 0:
            return
        own = os.fstat(self._descriptor)
        self._size_bytes = own.st_size
        try:
            is_moved = not os.path.samestat(own, self._path.stat())
        except (FileNotFoundError, NotADirectoryError):
            is_moved = True
        except OSError:  # unknown, for example because the directory may not be searched any more
            is_moved = False
        if is_moved:
            self.close()

    def _rotate(self) -> None:
        backup = self._free_name()
        with suppress(FileNotFoundError):  # the file was removed: nothing to keep
            self._path.rename(backup)
        self.close()
        try:
            self._open(truncate=False)
        except OSError:
            with suppress(FileNotFoundError):
                backup.rename(self._path)  # the next write opens it again and continues it
            raise
        self._remove_old()

    def _free_name(self) -> Path:
        now_s, nanos = divmod(self._clock.time_unix_nano(), 1_000_000_000)
        millis = nanos // 1_000_000
        localtime = self._rotation is not None and self._rotation.localtime
        while True:
            moment = datetime.fromtimestamp(now_s + millis // 1000, None if localtime else UTC)
            name = f"{self._path.stem}-{moment.strftime(_STAMP)}.{millis % 1000:03}{self._path.suffix}"
            if not (candidate := self._path.with_name(name)).exists():
                return candidate
            millis += 1

    def _remove_old(self) -> None:
        if self._rotation is None:
            return
        backups = sorted(self._backups(), reverse=True)  # newest first: the stamp sorts as text
        kept = self._rotation.max_backups or len(backups)
        oldest = ""
        if self._rotation.max_days:
            limit_s = self._clock.time_unix_nano() / 1e9 - self._rotation.max_days * _DAY_S
            oldest = datetime.fromtimestamp(limit_s, None if self._rotation.localtime else UTC).strftime(_STAMP)
        for index, (stamp, path) in enumerate(backups):
            if index >= kept or stamp < oldest:
                path.unlink(missing_ok=True)

    def _backups(self) -> list[tuple[str, Path]]:
        backups = []
        prefix, suffix = f"{self._path.stem}-", self._path.suffix
        for path in self._path.parent.iterdir():
            if path.name.startswith(prefix) and path.name.endswith(suffix):
                stamp = path.name[len(prefix) : len(path.name) - len(suffix)]
                if _STAMP_PATTERN.match(stamp):
                    backups.append((stamp, path))
        return backups
