"""Factory of the processor ``filter``."""

from collector.api import ComponentKind, Factory, Settings, Stability
from collector.model import Signal
from processors.filter.config import FilterConfig
from processors.filter.filter import FilterProcessor

__all__ = ["create", "factory"]


def create(
    settings: Settings,
    config: FilterConfig,
) -> FilterProcessor:
    """The processor ``filter`` of one pipeline."""
    return FilterProcessor(settings, config)


factory = Factory(
    component_type="filter",
    config_type=FilterConfig,
    create=create,
    stability=Stability.ALPHA,
    signals=frozenset(Signal),
    kind=ComponentKind.PROCESSOR,
)
