"""Factory of the receiver ``host_metrics``."""

from collector.api import ComponentKind, Factory, Settings, Stability
from collector.model import Signal
from receivers.host_metrics.config import HostMetricsConfig
from receivers.host_metrics.host_metrics import HostMetricsReceiver

__all__ = ["create", "factory"]


def create(settings: Settings, config: HostMetricsConfig) -> HostMetricsReceiver:
    """The receiver."""
    return HostMetricsReceiver(settings, config)


factory = Factory(
    component_type="host_metrics",
    config_type=HostMetricsConfig,
    create=create,
    stability=Stability.BETA,
    signals=frozenset({Signal.METRICS}),
    kind=ComponentKind.RECEIVER,
    aliases=("hostmetrics",),
)
