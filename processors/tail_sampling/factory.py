"""Factory of the processor ``tail_sampling``."""

from collector.api import ComponentKind, Factory, Settings, Stability, Trait
from collector.model import Signal
from processors.tail_sampling.config import TailSamplingConfig
from processors.tail_sampling.tail_sampling import TailSamplingProcessor

__all__ = ["create", "factory"]


def create(settings: Settings, config: TailSamplingConfig) -> TailSamplingProcessor:
    """The processor ``tail_sampling`` of one pipeline."""
    return TailSamplingProcessor(settings, config)


factory = Factory(
    component_type="tail_sampling",
    kind=ComponentKind.PROCESSOR,
    config_type=TailSamplingConfig,
    create=create,
    stability=Stability.BETA,
    signals=frozenset({Signal.TRACES}),
    traits=frozenset({Trait.SAMPLES}),
)
