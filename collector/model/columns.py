"""Columns of text, dictionary-encoded so that work on text is done once per distinct value.

Columns of numbers are plain numpy arrays. Attributes, whose values have different kinds, are in ``attributes``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Self, cast

import numpy as np

from collector.wire import hash as wire_hash
from collector.wire.splice.values import slice_bytes

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from collector.model.arrays import I32, Array, Mask

__all__ = ["StringColumn", "read_only"]

_SEARCHED_SLICES_MAX = 8  # to find more texts than this among slices, each slice is made an object once
_OBJECT_BYTES = 60  # a bytes or str object and its place in a list, CPython 3.11


def read_only(array: Array) -> Array:
    """Makes the array read-only, because batches are shared, and returns it."""
    array.setflags(write=False)
    return array


class _Distinct:
    """The distinct values of a column and of all columns derived from it, decoded at most once."""

    __slots__ = ("_raw", "_slices", "_text")

    def __init__(
        self,
        text: list[str] | None = None,
        raw: list[bytes] | None = None,
        slices: tuple[bytes, I32, I32] | None = None,
    ) -> None:
        """Takes one of text, UTF-8 and slices (source, starts, lengths)."""
        self._text = text
        self._raw = raw
        self._slices = slices

    def __len__(self) -> int:
        if self._text is not None:
            return len(self._text)
        return len(self.raw) if self._slices is None else len(self._slices[1])

    @property
    def raw(self) -> list[bytes]:
        if self._raw is None:
            if self._slices is not None:
                self._raw = slice_bytes(*self._slices)
                self._slices = None
            else:
                assert self._text is not None
                self._raw = [value.encode("utf-8", "replace") for value in self._text]
        return self._raw

    @property
    def text(self) -> list[str]:
        if self._text is None:
            self._text = [value.decode("utf-8", "replace") for value in self.raw]
        return self._text

    @property
    def is_sliced(self) -> bool:
        return self._slices is not None

    def codes_of(self, wanted: bytes) -> list[int]:
        """The codes of a value. Slices are distinct and are compared in place, without making an object of each."""
        if self._slices is None:
            return [code for code, value in enumerate(self.raw) if value == wanted]
        code = wire_hash.find_slice(*self._slices, wanted)
        return [code] if code >= 0 else []

    @property
    def memory_bytes(self) -> int:
        if self._slices is not None:
            return self._slices[1].nbytes * 2
        return sum(
            _OBJECT_BYTES * len(values) + sum(map(len, values))
            for values in (self._raw, self._text)
            if values is not None
        )


class StringColumn:
    """Text, with one value or none per row.

    ``distinct`` may hold values that no row uses and, after ``from_codes``, the same value twice.

    >>> from collector.model import StringColumn
    >>> names = StringColumn.of(["GET", "POST", None, "GET"])
    >>> names.codes.tolist(), list(names.distinct)
    ([0, 1, -1, 0], ['GET', 'POST'])
    >>> names.map(str.lower).fill("none").to_list()
    ['get', 'post', 'none', 'get']
    """

    __slots__ = ("_values", "codes")

    codes: I32
    """I32[n]: indices into ``distinct``; -1 = absent."""

    def __init__(self, codes: I32, values: _Distinct) -> None:
        """Called by the class methods."""
        self.codes = codes
        self._values = values

    @classmethod
    def of(cls, values: Sequence[str | None]) -> Self:
        """A column of these values."""
        index: dict[str, int] = {}
        codes = np.fromiter(
            (-1 if value is None else index.setdefault(value, len(index)) for value in values), np.int32, len(values)
        )
        return cls(read_only(codes), _Distinct(list(index)))

    @classmethod
    def constant(cls, text: str, row_count: int) -> Self:
        """The same text on every row."""
        return cls(read_only(np.zeros(row_count, np.int32)), _Distinct([text]))

    @classmethod
    def from_codes(cls, codes: Array, distinct: Sequence[str | bytes]) -> Self:
        """A column of codes made elsewhere: integers, -1 = absent; ``distinct`` is all text or all UTF-8 bytes.

        Raises:
            ValueError: A code is not an index into ``distinct``.
        """
        codes = np.array(codes, np.int32)
        if len(codes) and (codes.max() >= len(distinct) or codes.min() < -1):
            raise ValueError(f"expected codes from -1 to {len(distinct) - 1}, got {codes.min()} to {codes.max()}")
        if str not in set(map(type, distinct)):  # several times as fast as asking for the type of each
            return cls(read_only(codes), _Distinct(raw=cast("list[bytes]", list(distinct))))
        text = [value if isinstance(value, str) else value.decode("utf-8", "replace") for value in distinct]
        return cls(read_only(codes), _Distinct(text))

    @classmethod
    def from_slices(cls, source: bytes, starts: Array, lengths: Array) -> Self:
        """A column of slices of ``source``, absent where the start is negative. Equal slices get the same code."""
        starts = np.ascontiguousarray(starts, np.int32)
        lengths = np.ascontiguousarray(lengths, np.int32)
        codes, first = wire_hash.dictionary(source, starts, lengths)
        return cls(read_only(codes), _Distinct(slices=(source, starts[first], lengths[first])))

    @property
    def distinct_bytes(self) -> Sequence[bytes]:
        """The values as UTF-8."""
        return self._values.raw

    @property
    def distinct(self) -> Sequence[str]:
        """The values, decoded on first use."""
        return self._values.text

    @property
    def distinct_count(self) -> int:
        """The length of ``distinct``, without making the list."""
        return len(self._values)

    @property
    def is_sliced(self) -> bool:
        """Whether the values are still slices of a batch's bytes, which the column then keeps alive."""
        return self._values.is_sliced

    @property
    def memory_bytes(self) -> int:
        """The approximate size of the column."""
        return self.codes.nbytes + self._values.memory_bytes

    @property
    def present(self) -> Mask:
        """bool[n]: the row has a value."""
        return self.codes >= 0

    def __len__(self) -> int:
        return len(self.codes)

    def __repr__(self) -> str:
        return f"StringColumn({len(self)} rows, {self.distinct_count} distinct)"

    def equals(self, text: str) -> Mask:
        """bool[n]: the value is ``text``."""
        found = self._values.codes_of(text.encode("utf-8", "replace"))
        return self.codes == found[0] if len(found) == 1 else np.isin(self.codes, found)

    def isin(self, texts: Iterable[str]) -> Mask:
        """bool[n]: the value is one of ``texts``."""
        wanted = {text.encode("utf-8", "replace") for text in texts}
        if self.is_sliced and len(wanted) <= _SEARCHED_SLICES_MAX:
            return np.isin(self.codes, [code for value in wanted for code in self._values.codes_of(value)])
        return self._spread([value in wanted for value in self.distinct_bytes])

    def where(self, predicate: Callable[[str], bool]) -> Mask:
        """bool[n]: the predicate holds; it is called once per distinct value. Absent rows are False."""
        return self._spread([bool(predicate(value)) for value in self.distinct])

    def map(self, function: Callable[[str], str | None]) -> StringColumn:
        """The results of ``function``, which is called once per distinct value; None = absent."""
        index: dict[str, int] = {}
        lookup = np.full(self.distinct_count + 1, -1, np.int32)
        for code, value in enumerate(self.distinct):
            result = function(value)
            if result is not None:
                lookup[code] = index.setdefault(result, len(index))
        return StringColumn(read_only(lookup[self.codes]), _Distinct(list(index)))

    def map_distinct(self, results: Sequence[bytes | None]) -> StringColumn:
        """The column with another UTF-8 text, or none, for each of ``distinct_bytes``; texts may then be equal.

        >>> names = traces.field("name")
        >>> names.map_distinct([name[4:] if name[:4] == b"GET " else None for name in names.distinct_bytes]).to_list()
        ['/users', None, '/health']

        Raises:
            ValueError: There is another number of texts.
        """
        if len(results) != self.distinct_count:
            raise ValueError(f"expected {self.distinct_count} texts, got {len(results)}")
        made = [result for result in results if result is not None]
        if len(made) == len(results):
            return StringColumn(self.codes, _Distinct(raw=made))
        lookup = np.full(len(results) + 1, -1, np.int32)
        lookup[[code for code, result in enumerate(results) if result is not None]] = np.arange(len(made))
        return StringColumn(read_only(lookup[self.codes]), _Distinct(raw=made))

    def take(self, rows: Array) -> StringColumn:
        """The rows selected by a mask or by indices."""
        return self._with_codes(self.codes[rows])

    def fill(self, text: str) -> StringColumn:
        """The column with ``text`` on the rows without a value."""
        if self.present.all():
            return self
        values = [*self.distinct_bytes, text.encode("utf-8", "replace")]
        return StringColumn(
            read_only(np.where(self.codes < 0, np.int32(len(values) - 1), self.codes)), _Distinct(raw=values)
        )

    def to_list(self) -> list[str | None]:
        """One Python object per row; meant for tests and debug output."""
        values = self.distinct
        return [values[code] if code >= 0 else None for code in self.codes.tolist()]

    def only(self, mask: Mask) -> StringColumn:
        """The column with the rows absent where ``mask`` (bool[n]) is False."""
        return self._with_codes(np.where(mask, self.codes, np.int32(-1)))

    def _spread(self, flags: list[bool]) -> Mask:
        return np.array([*flags, False], np.bool_)[self.codes]  # the code -1 takes the last element

    def _with_codes(self, codes: I32) -> StringColumn:
        return StringColumn(read_only(codes), self._values)
