"""The dimensions of a batch's spans or events as columns, the groups of rows that share them, and each group's key.

Identity goes by text, as in the Collector: int 1 and "1" are one series, whose attribute is what came first. An absent dimension and an
empty one are two. A key is a sum over dimensions, so it does not depend on which others the batch has.
Source: opentelemetry-collector-contrib connector/spanmetricsconnector, buildKey and buildAttributes.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from collector.model import (
    KIND_BOOL,
    KIND_DOUBLE,
    KIND_INT,
    AttributeColumn,
    AttributeTable,
    Groups,
    StringColumn,
    Traces,
    combine_keys,
    groups,
    hash_text,
)
from connectors.span_metrics.config import INSTANCE, SAMPLING_METHOD, SCOPE_NAME, SCOPE_VERSION, Dimension, SpanMetricsConfig
from connectors.span_metrics.globs import compile_glob
from connectors.span_metrics.http import HttpColumns
from connectors.span_metrics.weights import Weights

__all__ = ["KIND_NAMES", "Column", "Dimensions", "Rows", "Span", "text_keys"]

KIND_NAMES: Final = ("UNSPECIFIED", "INTERNAL", "SERVER", "CLIENT", "PRODUCER", "CONSUMER")
_KIND_TEXTS: Final = [f"SPAN_KIND_{name}" for name in KIND_NAMES]
_STATUS_TEXTS: Final = ["STATUS_CODE_UNSET", "STATUS_CODE_OK", "STATUS_CODE_ERROR"]
_METHODS: Final = ["counted", "extrapolated"]
GLOB_KEYS_MAX: Final = 64
"""Keys that one list's globs may turn into dimensions in the life of the connector."""

U64 = NDArray[np.uint64]
I32 = NDArray[np.int32]


@dataclass(frozen=True, slots=True)
class Column:
    """One dimension over some rows."""

    name: str
    text: StringColumn
    typed: AttributeColumn | None = None
    """Where the values are not all text."""

    def value(self, row: int) -> str | bool | int | float | None:
        """What a series' attribute is; None = absent. Arrays, maps and bytes are text."""
        if self.typed is not None:
            record = self.typed.rows[row]
            kind = int(record["kind"])
            if kind == KIND_INT:
                return int(record["int_value"])
            if kind == KIND_DOUBLE:
                return float(record["double_value"])
            if kind == KIND_BOOL:
                return bool(record["int_value"])
        code = int(self.text.codes[row])
        return self.text.distinct[code] if code >= 0 else None


@dataclass(frozen=True, slots=True)
class Rows:
    """Rows of a table with their dimensions resolved."""

    columns: Sequence[Column]
    resource: I32
    """I32[n]: the slot of each row's resource."""

    def grouped(self) -> Groups:
        """Rows of one resource with equal dimensions."""
        return groups(self.resource, *(column.text for column in self.columns))

    def keys(self, found: Groups, resource_keys: U64) -> U64:
        """U64[g,2]: each group's key; ``resource_keys`` U64[g,2]."""
        return combine_keys(
            resource_keys, text_keys([(column.name, column.text.take(found.first)) for column in self.columns], found.count)
        )

    def attributes(self, row: int) -> dict[str, str | bool | int | float]:
        """The attributes of the series of a row."""
        values = ((column.name, column.value(row)) for column in self.columns)
        return {name: value for name, value in values if value is not None}


def text_keys(columns: Sequence[tuple[str, StringColumn]], row_count: int) -> U64:
    """U64[n,2]: the sum over columns of a hash of name and value; absent values add nothing."""
    total = np.zeros((row_count, 2), np.uint64)
    for name, text in columns:
        hashes = combine_keys(np.repeat(hash_text(StringColumn.of([name])), row_count, axis=0), hash_text(text))
        hashes[~text.present] = 0
        total += hashes
    return total


class Span:
    """The columns of one batch's spans, each made once, for the rows that count."""

    def __init__(self, batch: Traces, rows: NDArray[np.intp] | None, weights: Weights, http: HttpColumns | None) -> None:
        """``rows``: those that count, of the batch's spans; None = all. ``weights`` of those rows."""
        self.batch, self.rows, self.weights, self.http = batch, rows, weights, http
        self.resource_rows = self.take(batch.ancestor("resources"))
        self._attributes: dict[str, AttributeColumn] = {}

    def take(self, values: Any) -> Any:
        """A column of all spans, for the rows that count."""
        if self.rows is None:
            return values
        return values.take(self.rows) if isinstance(values, (StringColumn, AttributeColumn)) else values[self.rows]

    def field(self, name: str) -> Any:
        """A field of the spans."""
        return self.take(self.batch.field(name))

    def attribute(self, key: str) -> AttributeColumn:
        """An attribute of the spans alone."""
        known = self._attributes.get(key)
        if known is None:
            known = self._attributes[key] = self.take(self.batch.attribute(key))
        return known

    def resource_attribute(self, key: str) -> AttributeColumn:
        """An attribute of the spans' resources."""
        return self.batch.attribute(key, "resources").take(self.resource_rows)


