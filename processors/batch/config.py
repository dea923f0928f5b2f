"""Configuration of ``batch``: the Collector's keys, defaults and rules.

Source: open-telemetry/opentelemetry-collector processor/batchprocessor/config.go.
"""

from typing import Self

from pydantic import Field, model_validator

from config.blocks import ComponentConfig, Duration

__all__ = ["BatchConfig"]


class BatchConfig(ComponentConfig):
    """Configuration of ``batch``: collects batches into larger ones."""

    timeout: Duration = Field(default=0.2, ge=0)
    """Longest time that an item waits. 0: items do not wait, and only ``send_batch_max_size`` has an effect."""
    send_batch_size: int = Field(default=8192, ge=0)
    """Number of items at which a batch is sent without waiting any longer. 0: the same as ``timeout: 0``."""
    send_batch_max_size: int = Field(default=0, ge=0)
    """Number of items above which batches are split. 0: no limit."""
    metadata_keys: tuple[str, ...] = ()
    """Request headers whose values separate batches; all other metadata is removed."""
    metadata_cardinality_limit: int = Field(default=1000, ge=0)
    """Number of distinct combinations of their values that are batched at a time. 0: no limit."""

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if 0 < self.send_batch_max_size < self.send_batch_size:
            raise ValueError(
                f"'send_batch_max_size' ({self.send_batch_max_size}) must be greater than or equal to"
                f" 'send_batch_size' ({self.send_batch_size})"
            )
        seen: set[str] = set()
        for key in self.metadata_keys:
            if key.lower() in seen:
                raise ValueError(f"duplicate entry in 'metadata_keys': {key.lower()!r} (case-insensitive)")
            seen.add(key.lower())
        return self
