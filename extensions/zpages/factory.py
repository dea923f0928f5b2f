"""Factory of the extension ``zpages``."""

from collector.api import ComponentKind, Factory, Settings, Stability
from extensions.zpages.config import ZPagesConfig
from extensions.zpages.zpages import ZPagesExtension

__all__ = ["create", "factory"]


def create(settings: Settings, config: ZPagesConfig) -> ZPagesExtension:
    """The extension."""
    return ZPagesExtension(settings, config)


factory = Factory(
    component_type="zpages",
    config_type=ZPagesConfig,
    create=create,
    stability=Stability.BETA,
    signals=frozenset(),
    kind=ComponentKind.EXTENSION,
)
