"""Factory of the processor ``batch``."""

from collector.api import ComponentKind, Factory, Settings, Stability
from collector.model import Signal
from processors.batch.batch import BatchProcessor
from processors.batch.config import BatchConfig

__all__ = ["create", "factory"]


def create(settings: Settings, config: BatchConfig) -> BatchProcessor:
    """The processor ``batch`` of one pipeline."""
    return BatchProcessor(settings, config)


factory = Factory(
    component_type="batch",
    kind=ComponentKind.PROCESSOR,
    config_type=BatchConfig,
    create=create,
    stability=Stability.BETA,
    signals=frozenset(Signal),
)
