"""Columns whose rows may each have another type, as OTTL's values do, and what may be done with them: compare, compute, apply.

A column has one row for each row of the context's table, or a single one: the same value everywhere. Numbers are worked
on as arrays; text, maps and lists once per distinct value. An evaluation error is a kind of its own (``Kind.FAILED``).
Source of the rules: opentelemetry-collector-contrib pkg/ottl (compare.go, math.go, LANGUAGE.md "Comparison Rules").
"""

from __future__ import annotations

import operator
from enum import IntEnum
from functools import cached_property
from typing import TYPE_CHECKING, Any, Final, TypeAlias

import numpy as np

from collector.model import KIND_ABSENT, AttributeColumn, StringColumn, groups
from collector.model.arrays import Array
from collector.model.values import any_value

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

__all__ = [
    "Array",
    "Duration",
    "Failure",
    "Kind",
    "Scalar",
    "SpanId",
    "Time",
    "TraceId",
    "Values",
    "apply",
    "compare",
    "compute",
    "negate",
]


class Kind(IntEnum):
    """The type of one value. The first eight are those of the model's attribute values."""

    NIL = 0
    STRING = 1
    BOOL = 2
    INT = 3
    DOUBLE = 4
    LIST = 5
    MAP = 6
    BYTES = 7
    DURATION = 8
    TIME = 9
    TRACE_ID = 10
    SPAN_ID = 11
    ITEMS = 12
    """A list of a table's rows (events, points): its length alone is known."""
    ATTRIBUTES = 13
    """All attributes of a row: their number alone is known."""
    FAILED = 14


class Duration(int):
    """Nanoseconds between two times."""

    __slots__ = ()


class Time(int):
    """Nanoseconds since 1970."""

    __slots__ = ()


class TraceId(bytes):
    """16 bytes that are no byte string: OTTL does not compare the two."""

    __slots__ = ()


class SpanId(bytes):
    """8 bytes, likewise."""

    __slots__ = ()


class Failure(Exception):  # noqa: N818 - a row's evaluation error, never seen outside
    """A value that has none: the row fails."""


class _Failed:
    """Stands for a row's error among distinct values."""


_FAILED: Final = _Failed()
Scalar: TypeAlias = Any  # None, str, bool, int, float, list, dict, bytes, Duration, Time, TraceId, SpanId

