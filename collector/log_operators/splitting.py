"""Cuts what files and connections deliver into entries: lines, or what patterns say, in any encoding.

Source: opentelemetry-collector-contrib pkg/stanza/split, trim and internal/textutils (v0.156).
"""

import codecs
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final, Self

import numpy as np
import re2
from numpy.typing import NDArray
from pydantic import model_validator

from collector.log_operators.slices import find_lines, trim_slices
from collector.text.patterns import compile_pattern
from config import ComponentConfig

__all__ = ["MultilineConfig", "Split", "Splitter", "TrimConfig", "check_encoding"]

_UNITS: Final = {
    "utf-16-le": (2, False),
    "utf-16-be": (2, True),
    "utf-16": (2, False),
    "utf-32-le": (4, False),
    "utf-32-be": (4, True),
    "utf-32": (4, False),
}
_RAW: Final = frozenset({"nop", "utf-8-raw", "utf8-raw"})
_Offsets = NDArray[np.int64]


def check_encoding(name: str) -> str:
    """The name of an encoding in lower case.

    Raises:
        ValueError: There is no such encoding.
    """
    lower = name.lower()
    if lower not in _RAW:
        try:
            _codec(lower)
        except LookupError:
            raise ValueError(
                f"{name!r} is not a known encoding (examples: utf-8, utf-16le, ascii, big5, nop)"
            ) from None
    return lower


def _codec(name: str) -> str:
    return codecs.lookup({"utf-16le": "utf-16-le", "utf-16be": "utf-16-be", "": "utf-8"}.get(name, name)).name


class MultilineConfig(ComponentConfig):
    """How to find the entries in a stream: by default each line is one."""

    line_start_pattern: str = ""
    """A pattern that matches where an entry begins."""
    line_end_pattern: str = ""
    """A pattern that matches where an entry ends."""
    omit_pattern: bool = False
    """Whether what the pattern matches is left out of the entry."""

    @model_validator(mode="after")
    def _has_one_pattern(self) -> Self:
        if self.line_start_pattern and self.line_end_pattern:
            raise ValueError("only one of line_start_pattern and line_end_pattern can be used")
        for key in ("line_start_pattern", "line_end_pattern"):
            try:
                compile_pattern(getattr(self, key))
            except ValueError as error:
                raise ValueError(f"{key}: {error}") from error
        return self


class TrimConfig(ComponentConfig):
    """Which white space of an entry stays."""

    preserve_leading_whitespaces: bool = False
    """Whether white space at the beginning of an entry stays."""
    preserve_trailing_whitespaces: bool = False
    """Whether white space at the end of an entry stays."""


@dataclass(frozen=True, slots=True)
class Split:
    """The entries in some bytes."""

    text: bytes
    """The entries in UTF-8, as :class:`Block` takes them."""
    starts: _Offsets
    """int64[n]: where each entry begins in ``text``."""
    ends: _Offsets
    """int64[n]: where it ends."""
    offsets: _Offsets
    """int64[n]: where each entry begins in the bytes that were split, before white space was taken off."""
    consumed: int
    """How many of these bytes the entries are made of; the rest belongs in front of what comes next."""


