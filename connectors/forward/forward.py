"""Passes every batch on, unchanged, to each pipeline that lists it as receiver: to merge pipelines, or to split one. No routing."""

from collector.api import ComponentKind, Connector, Factory, Settings, Stability
from collector.model import Batch, Signal
from config.blocks import ComponentConfig

__all__ = ["ForwardConfig", "ForwardConnector", "factory"]


class ForwardConfig(ComponentConfig):
    """No options, as in the Collector."""


class ForwardConnector(Connector):
    """Holds nothing."""

    def __init__(self, settings: Settings) -> None:
        self._outputs = settings.outputs

    async def consume(self, batch: Batch) -> None:
        """Pass it on."""
        await self._outputs[batch.signal].consume(batch)


def _create(settings: Settings, config: ForwardConfig) -> ForwardConnector:
    del config
    return ForwardConnector(settings)


factory = Factory(
    component_type="forward",
    config_type=ForwardConfig,
    create=_create,
    stability=Stability.BETA,
    signals=frozenset(Signal),
    kind=ComponentKind.CONNECTOR,
    connects=frozenset((signal, signal) for signal in Signal),
)
