"""The hook by which clients ask an extension for credentials. Not an authenticator itself: those are extensions.

Source: the Collector's ``auth.authenticator`` and extension/extensionauth (HTTPClient, GRPCClient).
"""

from collections.abc import Mapping
from typing import Protocol, runtime_checkable

from collector.api import Host
from config.blocks import AuthConfig

__all__ = ["ClientAuthenticator", "find_client_authenticator"]


@runtime_checkable
class ClientAuthenticator(Protocol):
    """An extension that gives outgoing requests their credentials."""

    def client_headers(self) -> Mapping[str, str]:
        """Headers to add to the next request (``authorization``: …). Asked for every request, so it must be quick."""
        ...


def find_client_authenticator(host: Host, config: AuthConfig | None, key: str) -> ClientAuthenticator | None:
    """The extension ``config`` names; None without ``auth``. ``key`` is the path of the client's configuration.

    Raises:
        ValueError: there is no such extension, or it has no credentials for clients.
    """
    if config is None:
        return None
    try:
        extension = host.extension(config.authenticator)
    except KeyError as exc:
        raise ValueError(
            f"{key}::auth::authenticator: no extension {config.authenticator!r} runs; list it under service::extensions ({exc})"
        ) from exc
    if not isinstance(extension, ClientAuthenticator):
        raise ValueError(f"{key}::auth::authenticator: extension {config.authenticator!r} gives clients no credentials")  # noqa: TRY004 - a mistake in the configuration
    return extension
