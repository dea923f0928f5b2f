"""The size of each trace in bytes, counted as the Collector does: as if each trace were sent in a request of its own.

Every part of a trace that arrived under one resource counts as a ResourceSpans with that resource and the scopes of its
spans. As in the Collector, schema URLs do not count. Spans count with the bytes in which they arrived.

Source: opentelemetry-collector-contrib processor/tailsamplingprocessor 0.156 (newResourceSpanFromSpanAndScopes,
ResourceSpansSize).
"""

from dataclasses import dataclass

import numpy as np

from collector.model import Traces, groups
from collector.model.arrays import I32, I64, Array

__all__ = ["TraceParts", "framed_sizes", "parts_of"]


@dataclass(frozen=True, slots=True)
class TraceParts:
    """The spans of a batch by trace and resource, in order of first appearance."""

    codes: I32
    """I32[n]: the part of each span."""
    slots: I32
    """I32[k]: the trace of each part."""
    span_counts: I64
    size_bytes: I64
    """I64[k]: size of the ResourceSpans; zero if sizes were not requested."""


def parts_of(batch: Traces, slots: I32, *, with_sizes: bool) -> TraceParts:
    """The parts of a batch. ``slots`` I32[n]: the trace of each span."""
    resource = batch.ancestor("resources")
    parts = groups(resource, slots)
    sizes = np.zeros(parts.count, np.int64)
    if with_sizes:
        spans, scopes, resources = (batch.table(name).rows for name in ("spans", "scopes", "resources"))
        scope_parts = groups(np.ascontiguousarray(spans["parent"]), slots)
        span_sizes = framed_sizes(spans["end"] - spans["body"])
        span_totals = np.bincount(scope_parts.codes, span_sizes, scope_parts.count).astype(np.int64)
        scope = spans["parent"][scope_parts.first]
        scope_sizes = framed_sizes(framed_sizes(_message_sizes(scopes))[scope] + span_totals)
        sizes = np.bincount(parts.codes[scope_parts.first], scope_sizes, parts.count).astype(np.int64)
        sizes += framed_sizes(_message_sizes(resources))[resource[parts.first]]
    return TraceParts(parts.codes, slots[parts.first], parts.counts, sizes)


def framed_sizes(sizes: Array) -> I64:
    """The sizes of messages including the protobuf framing: a tag of one byte and the length as a varint."""
    wide = sizes.astype(np.int64)
    digits = 1 + sum((wide >> shift > 0).astype(np.int64) for shift in (7, 14, 21, 28))
    result: I64 = wide + digits + 1
    return result


def _message_sizes(rows: Array) -> I64:
    """The sizes of the Resource or InstrumentationScope messages; 0 if there is none."""
    result: I64 = np.where(rows["inner_start"] < 0, 0, rows["inner_end"].astype(np.int64) - rows["inner_body"])
    return result
