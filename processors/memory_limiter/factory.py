"""Factory of the processor ``memory_limiter``."""

from collector.api import ComponentKind, Factory, Settings, Stability
from collector.model import Signal
from processors.memory_limiter.config import MemoryLimiterConfig
from processors.memory_limiter.memory_limiter import MemoryLimiter

__all__ = ["create", "factory"]


def create(settings: Settings, config: MemoryLimiterConfig) -> MemoryLimiter:
    """The processor ``memory_limiter`` of one pipeline."""
    return MemoryLimiter(settings, config)


factory = Factory(
    component_type="memory_limiter",
    kind=ComponentKind.PROCESSOR,
    config_type=MemoryLimiterConfig,
    create=create,
    stability=Stability.BETA,
    signals=frozenset(Signal),
)
