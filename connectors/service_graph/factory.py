"""Factory of the connector ``service_graph``."""

from typing import Any

from collector.api import Component, ComponentKind, Factory, Settings, Stability
from collector.model import Signal
from connectors.service_graph.config import ServiceGraphConfig
from connectors.service_graph.service_graph import ServiceGraphConnector

__all__ = ["factory"]


def _create(settings: Settings, config: Any, previous: Component | None) -> ServiceGraphConnector:
    return ServiceGraphConnector(settings, config, previous if isinstance(previous, ServiceGraphConnector) else None)


factory = Factory(
    component_type="service_graph",
    config_type=ServiceGraphConfig,
    create=_create,
    stability=Stability.BETA,
    signals=frozenset({Signal.TRACES}),
    kind=ComponentKind.CONNECTOR,
    aliases=("servicegraph",),
    connects=frozenset({(Signal.TRACES, Signal.METRICS)}),
)
