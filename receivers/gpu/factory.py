"""Factory of the receiver ``gpu``."""

from collector.api import Component, ComponentKind, Factory, Settings, Stability
from collector.model import Signal
from receivers.gpu.config import GpuReceiverConfig
from receivers.gpu.gpu import GpuReceiver

__all__ = ["create", "factory"]


def create(settings: Settings, config: GpuReceiverConfig, previous: Component | None) -> GpuReceiver:
    """The receiver ``gpu``; it takes over the sampler's history from ``previous``."""
    return GpuReceiver(settings, config, previous if isinstance(previous, GpuReceiver) else None)


factory = Factory(
    component_type="gpu",
    config_type=GpuReceiverConfig,
    create=create,
    stability=Stability.ALPHA,
    signals=frozenset({Signal.METRICS}),
    kind=ComponentKind.RECEIVER,
)
