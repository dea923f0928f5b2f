"""Finds the files that patterns match, and puts them in order."""

import os
import re
import stat
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from collector.log_operators.layouts import strptime_reader
from collector.text.patterns import compile_pattern
from receivers.file_log.config import OrderingConfig, SortConfig
from receivers.file_log.globs import expanded, glob_pattern, steps_of

__all__ = ["Finder", "Found"]

_MAX_DEPTH: Final = 64  # of folders below "**"


@dataclass(frozen=True, slots=True)
class Found:
    """A regular file."""

    path: str
    stat: os.stat_result


class Finder:
    """Finds files."""

    def __init__(
        self,
        include: Sequence[str],
        exclude: Sequence[str],
        exclude_older_than_s: float,
        ordering: OrderingConfig,
        on_error: Callable[[OSError], None],
    ) -> None:
        """``on_error`` is called with errors of folders and files that cannot be read."""
        self._include = [steps_of(plain) for glob in include for plain in expanded(glob)]
        self._exclude = [glob_pattern(os.path.normpath(glob)) for glob in exclude]
        self._exclude_older_than_s = exclude_older_than_s
        self._ordering = ordering
        self._regex = compile_pattern(ordering.regex) if ordering.regex else None
        self._group = compile_pattern(ordering.group_by) if ordering.group_by else None
        self._sorts = [
            (sort, _key_of(sort, self._regex.groupindex if self._regex is not None else {}))
            for sort in ordering.sort_by
        ]
        self._on_error = on_error

    def find(self) -> list[Found]:
        """The files, each path once. Blocks."""
        paths: dict[str, os.stat_result] = {}
        oldest = time.time() - self._exclude_older_than_s if self._exclude_older_than_s else float("-inf")
        for root, steps in self._include:
            for path, found in self._walk(root, steps):
                if path in paths or found.st_mtime < oldest:
                    continue
                if any(pattern.fullmatch(path) for pattern in self._exclude):
                    continue
                paths[path] = found
        files = [Found(path, found) for path, found in paths.items()]
        return self._ordered(files) if self._sorts else files

    def _walk(self, folder: str, steps: Sequence[Any]) -> Iterator[tuple[str, os.stat_result]]:
        if not steps:
            try:
                found = os.stat(folder)  # noqa: PTH116 - Path is several times slower
            except FileNotFoundError:
                return
            except OSError as error:
                self._on_error(error)
                return
            if stat.S_ISREG(found.st_mode):
                yield folder, found
            return
        step, rest = steps[0], steps[1:]
        if isinstance(step, str):
            yield from self._walk(os.path.join(folder, step), rest)  # noqa: PTH118 - as above
            return
        if step is None:
            yield from self._deep(folder, rest, 0)
            return
        for entry in self._entries(folder):
            if not step.fullmatch(entry.name):
                continue
            if rest:
                if _is_folder(entry):
                    yield from self._walk(entry.path, rest)
                continue
            try:
                found = entry.stat()
            except FileNotFoundError:
                continue
            except OSError as error:
                self._on_error(error)
                continue
            if stat.S_ISREG(found.st_mode):
                yield entry.path, found

    def _deep(self, folder: str, rest: Sequence[Any], depth: int) -> Iterator[tuple[str, os.stat_result]]:
        yield from self._walk(folder, rest or [re.compile(".*", re.DOTALL)])
        if depth < _MAX_DEPTH:
            for entry in self._entries(folder):
                if entry.is_dir(follow_symlinks=False):
                    yield from self._deep(entry.path, rest, depth + 1)

    def _entries(self, folder: str) -> Iterator["os.DirEntry[str]"]:
        try:
            with os.scandir(folder or ".") as entries:
                made = sorted(entries, key=lambda entry: entry.name)
        except (FileNotFoundError, NotADirectoryError):
            return
        except OSError as error:
            self._on_error(error)
        else:
            yield from made

    def _ordered(self, files: list[Found]) -> list[Found]:
        groups: dict[str, list[tuple[Found, Any]]] = {}
        for file in files:
            match = self._regex.search(file.path) if self._regex is not None else None
            if self._regex is not None and match is None:
                continue
            group = ""
            if self._group is not None:
                found = self._group.search(file.path)
                if found is None:
                    continue
                group = found.group(1 if self._group.groups else 0) or ""
            groups.setdefault(group, []).append((file, match))
        made: list[Found] = []
        for members in groups.values():
            for sort, key in self._sorts:
                keyed = [(key(file, match), (file, match)) for file, match in members]
                kept = [pair for pair in keyed if pair[0] is not None]
                kept.sort(key=lambda pair: pair[0], reverse=not sort.ascending)
                members = [member for _, member in kept]  # noqa: PLW2901 - one sort after the other
            made += [file for file, _ in members[: self._ordering.top_n or 1]]
        return made


def _is_folder(entry: "os.DirEntry[str]") -> bool:
    try:
        return entry.is_dir()
    except OSError:
        return False


def _key_of(sort: SortConfig, groups: Mapping[str, int]) -> Callable[[Found, Any], Any]:
    """The value to sort by; None leaves the file out."""
    if sort.sort_type == "mtime":
        if not sort.max_time:
            return lambda file, _: file.stat.st_mtime
        return lambda file, _: file.stat.st_mtime if file.stat.st_mtime >= time.time() - sort.max_time else None
    number = groups[sort.regex_key]
    if sort.sort_type == "alphabetical":
        return lambda _, match: match.group(number) or ""
    if sort.sort_type == "numeric":
        return lambda _, match: _number(match.group(number))
    reader = strptime_reader(sort.layout, sort.location or "UTC", {})
    return lambda _, match: reader.read_bytes((match.group(number) or "").encode())


def _number(text: str | None) -> int | None:
    try:
        return int(text or "")
    except ValueError:
        return None
