"""The tables of each signal: their names and parents, the fields of each table, and how a field is encoded.

The layout of the rows themselves is in ``collector.wire.layout``.

Source of field numbers: opentelemetry-proto 1.x (``trace.proto``, ``metrics.proto``, ``logs.proto``, ``common.proto``).
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final, Literal

import numpy as np

from collector.model.signal import Signal
from collector.wire import layout

__all__ = [
    "ATTRIBUTE_NUMBER",
    "FIELDS",
    "ITEM",
    "POINT_ATTRIBUTE_NUMBER",
    "POINT_FLAGS_NUMBER",
    "SCHEMAS",
    "FieldSpec",
    "Form",
    "Schema",
]

ITEM: Final = "item"
"""The batch's own item table: spans, points or records."""

Form = Literal["text", "varint", "fixed64", "fixed32", "trace_id", "span_id", "any", "flags", "value", "read"]
"""How a field is stored in a row and encoded on the wire; ``value`` and ``read`` are computed and cannot be set."""


@dataclass(frozen=True, slots=True)
class FieldSpec:
    """One field of a table: where it is read from and how it is encoded."""

    columns: tuple[str, ...]
    """The columns of the row dtype it is read from."""
    form: Form
    number: int = 0
    """The protobuf field number; 0 means that the field cannot be set."""
    inner: bool = False
    """Whether the field belongs to the nested message (Resource, InstrumentationScope or Status)."""


@dataclass(frozen=True, slots=True)
class Schema:
    """The tables of one signal."""

    parents: Mapping[str, str]
    """Each table and its parent table, from the top down; the parent of ``resources`` is ``""``."""
    item: str
    """The table that holds the items."""
    rows: Mapping[str, "np.dtype[np.void]"]
    """The row dtype of each table."""
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


def _text(name: str, number: int, *, inner: bool = False) -> FieldSpec:
    return FieldSpec((name, f"{name}_len"), "text", number, inner)


def _slice(name: str) -> FieldSpec:
    return FieldSpec((name, f"{name}_len"), "read")


_TRACE_ID: Final = ("trace_id_hi", "trace_id_lo")
_SCHEMA_URL: Final = {"schema_url": _text("schema_url", 3)}
_VALUE: Final = {
    "int_value": FieldSpec(("int_value",), "read"),
    "double_value": FieldSpec(("double_value",), "read"),
    "value_kind": FieldSpec(("value_kind",), "read"),
    "value": FieldSpec(("int_value", "double_value", "value_kind"), "value"),
}

FIELDS: Final[Mapping[str, Mapping[str, FieldSpec]]] = {
    "resources": _SCHEMA_URL,
    "scopes": {**_SCHEMA_URL, "name": _text("name", 1, inner=True), "version": _text("version", 2, inner=True)},
    "spans": {
        "trace_id": FieldSpec(_TRACE_ID, "trace_id", 1),
        "span_id": FieldSpec(("span_id",), "span_id", 2),
        "trace_state": _text("trace_state", 3),
        "parent_span_id": FieldSpec(("parent_span_id",), "span_id", 4),
        "name": _text("name", 5),
        "kind": FieldSpec(("kind",), "varint", 6),
        "start_time_unix_nano": FieldSpec(("start_time",), "fixed64", 7),
        "end_time_unix_nano": FieldSpec(("end_time",), "fixed64", 8),
        "status_message": FieldSpec(("status_message", "status_message_len"), "text", 2, inner=True),
        "status_code": FieldSpec(("status_code",), "varint", 3, inner=True),
        "flags": FieldSpec(("flags",), "fixed32", 16),
    },
    "events": {"time_unix_nano": FieldSpec(("time",), "fixed64", 1), "name": _text("name", 2)},
    "links": {
        "trace_id": FieldSpec(_TRACE_ID, "trace_id", 1),
        "span_id": FieldSpec(("span_id",), "span_id", 2),
        "trace_state": _text("trace_state", 3),
        "flags": FieldSpec(("flags",), "fixed32", 6),
    },
    "metrics": {
        "name": _text("name", 1),
        "description": _text("description", 2),
        "unit": _text("unit", 3),
        "type": FieldSpec(("type",), "read"),
        "temporality": FieldSpec(("temporality",), "read"),
        "monotonic": FieldSpec(("monotonic",), "read"),
        "point_count": FieldSpec(("point_count",), "read"),
    },
    "points": {
        "start_time_unix_nano": FieldSpec(("start_time",), "fixed64", 2),
        "time_unix_nano": FieldSpec(("time",), "fixed64", 3),
        "flags": FieldSpec(("flags",), "flags", 8),
        **_VALUE,
        **{
            name: FieldSpec((name,), "read")
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
        "quantile_count": FieldSpec(("quantile_count",), "read"),
        "exemplar_count": FieldSpec(("exemplar_count",), "read"),
    },
    "exemplars": {
        "trace_id": FieldSpec(_TRACE_ID, "trace_id"),
        "span_id": FieldSpec(("span_id",), "span_id"),
        "time_unix_nano": FieldSpec(("time",), "read"),
        **_VALUE,
    },
    "quantiles": {"quantile": FieldSpec(("quantile",), "read"), "value": FieldSpec(("value",), "read")},
    "records": {
        "time_unix_nano": FieldSpec(("time",), "fixed64", 1),
        "severity_number": FieldSpec(("severity_number",), "varint", 2),
        "severity_text": _text("severity_text", 3),
        "body": FieldSpec(("any", "any_len"), "any", 5),
        "flags": FieldSpec(("flags",), "fixed32", 8),
        "trace_id": FieldSpec(_TRACE_ID, "trace_id", 9),
        "span_id": FieldSpec(("span_id",), "span_id", 10),
        "observed_time_unix_nano": FieldSpec(("observed_time",), "fixed64", 11),
        "event_name": _text("event_name", 12),
    },
}

# The field number of the attributes of each table; points depend on the type of their metric.
ATTRIBUTE_NUMBER: Final = {
    "resources": 1,
    "scopes": 3,
    "spans": 9,
    "events": 3,
    "links": 4,
    "records": 6,
    "exemplars": 7,
}
# Indexed by METRIC_*: none, gauge, sum, histogram, exponential histogram, summary.
POINT_ATTRIBUTE_NUMBER: Final = np.array([0, 7, 7, 9, 1, 7], np.uint8)
POINT_FLAGS_NUMBER: Final = np.array([0, 8, 8, 10, 10, 8], np.uint8)