class Dimensions:
    """What one metric is told apart by."""

    def __init__(
        self, config: SpanMetricsConfig, lists: Sequence[Sequence[Dimension]], instance_id: str, warn: Callable[[str], None]
    ) -> None:
        """``lists``: the configured dimensions, of which the first that has a key counts. ``warn`` is told of keys that are too many."""
        self._config, self._instance_id, self._warn = config, instance_id, warn
        every = [dimension for each in lists for dimension in each]
        self._named = [dimension for dimension in every if dimension.name]
        self._matches = [compile_glob(dimension.glob) for dimension in every if dimension.glob]
        self._matched: dict[bytes, bool] = {}
        self._admitted: dict[str, None] = {}

    def of_spans(self, span: Span, resource: I32) -> Rows:
        """The dimensions of the spans; ``resource``: each one's slot."""
        columns = [*self._own(span, None), *(self._named_column(span, None, dimension) for dimension in self._named)]
        columns += self._glob_columns(span, None)
        return Rows([column for column in columns if column.text.present.any()], resource)

    def of_events(self, span: Span, events: NDArray[np.intp], owner: NDArray[np.intp], resource: I32) -> Rows:
        """The dimensions of events: rows ``events`` of their table, on the spans ``owner`` of those that count."""
        on = (events, owner)
        columns = [*self._own(span, owner), *(self._named_column(span, on, dimension) for dimension in self._named)]
        columns += self._glob_columns(span, on)
        return Rows([column for column in columns if column.text.present.any()], resource)

    def _own(self, span: Span, owner: NDArray[np.intp] | None) -> list[Column]:
        """What need not be configured."""
        excluded = set(self._config.exclude_dimensions)
        makers: Mapping[str, Callable[[], StringColumn]] = {
            **(_http(span.http, self._config.status_label) if span.http is not None else _common(span)),
            **({INSTANCE: lambda: StringColumn.constant(self._instance_id, len(span.resource_rows))} if self._with_instance else {}),
        }
        columns = [Column(name, make()) for name, make in makers.items() if name not in excluded]
        if self._config.include_instrumentation_scope:
            columns += self._scope(span)
        if self._config.enable_metrics_sampling_method:
            columns.append(Column(SAMPLING_METHOD, StringColumn.from_codes(span.weights.is_adjusted, _METHODS)))
        return columns if owner is None else [Column(column.name, column.text.take(owner)) for column in columns]

    @property
    def _with_instance(self) -> bool:
        return self._config.include_collector_instance_id

    def _scope(self, span: Span) -> list[Column]:
        scopes = span.take(span.batch.ancestor("scopes"))
        names = span.batch.field("name", "scopes").take(scopes)
        chosen = names.isin([name for name in self._config.include_instrumentation_scope if name])
        versions = span.batch.field("version", "scopes").take(scopes)
        given = chosen & ~versions.equals("")
        return [Column(SCOPE_NAME, names.only(chosen)), Column(SCOPE_VERSION, versions.only(given))]

    def _named_column(self, span: Span, on: tuple[NDArray[np.intp], NDArray[np.intp]] | None, dimension: Dimension) -> Column:
        column = _resolve(span, on, dimension.name)
        text = column.as_text()
        if dimension.default is not None and not text.present.all():
            column = column.fill(AttributeColumn.constant(dimension.default, len(column)))
            text = column.as_text()
        return Column(dimension.name, text, None if text is column.text else column)

    def _glob_columns(self, span: Span, on: tuple[NDArray[np.intp], NDArray[np.intp]] | None) -> list[Column]:
        if not self._matches:
            return []
        tables: list[AttributeTable] = [span.batch.attributes("spans"), span.batch.attributes("resources")]
        if on is not None:
            tables.append(span.batch.attributes("events"))
        names: set[str] = set()
        for table in tables:
            used = np.flatnonzero(np.bincount(table.rows["key_code"], minlength=len(table.keys))).tolist()
            names.update(table.keys[code].decode("utf-8", "replace") for code in used if self._is_match(table.keys[code]))
        for name in sorted(names - self._admitted.keys()):
            if len(self._admitted) >= GLOB_KEYS_MAX:
                self._warn(name)
                break
            self._admitted[name] = None
        columns = []
        for name in sorted(names & self._admitted.keys()):
            column = _resolve(span, on, name)
            text = column.as_text()
            columns.append(Column(name, text, None if text is column.text else column))
        return columns

    def _is_match(self, key: bytes) -> bool:
        known = self._matched.get(key)
        if known is None:
            if len(self._matched) >= _KEY_CACHE_MAX:
                self._matched.clear()
            text = key.decode("utf-8", "replace")
            known = self._matched[key] = any(matches(text) for matches in self._matches)
        return known


_KEY_CACHE_MAX: Final = 4096


def _resolve(span: Span, on: tuple[NDArray[np.intp], NDArray[np.intp]] | None, key: str) -> AttributeColumn:
    """The span's attribute, else the event's, else the resource's."""
    column = span.attribute(key)
    if on is None:
        return column if column.present.all() else column.fill(span.resource_attribute(key))
    events, owner = on
    column = column.take(owner).fill(span.batch.attribute(key, "events").take(events))
    return column if column.present.all() else column.fill(span.resource_attribute(key).take(owner))


def _common(span: Span) -> dict[str, Callable[[], StringColumn]]:
    return {
        "service.name": lambda: span.resource_attribute("service.name").as_text(),
        "span.name": lambda: span.field("name").fill(""),
        "span.kind": lambda: _of_codes(span.field("kind"), _KIND_TEXTS),
        "status.code": lambda: _of_codes(span.field("status_code"), _STATUS_TEXTS),
    }


def _http(http: HttpColumns, status_label: str) -> dict[str, Callable[[], StringColumn]]:
    return {"method": lambda: http.method, "endpoint": lambda: http.endpoint, status_label: lambda: http.status}


def _of_codes(codes: NDArray[np.int32], texts: Sequence[str]) -> StringColumn:
    """An enumeration as text; numbers that are not in it are ``""``, as in the Collector."""
    known = (codes >= 0) & (codes < len(texts))
    return StringColumn.from_codes(np.where(known, codes, len(texts)), [*texts, ""])
