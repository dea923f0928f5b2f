"""Factory of the receiver ``otlp``."""

from collector.api import ComponentKind, Factory, Settings, Stability
from collector.model import Signal
from receivers.otlp.config import OTLPConfig
from receivers.otlp.otlp import OTLPReceiver

__all__ = ["create", "factory"]


def create(settings: Settings, config: OTLPConfig) -> OTLPReceiver:
    """The receiver ``otlp`` for all signals that have a pipeline."""
    return OTLPReceiver(settings, config)


factory = Factory(
    component_type="otlp",
    kind=ComponentKind.RECEIVER,
    config_type=OTLPConfig,
    create=create,
    stability=Stability.BETA,
    signals=frozenset(Signal),
)
