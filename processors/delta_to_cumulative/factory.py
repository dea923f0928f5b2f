"""Factory of the processor ``delta_to_cumulative``."""

from collector.api import ComponentKind, Factory, Settings, Stability
from collector.model import Signal
from processors.delta_to_cumulative.config import DeltaToCumulativeConfig
from processors.delta_to_cumulative.delta_to_cumulative import DeltaToCumulativeProcessor

__all__ = ["create", "factory"]


def create(settings: Settings, config: DeltaToCumulativeConfig) -> DeltaToCumulativeProcessor:
    """The processor of one pipeline."""
    return DeltaToCumulativeProcessor(settings, config)


factory = Factory(
    component_type="delta_to_cumulative",
    config_type=DeltaToCumulativeConfig,
    create=create,
    stability=Stability.BETA,
    signals=frozenset({Signal.METRICS}),
    kind=ComponentKind.PROCESSOR,
    aliases=("deltatocumulative",),
)
