"""Configuration of ``attributes``: the Collector's keys.

Source: opentelemetry-collector-contrib processor/attributesprocessor/config.go.
"""

from pydantic import Field

from collector.ottl.attribute_actions import ActionConfig
from collector.ottl.match import MatchConfig
from config.blocks import ComponentConfig

__all__ = ["AttributesConfig"]


class AttributesConfig(ComponentConfig):
    """``attributes``."""

    actions: tuple[ActionConfig, ...] = Field(min_length=1)
    """Done one after the other."""
    include: MatchConfig | None = None
    """Only what matches this is changed."""
    exclude: MatchConfig | None = None
    """And not what matches this."""
