"""Factory of the receiver ``gpu``."""

from collector.api import ComponentKind, Factory, Settings, Stability
from collector.model import Signal
from receivers.gpu.config import GpuReceiverConfig
from receivers.gpu.gpu import GpuReceiver

__all__ = ["create", "factory"]


def create(settings: Settings, config: GpuReceiverConfig) -> GpuReceiver:
    """The receiver ``gpu``."""
    return GpuReceiver(settings, config)


factory = Factory(
    component_type="gpu",
    config_type=GpuReceiverConfig,
    create=create,
    stability=Stability.ALPHA,
    signals=frozenset({Signal.METRICS}),
    kind=ComponentKind.RECEIVER,
)
