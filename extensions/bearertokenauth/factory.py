"""Factory of the extension ``bearertokenauth``."""

from collector.api import ComponentKind, Factory, Settings, Stability
from extensions.bearertokenauth.bearertokenauth import BearerTokenAuth
from extensions.bearertokenauth.config import BearerTokenAuthConfig

__all__ = ["create", "factory"]


def create(settings: Settings, config: BearerTokenAuthConfig) -> BearerTokenAuth:
    """The extension."""
    return BearerTokenAuth(settings, config)


factory = Factory(
    component_type="bearertokenauth",
    config_type=BearerTokenAuthConfig,
    create=create,
    stability=Stability.BETA,
    signals=frozenset(),
    kind=ComponentKind.EXTENSION,
    aliases=("bearer_token_auth",),
)
