"""What a path means in a context: which column of which table, as ``Values``. And the symbols of each context.

Source: opentelemetry-collector-contrib pkg/ottl/contexts (one README a context; v0.156).
"""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from difflib import get_close_matches
from typing import Any, Final, Literal, TypeAlias

import numpy as np

from collector.model import (
    METRIC_EXPONENTIAL_HISTOGRAM,
    METRIC_GAUGE,
    METRIC_HISTOGRAM,
    METRIC_SUM,
    METRIC_SUMMARY,
    PRESENT_SUM,
    Batch,
    Signal,
    StringColumn,
)
from collector.otlp.semantics import NO_RECORDED_VALUE, SEVERITIES, SPAN_KINDS, STATUS_CODES, TEMPORALITIES
from collector.ottl.values import Array, Failure, Kind, Scalar, Values, apply

__all__ = ["CONTEXTS", "SYMBOLS", "TABLES", "Context", "Key", "Reader", "View", "index", "known_context", "path_reader"]

Context: TypeAlias = Literal["resource", "scope", "span", "spanevent", "metric", "datapoint", "log"]
Key: TypeAlias = str | int

TABLES: Final[Mapping[str, str]] = {
    "resource": "resources",
    "scope": "scopes",
    "instrumentation_scope": "scopes",
    "span": "spans",
    "spanevent": "events",
    "metric": "metrics",
    "datapoint": "points",
    "log": "records",
}
_ABOVE: Final = ("resource", "scope", "instrumentation_scope")
# The contexts whose paths each may read: its own first.
CONTEXTS: Final[Mapping[Context, tuple[str, ...]]] = {
    "resource": ("resource",),
    "scope": ("scope", "instrumentation_scope", "resource"),
    "span": ("span", *_ABOVE),
    "spanevent": ("spanevent", "span", *_ABOVE),
    "metric": ("metric", *_ABOVE),
    "datapoint": ("datapoint", "metric", *_ABOVE),
    "log": ("log", *_ABOVE),
}
SIGNALS: Final[Mapping[Context, frozenset[Signal]]] = {
    "resource": frozenset(Signal),
    "scope": frozenset(Signal),
    "span": frozenset({Signal.TRACES}),
    "spanevent": frozenset({Signal.TRACES}),
    "metric": frozenset({Signal.METRICS}),
    "datapoint": frozenset({Signal.METRICS}),
    "log": frozenset({Signal.LOGS}),
}

_SPAN_SYMBOLS: Final = {
    **{f"SPAN_KIND_{name}": number for number, name in enumerate(SPAN_KINDS)},
    **{f"STATUS_CODE_{name}": number for number, name in enumerate(STATUS_CODES)},
}
_METRIC_SYMBOLS: Final = {
    **{f"AGGREGATION_TEMPORALITY_{name}": number for number, name in enumerate(TEMPORALITIES)},
    **{
        f"METRIC_DATA_TYPE_{name}": number
        for number, name in enumerate(("NONE", "GAUGE", "SUM", "HISTOGRAM", "EXPONENTIAL_HISTOGRAM", "SUMMARY"))
    },
}
_LOG_SYMBOLS: Final = {f"SEVERITY_NUMBER_{name}": number for number, name in enumerate(SEVERITIES)}
SYMBOLS: Final[Mapping[Context, Mapping[str, int]]] = {
    "resource": {},
    "scope": {},
    "span": _SPAN_SYMBOLS,
    "spanevent": _SPAN_SYMBOLS,
    "metric": _METRIC_SYMBOLS,
    "datapoint": {"FLAG_NONE": 0, "FLAG_NO_RECORDED_VALUE": NO_RECORDED_VALUE, **_METRIC_SYMBOLS},
    "log": _LOG_SYMBOLS,
}


class View:
    """One batch seen from one table; what was read once is kept until the next batch."""

    def __init__(self, batch: Batch, context: Context) -> None:
        self.batch = batch
        self.table = TABLES[context]
        self.row_count = batch.table(self.table).row_count
        self._read: dict[Any, Values] = {}

    def column(self, key: object, table: str, make: Callable[[Batch], Values]) -> Values:
        """What ``make`` reads of ``table``, one row a row of this view."""
        values = self._read.get(key)
        if values is None:
            values = make(self.batch)
            if table != self.table:
                values = values.take(self.batch.ancestor(table, self.table))
            self._read[key] = values
        return values


