"""The converters that conditions may call: their parameters, contexts and implementations.

Source: opentelemetry-collector-contrib pkg/ottl/ottlfuncs (README, v0.156) and internal/filter/filterottl.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from inspect import signature
from typing import Any, Final, TypeAlias
from uuid import uuid4

from collector.ottl.containers import check_order, check_severities, keys, logarithm, severity, slice_to_map, sort
from collector.ottl.containers import values as container_values
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
    matches,
    parse_integer,
    parse_json,
    profile_id,
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
from collector.ottl.grok import Grok, check_grok, definitions_of
from collector.ottl.hashing import (
    base64_decode,
    base64_encode,
    check_encoding,
    community_id,
    decode,
    digest,
    fnv,
    is_luhn,
    murmur3,
    murmur3_128,
    needs,
    random_ids,
    uuid7,
    xxh3,
    xxh128,
)
from collector.ottl.operations import apply
from collector.ottl.printf import check_form, printf
from collector.ottl.text import duration, lower, text_of, upper
from collector.ottl.text_forms import (
    camel_case,
    check_clf,
    check_csv,
    check_delimiters,
    check_groups,
    extract_patterns,
    parse_clf,
    parse_csv,
    parse_key_values,
    parse_leef,
    snake_case,
    to_key_values,
    url,
    user_agent,
)
from collector.ottl.times import (
    check_format,
    check_time,
    format_time,
    now,
    part,
    time_from_unix,
    time_parser,
    truncate_time,
)
from collector.ottl.values import EvaluationError, Kind, Scalar, Values
from collector.ottl.view import View
from collector.ottl.xml_forms import (
    attributes_to_elements,
    check_path,
    get_xml,
    insert_xml,
    parse_simplified_xml,
    parse_xml,
    remove_xml,
    text_to_elements,
)
from collector.text.cache import TextCache
from collector.text.simple_patterns import search_pattern

__all__ = ["FUNCTIONS", "Function", "Parameter"]

_COMPILED_PATTERNS: Final = 4  # of one call: patterns may come from data, and a compiled one takes up to 8 MB


@dataclass(frozen=True, slots=True)
class Parameter:
    """A parameter of a converter.

    ``form`` is ``any``, ``text``, ``int``, ``map``, ``slice``, ``time``, ``duration``, ``list`` (in brackets, of any),
    ``texts`` (in brackets), ``target`` (a path that is changed), ``function`` (the name of a converter), or ``literal``
    and ``text``, ``bool``, ``int``, ``float``, ``texts`` or ``floats``.
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
    converts_literals: bool = False
    """Whether a literal that it cannot convert is an error when the statement is compiled, as in the Collector."""
    is_pure: bool = True
    """Whether equal arguments give equal results, so that a call with constant arguments is evaluated only once."""
    vectorised: bool = True
    """Whether it works on whole columns, or once per distinct text; else once per row or distinct combination."""


def _per_value(function: Callable[..., Scalar], *, cached: bool = False) -> Callable[[], Evaluate]:
    """An implementation by a function of single values; each call in a condition has its own cache."""

    def evaluate() -> Evaluate:
        cache: TextCache[Scalar] | None = TextCache() if cached else None
        return lambda _, arguments: apply(function, arguments, cache)

    return evaluate


def _is_match() -> Evaluate:
    compiled = lru_cache(_COMPILED_PATTERNS)(search_pattern)
    cache, results, last = TextCache[Scalar](), TextCache[Scalar](), ""

    def call(_: View, arguments: Sequence[Any]) -> Values:
        nonlocal results, last
        target, pattern = arguments
        if len(pattern) == 1 and target.kinds == _STRINGS and pattern.kinds == _STRINGS and len(target) > 1:
            text = pattern.text.distinct[pattern.text.codes[0]]
            if text != last:  # the pattern may be data: another batch may have another one
                last, results = text, TextCache[Scalar]()
            return matches(target.text, compiled(text).search, results)
        return apply(partial(is_match, compile_text=compiled), arguments, cache)

    return call


def _of_columns(function: Callable[..., Values]) -> Callable[[], Evaluate]:
    """An implementation by a function of columns."""
    return lambda: lambda _, arguments: function(*arguments)


