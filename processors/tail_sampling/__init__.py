"""Processor ``tail_sampling``: whole traces by policies, the Collector's."""

from collector.api import ComponentKind, Factory, Stability, Trait
from collector.model import Signal
from processors.tail_sampling.config import TailSamplingConfig
from processors.tail_sampling.tail_sampling import create

__all__ = ["factory"]

factory = Factory(
    component_type="tail_sampling",
    config_type=TailSamplingConfig,
    create=create,
    stability=Stability.BETA,
    signals=frozenset({Signal.TRACES}),
    kind=ComponentKind.PROCESSOR,
    traits=frozenset({Trait.SAMPLES}),
)
