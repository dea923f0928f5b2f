"""Configuration of ``span_metrics``: the Collector's keys and defaults, and some keys of our own.

Source: opentelemetry-collector-contrib connector/spanmetricsconnector (0.155 to 0.165), config.go and factory.go.
"""

from collections.abc import Iterable, Mapping
from itertools import pairwise
from typing import Any, ClassVar, Final, Literal, Self

from pydantic import Field, model_validator

from collector.otlp.semantics import SpanKind
from config.blocks import ComponentConfig, Duration, OutdatedKey
from connectors.span_metrics.globs import compile_glob

__all__ = [
    "DEFAULT_NAMESPACE",
    "Dimension",
    "EventsConfig",
    "ExemplarsConfig",
    "ExplicitConfig",
    "ExponentialConfig",
    "HistogramConfig",
    "SpanMetricsConfig",
]

DEFAULT_NAMESPACE: Final = "traces.span.metrics"
DEFAULT_BUCKETS_S: Final = (
    0.002,
    0.004,
    0.006,
    0.008,
    0.010,
    0.050,
    0.1,
    0.2,
    0.4,
    0.8,
    1.0,
    1.4,
    2.0,
    5.0,
    10.0,
    15.0,
)
DEFAULT_DIMENSIONS: Final = ("service.name", "span.name", "span.kind", "status.code")
INSTANCE: Final = "collector.instance.id"
SCOPE_NAME: Final = "span.instrumentation.scope.name"
SCOPE_VERSION: Final = "span.instrumentation.scope.version"
SAMPLING_METHOD: Final = "sampling.method"
_GLOB_MAX_CHARS: Final = 256
_BUCKETS_MAX: Final = 512
_DIMENSIONS_MAX: Final = 64


class Dimension(ComponentConfig):
    """An attribute that becomes a dimension: exactly one of ``name`` and ``glob``."""

    name: str = ""
    """The key of an attribute of the span or else of its resource."""
    default: str | None = None
    """With ``name``: the value for spans without the attribute. Unset: they do not have the dimension."""
    glob: str = Field(default="", max_length=_GLOB_MAX_CHARS)
    """Every attribute key that matches becomes a dimension; ``*`` does not match a dot, ``**`` does."""

    @model_validator(mode="after")
    def _one_of(self) -> Self:
        if bool(self.name) == bool(self.glob):
            raise ValueError("a dimension must have exactly one of name and glob")
        if self.glob:
            if self.default is not None:
                raise ValueError(f"glob {self.glob!r}: default can only be used together with name")
            compile_glob(self.glob)
        return self


class ExplicitConfig(ComponentConfig):
    """Buckets with fixed bounds."""

    null_means_default: ClassVar[bool] = False

    buckets: tuple[Duration, ...] | None = Field(default=None, max_length=_BUCKETS_MAX)
    """Upper bounds of the buckets, in ascending order."""

    @model_validator(mode="after")
    def _ascending(self) -> Self:
        bounds = self.buckets or ()
        if any(bound <= 0 for bound in bounds):
            raise ValueError("buckets must be greater than 0")
        if any(left >= right for left, right in pairwise(bounds)):
            raise ValueError("buckets must be in ascending order, each bound once")
        return self


class ExponentialConfig(ComponentConfig):
    """Exponential buckets, whose resolution adapts to the values."""

    max_size: int = Field(default=160, ge=0, le=16384)
    """Maximum number of buckets per series. 0: 160."""

    @model_validator(mode="after")
    def _useful(self) -> Self:
        if self.max_size == 1:
            raise ValueError("max_size must be at least 2, or 0 for 160")
        return self

    @property
    def size(self) -> int:
        """How many buckets a series may have."""
        return self.max_size or 160


class HistogramConfig(ComponentConfig):
    """The duration metric."""

    disable: bool = False
    """Whether to leave out the duration metric."""
    unit: Literal["ms", "s"] = "ms"
    """Unit of the durations. With ``names: http`` it is always s."""
    explicit: ExplicitConfig | None = None
    """Buckets with fixed bounds. If neither ``explicit`` nor ``exponential`` is set: 16 bounds from 2ms to 15s."""
    exponential: ExponentialConfig | None = None
    """Exponential buckets, whose resolution adapts to the values. Cannot be combined with ``explicit``."""
    dimensions: tuple[Dimension, ...] = Field(default=(), max_length=_DIMENSIONS_MAX)
    """Dimensions that only the duration metric has."""

    @model_validator(mode="before")
    @classmethod
    def _unit_in_any_case(cls, value: Any) -> Any:
        if isinstance(value, dict) and isinstance(value.get("unit"), str):
            return value | {"unit": value["unit"].lower()}
        return value

    @model_validator(mode="after")
    def _one_of(self) -> Self:
        if self.explicit is not None and self.exponential is not None:
            raise ValueError("use either explicit or exponential, not both")
        return self

    @property
    def nanoseconds(self) -> float:
        """The unit in nanoseconds."""
        return 1e9 if self.unit == "s" else 1e6

    @property
    def bounds(self) -> tuple[float, ...]:
        """Explicit bounds in the unit, as the doubles that the Collector writes: whole nanoseconds, divided once."""
        buckets = (
            self.explicit.buckets
            if self.explicit is not None and self.explicit.buckets is not None
            else DEFAULT_BUCKETS_S
        )
        return tuple(float(round(bound * 1e9)) / self.nanoseconds for bound in buckets)


