"""Configuration of ``resource``: the Collector's keys.

Source: opentelemetry-collector-contrib processor/resourceprocessor/config.go.
"""

from pydantic import Field

from collector.ottl.attribute_actions import ActionConfig
from config.blocks import ComponentConfig

__all__ = ["ResourceConfig"]


class ResourceConfig(ComponentConfig):
    """Configuration of ``resource``: changes attributes of resources."""

    attributes: tuple[ActionConfig, ...] = Field(min_length=1)
    """The actions, applied in this order."""

    def missing_resource_attributes(self, missing: frozenset[str]) -> frozenset[str]:
        """See :class:`ComponentConfig`."""
        for action in self.attributes:
            missing = action.missing_attributes(missing)
        return missing
