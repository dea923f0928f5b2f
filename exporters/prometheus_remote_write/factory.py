"""The factory of the exporter ``prometheus_remote_write``."""

from collector.api import ComponentKind, Factory, Settings, Stability
from collector.model import Signal
from exporters.prometheus_remote_write.config import PrometheusRemoteWriteConfig
from exporters.prometheus_remote_write.prometheus_remote_write import PrometheusRemoteWriteExporter

__all__ = ["factory"]


def create(settings: Settings, config: PrometheusRemoteWriteConfig) -> PrometheusRemoteWriteExporter:
    """The exporter of one component id, for all its signals."""
    return PrometheusRemoteWriteExporter(settings, config)


factory = Factory(
    component_type="prometheus_remote_write",
    config_type=PrometheusRemoteWriteConfig,
    create=create,
    stability=Stability.BETA,
    signals=frozenset({Signal.METRICS}),
    kind=ComponentKind.EXPORTER,
    aliases=("prometheusremotewrite",),
)
