"""The factory of ``span_metrics``."""

from collector.api import ComponentKind, Factory, Stability, Trait
from collector.model import Signal
from connectors.span_metrics.config import SpanMetricsConfig
from connectors.span_metrics.span_metrics import create

__all__ = ["factory"]

factory = Factory(
    component_type="span_metrics",
    config_type=SpanMetricsConfig,
    create=create,
    stability=Stability.ALPHA,
    signals=frozenset({Signal.TRACES}),
    kind=ComponentKind.CONNECTOR,
    aliases=("spanmetrics",),
    connects=frozenset({(Signal.TRACES, Signal.METRICS)}),
    traits=frozenset({Trait.COUNTS}),
)
