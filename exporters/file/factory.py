"""The factory of the exporter ``file``."""

from collector.api import ComponentKind, Factory, Settings, Stability
from collector.model import Signal
from exporters.file.config import FileConfig
from exporters.file.file import FileExporter

__all__ = ["factory"]


def create(settings: Settings, config: FileConfig) -> FileExporter:
    """The exporter of one component id, for all its signals."""
    return FileExporter(settings, config)


factory = Factory(
    component_type="file",
    config_type=FileConfig,
    create=create,
    stability=Stability.BETA,
    signals=frozenset(Signal),
    kind=ComponentKind.EXPORTER,
)
