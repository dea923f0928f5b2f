"""Processor ``filter``: drops spans, metrics, points and log records by their properties."""

from typing import Any

from collector.api import ComponentKind, Factory, Settings, Stability
from collector.model import Signal
from processors.filter.config import FilterConfig
from processors.filter.filter import FilterProcessor

__all__ = ["factory"]


def _create(settings: Settings, config: Any) -> FilterProcessor:
    return FilterProcessor(settings, config)


factory = Factory(
    component_type="filter",
    kind=ComponentKind.PROCESSOR,
    config_type=FilterConfig,
    create=_create,
    stability=Stability.ALPHA,
    signals=frozenset(Signal),
)
