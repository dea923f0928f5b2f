"""Factory of the processor ``attributes``."""

from typing import Any

from collector.api import Component, Factory, Settings, Stability
from collector.model import Signal
from processors.attributes.attributes import AttributesProcessor
from processors.attributes.config import AttributesConfig

__all__ = ["factory"]


def _create(settings: Settings, config: Any, previous: Component | None) -> AttributesProcessor:  # noqa: ARG001 - it has no state
    return AttributesProcessor(settings, config)


factory = Factory("attributes", AttributesConfig, _create, Stability.BETA, frozenset(Signal))
