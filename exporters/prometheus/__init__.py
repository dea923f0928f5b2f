"""Exporter ``prometheus``: a page for scraping."""

from collector.api import ComponentKind, Factory, Stability
from collector.model import Signal
from exporters.prometheus.config import PrometheusConfig
from exporters.prometheus.prometheus import create

__all__ = ["factory"]

factory = Factory(
    component_type="prometheus",
    config_type=PrometheusConfig,
    create=create,
    stability=Stability.BETA,
    signals=frozenset({Signal.METRICS}),
    kind=ComponentKind.EXPORTER,
)
