"""The dimensions of a batch's spans or events as columns, the groups of rows that share them, and each group's key.

As in the Collector, values are compared as text: int 1 and "1" are one series, whose attribute has the type that was
seen first. An absent dimension differs from an empty one. The key of a group is a sum over its dimensions, so it does
not depend on which other dimensions the batch has. Source: opentelemetry-collector-contrib
connector/spanmetricsconnector, buildKey and buildAttributes.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np

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
from collector.model.arrays import I32, U64, Indices
from collector.otlp.semantics import SPAN_KINDS, STATUS_CODES
from collector.text.cache import cached_by_text
from connectors.span_metrics.config import (
    INSTANCE,
    SAMPLING_METHOD,
    SCOPE_NAME,
    SCOPE_VERSION,
    Dimension,
    SpanMetricsConfig,
)
from connectors.span_metrics.globs import compile_glob
from connectors.span_metrics.http import HttpColumns
from connectors.span_metrics.weights import Weights

__all__ = ["DimensionColumn", "DimensionRows", "Dimensions", "SpanColumns", "text_keys"]

_KIND_TEXTS: Final = [*(f"SPAN_KIND_{name}" for name in SPAN_KINDS), ""]
_STATUS_TEXTS: Final = [*(f"STATUS_CODE_{name}" for name in STATUS_CODES), ""]
_METHODS: Final = ["counted", "extrapolated"]
_VALUES_CACHED_MAX: Final = 16_384
_VALUE_CACHED_MAX_BYTES: Final = 256
_KEY_MAX_BYTES: Final = 1024  # a longer key does not become a dimension
_NUMBER_MAX: Final = 1 << 62
GLOB_KEYS_MAX: Final = 64
"""Keys that the globs of one metric may turn into dimensions during the life of the connector."""


class ValueHashes:
    """Hashes of the values of one dimension, computed once per distinct value while it stays in the cache."""

    def __init__(self, name: str) -> None:
        self._name = hash_text(StringColumn.of([name]))
        self._codes: dict[bytes, int] = {}
        self._hashes = np.zeros((0, 2), np.uint64)

    def hashes_of(self, values: Sequence[bytes]) -> U64:
        """U64[d+1,2]: the hash of name and value for each of ``values``; the last row, for code -1, is (0, 0)."""
        codes = self._codes
        missing = [value for value in values if value not in codes]
        if missing:
            if any(len(value) > _VALUE_CACHED_MAX_BYTES for value in missing):
                return self._computed(values)
            if len(codes) + len(missing) > _VALUES_CACHED_MAX:
                codes.clear()
                self._hashes, missing = np.zeros((0, 2), np.uint64), list(values)
            missing = list(dict.fromkeys(missing))
            codes.update(zip(missing, range(len(codes), len(codes) + len(missing)), strict=True))
            self._hashes = np.concatenate([self._hashes, self._computed(missing)[:-1]])
        hashes = np.zeros((len(values) + 1, 2), np.uint64)
        if values:
            hashes[:-1] = self._hashes[np.fromiter(map(codes.__getitem__, values), np.int64, len(values))]
        return hashes

    def _computed(self, values: Sequence[bytes]) -> U64:
        column = StringColumn.from_codes(np.arange(len(values)), values)
        hashes = np.zeros((len(values) + 1, 2), np.uint64)
        hashes[:-1] = combine_keys(np.repeat(self._name, len(values), axis=0), hash_text(column))
        return hashes


@dataclass(frozen=True, slots=True)
class DimensionColumn:
    """One dimension of some rows."""

    name: str
    codes: I32
    """I32[n]: an index of the values; -1: absent."""
    hashes: U64
    """U64[d+1,2], by code."""
    text: StringColumn | Sequence[str]
    """The values: a column that has the same codes, or a list."""
    typed: AttributeColumn | None = None
    """The attribute itself, where not all of its values are text."""

    @property
    def any_present(self) -> bool:
        """Whether any row has the dimension."""
        return bool(len(self.codes)) and int(self.codes.max()) >= 0

    def value(self, row: int) -> str | bool | int | float | None:
        """The attribute of the series of a row; None: absent. Arrays, maps and bytes become text."""
        if self.typed is not None:
            record = self.typed.rows[row]
            kind = int(record["kind"])
            if kind == KIND_INT:
                return int(record["int_value"])
            if kind == KIND_DOUBLE:
                return float(record["double_value"])
            if kind == KIND_BOOL:
                return bool(record["int_value"])
        code = int(self.codes[row])
        if code < 0:
            return None
        return self.text.distinct[code] if isinstance(self.text, StringColumn) else self.text[code]


@dataclass(frozen=True, slots=True)
class DimensionRows:
    """Spans or events with their dimensions."""

    columns: Sequence[DimensionColumn]
    resource: I32
    """I32[n]: the slot of the resource of each row."""

    def grouped(self) -> Groups:
        """Groups of rows that have one resource and equal dimensions."""
        # While they fit, the codes are digits of one number: a single pass instead of one for every two columns.
        number, range_, numbers = self.resource.astype(np.int64), 1 << 31, []
        for column in self.columns:
            size = len(column.hashes)
            if range_ * size >= _NUMBER_MAX:
                numbers.append(number)
                number, range_ = np.zeros(len(number), np.int64), 1
            number = number * size + column.codes + 1
            range_ *= size
        return groups(*numbers, number)

    def keys(self, series: Groups, resource_keys: U64) -> U64:
        """U64[g,2]: the key of each group; ``resource_keys`` U64[g,2]."""
        total = np.zeros((series.count, 2), np.uint64)
        for column in self.columns:
            total += column.hashes[column.codes[series.first]]
        return combine_keys(resource_keys, total)

    def attributes(self, row: int) -> dict[str, str | bool | int | float]:
        """The attributes of the series that a row belongs to."""
        values = ((column.name, column.value(row)) for column in self.columns)
        return {name: value for name, value in values if value is not None}


def text_keys(columns: Sequence[tuple[str, StringColumn]], row_count: int) -> U64:
    """U64[n,2]: the sum over the columns of the hash of name and value; absent values add nothing."""
    total = np.zeros((row_count, 2), np.uint64)
    for name, text in columns:
        hashes = combine_keys(np.repeat(hash_text(StringColumn.of([name])), row_count, axis=0), hash_text(text))
        hashes[~text.present] = 0
        total += hashes
    return total


class SpanColumns:
    """The columns of the spans of a batch that are counted, each made once."""

    def __init__(self, batch: Traces, rows: Indices | None, weights: Weights, http: HttpColumns | None) -> None:
        """``rows``: the spans of the batch that are counted; None: all. ``weights`` and ``http`` are of those rows."""
        self.batch, self.rows, self.weights, self.http = batch, rows, weights, http
        self.resource_rows = self.take(batch.ancestor("resources"))
        self._attributes: dict[str, AttributeColumn] = {}

    def take(self, values: Any) -> Any:
        """Of a column of all spans, the rows that are counted."""
        if self.rows is None:
            return values
        return values.take(self.rows) if isinstance(values, (StringColumn, AttributeColumn)) else values[self.rows]

    def field(self, name: str) -> Any:
        """A field of the spans that are counted."""
        return self.take(self.batch.field(name))

    def attribute(self, key: str) -> AttributeColumn:
        """An attribute of the spans, not of their resources."""
        column = self._attributes.get(key)
        if column is None:
            column = self._attributes[key] = self.take(self.batch.attribute(key))
        return column

    def resource_attribute(self, key: str) -> AttributeColumn | None:
        """An attribute of the spans' resources; None if no resource has it."""
        if self.batch.attributes("resources").code_of(key) < 0:
            return None
        return self.batch.attribute(key, "resources").take(self.resource_rows)

    def resource_text(self, key: str) -> StringColumn:
        """An attribute of the spans' resources as text."""
        return self.batch.attribute(key, "resources").as_text().take(self.resource_rows)


