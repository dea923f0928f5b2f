"""The tables of each signal: which there are, what they stand below, which fields they have and how a field is written.

Not the rows themselves (``collector.wire.layout``).
Source of field numbers: opentelemetry-proto 1.x (``trace.proto``, ``metrics.proto``, ``logs.proto``, ``common.proto``).
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

import numpy as np

from collector.model.columns import Array, read_only
from collector.model.signal import Signal
from collector.wire import layout

__all__ = [
    "ATTRIBUTE_NUMBER",
    "FIELDS",
    "ITEM",
    "POINT_ATTRIBUTE_NUMBER",
    "POINT_FLAGS_NUMBER",
    "SCHEMAS",
    "Field",
    "Form",
    "Schema",
    "Table",
]

ITEM: Final = "item"
"""Stands for the batch's own item table: spans, points or records."""

Form = str
"""How a field stands in a row and on the wire: ``text varint fixed64 fixed32 trace_id span_id any flags value read``."""


@dataclass(frozen=True, slots=True)
class Field:
    """One field of a table."""

    columns: tuple[str, ...]
    """The row's fields it is read from."""
    form: Form
    number: int = 0
    """On the wire; 0 = cannot be set."""
    inner: bool = False
    """It stands in the message inside: Resource, InstrumentationScope, Status."""


class Table:
    """The rows of one table."""

    __slots__ = ("rows",)

    def __init__(self, rows: Array) -> None:
        """``rows``: records of ``collector.wire.layout``."""
        self.rows = rows

    @property
    def row_count(self) -> int:
        """How many rows there are."""
        return len(self.rows)

    @property
    def parent(self) -> Array:
        """int32[n]: the row of the parent table."""
        return read_only(np.ascontiguousarray(self.rows["parent"]))


@dataclass(frozen=True, slots=True)
class Schema:
    """The tables of one signal."""

    parents: Mapping[str, str]
    """Each table and the one it stands below, top down; resources: ""."""
    item: str
    rows: Mapping[str, "np.dtype[np.void]"]
    path: tuple[str, ...] = field(init=False)
    """The tables from the resources down to the items."""

    def __post_init__(self) -> None:
        names = tuple(self.parents)
        object.__setattr__(self, "path", names[: names.index(self.item) + 1])


_TOP: Final = {"resources": "", "scopes": "resources"}
_TOP_ROWS: Final = {"resources": layout.RESOURCE, "scopes": layout.SCOPE}

SCHEMAS: Final[Mapping[Signal, Schema]] = {
    Signal.TRACES: Schema(
        {**_TOP, "spans": "scopes", "events": "spans", "links": "spans"},
        "spans",
        {**_TOP_ROWS, "spans": layout.SPAN, "events": layout.EVENT, "links": layout.LINK},
    ),
    Signal.METRICS: Schema(
        {**_TOP, "metrics": "scopes", "points": "metrics", "exemplars": "points", "quantiles": "points"},
        "points",
        {
            **_TOP_ROWS,
            "metrics": layout.METRIC,
            "points": layout.POINT,
            "exemplars": layout.EXEMPLAR,
            "quantiles": layout.QUANTILE,
        },
    ),
    Signal.LOGS: Schema({**_TOP, "records": "scopes"}, "records", {**_TOP_ROWS, "records": layout.RECORD}),
}


def _text(name: str, number: int, *, inner: bool = False) -> Field:
    return Field((name, f"{name}_len"), "text", number, inner)


def _slice(name: str) -> Field:
    return Field((name, f"{name}_len"), "read")


_TRACE_ID: Final = ("trace_id_hi", "trace_id_lo")
_SCHEMA_URL: Final = {"schema_url": _text("schema_url", 3)}
_VALUE: Final = {
    "int_value": Field(("int_value",), "read"),
    "double_value": Field(("double_value",), "read"),
    "value_kind": Field(("value_kind",), "read"),
    "value": Field(("int_value", "double_value", "value_kind"), "value"),
}

