"""The paths of each context, and the columns of the batch that they read, as ``Values``.

Source: opentelemetry-collector-contrib pkg/ottl/contexts (one README per context; v0.156).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from difflib import get_close_matches
from typing import Any, Final, TypeAlias

import numpy as np

from collector.model import (
    KIND_ABSENT,
    METRIC_EXPONENTIAL_HISTOGRAM,
    METRIC_GAUGE,
    METRIC_HISTOGRAM,
    METRIC_SUM,
    METRIC_SUMMARY,
    PRESENT_SUM,
    Batch,
    StringColumn,
)
from collector.model.values import any_value
from collector.otlp.semantics import SPAN_KINDS
from collector.ottl.contexts import TABLES
from collector.ottl.draft import Draft
from collector.ottl.operations import apply
from collector.ottl.trace_state import entry
from collector.ottl.values import Array, EvaluationError, Kind, Scalar, Values
from collector.ottl.view import View

__all__ = ["Key", "Reader", "attribute_maps", "descend", "has_path", "path_reader"]

Key: TypeAlias = str | int

Reader: TypeAlias = Callable[[View], Values]
_BatchReader: TypeAlias = Callable[[Batch], Values]


def path_reader(owner: str, names: Sequence[str], keys: Sequence[Key]) -> Reader:
    """A reader of ``names`` (``("status", "code")``) in the context ``owner``, then of the ``keys`` of the last name.

    Raises:
        LookupError: there is no such path, or it does not take such keys; the message says what there is.
    """
    paths = _PATHS[owner]
    path = ".".join(names)
    if path not in paths:
        raise LookupError(_unknown_path(owner, path))
    path_form = paths[path]
    table = TABLES[owner]
    if isinstance(path_form, _KeyedPath):
        return path_form.reader(table, tuple(keys))
    if keys:
        raise LookupError(f"{path!r} of {owner!r} does not accept keys")
    return lambda view: view.column((table, path), table, path_form)


def has_path(owner: str, path: str) -> bool:
    """Whether columns have the path."""
    return path in _PATHS[owner]


def _unknown_path(owner: str, path: str) -> str:
    if path in _UNREADABLE or path.partition(".")[0] in _UNREADABLE:
        return f"{path!r} of {owner!r} cannot be read"
    near = get_close_matches(path, _PATHS[owner], 1)
    hint = f"did you mean {near[0]!r}?" if near else f"its paths are {', '.join(_PATHS[owner])}"
    return f"the context {owner!r} does not have a path {path!r}; {hint}"


# Paths of OTTL whose parts have to be named.
_UNREADABLE: Final = frozenset({"status", "positive", "negative", "event_index"})


class _KeyedPath(ABC):
    """A path that takes keys: attributes, the body, the trace state."""

    @abstractmethod
    def reader(self, table: str, keys: tuple[Key, ...]) -> Reader:
        """A reader of the value under ``keys``."""


class _Attributes(_KeyedPath):
    def reader(self, table: str, keys: tuple[Key, ...]) -> Reader:
        if not keys:
            return lambda view: view.column(
                (table, "attributes"),
                table,
                lambda batch: attribute_maps(batch, table),
            )
        first, inner_keys = keys[0], keys[1:]
        if not isinstance(first, str):
            reason = f"an attribute key must be a string, got {first}"
            raise LookupError(reason)  # noqa: TRY004 - one error for all invalid paths

        def make(batch: Batch) -> Values:
            column = batch.attribute(first, table)
            values = Values.of_attributes(column)
            return _descended(values, inner_keys, column.present) if inner_keys else values

        return lambda view: view.column((table, "attributes", *map(repr, keys)), table, make)


def attribute_maps(batch: Any, table: str) -> Values:
    """All attributes of each row as a map. Their number is known without making the maps."""
    attributes = batch.attributes(table)
    row_count = batch.table(table).row_count

    def maps() -> tuple[Array, list[Any]]:
        made: list[dict[str, Scalar]] = [{} for _ in range(row_count)]
        if attributes.row_count:
            contents = StringColumn.from_slices(attributes.source, attributes.rows["any"], attributes.rows["any_len"])
            values = [any_value(content) for content in contents.distinct_bytes]
            keys = attributes.key.distinct
            for owner, key, code in zip(
                attributes.owner.tolist(), attributes.key.codes.tolist(), contents.codes.tolist(), strict=True
            ):
                made[owner][keys[key]] = values[code] if code >= 0 else None
        return np.arange(row_count, dtype=np.int32), made

    return Values(
        np.full(row_count, Kind.MAP, np.uint8),
        objects=maps,
        lengths=lambda: np.bincount(attributes.owner, minlength=row_count),
    )


class _Body(_KeyedPath):
    def reader(self, table: str, keys: tuple[Key, ...]) -> Reader:
        def make(batch: Batch) -> Values:
            values = _body(batch, table)
            return _descended(values, keys, np.ones(len(values), np.bool_)) if keys else values

        return lambda view: view.column((table, "body", *map(repr, keys)), table, make)


def _body(batch: Any, table: str) -> Values:
    """The bodies; the index of a batch has their kinds and texts."""
    if isinstance(batch, Draft):
        unchanged = batch.unchanged([(table, "body", "")])
        if unchanged is None:
            return Values.of_attributes(batch.field("body", table))
        batch = unchanged
    rows = batch.table(table).rows

    def whole() -> Values:
        return Values.of_attributes(batch.field("body", table))

    kind = rows["body_kind"].astype(np.uint8)
    kind[kind == KIND_ABSENT] = Kind.NIL
    return Values(
        kind,
        number=lambda: whole().number,
        double=lambda: whole().double,
        text=lambda: StringColumn.from_slices(batch.wire, rows["text"], rows["text_len"]),
        objects=lambda: whole().objects,
    )


class _TraceState(_KeyedPath):
    def reader(self, table: str, keys: tuple[Key, ...]) -> Reader:
        if not keys:
            return lambda view: view.column((table, "trace_state"), table, _text("trace_state", table))
        key = keys[0]
        if len(keys) != 1 or not isinstance(key, str):
            raise LookupError("'trace_state' accepts a single key, which must be a string")

        def make(batch: Batch) -> Values:
            return apply(lambda text: entry(text, key), [_text("trace_state", table)(batch)])

        return lambda view: view.column((table, "trace_state", key), table, make)


def _descended(values: Values, keys: Sequence[Key], where: Array) -> Values:
    """The elements of ``values`` under the keys. A missing key of a map is nil; any other mismatch is an error."""
    found = apply(lambda value: descend(value, keys, missing_is_nil=True), [values])
    return found.with_kind(np.where(where, found.kind, np.uint8(Kind.NIL)))


def descend(value: Scalar, keys: Sequence[Key], *, missing_is_nil: bool) -> Scalar:
    """The element of a value under the keys.

    Raises:
        EvaluationError: the value has no such element.
    """
    for key in keys:
        if type(value) is dict and isinstance(key, str):
            if key not in value:
                if missing_is_nil:
                    return None
                raise EvaluationError
            value = value[key]
        elif type(value) is list and isinstance(key, int):
            if not 0 <= key < len(value):
                raise EvaluationError
            value = value[key]
        else:
            raise EvaluationError
    return value


def _text(field: str, table: str) -> _BatchReader:
    return lambda batch: Values.of_text(batch.field(field, table))


def _number(field: str, table: str, kind: int = Kind.INT) -> _BatchReader:
    return lambda batch: Values.of_numbers(kind, batch.field(field, table))


def _time_paths(table: str, **names: str) -> dict[str, _BatchReader]:
    """The paths of times: ``start_time_unix_nano`` as an int and ``start_time`` as a time."""
    paths_by_name: dict[str, _BatchReader] = {}
    for name, field in names.items():
        paths_by_name[f"{name}_unix_nano"] = _number(field, table)
        paths_by_name[name] = _number(field, table, Kind.TIME)
    return paths_by_name


def _id_paths(table: str, *fields: str) -> dict[str, _BatchReader]:
    """The paths of ids: ``trace_id`` and ``trace_id.string``."""
    paths_by_name: dict[str, _BatchReader] = {}
    for field in fields:
        paths_by_name[field] = _id(field, table, Kind.TRACE_ID if field == "trace_id" else Kind.SPAN_ID)
        paths_by_name[f"{field}.string"] = _id_text(field, table)
    return paths_by_name


def _id(field: str, table: str, kind: int) -> _BatchReader:
    return lambda batch: Values.of_ids(kind, batch.field(field, table))


def _id_text(field: str, table: str) -> _BatchReader:
    return lambda batch: Values.of_text(_hex(batch.field(field, table)))


def _hex(ids: Array) -> StringColumn:
    """Ids, uint64[n] or [n,2], in lower-case hexadecimal."""
    width = 16 * (ids.ndim)
    starts = np.arange(len(ids), dtype=np.int64) * width
    return StringColumn.from_slices(ids.astype(">u8").tobytes().hex().encode(), starts, np.full(len(ids), width))


def _length(field: str, table: str) -> _BatchReader:
    def make(batch: Batch) -> Values:
        numbers = np.ascontiguousarray(batch.table(table).rows[field])
        return Values(np.full(len(numbers), Kind.ITEMS, np.uint8), lengths=lambda: numbers)

    return make


def _kind_text(texts: Sequence[str]) -> _BatchReader:
    def make(batch: Batch) -> Values:
        kinds = batch.field("kind", "spans")
        known = (kinds >= 0) & (kinds < len(texts))
        return Values.of_text(StringColumn.from_codes(np.where(known, kinds, -1), texts))

    return make


def _only_for_types(read: _BatchReader, types: tuple[int, ...], table: str) -> _BatchReader:
    """A reader that is nil for metrics of other types and for their points."""

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


def _point_value(field: str, kind: int, value_kind: int) -> _BatchReader:
    return lambda batch: Values.of_numbers(
        kind, np.where(batch.field("value_kind") == value_kind, batch.field(field), 0)
    )


def _body_text(batch: Batch) -> Values:
    return Values.of_text(batch.field("body").as_text())


_NUMBERS: Final = (METRIC_GAUGE, METRIC_SUM)
_HISTOGRAMS: Final = (METRIC_HISTOGRAM, METRIC_EXPONENTIAL_HISTOGRAM)
_POINT_FIELDS: Final[Mapping[str, tuple[_BatchReader, tuple[int, ...]]]] = {
    "value_int": (_point_value("int_value", Kind.INT, 1), _NUMBERS),
    "value_double": (_point_value("double_value", Kind.DOUBLE, 2), _NUMBERS),
    "count": (_number("count", "points"), (*_HISTOGRAMS, METRIC_SUMMARY)),
    "sum": (_sum, (*_HISTOGRAMS, METRIC_SUMMARY)),
    "scale": (_number("scale", "points"), (METRIC_EXPONENTIAL_HISTOGRAM,)),
    "zero_count": (_number("zero_count", "points"), (METRIC_EXPONENTIAL_HISTOGRAM,)),
    "positive.offset": (_number("positive_offset", "points"), (METRIC_EXPONENTIAL_HISTOGRAM,)),
    "negative.offset": (_number("negative_offset", "points"), (METRIC_EXPONENTIAL_HISTOGRAM,)),
    "exemplars": (_length("exemplar_count", "points"), (*_NUMBERS, *_HISTOGRAMS)),
    "quantile_values": (_length("quantile_count", "points"), (METRIC_SUMMARY,)),
}
_SCOPE_PATHS: Final[Mapping[str, _BatchReader | _KeyedPath]] = {
    "name": _text("name", "scopes"),
    "version": _text("version", "scopes"),
    "schema_url": _text("schema_url", "scopes"),
    "attributes": _Attributes(),
}
_PATHS: Final[Mapping[str, Mapping[str, _BatchReader | _KeyedPath]]] = {
    "resource": {"attributes": _Attributes(), "schema_url": _text("schema_url", "resources")},
    "scope": _SCOPE_PATHS,
    "instrumentation_scope": _SCOPE_PATHS,
    "span": {
        **_id_paths("spans", "trace_id", "span_id", "parent_span_id"),
        "trace_state": _TraceState(),
        "name": _text("name", "spans"),
        "kind": _number("kind", "spans"),
        "kind.string": _kind_text([name.capitalize() for name in SPAN_KINDS]),
        "kind.deprecated_string": _kind_text([f"SPAN_KIND_{name}" for name in SPAN_KINDS]),
        **_time_paths("spans", start_time="start_time_unix_nano", end_time="end_time_unix_nano"),
        "attributes": _Attributes(),
        "status.code": _number("status_code", "spans"),
        "status.message": _text("status_message", "spans"),
        "flags": _number("flags", "spans"),
        "events": _length("event_count", "spans"),
        "links": _length("link_count", "spans"),
    },
    "spanevent": {
        "name": _text("name", "events"),
        **_time_paths("events", time="time_unix_nano"),
        "attributes": _Attributes(),
    },
    "metric": {
        "name": _text("name", "metrics"),
        "description": _text("description", "metrics"),
        "unit": _text("unit", "metrics"),
        "type": _number("type", "metrics"),
        "aggregation_temporality": _only_for_types(
            _number("temporality", "metrics"), (METRIC_SUM, *_HISTOGRAMS), "metrics"
        ),
        "is_monotonic": _only_for_types(_number("monotonic", "metrics", Kind.BOOL), (METRIC_SUM,), "metrics"),
        "data_points": _only_for_types(
            _length("point_count", "metrics"), (*_NUMBERS, *_HISTOGRAMS, METRIC_SUMMARY), "metrics"
        ),
    },
    "datapoint": {
        **_time_paths("points", start_time="start_time_unix_nano", time="time_unix_nano"),
        "attributes": _Attributes(),
        "flags": _number("flags", "points"),
        **{name: _only_for_types(read, types, "points") for name, (read, types) in _POINT_FIELDS.items()},
    },
    "log": {
        **_time_paths("records", time="time_unix_nano", observed_time="observed_time_unix_nano"),
        "severity_number": _number("severity_number", "records"),
        "severity_text": _text("severity_text", "records"),
        "body": _Body(),
        "body.string": _body_text,
        "attributes": _Attributes(),
        "flags": _number("flags", "records"),
        **_id_paths("records", "trace_id", "span_id"),
        "event_name": _text("event_name", "records"),
    },
}
