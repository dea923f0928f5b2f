"""The implementations of the converters that conditions may call.

Most are functions of single values, which are called once per distinct value. Those of durations, times and ids, which
usually differ on every row, are functions of columns. A few need the whole batch. The functions ``check_…`` validate
literal arguments when a condition is compiled.
Source: opentelemetry-collector-contrib pkg/ottl/ottlfuncs (README, v0.156) and internal/filter/filterottl.
"""

import ipaddress
import json
import math
import struct
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, Final

import numpy as np

from collector.model import METRIC_NONE, StringColumn
from collector.ottl.operations import apply, equal
from collector.ottl.text import lower, parse_bool, parse_double, parse_int, text_of, upper
from collector.ottl.text_forms import camel_case, snake_case
from collector.ottl.values import Array, EvaluationError, Kind, Scalar, SpanId, TraceId, Values, is_of
from collector.ottl.view import View
from collector.text.cache import TextCache
from collector.text.patterns import Pattern, compile_pattern

__all__ = [
    "check_case",
    "check_coalesce",
    "check_id",
    "check_networks",
    "check_pattern",
    "coalesce",
    "concat",
    "contains_value",
    "convert_case",
    "expect_text",
    "has_attribute_on_point",
    "id_parser",
    "in_networks",
    "in_unit",
    "index_of",
    "is_kind",
    "is_match",
    "is_root_span",
    "length",
    "matches",
    "parse_integer",
    "parse_json",
    "profile_id",
    "span_id",
    "split",
    "substring",
    "to_bool",
    "to_double",
    "to_hex",
    "to_int",
    "trace_id",
    "trim",
    "unix_time",
]


def expect_text(value: Scalar) -> str:
    """The value, if it is a text. Raises EvaluationError otherwise."""
    if type(value) is not str:
        raise EvaluationError
    return value


def _expect_int(value: Scalar) -> int:
    if type(value) is not int:
        raise EvaluationError
    return value


def _expect_list(value: Scalar) -> list[Any]:
    if type(value) is not list:
        raise EvaluationError
    return value


# Text.


def is_match(target: Scalar, pattern: Scalar, compile_text: Callable[[str], Pattern] = compile_pattern) -> bool:
    """Whether the pattern is found in the text of the value. ``compile_text`` may cache compiled patterns."""
    try:
        compiled = compile_text(expect_text(pattern))
    except ValueError:
        raise EvaluationError from None
    text = text_of(target)
    return text is not None and compiled.search(text) is not None


def matches(column: StringColumn, search: Callable[[str], Any], cache: TextCache[Scalar]) -> Values:
    """``is_match`` of a column of texts. ``cache`` keeps the results of one pattern."""
    found = np.zeros(column.distinct_count, np.bool_)
    for code, text in enumerate(column.distinct):
        known = cache.get(text, None)
        if known is None:
            known = search(text) is not None
            cache.put(text, known)
        found[code] = known
    return Values.of_numbers(Kind.BOOL, found[column.codes])


def check_pattern(literals: Mapping[int, Scalar]) -> None:
    """Check the pattern of ``IsMatch``."""
    if isinstance(literals.get(1), str):
        compile_pattern(literals[1])


def concat(_: View, arguments: Sequence[Any]) -> Values:
    """The texts of the values, joined by the delimiter; nil is ``<nil>``."""
    values, delimiter = arguments
    return apply(
        lambda separator, *parts: expect_text(separator).join(
            "<nil>" if (text := text_of(part)) is None else text for part in parts
        ),
        [delimiter, *values],
    )


_CASES: Final[dict[str, Callable[[str], str]]] = {
    "lower": lower,
    "upper": upper,
    "snake": snake_case,
    "camel": camel_case,
}


def convert_case(target: Scalar, case: str) -> str:
    """The text in lower, upper, snake or camel case."""
    return _CASES[case](expect_text(target))


