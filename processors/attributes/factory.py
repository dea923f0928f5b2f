"""Factory of the processor ``attributes``."""

from collector.api import ComponentKind, Factory, Settings, Stability
from collector.model import Signal
from processors.attributes.attributes import AttributesProcessor
from processors.attributes.config import AttributesConfig

__all__ = ["create", "factory"]


def create(
    settings: Settings,
    config: AttributesConfig,
) -> AttributesProcessor:
    """The processor ``attributes`` of one pipeline."""
    return AttributesProcessor(settings, config)


factory = Factory(
    component_type="attributes",
    config_type=AttributesConfig,
    create=create,
    stability=Stability.BETA,
    signals=frozenset(Signal),
    kind=ComponentKind.PROCESSOR,
)
