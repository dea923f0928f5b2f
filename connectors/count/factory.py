"""Factory of the connector ``count``."""

from collector.api import ComponentKind, Factory, Settings, Stability, Trait
from collector.model import Signal
from connectors.count.config import CountConfig
from connectors.count.count import CountConnector

__all__ = ["create", "factory"]


def create(settings: Settings, config: CountConfig) -> CountConnector:
    """The connector."""
    return CountConnector(settings, config)


factory = Factory(
    component_type="count",
    config_type=CountConfig,
    create=create,
    stability=Stability.ALPHA,
    signals=frozenset(Signal),
    kind=ComponentKind.CONNECTOR,
    connects=frozenset((signal, Signal.METRICS) for signal in Signal),
    traits=frozenset({Trait.COUNTS}),
)
