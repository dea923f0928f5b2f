"""Configuration of ``count``. Source: opentelemetry-collector-contrib connector/countconnector config.go."""

from typing import Final, Self

from pydantic import Field, model_validator

from collector.ottl import Context, OttlError, compile_conditions
from config.blocks import ComponentConfig

__all__ = ["CONTEXTS", "AttributeConfig", "CountConfig", "MetricConfig"]

CONTEXTS: Final[dict[str, Context]] = {
    "spans": "span",
    "spanevents": "spanevent",
    "metrics": "metric",
    "datapoints": "datapoint",
    "logs": "log",
}
"""The OTTL context of each section."""


class AttributeConfig(ComponentConfig):
    """An attribute of the counts."""

    key: str = Field(min_length=1)
    """Key of an attribute of the item, its scope or its resource."""
    default_value: str | int | float | bool | None = None
    """The value for items without the attribute. Absent: such items are not counted."""


class MetricConfig(ComponentConfig):
    """One metric."""

    description: str = ""
    """Description of the metric."""
    conditions: tuple[str, ...] = ()
    """OTTL conditions, one of which must hold. Empty: everything is counted."""
    attributes: tuple[AttributeConfig, ...] = ()
    """Attributes by whose values the counts are separate."""


_SPAN = {"trace.span.count": MetricConfig(description="The number of spans observed.")}
_EVENT = {"trace.span.event.count": MetricConfig(description="The number of span events observed.")}
_METRIC = {"metric.count": MetricConfig(description="The number of metrics observed.")}
_POINT = {"metric.datapoint.count": MetricConfig(description="The number of data points observed.")}
_LOG = {"log.record.count": MetricConfig(description="The number of log records observed.")}


class CountConfig(ComponentConfig):
    """Configuration of ``count``: metrics by their names, for each kind of data."""

    spans: dict[str, MetricConfig] = Field(default_factory=lambda: dict(_SPAN))
    """Metrics that count spans."""
    spanevents: dict[str, MetricConfig] = Field(default_factory=lambda: dict(_EVENT))
    """Metrics that count span events."""
    metrics: dict[str, MetricConfig] = Field(default_factory=lambda: dict(_METRIC))
    """Metrics that count metrics."""
    datapoints: dict[str, MetricConfig] = Field(default_factory=lambda: dict(_POINT))
    """Metrics that count data points."""
    logs: dict[str, MetricConfig] = Field(default_factory=lambda: dict(_LOG))
    """Metrics that count log records."""

    def sections(self) -> dict[str, dict[str, MetricConfig]]:
        """The metrics of each section, by the names of both."""
        return {
            "spans": self.spans,
            "spanevents": self.spanevents,
            "metrics": self.metrics,
            "datapoints": self.datapoints,
            "logs": self.logs,
        }

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        for section, metrics in self.sections().items():
            for name, metric in metrics.items():
                if not name:
                    raise ValueError(f"{section}: the name of a metric must not be empty")
                if section == "metrics" and metric.attributes:
                    raise ValueError(f"metrics::{name}: metrics have no attributes; count datapoints instead")
                try:
                    if metric.conditions:
                        compile_conditions(metric.conditions, CONTEXTS[section])
                except OttlError as error:
                    raise ValueError(f"{section}::{name}::conditions: {error}") from None
        return self
