"""Factory of the processor ``transform``."""

from collector.api import ComponentKind, Factory, Settings, Stability
from collector.model import Signal
from processors.transform.config import TransformConfig
from processors.transform.transform import TransformProcessor

__all__ = ["create", "factory"]


def create(settings: Settings, config: TransformConfig) -> TransformProcessor:
    """The processor ``transform`` of one pipeline."""
    return TransformProcessor(settings, config)


factory = Factory(
    component_type="transform",
    config_type=TransformConfig,
    create=create,
    stability=Stability.ALPHA,
    signals=frozenset(Signal),
    kind=ComponentKind.PROCESSOR,
)
