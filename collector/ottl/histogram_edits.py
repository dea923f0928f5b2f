"""Changes the buckets of single histograms, and reads percentiles of them.

Source: opentelemetry-collector-contrib processor/transformprocessor/internal/metrics (v0.156).
"""

import itertools
import math
import random
from collections.abc import Callable, Sequence
from typing import Any, Final

from opentelemetry.proto.metrics.v1.metrics_pb2 import Metric

from collector.ottl.metric_edits import UINT64, add_number_point, form_of, metric_like, points_of
from collector.ottl.values import EvaluationError

__all__ = ["DISTRIBUTIONS", "exponential_to_explicit", "extract_percentile", "limit_buckets", "merge_bucket"]


def merge_bucket(point: Any, bound: float) -> None:
    """Remove an explicit bound and add up the buckets on both sides of it."""
    bounds, counts = list(point.explicit_bounds), list(point.bucket_counts)
    if len(bounds) + 1 != len(counts):
        return
    place = next((index for index, known in enumerate(bounds) if abs(known - bound) < 1e-12), -1)
    if place >= 0:
        counts[place + 1] = (counts[place + 1] + counts[place]) % UINT64
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
    point.bucket_counts[:] = [sum(counts[at : at + step]) % UINT64 for at in range(0, len(counts), step)]
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
    return [count % UINT64 for count in counts]


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


def extract_percentile(metric: Any, percentile: float, suffix: str) -> Any:
    """A gauge of a percentile of the points of a histogram; None for other types and without points.

    Raises:
        EvaluationError: the buckets of a point are not consistent.
    """
    form = form_of(metric)
    if form not in {"histogram", "exponential_histogram"}:
        return None
    name = f"{percentile:g}"
    made = metric_like(metric, metric.name + (suffix or f"_p{name}"))
    made.description = f"{metric.description} (p{name})" if metric.description else f"p{name}"
    made.gauge.SetInParent()
    find = _percentile if form == "histogram" else _exponential_percentile
    for point in points_of(metric):
        value = find(point, math.ceil(point.count * (percentile / 100.0)))
        if value is not None:
            add_number_point(made.gauge.data_points, point).as_double = value
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
