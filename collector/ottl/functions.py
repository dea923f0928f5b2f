"""The converters that conditions may call: what they take and what they make of it.

Most are functions of single values, called once per distinct one; those on durations, times and ids, of which each row
has its own, are functions of columns.
Source: opentelemetry-collector-contrib pkg/ottl/ottlfuncs (README, v0.156) and internal/filter/filterottl.
"""

from __future__ import annotations

import ipaddress
import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Final, TypeAlias

import numpy as np

from collector.model import METRIC_NONE
from collector.ottl.paths import Context, View
from collector.ottl.text import duration, lower, parse_bool, parse_double, parse_int, text_of, upper
from collector.ottl.values import Array, Failure, Kind, Scalar, SpanId, TraceId, Values, apply, equal
from collector.text.patterns import compile_pattern

__all__ = ["FUNCTIONS", "Function", "Parameter"]


@dataclass(frozen=True, slots=True)
class Parameter:
    """One argument. ``form``: ``any``, ``text``, ``int``, ``literal text``, ``literal bool``, ``list`` (of any) or ``texts``."""

    name: str
    form: str = "text"
    optional: bool = False


Evaluate: TypeAlias = Callable[[View, Sequence[Any]], Values]
"""Columns for arguments, a list of columns for ``list`` and ``texts``, plain values for literals, None for what is not given."""


@dataclass(frozen=True, slots=True)
class Function:
    """A converter. ``check`` sees the arguments that are literals, by position, and raises ValueError."""

    parameters: tuple[Parameter, ...]
    evaluate: Callable[[], Evaluate]
    contexts: frozenset[Context] | None = None
    """None: all."""
    check: Callable[[Mapping[int, Scalar]], None] | None = None


def _scalar(function: Callable[..., Scalar], *, cached: bool = False) -> Callable[[], Evaluate]:
    """A converter that is a function of single values; each call site has its own cache."""

    def made() -> Evaluate:
        cache: dict[str, Scalar] | None = {} if cached else None
        return lambda _, arguments: apply(function, arguments, cache)

    return made


def _columns(function: Callable[..., Values]) -> Callable[[], Evaluate]:
    return lambda: lambda _, arguments: function(*arguments)


def _text(value: Scalar) -> str:
    if type(value) is not str:
        raise Failure
    return value


def _whole(value: Scalar) -> int:
    if type(value) is not int:
        raise Failure
    return value


def _listed(value: Scalar) -> list[Any]:
    if type(value) is not list:
        raise Failure
    return value


# Text.


def _is_match(target: Scalar, pattern: Scalar) -> bool:
    try:
        compiled = compile_pattern(_text(pattern))
    except ValueError:
        raise Failure from None
    text = text_of(target)
    return text is not None and compiled.search(text) is not None


def _check_pattern(literals: Mapping[int, Scalar]) -> None:
    if isinstance(literals.get(1), str):
        compile_pattern(literals[1])


def _concat(_: View, arguments: Sequence[Any]) -> Values:
    values, delimiter = arguments
    return apply(
        lambda separator, *parts: _text(separator).join(
            "<nil>" if (text := text_of(part)) is None else text for part in parts
        ),
        [delimiter, *values],
    )


def _convert_case(target: Scalar, case: str) -> str:
    return (lower if case == "lower" else upper)(_text(target))


def _check_case(literals: Mapping[int, Scalar]) -> None:
    if literals.get(1) not in {"lower", "upper"}:
        raise ValueError(
            f'{literals.get(1)!r} is no case: write "lower" or "upper" ("snake" and "camel" are not available)'
        )


def _substring(target: Scalar, start: Scalar, length: Scalar, *, utf8_safe: bool) -> str:
    first, count = _whole(start), _whole(length)
    raw = _text(target).encode()
    if first < 0 or count <= 0 or first + count > len(raw):
        raise Failure
    end = first + count
    if utf8_safe:
        while first < len(raw) and raw[first] & 0xC0 == 0x80:
            first += 1
        while first < end < len(raw) and raw[end] & 0xC0 == 0x80:
            end -= 1
    return raw[first : max(first, end)].decode("utf-8", "replace")


def _substring_columns() -> Evaluate:
    def evaluate(_: View, arguments: Sequence[Any]) -> Values:
        target, start, length, utf8_safe = arguments
        return apply(partial(_substring, utf8_safe=bool(utf8_safe)), [target, start, length])

    return evaluate


