"""Factory of the connector ``exceptions``."""

from collector.api import ComponentKind, Factory, Settings, Stability, Trait
from collector.model import Signal
from connectors.exceptions.config import ExceptionsConfig
from connectors.exceptions.exceptions import ExceptionsConnector

__all__ = ["create", "factory"]


def create(settings: Settings, config: ExceptionsConfig) -> ExceptionsConnector:
    """The connector."""
    return ExceptionsConnector(settings, config)


factory = Factory(
    component_type="exceptions",
    config_type=ExceptionsConfig,
    create=create,
    stability=Stability.ALPHA,
    signals=frozenset({Signal.TRACES, Signal.LOGS}),
    kind=ComponentKind.CONNECTOR,
    connects=frozenset({(Signal.TRACES, Signal.METRICS), (Signal.TRACES, Signal.LOGS), (Signal.LOGS, Signal.METRICS)}),
    traits=frozenset({Trait.COUNTS}),
)
