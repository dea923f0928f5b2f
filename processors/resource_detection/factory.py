"""Factory of the processor ``resource_detection``."""

from collector.api import ComponentKind, Factory, Settings, Stability
from collector.model import Signal
from processors.resource_detection.config import ResourceDetectionConfig
from processors.resource_detection.resource_detection import ResourceDetectionProcessor

__all__ = ["create", "factory"]


def create(settings: Settings, config: ResourceDetectionConfig) -> ResourceDetectionProcessor:
    """The processor of one pipeline."""
    return ResourceDetectionProcessor(settings, config)


factory = Factory(
    component_type="resource_detection",
    config_type=ResourceDetectionConfig,
    create=create,
    stability=Stability.BETA,
    signals=frozenset(Signal),
    kind=ComponentKind.PROCESSOR,
    aliases=("resourcedetection",),
)