def _given(function: Callable[..., Scalar]) -> Callable[[], Evaluate]:
    """An implementation by a function of single values that has its own defaults for arguments that are left out.

    Literals are passed as they are, and so are lists of columns' values.
    """

    def evaluate() -> Evaluate:
        def call(_: View, arguments: Sequence[Any]) -> Values:
            given = list(arguments)
            while given and given[-1] is None:
                given.pop()
            columns = [argument for argument in given if isinstance(argument, Values)]
            places = [place for place, argument in enumerate(given) if isinstance(argument, Values)]
            defaults = [index for index, argument in enumerate(given) if argument is None]

            def one(*values: Scalar) -> Scalar:
                filled = given.copy()
                for place, value in zip(places, values, strict=True):
                    filled[place] = value
                if defaults:
                    names = _names(function)
                    named = {names[place]: value for place, value in enumerate(filled) if place not in defaults}
                    return function(**named)
                return function(*filled)

            return apply(one, columns)

        return call

    return evaluate


@lru_cache(maxsize=128)
def _names(function: Callable[..., Scalar]) -> tuple[str, ...]:
    return tuple(signature(function).parameters)


def _format() -> Evaluate:
    def call(_: View, arguments: Sequence[Any]) -> Values:
        return apply(partial(printf, arguments[0]), arguments[1]) if arguments[1] else Values.of([printf(arguments[0])])

    return call


def _time() -> Evaluate:
    parsers: dict[tuple[Any, ...], Callable[[str], Scalar]] = {}
    cache = TextCache[Scalar]()

    def call(_: View, arguments: Sequence[Any]) -> Values:
        key = tuple(arguments[1:3])
        if key not in parsers:
            parsers[key] = time_parser(key)
        parse = parsers[key]
        return apply(lambda text: parse(expect_text(text)), arguments[:1], cache)

    return call


def _grok() -> Evaluate:
    made: dict[str, Grok] = {}

    def call(_: View, arguments: Sequence[Any]) -> Values:
        named_only, definitions = bool(arguments[2]), definitions_of(arguments[3] or [])

        def one(target: Scalar, pattern: Scalar) -> Scalar:
            grok = made.get(expect_text(pattern))
            if grok is None:
                if len(made) >= _COMPILED_PATTERNS:
                    made.clear()
                try:
                    grok = made[pattern] = Grok(pattern, named_only=named_only, definitions=definitions)
                except ValueError:
                    raise EvaluationError from None
            if named_only and not grok.has_groups:
                raise EvaluationError
            return grok.extract(expect_text(target))

        return apply(one, arguments[:2])

    return call


def _texts(*names: str) -> tuple[Parameter, ...]:
    return tuple(Parameter(name) for name in names)


_ANY: Final = (Parameter("target", "any"),)
_STRINGS: Final = frozenset({Kind.STRING})
_TIME: Final = (Parameter("time", "time"),)
_DURATION: Final = (Parameter("duration", "duration"),)
_LOG: Final[frozenset[Context]] = frozenset({"log"})
_DELIMITERS: Final = (
    Parameter("delimiter", "literal text", optional=True),
    Parameter("pair_delimiter", "literal text", optional=True),
)
_XPATH: Final = Parameter("xpath", "literal text")
_OPTIONAL_XPATH: Final = Parameter("xpath", "literal text", optional=True)
_SPAN: Final[frozenset[Context]] = frozenset({"span"})
_METRIC: Final[frozenset[Context]] = frozenset({"metric"})

