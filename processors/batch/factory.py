"""Factory of the processor ``batch``."""

from typing import Any

from collector.api import Component, Factory, Settings, Stability
from collector.model import Signal
from processors.batch.batch import BatchStage
from processors.batch.config import BatchConfig

__all__ = ["factory"]


def _create(settings: Settings, config: Any, previous: Component | None) -> BatchStage:  # noqa: ARG001 - the old one sends what it holds
    return BatchStage(settings, config)


factory = Factory("batch", BatchConfig, _create, Stability.BETA, frozenset(Signal))
