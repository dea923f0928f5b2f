"""Processor ``filter``: drops spans, metrics, points and log records by their properties."""

from typing import Any

from collector.api import Component, Factory, Settings, Stability
from collector.model import Signal
from processors.filter.config import FilterConfig
from processors.filter.filter import FilterProcessor

__all__ = ["factory"]


def _create(settings: Settings, config: Any, previous: Component | None) -> FilterProcessor:  # noqa: ARG001 - it has no state
    return FilterProcessor(settings, config)


factory = Factory("filter", FilterConfig, _create, Stability.ALPHA, frozenset(Signal))
