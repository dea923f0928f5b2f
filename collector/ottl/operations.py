"""Operations on columns of OTTL values: apply a function, compare, compute.

Numbers are processed as arrays, text, maps and lists once per distinct value.
Source: opentelemetry-collector-contrib pkg/ottl (compare.go, math.go, LANGUAGE.md "Comparison Rules").
"""

from __future__ import annotations

import operator
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from collector.model import StringColumn, groups
from collector.model.arrays import some
from collector.ottl.values import FAILED, KINDS, EvaluationError, Kind, Scalar, Values, is_of

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from collector.model.arrays import Array
    from collector.text.cache import TextCache

__all__ = ["apply", "compare", "compute", "equal", "negate"]

_INT64: Final = np.iinfo(np.int64)
_WHOLE: Final = frozenset({Kind.BOOL, Kind.INT, Kind.DURATION, Kind.TIME})
_REAL: Final = ((Kind.INT, Kind.DOUBLE), (Kind.DOUBLE, Kind.INT), (Kind.DOUBLE, Kind.DOUBLE))
_ID_KINDS: Final = frozenset({Kind.TRACE_ID, Kind.SPAN_ID})
_OBJECT_KINDS: Final = frozenset({Kind.LIST, Kind.MAP, Kind.BYTES})
_MAYBE_NIL: Final = frozenset({Kind.NIL, Kind.BYTES})


