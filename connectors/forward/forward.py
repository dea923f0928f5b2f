"""Passes every batch on unchanged to all pipelines that list it as a receiver: to merge pipelines or to split one."""

from collector.api import ComponentKind, Connector, Factory, Settings, Stability
from collector.model import Batch, Signal
from config.blocks import ComponentConfig

__all__ = ["ForwardConfig", "ForwardConnector", "factory"]


class ForwardConfig(ComponentConfig):
    """No options, as in the Collector."""


class ForwardConnector(Connector):
    """Passes batches on; holds nothing."""

    def __init__(self, settings: Settings) -> None:
        self._outputs = settings.outputs

    async def consume(self, batch: Batch) -> None:
        """Pass the batch to the output of its signal."""
        await self._outputs[batch.signal].consume(batch)


def create(settings: Settings, config: ForwardConfig) -> ForwardConnector:  # noqa: ARG001 - there are no options
    """A connector for all signals."""
    return ForwardConnector(settings)


factory = Factory(
    component_type="forward",
    config_type=ForwardConfig,
    create=create,
    stability=Stability.BETA,
    signals=frozenset(Signal),
    kind=ComponentKind.CONNECTOR,
    connects=frozenset((signal, signal) for signal in Signal),
)
