"""Factory of the processor ``memory_limiter``."""

from typing import Any

from collector.api import ComponentKind, Factory, Settings, Stability
from collector.model import Signal
from processors.memory_limiter.config import MemoryLimiterConfig
from processors.memory_limiter.memory_limiter import MemoryLimiter

__all__ = ["factory"]


def _create(settings: Settings, config: Any) -> MemoryLimiter:
    return MemoryLimiter(settings, config)


factory = Factory(
    component_type="memory_limiter",
    kind=ComponentKind.PROCESSOR,
    config_type=MemoryLimiterConfig,
    create=_create,
    stability=Stability.BETA,
    signals=frozenset(Signal),
)
