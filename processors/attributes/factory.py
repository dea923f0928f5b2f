"""Factory of the processor ``attributes``."""

from typing import Any

from collector.api import ComponentKind, Factory, Settings, Stability
from collector.model import Signal
from processors.attributes.attributes import AttributesProcessor
from processors.attributes.config import AttributesConfig

__all__ = ["factory"]


def _create(settings: Settings, config: Any) -> AttributesProcessor:
    return AttributesProcessor(settings, config)


factory = Factory(
    component_type="attributes",
    kind=ComponentKind.PROCESSOR,
    config_type=AttributesConfig,
    create=_create,
    stability=Stability.BETA,
    signals=frozenset(Signal),
)