def _split(target: Scalar, delimiter: Scalar) -> list[str]:
    text, separator = _text(target), _text(delimiter)
    return text.split(separator) if separator else list(text)


def _trim(_: View, arguments: Sequence[Any]) -> Values:
    target, characters = arguments
    cut = " " if characters is None else characters
    return apply(lambda value: _text(value).strip(cut) if cut else _text(value), [target])


def _index(target: Scalar, value: Scalar) -> int:
    if isinstance(target, str):
        found = target.find(_text(value))
        return found if found < 0 else len(target[:found].encode())
    return next((place for place, item in enumerate(_listed(target)) if equal(item, value)), -1)


# Types and numbers.

_INT64_MIN: Final = np.iinfo(np.int64).min


def _is_kind(*kinds: Kind) -> Callable[[], Evaluate]:
    def evaluate(target: Values) -> Values:
        is_one: Array = np.isin(target.kind, kinds)
        return Values.of_numbers(Kind.BOOL, is_one).failing(target.failed)

    return _columns(evaluate)


def _length(target: Values) -> Values:
    counted = np.isin(target.kind, (Kind.ITEMS, Kind.ATTRIBUTES))
    if counted.all():
        return Values.of_numbers(Kind.INT, target.number)
    lengths = apply(_length_of, [target])
    if not counted.any():
        return lengths
    kind = np.where(counted, np.uint8(Kind.INT), lengths.kind)
    return Values(kind, number=lambda: np.where(counted, target.number, lengths.number))


def _length_of(value: Scalar) -> int:
    if isinstance(value, str):
        return len(value.encode())
    if type(value) in {list, dict, bytes}:
        return len(value)
    raise Failure


def _int(target: Values) -> Values:
    """Numbers as arrays; text once per distinct value: what is no number is nil."""
    texts = apply(_int_of, [target.with_kind(_others(target))])
    kind = np.where(np.isin(target.kind, (Kind.INT, Kind.DOUBLE, Kind.BOOL)), np.uint8(Kind.INT), texts.kind)

    def number() -> Array:
        # What fits no int64 becomes the smallest, as on the processors the Collector mostly runs on.
        fits = (target.double >= -(2.0**63)) & (target.double < 2.0**63)
        doubles = np.where(fits, np.where(fits, target.double, 0.0).astype(np.int64), _INT64_MIN)
        whole = np.isin(target.kind, (Kind.INT, Kind.BOOL))
        return np.where(whole, target.number, np.where(target.kind == Kind.DOUBLE, doubles, texts.number))

    return Values(kind, number=number)


def _int_of(value: Scalar) -> int | None:
    if value is None:
        return None
    try:
        return parse_int(_text(value))
    except Failure:
        if isinstance(value, str):
            return None
        raise


def _double(target: Values) -> Values:
    texts = apply(
        lambda value: None if value is None else parse_double(_text(value)), [target.with_kind(_others(target))]
    )
    whole = np.isin(target.kind, (Kind.INT, Kind.BOOL))
    kind = np.where(whole | (target.kind == Kind.DOUBLE), np.uint8(Kind.DOUBLE), texts.kind)
    return Values(
        kind,
        double=lambda: np.where(
            whole, target.number.astype(np.float64), np.where(target.kind == Kind.DOUBLE, target.double, texts.double)
        ),
    )


def _others(target: Values) -> Array:
    """The kinds without those that are done as arrays."""
    return np.where(np.isin(target.kind, (Kind.INT, Kind.DOUBLE, Kind.BOOL)), np.uint8(Kind.NIL), target.kind)


def _bool(value: Scalar) -> bool | None:
    if value is None:
        return None
    if isinstance(value, str):
        return parse_bool(value)
    if type(value) in {bool, int, float}:
        return bool(value != 0)
    raise Failure


def _parse_int(target: Scalar, base: Scalar) -> int:
    return parse_int(_text(target), _whole(base))


def _coalesce(_: View, arguments: Sequence[Any]) -> Values:
    (values,) = arguments
    return apply(lambda *parts: next((part for part in parts if part is not None), None), values)


def _check_coalesce(literals: Mapping[int, Scalar]) -> None:
    if literals.get(0) == []:
        raise ValueError("at least one value is needed")


def _contains(target: Scalar, item: Scalar) -> bool:
    return any(equal(element, item) for element in _listed(target))