def check_case(literals: Mapping[int, Scalar]) -> None:
    """Check the case of ``ConvertCase``."""
    if literals.get(1) not in _CASES:
        raise ValueError(f"{literals.get(1)!r} is not a case; expected lower, upper, snake or camel")


def _substring_of(target: Scalar, start: Scalar, length: Scalar, *, utf8_safe: bool) -> str:
    first, count = _expect_int(start), _expect_int(length)
    raw = expect_text(target).encode()
    if first < 0 or count <= 0 or first + count > len(raw):
        raise EvaluationError
    end = first + count
    if utf8_safe:
        while first < len(raw) and raw[first] & 0xC0 == 0x80:
            first += 1
        while first < end < len(raw) and raw[end] & 0xC0 == 0x80:
            end -= 1
    return raw[first : max(first, end)].decode("utf-8", "replace")


def substring(_: View, arguments: Sequence[Any]) -> Values:
    """The part of a text from a byte offset on; ``utf8_safe`` moves both ends to character boundaries."""
    target, start, length, utf8_safe = arguments
    return apply(partial(_substring_of, utf8_safe=bool(utf8_safe)), [target, start, length])


_MAX_PARTS: Final = 1_000_000


def split(target: Scalar, delimiter: Scalar) -> list[str]:
    """The parts of a text between the delimiters; its characters if the delimiter is empty."""
    text, separator = expect_text(target), expect_text(delimiter)
    if not separator and len(text) > _MAX_PARTS:
        raise EvaluationError
    return text.split(separator) if separator else list(text)


def trim(_: View, arguments: Sequence[Any]) -> Values:
    """The text without these characters, by default spaces, at both ends."""
    target, characters = arguments
    cut = " " if characters is None else characters
    return apply(lambda value: expect_text(value).strip(cut) if cut else expect_text(value), [target])


def index_of(target: Scalar, value: Scalar) -> int:
    """The byte offset of a text in a text, or the index of an item in a list; -1 if it is not there."""
    if isinstance(target, str):
        found = target.find(expect_text(value))
        return found if found < 0 else len(target[:found].encode())
    return next((place for place, item in enumerate(_expect_list(target)) if equal(item, value)), -1)


# Types and numbers.

_INT64_MIN: Final = np.iinfo(np.int64).min
_NUMBERS: Final = (Kind.INT, Kind.DOUBLE, Kind.BOOL)


def is_kind(*kinds: int) -> Callable[[Values], Values]:
    """Whether the value is of one of the kinds."""

    def evaluate(target: Values) -> Values:
        is_of_kind: Array = is_of(target.kind, *kinds)
        return Values.of_numbers(Kind.BOOL, is_of_kind).with_failures(target.failed)

    return evaluate


def length(target: Values) -> Values:
    """The length of a text in bytes, or the number of elements of a list or map."""
    if target.lengths is not None:
        known = is_of(target.kind, Kind.ITEMS, Kind.MAP, Kind.LIST)
        return Values.of_numbers(Kind.INT, target.lengths()).with_failures(~known)
    return apply(_length_of, [target])


def _length_of(value: Scalar) -> int:
    if isinstance(value, str):
        return len(value.encode())
    if type(value) in {list, dict, bytes}:
        return len(value)
    raise EvaluationError


def to_int(target: Values) -> Values:
    """Numbers as arrays, text once per distinct value; a text that is not a number is nil."""
    texts = apply(_int_of, [target.with_kind(_without_numbers(target))])
    kind = np.where(is_of(target.kind, *_NUMBERS), np.uint8(Kind.INT), texts.kind)

    def number() -> Array:
        # A double that does not fit becomes the smallest int64, as on the CPUs that the Collector mostly runs on.
        fits = (target.double >= -(2.0**63)) & (target.double < 2.0**63)
        doubles = np.where(fits, np.where(fits, target.double, 0.0).astype(np.int64), _INT64_MIN)
        whole = is_of(target.kind, Kind.INT, Kind.BOOL)
        return np.where(whole, target.number, np.where(target.kind == Kind.DOUBLE, doubles, texts.number))

    return Values(kind, number=number)


