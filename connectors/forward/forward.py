"""Passes every batch on unchanged to all pipelines that list it as a receiver: to merge pipelines or to split one."""

from collector.api import Connector, Settings
from collector.model import Batch

__all__ = ["ForwardConnector"]


class ForwardConnector(Connector):
    """Passes batches on; holds nothing."""

    def __init__(self, settings: Settings) -> None:
        self._outputs = settings.outputs

    async def consume(self, batch: Batch) -> None:
        """Pass the batch to the output of its signal."""
        await self._outputs[batch.signal].consume(batch)