def _parse_json(target: Scalar) -> Scalar:
    try:
        value = json.loads(_text(target), parse_int=_finite, parse_float=_finite, parse_constant=_finite)
    except (ValueError, RecursionError):
        raise Failure from None
    if type(value) not in {list, dict}:
        raise Failure
    return value


def _finite(text: str) -> float:
    """JSON's numbers are doubles; NaN, Infinity and what is too large are none."""
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(text)
    return value


# Times.


def _per(nanoseconds: int, *, real: bool = False) -> Callable[[], Evaluate]:
    """A duration in a unit: whole ones are cut toward zero."""

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

    return _columns(evaluate)


def _unix(nanoseconds: int) -> Callable[[], Evaluate]:
    def evaluate(target: Values) -> Values:
        kind = np.where(target.kind == Kind.TIME, np.uint8(Kind.INT), np.uint8(Kind.FAILED))
        return Values(kind, number=lambda: target.number // nanoseconds)

    return _columns(evaluate)


# Ids and addresses.


def _id(made: type[bytes], length: int) -> Callable[[Scalar], bytes]:
    def function(value: Scalar) -> bytes:
        raw = value.encode() if isinstance(value, str) else value
        if type(raw) is not bytes or len(raw) not in {length, 2 * length}:
            raise Failure
        try:
            return made(raw) if len(raw) == length else made(bytes.fromhex(raw.decode("ascii")))
        except ValueError:
            raise Failure from None

    return function


def _check_id(function: Callable[[Scalar], bytes], name: str, length: int) -> Callable[[Mapping[int, Scalar]], None]:
    def check(literals: Mapping[int, Scalar]) -> None:
        if 0 in literals:
            try:
                function(literals[0])
            except Failure:
                raise ValueError(
                    f"{literals[0]!r} is no {name}: write {length} bytes (0x…) or {2 * length} hexadecimal digits"
                ) from None

    return check


def _hex(value: Scalar) -> str:
    if type(value) is bytes:
        return value.hex()
    if isinstance(value, str):
        return value.encode().hex()
    raise Failure


_trace_id: Final = _id(TraceId, 16)
_span_id: Final = _id(SpanId, 8)


def _in_networks(_: View, arguments: Sequence[Any]) -> Values:
    target, networks = arguments
    return apply(lambda value, *texts: _in_any(_text(value), texts), [target, *networks])


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
    if not _text(text).partition("/")[2].isdecimal():
        raise Failure
    try:
        return ipaddress.ip_network(text, strict=False)
    except ValueError:
        raise Failure from None


def _check_networks(literals: Mapping[int, Scalar]) -> None:
    for text in literals.get(1, []):
        try:
            _network(text)
        except Failure:
            raise ValueError(f"{text!r} is no network: write 10.0.0.0/8") from None


# Of one context.


def _is_root_span(view: View, _: Sequence[Any]) -> Values:
    return Values.of_numbers(Kind.BOOL, view.batch.field("parent_span_id", "spans") == 0)


def _on_points(view: View, arguments: Sequence[Any]) -> Values:
    """By metric: the first of its points that has the key decides, as in the Collector; any other text is unequal, no text is ""."""
    key, expected = arguments if len(arguments) == 2 else (arguments[0], None)
    column = view.batch.attribute(key, "points")
    having = np.flatnonzero(column.present)
    metrics, first = np.unique(view.batch.table("points").parent[having], return_index=True)
    result = np.zeros(view.row_count, np.bool_)
    result[metrics] = True if expected is None else column.text.fill("").take(having[first]).equals(expected)
    return Values.of_numbers(Kind.BOOL, result).failing(view.batch.field("type", "metrics") == METRIC_NONE)


def _texts(*names: str) -> tuple[Parameter, ...]:
    return tuple(Parameter(name) for name in names)


_ANY: Final = (Parameter("target", "any"),)
_SPAN: Final[frozenset[Context]] = frozenset({"span"})
_METRIC: Final[frozenset[Context]] = frozenset({"metric"})

FUNCTIONS: Final[Mapping[str, Function]] = {
    "Bool": Function(_ANY, _scalar(_bool)),
    "Coalesce": Function((Parameter("values", "list"),), lambda: _coalesce, check=_check_coalesce),
    "Concat": Function((Parameter("vals", "list"), Parameter("delimiter")), lambda: _concat),
    "ContainsValue": Function((Parameter("target", "any"), Parameter("item", "any")), _scalar(_contains)),
    "ConvertCase": Function(
        (Parameter("target"), Parameter("to_case", "literal text")),
        lambda: lambda _, arguments: apply(lambda value: _convert_case(value, arguments[1]), arguments[:1]),
        check=_check_case,
    ),
    "Double": Function(_ANY, _columns(_double)),
    "Duration": Function(_texts("duration"), _scalar(lambda value: duration(_text(value)), cached=True)),
    "HasAttrKeyOnDatapoint": Function((Parameter("key", "literal text"),), lambda: _on_points, _METRIC),
    "HasAttrOnDatapoint": Function(
        (Parameter("key", "literal text"), Parameter("expected_val", "literal text")), lambda: _on_points, _METRIC
    ),
    "HasPrefix": Function(
        _texts("target", "prefix"), _scalar(lambda value, prefix: _text(value).startswith(_text(prefix)))
    ),
    "HasSuffix": Function(
        _texts("target", "suffix"), _scalar(lambda value, suffix: _text(value).endswith(_text(suffix)))
    ),
    "Hex": Function(_ANY, _scalar(_hex)),
    "Hours": Function(_ANY, _per(3600 * 10**9, real=True)),
    "Index": Function((Parameter("target", "any"), Parameter("value", "any")), _scalar(_index)),
    "Int": Function(_ANY, _columns(_int)),
    "IsBool": Function(_ANY, _is_kind(Kind.BOOL)),
    "IsDouble": Function(_ANY, _is_kind(Kind.DOUBLE)),
    "IsInCIDR": Function(
        (Parameter("target"), Parameter("networks", "texts")), lambda: _in_networks, check=_check_networks
    ),
    "IsInt": Function(_ANY, _is_kind(Kind.INT)),
    "IsList": Function(_ANY, _is_kind(Kind.LIST, Kind.ITEMS)),
    "IsMap": Function(_ANY, _is_kind(Kind.MAP, Kind.ATTRIBUTES)),
    "IsMatch": Function(
        (Parameter("target", "any"), Parameter("pattern")), _scalar(_is_match, cached=True), check=_check_pattern
    ),
    "IsRootSpan": Function((), lambda: _is_root_span, _SPAN),
    "IsString": Function(_ANY, _is_kind(Kind.STRING)),
    "Len": Function(_ANY, _columns(_length)),
    "Microseconds": Function(_ANY, _per(1_000)),
    "Milliseconds": Function(_ANY, _per(10**6)),
    "Minutes": Function(_ANY, _per(60 * 10**9, real=True)),
    "Nanoseconds": Function(_ANY, _per(1)),
    "ParseInt": Function((Parameter("target"), Parameter("base", "int")), _scalar(_parse_int)),
    "ParseJSON": Function(_texts("target"), _scalar(_parse_json)),
    "Seconds": Function(_ANY, _per(10**9, real=True)),
    "SpanID": Function(_ANY, _scalar(_span_id), check=_check_id(_span_id, "span id", 8)),
    "Split": Function(_texts("target", "delimiter"), _scalar(_split)),
    "String": Function(_ANY, _scalar(text_of)),
    "Substring": Function(
        (
            Parameter("target"),
            Parameter("start", "int"),
            Parameter("length", "int"),
            Parameter("utf8_safe", "literal bool", optional=True),
        ),
        _substring_columns,
    ),
    "ToLowerCase": Function(_texts("target"), _scalar(lambda value: lower(_text(value)), cached=True)),
    "ToUpperCase": Function(_texts("target"), _scalar(lambda value: upper(_text(value)), cached=True)),
    "TraceID": Function(_ANY, _scalar(_trace_id), check=_check_id(_trace_id, "trace id", 16)),
    "Trim": Function((Parameter("target"), Parameter("replacement", "literal text", optional=True)), lambda: _trim),
    "TrimPrefix": Function(
        _texts("target", "prefix"), _scalar(lambda value, prefix: _text(value).removeprefix(_text(prefix)))
    ),
    "TrimSuffix": Function(
        _texts("target", "suffix"), _scalar(lambda value, suffix: _text(value).removesuffix(_text(suffix)))
    ),
    "UnixMicro": Function(_ANY, _unix(1_000)),
    "UnixMilli": Function(_ANY, _unix(10**6)),
    "UnixNano": Function(_ANY, _unix(1)),
    "UnixSeconds": Function(_ANY, _unix(10**9)),
}
