"""Factory of the processor ``gpu``."""

from collector.api import Component, ComponentKind, Factory, Settings, Stability
from collector.model import Signal
from processors.gpu.config import GpuProcessorConfig
from processors.gpu.gpu import GpuProcessor

__all__ = ["create", "factory"]


def create(settings: Settings, config: GpuProcessorConfig, previous: Component | None) -> GpuProcessor:
    """The processor ``gpu`` of one pipeline; it takes over the sampler's history from ``previous``."""
    return GpuProcessor(settings, config, previous if isinstance(previous, GpuProcessor) else None)


factory = Factory(
    component_type="gpu",
    config_type=GpuProcessorConfig,
    create=create,
    stability=Stability.ALPHA,
    signals=frozenset({Signal.TRACES, Signal.LOGS}),
    kind=ComponentKind.PROCESSOR,
)
