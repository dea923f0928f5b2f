"""How many bytes each trace takes, counted as the Collector counts them: as if each trace were sent in a request of its own.

Every part of a trace that came under one resource is a ResourceSpans with that resource and the scopes of its spans;
schema URLs are left out, as there. Spans count as they came.
Source: opentelemetry-collector-contrib processor/tailsamplingprocessor 0.156 (newResourceSpanFromSpanAndScopes,
    ResourceSpansSize).
"""

import numpy as np

from collector.model import Traces, groups
from collector.model.arrays import I32, I64, Array

__all__ = ["Parts", "framed", "parts_of"]


class Parts:
    """The spans of a batch by trace and resource, in order of first appearance."""

    def __init__(self, codes: I32, slots: I32, span_counts: I64, size_bytes: I64) -> None:
        self.codes = codes
        """int32[n]: the part of each span."""
        self.slots = slots
        """int32[k]: the trace of each part."""
        self.span_counts = span_counts
        self.size_bytes = size_bytes
        """int64[k]: of the ResourceSpans; zero if not asked for."""


def parts_of(batch: Traces, slots: I32, *, with_sizes: bool) -> Parts:
    """The parts of a batch. ``slots`` int32[n]: the trace of each span."""
    resource = batch.ancestor("resources")
    parts = groups(resource, slots)
    sizes = np.zeros(parts.count, np.int64)
    if with_sizes:
        spans, scopes, resources = (batch.table(name).rows for name in ("spans", "scopes", "resources"))
        scope_parts = groups(np.ascontiguousarray(spans["parent"]), slots)
        of_spans = np.bincount(scope_parts.codes, framed(spans["end"] - spans["body"]), scope_parts.count).astype(
            np.int64
        )
        scope = spans["parent"][scope_parts.first]
        of_scopes = framed(framed(_inner(scopes))[scope] + of_spans)
        sizes = np.bincount(parts.codes[scope_parts.first], of_scopes, parts.count).astype(np.int64)
        sizes += framed(_inner(resources))[resource[parts.first]]
    return Parts(parts.codes, slots[parts.first], parts.counts, sizes)


def framed(sizes: Array) -> I64:
    """The same behind a tag of one byte and their length as a varint."""
    wide = sizes.astype(np.int64)
    digits = 1 + sum((wide >> shift > 0).astype(np.int64) for shift in (7, 14, 21, 28))
    result: I64 = wide + digits + 1
    return result


def _inner(rows: Array) -> I64:
    result: I64 = np.where(rows["inner_start"] < 0, 0, rows["inner_end"].astype(np.int64) - rows["inner_body"])
    return result
