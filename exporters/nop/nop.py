"""Takes every batch and forgets it: for pipelines that exist for a connector or processor alone, and for measuring. No delivery."""

from collector.api import ComponentKind, Exporter, Factory, Settings, Stability
from collector.model import Batch, Signal
from config.blocks import ComponentConfig

__all__ = ["NopConfig", "NopExporter", "factory"]


class NopConfig(ComponentConfig):
    """No options, as in the Collector."""


class NopExporter(Exporter):
    """Everything counts as delivered."""

    async def consume(self, batch: Batch) -> None:
        """Forget it."""

    def try_consume(self, batch: Batch) -> bool:  # noqa: ARG002 - see the module
        """Forget it."""
        return True


def _create(settings: Settings, config: NopConfig) -> NopExporter:
    del settings, config
    return NopExporter()


factory = Factory(
    component_type="nop",
    config_type=NopConfig,
    create=_create,
    stability=Stability.STABLE,
    signals=frozenset(Signal),
    kind=ComponentKind.EXPORTER,
)
