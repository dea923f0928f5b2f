"""Factory of the processor ``batch``."""

from typing import Any

from collector.api import ComponentKind, Factory, Settings, Stability
from collector.model import Signal
from processors.batch.batch import BatchStage
from processors.batch.config import BatchConfig

__all__ = ["factory"]


def _create(settings: Settings, config: Any) -> BatchStage:
    return BatchStage(settings, config)


factory = Factory(
    component_type="batch",
    kind=ComponentKind.PROCESSOR,
    config_type=BatchConfig,
    create=_create,
    stability=Stability.BETA,
    signals=frozenset(Signal),
)
