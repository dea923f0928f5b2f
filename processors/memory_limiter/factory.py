"""Factory of the processor ``memory_limiter``."""

from typing import Any

from collector.api import Component, Factory, Settings, Stability
from collector.model import Signal
from processors.memory_limiter.config import MemoryLimiterConfig
from processors.memory_limiter.memory_limiter import MemoryLimiter

__all__ = ["factory"]


def _create(settings: Settings, config: Any, previous: Component | None) -> MemoryLimiter:  # noqa: ARG001 - it has no state
    return MemoryLimiter(settings, config)


factory = Factory("memory_limiter", MemoryLimiterConfig, _create, Stability.BETA, frozenset(Signal))
