"""Factory of the receiver ``file_log``."""

from collector.api import ComponentKind, Factory, Settings, Stability
from collector.model import Signal
from receivers.file_log.config import FileLogConfig
from receivers.file_log.file_log import FileLogReceiver

__all__ = ["create", "factory"]


def create(settings: Settings, config: FileLogConfig) -> FileLogReceiver:
    """The receiver."""
    return FileLogReceiver(settings, config)


factory = Factory(
    component_type="file_log",
    config_type=FileLogConfig,
    create=create,
    stability=Stability.BETA,
    signals=frozenset({Signal.LOGS}),
    kind=ComponentKind.RECEIVER,
    aliases=("filelog",),
)
