"""Factory of the processor ``resource``."""

from typing import Any

from collector.api import ComponentKind, Factory, Settings, Stability
from collector.model import Signal
from processors.resource.config import ResourceConfig
from processors.resource.resource import ResourceProcessor

__all__ = ["factory"]


def _create(settings: Settings, config: Any) -> ResourceProcessor:
    return ResourceProcessor(settings, config)


factory = Factory(
    component_type="resource",
    kind=ComponentKind.PROCESSOR,
    config_type=ResourceConfig,
    create=_create,
    stability=Stability.BETA,
    signals=frozenset(Signal),
)
