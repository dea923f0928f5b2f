"""The dimensions of a batch's spans or events as columns, the groups of rows that share them, and each group's key.

Identity goes by text, as in the Collector: int 1 and "1" are one series, whose attribute is what came first. An absent
dimension and an empty one are two. A key is a sum over dimensions, so it does not depend on which others the batch has.
Source: opentelemetry-collector-contrib connector/spanmetricsconnector, buildKey and buildAttributes.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
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

__all__ = ["Column", "Dimensions", "Rows", "Span", "text_keys"]

_KIND_TEXTS: Final = [*(f"SPAN_KIND_{name}" for name in SPAN_KINDS), ""]
_STATUS_TEXTS: Final = [*(f"STATUS_CODE_{name}" for name in STATUS_CODES), ""]
_METHODS: Final = ["counted", "extrapolated"]
_KEY_CACHE_MAX: Final = 4096
_VALUE_CACHE_MAX: Final = 16_384
_DIGITS_MAX: Final = 1 << 62
GLOB_KEYS_MAX: Final = 64
"""Keys that one list's globs may turn into dimensions in the life of the connector."""


class Interned:
    """Hashes of one dimension's values, made once for each distinct value as long as it stays in the cache."""

    def __init__(self, name: str) -> None:
        self._name = hash_text(StringColumn.of([name]))
        self._codes: dict[bytes, int] = {}
        self._hashes = np.zeros((0, 2), np.uint64)

    def hashes_of(self, values: Sequence[bytes]) -> U64:
        """U64[d+1,2]: the hash of name and value for each of them; the last row, for code -1, is (0, 0)."""
        codes = self._codes
        missing = [value for value in values if value not in codes]
        if missing:
            if len(codes) + len(missing) > _VALUE_CACHE_MAX:
                codes.clear()
                self._hashes, missing = np.zeros((0, 2), np.uint64), list(values)
            missing = list(dict.fromkeys(missing))
            codes.update(zip(missing, range(len(codes), len(codes) + len(missing)), strict=True))
            column = StringColumn.from_codes(np.arange(len(missing)), missing)
            made = combine_keys(np.repeat(self._name, len(missing), axis=0), hash_text(column))
            self._hashes = np.concatenate([self._hashes, made])
        found = np.zeros((len(values) + 1, 2), np.uint64)
        if values:
            found[:-1] = self._hashes[np.fromiter(map(codes.__getitem__, values), np.int64, len(values))]
        return found


@dataclass(frozen=True, slots=True)
class Column:
    """One dimension over some rows."""

    name: str
    codes: I32
    """I32[n], into the values; -1 = absent."""
    hashes: U64
    """U64[d+1,2], by code."""
    text: StringColumn | Sequence[str]
    """The values: a column whose codes these are, or a list."""
    typed: AttributeColumn | None = None
    """Where the values are not all text."""

    @property
    def any_present(self) -> bool:
        """Whether a row has it."""
        return bool(len(self.codes)) and int(self.codes.max()) >= 0

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
        code = int(self.codes[row])
        if code < 0:
            return None
        return self.text.distinct[code] if isinstance(self.text, StringColumn) else self.text[code]


