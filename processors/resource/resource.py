"""Changes attributes of resources; those of spans, data points and log records are for the processor ``attributes``."""

from collector.api import Settings, Transform
from collector.model import Batch
from collector.ottl.attribute_actions import AttributeActions
from processors.resource.config import ResourceConfig

__all__ = ["ResourceProcessor"]


class ResourceProcessor(Transform):
    """The processor of one pipeline."""

    def __init__(self, settings: Settings, config: ResourceConfig) -> None:  # noqa: ARG002 - as in all processors
        self._actions = AttributeActions(config.attributes, "resources")

    def transform(self, batch: Batch) -> Batch:
        """The batch with the actions applied to its resources."""
        return self._actions.apply(batch)
