"""Columns of OTTL values: each row may have a value of another type.

A column has one row for each row of the context's table, or a single row that stands for all of them. An evaluation
error is a kind of its own (``Kind.FAILED``).
"""

from __future__ import annotations

from datetime import UTC, tzinfo
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final, Self, TypeAlias

import numpy as np

from collector.model import KIND_ABSENT, AttributeColumn, StringColumn, groups
from collector.model.arrays import Array, some
from collector.model.cached import cached
from collector.model.values import any_value

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

__all__ = [
    "FAILED",
    "KINDS",
    "Array",
    "Duration",
    "EvaluationError",
    "Kind",
    "Scalar",
    "SpanId",
    "Time",
    "TraceId",
    "Values",
    "filled",
    "is_of",
]


class Kind:
    """The type of a value. The first eight are the kinds of attribute values in the model.

    Not an enumeration, because every read of a member of one costs as much as an operation on a short array.
    """

    NIL: Final = 0
    STRING: Final = 1
    BOOL: Final = 2
    INT: Final = 3
    DOUBLE: Final = 4
    LIST: Final = 5
    MAP: Final = 6
    BYTES: Final = 7
    DURATION: Final = 8
    TIME: Final = 9
    TRACE_ID: Final = 10
    SPAN_ID: Final = 11
    ITEMS: Final = 12
    """A list of rows of a table (events, points), of which only the length is known."""
    FAILED: Final = 13


class Duration(int):
    """Nanoseconds between two times."""

    __slots__ = ()


class Time(int):
    """Nanoseconds since 1970, in a time zone if one is known."""

    zone: tzinfo | None = None

    @classmethod
    def at(cls, nanoseconds: int, zone: tzinfo | None) -> Self:
        """A time in a zone."""
        made = cls(nanoseconds)
        if zone is not None and zone is not UTC:
            made.zone = zone
        return made


class TraceId(bytes):
    """A trace id, 16 bytes. OTTL does not compare it with byte strings."""

    __slots__ = ()


class SpanId(bytes):
    """A span id, 8 bytes."""

    __slots__ = ()


class EvaluationError(Exception):
    """A value cannot be evaluated. The row fails; the error never leaves this package."""


class _Failed:
    """Represents an evaluation error among distinct values."""


FAILED: Final = _Failed()
Scalar: TypeAlias = Any  # None, str, bool, int, float, list, dict, bytes, Duration, Time, TraceId, SpanId

KINDS: Final[dict[type, int]] = {
    type(None): Kind.NIL,
    str: Kind.STRING,
    bool: Kind.BOOL,
    int: Kind.INT,
    float: Kind.DOUBLE,
    list: Kind.LIST,
    dict: Kind.MAP,
    bytes: Kind.BYTES,
    Duration: Kind.DURATION,
    Time: Kind.TIME,
    TraceId: Kind.TRACE_ID,
    SpanId: Kind.SPAN_ID,
    _Failed: Kind.FAILED,
}
_TEXT_OR_NIL: Final = frozenset({str, type(None)})
_ONLY: Final = [frozenset({kind}) for kind in range(16)]
_WHOLE: Final = (Kind.BOOL, Kind.INT, Kind.DURATION, Kind.TIME, Kind.ITEMS)
_OBJECTS: Final = (Kind.LIST, Kind.MAP, Kind.BYTES)
_IDS: Final = (Kind.TRACE_ID, Kind.SPAN_ID)
_SCALARS: Final[dict[int, Callable[[int], Scalar]]] = {
    Kind.BOOL: bool,
    Kind.INT: int,
    Kind.DURATION: Duration,
    Kind.TIME: Time,
    Kind.ITEMS: lambda _: FAILED,  # their elements are not known, so only Len can take them
}


def filled(kind: int, row_count: int) -> Array:
    """The same kind for each row, uint8[n], read-only."""
    return _cached_filled(kind, row_count) if row_count <= _CACHED_ROWS_MAX else _filled(kind, row_count)


def _filled(kind: int, row_count: int) -> Array:
    kinds = np.full(row_count, kind, np.uint8)
    kinds.setflags(write=False)
    return kinds


_CACHED_ROWS_MAX: Final = 16_384
_cached_filled = lru_cache(maxsize=256)(_filled)


@lru_cache(maxsize=64)
def _membership(kinds: tuple[int, ...]) -> Array:
    table = np.zeros(256, np.bool_)
    table[list(kinds)] = True
    return table


def is_of(kind: Array, *kinds: int) -> Array:
    """bool[n]: whether the kind is one of these."""
    found: Array = _membership(kinds)[kind]
    return found


def _taken(lengths: Callable[[], Array] | None, rows: Array) -> Callable[[], Array] | None:
    return None if lengths is None else lambda: lengths()[rows]