FIELDS: Final[Mapping[str, Mapping[str, Field]]] = {
    "resources": _SCHEMA_URL,
    "scopes": {**_SCHEMA_URL, "name": _text("name", 1, inner=True), "version": _text("version", 2, inner=True)},
    "spans": {
        "trace_id": Field(_TRACE_ID, "trace_id", 1),
        "span_id": Field(("span_id",), "span_id", 2),
        "trace_state": _text("trace_state", 3),
        "parent_span_id": Field(("parent_span_id",), "span_id", 4),
        "name": _text("name", 5),
        "kind": Field(("kind",), "varint", 6),
        "start_time_unix_nano": Field(("start_time",), "fixed64", 7),
        "end_time_unix_nano": Field(("end_time",), "fixed64", 8),
        "status_message": Field(("status_message", "status_message_len"), "text", 2, inner=True),
        "status_code": Field(("status_code",), "varint", 3, inner=True),
        "flags": Field(("flags",), "fixed32", 16),
    },
    "events": {"time_unix_nano": Field(("time",), "fixed64", 1), "name": _text("name", 2)},
    "links": {
        "trace_id": Field(_TRACE_ID, "trace_id", 1),
        "span_id": Field(("span_id",), "span_id", 2),
        "trace_state": _text("trace_state", 3),
        "flags": Field(("flags",), "fixed32", 6),
    },
    "metrics": {
        "name": _text("name", 1),
        "description": _text("description", 2),
        "unit": _text("unit", 3),
        "type": Field(("type",), "read"),
        "temporality": Field(("temporality",), "read"),
        "monotonic": Field(("monotonic",), "read"),
        "point_count": Field(("point_count",), "read"),
    },
    "points": {
        "start_time_unix_nano": Field(("start_time",), "fixed64", 2),
        "time_unix_nano": Field(("time",), "fixed64", 3),
        "flags": Field(("flags",), "flags", 8),
        **_VALUE,
        **{
            name: Field((name,), "read")
            for name in (
                "count",
                "sum",
                "min",
                "max",
                "present",
                "zero_count",
                "zero_threshold",
                "scale",
                "positive_offset",
                "negative_offset",
            )
        },
        "quantile_count": Field(("quantile_count",), "read"),
        "exemplar_count": Field(("exemplar_count",), "read"),
    },
    "exemplars": {
        "trace_id": Field(_TRACE_ID, "trace_id"),
        "span_id": Field(("span_id",), "span_id"),
        "time_unix_nano": Field(("time",), "read"),
        **_VALUE,
    },
    "quantiles": {"quantile": Field(("quantile",), "read"), "value": Field(("value",), "read")},
    "records": {
        "time_unix_nano": Field(("time",), "fixed64", 1),
        "severity_number": Field(("severity_number",), "varint", 2),
        "severity_text": _text("severity_text", 3),
        "body": Field(("any", "any_len"), "any", 5),
        "flags": Field(("flags",), "fixed32", 8),
        "trace_id": Field(_TRACE_ID, "trace_id", 9),
        "span_id": Field(("span_id",), "span_id", 10),
        "observed_time_unix_nano": Field(("observed_time",), "fixed64", 11),
        "event_name": _text("event_name", 12),
    },
}

# The field number of an attribute, by table; of points by the type of their metric.
ATTRIBUTE_NUMBER: Final = {
    "resources": 1,
    "scopes": 3,
    "spans": 9,
    "events": 3,
    "links": 4,
    "records": 6,
    "exemplars": 7,
}
# none, gauge, sum, histogram, exponential, summary
POINT_ATTRIBUTE_NUMBER: Final = np.array([0, 7, 7, 9, 1, 7], np.uint8)
POINT_FLAGS_NUMBER: Final = np.array([0, 8, 8, 10, 10, 8], np.uint8)