Reader: TypeAlias = Callable[[View], Values]
_Make: TypeAlias = Callable[[Batch], Values]


def known_context(name: str, context: Context) -> bool:
    """Whether paths of ``context`` may begin with ``name.``."""
    return name in CONTEXTS[context]


def path_reader(owner: str, names: Sequence[str], keys: Sequence[Key]) -> Reader:
    """Reads ``names`` (``("status", "code")``) of the context ``owner``, then goes down the ``keys`` of the last.

    Raises:
        LookupError: no such path, or it takes no such keys; the message says what there is.
    """
    paths = _PATHS[owner]
    path = ".".join(names)
    if path not in paths:
        raise LookupError(_unknown(owner, path))
    form = paths[path]
    table = TABLES[owner]
    if isinstance(form, _Keyed):
        return form.reader(table, tuple(keys))
    if keys:
        raise LookupError(f"{path!r} of {owner} takes no keys")
    return lambda view: view.column((table, path), table, form)


def _unknown(owner: str, path: str) -> str:
    if path in _UNREAD or path.partition(".")[0] in _UNREAD:
        return f"{path!r} of {owner} cannot be read in conditions"
    near = get_close_matches(path, _PATHS[owner], 1)
    hint = f"did you mean {near[0]!r}?" if near else f"there are {', '.join(_PATHS[owner])}"
    return f"{owner} has no {path!r}; {hint}"


# Known to OTTL; their bytes are not in the index of a batch.
_UNREAD: Final = frozenset({
    "cache", "status", "dropped_attributes_count", "dropped_events_count", "dropped_links_count", "metadata", "bucket_counts",
    "explicit_bounds", "positive", "negative", "event_index",
})  # fmt: skip


class _Keyed(ABC):
    """A path that takes keys: attributes, the body, the trace state."""

    @abstractmethod
    def reader(self, table: str, keys: tuple[Key, ...]) -> Reader:
        """What reads the value under ``keys``."""


class _Attributes(_Keyed):
    def reader(self, table: str, keys: tuple[Key, ...]) -> Reader:
        if not keys:
            return lambda view: view.column(
                (table, "attributes"),
                table,
                lambda batch: Values.of_numbers(
                    Kind.ATTRIBUTES, np.ascontiguousarray(batch.table(table).rows["attribute_count"])
                ),
            )
        first, rest = keys[0], keys[1:]
        if not isinstance(first, str):
            raise LookupError(f"the key of an attribute is text, not {first}")  # noqa: TRY004 - one error for what is no path

        def make(batch: Batch) -> Values:
            column = batch.attribute(first, table)
            values = Values.of_attributes(column)
            return _indexed(values, rest, column.present) if rest else values

        return lambda view: view.column((table, "attributes", *map(repr, keys)), table, make)


class _Body(_Keyed):
    def reader(self, table: str, keys: tuple[Key, ...]) -> Reader:
        def make(batch: Batch) -> Values:
            values = Values.of_attributes(batch.field("body", table))
            return _indexed(values, keys, np.ones(len(values), np.bool_)) if keys else values

        return lambda view: view.column((table, "body", *map(repr, keys)), table, make)


class _TraceState(_Keyed):
    def reader(self, table: str, keys: tuple[Key, ...]) -> Reader:
        if not keys:
            return lambda view: view.column((table, "trace_state"), table, _text("trace_state", table))
        key = keys[0]
        if len(keys) != 1 or not isinstance(key, str):
            raise LookupError("'trace_state' takes one key, a text")

        def make(batch: Batch) -> Values:
            return apply(lambda text: _trace_state_entry(text, key), [_text("trace_state", table)(batch)])

        return lambda view: view.column((table, "trace_state", key), table, make)


def _indexed(values: Values, keys: Sequence[Key], where: Array) -> Values:
    """``values`` gone down the keys: a key that is missing in a map is nil; all else that does not fit is an error."""
    found = apply(lambda value: index(value, keys, missing_is_nil=True), [values])
    return found.with_kind(np.where(where, found.kind, np.uint8(Kind.NIL)))


def index(value: Scalar, keys: Sequence[Key], *, missing_is_nil: bool) -> Scalar:
    """One value gone down the keys.

    Raises:
        Failure: it has no such element.
    """
    for key in keys:
        if type(value) is dict and isinstance(key, str):
            if key not in value:
                if missing_is_nil:
                    return None
                raise Failure
            value = value[key]
        elif type(value) is list and isinstance(key, int):
            if not 0 <= key < len(value):
                raise Failure
            value = value[key]
        else:
            raise Failure
    return value


