"""Factory of the receiver ``udp_log``."""

from collector.api import ComponentKind, Factory, Settings, Stability
from collector.model import Signal
from receivers.udp_log.config import UDPLogConfig
from receivers.udp_log.udp_log import UDPLogReceiver

__all__ = ["create", "factory"]


def create(settings: Settings, config: UDPLogConfig) -> UDPLogReceiver:
    """The receiver."""
    return UDPLogReceiver(settings, config)


factory = Factory(
    component_type="udp_log",
    config_type=UDPLogConfig,
    create=create,
    stability=Stability.BETA,
    signals=frozenset({Signal.LOGS}),
    kind=ComponentKind.RECEIVER,
    aliases=("udplog",),
)
