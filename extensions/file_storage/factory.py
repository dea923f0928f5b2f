"""Factory of the extension ``file_storage``."""

from collector.api import ComponentKind, Factory, Settings, Stability
from extensions.file_storage.config import FileStorageConfig
from extensions.file_storage.file_storage import FileStorageExtension

__all__ = ["create", "factory"]


def create(settings: Settings, config: FileStorageConfig) -> FileStorageExtension:
    """The extension."""
    return FileStorageExtension(settings, config)


factory = Factory(
    component_type="file_storage",
    config_type=FileStorageConfig,
    create=create,
    stability=Stability.BETA,
    signals=frozenset(),
    kind=ComponentKind.EXTENSION,
    aliases=("filestorage",),
)
