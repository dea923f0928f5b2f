"""The processor ``memory_limiter``: sets the limits of the admission budget and passes every batch on.

Requests above the limits are refused by the receivers, before they are decoded. That is why the place of this processor
in the pipeline does not matter.
"""

from collector.api import Host, Settings, Transform
from collector.model import Batch
from processors.memory_limiter.config import MemoryLimiterConfig

__all__ = ["MemoryLimiter"]


class MemoryLimiter(Transform):
    """Sets the limits at start. With several such processors the lowest limits apply."""

    def __init__(self, settings: Settings, config: MemoryLimiterConfig) -> None:
        self._settings = settings
        self._config = config
        self._withdraw = _nothing

    async def start(self, host: Host) -> None:
        """Set the limits of the admission budget."""
        config, telemetry = self._config, self._settings.telemetry
        admission = host.admission
        soft, hard = config.limits_bytes(admission.available_bytes)
        self._withdraw = admission.limit(
            soft_bytes=soft,
            hard_bytes=hard,
            check_interval_s=config.check_interval,
            min_gc_interval_soft_s=config.min_gc_interval_when_soft_limited,
            min_gc_interval_hard_s=config.min_gc_interval_when_hard_limited,
        )
        limit = telemetry.gauge(
            "otelcol_processor_memory_limiter_limit_bytes",
            "Memory limits; requests are refused above the soft limit",
            ("limit",),
        )
        limit.set(soft, limit="soft")
        limit.set(hard, limit="hard")
        telemetry.gauge(
            "otelcol_processor_memory_limiter_used_bytes",
            "Bytes held by requests in progress, queues and processors",
            read=lambda: admission.used_bytes,
        )
        telemetry.log.info(
            "memory limits set", soft_mib=soft >> 20, hard_mib=hard >> 20, check_interval_s=config.check_interval
        )

    async def shutdown(self) -> None:
        """Withdraw the limits: a reload may have removed this processor."""
        self._withdraw()
        self._withdraw = _nothing

    def transform(self, batch: Batch) -> Batch:
        """The same batch."""
        return batch


def _nothing() -> None:
    """There are no limits to withdraw."""
