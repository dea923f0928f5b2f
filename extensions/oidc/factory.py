"""Factory of the extension ``oidc``."""

from collector.api import ComponentKind, Factory, Settings, Stability
from extensions.oidc.config import OIDCConfig
from extensions.oidc.oidc import OIDC

__all__ = ["create", "factory"]


def create(settings: Settings, config: OIDCConfig) -> OIDC:
    """The extension."""
    return OIDC(settings, config)


factory = Factory(
    component_type="oidc",
    config_type=OIDCConfig,
    create=create,
    stability=Stability.BETA,
    signals=frozenset(),
    kind=ComponentKind.EXTENSION,
)
