"""Factory of the processor ``cumulative_to_delta``."""

from collector.api import ComponentKind, Factory, Settings, Stability
from collector.model import Signal
from processors.cumulative_to_delta.config import CumulativeToDeltaConfig
from processors.cumulative_to_delta.cumulative_to_delta import CumulativeToDeltaProcessor

__all__ = ["create", "factory"]


def create(settings: Settings, config: CumulativeToDeltaConfig) -> CumulativeToDeltaProcessor:
    """The processor of one pipeline."""
    return CumulativeToDeltaProcessor(settings, config)


factory = Factory(
    component_type="cumulative_to_delta",
    config_type=CumulativeToDeltaConfig,
    create=create,
    stability=Stability.BETA,
    signals=frozenset({Signal.METRICS}),
    kind=ComponentKind.PROCESSOR,
    aliases=("cumulativetodelta",),
)
