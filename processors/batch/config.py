"""Configuration of ``batch``: the Collector's keys, defaults and rules.

Source: open-telemetry/opentelemetry-collector processor/batchprocessor/config.go.
"""

from typing import Self

from pydantic import Field, model_validator

from config.blocks import ComponentConfig, Duration

__all__ = ["BatchConfig"]


class BatchConfig(ComponentConfig):
    """``batch``."""

    timeout: Duration = Field(default=0.2, ge=0)
    """An item waits at most this long; 0: not at all, only ``send_batch_max_size`` is kept."""
    send_batch_size: int = Field(default=8192, ge=0)
    """Items after which a batch is sent at once; 0: as ``timeout: 0``."""
    send_batch_max_size: int = Field(default=0, ge=0)
    """Larger batches are split; 0: no bound."""
    metadata_keys: tuple[str, ...] = ()
    """Request headers whose values separate batches, and which alone stay known."""
    metadata_cardinality_limit: int = Field(default=1000, ge=0)
    """Distinct values of them that are collected at once; 0: no bound."""

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if 0 < self.send_batch_max_size < self.send_batch_size:
            raise ValueError("'send_batch_max_size' must be greater or equal to 'send_batch_size'")
        seen: set[str] = set()
        for key in self.metadata_keys:
            if key.lower() in seen:
                raise ValueError(f"duplicate entry in 'metadata_keys': {key.lower()!r} (case-insensitive)")
            seen.add(key.lower())
        return self
