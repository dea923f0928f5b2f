"""Hands its limits to the door and lets every batch pass: what is refused is refused before it is decoded, not here.

That is also why its place in the pipeline does not matter.
"""

from collector.api import Host, Settings, Transform
from collector.model import Batch
from processors.memory_limiter.config import MemoryLimiterConfig

__all__ = ["MemoryLimiter"]


class MemoryLimiter(Transform):
    """Sets the budget at start. Several set the lowest of their limits."""

    def __init__(self, settings: Settings, config: MemoryLimiterConfig) -> None:
        self._settings = settings
        self._config = config

    async def start(self, host: Host) -> None:
        """Hand the limits over."""
        config, telemetry = self._config, self._settings.telemetry
        admission = host.admission
        soft, hard = config.limits_bytes(admission.available_bytes)
        admission.limit(
            soft_bytes=soft,
            hard_bytes=hard,
            check_interval_s=config.check_interval,
            min_gc_interval_soft_s=config.min_gc_interval_when_soft_limited,
            min_gc_interval_hard_s=config.min_gc_interval_when_hard_limited,
        )
        limit = telemetry.gauge(
            "otelcol_processor_memory_limiter_limit_bytes", "Limit of memory; refused above the soft one", ("limit",)
        )
        limit.set(soft, limit="soft")
        limit.set(hard, limit="hard")
        telemetry.gauge(
            "otelcol_processor_memory_limiter_used_bytes",
            "Bytes held of requests, queues and stages",
            read=lambda: admission.used_bytes,
        )
        telemetry.log.info(
            "memory limits set", soft_mib=soft >> 20, hard_mib=hard >> 20, check_interval_s=config.check_interval
        )

    def transform(self, batch: Batch) -> Batch:
        """The same batch."""
        return batch
