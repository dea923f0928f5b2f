"""Changes attributes of spans, data points and log records; those of resources are for the processor ``resource``."""

from collector.api import Settings, Transform
from collector.model import ITEM, Batch
from collector.ottl.attribute_actions import AttributeActions
from collector.ottl.match import Matcher
from processors.attributes.config import AttributesConfig

__all__ = ["AttributesProcessor"]


class AttributesProcessor(Transform):
    """The processor of one pipeline."""

    def __init__(self, settings: Settings, config: AttributesConfig) -> None:
        (signal,) = settings.signals
        self._matcher = Matcher(config.include, config.exclude, signal)
        self._actions = AttributeActions(config.actions, ITEM)

    def transform(self, batch: Batch) -> Batch:
        """The batch with the actions applied to the items that match."""
        return self._actions.apply(batch, self._matcher.rows(batch))
