"""Processor ``probabilistic_sampler``: a share of the spans or log records, each decided by itself."""

from typing import Any

from collector.api import ComponentKind, Factory, Settings, Stability, Trait
from collector.model import Signal
from processors.probabilistic_sampler.config import ProbabilisticSamplerConfig
from processors.probabilistic_sampler.sampler import ProbabilisticSampler

__all__ = ["factory"]


def _create(settings: Settings, config: Any) -> ProbabilisticSampler:
    return ProbabilisticSampler(settings, config)


factory = Factory(
    component_type="probabilistic_sampler",
    kind=ComponentKind.PROCESSOR,
    config_type=ProbabilisticSamplerConfig,
    create=_create,
    stability=Stability.ALPHA,
    signals=frozenset({Signal.TRACES, Signal.LOGS}),
    traits=frozenset({Trait.SAMPLES}),
)
