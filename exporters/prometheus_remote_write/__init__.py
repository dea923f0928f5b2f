"""Exporter ``prometheus_remote_write``."""

from collector.api import ComponentKind, Factory, Stability
from collector.model import Signal
from exporters.prometheus_remote_write.config import PrometheusRemoteWriteConfig
from exporters.prometheus_remote_write.prometheus_remote_write import create

__all__ = ["factory"]

factory = Factory(
    component_type="prometheus_remote_write",
    config_type=PrometheusRemoteWriteConfig,
    create=create,
    stability=Stability.BETA,
    signals=frozenset({Signal.METRICS}),
    kind=ComponentKind.EXPORTER,
    aliases=("prometheusremotewrite",),
)