class Dimensions:
    """The dimensions of one metric."""

    def __init__(
        self,
        config: SpanMetricsConfig,
        lists: Sequence[Sequence[Dimension]],
        instance_id: str,
        warn: Callable[[str], None],
    ) -> None:
        """``lists``: the configured dimensions. ``warn`` is called with the first key that is one too many."""
        self._config, self._instance_id, self._warn = config, instance_id, warn
        configured = [dimension for dimensions in lists for dimension in dimensions]
        self._named = [dimension for dimension in configured if dimension.name]
        self._globs = [compile_glob(dimension.glob) for dimension in configured if dimension.glob]
        self._is_match = cached_by_text(self._find_match, max_bytes=1024 * 1024)
        self._glob_keys: dict[str, None] = {}
        self._value_hashes: dict[str, ValueHashes] = {}
        self._constant_hashes: dict[str, U64] = {}

    def of_spans(self, spans: SpanColumns, resource: I32) -> DimensionRows:
        """The dimensions of the spans. ``resource``: the slot of the resource of each."""
        columns = [*self._built_in(spans), *(self._named_column(spans, None, dimension) for dimension in self._named)]
        columns += self._glob_columns(spans, None)
        return DimensionRows([column for column in columns if column.any_present], resource)

    def of_events(self, spans: SpanColumns, events: Indices, owner: Indices, resource: I32) -> DimensionRows:
        """The dimensions of events.

        Args:
            spans: The spans that are counted.
            events: Rows of the table of events.
            owner: The span of each, as an index of ``spans``.
            resource: The slot of the resource of each.
        """
        event_rows = (events, owner)
        columns = [replace(column, codes=column.codes[owner]) for column in self._built_in(spans)]
        columns += [self._named_column(spans, event_rows, dimension) for dimension in self._named]
        columns += self._glob_columns(spans, event_rows)
        return DimensionRows([column for column in columns if column.any_present], resource)

    def _built_in(self, spans: SpanColumns) -> list[DimensionColumn]:
        """The dimensions that need not be configured."""
        config = self._config
        makers = (
            _http_dimensions(self, spans, config.status_label)
            if spans.http is not None
            else _default_dimensions(self, spans)
        )
        columns = [make(name) for name, make in makers.items() if name not in config.exclude_dimensions]
        if config.include_collector_instance_id and INSTANCE not in config.exclude_dimensions:
            columns.append(
                self.of_constants(INSTANCE, np.zeros(len(spans.resource_rows), np.int32), [self._instance_id])
            )
        if config.include_instrumentation_scope:
            columns += self._scope(spans)
        if config.enable_metrics_sampling_method:
            columns.append(self.of_constants(SAMPLING_METHOD, spans.weights.is_adjusted.astype(np.int32), _METHODS))
        return columns

    def of_constants(self, name: str, codes: I32, texts: Sequence[str]) -> DimensionColumn:
        """A dimension whose values are known in advance."""
        hashes = self._constant_hashes.get(name)
        if hashes is None:
            hashes = self._constant_hashes[name] = ValueHashes(name).hashes_of([text.encode() for text in texts])
        return DimensionColumn(name, codes, hashes, texts)

    def of_text(self, name: str, text: StringColumn, typed: AttributeColumn | None = None) -> DimensionColumn:
        """A dimension with arbitrary texts as values."""
        value_hashes = self._value_hashes.get(name)
        if value_hashes is None:
            value_hashes = self._value_hashes[name] = ValueHashes(name)
        return DimensionColumn(name, text.codes, value_hashes.hashes_of(text.distinct_bytes), text, typed)

    def _scope(self, spans: SpanColumns) -> list[DimensionColumn]:
        scopes = spans.take(spans.batch.ancestor("scopes"))
        names = spans.batch.field("name", "scopes").take(scopes)
        is_included = names.isin([name for name in self._config.include_instrumentation_scope if name])
        versions = spans.batch.field("version", "scopes").take(scopes)
        has_version = is_included & ~versions.equals("")
        return [
            self.of_text(SCOPE_NAME, names.only(is_included)),
            self.of_text(SCOPE_VERSION, versions.only(has_version)),
        ]

    def _named_column(
        self, spans: SpanColumns, event_rows: tuple[Indices, Indices] | None, dimension: Dimension
    ) -> DimensionColumn:
        column = _resolve(spans, event_rows, dimension.name)
        text = column.as_text()
        typed = None if text is column.text else column
        return self.of_text(dimension.name, text if dimension.default is None else text.fill(dimension.default), typed)

    def _glob_columns(self, spans: SpanColumns, event_rows: tuple[Indices, Indices] | None) -> list[DimensionColumn]:
        if not self._globs:
            return []
        tables: list[AttributeTable] = [spans.batch.attributes("spans"), spans.batch.attributes("resources")]
        if event_rows is not None:
            tables.append(spans.batch.attributes("events"))
        names: set[str] = set()
        for table in tables:
            used = np.flatnonzero(np.bincount(table.rows["key_code"], minlength=len(table.keys))).tolist()
            names.update(
                table.keys[code].decode("utf-8", "replace") for code in used if self._is_match(table.keys[code])
            )
        for name in sorted(names - self._glob_keys.keys()):
            if len(self._glob_keys) >= GLOB_KEYS_MAX:
                self._warn(name)
                break
            self._glob_keys[name] = None
        columns = []
        for name in sorted(names & self._glob_keys.keys()):
            column = _resolve(spans, event_rows, name)
            text = column.as_text()
            columns.append(self.of_text(name, text, None if text is column.text else column))
        return columns

    def _find_match(self, key: bytes) -> bool:
        if len(key) > _KEY_MAX_BYTES:
            return False
        text = key.decode("utf-8", "replace")
        return any(matches(text) for matches in self._globs)


