"""Factory of the receiver ``syslog``."""

from collector.api import ComponentKind, Factory, Settings, Stability
from collector.model import Signal
from receivers.syslog.config import SyslogConfig
from receivers.syslog.syslog import SyslogReceiver

__all__ = ["create", "factory"]


def create(settings: Settings, config: SyslogConfig) -> SyslogReceiver:
    """The receiver."""
    return SyslogReceiver(settings, config)


factory = Factory(
    component_type="syslog",
    config_type=SyslogConfig,
    create=create,
    stability=Stability.BETA,
    signals=frozenset({Signal.LOGS}),
    kind=ComponentKind.RECEIVER,
)
