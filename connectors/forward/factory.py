"""The factory of the connector ``forward``."""

from collector.api import ComponentKind, Factory, Settings, Stability, Trait
from collector.model import Signal
from connectors.forward.config import ForwardConfig
from connectors.forward.forward import ForwardConnector

__all__ = ["create", "factory"]


def create(settings: Settings, config: ForwardConfig) -> ForwardConnector:  # noqa: ARG001 - there are no options
    """A connector for all signals."""
    return ForwardConnector(settings)


factory = Factory(
    component_type="forward",
    config_type=ForwardConfig,
    create=create,
    stability=Stability.BETA,
    signals=frozenset(Signal),
    kind=ComponentKind.CONNECTOR,
    traits=frozenset({Trait.KEEPS_RESOURCES}),
    connects=frozenset((signal, signal) for signal in Signal),
)