FUNCTIONS: Final[Mapping[str, Function]] = {
    "Bool": Function(_ANY, _per_value(to_bool), converts_literals=True),
    "Coalesce": Function((Parameter("values", "list"),), lambda: coalesce, check=check_coalesce),
    "Concat": Function((Parameter("vals", "list"), Parameter("delimiter")), lambda: concat),
    "ContainsValue": Function((Parameter("target", "slice"), Parameter("item", "any")), _per_value(contains_value)),
    "ConvertCase": Function(
        (Parameter("target"), Parameter("to_case", "literal text")),
        lambda: lambda _, arguments: apply(lambda value: convert_case(value, arguments[1]), arguments[:1]),
        check=check_case,
    ),
    "Double": Function(_ANY, _of_columns(to_double), converts_literals=True),
    "Duration": Function(_texts("duration"), _per_value(lambda value: duration(expect_text(value)), cached=True)),
    "HasAttrKeyOnDatapoint": Function(
        (Parameter("key", "literal text"),), lambda: has_attribute_on_point, _METRIC, is_pure=False
    ),
    "HasAttrOnDatapoint": Function(
        (Parameter("key", "literal text"), Parameter("expected_val", "literal text")),
        lambda: has_attribute_on_point,
        _METRIC,
        is_pure=False,
    ),
    "HasPrefix": Function(
        _texts("target", "prefix"), _per_value(lambda value, prefix: expect_text(value).startswith(expect_text(prefix)))
    ),
    "HasSuffix": Function(
        _texts("target", "suffix"), _per_value(lambda value, suffix: expect_text(value).endswith(expect_text(suffix)))
    ),
    "Hex": Function(_ANY, _per_value(to_hex), converts_literals=True),
    "Hours": Function(_DURATION, _of_columns(in_unit(3600 * 10**9, real=True))),
    "Index": Function((Parameter("target", "any"), Parameter("value", "any")), _per_value(index_of)),
    "Int": Function(_ANY, _of_columns(to_int), converts_literals=True),
    "IsBool": Function(_ANY, _of_columns(is_kind(Kind.BOOL))),
    "IsDouble": Function(_ANY, _of_columns(is_kind(Kind.DOUBLE))),
    "IsInCIDR": Function(
        (Parameter("target"), Parameter("networks", "texts")), lambda: in_networks, check=check_networks
    ),
    "IsInt": Function(_ANY, _of_columns(is_kind(Kind.INT))),
    "IsList": Function(_ANY, _of_columns(is_kind(Kind.LIST, Kind.ITEMS))),
    "IsMap": Function(_ANY, _of_columns(is_kind(Kind.MAP))),
    "IsMatch": Function((Parameter("target", "any"), Parameter("pattern")), _is_match, check=check_pattern),
    "IsRootSpan": Function((), lambda: is_root_span, _SPAN, is_pure=False),
    "IsString": Function(_ANY, _of_columns(is_kind(Kind.STRING))),
    "Len": Function(_ANY, _of_columns(length)),
    "Microseconds": Function(_DURATION, _of_columns(in_unit(1_000))),
    "Milliseconds": Function(_DURATION, _of_columns(in_unit(10**6))),
    "Minutes": Function(_DURATION, _of_columns(in_unit(60 * 10**9, real=True))),
    "Nanoseconds": Function(_DURATION, _of_columns(in_unit(1))),
    "ParseInt": Function((Parameter("target"), Parameter("base", "int")), _per_value(parse_integer)),
    "ParseJSON": Function(_texts("target"), _per_value(parse_json)),
    "Seconds": Function(_DURATION, _of_columns(in_unit(10**9, real=True))),
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
    "UnixMicro": Function(_TIME, _of_columns(unix_time(1_000))),
    "UnixMilli": Function(_TIME, _of_columns(unix_time(10**6))),
    "UnixNano": Function(_TIME, _of_columns(unix_time(1))),
    "UnixSeconds": Function(_TIME, _of_columns(unix_time(10**9))),
    "Base64Decode": Function(_texts("target"), _per_value(base64_decode, cached=True)),
    "Base64Encode": Function((Parameter("target"), Parameter("variant", optional=True)), _given(base64_encode)),
    "CommunityID": Function(
        (
            Parameter("source_ip"),
            Parameter("source_port", "int"),
            Parameter("destination_ip"),
            Parameter("destination_port", "int"),
            Parameter("protocol", optional=True),
            Parameter("seed", "int", optional=True),
        ),
        _given(community_id),
        vectorised=False,
    ),
    "ConvertAttributesToElementsXML": Function(
        (Parameter("target"), _OPTIONAL_XPATH), _given(attributes_to_elements), check=check_path(1)
    ),
    "ConvertTextToElementsXML": Function(
        (Parameter("target"), _OPTIONAL_XPATH, Parameter("element_name", "literal text", optional=True)),
        _given(text_to_elements),
        check=check_path(1),
    ),
    "Day": Function(_TIME, _per_value(part("day"))),
    "Decode": Function((Parameter("target", "any"), Parameter("encoding")), _per_value(decode), check=check_encoding),
    "ExtractGrokPatterns": Function(
        (
            Parameter("target"),
            Parameter("pattern"),
            Parameter("named_captures_only", "literal bool", optional=True),
            Parameter("pattern_definitions", "literal texts", optional=True),
        ),
        _grok,
        check=check_grok,
    ),
    "ExtractPatterns": Function(_texts("target", "pattern"), _per_value(extract_patterns), check=check_groups),
    "FNV": Function(_texts("target"), _per_value(fnv, cached=True)),
    "Format": Function(
        (Parameter("format", "literal text"), Parameter("vals", "list")),
        _format,
        check=lambda literals: check_form(literals[0]),
        vectorised=False,
    ),
    "FormatTime": Function((*_TIME, Parameter("format", "literal text")), _given(format_time), check=check_format),
    "GetXML": Function((Parameter("target"), _XPATH), _given(get_xml), check=check_path(1)),
    "Hour": Function(_TIME, _per_value(part("hour"))),
    "InsertXML": Function(
        (Parameter("target"), _XPATH, Parameter("sub_document")), _given(insert_xml), check=check_path(1)
    ),
    "IsValidLuhn": Function(_ANY, _per_value(is_luhn)),
    "Keys": Function(_ANY, _per_value(keys), vectorised=False),
    "Log": Function(_ANY, _per_value(logarithm)),
    "MD5": Function(_texts("target"), _per_value(digest("md5"), cached=True)),
    "Minute": Function(_TIME, _per_value(part("minute"))),
    "Month": Function(_TIME, _per_value(part("month"))),
    "Murmur3Hash": Function(_texts("target"), _per_value(murmur3, cached=True), check=needs("mmh3")),
    "Murmur3Hash128": Function(_texts("target"), _per_value(murmur3_128, cached=True), check=needs("mmh3")),
    "Nanosecond": Function(_TIME, _per_value(part("nanosecond"))),
    "Now": Function((), lambda: now, is_pure=False),
    "ParseCLF": Function(
        (Parameter("target"), Parameter("format", "literal text", optional=True)), _given(parse_clf), _LOG, check_clf
    ),
    "ParseCSV": Function(
        (
            Parameter("target"),
            Parameter("header"),
            Parameter("delimiter", "literal text", optional=True),
            Parameter("header_delimiter", "literal text", optional=True),
            Parameter("mode", "literal text", optional=True),
        ),
        _given(parse_csv),
        check=check_csv,
    ),
    "ParseKeyValue": Function((Parameter("target"), *_DELIMITERS), _given(parse_key_values), check=check_delimiters),
    "ParseLEEF": Function(_texts("target"), _per_value(parse_leef), _LOG),
    "ParseSeverity": Function(
        (Parameter("target", "any"), Parameter("mapping", "any")), _per_value(severity), check=check_severities
    ),
    "ParseSimplifiedXML": Function(_texts("target"), _per_value(parse_simplified_xml), check=check_path(1)),
    "ParseXML": Function(_texts("target"), _per_value(parse_xml), check=check_path(1)),
    "ProfileID": Function(_ANY, _per_value(profile_id), check=check_id(profile_id, "profile id", 16)),
    "RemoveXML": Function((Parameter("target"), _XPATH), _given(remove_xml), check=check_path(1)),
    "SHA1": Function(_texts("target"), _per_value(digest("sha1"), cached=True)),
    "SHA256": Function(_texts("target"), _per_value(digest("sha256"), cached=True)),
    "SHA512": Function(_texts("target"), _per_value(digest("sha512"), cached=True)),
    "Second": Function(_TIME, _per_value(part("second"))),
    "SliceToMap": Function(
        (
            Parameter("target", "slice"),
            Parameter("key_path", "literal texts", optional=True),
            Parameter("value_path", "literal texts", optional=True),
        ),
        _given(slice_to_map),
    ),
    "Sort": Function(
        (Parameter("target", "any"), Parameter("order", "literal text", optional=True)), _given(sort), check=check_order
    ),
    "Time": Function(
        (
            Parameter("time"),
            Parameter("format", "literal text"),
            Parameter("location", "literal text", optional=True),
            Parameter("locale", "literal text", optional=True),
        ),
        _time,
        check=check_time,
    ),
    "ToCamelCase": Function(_texts("target"), _per_value(camel_case, cached=True)),
    "ToKeyValueString": Function(
        (Parameter("target", "any"), *_DELIMITERS, Parameter("sort_output", "literal bool", optional=True)),
        _given(to_key_values),
        check=check_delimiters,
        vectorised=False,
    ),
    "ToSnakeCase": Function(_texts("target"), _per_value(snake_case, cached=True)),
    "TruncateTime": Function((*_TIME, *_DURATION), _per_value(truncate_time)),
    "URL": Function(_texts("uri"), _per_value(url)),
    "UUID": Function((), lambda: random_ids(lambda: str(uuid4())), is_pure=False, vectorised=False),
    "UUIDv7": Function((), lambda: random_ids(uuid7), is_pure=False, vectorised=False),
    "Unix": Function(
        (Parameter("seconds", "int"), Parameter("nanoseconds", "int", optional=True)), _given(time_from_unix)
    ),
    "UserAgent": Function(_texts("user_agent"), _per_value(user_agent, cached=True), check=needs("ua_parser")),
    "Values": Function(_ANY, _per_value(container_values), vectorised=False),
    "Weekday": Function(_TIME, _per_value(part("weekday"))),
    "XXH3": Function(_texts("target"), _per_value(xxh3, cached=True), check=needs("xxhash")),
    "XXH128": Function(_texts("target"), _per_value(xxh128, cached=True), check=needs("xxhash")),
    "Year": Function(_TIME, _per_value(part("year"))),
}
