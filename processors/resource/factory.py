"""Factory of the processor ``resource``."""

from typing import Any

from collector.api import Component, Factory, Settings, Stability
from collector.model import Signal
from processors.resource.config import ResourceConfig
from processors.resource.resource import ResourceProcessor

__all__ = ["factory"]


def _create(settings: Settings, config: Any, previous: Component | None) -> ResourceProcessor:  # noqa: ARG001 - it has no state
    return ResourceProcessor(settings, config)


factory = Factory("resource", ResourceConfig, _create, Stability.BETA, frozenset(Signal))