class Splitter:
    r"""Cuts bytes into entries.

    >>> from collector.log_operators import Splitter
    >>> split = Splitter().split(b"one\ntwo\nthr", is_end=False)
    >>> split.starts.tolist(), split.ends.tolist(), split.consumed
    ([0, 4], [3, 7], 8)
    """

    def __init__(
        self,
        multiline: MultilineConfig | None = None,
        *,
        encoding: str = "utf-8",
        trim: TrimConfig | None = None,
        max_log_size: int = 1024 * 1024,
        keeps_empty: bool = False,
    ) -> None:
        """Compile it. Longer entries than ``max_log_size`` bytes are cut; ``keeps_empty``: empty lines are entries.

        Raises:
            ValueError: The encoding or a pattern is not valid.
        """
        name = check_encoding(encoding)
        self._is_raw = name in _RAW
        self._codec = "utf-8" if self._is_raw else _codec(name)
        self._is_plain = self._codec in {"utf-8", "ascii"}
        self._unit, self._is_big_endian = _UNITS.get(self._codec, (1, False))
        self._max_log_size = max_log_size - max_log_size % self._unit or self._unit
        self._keeps_empty = keeps_empty
        multiline = multiline or MultilineConfig()
        pattern = multiline.line_start_pattern or multiline.line_end_pattern
        self._splits_lines = not pattern and name != "nop"
        self._find = _finder(pattern) if pattern and name != "nop" else None
        self._at_start = bool(multiline.line_start_pattern)
        self._omits = multiline.omit_pattern
        trim = trim or TrimConfig()
        self._trims_leading = not trim.preserve_leading_whitespaces
        self._trims_trailing = not trim.preserve_trailing_whitespaces

    @property
    def max_log_size(self) -> int:
        """The size in bytes at which an entry is cut."""
        return self._max_log_size

    def split(self, data: bytes, *, is_end: bool) -> Split:
        """The entries in the bytes. ``is_end``: nothing follows, so what is left is an entry, too."""
        starts, ends, follows = self._bounds(data)
        last = int(follows[-1]) if len(follows) else 0
        rest = len(data) - last
        if rest and (is_end or rest >= self._max_log_size):
            size = rest if is_end else rest - rest % self._max_log_size
            starts = np.append(starts, last)
            ends = np.append(ends, last + size)
            last += size
        starts, ends = _cut(starts, ends, self._max_log_size)
        return self._made(data, starts, ends, last)

    def whole(self, texts: Sequence[bytes]) -> Split:
        """Each text as one entry, such as datagrams that are not split; ``offsets`` are places in all of them."""
        ends = np.cumsum(np.fromiter(map(len, texts), np.int64, len(texts)), dtype=np.int64)
        starts = np.concatenate((np.zeros(1, np.int64), ends[:-1])) if len(texts) else ends
        return self._made(b"".join(texts), *_cut(starts, ends, self._max_log_size), int(ends[-1]) if len(ends) else 0)

    def _bounds(self, data: bytes) -> tuple[_Offsets, _Offsets, _Offsets]:
        """Where the complete entries begin and end, and where what follows each of them begins."""
        nothing = np.zeros(0, np.int64)
        if self._splits_lines:
            ends = find_lines(data, self._unit, self._is_big_endian)
            follows = ends + self._unit
            return np.concatenate((nothing, [0], follows[:-1])).astype(np.int64)[: len(ends)], ends, follows
        if self._find is None or not data:
            return nothing, nothing, nothing
        found = self._find(data if self._is_plain else data.decode(self._codec, "replace").encode())
        if not found:
            return nothing, nothing, nothing
        if not self._is_plain:
            found = self._raw_places(data, found)
        begins, finishes = (np.array(side, np.int64) for side in zip(*found, strict=True))
        if not self._at_start:
            starts = np.concatenate((np.zeros(1, np.int64), finishes[:-1]))
            return starts, begins if self._omits else finishes, finishes
        apart = np.concatenate((np.ones(1, np.bool_), begins[1:] > finishes[:-1]))
        begins, finishes = begins[apart], finishes[apart]
        starts = (finishes if self._omits else begins)[:-1]
        ends = begins[1:]
        if begins[0] > 0:  # what is in front of the first match
            starts, ends = np.concatenate(([0], starts)), np.concatenate((begins[:1], ends))
        return starts, ends, ends

    def _raw_places(self, data: bytes, found: list[tuple[int, int]]) -> list[tuple[int, int]]:
        """Places in the UTF-8 form as places in the bytes themselves."""
        text = data.decode(self._codec, "replace").encode()
        made = []
        for begin, end in found:
            before = len(text[:begin].decode("utf-8", "replace").encode(self._codec, "replace"))
            size = len(text[begin:end].decode("utf-8", "replace").encode(self._codec, "replace"))
            made.append((before, before + size))
        return made

    def _made(self, data: bytes, starts: _Offsets, ends: _Offsets, consumed: int) -> Split:
        offsets = starts.copy()
        text = data
        if not self._is_plain:
            texts = [data[a:b].decode(self._codec, "replace").encode() for a, b in zip(starts, ends, strict=True)]
            ends = np.cumsum(np.fromiter(map(len, texts), np.int64, len(texts)), dtype=np.int64)
            starts = np.concatenate((np.zeros(1, np.int64), ends[:-1])) if texts else ends
            text = b"".join(texts)
        starts, ends = np.ascontiguousarray(starts, np.int64), np.ascontiguousarray(ends, np.int64)
        if self._splits_lines and len(ends):  # a carriage return belongs to the end of the line
            codes = np.frombuffer(text, np.uint8)
            has_return = (
                (ends > starts) & (codes[np.maximum(ends - 1, 0)] == 13) if len(codes) else np.zeros(0, np.bool_)
            )
            ends = ends - has_return if len(codes) else ends
        if self._trims_leading or self._trims_trailing:
            ends = ends.copy()
            starts = starts.copy()
            trim_slices(text, starts, ends, self._trims_leading, self._trims_trailing)
        if not self._keeps_empty and (starts == ends).any():
            full = starts < ends
            starts, ends, offsets = starts[full], ends[full], offsets[full]
        return Split(text, starts, ends, offsets, consumed)


def _finder(pattern: str) -> Any:
    """A function from bytes to the places of all matches."""
    options = re2.Options()
    options.log_errors = False
    options.posix_syntax = False
    compiled = re2.compile(f"(?m:{pattern})".encode(), options)

    def find(data: bytes) -> list[tuple[int, int]]:
        return [match.span() for match in compiled.finditer(data)]

    return find


def _cut(starts: _Offsets, ends: _Offsets, size_max: int) -> tuple[_Offsets, _Offsets]:
    """The slices, with those that are too long cut into pieces."""
    sizes = ends - starts
    if not len(sizes) or sizes.max() <= size_max:
        return starts, ends
    pieces = np.maximum((sizes + size_max - 1) // size_max, 1)
    owner = np.repeat(np.arange(len(starts)), pieces)
    number = np.arange(len(owner)) - np.repeat(np.cumsum(pieces) - pieces, pieces)
    made = starts[owner] + number * size_max
    return made, np.minimum(made + size_max, ends[owner])
