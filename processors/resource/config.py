"""Configuration of ``resource``: the Collector's key.

Source: opentelemetry-collector-contrib processor/resourceprocessor/config.go.
"""

from pydantic import Field

from collector.ottl.attribute_actions import ActionConfig
from config.blocks import ComponentConfig

__all__ = ["ResourceConfig"]


class ResourceConfig(ComponentConfig):
    """``resource``."""

    attributes: tuple[ActionConfig, ...] = Field(min_length=1)
    """Done one after the other."""
