"""What every exporter with a queue lets its user write. Source: the Collector's exporterhelper README and config.go."""

from typing import Self

from pydantic import Field, model_validator

from config.blocks import ComponentConfig, Duration, QueueConfig, RetryConfig

__all__ = ["ExporterConfig"]


class ExporterConfig(ComponentConfig):
    """Base of exporter configurations."""

    timeout: Duration = Field(default=5.0, ge=0)
    """Of one attempt; 0: none."""
    retry_on_failure: RetryConfig = RetryConfig()
    sending_queue: QueueConfig = QueueConfig()

    @model_validator(mode="after")
    def _queue_is_consistent(self) -> Self:
        queue = self.sending_queue
        if not queue.enabled:
            return self
        if queue.storage and queue.wait_for_result:
            raise ValueError("sending_queue: wait_for_result cannot be used with storage; remove one of them")
        batch = queue.batch
        if batch is not None and queue.batch_sizer == queue.sizer and batch.min_size > queue.queue_size:
            raise ValueError(
                f"sending_queue: batch::min_size {batch.min_size} is above queue_size {queue.queue_size} ({queue.sizer}); raise queue_size"
            )
        return self
