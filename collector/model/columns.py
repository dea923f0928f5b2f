"""Columns of text: dictionary-encoded, so that work on text is done once per distinct value.

Numbers need no class: they are numpy arrays. Attributes of mixed kinds are in ``attributes``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Self

import numpy as np

from collector.model.arrays import Array
from collector.wire import hash as wire_hash
from collector.wire.splice.values import slices

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

__all__ = ["Array", "StringColumn", "read_only"]


def read_only(array: Array) -> Array:
    """The same array, closed to writing: batches are shared."""
    array.setflags(write=False)
    return array


class _Values:
    """The distinct values of a column and of all columns taken from it: decoded at most once."""

    __slots__ = ("_raw", "_slices", "_text")

    def __init__(
        self,
        text: list[str] | None = None,
        raw: list[bytes] | None = None,
        where: tuple[bytes, Array, Array] | None = None,
    ) -> None:
        """One of the three is given: text, UTF-8, or slices (source, starts, lengths)."""
        self._text = text
        self._raw = raw
        self._slices = where

    def __len__(self) -> int:
        if self._text is not None:
            return len(self._text)
        return len(self.raw) if self._slices is None else len(self._slices[1])

    @property
    def raw(self) -> list[bytes]:
        if self._raw is None:
            if self._slices is not None:
                self._raw = slices(*self._slices)
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
        """Where it stands. Slices are distinct, and are compared where they lie: no object is made of each."""
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


_SOUGHT_MAX = 8  # texts looked for among slices one by one; of more each slice becomes an object
_OBJECT_BYTES = 60  # a bytes or str object and its place in a list, CPython 3.11


class StringColumn:
    """Text, one value a row or none. ``distinct`` may hold values that no row uses, and (``from_codes``) one twice."""

    __slots__ = ("_values", "codes")

    codes: Array
    """int32[n]: into ``distinct``; -1 = absent."""

    def __init__(self, codes: Array, values: _Values) -> None:
        """Use the class methods."""
        self.codes = codes
        self._values = values

    @classmethod
    def of(cls, values: Sequence[str | None]) -> Self:
        """A column of these values."""
        index: dict[str, int] = {}
        codes = np.fromiter(
            (-1 if value is None else index.setdefault(value, len(index)) for value in values), np.int32, len(values)
        )
        return cls(read_only(codes), _Values(list(index)))

    @classmethod
    def constant(cls, text: str, row_count: int) -> Self:
        """The same text on every row."""
        return cls(read_only(np.zeros(row_count, np.int32)), _Values([text]))

    @classmethod
    def from_codes(cls, codes: Array, distinct: Sequence[str | bytes]) -> Self:
        """Codes made elsewhere. ``codes`` int[n], -1 = absent; ``distinct`` all text or all UTF-8 bytes.

        Raises:
            ValueError: a code that is no index of ``distinct``.
        """
        codes = np.array(codes, np.int32)
        if len(codes) and (codes.max() >= len(distinct) or codes.min() < -1):
            raise ValueError(f"codes must lie in [-1, {len(distinct)})")
        if any(isinstance(value, str) for value in distinct):
            text = [value if isinstance(value, str) else value.decode("utf-8", "replace") for value in distinct]
            return cls(read_only(codes), _Values(text))
        return cls(read_only(codes), _Values(raw=[value for value in distinct if isinstance(value, bytes)]))

    @classmethod
    def from_slices(cls, source: bytes, starts: Array, lengths: Array) -> Self:
        """Slices of ``source``, int32[n] each; absent where the start is negative. Equal slices get one code."""
        starts = np.ascontiguousarray(starts, np.int32)
        lengths = np.ascontiguousarray(lengths, np.int32)
        codes, first = wire_hash.dictionary(source, starts, lengths)
        return cls(read_only(codes), _Values(where=(source, starts[first], lengths[first])))

    @classmethod
    def concat(cls, columns: Sequence[StringColumn]) -> Self:
        """The columns one after the other."""
        index: dict[bytes, int] = {}
        parts: list[Array] = []
        for column in columns:
            lookup = np.fromiter((index.setdefault(value, len(index)) for value in column.distinct_bytes), np.int32)
            parts.append(np.append(lookup, np.int32(-1))[column.codes])
        codes = np.concatenate(parts) if parts else np.empty(0, np.int32)
        return cls(read_only(codes), _Values(raw=list(index)))

    @property
    def distinct_bytes(self) -> Sequence[bytes]:
        """The values as UTF-8."""
        return self._values.raw

    @property
    def distinct(self) -> Sequence[str]:
        """The values, decoded when first asked for."""
        return self._values.text

    @property
    def distinct_count(self) -> int:
        """``len(distinct)``, without making the list."""
        return len(self._values)

    @property
    def is_sliced(self) -> bool:
        """Whether the values are still slices of a batch's bytes, which the column then keeps."""
        return self._values.is_sliced

    @property
    def memory_bytes(self) -> int:
        """About what the column keeps."""
        return self.codes.nbytes + self._values.memory_bytes

    @property
    def present(self) -> Array:
        """bool[n]: there is a value."""
        return self.codes >= 0

    def __len__(self) -> int:
        return len(self.codes)

    def __repr__(self) -> str:
        return f"StringColumn({len(self)} rows, {self.distinct_count} distinct)"

    def equals(self, text: str) -> Array:
        """bool[n]: the value is ``text``."""
        found = self._values.codes_of(text.encode("utf-8", "replace"))
        return self.codes == found[0] if len(found) == 1 else np.isin(self.codes, found)

    def isin(self, texts: Iterable[str]) -> Array:
        """bool[n]: the value is one of ``texts``."""
        wanted = {text.encode("utf-8", "replace") for text in texts}
        if self.is_sliced and len(wanted) <= _SOUGHT_MAX:
            return np.isin(self.codes, [code for value in wanted for code in self._values.codes_of(value)])
        return self._spread([value in wanted for value in self.distinct_bytes])

    def where(self, predicate: Callable[[str], bool]) -> Array:
        """bool[n]: the predicate holds; it is asked once per distinct value. Absent rows: False."""
        return self._spread([bool(predicate(value)) for value in self.distinct])

    def map(self, function: Callable[[str], str | None]) -> StringColumn:
        """The column of ``function``'s results, called once per distinct value; None = absent."""
        index: dict[str, int] = {}
        lookup = np.full(self.distinct_count + 1, -1, np.int32)
        for code, value in enumerate(self.distinct):
            result = function(value)
            if result is not None:
                lookup[code] = index.setdefault(result, len(index))
        return StringColumn(read_only(lookup[self.codes]), _Values(list(index)))

    def take(self, rows: Array) -> StringColumn:
        """The rows of a mask or of indices."""
        return self._with_codes(self.codes[rows])

    def fill(self, text: str) -> StringColumn:
        """``text`` where there is no value."""
        if self.present.all():
            return self
        values = [*self.distinct_bytes, text.encode("utf-8", "replace")]
        return StringColumn(
            read_only(np.where(self.codes < 0, np.int32(len(values) - 1), self.codes)), _Values(raw=values)
        )

    def to_list(self) -> list[str | None]:
        """One Python object a row: for tests and debug output only."""
        values = self.distinct
        return [values[code] if code >= 0 else None for code in self.codes.tolist()]

    def only(self, mask: Array) -> StringColumn:
        """Absent where ``mask`` (bool[n]) is False."""
        return self._with_codes(np.where(mask, self.codes, np.int32(-1)))

    def _spread(self, flags: list[bool]) -> Array:
        return np.array([*flags, False], np.bool_)[self.codes]  # code -1 is the last one: absent

    def _with_codes(self, codes: Array) -> StringColumn:
        return StringColumn(read_only(codes), self._values)