def apply(
    function: Callable[..., Scalar], arguments: Sequence[Values], cache: TextCache[Scalar] | None = None
) -> Values:
    """``function`` of the arguments, called once per distinct combination of values; rows with a failed argument fail.

    ``cache`` keeps the results for texts of earlier batches if one text is all that varies.
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
        if FAILED in fixed:
            return Values.of([FAILED]).take(np.zeros(len(codes), np.int64))
        return Values.of(_of_distinct(function, fixed, place, codes, values, cache)).take(codes)
    combined = groups(*(coded[place][0] for place in varying))
    results: list[Scalar] = []
    for row in combined.first.tolist():
        for place in varying:
            fixed[place] = coded[place][1][coded[place][0][row]]
        results.append(_result(function, fixed))
    return Values.of(results).take(combined.codes)


_MISSING: Final = object()


def _of_distinct(
    function: Callable[..., Scalar],
    fixed: Sequence[Scalar],
    place: int,
    codes: Array,
    values: Sequence[Scalar],
    cache: TextCache[Scalar] | None,
) -> list[Scalar]:
    """The results for the values that occur, as the argument ``place`` beside fixed ones; None for the others."""
    results: list[Scalar] = [None] * len(values)
    before, after = fixed[:place], fixed[place + 1 :]
    used = range(len(values)) if len(values) == 1 else np.bincount(codes, minlength=len(values)).nonzero()[0].tolist()
    for code in used:
        value = values[code]
        is_cached = cache is not None and type(value) is str
        if is_cached:
            result = cache.get(value, _MISSING)  # type: ignore[union-attr]
            if result is not _MISSING:
                results[code] = result
                continue
        if value is FAILED:
            results[code] = FAILED
            continue
        try:
            result = function(*before, value, *after)
        except (EvaluationError, RecursionError):  # received JSON may be nested almost as deep as Python allows
            result = FAILED
        if isinstance(result, int) and not _INT64.min <= result <= _INT64.max:
            result = FAILED
        if is_cached:
            cache.put(value, result)  # type: ignore[union-attr]
        results[code] = result
    return results


def _result(function: Callable[..., Scalar], arguments: Sequence[Scalar]) -> Scalar:
    if any(argument is FAILED for argument in arguments):
        return FAILED
    try:
        result = function(*arguments)
        return result if not isinstance(result, int) or _INT64.min <= result <= _INT64.max else FAILED
    except (EvaluationError, RecursionError):  # received JSON may be nested almost as deep as Python's recursion limit
        return FAILED


_OPERATORS: Final[dict[str, Callable[[Any, Any], Any]]] = {
    "==": operator.eq,
    "!=": operator.ne,
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}


def compare(symbol: str, left: Values, right: Values) -> Array:
    """bool[n]: whether the comparison holds. The result of failed rows is meaningless.

    Values of types that do not compare are unequal and have no order.
    """
    function = _OPERATORS[symbol]
    if left.kinds == right.kinds and len(left) and len(right):
        if left.kinds in _NUMBERS:
            return np.asarray(function(left.number, right.number), np.bool_)
        if left.kinds == _DOUBLES:
            return np.asarray(function(left.double, right.double), np.bool_)
        if left.kinds == _STRINGS:
            return _compare_text(symbol, left.text, right.text)
    left_kinds, right_kinds = left.kinds, right.kinds
    result = np.full(max(len(left), len(right)) if len(left) and len(right) else 0, symbol == "!=")
    if left_kinds & _MAYBE_NIL and right_kinds & _MAYBE_NIL:
        both_nil = left.is_nil & right.is_nil
        if some(both_nil):
            result = np.where(both_nil, symbol in {"==", "<=", ">="}, result)
    for kind in left_kinds & right_kinds & _WHOLE:
        rows = (left.kind == kind) & (right.kind == kind)
        result = np.where(rows, function(left.number, right.number), result)
    if Kind.DOUBLE in left_kinds or Kind.DOUBLE in right_kinds:
        for left_kind, right_kind in _REAL:
            if (rows := _rows_of_kinds(left, left_kind, right, right_kind)) is not None:
                result = np.where(rows, function(_as_double(left, left_kind), _as_double(right, right_kind)), result)
    if symbol in {"==", "!="}:
        for kind in left_kinds & right_kinds & _ID_KINDS:
            rows = (left.kind == kind) & (right.kind == kind)
            result = np.where(rows, _equal_ids(left, right) == (symbol == "=="), result)
    if Kind.STRING in left_kinds and Kind.STRING in right_kinds:
        rows = (left.kind == Kind.STRING) & (right.kind == Kind.STRING)
        result = np.where(rows, _compare_text(symbol, left.text, right.text), result)
    for kind in left_kinds & right_kinds & _OBJECT_KINDS:
        rows = (left.kind == kind) & (right.kind == kind) & ~(left.is_nil | right.is_nil)
        result = np.where(rows, _compare_objects(symbol, kind, left, right), result)
    return result


def _rows_of_kinds(left: Values, left_kind: int, right: Values, right_kind: int) -> Array | None:
    """bool[n]: the rows with these kinds on either side; None if there are none."""
    if left_kind not in left.kinds or right_kind not in right.kinds:
        return None
    rows: Array = (left.kind == left_kind) & (right.kind == right_kind)
    return rows if some(rows) else None


def _as_double(values: Values, kind: int) -> Array:
    return values.number.astype(np.float64) if kind == Kind.INT else values.double


def _equal_ids(left: Values, right: Values) -> Array:
    equal: Array = (left.ids[:, 0] == right.ids[:, 0]) & (left.ids[:, 1] == right.ids[:, 1])
    return equal


def _compare_text(symbol: str, left: StringColumn, right: StringColumn) -> Array:
    """Compare by code point, which is the order of UTF-8 bytes and therefore the order in Go."""
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


def _compare_objects(symbol: str, kind: int, left: Values, right: Values) -> Array:
    function = _OPERATORS[symbol]

    def outcome(left_value: Any, right_value: Any) -> bool:
        if KINDS.get(type(left_value)) != kind or KINDS.get(type(right_value)) != kind:
            return False
        if kind == Kind.BYTES:
            return bool(function(left_value, right_value))
        return symbol in {"==", "!="} and _deep_equal(left_value, right_value) == (symbol == "==")

    result = apply(outcome, [_restricted_to(left, kind), _restricted_to(right, kind)])
    return result.number.astype(np.bool_)


def _restricted_to(values: Values, kind: int) -> Values:
    return values.with_kind(np.where(values.kind == kind, values.kind, np.uint8(Kind.NIL)))


def _deep_equal(left: Any, right: Any) -> bool:
    """Whether values are equal and of equal types at all depths: 1 is not 1.0."""
    if type(left) is not type(right):
        return False
    if isinstance(left, list):
        return len(left) == len(right) and all(map(_deep_equal, left, right))
    if isinstance(left, dict):
        return left.keys() == right.keys() and all(_deep_equal(value, right[key]) for key, value in left.items())
    return bool(left == right)


def equal(left: Scalar, right: Scalar) -> bool:
    """Whether two single values are equal by OTTL's rules."""
    return bool(compare("==", Values.constant(left), Values.constant(right))[0])


