"""Factory of the receiver ``prometheus``."""

from collector.api import ComponentKind, Factory, Settings, Stability
from collector.model import Signal
from receivers.prometheus.config import PrometheusReceiverConfig
from receivers.prometheus.prometheus import PrometheusReceiver

__all__ = ["create", "factory"]


def create(settings: Settings, config: PrometheusReceiverConfig) -> PrometheusReceiver:
    """The receiver."""
    return PrometheusReceiver(settings, config)


factory = Factory(
    component_type="prometheus",
    config_type=PrometheusReceiverConfig,
    create=create,
    stability=Stability.BETA,
    signals=frozenset({Signal.METRICS}),
    kind=ComponentKind.RECEIVER,
)
