"""Factory of the processor ``gpu``."""

from collector.api import ComponentKind, Factory, Settings, Stability
from collector.model import Signal
from processors.gpu.config import GpuProcessorConfig
from processors.gpu.gpu import GpuProcessor

__all__ = ["create", "factory"]


def create(settings: Settings, config: GpuProcessorConfig) -> GpuProcessor:
    """The processor ``gpu`` of one pipeline."""
    return GpuProcessor(settings, config)


factory = Factory(
    component_type="gpu",
    config_type=GpuProcessorConfig,
    create=create,
    stability=Stability.ALPHA,
    signals=frozenset({Signal.TRACES, Signal.LOGS}),
    kind=ComponentKind.PROCESSOR,
)
