"""Merges the points of single metrics that are equal in some attributes.

Source: opentelemetry-collector-contrib internal/coreinternal/aggregateutil (v0.156).
"""

import math
from collections.abc import Callable, Sequence
from typing import Any, Final

from opentelemetry.proto.common.v1.common_pb2 import KeyValue

from collector.ottl.metric_edits import DELTA, INT64_SIGN, UINT64, form_of, points_of
from collector.ottl.values import EvaluationError

__all__ = ["AGGREGATIONS", "aggregate", "aggregate_value"]


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


def _median(values: Sequence[float]) -> float:
    ordered = sorted(values)
    middle = len(ordered) // 2
    return ordered[middle] if len(ordered) % 2 else (ordered[middle - 1] + ordered[middle]) / 2


AGGREGATIONS: Final[dict[str, Callable[[Sequence[float]], float]]] = {
    "sum": sum,
    "mean": _mean,
    "min": min,
    "max": max,
    "median": _median,
    "count": len,
}


def aggregate(metric: Any, function: str, keys: Sequence[str] | None) -> None:
    """Merge the points that are equal in these attributes (None: in all) and in time; the others are removed.

    Raises:
        EvaluationError: the metric is a summary.
    """
    form = form_of(metric)
    if form == "summary":
        raise EvaluationError
    if keys is not None:
        for point in points_of(metric):
            kept = [entry for entry in point.attributes if entry.key in keys]
            del point.attributes[:]
            point.attributes.extend(kept)
    _merge(metric, form, function)


def aggregate_value(metric: Any, function: str, key: str, values: Sequence[str], new_value: str) -> None:
    """Replace these values of an attribute by a new one and merge the points that are equal then."""
    for point in points_of(metric):
        for entry in point.attributes:
            if entry.key == key and entry.value.string_value in values:
                entry.value.string_value = new_value
    form = form_of(metric)
    if form == "summary":
        del metric.summary.data_points[:]  # as in the Collector, which does not merge them
    else:
        _merge(metric, form, function)


def _merge(metric: Any, form: str, function: str) -> None:
    if not form:
        return
    data = getattr(metric, form)
    is_delta = form != "gauge" and data.aggregation_temporality == DELTA
    groups: dict[tuple[Any, ...], list[Any]] = {}
    for point in data.data_points:
        groups.setdefault(_identity(point, form, is_delta=is_delta), []).append(point)
    merge = {"histogram": _merge_histograms, "exponential_histogram": _merge_exponential}.get(form)
    merged = []
    for points in groups.values():
        if merge is not None:
            merged.append(merge(points))
        else:
            merged.append(_merge_numbers(points, function))
    copies = [type(point).FromString(point.SerializeToString()) for point in merged]
    del data.data_points[:]
    data.data_points.extend(copies)
    del metric.metadata[:]


def _identity(point: Any, form: str, *, is_delta: bool) -> tuple[Any, ...]:
    parts: list[Any] = [
        frozenset((entry.key, KeyValue(value=entry.value).SerializeToString()) for entry in point.attributes),
        point.time_unix_nano,
    ]
    if is_delta:
        parts.append(point.start_time_unix_nano)
    if form == "histogram":
        parts += [tuple(point.explicit_bounds), point.HasField("min"), point.HasField("max"), point.flags]
    elif form == "exponential_histogram":
        parts += [point.scale, point.HasField("min"), point.HasField("max"), point.flags]
    return tuple(parts)


def _merge_numbers(points: list[Any], function: str) -> Any:
    first = points[0]
    form = first.WhichOneof("value")
    if form is None:
        return first
    values: list[Any] = [_number(point, whole=form == "as_int") for point in points]
    if len(points) > 1 or function == "mean":
        value = AGGREGATIONS[function](values)
        if form == "as_int":
            value = int(value) if function not in {"mean", "median"} else _truncated(values, function)
            value = (value + INT64_SIGN) % UINT64 - INT64_SIGN
        setattr(first, form, float(value) if form == "as_double" else value)
    first.start_time_unix_nano = min(point.start_time_unix_nano for point in points)
    return first


def _truncated(values: list[int], function: str) -> int:
    """The mean or median of ints, rounded toward zero as in Go."""
    if function == "mean":
        total, count = sum(values), len(values)
    else:
        ordered = sorted(values)
        middle = len(ordered) // 2
        if len(ordered) % 2:
            return ordered[middle]
        total, count = ordered[middle - 1] + ordered[middle], 2
    return -(-total // count) if total < 0 else total // count


def _number(point: Any, *, whole: bool) -> Any:
    form = point.WhichOneof("value")
    if form is None:
        return 0
    value = getattr(point, form)
    return int(value) if whole and math.isfinite(value) else value


def _merge_common(first: Any, point: Any) -> None:
    first.count = (first.count + point.count) % UINT64
    first.sum += point.sum
    if first.HasField("min") and first.min > point.min:
        first.min = point.min
    if first.HasField("max") and first.max < point.max:
        first.max = point.max
    first.exemplars.extend(point.exemplars)
    first.start_time_unix_nano = min(first.start_time_unix_nano, point.start_time_unix_nano)


def _merge_histograms(points: list[Any]) -> Any:
    first = points[0]
    for point in points[1:]:
        if not point.count:
            continue
        _merge_common(first, point)
        counts = list(first.bucket_counts)
        for place, count in enumerate(point.bucket_counts):
            if place < len(counts):
                counts[place] = (counts[place] + count) % UINT64
        first.bucket_counts[:] = counts
    return first


def _merge_exponential(points: list[Any]) -> Any:
    first = points[0]
    for point in points[1:]:
        if not point.count:
            continue
        _merge_common(first, point)
        first.zero_count = (first.zero_count + point.zero_count) % UINT64
        for sign in ("positive", "negative"):
            _merge_buckets(getattr(first, sign), getattr(point, sign))
    return first


_MAX_BUCKETS: Final = 10_000


def _merge_buckets(buckets: Any, more: Any) -> None:
    """Add the counts of other buckets of the same scale."""
    if not more.bucket_counts:
        return
    if not buckets.bucket_counts:
        buckets.CopyFrom(more)
        return
    start = min(buckets.offset, more.offset)
    end = max(buckets.offset + len(buckets.bucket_counts), more.offset + len(more.bucket_counts))
    if end - start > _MAX_BUCKETS:
        raise EvaluationError
    counts = [0] * (end - start)
    for source in (buckets, more):
        for place, count in enumerate(source.bucket_counts):
            counts[source.offset - start + place] += count
    buckets.offset = start
    buckets.bucket_counts[:] = [count % UINT64 for count in counts]