@dataclass(frozen=True, slots=True)
class Rows:
    """Rows of a table with their dimensions resolved."""

    columns: Sequence[Column]
    resource: I32
    """I32[n]: the slot of each row's resource."""

    def grouped(self) -> Groups:
        """Rows of one resource with equal dimensions."""
        # As digits of one number while it fits: one pass instead of one for every two columns.
        total, room, left = self.resource.astype(np.int64), 1 << 31, []
        for column in self.columns:
            size = len(column.hashes)
            if room * size >= _DIGITS_MAX:
                left.append(total)
                total, room = np.zeros(len(total), np.int64), 1
            total = total * size + column.codes + 1
            room *= size
        return groups(*left, total)

    def keys(self, found: Groups, resource_keys: U64) -> U64:
        """U64[g,2]: each group's key; ``resource_keys`` U64[g,2]."""
        total = np.zeros((found.count, 2), np.uint64)
        for column in self.columns:
            total += column.hashes[column.codes[found.first]]
        return combine_keys(resource_keys, total)

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

    def __init__(self, batch: Traces, rows: Indices | None, weights: Weights, http: HttpColumns | None) -> None:
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

    def resource_attribute(self, key: str) -> AttributeColumn | None:
        """An attribute of the spans' resources; None where no resource has it."""
        if self.batch.attributes("resources").code_of(key) < 0:
            return None
        return self.batch.attribute(key, "resources").take(self.resource_rows)

    def resource_text(self, key: str) -> StringColumn:
        """The same as text."""
        return self.batch.attribute(key, "resources").as_text().take(self.resource_rows)


class Dimensions:
    """What one metric is told apart by."""

    def __init__(
        self,
        config: SpanMetricsConfig,
        lists: Sequence[Sequence[Dimension]],
        instance_id: str,
        warn: Callable[[str], None],
    ) -> None:
        """``lists``: the configured dimensions, of which the first that has a key counts. ``warn`` is told of keys that are too many."""
        self._config, self._instance_id, self._warn = config, instance_id, warn
        every = [dimension for each in lists for dimension in each]
        self._named = [dimension for dimension in every if dimension.name]
        self._matches = [compile_glob(dimension.glob) for dimension in every if dimension.glob]
        self._matched: dict[bytes, bool] = {}
        self._admitted: dict[str, None] = {}
        self._interned: dict[str, Interned] = {}
        self._enumerated: dict[str, U64] = {}

    def of_spans(self, span: Span, resource: I32) -> Rows:
        """The dimensions of the spans; ``resource``: each one's slot."""
        columns = [*self._own(span), *(self._named_column(span, None, dimension) for dimension in self._named)]
        columns += self._glob_columns(span, None)
        return Rows([column for column in columns if column.any_present], resource)

    def of_events(self, span: Span, events: Indices, owner: Indices, resource: I32) -> Rows:
        """The dimensions of events: rows ``events`` of their table, on the spans ``owner`` of those that count."""
        on = (events, owner)
        columns = [Column(each.name, each.codes[owner], each.hashes, each.text) for each in self._own(span)]
        columns += [self._named_column(span, on, dimension) for dimension in self._named]
        columns += self._glob_columns(span, on)
        return Rows([column for column in columns if column.any_present], resource)

    def _own(self, span: Span) -> list[Column]:
        """What need not be configured."""
        config = self._config
        makers = _http(self, span, config.status_label) if span.http is not None else _common(self, span)
        columns = [make(name) for name, make in makers.items() if name not in config.exclude_dimensions]
        if config.include_collector_instance_id and INSTANCE not in config.exclude_dimensions:
            columns.append(self.enumerated(INSTANCE, np.zeros(len(span.resource_rows), np.int32), [self._instance_id]))
        if config.include_instrumentation_scope:
            columns += self._scope(span)
        if config.enable_metrics_sampling_method:
            columns.append(self.enumerated(SAMPLING_METHOD, span.weights.is_adjusted.astype(np.int32), _METHODS))
        return columns

    def enumerated(self, name: str, codes: I32, texts: Sequence[str]) -> Column:
        """A column of known texts."""
        hashes = self._enumerated.get(name)
        if hashes is None:
            hashes = self._enumerated[name] = Interned(name).hashes_of([text.encode() for text in texts])
        return Column(name, codes, hashes, texts)

    def column(self, name: str, text: StringColumn, typed: AttributeColumn | None = None) -> Column:
        """A column of whatever texts."""
        interned = self._interned.get(name)
        if interned is None:
            interned = self._interned[name] = Interned(name)
        return Column(name, text.codes, interned.hashes_of(text.distinct_bytes), text, typed)

    def _scope(self, span: Span) -> list[Column]:
        scopes = span.take(span.batch.ancestor("scopes"))
        names = span.batch.field("name", "scopes").take(scopes)
        chosen = names.isin([name for name in self._config.include_instrumentation_scope if name])
        versions = span.batch.field("version", "scopes").take(scopes)
        given = chosen & ~versions.equals("")
        return [self.column(SCOPE_NAME, names.only(chosen)), self.column(SCOPE_VERSION, versions.only(given))]

    def _named_column(self, span: Span, on: tuple[Indices, Indices] | None, dimension: Dimension) -> Column:
        column = _resolve(span, on, dimension.name)
        text = column.as_text()
        typed = None if text is column.text else column
        return self.column(dimension.name, text if dimension.default is None else text.fill(dimension.default), typed)

    def _glob_columns(self, span: Span, on: tuple[Indices, Indices] | None) -> list[Column]:
        if not self._matches:
            return []
        tables: list[AttributeTable] = [span.batch.attributes("spans"), span.batch.attributes("resources")]
        if on is not None:
            tables.append(span.batch.attributes("events"))
        names: set[str] = set()
        for table in tables:
            used = np.flatnonzero(np.bincount(table.rows["key_code"], minlength=len(table.keys))).tolist()
            names.update(
                table.keys[code].decode("utf-8", "replace") for code in used if self._is_match(table.keys[code])
            )
        for name in sorted(names - self._admitted.keys()):
            if len(self._admitted) >= GLOB_KEYS_MAX:
                self._warn(name)
                break
            self._admitted[name] = None
        columns = []
        for name in sorted(names & self._admitted.keys()):
            column = _resolve(span, on, name)
            text = column.as_text()
            columns.append(self.column(name, text, None if text is column.text else column))
        return columns

    def _is_match(self, key: bytes) -> bool:
        known = self._matched.get(key)
        if known is None:
            if len(self._matched) >= _KEY_CACHE_MAX:
                self._matched.clear()
            text = key.decode("utf-8", "replace")
            known = self._matched[key] = any(matches(text) for matches in self._matches)
        return known


