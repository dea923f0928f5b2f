"""Processor ``probabilistic_sampler``: a share of the spans or log records, each decided by itself."""

from typing import Any

from collector.api import Component, Factory, Settings, Stability
from collector.model import Signal
from processors.probabilistic_sampler.config import ProbabilisticSamplerConfig
from processors.probabilistic_sampler.sampler import ProbabilisticSampler

__all__ = ["factory"]


def _create(settings: Settings, config: Any, previous: Component | None) -> ProbabilisticSampler:  # noqa: ARG001 - it has no state
    return ProbabilisticSampler(settings, config)


factory = Factory(
    "probabilistic_sampler",
    ProbabilisticSamplerConfig,
    _create,
    Stability.ALPHA,
    frozenset({Signal.TRACES, Signal.LOGS}),
)