def _resolve(spans: SpanColumns, event_rows: tuple[Indices, Indices] | None, key: str) -> AttributeColumn:
    """The attribute of the span, else of the event, else of the resource."""
    column = spans.attribute(key)
    if event_rows is not None:
        events, owner = event_rows
        column = column.take(owner).fill(spans.batch.attribute(key, "events").take(events))
    if column.present.all():
        return column
    resource = spans.resource_attribute(key)
    if resource is None:
        return column
    return column.fill(resource if event_rows is None else resource.take(event_rows[1]))


def _default_dimensions(dimensions: Dimensions, spans: SpanColumns) -> dict[str, Callable[[str], DimensionColumn]]:
    return {
        "service.name": lambda name: dimensions.of_text(name, spans.resource_text("service.name")),
        "span.name": lambda name: dimensions.of_text(name, spans.field("name").fill("")),
        "span.kind": lambda name: dimensions.of_constants(
            name, _code_or_empty(spans.field("kind"), _KIND_TEXTS), _KIND_TEXTS
        ),
        "status.code": lambda name: dimensions.of_constants(
            name, _code_or_empty(spans.field("status_code"), _STATUS_TEXTS), _STATUS_TEXTS
        ),
    }


def _http_dimensions(
    dimensions: Dimensions, spans: SpanColumns, status_label: str
) -> dict[str, Callable[[str], DimensionColumn]]:
    http = spans.http
    assert http is not None
    return {
        "method": lambda name: dimensions.of_text(name, http.method),
        "endpoint": lambda name: dimensions.of_text(name, http.endpoint),
        status_label: lambda name: dimensions.of_text(name, http.status),
    }


def _code_or_empty(codes: I32, texts: Sequence[str]) -> I32:
    """The codes, or that of the last text, which is empty, for unknown numbers; as in the Collector."""
    valid: I32 = np.where(codes.view(np.uint32) < len(texts) - 1, codes, np.int32(len(texts) - 1))
    return valid
