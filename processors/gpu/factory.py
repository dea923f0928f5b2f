"""The component type ``gpu`` among processors."""

from collector.api import Component, ComponentKind, Factory, Settings, Stability
from collector.model import Signal
from processors.gpu.config import GpuProcessorConfig
from processors.gpu.gpu import GpuProcessor

__all__ = ["factory"]


def _create(settings: Settings, config: GpuProcessorConfig) -> Component:
    return GpuProcessor(settings, config)


factory = Factory(
    component_type="gpu",
    config_type=GpuProcessorConfig,
    create=_create,
    stability=Stability.ALPHA,
    signals=frozenset({Signal.TRACES, Signal.LOGS}),
    kind=ComponentKind.PROCESSOR,
)
