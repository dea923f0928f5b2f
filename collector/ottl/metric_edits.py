"""What editors do to single metrics and data points, as protobuf messages.

Source: opentelemetry-collector-contrib processor/transformprocessor/internal/metrics and
internal/coreinternal/aggregateutil (v0.156).
"""

import itertools
import math
import random
from collections.abc import Callable, Sequence
from typing import Any, Final

from opentelemetry.proto.common.v1.common_pb2 import KeyValue
from opentelemetry.proto.metrics.v1.metrics_pb2 import Metric

from collector.ottl.values import EvaluationError

__all__ = [
    "AGGREGATIONS",
    "DISTRIBUTIONS",
    "TEMPORALITIES",
    "aggregate",
    "aggregate_value",
    "exponential_to_explicit",
    "extract_count",
    "extract_percentile",
    "extract_sum",
    "form_of",
    "gauge_to_sum",
    "limit_buckets",
    "merge_bucket",
    "quantiles_to_gauge",
    "scale",
    "sum_to_gauge",
    "summary_to_sum",
]

TEMPORALITIES: Final = {"delta": 1, "cumulative": 2}
_CUMULATIVE: Final = 2
_DELTA: Final = 1
_UINT64: Final = 2**64
_INT64_SIGN: Final = 2**63


def form_of(metric: Any) -> str:
    """The type of a metric: ``gauge``, ``sum``, ``histogram``, ``exponential_histogram``, ``summary`` or ""."""
    return metric.WhichOneof("data") or ""


def _points(metric: Any) -> Any:
    form = form_of(metric)
    return getattr(metric, form).data_points if form else []


def sum_to_gauge(metric: Any) -> None:
    """Make a gauge of a sum."""
    if form_of(metric) == "sum":
        points = list(metric.sum.data_points)
        metric.gauge.data_points.extend(points)


def gauge_to_sum(metric: Any, temporality: int, *, monotonic: bool) -> None:
    """Make a sum of a gauge."""
    if form_of(metric) == "gauge":
        points = list(metric.gauge.data_points)
        metric.sum.data_points.extend(points)
        metric.sum.aggregation_temporality, metric.sum.is_monotonic = temporality, monotonic


def _like(metric: Any, name: str, unit: str | None = None) -> Any:
    return Metric(name=name, description=metric.description, unit=metric.unit if unit is None else unit)


def _number_point(points: Any, source: Any) -> Any:
    point = points.add(time_unix_nano=source.time_unix_nano, start_time_unix_nano=source.start_time_unix_nano)
    point.attributes.extend(source.attributes)
    return point


def _signed(count: int) -> int:
    return count - _UINT64 if count >= _INT64_SIGN else count


def _temporality(metric: Any) -> int:
    form = form_of(metric)
    if form in {"histogram", "exponential_histogram"}:
        return int(getattr(metric, form).aggregation_temporality)
    return _CUMULATIVE if form == "summary" else 0


def extract_count(metric: Any, suffix: str, *, monotonic: bool) -> Any:
    """A sum of the counts of a histogram or summary; None if it has no points.

    Raises:
        EvaluationError: the metric is of another type.
    """
    temporality = _temporality(metric)
    if not temporality:
        raise EvaluationError
    made = _like(metric, metric.name + suffix, "1")
    made.sum.aggregation_temporality, made.sum.is_monotonic = temporality, monotonic
    for point in _points(metric):
        _number_point(made.sum.data_points, point).as_int = _signed(point.count)
    return made if made.sum.data_points else None


def extract_sum(metric: Any, suffix: str, *, monotonic: bool) -> Any:
    """A sum of the sums of a histogram or summary; None if it has none.

    Raises:
        EvaluationError: the metric is of another type.
    """
    temporality = _temporality(metric)
    if not temporality:
        raise EvaluationError
    made = _like(metric, metric.name + suffix)
    made.sum.aggregation_temporality, made.sum.is_monotonic = temporality, monotonic
    for point in _points(metric):
        if form_of(metric) == "summary" or point.HasField("sum"):
            _number_point(made.sum.data_points, point).as_double = point.sum
    return made if made.sum.data_points else None


