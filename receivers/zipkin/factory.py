"""Factory of the receiver ``zipkin``."""

from collector.api import ComponentKind, Factory, Stability
from collector.model import Signal
from receivers.zipkin.config import ZipkinConfig
from receivers.zipkin.zipkin import ZipkinReceiver

__all__ = ["factory"]

factory = Factory(
    component_type="zipkin",
    kind=ComponentKind.RECEIVER,
    config_type=ZipkinConfig,
    create=ZipkinReceiver,
    stability=Stability.BETA,
    signals=frozenset({Signal.TRACES}),
)
