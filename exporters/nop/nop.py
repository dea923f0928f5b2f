"""Exporter ``nop``: accepts every batch and forgets it.

For pipelines that only exist for a connector or a processor, and for measurements.
"""

from collector.api import ComponentKind, Exporter, Factory, Settings, Stability
from collector.model import Batch, Signal
from config.blocks import ComponentConfig

__all__ = ["NopConfig", "NopExporter", "factory"]


class NopConfig(ComponentConfig):
    """There are no options, as in the Collector."""


class NopExporter(Exporter):
    """Counts everything as delivered."""

    async def consume(self, batch: Batch) -> None:
        """Forget the batch."""

    def try_consume(self, batch: Batch) -> bool:  # noqa: ARG002 - its content does not matter
        """Forget the batch."""
        return True


def create(settings: Settings, config: NopConfig) -> NopExporter:  # noqa: ARG001 - there is nothing to configure
    """The exporter of one component id, for all its signals."""
    return NopExporter()


factory = Factory(
    component_type="nop",
    config_type=NopConfig,
    create=create,
    stability=Stability.STABLE,
    signals=frozenset(Signal),
    kind=ComponentKind.EXPORTER,
)
