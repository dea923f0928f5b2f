"""The component type ``gpu`` among receivers."""

from collector.api import Component, ComponentKind, Factory, Settings, Stability
from collector.model import Signal
from receivers.gpu.config import GpuReceiverConfig
from receivers.gpu.gpu import GpuReceiver

__all__ = ["factory"]


def _create(settings: Settings, config: GpuReceiverConfig) -> Component:
    return GpuReceiver(settings, config)


factory = Factory(
    component_type="gpu",
    config_type=GpuReceiverConfig,
    create=_create,
    stability=Stability.ALPHA,
    signals=frozenset({Signal.METRICS}),
    kind=ComponentKind.RECEIVER,
)