def _int_of(value: Scalar) -> int | None:
    if value is None:
        return None
    try:
        return parse_int(expect_text(value))
    except EvaluationError:
        if isinstance(value, str):
            return None
        raise


def to_double(target: Values) -> Values:
    """Numbers as arrays, text once per distinct value; a text that is not a number is an error."""
    texts = apply(
        lambda value: None if value is None else parse_double(expect_text(value)),
        [target.with_kind(_without_numbers(target))],
    )
    whole = is_of(target.kind, Kind.INT, Kind.BOOL)
    kind = np.where(whole | (target.kind == Kind.DOUBLE), np.uint8(Kind.DOUBLE), texts.kind)
    return Values(
        kind,
        double=lambda: np.where(
            whole, target.number.astype(np.float64), np.where(target.kind == Kind.DOUBLE, target.double, texts.double)
        ),
    )


def _without_numbers(target: Values) -> Array:
    """The kinds, with nil for numbers and bools, which are converted as arrays."""
    return np.where(is_of(target.kind, *_NUMBERS), np.uint8(Kind.NIL), target.kind)


def to_bool(value: Scalar) -> bool | None:
    """The value as a bool: numbers other than 0 are true."""
    if value is None:
        return None
    if isinstance(value, str):
        return parse_bool(value)
    if type(value) in {bool, int, float}:
        return bool(value != 0)
    raise EvaluationError


def parse_integer(target: Scalar, base: Scalar) -> int:
    """The integer that a text represents in a base."""
    return parse_int(expect_text(target), _expect_int(base))


def coalesce(_: View, arguments: Sequence[Any]) -> Values:
    """The first value that is not nil."""
    (values,) = arguments
    return apply(lambda *parts: next((part for part in parts if part is not None), None), values)


def check_coalesce(literals: Mapping[int, Scalar]) -> None:
    """Check the values of ``Coalesce``."""
    if literals.get(0) == []:
        raise ValueError("at least one value is required")


def contains_value(target: Scalar, item: Scalar) -> bool:
    """Whether a list contains an item."""
    return any(equal(element, item) for element in _expect_list(target))


def parse_json(target: Scalar) -> Scalar:
    """The list or map of a JSON text."""
    try:
        value = json.loads(expect_text(target), parse_int=_finite, parse_float=_finite, parse_constant=_finite)
    except (ValueError, RecursionError):
        raise EvaluationError from None
    if type(value) not in {list, dict}:
        raise EvaluationError
    return value


def _finite(text: str) -> float:
    """A JSON number as a double; NaN, Infinity and numbers that are too large are errors."""
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(text)
    return value


# Times.


def in_unit(nanoseconds: int, *, real: bool = False) -> Callable[[Values], Values]:
    """A duration in a unit of this length, as a double or truncated toward zero."""

    def evaluate(target: Values) -> Values:
        kind = np.where(
            target.kind == Kind.DURATION, np.uint8(Kind.DOUBLE if real else Kind.INT), np.uint8(Kind.FAILED)
        )

        def whole() -> Array:
            units: Array = target.number // nanoseconds
            units += (target.number % nanoseconds != 0) & (target.number < 0)
            return units

        def double() -> Array:
            units = whole()
            exact: Array = (
                units.astype(np.float64) + (target.number - units * nanoseconds).astype(np.float64) / nanoseconds
            )
            return exact

        return Values(kind, number=whole, double=double)

    return evaluate


