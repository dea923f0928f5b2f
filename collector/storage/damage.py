"""What is done about damaged files: the bad part is kept aside for an operator, counted and logged, and skipped."""

import contextlib
import os
from pathlib import Path
from typing import Any, Final

from collector.api import Counter

__all__ = ["CORRUPT_SUFFIX", "Damage"]

CORRUPT_SUFFIX: Final = ".corrupt"
_KEPT_FILES_MAX: Final = 32  # per queue, so that a failing disk is not filled with evidence
_KEPT_BYTES_MAX: Final = 16 * 1024 * 1024
_FILE_MODE: Final = 0o600


class Damage:
    """Keeps, counts and logs the damage of one queue or state. Its methods block, and may be called in any thread."""

    def __init__(self, name: str, log: Any, damaged_bytes: Counter) -> None:
        """``log`` needs a method ``error``."""
        self._name, self._log, self._damaged_bytes = name, log, damaged_bytes
        self.lost_item_count = 0
        """Items that opening has found to be lost."""

    def record(self, path: Path, start: int, end: int, problem: str) -> None:
        """Keep a copy of the bytes between ``start`` and ``end`` of a file, and report them."""
        aside = path.with_name(f"{path.name}.{start}{CORRUPT_SUFFIX}")
        with contextlib.suppress(OSError):
            if not aside.exists() and self._may_keep(path.parent):
                with path.open("rb", buffering=0) as file:
                    damaged = os.pread(file.fileno(), min(end - start, _KEPT_BYTES_MAX), start)
                _write(aside, damaged)
        self._report(path, end - start, problem)

    def whole_file(self, path: Path, problem: str) -> None:
        """Move a file aside of which nothing can be used, and report it."""
        size_bytes = 0
        with contextlib.suppress(OSError):
            size_bytes = path.stat().st_size
            if self._may_keep(path.parent):
                path.rename(path.with_name(path.name + CORRUPT_SUFFIX))
            else:
                path.unlink()
        self._report(path, size_bytes, problem)

    def lose_items(self, item_count: int) -> None:
        """Note how many items were lost, as far as that is known."""
        if item_count:
            self.lost_item_count += item_count
            self._log.error("stored data is damaged and lost", storage=self._name, items=item_count)

    def unfinished(self, path: Path, size_bytes: int) -> None:
        """Report the remains of a write that a crash interrupted: nobody was told that it had succeeded."""
        self._log.warning(
            "the remains of an unfinished write are discarded", storage=self._name, file=path.name, bytes=size_bytes
        )

    def not_usable(self, path: Path, problem: str) -> None:
        """Report a file that is left as it is."""
        self._log.error(
            "a file of the storage cannot be used; it is left as it is and its content is not delivered",
            storage=self._name,
            file=str(path),
            problem=problem,
        )

    def _report(self, path: Path, size_bytes: int, problem: str) -> None:
        self._damaged_bytes.add(size_bytes, storage=self._name)
        self._log.error(
            "a file of the storage is damaged; what is intact is delivered, the rest is kept aside as *.corrupt",
            storage=self._name,
            file=str(path),
            bytes=size_bytes,
            problem=problem,
        )

    @staticmethod
    def _may_keep(directory: Path) -> bool:
        return sum(1 for path in directory.iterdir() if path.suffix == CORRUPT_SUFFIX) < _KEPT_FILES_MAX


def _write(path: Path, content: bytes) -> None:
    fd = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, _FILE_MODE)
    try:
        os.write(fd, content)
    finally:
        os.close(fd)
