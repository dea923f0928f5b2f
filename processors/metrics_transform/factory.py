"""Factory of the processor ``metrics_transform``."""

from collector.api import ComponentKind, Factory, Settings, Stability
from collector.model import Signal
from processors.metrics_transform.config import MetricsTransformConfig
from processors.metrics_transform.metrics_transform import MetricsTransformProcessor

__all__ = ["create", "factory"]


def create(settings: Settings, config: MetricsTransformConfig) -> MetricsTransformProcessor:
    """The processor of one pipeline."""
    return MetricsTransformProcessor(settings, config)


factory = Factory(
    component_type="metrics_transform",
    config_type=MetricsTransformConfig,
    create=create,
    stability=Stability.BETA,
    signals=frozenset({Signal.METRICS}),
    kind=ComponentKind.PROCESSOR,
    aliases=("metricstransform",),
)
