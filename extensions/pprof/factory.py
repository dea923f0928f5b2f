"""Factory of the extension ``pprof``."""

from collector.api import ComponentKind, Factory, Settings, Stability
from extensions.pprof.config import PprofConfig
from extensions.pprof.pprof import PprofExtension

__all__ = ["create", "factory"]


def create(settings: Settings, config: PprofConfig) -> PprofExtension:
    """The extension."""
    return PprofExtension(settings, config)


factory = Factory(
    component_type="pprof",
    config_type=PprofConfig,
    create=create,
    stability=Stability.BETA,
    signals=frozenset(),
    kind=ComponentKind.EXTENSION,
)
