"""Factory of the connector ``routing``."""

from collector.api import ComponentKind, Factory, Settings, Stability
from collector.model import Signal
from connectors.routing.config import RoutingConfig
from connectors.routing.routing import RoutingConnector

__all__ = ["create", "factory"]


def create(settings: Settings, config: RoutingConfig) -> RoutingConnector:
    """The connector."""
    return RoutingConnector(settings, config)


factory = Factory(
    component_type="routing",
    config_type=RoutingConfig,
    create=create,
    stability=Stability.ALPHA,
    signals=frozenset(Signal),
    kind=ComponentKind.CONNECTOR,
    connects=frozenset((signal, signal) for signal in Signal),
)