class ExemplarsConfig(ComponentConfig):
    """Exemplars: examples of traces, attached to data points."""

    enabled: bool = False
    """Whether to attach exemplars."""
    max_per_data_point: int = Field(default=5, ge=0, le=100)
    """Maximum number of exemplars per data point and flush."""
    only_kept: str = ""
    """Id of a sampling processor (specific to Tailrace): only traces that it kept become exemplars. Empty: all traces.
    """


class EventsConfig(ComponentConfig):
    """The metric that counts span events."""

    enabled: bool = False
    """Whether to count span events."""
    dimensions: tuple[Dimension, ...] = Field(default=(), max_length=_DIMENSIONS_MAX)
    """Attributes of the span, or else of the event, or else of the resource. Required if enabled."""

    @model_validator(mode="after")
    def _has_dimensions(self) -> Self:
        if self.enabled and not self.dimensions:
            raise ValueError("events.enabled requires dimensions, for example [{name: exception.type}]")
        return self


class SpanMetricsConfig(ComponentConfig):
    """Calls, errors and durations of spans, as metrics."""

    outdated_keys: ClassVar[Mapping[str, OutdatedKey]] = {
        "latency_histogram_buckets": OutdatedKey("histogram::explicit::buckets")
    }

    names: Literal["collector", "http"] = "collector"
    """Names of the metrics (specific to Tailrace). ``http``: http_requests_total and http_request_duration_seconds,
    which dashboards expect.
    """
    status_label: Literal["status", "status_code"] = "status"
    """With ``names: http``: the name of the label with the status code (specific to Tailrace)."""
    kinds: tuple[SpanKind, ...] = ()
    """Kinds of spans that are counted (specific to Tailrace). Empty: all, or with ``names: http`` only SERVER."""
    namespace: str = Field(default=DEFAULT_NAMESPACE, max_length=200)
    """Prefix of the metric names, followed by a dot. Empty: no prefix."""
    dimensions: tuple[Dimension, ...] = Field(default=(), max_length=_DIMENSIONS_MAX)
    """Dimensions of every metric."""
    calls_dimensions: tuple[Dimension, ...] = Field(default=(), max_length=_DIMENSIONS_MAX)
    """Dimensions that only the calls metric has."""
    exclude_dimensions: tuple[str, ...] = ()
    """Default dimensions to leave out: service.name, span.name, span.kind, status.code or collector.instance.id."""
    dimensions_cache_size: int = 0
    """Deprecated by the Collector; has no effect."""
    resource_metrics_cache_size: int = Field(default=1000, ge=1)
    """Number of resources to keep; beyond it, those not seen for the longest time are forgotten after the next flush.
    """
    resource_metrics_key_attributes: tuple[str, ...] = ()
    """The resource attributes that identify a resource. Empty: all of them."""
    aggregation_temporality: Literal["AGGREGATION_TEMPORALITY_CUMULATIVE", "AGGREGATION_TEMPORALITY_DELTA"] = (
        "AGGREGATION_TEMPORALITY_CUMULATIVE"
    )
    """Whether the metrics are cumulative or deltas."""
    histogram: HistogramConfig = HistogramConfig()
    """The duration metric."""
    metrics_flush_interval: Duration = Field(default=60.0, gt=0)
    """How often the metrics are sent."""
    metrics_expiration: Duration = Field(default=0.0, ge=0)
    """A resource is forgotten after this time without spans. 0: never."""
    series_expiration: Duration = Field(default=0.0, ge=0)
    """A series is forgotten after this time without spans. 0: never."""
    metric_timestamp_cache_size: int | None = Field(default=None, le=10_000_000)
    """With delta temporality: the number of series whose last flush time is remembered. Unset: 10 times
    resource_metrics_cache_size, but at least 1000.
    """
    exemplars: ExemplarsConfig = ExemplarsConfig()
    """Examples of traces, attached to data points."""
    events: EventsConfig = EventsConfig()
    """The metric that counts span events."""
    include_instrumentation_scope: tuple[str, ...] = ()
    """Instrumentation scopes whose name and version become dimensions."""
    aggregation_cardinality_limit: int = Field(default=2000, ge=0)
    """Series per resource and metric; further ones are counted in one with otel.metric.overflow=true. 0: no limit."""
    max_series: int = Field(default=100_000, ge=1, le=10_000_000)
    """Number of series that all resources may have together (specific to Tailrace)."""
    add_resource_attributes: bool = False
    """Accepted for compatibility; has no effect, since the metrics always have the resource attributes of the spans."""
    enable_metrics_sampling_method: bool = False
    """Whether to add the dimension sampling.method, which is extrapolated or counted."""
    include_collector_instance_id: bool = False
    """Whether to add the dimension collector.instance.id; needed if several gateways receive spans of one source."""
    initial_zero: bool = True
    """Whether new cumulative series begin with a 0 at their start time, so that increase() sees their first value
    (specific to Tailrace).
    """
    storage: str = ""
    """The id of a storage extension in which series and counts survive a restart (specific to Tailrace). Empty: none.
    """

    extension_keys: ClassVar[tuple[str, ...]] = ("storage",)

    @model_validator(mode="before")
    @classmethod
    def _http_means_seconds(cls, value: Any) -> Any:
        """With ``names: http`` the unit is seconds, as the name of the metric says."""
        if isinstance(value, dict) and value.get("names") == "http":
            histogram = value.get("histogram")
            if histogram is None:
                return value | {"histogram": {"unit": "s"}}
            if isinstance(histogram, dict):
                return value | {"histogram": {"unit": "s"} | histogram}
        return value

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        http = self.names == "http"
        if http and self.histogram.unit != "s":
            raise ValueError(
                f"histogram: unit must be 's' with names: http, got {self.histogram.unit!r}; "
                "the metric is called http_request_duration_seconds"
            )
        if http and self.namespace != DEFAULT_NAMESPACE:
            raise ValueError("namespace has no effect with names: http; remove one of them")
        if not http and self.status_label != "status":
            raise ValueError("status_label has no effect without names: http")
        if len(set(self.kinds)) != len(self.kinds):
            raise ValueError(f"kinds: {list(self.kinds)} lists a kind twice")
        known = (*self.own_dimensions, INSTANCE)
        for name in self.exclude_dimensions:
            if name not in known:
                raise ValueError(f"exclude_dimensions: expected any of {', '.join(known)}, got {name!r}")
        for path, extra in (
            ("calls_dimensions", self.calls_dimensions),
            ("histogram::dimensions", self.histogram.dimensions),
            ("events::dimensions", self.events.dimensions if self.events.enabled else ()),
        ):
            self._distinct(path, (*self.dimensions, *extra))
        if self.is_delta and self.metric_timestamp_cache_size is not None and self.metric_timestamp_cache_size < 1:
            raise ValueError("metric_timestamp_cache_size must be at least 1 with delta temporality")
        return self

    def _distinct(self, path: str, dimensions: Iterable[Dimension]) -> None:
        names = set(self.own_dimensions)
        names |= {INSTANCE} if self.include_collector_instance_id else set()
        names |= {SAMPLING_METHOD} if self.enable_metrics_sampling_method else set()
        names |= {SCOPE_NAME, SCOPE_VERSION} if self.include_instrumentation_scope else set()
        globs = []
        for dimension in dimensions:
            if dimension.glob:
                globs.append(dimension.glob)
            elif dimension.name in names:
                raise ValueError(f"{path}: {dimension.name!r} is already a dimension")
            names.add(dimension.name)
        for glob in globs:
            matches = compile_glob(glob)
            for name in sorted(names - {""}):
                if matches(name):
                    raise ValueError(f"{path}: glob {glob!r} matches {name!r}, which is already a dimension")

    @property
    def own_dimensions(self) -> tuple[str, ...]:
        """The dimensions that need not be configured."""
        return ("method", "endpoint", self.status_label) if self.names == "http" else DEFAULT_DIMENSIONS

    @property
    def counted_kinds(self) -> tuple[str, ...]:
        """The kinds of spans that are counted; empty: all."""
        return self.kinds or (("SERVER",) if self.names == "http" else ())

    @property
    def is_delta(self) -> bool:
        """Whether the temporality is delta."""
        return self.aggregation_temporality == "AGGREGATION_TEMPORALITY_DELTA"

    @property
    def timestamp_cache_size(self) -> int:
        """The value of ``metric_timestamp_cache_size``, or its default."""
        if self.metric_timestamp_cache_size is not None:
            return self.metric_timestamp_cache_size
        return max(1000, 10 * self.resource_metrics_cache_size)

    def same_series(self, other: Self) -> bool:
        """Whether both make the same series of the same spans, so that one can continue the counts of the other."""
        return self.fingerprint == other.fingerprint

    @property
    def fingerprint(self) -> str:
        """What determines the series that are made of spans."""
        without_influence = {
            "metrics_flush_interval",
            "metrics_expiration",
            "series_expiration",
            "exemplars",
            "aggregation_cardinality_limit",
            "max_series",
            "resource_metrics_cache_size",
            "dimensions_cache_size",
            "metric_timestamp_cache_size",
            "initial_zero",
            "add_resource_attributes",
            "kinds",
            "storage",
        }
        return self.model_dump_json(exclude=without_influence)
