"""Takes every batch and forgets it: for pipelines that exist for a connector or processor alone, and for measuring. No delivery."""

from collector.api import Component, ComponentKind, Exporter, Factory, Settings, Stability
from collector.model import Batch, Signal
from config.blocks import ComponentConfig

__all__ = ["NopConfig", "NopExporter", "factory"]


class NopConfig(ComponentConfig):
    """No options, as in the Collector."""


class NopExporter(Exporter):
    """Everything counts as delivered."""

    def __init__(self, settings: Settings) -> None:
        self._delivered = settings.telemetry.delivered

    async def consume(self, batch: Batch) -> None:
        """Count."""
        self._delivered(batch.signal, batch.item_count)


def _create(settings: Settings, config: NopConfig, previous: Component | None) -> NopExporter:
    del config, previous
    return NopExporter(settings)


factory = Factory(
    component_type="nop",
    config_type=NopConfig,
    create=_create,
    stability=Stability.STABLE,
    signals=frozenset(Signal),
    kind=ComponentKind.EXPORTER,
)
