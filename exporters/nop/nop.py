"""Exporter ``nop``: accepts every batch and forgets it.

For pipelines that only exist for a connector or a processor, and for measurements.
"""

from collector.api import Exporter
from collector.model import Batch

__all__ = ["NopExporter"]


class NopExporter(Exporter):
    """Counts everything as delivered."""

    async def consume(self, batch: Batch) -> None:
        """Forget the batch."""

    def try_consume(self, batch: Batch) -> bool:  # noqa: ARG002 - its content does not matter
        """Forget the batch."""
        return True
