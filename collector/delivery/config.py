"""The configuration that exporters with a queue have in common.

Source: the Collector's exporterhelper README and config.go.
"""

from typing import Self

from pydantic import Field, model_validator

from config.blocks import (
    AdaptiveConcurrencyConfig,
    CircuitBreakerConfig,
    ComponentConfig,
    DeadLetterConfig,
    Duration,
    QueueConfig,
    RetryConfig,
)

__all__ = ["ExporterConfig"]


class ExporterConfig(ComponentConfig):
    """Base of the configuration of exporters that derive from :class:`collector.delivery.QueuedExporter`.

    Example::

        class LinesConfig(ExporterConfig):
            endpoint: str = ""
            timeout: Duration = Field(default=30.0, ge=0)  # the backend is slow
    """

    timeout: Duration = Field(default=5.0, ge=0)
    """Timeout of one attempt; 0 disables it."""
    retry_on_failure: RetryConfig = RetryConfig()
    """Retries of failed requests."""
    sending_queue: QueueConfig = QueueConfig()
    """The queue in which data waits to be sent."""
    circuit_breaker: CircuitBreakerConfig = CircuitBreakerConfig()
    """Single attempts while the backend is down (specific to Tailrace)."""
    adaptive_concurrency: AdaptiveConcurrencyConfig = AdaptiveConcurrencyConfig()
    """Fewer requests at once while the backend is overloaded (specific to Tailrace)."""
    dead_letter: DeadLetterConfig | None = None
    """Where data goes that the backend refuses or does not accept in time (specific to Tailrace). Absent: it is
    dropped.
    """

    @model_validator(mode="after")
    def _queue_is_consistent(self) -> Self:
        queue = self.sending_queue
        if not queue.enabled:
            return self
        if queue.storage and queue.wait_for_result:
            raise ValueError("sending_queue: wait_for_result cannot be combined with storage; remove one of them")
        batch = queue.batch
        if batch is not None and queue.batch_sizer == queue.sizer and batch.min_size > queue.queue_size:
            raise ValueError(
                f"sending_queue: batch::min_size {batch.min_size} exceeds queue_size {queue.queue_size}"
                f" (in {queue.sizer}); raise queue_size or lower min_size"
            )
        return self
