"""Factory of the ``otlp`` receiver."""

from typing import Any

from collector.api import ComponentKind, Factory, Settings, Stability
from collector.model import Signal
from receivers.otlp.config import OTLPConfig
from receivers.otlp.otlp import OTLPReceiver

__all__ = ["factory"]


def _create(settings: Settings, config: Any) -> OTLPReceiver:
    return OTLPReceiver(settings, config)


factory = Factory(
    component_type="otlp",
    config_type=OTLPConfig,
    create=_create,
    stability=Stability.BETA,
    signals=frozenset(Signal),
    kind=ComponentKind.RECEIVER,
)
