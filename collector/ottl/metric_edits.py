"""What editors do to single metrics and data points, as protobuf messages: other types, other metrics made of them.

Aggregation is in ``metric_aggregation``, what changes the buckets of histograms or reads percentiles of them in
``histogram_edits``.

Source: opentelemetry-collector-contrib processor/transformprocessor/internal/metrics (v0.156).
"""

from typing import Any, Final

from opentelemetry.proto.metrics.v1.metrics_pb2 import Metric

from collector.ottl.values import EvaluationError

__all__ = [
    "DELTA",
    "INT64_SIGN",
    "TEMPORALITIES",
    "UINT64",
    "add_number_point",
    "extract_count",
    "extract_sum",
    "form_of",
    "gauge_to_sum",
    "metric_like",
    "points_of",
    "quantiles_to_gauge",
    "scale",
    "sum_to_gauge",
    "summary_to_sum",
]

TEMPORALITIES: Final = {"delta": 1, "cumulative": 2}
_CUMULATIVE: Final = 2
DELTA: Final = 1
UINT64: Final = 2**64
INT64_SIGN: Final = 2**63


def form_of(metric: Any) -> str:
    """The type of a metric: ``gauge``, ``sum``, ``histogram``, ``exponential_histogram``, ``summary`` or ""."""
    return metric.WhichOneof("data") or ""


def points_of(metric: Any) -> Any:
    """The points of a metric, empty if it has no type."""
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


def metric_like(metric: Any, name: str, unit: str | None = None) -> Any:
    """A metric without points that has this name, and the description and the unit of another one."""
    return Metric(name=name, description=metric.description, unit=metric.unit if unit is None else unit)


def add_number_point(points: Any, source: Any) -> Any:
    """Adds a point without a value that has the times and the attributes of another one."""
    point = points.add(time_unix_nano=source.time_unix_nano, start_time_unix_nano=source.start_time_unix_nano)
    point.attributes.extend(source.attributes)
    return point


def _signed(count: int) -> int:
    return count - UINT64 if count >= INT64_SIGN else count


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
    made = metric_like(metric, metric.name + suffix, "1")
    made.sum.aggregation_temporality, made.sum.is_monotonic = temporality, monotonic
    for point in points_of(metric):
        add_number_point(made.sum.data_points, point).as_int = _signed(point.count)
    return made if made.sum.data_points else None


def extract_sum(metric: Any, suffix: str, *, monotonic: bool) -> Any:
    """A sum of the sums of a histogram or summary; None if it has none.

    Raises:
        EvaluationError: the metric is of another type.
    """
    temporality = _temporality(metric)
    if not temporality:
        raise EvaluationError
    made = metric_like(metric, metric.name + suffix)
    made.sum.aggregation_temporality, made.sum.is_monotonic = temporality, monotonic
    for point in points_of(metric):
        if form_of(metric) == "summary" or point.HasField("sum"):
            add_number_point(made.sum.data_points, point).as_double = point.sum
    return made if made.sum.data_points else None


def summary_to_sum(metric: Any, field: str, suffix: str, temporality: int, *, monotonic: bool) -> Any:
    """A sum of the counts or sums of a summary; None for other types."""
    if form_of(metric) != "summary":
        return None
    made = metric_like(metric, metric.name + suffix)
    made.sum.aggregation_temporality, made.sum.is_monotonic = temporality, monotonic
    for point in metric.summary.data_points:
        new = add_number_point(made.sum.data_points, point)
        if field == "count":
            new.as_int = _signed(point.count)
        else:
            new.as_double = point.sum
    return made


def quantiles_to_gauge(metric: Any, key: str, suffix: str) -> Any:
    """A gauge with a point for each quantile of a summary; None for other types."""
    if form_of(metric) != "summary":
        return None
    made = metric_like(metric, metric.name + suffix)
    made.gauge.SetInParent()
    for point in metric.summary.data_points:
        for quantile in point.quantile_values:
            new = add_number_point(made.gauge.data_points, point)
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
        for point in points_of(metric):
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