_STATE_KEY: Final = re.compile(r"[a-z][a-z0-9_\-*/]{0,255}|[a-z0-9][a-z0-9_\-*/]{0,240}@[a-z][a-z0-9_\-*/]{0,13}")
_STATE_VALUE: Final = re.compile(r"[\x20-\x2b\x2d-\x3c\x3e-\x7e]{0,255}[\x21-\x2b\x2d-\x3c\x3e-\x7e]")


def _trace_state_entry(text: str, key: str) -> str | None:
    """The entry's value, "" where there is none, nil where the trace state is not valid. Source: W3C Trace Context, tracestate."""
    entries: dict[str, str] = {}
    for member in text.split(","):
        if not member:
            continue
        name, equals, value = member.strip(" \t").partition("=")
        if not equals or not _STATE_KEY.fullmatch(name) or not _STATE_VALUE.fullmatch(value) or name in entries:
            return None
        entries[name] = value
        if len(entries) > 32:
            return None
    return entries.get(key, "")


def _text(field: str, table: str) -> _Make:
    return lambda batch: Values.of_text(batch.field(field, table))


def _whole(field: str, table: str, kind: Kind = Kind.INT) -> _Make:
    return lambda batch: Values.of_numbers(kind, batch.field(field, table))


def _times(table: str, **names: str) -> dict[str, _Make]:
    """``start_time_unix_nano`` as an int and ``start_time`` as a time."""
    made: dict[str, _Make] = {}
    for name, field in names.items():
        made[f"{name}_unix_nano"] = _whole(field, table)
        made[name] = _whole(field, table, Kind.TIME)
    return made


def _ids(table: str, *fields: str) -> dict[str, _Make]:
    """``trace_id`` and ``trace_id.string``."""
    made: dict[str, _Make] = {}
    for field in fields:
        kind = Kind.TRACE_ID if field == "trace_id" else Kind.SPAN_ID
        made[field] = lambda batch, field=field, kind=kind: Values.of_ids(kind, batch.field(field, table))  # type: ignore[misc]
        made[f"{field}.string"] = lambda batch, field=field: Values.of_text(_hex(batch.field(field, table)))  # type: ignore[misc]
    return made


def _hex(ids: Array) -> StringColumn:
    """Ids uint64[n] or [n,2] in lower-case hexadecimal."""
    width = 16 * (ids.ndim)
    starts = np.arange(len(ids), dtype=np.int64) * width
    return StringColumn.from_slices(ids.astype(">u8").tobytes().hex().encode(), starts, np.full(len(ids), width))


def _items(field: str, table: str) -> _Make:
    return lambda batch: Values.of_numbers(Kind.ITEMS, np.ascontiguousarray(batch.table(table).rows[field]))


def _kind_text(texts: Sequence[str]) -> _Make:
    def make(batch: Batch) -> Values:
        kinds = batch.field("kind", "spans")
        known = (kinds >= 0) & (kinds < len(texts))
        return Values.of_text(StringColumn.from_codes(np.where(known, kinds, -1), texts))

    return make


def _of_type(read: _Make, types: tuple[int, ...], table: str) -> _Make:
    """Nil on metrics, or points of metrics, of another type."""

    def make(batch: Batch) -> Values:
        values = read(batch)
        metric_type = batch.field("type", "metrics")
        if table == "points":
            metric_type = metric_type[batch.ancestor("metrics", "points")]
        return values.with_kind(np.where(np.isin(metric_type, types), values.kind, np.uint8(Kind.NIL)))

    return make


def _sum(batch: Batch) -> Values:
    present = (batch.field("present") & PRESENT_SUM) != 0
    summary = batch.field("type", "metrics")[batch.ancestor("metrics", "points")] == METRIC_SUMMARY
    return Values.of_numbers(Kind.DOUBLE, np.where(present | summary, batch.field("sum"), 0.0))


def _point_value(field: str, kind: Kind, value_kind: int) -> _Make:
    return lambda batch: Values.of_numbers(
        kind, np.where(batch.field("value_kind") == value_kind, batch.field(field), 0)
    )


def _body_text(batch: Batch) -> Values:
    return Values.of_text(batch.field("body").as_text())


