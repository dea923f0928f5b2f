"""Factory of the receiver ``loki``."""

from collector.api import ComponentKind, Factory, Stability
from collector.model import Signal
from receivers.loki.config import LokiConfig
from receivers.loki.loki import LokiReceiver

__all__ = ["factory"]

factory = Factory(
    component_type="loki",
    kind=ComponentKind.RECEIVER,
    config_type=LokiConfig,
    create=LokiReceiver,
    stability=Stability.BETA,
    signals=frozenset({Signal.LOGS}),
)
