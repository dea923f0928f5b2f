"""Factory of the receiver ``jaeger``."""

from collector.api import ComponentKind, Factory, Stability
from collector.model import Signal
from receivers.jaeger.config import JaegerConfig
from receivers.jaeger.jaeger import JaegerReceiver

__all__ = ["factory"]

factory = Factory(
    component_type="jaeger",
    kind=ComponentKind.RECEIVER,
    config_type=JaegerConfig,
    create=JaegerReceiver,
    stability=Stability.BETA,
    signals=frozenset({Signal.TRACES}),
)