class Values:
    """A column. Each payload is computed on first use and is only meaningful on the rows of its kinds."""

    def __init__(
        self,
        kind: Array,
        *,
        number: Callable[[], Array] | None = None,
        double: Callable[[], Array] | None = None,
        text: Callable[[], StringColumn] | None = None,
        objects: Callable[[], tuple[Array, list[Any]]] | None = None,
        ids: Callable[[], Array] | None = None,
        lengths: Callable[[], Array] | None = None,
        zones: tuple[Array, list[tzinfo | None]] | None = None,
    ) -> None:
        """``kind`` is uint8[n]; the functions return the payloads described at the properties of the same names."""
        self.kind = kind
        self._number, self._double, self._text, self._objects, self._ids = number, double, text, objects, ids
        self.zones = zones
        """Codes int32[n] and the time zones of times; None: they have none."""
        self.lengths = lengths
        """The numbers of elements, int64[n], of lists and maps that need not be read for it; None: not known."""

    def __len__(self) -> int:
        return len(self.kind)

    @cached
    def kinds(self) -> frozenset[int]:
        """The kinds that occur in the column."""
        return frozenset(np.bincount(self.kind, minlength=1).nonzero()[0].tolist())

    @cached
    def number(self) -> Array:
        """int64[n]: bools, ints, durations and times in nanoseconds, lengths."""
        return self._number() if self._number else np.zeros(len(self), np.int64)

    @cached
    def double(self) -> Array:
        """float64[n]: doubles."""
        return self._double() if self._double else np.zeros(len(self), np.float64)

    @cached
    def text(self) -> StringColumn:
        """The strings."""
        return self._text() if self._text else StringColumn.from_codes(np.full(len(self), -1), [])

    @cached
    def objects(self) -> tuple[Array, list[Any]]:
        """Codes int32[n] and the distinct lists, maps and byte strings."""
        return self._objects() if self._objects else (np.full(len(self), -1, np.int32), [])

    @cached
    def ids(self) -> Array:
        """uint64[n,2]: trace ids, and span ids in the second word."""
        return self._ids() if self._ids else np.zeros((len(self), 2), np.uint64)

    @cached
    def failed(self) -> Array:
        """bool[n]: whether the row has an evaluation error."""
        failed: Array = self.kind == Kind.FAILED
        return failed

    @cached
    def is_nil(self) -> Array:
        """bool[n]: whether the row is nil; empty bytes compare as nil."""
        nil: Array = self.kind == Kind.NIL
        if Kind.BYTES in self.kinds:
            codes, distinct = self.objects
            empty = np.array([*(not value for value in distinct), False])
            nil |= (self.kind == Kind.BYTES) & empty[codes]
        return nil

    def take(self, rows: Array) -> Values:
        """The rows with these indices."""
        return Values(
            self.kind[rows],
            number=lambda: self.number[rows],
            double=lambda: self.double[rows],
            text=lambda: self.text.take(rows),
            objects=lambda: (self.objects[0][rows], self.objects[1]),
            ids=lambda: self.ids[rows],
            lengths=_taken(self.lengths, rows),
            zones=None if self.zones is None else (self.zones[0][rows], self.zones[1]),
        )

    def with_failures(self, where: Array) -> Values:
        """The same values, with evaluation errors on the rows of ``where``."""
        return self.with_kind(np.where(where, np.uint8(Kind.FAILED), self.kind)) if some(where) else self

    def with_kind(self, kind: Array) -> Values:
        """The same payloads with other kinds, an array of one row or of as many as the column has."""
        return Values(
            kind,
            number=lambda: self.number,
            double=lambda: self.double,
            text=lambda: self.text,
            objects=lambda: self.objects,
            ids=lambda: self.ids,
            lengths=self.lengths,
            zones=self.zones,
        )

    @classmethod
    def of(cls, scalars: Sequence[Scalar]) -> Values:
        """A column of these values. The exact type of a value is its kind."""
        types = set(map(type, scalars))
        if types <= _TEXT_OR_NIL and str in types:
            return cls._of_texts(scalars)
        kind = np.fromiter(map(KINDS.__getitem__, map(type, scalars)), np.uint8, len(scalars))
        zones = [value.zone if type(value) is Time else None for value in scalars] if Time in types else []

        def objects() -> tuple[Array, list[Any]]:
            return np.arange(len(scalars), dtype=np.int32), [
                value if type(value) in {list, dict, bytes} else None for value in scalars
            ]

        return cls(
            kind,
            number=lambda: np.array(
                [int(value) if isinstance(value, int) else 0 for value in scalars],
                np.int64,
            ),
            double=lambda: np.array([value if isinstance(value, float) else 0.0 for value in scalars]),
            text=lambda: StringColumn.of([value if isinstance(value, str) else None for value in scalars]),
            objects=objects,
            ids=lambda: (
                np.frombuffer(
                    b"".join(
                        bytes(value).rjust(16, b"\0") if isinstance(value, TraceId | SpanId) else bytes(16)
                        for value in scalars
                    ),
                    ">u8",
                )
                .astype(np.uint64)
                .reshape(-1, 2)
            ),
            zones=(np.arange(len(zones), dtype=np.int32), zones) if any(zones) else None,
        )

    @classmethod
    def _of_texts(cls, scalars: Sequence[str | None]) -> Values:
        """A column of texts and nils, made with fewer steps."""
        codes = np.arange(len(scalars), dtype=np.int32)
        if None in scalars:
            codes[[code for code, value in enumerate(scalars) if value is None]] = -1
        column = StringColumn.from_codes(codes, [value or "" for value in scalars])
        return cls(np.where(codes < 0, np.uint8(Kind.NIL), np.uint8(Kind.STRING)), text=lambda: column)

    @classmethod
    def constant(cls, value: Scalar) -> Values:
        """The same value for every row."""
        return cls.of([value])

    @classmethod
    def of_text(cls, column: StringColumn) -> Values:
        """A column of strings; an unset field is an empty string."""
        made = cls(filled(Kind.STRING, len(column)), text=lambda: column.fill(""))
        made.__dict__["kinds"] = _ONLY[Kind.STRING]
        return made

    @classmethod
    def of_new_texts(cls, column: StringColumn) -> Values:
        """A column of strings to write on the rows that have one; there is no value on the others."""
        made = cls(filled(Kind.STRING, len(column)), text=lambda: column)
        made.__dict__["kinds"] = _ONLY[Kind.STRING]
        return made

    @classmethod
    def of_numbers(cls, kind: int, numbers: Array, where: Array | None = None) -> Values:
        """Numbers of one kind (unsigned ones wrap as in Go), nil where ``where`` is False."""
        kinds = filled(kind, len(numbers)) if where is None else np.where(where, np.uint8(kind), np.uint8(Kind.NIL))
        if kind == Kind.DOUBLE:
            made = cls(kinds, double=lambda: numbers)
        else:
            made = cls(kinds, number=lambda: numbers.astype(np.int64, copy=False))
        if where is None:
            made.__dict__["kinds"] = _ONLY[kind]
        return made

    @classmethod
    def of_ids(cls, kind: int, ids: Array) -> Values:
        """Trace ids uint64[n,2] or span ids uint64[n]."""
        return cls(
            np.full(len(ids), kind, np.uint8),
            ids=lambda: ids if ids.ndim == 2 else np.stack([np.zeros(len(ids), np.uint64), ids], axis=1),
        )

    @classmethod
    def of_attributes(cls, column: AttributeColumn) -> Values:
        """Attribute values; absent and empty values are nil."""
        kind = np.where(column.kind == KIND_ABSENT, np.uint8(Kind.NIL), column.kind)

        def objects() -> tuple[Array, list[Any]]:
            encoded = is_of(kind, *_OBJECTS)
            slices = StringColumn.from_slices(
                column.source,
                np.where(encoded, column.rows["any"], np.int32(-1)),
                np.ascontiguousarray(column.rows["any_len"]),
            )
            return slices.codes, [any_value(content) for content in slices.distinct_bytes]

        def number() -> Array:
            return np.where((kind == Kind.INT) | (kind == Kind.BOOL), column.rows["int_value"], 0)

        return cls(kind, number=number, double=lambda: column.double, text=lambda: column.text, objects=objects)

    def scalars(self) -> tuple[Array, list[Scalar]]:
        """A code int32[n] for each row, and the list of values it indexes."""
        if self.kinds == {Kind.STRING}:
            return self.text.codes, list(self.text.distinct)
        codes = np.zeros(len(self), np.int32)
        values: list[Scalar] = []
        for kind in self.kinds:
            rows = self.kind == kind
            found: Any
            distinct: list[Scalar]
            if kind == Kind.STRING:
                found, distinct = self.text.codes[rows], [*self.text.distinct]
            elif kind == Kind.TIME and self.zones is not None:
                zone_codes, zones = self.zones
                pairs = groups(np.ascontiguousarray(self.number[rows]), np.ascontiguousarray(zone_codes[rows]))
                found = pairs.codes
                first = np.flatnonzero(rows)[pairs.first]
                distinct = [
                    Time.at(number, zones[code])
                    for number, code in zip(self.number[first].tolist(), zone_codes[first].tolist(), strict=True)
                ]
            elif kind in _WHOLE:
                numbers, found = np.unique(self.number[rows], return_inverse=True)
                distinct = [_SCALARS[kind](number) for number in numbers.tolist()]
            elif kind == Kind.DOUBLE:
                bits, found = np.unique(self.double[rows].view(np.int64), return_inverse=True)
                distinct = bits.view(np.float64).tolist()
            elif kind in _OBJECTS:
                found, distinct = self.objects[0][rows], self.objects[1]
            elif kind in _IDS:
                ids = self.ids[rows]
                of_rows = groups(ids)
                found = of_rows.codes
                raw = ids[of_rows.first].astype(">u8").tobytes()
                distinct = [
                    TraceId(raw[at : at + 16]) if kind == Kind.TRACE_ID else SpanId(raw[at + 8 : at + 16])
                    for at in range(0, len(raw), 16)
                ]
            else:
                found, distinct = 0, [None if kind == Kind.NIL else FAILED]
            codes[rows] = found + len(values)
            values.extend(distinct)
        return codes, values
