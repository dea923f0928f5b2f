"""The factory of the exporter ``debug``."""

from collector.api import ComponentKind, Factory, Settings, Stability
from collector.model import Signal
from exporters.debug.config import DebugConfig
from exporters.debug.debug import DebugExporter

__all__ = ["factory"]


def create(settings: Settings, config: DebugConfig) -> DebugExporter:
    """The exporter of one component id, for all its signals."""
    return DebugExporter(settings, config)


factory = Factory(
    component_type="debug",
    config_type=DebugConfig,
    create=create,
    stability=Stability.BETA,
    signals=frozenset(Signal),
    kind=ComponentKind.EXPORTER,
)
