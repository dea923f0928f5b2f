"""Queue, batching and retries of exporters.

Source: open-telemetry/opentelemetry-collector exporter/exporterhelper, config/configretry.
"""

from typing import ClassVar, Literal, Self

from pydantic import Field, field_validator, model_validator

from config.blocks.base import ComponentConfig
from config.blocks.values import ByteSize, Duration, duration_text

__all__ = [
    "AdaptiveConcurrencyConfig",
    "CircuitBreakerConfig",
    "DeadLetterConfig",
    "QueueBatchConfig",
    "QueueConfig",
    "RetryConfig",
]


class RetryConfig(ComponentConfig):
    """Retries of failed requests, with exponential back-off."""

    enabled: bool = True
    """Retry failed requests. false: data is dropped after the first failed attempt."""
    initial_interval: Duration = 5.0
    """Wait before the first retry."""
    randomization_factor: float = Field(default=0.5, ge=0, le=1)
    """Share by which each wait is randomly lengthened or shortened."""
    multiplier: float = Field(default=1.5, ge=0)
    """Factor by which each wait is longer than the previous one."""
    max_interval: Duration = 30.0
    """Longest wait before it is randomized. A longer one requested by the server is respected."""
    max_elapsed_time: Duration = 300.0
    """Time after which the data is dropped. 0: retry indefinitely."""

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.enabled and self.max_elapsed_time > 0:
            for name in ("initial_interval", "max_interval"):
                interval_s = getattr(self, name)
                if interval_s > self.max_elapsed_time:
                    raise ValueError(
                        f"max_elapsed_time ({duration_text(self.max_elapsed_time)}) must not be less than "
                        f"{name} ({duration_text(interval_s)})"
                    )
        return self


class CircuitBreakerConfig(ComponentConfig):
    """Single attempts instead of many while the backend is down (specific to Tailrace)."""

    enabled: bool = True
    """After repeated failures, send one request at a time as a probe until the backend accepts one."""
    failure_threshold: int = Field(default=5, ge=1)
    """Failed attempts in a row after which the circuit opens."""
    probe_interval: Duration = Field(default=5.0, gt=0)
    """Longest time between two probes. They begin at retry_on_failure::initial_interval if that is shorter."""


class AdaptiveConcurrencyConfig(ComponentConfig):
    """Fewer requests at once while the backend is overloaded (specific to Tailrace)."""

    enabled: bool = True
    """Send fewer requests at once after the backend refuses some as too many (429, RESOURCE_EXHAUSTED, Retry-After) or
    does not answer in time, and more again as it accepts them, up to num_consumers.
    """
    latency_factor: float = Field(default=0.0, ge=0)
    """Also send fewer requests at once when they take this many times as long as usual, for example 3. 0: never."""

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if 0 < self.latency_factor <= 1:
            raise ValueError(f"latency_factor must be 0 or greater than 1, got {self.latency_factor:g}")
        return self


class DeadLetterConfig(ComponentConfig):
    """A store for data that cannot be delivered (specific to Tailrace).

    ``tailrace dead-letters`` shows it, ``tailrace replay`` sends it again.
    """

    extension_keys: ClassVar[tuple[str, ...]] = ("storage",)

    storage: str = ""
    """Id of the storage extension that keeps the data. Required."""
    max_size: ByteSize = Field(default=256 * 1024 * 1024, gt=0)
    """Limit of the data of each signal in bytes. Above it the oldest data is removed."""
    include_overflow: bool = False
    """Also keep data for which the sending queue has no room."""

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if not self.storage:
            raise ValueError("storage is required: the id of a storage extension, for example file_storage")
        return self


class PartitionConfig(ComponentConfig):
    """Which data is merged into one request (sending_queue::batch::partition)."""

    metadata_keys: list[str] = Field(default_factory=list)
    """Merge data whose request headers of these names are equal; other headers are dropped. Empty: merge data that
    came with equal headers, of those that the receiver keeps (include_metadata).
    """

    @field_validator("metadata_keys")
    @classmethod
    def _distinct(cls, value: list[str]) -> list[str]:
        seen: set[str] = set()
        for key in value:
            if key.lower() in seen:
                raise ValueError(f"the key {key!r} is listed twice (header names do not depend on case)")
            seen.add(key.lower())
        return value


class QueueBatchConfig(ComponentConfig):
    """Merging of queued data into larger requests (sending_queue::batch)."""

    flush_timeout: Duration = Field(default=0.2, gt=0)
    """Longest time that data waits to be merged."""
    min_size: int = Field(default=8192, ge=0)
    """Size at which merged data is sent without waiting any longer, in units of sizer."""
    max_size: int = Field(default=0, ge=0)
    """Size of the largest request, in units of sizer. 0: no limit."""
    sizer: Literal["", "items", "bytes"] = ""
    """Unit of min_size and max_size. Empty: bytes if the queue's own sizer is bytes, otherwise items."""
    partition: PartitionConfig = PartitionConfig()
    """Which data is merged."""

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.max_size and self.max_size < self.min_size:
            raise ValueError(f"max_size ({self.max_size}) must not be less than min_size ({self.min_size})")
        return self


class QueueConfig(ComponentConfig):
    """The sending queue of an exporter."""

    extension_keys: ClassVar[tuple[str, ...]] = ("storage",)

    enabled: bool = True
    """Queue data before sending it. false: the sender of a batch waits for its delivery."""
    num_consumers: int = Field(default=10, ge=1)
    """Requests that may be in flight at once, per signal. 1: requests are sent in order."""
    queue_size: int = Field(default=1000, ge=1)
    """Capacity of the queue of each signal, including requests in flight, in units of sizer."""
    sizer: Literal["requests", "items", "bytes"] = "requests"
    """Unit of queue_size."""
    max_bytes: ByteSize = 256 * 1024 * 1024
    """Capacity of the queue in bytes (specific to Tailrace), in addition to queue_size. 0: no limit, as is the default
    with storage.
    """
    block_on_overflow: bool = False
    """Refuse new requests at the receiver while the queue is full, instead of dropping data."""
    wait_for_result: bool = False
    """Let the sender of a batch wait for its delivery. Cannot be combined with storage."""
    storage: str = ""
    """Id of the extension that keeps the queue across restarts. Empty: the queue is kept in memory."""
    batch: QueueBatchConfig | None = None
    """Merging of queued data into larger requests. Absent: data is sent as it was received."""

    @property
    def bound_bytes(self) -> int:
        """The limit in bytes that applies: a queue in a storage has the limit of the storage unless it has its own."""
        return 0 if self.storage and "max_bytes" not in self.model_fields_set else self.max_bytes

    @property
    def batch_sizer(self) -> Literal["items", "bytes"]:
        """Unit of ``batch``: its own sizer, else the queue's if that was set, else items."""
        if self.batch is not None and self.batch.sizer:
            return self.batch.sizer
        return "bytes" if "sizer" in self.model_fields_set and self.sizer == "bytes" else "items"