def negate(operand: Values) -> Values:
    """``-x`` of ints and doubles; an error for other kinds."""
    kind = np.where(is_of(operand.kind, Kind.INT, Kind.DOUBLE), operand.kind, np.uint8(Kind.FAILED))
    return Values(kind, number=lambda: -operand.number, double=lambda: -operand.double)


def compute(symbol: str, left: Values, right: Values) -> Values:
    """``+ - * /`` of numbers, durations and times. Ints wrap around, and their division truncates toward zero.

    Division by zero and types that do not support the operation are errors.
    """
    if left.kinds == right.kinds and (quick := _computed_quickly(symbol, left, right)) is not None:
        return quick
    left_kind, right_kind = np.broadcast_arrays(left.kind, right.kind)
    kind = np.full(len(left_kind), Kind.FAILED, np.uint8)
    whole = (left_kind == Kind.INT) & (right_kind == Kind.INT)
    real = is_of(left_kind, Kind.INT, Kind.DOUBLE) & is_of(right_kind, Kind.INT, Kind.DOUBLE) & ~whole
    kind[whole] = Kind.INT
    kind[real] = Kind.DOUBLE
    saturates = np.zeros(len(left_kind), np.bool_)
    if symbol in {"+", "-"}:
        kind[(left_kind == Kind.DURATION) & (right_kind == Kind.DURATION)] = Kind.DURATION
        moved = (left_kind == Kind.TIME) & (right_kind == Kind.DURATION)
        if symbol == "+":
            moved |= (left_kind == Kind.DURATION) & (right_kind == Kind.TIME)
        between = (left_kind == Kind.TIME) & (right_kind == Kind.TIME) if symbol == "-" else np.zeros_like(moved)
        kind[moved] = Kind.TIME
        kind[between] = Kind.DURATION
        saturates = moved | between
    with np.errstate(all="ignore"):
        left_real = np.where(left_kind == Kind.INT, left.number.astype(np.float64), left.double)
        right_real = np.where(right_kind == Kind.INT, right.number.astype(np.float64), right.double)
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
            if some(saturates):
                limit = np.where(left.number < 0, _INT64.min, _INT64.max)
                opposite = (
                    (left.number < 0) != (right.number < 0)
                    if symbol == "+"
                    else (left.number < 0) == (right.number < 0)
                )
                number = np.where(saturates & ~opposite & ((number < 0) != (left.number < 0)), limit, number)
    zoned = left if left.zones is not None else right
    zones = zoned.zones if zoned.zones is not None and len(zoned) == len(kind) else None
    return Values(kind, number=lambda: number, double=lambda: double, zones=zones)


def _computed_quickly(symbol: str, left: Values, right: Values) -> Values | None:
    """``+ - *`` of columns that have a single kind of number, times that cannot overflow among them; else None."""
    if left.zones is not None or right.zones is not None or not len(left) or not len(right):
        return None
    function = {"+": np.add, "-": np.subtract, "*": np.multiply}.get(symbol)
    if function is None:
        return None
    if left.kinds == _INTS:
        return Values.of_numbers(Kind.INT, function(left.number, right.number))
    if left.kinds == _DOUBLES:
        with np.errstate(all="ignore"):
            return Values.of_numbers(Kind.DOUBLE, function(left.double, right.double))
    if left.kinds == _TIMES and symbol == "-" and (left.number | right.number).min() >= 0:
        return Values.of_numbers(Kind.DURATION, left.number - right.number)
    return None


_INTS: Final = frozenset({Kind.INT})
_DOUBLES: Final = frozenset({Kind.DOUBLE})
_TIMES: Final = frozenset({Kind.TIME})
_STRINGS: Final = frozenset({Kind.STRING})
_NUMBERS: Final = (_INTS, _TIMES, frozenset({Kind.DURATION}), frozenset({Kind.BOOL}))
