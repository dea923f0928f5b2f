"""Configuration of ``attributes``: the Collector's keys.

Source: opentelemetry-collector-contrib processor/attributesprocessor/config.go.
"""

from pydantic import Field

from collector.ottl.attribute_actions import ActionConfig
from collector.ottl.match import MatchConfig
from config.blocks import ComponentConfig

__all__ = ["AttributesConfig"]


class AttributesConfig(ComponentConfig):
    """Configuration of ``attributes``: changes attributes of spans, log records and data points."""

    actions: tuple[ActionConfig, ...] = Field(min_length=1)
    """The actions, applied in this order."""
    include: MatchConfig | None = None
    """Only items that match this are changed. Absent: all items."""
    exclude: MatchConfig | None = None
    """Items that match this are not changed. Absent: no items are excluded."""
