"""Factory of the processor ``resource``."""

from collector.api import ComponentKind, Factory, Settings, Stability
from collector.model import Signal
from processors.resource.config import ResourceConfig
from processors.resource.resource import ResourceProcessor

__all__ = ["create", "factory"]


def create(
    settings: Settings,
    config: ResourceConfig,
) -> ResourceProcessor:
    """The processor ``resource`` of one pipeline."""
    return ResourceProcessor(settings, config)


factory = Factory(
    component_type="resource",
    config_type=ResourceConfig,
    create=create,
    stability=Stability.BETA,
    signals=frozenset(Signal),
    kind=ComponentKind.PROCESSOR,
)
