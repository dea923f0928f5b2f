"""The factory of the exporter ``loki``."""

from collector.api import ComponentKind, Factory, Settings, Stability
from collector.model import Signal
from exporters.loki.config import LokiConfig
from exporters.loki.loki import LokiExporter

__all__ = ["factory"]


def create(settings: Settings, config: LokiConfig) -> LokiExporter:
    """The exporter of one component id, for all its signals."""
    return LokiExporter(settings, config)


factory = Factory(
    component_type="loki",
    config_type=LokiConfig,
    create=create,
    stability=Stability.BETA,
    signals=frozenset({Signal.LOGS}),
    kind=ComponentKind.EXPORTER,
)
