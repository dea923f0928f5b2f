"""Processor ``cardinality``: absolute caps on series, with an overflow series that keeps sums true."""

from collector.api import ComponentKind, Factory, Stability
from collector.model import Signal
from processors.cardinality.cardinality import create
from processors.cardinality.config import CardinalityConfig

__all__ = ["factory"]

factory = Factory(
    component_type="cardinality",
    config_type=CardinalityConfig,
    create=create,
    stability=Stability.ALPHA,
    signals=frozenset({Signal.METRICS}),
    kind=ComponentKind.PROCESSOR,
)