def summary_to_sum(metric: Any, field: str, suffix: str, temporality: int, *, monotonic: bool) -> Any:
    """A sum of the counts or sums of a summary; None for other types."""
    if form_of(metric) != "summary":
        return None
    made = _like(metric, metric.name + suffix)
    made.sum.aggregation_temporality, made.sum.is_monotonic = temporality, monotonic
    for point in metric.summary.data_points:
        new = _number_point(made.sum.data_points, point)
        if field == "count":
            new.as_int = _signed(point.count)
        else:
            new.as_double = point.sum
    return made


def quantiles_to_gauge(metric: Any, key: str, suffix: str) -> Any:
    """A gauge with a point for each quantile of a summary; None for other types."""
    if form_of(metric) != "summary":
        return None
    made = _like(metric, metric.name + suffix)
    made.gauge.SetInParent()
    for point in metric.summary.data_points:
        for quantile in point.quantile_values:
            new = _number_point(made.gauge.data_points, point)
            _put(new.attributes, key).double_value = quantile.quantile
            new.as_double = quantile.value
    return made


def _put(attributes: Any, key: str) -> Any:
    for entry in attributes:
        if entry.key == key:
            entry.value.Clear()
            return entry.value
    entry = attributes.add(key=key)
    return entry.value


# Scaling.


def scale(metric: Any, factor: float) -> None:
    """Multiply the values of a metric.

    Raises:
        EvaluationError: it is an exponential histogram or has no type.
    """
    form = form_of(metric)
    if form in {"gauge", "sum"}:
        for point in _points(metric):
            _scale_number(point, factor)
    elif form == "summary":
        for point in metric.summary.data_points:
            point.sum *= factor
            for quantile in point.quantile_values:
                quantile.value *= factor
    elif form == "histogram":
        for point in metric.histogram.data_points:
            for name in ("sum", "min", "max"):
                if point.HasField(name):
                    setattr(point, name, getattr(point, name) * factor)
            point.explicit_bounds[:] = [bound * factor for bound in point.explicit_bounds]
            for exemplar in point.exemplars:
                _scale_number(exemplar, factor)
    else:
        raise EvaluationError


def _scale_number(point: Any, factor: float) -> None:
    form = point.WhichOneof("value")
    if form == "as_int":
        scaled = float(point.as_int) * factor
        fits = -(2.0**63) <= scaled < 2.0**63
        point.as_int = int(scaled) if fits else -(2**63)
    elif form == "as_double":
        point.as_double *= factor


# Aggregation.


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
        for point in _points(metric):
            kept = [entry for entry in point.attributes if entry.key in keys]
            del point.attributes[:]
            point.attributes.extend(kept)
    _merge(metric, form, function)


def aggregate_value(metric: Any, function: str, key: str, values: Sequence[str], new_value: str) -> None:
    """Replace these values of an attribute by a new one and merge the points that are equal then."""
    for point in _points(metric):
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
    is_delta = form != "gauge" and data.aggregation_temporality == _DELTA
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
            value = (value + _INT64_SIGN) % _UINT64 - _INT64_SIGN
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
    first.count = (first.count + point.count) % _UINT64
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
                counts[place] = (counts[place] + count) % _UINT64
        first.bucket_counts[:] = counts
    return first


def _merge_exponential(points: list[Any]) -> Any:
    first = points[0]
    for point in points[1:]:
        if not point.count:
            continue
        _merge_common(first, point)
        first.zero_count = (first.zero_count + point.zero_count) % _UINT64
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
    buckets.bucket_counts[:] = [count % _UINT64 for count in counts]


# Histograms.


def merge_bucket(point: Any, bound: float) -> None:
    """Remove an explicit bound and add up the buckets on both sides of it."""
    bounds, counts = list(point.explicit_bounds), list(point.bucket_counts)
    if len(bounds) + 1 != len(counts):
        return
    place = next((index for index, known in enumerate(bounds) if abs(known - bound) < 1e-12), -1)
    if place >= 0:
        counts[place + 1] = (counts[place + 1] + counts[place]) % _UINT64
        point.explicit_bounds[:] = bounds[:place] + bounds[place + 1 :]
        point.bucket_counts[:] = counts[:place] + counts[place + 1 :]


