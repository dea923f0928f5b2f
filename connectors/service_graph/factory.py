"""The factory of the connector ``service_graph``."""

from collector.api import ComponentKind, Factory, Settings, Stability, Trait
from collector.model import Signal
from connectors.service_graph.config import ServiceGraphConfig
from connectors.service_graph.service_graph import ServiceGraphConnector

__all__ = ["factory"]


def create(settings: Settings, config: ServiceGraphConfig) -> ServiceGraphConnector:
    """A connector that pairs spans and emits metrics of the requests between services."""
    return ServiceGraphConnector(settings, config)


factory = Factory(
    component_type="service_graph",
    config_type=ServiceGraphConfig,
    create=create,
    stability=Stability.BETA,
    signals=frozenset({Signal.TRACES}),
    kind=ComponentKind.CONNECTOR,
    aliases=("servicegraph",),
    connects=frozenset({(Signal.TRACES, Signal.METRICS)}),
    traits=frozenset({Trait.COUNTS}),
)
