"""The factory of the exporter ``nop``."""

from collector.api import ComponentKind, Factory, Settings, Stability
from collector.model import Signal
from exporters.nop.config import NopConfig
from exporters.nop.nop import NopExporter

__all__ = ["create", "factory"]


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