def _resolve(span: Span, on: tuple[Indices, Indices] | None, key: str) -> AttributeColumn:
    """The span's attribute, else the event's, else the resource's."""
    column = span.attribute(key)
    if on is not None:
        events, owner = on
        column = column.take(owner).fill(span.batch.attribute(key, "events").take(events))
    if column.present.all():
        return column
    resource = span.resource_attribute(key)
    if resource is None:
        return column
    return column.fill(resource if on is None else resource.take(on[1]))


def _common(dimensions: Dimensions, span: Span) -> dict[str, Callable[[str], Column]]:
    return {
        "service.name": lambda name: dimensions.column(name, span.resource_text("service.name")),
        "span.name": lambda name: dimensions.column(name, span.field("name").fill("")),
        "span.kind": lambda name: dimensions.enumerated(name, _known(span.field("kind"), _KIND_TEXTS), _KIND_TEXTS),
        "status.code": lambda name: dimensions.enumerated(
            name, _known(span.field("status_code"), _STATUS_TEXTS), _STATUS_TEXTS
        ),
    }


def _http(dimensions: Dimensions, span: Span, status_label: str) -> dict[str, Callable[[str], Column]]:
    http = span.http
    assert http is not None
    return {
        "method": lambda name: dimensions.column(name, http.method),
        "endpoint": lambda name: dimensions.column(name, http.endpoint),
        status_label: lambda name: dimensions.column(name, http.status),
    }


def _known(codes: I32, texts: Sequence[str]) -> I32:
    """Codes of an enumeration whose last text is the empty one of numbers not in it, as in the Collector."""
    known: I32 = np.where(codes.view(np.uint32) < len(texts) - 1, codes, np.int32(len(texts) - 1))
    return known
