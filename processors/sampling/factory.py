"""Factory of the processor ``sampling``."""

from collector.api import ComponentKind, Factory, Settings, Stability, Trait
from collector.model import Signal
from processors.sampling.config import SamplingConfig
from processors.sampling.logs import LogsFollower
from processors.sampling.sampling import SamplingProcessor

__all__ = ["create", "factory"]


def create(settings: Settings, config: SamplingConfig) -> SamplingProcessor | LogsFollower:
    """The processor ``sampling`` of one pipeline: it samples traces; logs follow the decisions on their traces."""
    if Signal.LOGS in settings.signals:
        return LogsFollower(settings, config)
    return SamplingProcessor(settings, config)


factory = Factory(
    component_type="sampling",
    kind=ComponentKind.PROCESSOR,
    config_type=SamplingConfig,
    create=create,
    stability=Stability.ALPHA,
    signals=frozenset({Signal.TRACES, Signal.LOGS}),
    traits=frozenset({Trait.SAMPLES}),
)
