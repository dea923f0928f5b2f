"""The converters that conditions may call: their parameters, contexts and implementations.

Source: opentelemetry-collector-contrib pkg/ottl/ottlfuncs (README, v0.156) and internal/filter/filterottl.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import Any, Final, TypeAlias

from collector.ottl.contexts import Context
from collector.ottl.converters import (
    check_case,
    check_coalesce,
    check_id,
    check_networks,
    check_pattern,
    coalesce,
    concat,
    contains_value,
    convert_case,
    expect_text,
    has_attribute_on_point,
    in_networks,
    in_unit,
    index_of,
    is_kind,
    is_match,
    is_root_span,
    length,
    parse_integer,
    parse_json,
    span_id,
    split,
    substring,
    to_bool,
    to_double,
    to_hex,
    to_int,
    trace_id,
    trim,
    unix_time,
)
from collector.ottl.operations import apply
from collector.ottl.text import duration, lower, text_of, upper
from collector.ottl.values import Kind, Scalar, Values
from collector.ottl.view import View
from collector.text.cache import TextCache
from collector.text.patterns import compile_pattern

__all__ = ["FUNCTIONS", "Function", "Parameter"]

_COMPILED_PATTERNS: Final = 4  # of one call: patterns may come from data, and a compiled one takes up to 8 MB


@dataclass(frozen=True, slots=True)
class Parameter:
    """A parameter of a converter.

    ``form`` is ``any``, ``text``, ``int``, ``literal text``, ``literal bool``, ``list`` (of any) or ``texts``.
    """

    name: str
    form: str = "text"
    optional: bool = False


Evaluate: TypeAlias = Callable[[View, Sequence[Any]], Values]
"""Evaluates a call. An argument is a column, a list of columns (``list``, ``texts``), a literal or None (left out)."""


@dataclass(frozen=True, slots=True)
class Function:
    """A converter."""

    parameters: tuple[Parameter, ...]
    evaluate: Callable[[], Evaluate]
    """Called once for each call in a condition."""
    contexts: frozenset[Context] | None = None
    """The contexts that have it; None means all."""
    check: Callable[[Mapping[int, Scalar]], None] | None = None
    """Called with the literal arguments by position; raises ValueError if one is not valid."""


def _per_value(function: Callable[..., Scalar], *, cached: bool = False) -> Callable[[], Evaluate]:
    """An implementation by a function of single values; each call in a condition has its own cache."""

    def evaluate() -> Evaluate:
        cache: TextCache[Scalar] | None = TextCache() if cached else None
        return lambda _, arguments: apply(function, arguments, cache)

    return evaluate


def _is_match() -> Evaluate:
    compiled = lru_cache(_COMPILED_PATTERNS)(compile_pattern)
    cache = TextCache[Scalar]()
    return lambda _, arguments: apply(partial(is_match, compile_text=compiled), arguments, cache)


def _of_columns(function: Callable[..., Values]) -> Callable[[], Evaluate]:
    """An implementation by a function of columns."""
    return lambda: lambda _, arguments: function(*arguments)


def _texts(*names: str) -> tuple[Parameter, ...]:
    return tuple(Parameter(name) for name in names)


_ANY: Final = (Parameter("target", "any"),)
_SPAN: Final[frozenset[Context]] = frozenset({"span"})
_METRIC: Final[frozenset[Context]] = frozenset({"metric"})

FUNCTIONS: Final[Mapping[str, Function]] = {
    "Bool": Function(_ANY, _per_value(to_bool)),
    "Coalesce": Function((Parameter("values", "list"),), lambda: coalesce, check=check_coalesce),
    "Concat": Function((Parameter("vals", "list"), Parameter("delimiter")), lambda: concat),
    "ContainsValue": Function((Parameter("target", "any"), Parameter("item", "any")), _per_value(contains_value)),
    "ConvertCase": Function(
        (Parameter("target"), Parameter("to_case", "literal text")),
        lambda: lambda _, arguments: apply(lambda value: convert_case(value, arguments[1]), arguments[:1]),
        check=check_case,
    ),
    "Double": Function(_ANY, _of_columns(to_double)),
    "Duration": Function(_texts("duration"), _per_value(lambda value: duration(expect_text(value)), cached=True)),
    "HasAttrKeyOnDatapoint": Function((Parameter("key", "literal text"),), lambda: has_attribute_on_point, _METRIC),
    "HasAttrOnDatapoint": Function(
        (Parameter("key", "literal text"), Parameter("expected_val", "literal text")),
        lambda: has_attribute_on_point,
        _METRIC,
    ),
    "HasPrefix": Function(
        _texts("target", "prefix"), _per_value(lambda value, prefix: expect_text(value).startswith(expect_text(prefix)))
    ),
    "HasSuffix": Function(
        _texts("target", "suffix"), _per_value(lambda value, suffix: expect_text(value).endswith(expect_text(suffix)))
    ),
    "Hex": Function(_ANY, _per_value(to_hex)),
    "Hours": Function(_ANY, _of_columns(in_unit(3600 * 10**9, real=True))),
    "Index": Function((Parameter("target", "any"), Parameter("value", "any")), _per_value(index_of)),
    "Int": Function(_ANY, _of_columns(to_int)),
    "IsBool": Function(_ANY, _of_columns(is_kind(Kind.BOOL))),
    "IsDouble": Function(_ANY, _of_columns(is_kind(Kind.DOUBLE))),
    "IsInCIDR": Function(
        (Parameter("target"), Parameter("networks", "texts")), lambda: in_networks, check=check_networks
    ),
    "IsInt": Function(_ANY, _of_columns(is_kind(Kind.INT))),
    "IsList": Function(_ANY, _of_columns(is_kind(Kind.LIST, Kind.ITEMS))),
    "IsMap": Function(_ANY, _of_columns(is_kind(Kind.MAP))),
    "IsMatch": Function((Parameter("target", "any"), Parameter("pattern")), _is_match, check=check_pattern),
    "IsRootSpan": Function((), lambda: is_root_span, _SPAN),
    "IsString": Function(_ANY, _of_columns(is_kind(Kind.STRING))),
    "Len": Function(_ANY, _of_columns(length)),
    "Microseconds": Function(_ANY, _of_columns(in_unit(1_000))),
    "Milliseconds": Function(_ANY, _of_columns(in_unit(10**6))),
    "Minutes": Function(_ANY, _of_columns(in_unit(60 * 10**9, real=True))),
    "Nanoseconds": Function(_ANY, _of_columns(in_unit(1))),
    "ParseInt": Function((Parameter("target"), Parameter("base", "int")), _per_value(parse_integer)),
    "ParseJSON": Function(_texts("target"), _per_value(parse_json)),
    "Seconds": Function(_ANY, _of_columns(in_unit(10**9, real=True))),
    "SpanID": Function(_ANY, _per_value(span_id), check=check_id(span_id, "span id", 8)),
    "Split": Function(_texts("target", "delimiter"), _per_value(split)),
    "String": Function(_ANY, _per_value(text_of)),
    "Substring": Function(
        (
            Parameter("target"),
            Parameter("start", "int"),
            Parameter("length", "int"),
            Parameter("utf8_safe", "literal bool", optional=True),
        ),
        lambda: substring,
    ),
    "ToLowerCase": Function(_texts("target"), _per_value(lambda value: lower(expect_text(value)), cached=True)),
    "ToUpperCase": Function(_texts("target"), _per_value(lambda value: upper(expect_text(value)), cached=True)),
    "TraceID": Function(_ANY, _per_value(trace_id), check=check_id(trace_id, "trace id", 16)),
    "Trim": Function((Parameter("target"), Parameter("replacement", "literal text", optional=True)), lambda: trim),
    "TrimPrefix": Function(
        _texts("target", "prefix"),
        _per_value(lambda value, prefix: expect_text(value).removeprefix(expect_text(prefix))),
    ),
    "TrimSuffix": Function(
        _texts("target", "suffix"),
        _per_value(lambda value, suffix: expect_text(value).removesuffix(expect_text(suffix))),
    ),
    "UnixMicro": Function(_ANY, _of_columns(unix_time(1_000))),
    "UnixMilli": Function(_ANY, _of_columns(unix_time(10**6))),
    "UnixNano": Function(_ANY, _of_columns(unix_time(1))),
    "UnixSeconds": Function(_ANY, _of_columns(unix_time(10**9))),
}
