"""Factory of the processor ``probabilistic_sampler``."""

from collector.api import ComponentKind, Factory, Settings, Stability, Trait
from collector.model import Signal
from processors.probabilistic_sampler.config import ProbabilisticSamplerConfig
from processors.probabilistic_sampler.probabilistic_sampler import ProbabilisticSampler

__all__ = ["create", "factory"]


def create(settings: Settings, config: ProbabilisticSamplerConfig) -> ProbabilisticSampler:
    """The processor ``probabilistic_sampler`` of one pipeline."""
    return ProbabilisticSampler(settings, config)


factory = Factory(
    component_type="probabilistic_sampler",
    kind=ComponentKind.PROCESSOR,
    config_type=ProbabilisticSamplerConfig,
    create=create,
    stability=Stability.ALPHA,
    signals=frozenset({Signal.TRACES, Signal.LOGS}),
    traits=frozenset({Trait.SAMPLES}),
)
