"""Configuration of ``attributes``: the Collector's keys.

Source: opentelemetry-collector-contrib processor/attributesprocessor/config.go.
"""

from pydantic import Field

from collector.ottl.attribute_actions import ActionConfig
from collector.ottl.match import MatchConfig
from config.blocks import ComponentConfig

__all__ = ["AttributesConfig"]


class AttributesConfig(ComponentConfig):
    """The configuration of ``attributes``."""

    actions: tuple[ActionConfig, ...] = Field(min_length=1)
    """The actions, applied in this order."""
    include: MatchConfig | None = None
    """Only items that match this are changed."""
    exclude: MatchConfig | None = None
    """Items that match this are not changed."""
