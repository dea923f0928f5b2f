"""The files of an exporter with ``group_by``: one for each value of a resource attribute, few of them open at a time.

The value comes from outside, so it never leads to a file outside of the configured path: it is read as a path below the
part in front of ``*``, which ``..`` cannot leave.

Source: opentelemetry-collector-contrib exporter/fileexporter grouping_file_exporter.go.
"""

import errno
import os
import posixpath
from collections import OrderedDict
from pathlib import Path

from collector.api import Clock
from exporters.file.config import PLACEHOLDER
from exporters.file.rotation import RotatingFile

__all__ = ["GroupedFiles"]


class GroupedFiles:
    """See the module. Not safe for use from several threads at a time.

    At most ``max_open_files`` are open; the one that was not written to for the longest time is closed for another one.
    A file that is opened is continued. ``directory_mode`` is the mode of missing directories, which are created.
    """

    def __init__(self, path: str, clock: Clock, *, max_open_files: int, directory_mode: int) -> None:
        self._prefix, _, self._suffix = path.partition(PLACEHOLDER)
        self._clock = clock
        self._max_open_files = max_open_files
        self._directory_mode = directory_mode
        self._open: OrderedDict[str, RotatingFile] = OrderedDict()

    def path_of(self, value: str) -> str:
        """The path of the group's file; empty if the value names none."""
        relative = posixpath.normpath("/" + value.lstrip("/") + self._suffix).lstrip("/")
        return self._prefix + relative if relative else ""

    def prepare(self) -> None:
        """Create the directory that all files are in. Raises OSError if that is not possible."""
        Path(f"{self._prefix}x").parent.mkdir(self._directory_mode, parents=True, exist_ok=True)

    def write(self, path: str, record: bytes) -> None:
        """Write all of the record to the file at ``path``, which is opened if necessary, or nothing.

        Raises:
            OSError: nothing was written; with EINVAL because a file cannot have that path.
        """
        file = self._open.get(path)
        if file is None:
            _check(path)
            file = RotatingFile(path, None, self._clock, keep=True, directory_mode=self._directory_mode)
            while len(self._open) >= self._max_open_files:
                self._open.popitem(last=False)[1].close()
            file.open()
            self._open[path] = file
        else:
            self._open.move_to_end(path)
        file.write(record)

    def close(self) -> None:
        """Close all files; safe to call twice."""
        while self._open:
            self._open.popitem()[1].close()


def _check(path: str) -> None:
    """Raise OSError for a path that the system's functions refuse with other errors."""
    try:
        is_valid = bool(path) and b"\0" not in os.fsencode(path)
    except UnicodeEncodeError:
        is_valid = False
    if not is_valid:
        raise OSError(errno.EINVAL, "the value of the attribute cannot be part of a path")
