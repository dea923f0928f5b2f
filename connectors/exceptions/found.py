"""The exceptions in a batch: events of spans, or log records, that are named ``exception``."""

from dataclasses import dataclass

import numpy as np

from collector.model import AttributeColumn, Batch, Signal, StringColumn
from collector.model.arrays import Array
from collector.otlp.semantics import SPAN_KINDS, STATUS_CODES
from connectors.exceptions.config import ExceptionsConfig

__all__ = ["Exceptions", "find_exceptions"]

_NAME = "exception"
_STACKTRACE = "exception.stacktrace"


@dataclass(frozen=True, slots=True)
class Exceptions:
    """The exceptions of services: those whose resource has ``service.name``."""

    rows: Array
    """Their events, or records."""
    spans: Array
    """The span of each event; for records, the same as ``rows``."""
    dimensions: dict[str, StringColumn]
    """One text per exception for each dimension, in the order in which they are written."""
    trace_ids: Array
    span_ids: Array
    stacktraces: StringColumn


def find_exceptions(batch: Batch, config: ExceptionsConfig) -> Exceptions:
    """The exceptions of the batch."""
    is_traces = batch.signal is Signal.TRACES
    table = "events" if is_traces else "records"
    names: StringColumn = batch.field("name", "events") if is_traces else batch.field("event_name")
    owner = batch.table("events").parent if is_traces else np.arange(batch.item_count, dtype=np.int32)
    resource = batch.ancestor("resources")
    services = batch.attribute("service.name", "resources").as_text()
    rows = np.flatnonzero(names.equals(_NAME) & services.present[resource[owner]])
    spans = owner[rows]
    dimensions: dict[str, StringColumn] = {"service.name": services.take(resource[spans])}
    if is_traces:
        span_names: StringColumn = batch.field("name")
        dimensions["span.name"] = span_names.take(spans).fill("")
        dimensions["span.kind"] = _enumerated(batch.field("kind")[spans], "SPAN_KIND_", SPAN_KINDS)
        dimensions["status.code"] = _enumerated(batch.field("status_code")[spans], "STATUS_CODE_", STATUS_CODES)
    for dimension in config.dimensions:
        column: AttributeColumn = batch.attribute(dimension.name).take(spans)
        if is_traces:
            column = column.fill(batch.attribute(dimension.name, table).take(rows))
        column = column.fill(batch.attribute(dimension.name, "resources").take(resource[spans]))
        texts = column.as_text()
        dimensions[dimension.name] = texts if dimension.default is None else texts.fill(dimension.default)
    return Exceptions(
        rows,
        spans,
        dimensions,
        batch.field("trace_id")[spans],
        batch.field("span_id")[spans],
        batch.attribute(_STACKTRACE, table).take(rows).as_text().fill(""),
    )


def _enumerated(values: Array, prefix: str, names: tuple[str, ...]) -> StringColumn:
    """The values as protobuf names them; those without a name are empty."""
    texts = [prefix + name for name in names]
    is_known = (values >= 0) & (values < len(texts))
    return StringColumn.from_codes(np.where(is_known, values, len(texts)).astype(np.int32), [*texts, ""])
