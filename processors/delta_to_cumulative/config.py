"""Configuration of ``delta_to_cumulative``: the Collector's keys.

Source: opentelemetry-collector-contrib processor/deltatocumulativeprocessor config.go.
"""

from typing import ClassVar

from pydantic import Field

from config.blocks import ComponentConfig, Duration

__all__ = ["DeltaToCumulativeConfig"]


class DeltaToCumulativeConfig(ComponentConfig):
    """Configuration of ``delta_to_cumulative``."""

    max_stale: Duration = Field(default=300.0, gt=0)
    """A stream without a point for this long is forgotten; its total begins again with its next point."""
    max_streams: int = Field(default=500_000, ge=0)
    """Streams that are remembered. Points of further ones are dropped. The Collector has no limit by default."""
    storage: str = ""
    """The id of a storage extension in which the streams are saved at shutdown (specific to Tailrace). Empty: none."""

    extension_keys: ClassVar[tuple[str, ...]] = ("storage",)