_NUMBERS: Final = (METRIC_GAUGE, METRIC_SUM)
_HISTOGRAMS: Final = (METRIC_HISTOGRAM, METRIC_EXPONENTIAL_HISTOGRAM)
_POINT_FIELDS: Final[Mapping[str, tuple[_Make, tuple[int, ...]]]] = {
    "value_int": (_point_value("int_value", Kind.INT, 1), _NUMBERS),
    "value_double": (_point_value("double_value", Kind.DOUBLE, 2), _NUMBERS),
    "count": (_whole("count", "points"), (*_HISTOGRAMS, METRIC_SUMMARY)),
    "sum": (_sum, (*_HISTOGRAMS, METRIC_SUMMARY)),
    "scale": (_whole("scale", "points"), (METRIC_EXPONENTIAL_HISTOGRAM,)),
    "zero_count": (_whole("zero_count", "points"), (METRIC_EXPONENTIAL_HISTOGRAM,)),
    "positive.offset": (_whole("positive_offset", "points"), (METRIC_EXPONENTIAL_HISTOGRAM,)),
    "negative.offset": (_whole("negative_offset", "points"), (METRIC_EXPONENTIAL_HISTOGRAM,)),
    "exemplars": (_items("exemplar_count", "points"), (*_NUMBERS, *_HISTOGRAMS)),
    "quantile_values": (_items("quantile_count", "points"), (METRIC_SUMMARY,)),
}
_SCOPE_PATHS: Final[Mapping[str, _Make | _Keyed]] = {
    "name": _text("name", "scopes"),
    "version": _text("version", "scopes"),
    "schema_url": _text("schema_url", "scopes"),
    "attributes": _Attributes(),
}
_PATHS: Final[Mapping[str, Mapping[str, _Make | _Keyed]]] = {
    "resource": {"attributes": _Attributes(), "schema_url": _text("schema_url", "resources")},
    "scope": _SCOPE_PATHS,
    "instrumentation_scope": _SCOPE_PATHS,
    "span": {
        **_ids("spans", "trace_id", "span_id", "parent_span_id"),
        "trace_state": _TraceState(),
        "name": _text("name", "spans"),
        "kind": _whole("kind", "spans"),
        "kind.string": _kind_text([name.capitalize() for name in SPAN_KINDS]),
        "kind.deprecated_string": _kind_text([f"SPAN_KIND_{name}" for name in SPAN_KINDS]),
        **_times("spans", start_time="start_time_unix_nano", end_time="end_time_unix_nano"),
        "attributes": _Attributes(),
        "status.code": _whole("status_code", "spans"),
        "status.message": _text("status_message", "spans"),
        "flags": _whole("flags", "spans"),
        "events": _items("event_count", "spans"),
        "links": _items("link_count", "spans"),
    },
    "spanevent": {
        "name": _text("name", "events"),
        **_times("events", time="time_unix_nano"),
        "attributes": _Attributes(),
    },
    "metric": {
        "name": _text("name", "metrics"),
        "description": _text("description", "metrics"),
        "unit": _text("unit", "metrics"),
        "type": _whole("type", "metrics"),
        "aggregation_temporality": _of_type(_whole("temporality", "metrics"), (METRIC_SUM, *_HISTOGRAMS), "metrics"),
        "is_monotonic": _of_type(_whole("monotonic", "metrics", Kind.BOOL), (METRIC_SUM,), "metrics"),
        "data_points": _of_type(_items("point_count", "metrics"), (*_NUMBERS, *_HISTOGRAMS, METRIC_SUMMARY), "metrics"),
    },
    "datapoint": {
        **_times("points", start_time="start_time_unix_nano", time="time_unix_nano"),
        "attributes": _Attributes(),
        "flags": _whole("flags", "points"),
        **{name: _of_type(read, types, "points") for name, (read, types) in _POINT_FIELDS.items()},
    },
    "log": {
        **_times("records", time="time_unix_nano", observed_time="observed_time_unix_nano"),
        "severity_number": _whole("severity_number", "records"),
        "severity_text": _text("severity_text", "records"),
        "body": _Body(),
        "body.string": _body_text,
        "attributes": _Attributes(),
        "flags": _whole("flags", "records"),
        **_ids("records", "trace_id", "span_id"),
        "event_name": _text("event_name", "records"),
    },
}
