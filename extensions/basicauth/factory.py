"""Factory of the extension ``basicauth``."""

from collector.api import ComponentKind, Extension, Factory, Settings, Stability
from extensions.basicauth.client import BasicAuthClient
from extensions.basicauth.config import BasicAuthConfig
from extensions.basicauth.server import BasicAuthServer

__all__ = ["create", "factory"]


def create(settings: Settings, config: BasicAuthConfig) -> Extension:
    """The extension: an authenticator for servers or for clients."""
    if config.client_auth is not None:
        return BasicAuthClient(settings, config.client_auth)
    assert config.htpasswd is not None  # the configuration has one of the two
    return BasicAuthServer(settings, config.htpasswd)


factory = Factory(
    component_type="basicauth",
    config_type=BasicAuthConfig,
    create=create,
    stability=Stability.BETA,
    signals=frozenset(),
    kind=ComponentKind.EXTENSION,
    aliases=("basic_auth",),
)
