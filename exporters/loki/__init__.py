"""Exporter ``loki``."""

from collector.api import ComponentKind, Factory, Stability
from collector.model import Signal
from exporters.loki.config import LokiConfig
from exporters.loki.loki import create

__all__ = ["factory"]

factory = Factory(
    component_type="loki",
    config_type=LokiConfig,
    create=create,
    stability=Stability.BETA,
    signals=frozenset({Signal.LOGS}),
    kind=ComponentKind.EXPORTER,
)
