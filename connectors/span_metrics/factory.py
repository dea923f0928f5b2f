"""The factory of the connector ``span_metrics``."""

from collector.api import ComponentKind, Factory, Settings, Stability, Trait
from collector.model import Signal
from connectors.span_metrics.config import SpanMetricsConfig
from connectors.span_metrics.span_metrics import SpanMetricsConnector

__all__ = ["factory"]


def create(settings: Settings, config: SpanMetricsConfig) -> SpanMetricsConnector:
    """A connector that counts spans and emits metrics."""
    return SpanMetricsConnector(settings, config)


factory = Factory(
    component_type="span_metrics",
    config_type=SpanMetricsConfig,
    create=create,
    stability=Stability.ALPHA,
    signals=frozenset({Signal.TRACES}),
    kind=ComponentKind.CONNECTOR,
    aliases=("spanmetrics",),
    connects=frozenset({(Signal.TRACES, Signal.METRICS)}),
    traits=frozenset({Trait.COUNTS, Trait.KEEPS_RESOURCES}),
)