_KINDS: Final[dict[type, Kind]] = {
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
_WHOLE: Final = (Kind.BOOL, Kind.INT, Kind.DURATION, Kind.TIME, Kind.ITEMS, Kind.ATTRIBUTES)
_OBJECTS: Final = (Kind.LIST, Kind.MAP, Kind.BYTES)
_IDS: Final = (Kind.TRACE_ID, Kind.SPAN_ID)
_SCALARS: Final[dict[Kind, Callable[[int], Scalar]]] = {
    Kind.BOOL: bool,
    Kind.INT: int,
    Kind.DURATION: Duration,
    Kind.TIME: Time,
    Kind.ITEMS: lambda _: _FAILED,  # what they hold is not known: no function but Len takes them
    Kind.ATTRIBUTES: lambda _: _FAILED,
}
_INT64: Final = np.iinfo(np.int64)


class Values:
    """A column. Each payload is made when first asked for and means something on the rows of its kinds alone."""

    def __init__(
        self,
        kind: Array,
        *,
        number: Callable[[], Array] | None = None,
        double: Callable[[], Array] | None = None,
        text: Callable[[], StringColumn] | None = None,
        objects: Callable[[], tuple[Array, list[Any]]] | None = None,
        ids: Callable[[], Array] | None = None,
    ) -> None:
        """``kind`` uint8[n]; the rest by need: int64[n], float64[n], text, (codes int32[n], distinct objects), uint64[n,2]."""
        self.kind = kind
        self._number, self._double, self._text, self._objects, self._ids = number, double, text, objects, ids

    def __len__(self) -> int:
        return len(self.kind)

    @cached_property
    def kinds(self) -> frozenset[int]:
        """The kinds that occur."""
        return frozenset(np.flatnonzero(np.bincount(self.kind, minlength=1)).tolist())

    @cached_property
    def number(self) -> Array:
        """int64[n]: bools, ints, durations and times in nanoseconds, lengths."""
        return self._number() if self._number else np.zeros(len(self), np.int64)

    @cached_property
    def double(self) -> Array:
        """float64[n]."""
        return self._double() if self._double else np.zeros(len(self), np.float64)

    @cached_property
    def text(self) -> StringColumn:
        """Text."""
        return self._text() if self._text else StringColumn.from_codes(np.full(len(self), -1), [])

    @cached_property
    def objects(self) -> tuple[Array, list[Any]]:
        """Codes int32[n] and the distinct lists, maps and byte strings."""
        return self._objects() if self._objects else (np.full(len(self), -1, np.int32), [])

    @cached_property
    def ids(self) -> Array:
        """uint64[n,2]; a span id in the second word."""
        return self._ids() if self._ids else np.zeros((len(self), 2), np.uint64)

    @cached_property
    def failed(self) -> Array:
        """bool[n]: the row has an evaluation error."""
        failed: Array = self.kind == Kind.FAILED
        return failed

    @cached_property
    def is_nil(self) -> Array:
        """bool[n]: nil; empty bytes compare as nil."""
        nil: Array = self.kind == Kind.NIL
        if Kind.BYTES in self.kinds:
            codes, distinct = self.objects
            empty = np.array([*(not value for value in distinct), False])
            nil |= (self.kind == Kind.BYTES) & empty[codes]
        return nil

    def take(self, rows: Array) -> Values:
        """The rows of these indices."""
        return Values(
            self.kind[rows],
            number=lambda: self.number[rows],
            double=lambda: self.double[rows],
            text=lambda: self.text.take(rows),
            objects=lambda: (self.objects[0][rows], self.objects[1]),
            ids=lambda: self.ids[rows],
        )

    def failing(self, where: Array) -> Values:
        """The same, with errors on the rows of ``where``."""
        return self.with_kind(np.where(where, np.uint8(Kind.FAILED), self.kind)) if where.any() else self

    def with_kind(self, kind: Array) -> Values:
        """Another kind for the same payloads; of one row or as many as it has."""
        return Values(
            kind,
            number=lambda: self.number,
            double=lambda: self.double,
            text=lambda: self.text,
            objects=lambda: self.objects,
            ids=lambda: self.ids,
        )

    @classmethod
    def of(cls, scalars: Sequence[Scalar]) -> Values:
        """A column of these values; an exact type is a kind."""
        kind = np.fromiter((_KINDS[type(value)] for value in scalars), np.uint8, len(scalars))
        objects = [value if type(value) in {list, dict, bytes} else None for value in scalars]
        return cls(
            kind,
            number=lambda: np.array(
                [int(value) if isinstance(value, int) else 0 for value in scalars],
                np.int64,
            ),
            double=lambda: np.array([value if isinstance(value, float) else 0.0 for value in scalars]),
            text=lambda: StringColumn.of([value if isinstance(value, str) else None for value in scalars]),
            objects=lambda: (np.arange(len(scalars), dtype=np.int32), objects),
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
        )

    @classmethod
    def constant(cls, value: Scalar) -> Values:
        """One value for every row."""
        return cls.of([value])

    @classmethod
    def of_text(cls, column: StringColumn) -> Values:
        """Text; an unset field reads as the empty string."""
        return cls(np.full(len(column), Kind.STRING, np.uint8), text=lambda: column.fill(""))

    @classmethod
    def of_numbers(cls, kind: Kind, numbers: Array, where: Array | None = None) -> Values:
        """Numbers of one kind (unsigned ones wrap as in Go); nil where ``where`` is False."""
        kinds = (
            np.full(len(numbers), kind, np.uint8)
            if where is None
            else np.where(where, np.uint8(kind), np.uint8(Kind.NIL))
        )
        if kind is Kind.DOUBLE:
            return cls(kinds, double=lambda: numbers)
        return cls(kinds, number=lambda: numbers.astype(np.int64))

    @classmethod
    def of_ids(cls, kind: Kind, ids: Array) -> Values:
        """Trace ids uint64[n,2] or span ids uint64[n]."""
        return cls(
            np.full(len(ids), kind, np.uint8),
            ids=lambda: ids if ids.ndim == 2 else np.stack([np.zeros(len(ids), np.uint64), ids], axis=1),
        )

    @classmethod
    def of_attributes(cls, column: AttributeColumn) -> Values:
        """Attribute values; absent and empty ones are nil."""
        kind = np.where(column.kind == KIND_ABSENT, np.uint8(Kind.NIL), column.kind)

        def objects() -> tuple[Array, list[Any]]:
            encoded = np.isin(kind, _OBJECTS)
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
        """Each row as a code int32[n] of a list of distinct values."""
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
            elif kind in _WHOLE:
                numbers, found = np.unique(self.number[rows], return_inverse=True)
                distinct = [_SCALARS[Kind(kind)](number) for number in numbers.tolist()]
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
                found, distinct = 0, [None if kind == Kind.NIL else _FAILED]
            codes[rows] = found + len(values)
            values.extend(distinct)
        return codes, values


_CACHED_VALUES: Final = 8_192
_CACHED_CHARS: Final = 1_024


def apply(
    function: Callable[..., Scalar], arguments: Sequence[Values], cache: dict[str, Scalar] | None = None
) -> Values:
    """``function`` of the arguments' values, called once for each distinct combination; rows with a failed argument fail.

    ``cache``: results for texts of earlier batches, where the text is all that varies; it is emptied when it is full.
    """
    coded = [argument.scalars() for argument in arguments]
    varying = [index for index, (codes, _) in enumerate(coded) if len(codes) > 1]
    fixed = [
        None if index in varying else values[codes[0]] if len(codes) else None
        for index, (codes, values) in enumerate(coded)
    ]
    if not varying:
        if any(len(codes) == 0 for codes, _ in coded):
            return Values.of([])
        return Values.of([_result(function, fixed)])
    if len(varying) == 1:
        (place,) = varying
        codes, values = coded[place]
        results: list[Scalar] = [None] * len(values)
        for code in np.flatnonzero(np.bincount(codes, minlength=len(values))).tolist():
            value = values[code]
            if cache is not None and type(value) is str and len(value) <= _CACHED_CHARS:
                result = cache.get(value, _MISSING)
                if result is _MISSING:
                    if len(cache) >= _CACHED_VALUES:
                        cache.clear()
                    result = cache[value] = _result(function, [*fixed[:place], value, *fixed[place + 1 :]])
            else:
                result = _result(function, [*fixed[:place], value, *fixed[place + 1 :]])
            results[code] = result
        return Values.of(results).take(codes)
    combined = groups(*(coded[place][0] for place in varying))
    results = []
    for row in combined.first.tolist():
        for place in varying:
            fixed[place] = coded[place][1][coded[place][0][row]]
        results.append(_result(function, fixed))
    return Values.of(results).take(combined.codes)


_MISSING: Final = object()


def _result(function: Callable[..., Scalar], arguments: Sequence[Scalar]) -> Scalar:
    if any(argument is _FAILED for argument in arguments):
        return _FAILED
    try:
        return function(*arguments)
    except (Failure, RecursionError):  # JSON from outside may be nested almost as deep as Python goes
        return _FAILED


_OPERATORS: Final[dict[str, Callable[[Any, Any], Any]]] = {
    "==": operator.eq,
    "!=": operator.ne,
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}


def compare(symbol: str, left: Values, right: Values) -> Array:
    """bool[n]: the comparison holds. Rows that failed are the caller's. Types that do not compare are unequal, and in no order."""
    function = _OPERATORS[symbol]
    left_nil, right_nil = left.is_nil, right.is_nil
    result = np.full(max(len(left), len(right)) if len(left) and len(right) else 0, symbol == "!=")
    both_nil = left_nil & right_nil
    if both_nil.any():
        result = np.where(both_nil, symbol in {"==", "<=", ">="}, result)
    for kind in (Kind.BOOL, Kind.DURATION, Kind.TIME, Kind.INT):
        if (both := _both(left, kind, right, kind)) is not None:
            result = np.where(both, function(left.number, right.number), result)
    for ours, theirs in ((Kind.INT, Kind.DOUBLE), (Kind.DOUBLE, Kind.INT), (Kind.DOUBLE, Kind.DOUBLE)):
        if (both := _both(left, ours, right, theirs)) is not None:
            result = np.where(both, function(_real(left, ours), _real(right, theirs)), result)
    if symbol in {"==", "!="}:
        for kind in _IDS:
            if (both := _both(left, kind, right, kind)) is not None:
                result = np.where(both, _equal_ids(left, right) == (symbol == "=="), result)
    if (both := _both(left, Kind.STRING, right, Kind.STRING)) is not None:
        result = np.where(both, _compare_text(symbol, left.text, right.text), result)
    for kind in _OBJECTS:
        if (both := _both(left, kind, right, kind)) is not None:
            result = np.where(both & ~(left_nil | right_nil), _compare_objects(symbol, kind, left, right), result)
    return result


def _both(left: Values, ours: Kind, right: Values, theirs: Kind) -> Array | None:
    """bool[n]: the rows with these kinds; None if there are none."""
    if ours not in left.kinds or theirs not in right.kinds:
        return None
    both: Array = (left.kind == ours) & (right.kind == theirs)
    return both if both.any() else None


def _real(values: Values, kind: Kind) -> Array:
    return values.number.astype(np.float64) if kind is Kind.INT else values.double


def _equal_ids(left: Values, right: Values) -> Array:
    equal: Array = (left.ids[:, 0] == right.ids[:, 0]) & (left.ids[:, 1] == right.ids[:, 1])
    return equal


def _compare_text(symbol: str, left: StringColumn, right: StringColumn) -> Array:
    """Code points are in the order of their UTF-8, so that Python's order is Go's."""
    function = _OPERATORS[symbol]
    if len(right) == 1 and right.codes[0] >= 0:
        return _compare_with(symbol, left, right.distinct[right.codes[0]])
    if len(left) == 1 and left.codes[0] >= 0:
        return _compare_with(_SWAPPED.get(symbol, symbol), right, left.distinct[left.codes[0]])
    if len(left) != len(right):
        return np.zeros(max(len(left), len(right)), np.bool_)
    pairs = groups(left.codes, right.codes)
    rows = pairs.first.tolist()
    outcome = [
        bool(function(left.distinct[left.codes[row]], right.distinct[right.codes[row]]))
        if left.codes[row] >= 0 and right.codes[row] >= 0
        else False
        for row in rows
    ]
    return np.array(outcome, np.bool_)[pairs.codes]


_SWAPPED: Final = {"<": ">", "<=": ">=", ">": "<", ">=": "<="}


def _compare_with(symbol: str, column: StringColumn, text: str) -> Array:
    if symbol in {"==", "!="}:
        equal_rows = column.equals(text)
        return equal_rows if symbol == "==" else ~equal_rows
    function = _OPERATORS[symbol]
    return column.where(lambda value: bool(function(value, text)))


def _compare_objects(symbol: str, kind: Kind, left: Values, right: Values) -> Array:
    function = _OPERATORS[symbol]

    def outcome(ours: Any, theirs: Any) -> bool:
        if _KINDS.get(type(ours)) is not kind or _KINDS.get(type(theirs)) is not kind:
            return False
        if kind is Kind.BYTES:
            return bool(function(ours, theirs))
        return symbol in {"==", "!="} and same(ours, theirs) == (symbol == "==")

    result = apply(outcome, [_only(left, kind), _only(right, kind)])
    return result.number.astype(np.bool_)


def _only(values: Values, kind: Kind) -> Values:
    return values.with_kind(np.where(values.kind == kind, values.kind, np.uint8(Kind.NIL)))


def same(left: Any, right: Any) -> bool:
    """Deeply equal, of equal types: 1 is not 1.0."""
    if type(left) is not type(right):
        return False
    if isinstance(left, list):
        return len(left) == len(right) and all(map(same, left, right))
    if isinstance(left, dict):
        return left.keys() == right.keys() and all(same(value, right[key]) for key, value in left.items())
    return bool(left == right)


def equal(left: Scalar, right: Scalar) -> bool:
    """``==`` of two single values by OTTL's rules."""
    return bool(compare("==", Values.constant(left), Values.constant(right))[0])


def negate(operand: Values) -> Values:
    """``-x`` of ints and doubles; else an error."""
    kind = np.where(np.isin(operand.kind, (Kind.INT, Kind.DOUBLE)), operand.kind, np.uint8(Kind.FAILED))
    return Values(kind, number=lambda: -operand.number, double=lambda: -operand.double)


def compute(symbol: str, left: Values, right: Values) -> Values:
    """``+ - * /`` of numbers, durations and times; ints wrap, and divide toward zero.

    Division by zero and types that do not compute are errors.
    """
    ours, theirs = np.broadcast_arrays(left.kind, right.kind)
    kind = np.full(len(ours), Kind.FAILED, np.uint8)
    whole = (ours == Kind.INT) & (theirs == Kind.INT)
    real = np.isin(ours, (Kind.INT, Kind.DOUBLE)) & np.isin(theirs, (Kind.INT, Kind.DOUBLE)) & ~whole
    kind[whole] = Kind.INT
    kind[real] = Kind.DOUBLE
    saturates = np.zeros(len(ours), np.bool_)
    if symbol in {"+", "-"}:
        kind[(ours == Kind.DURATION) & (theirs == Kind.DURATION)] = Kind.DURATION
        moved = (ours == Kind.TIME) & (theirs == Kind.DURATION)
        if symbol == "+":
            moved |= (ours == Kind.DURATION) & (theirs == Kind.TIME)
        between = (ours == Kind.TIME) & (theirs == Kind.TIME) if symbol == "-" else np.zeros_like(moved)
        kind[moved] = Kind.TIME
        kind[between] = Kind.DURATION
        saturates = moved | between
    with np.errstate(all="ignore"):
        left_real = np.where(ours == Kind.INT, left.number.astype(np.float64), left.double)
        right_real = np.where(theirs == Kind.INT, right.number.astype(np.float64), right.double)
        if symbol == "/":
            zero = np.where(whole, right.number == 0, right_real == 0)
            kind[zero & (whole | real)] = Kind.FAILED
            divisor = np.where(right.number == 0, 1, right.number)
            number = left.number // divisor
            number += (number * divisor != left.number) & ((left.number < 0) != (divisor < 0))
            double = left_real / np.where(right_real == 0, 1.0, right_real)
        else:
            function: Callable[[Any, Any], Array] = {"+": np.add, "-": np.subtract, "*": np.multiply}[symbol]
            number = function(left.number, right.number)
            double = function(left_real, right_real)
            if saturates.any():
                limit = np.where(left.number < 0, _INT64.min, _INT64.max)
                opposite = (
                    (left.number < 0) != (right.number < 0)
                    if symbol == "+"
                    else (left.number < 0) == (right.number < 0)
                )
                number = np.where(saturates & ~opposite & ((number < 0) != (left.number < 0)), limit, number)
    return Values(kind, number=lambda: number, double=lambda: double)
