"""The factory of the processor ``cardinality``."""

from collector.api import ComponentKind, Factory, Settings, Stability
from collector.model import Signal
from processors.cardinality.cardinality import CardinalityProcessor
from processors.cardinality.config import CardinalityConfig

__all__ = ["factory"]


def create(settings: Settings, config: CardinalityConfig) -> CardinalityProcessor:
    """A processor for one metrics pipeline."""
    return CardinalityProcessor(settings, config)


factory = Factory(
    component_type="cardinality",
    config_type=CardinalityConfig,
    create=create,
    stability=Stability.ALPHA,
    signals=frozenset({Signal.METRICS}),
    kind=ComponentKind.PROCESSOR,
)