def unix_time(nanoseconds: int) -> Callable[[Values], Values]:
    """A time as the number of units of this length since 1970."""

    def evaluate(target: Values) -> Values:
        kind = np.where(target.kind == Kind.TIME, np.uint8(Kind.INT), np.uint8(Kind.FAILED))
        return Values(kind, number=lambda: target.number // nanoseconds)

    return evaluate


# Ids and addresses.


def id_parser(id_type: type[bytes], length: int) -> Callable[[Scalar], bytes]:
    """A function that makes an id from its bytes or hexadecimal digits."""

    def function(value: Scalar) -> bytes:
        raw = value.encode() if isinstance(value, str) else value
        if type(raw) is not bytes or len(raw) not in {length, 2 * length}:
            raise EvaluationError
        try:
            return id_type(raw) if len(raw) == length else id_type(bytes.fromhex(raw.decode("ascii")))
        except ValueError:
            raise EvaluationError from None

    return function


def check_id(function: Callable[[Scalar], bytes], name: str, length: int) -> Callable[[Mapping[int, Scalar]], None]:
    """A check of the argument of ``TraceID`` or ``SpanID``."""

    def check(literals: Mapping[int, Scalar]) -> None:
        if 0 in literals:
            try:
                function(literals[0])
            except EvaluationError:
                raise ValueError(
                    f"{literals[0]!r} is not a valid {name}; "
                    f"expected {length} bytes (0x…) or {2 * length} hexadecimal digits"
                ) from None

    return check


def to_hex(value: Scalar) -> str:
    """The bytes of a value in hexadecimal: of numbers as 8 bytes, the highest first; nothing of nil."""
    if value is None:
        return ""
    if type(value) is bool:
        return "01" if value else "00"
    if type(value) is int:
        return struct.pack(">q", value).hex()
    if type(value) is float:
        return struct.pack(">d", value).hex()
    if type(value) is bytes:
        return value.hex()
    return expect_text(value).encode().hex()


trace_id: Final = id_parser(TraceId, 16)
span_id: Final = id_parser(SpanId, 8)
profile_id: Final = id_parser(TraceId, 16)


def in_networks(_: View, arguments: Sequence[Any]) -> Values:
    """Whether an IP address is in one of the networks."""
    target, networks = arguments
    return apply(lambda value, *texts: _in_any(expect_text(value), texts), [target, *networks])


def _in_any(text: str, networks: Sequence[Scalar]) -> bool:
    address = _address(text)
    if address is None:
        return False
    return any(address in network for network in map(_network, networks) if network.version == address.version)


def _address(text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return None
    if isinstance(address, ipaddress.IPv6Address):
        return None if address.scope_id else address.ipv4_mapped or address
    return address


def _network(text: Scalar) -> ipaddress.IPv4Network | ipaddress.IPv6Network:
    if not expect_text(text).partition("/")[2].isdecimal():
        raise EvaluationError
    try:
        return ipaddress.ip_network(text, strict=False)
    except ValueError:
        raise EvaluationError from None


def check_networks(literals: Mapping[int, Scalar]) -> None:
    """Check the networks of ``IsInCIDR``."""
    for text in literals.get(1, []):
        try:
            _network(text)
        except EvaluationError:
            raise ValueError(f"{text!r} is not a valid network in CIDR notation (example: 10.0.0.0/8)") from None


# Converters of a single context.


def is_root_span(view: View, _: Sequence[Any]) -> Values:
    """Whether the span has no parent."""
    return Values.of_numbers(Kind.BOOL, view.batch.field("parent_span_id", "spans") == 0)


def has_attribute_on_point(view: View, arguments: Sequence[Any]) -> Values:
    """Per metric, whether any of its points has the key.

    If a value is expected, the first such point must have it, as in the Collector.
    """
    key, expected = arguments if len(arguments) == 2 else (arguments[0], None)
    column = view.batch.attribute(key, "points")
    points = np.flatnonzero(column.present)
    metrics, first = np.unique(view.batch.table("points").parent[points], return_index=True)
    result = np.zeros(view.row_count, np.bool_)
    result[metrics] = True if expected is None else column.text.fill("").take(points[first]).equals(expected)
    return Values.of_numbers(Kind.BOOL, result).with_failures(view.batch.field("type", "metrics") == METRIC_NONE)
