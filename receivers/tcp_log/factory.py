"""Factory of the receiver ``tcp_log``."""

from collector.api import ComponentKind, Factory, Settings, Stability
from collector.model import Signal
from receivers.tcp_log.config import TCPLogConfig
from receivers.tcp_log.tcp_log import TCPLogReceiver

__all__ = ["create", "factory"]


def create(settings: Settings, config: TCPLogConfig) -> TCPLogReceiver:
    """The receiver."""
    return TCPLogReceiver(settings, config)


factory = Factory(
    component_type="tcp_log",
    config_type=TCPLogConfig,
    create=create,
    stability=Stability.BETA,
    signals=frozenset({Signal.LOGS}),
    kind=ComponentKind.RECEIVER,
    aliases=("tcplog",),
)
