"""The factory of the exporter ``prometheus``."""

from collector.api import ComponentKind, Factory, Settings, Stability
from collector.model import Signal
from exporters.prometheus.config import PrometheusConfig
from exporters.prometheus.prometheus import PrometheusExporter

__all__ = ["factory"]


def create(settings: Settings, config: PrometheusConfig) -> PrometheusExporter:
    """The exporter of one component id, for all its signals."""
    return PrometheusExporter(settings, config)


factory = Factory(
    component_type="prometheus",
    config_type=PrometheusConfig,
    create=create,
    stability=Stability.BETA,
    signals=frozenset({Signal.METRICS}),
    kind=ComponentKind.EXPORTER,
)
