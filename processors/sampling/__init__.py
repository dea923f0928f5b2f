"""Processor ``sampling``: tail sampling by rules, consistent with ``ot=th``; logs follow their traces."""

from collector.api import ComponentKind, Factory, Stability, Trait
from collector.model import Signal
from processors.sampling.config import SamplingConfig
from processors.sampling.sampling import create

__all__ = ["factory"]

factory = Factory(
    component_type="sampling",
    config_type=SamplingConfig,
    create=create,
    stability=Stability.ALPHA,
    signals=frozenset({Signal.TRACES, Signal.LOGS}),
    kind=ComponentKind.PROCESSOR,
    traits=frozenset({Trait.SAMPLES}),
)