def limit_buckets(point: Any, limit: int) -> None:
    """Add up neighbouring buckets until there are no more than ``limit``."""
    bounds, counts = list(point.explicit_bounds), list(point.bucket_counts)
    if len(bounds) + 1 != len(counts) or len(counts) <= max(limit, 1):
        return
    if not all(low < high for low, high in itertools.pairwise(bounds)):
        return
    step = (len(counts) - 1) // limit + 1
    point.bucket_counts[:] = [sum(counts[at : at + step]) % _UINT64 for at in range(0, len(counts), step)]
    point.explicit_bounds[:] = bounds[step - 1 :: step]


def exponential_to_explicit(metric: Any, distribution: str, bounds: Sequence[float]) -> None:
    """Make a histogram with these bounds of an exponential one."""
    if form_of(metric) != "exponential_histogram":
        return
    source = metric.exponential_histogram
    made = Metric(name=metric.name, description=metric.description, unit=metric.unit)
    made.histogram.aggregation_temporality = source.aggregation_temporality
    for point in source.data_points:
        new = made.histogram.data_points.add(
            start_time_unix_nano=point.start_time_unix_nano,
            time_unix_nano=point.time_unix_nano,
            count=point.count,
            sum=point.sum,
            min=point.min,
            max=point.max,
            explicit_bounds=bounds,
            bucket_counts=_explicit_counts(point, distribution, bounds),
        )
        new.exemplars.extend(point.exemplars)
        new.attributes.extend(point.attributes)
    metric.CopyFrom(made)


def _exp(value: float) -> float:
    try:
        return math.exp(value)
    except OverflowError:
        return math.inf


def _explicit_counts(point: Any, distribution: str, bounds: Sequence[float]) -> list[int]:
    """As in the Collector there are as many counts as bounds: the last one takes what is above."""
    counts = [0] * len(bounds)
    if point.zero_count and bounds[0] == 0:
        counts[0] += point.zero_count
    try:
        factor = math.ldexp(math.log(2), -point.scale)
    except OverflowError:
        raise EvaluationError from None
    for place, count in enumerate(point.positive.bucket_counts):
        index = point.positive.offset + place
        upper, lower = _exp((index + 1) * factor), _exp(index * factor)
        if lower > bounds[-1]:
            counts[-1] += count
            continue
        inside = next((at for at in range(1, len(bounds)) if lower > bounds[at - 1] and upper <= bounds[at]), None)
        if inside is not None:
            counts[inside - 1] += count
        else:
            DISTRIBUTIONS[distribution](count, upper, lower, bounds, counts)
    return [count % _UINT64 for count in counts]


def _upper(count: int, upper: float, lower: float, bounds: Sequence[float], counts: list[int]) -> None:
    del lower
    counts[next((at for at, bound in enumerate(bounds) if upper <= bound), len(bounds) - 1)] += count


def _midpoint(count: int, upper: float, lower: float, bounds: Sequence[float], counts: list[int]) -> None:
    middle = (upper + lower) / 2
    at = next((at for at, bound in enumerate(bounds) if middle <= bound), len(bounds))
    counts[max(at - 1, 0) if at < len(bounds) else len(bounds) - 1] += count


def _range(upper: float, lower: float, bounds: Sequence[float]) -> tuple[int, int]:
    start = next((at for at, bound in enumerate(bounds) if lower <= bound), len(bounds))
    end = next((at for at in range(start, len(bounds)) if upper <= bounds[at]), len(bounds))
    return min(start, len(bounds) - 1), min(end, len(bounds) - 1)


def _uniform(count: int, upper: float, lower: float, bounds: Sequence[float], counts: list[int]) -> None:
    start, end = _range(upper, lower, bounds)
    share, rest = divmod(count, end - start + 1)
    for place, at in enumerate(range(start, end + 1)):
        counts[at] += share + (place < rest)


def _random(count: int, upper: float, lower: float, bounds: Sequence[float], counts: list[int]) -> None:
    """In proportion to the overlap; what rounding leaves over goes to random buckets, in at most as many draws."""
    start, end = _range(upper, lower, bounds)
    if end <= start:
        counts[start] += count
        return
    edges = [lower, *bounds[start:end], upper]
    shares = [int(count * (high - low) / (upper - lower)) if math.isfinite(upper) else 0
              for low, high in itertools.pairwise(edges)]  # fmt: skip
    rest = count - sum(shares)
    for place, share in enumerate(shares):
        counts[min(start + place, end)] += share
    counts[random.randint(start, end)] += rest  # noqa: S311 - not for security


DISTRIBUTIONS: Final[dict[str, Callable[[int, float, float, Sequence[float], list[int]], None]]] = {
    "upper": _upper,
    "midpoint": _midpoint,
    "uniform": _uniform,
    "random": _random,
}


# Percentiles.


def extract_percentile(metric: Any, percentile: float, suffix: str) -> Any:
    """A gauge of a percentile of the points of a histogram; None for other types and without points.

    Raises:
        EvaluationError: the buckets of a point are not consistent.
    """
    form = form_of(metric)
    if form not in {"histogram", "exponential_histogram"}:
        return None
    name = f"{percentile:g}"
    made = _like(metric, metric.name + (suffix or f"_p{name}"))
    made.description = f"{metric.description} (p{name})" if metric.description else f"p{name}"
    made.gauge.SetInParent()
    find = _percentile if form == "histogram" else _exponential_percentile
    for point in _points(metric):
        value = find(point, math.ceil(point.count * (percentile / 100.0)))
        if value is not None:
            _number_point(made.gauge.data_points, point).as_double = value
    return made if made.gauge.data_points else None


def _between(low: float, high: float, ratio: float) -> float:
    if not 0 <= ratio <= 1:
        raise EvaluationError
    return low + ratio * (high - low)


def _percentile(point: Any, wanted: int) -> float | None:
    counts, bounds = point.bucket_counts, point.explicit_bounds
    if not point.count or not counts:
        return None
    if len(counts) != len(bounds) + 1:
        raise EvaluationError
    if not bounds:
        if not (point.HasField("min") and point.HasField("max")):
            return None
        return _between(point.min, point.max, wanted / counts[0] if counts[0] else 2.0)
    total = 0
    for place, count in enumerate(counts):
        before, total = total, total + count
        if total < wanted:
            continue
        if place == 0:
            high, low = bounds[0], 0.0
            if point.HasField("min") and point.min < high:
                low = point.min
            elif high < 0:
                return float(high)
        else:
            low = bounds[place - 1]
            if place < len(bounds):
                high = bounds[place]
            elif not point.HasField("max") or point.max <= low:
                return float(low)
            else:
                high = point.max
        return _between(low, high, (wanted - before) / count if count else 2.0)
    raise EvaluationError


def _exponential_percentile(point: Any, wanted: int) -> float | None:
    negative, positive = point.negative, point.positive
    if not point.count or not (negative.bucket_counts or positive.bucket_counts or point.zero_count):
        return None
    total = 0
    for place in range(len(negative.bucket_counts) - 1, -1, -1):
        count = negative.bucket_counts[place]
        before, total = total, total + count
        if total >= wanted:
            low, high = (_bound(negative.offset + place + step, point.scale) for step in (0, 1))
            if low >= high or not count:
                raise EvaluationError
            return -_log_between(low, high, 1 - (wanted - before) / count)
    if total + point.zero_count >= wanted:
        low, high = -point.zero_threshold, point.zero_threshold
        if not negative.bucket_counts and positive.bucket_counts:
            low = 0.0
        elif negative.bucket_counts and not positive.bucket_counts:
            high = 0.0
        return _between(low, high, (wanted - total) / point.zero_count if point.zero_count else 2.0)
    total += point.zero_count
    for place, count in enumerate(positive.bucket_counts):
        before, total = total, total + count
        if total >= wanted:
            low, high = (_bound(positive.offset + place + step, point.scale) for step in (0, 1))
            return _log_between(low, high, (wanted - before) / count if count else 2.0)
    raise EvaluationError


def _bound(index: int, scale_number: int) -> float:
    try:
        if scale_number <= 0:
            return math.ldexp(1.0, index << min(-scale_number, 64))
        return math.exp(index * math.ldexp(math.log(2), -scale_number))
    except OverflowError:
        return math.inf


def _log_between(low: float, high: float, ratio: float) -> float:
    if not 0 <= ratio <= 1 or low <= 0 or high <= 0:
        raise EvaluationError
    first, last = math.log2(low), math.log2(high)
    try:
        return float(2.0 ** (first + (last - first) * ratio))
    except OverflowError:
        return math.inf
