"""The hooks by which servers authenticate callers and clients obtain credentials. The authenticators are extensions.

Source: the Collector's ``auth.authenticator`` and extension/extensionauth (Server.Authenticate, HTTPClient,
    GRPCClient).
"""

from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from contextvars import ContextVar
from typing import Final, Protocol, TypeAlias, runtime_checkable

from collector.api import Host
from collector.model import EMPTY_CONTEXT, Context
from config.blocks import AuthConfig

__all__ = [
    "SENT_CONTEXT",
    "Authenticate",
    "AuthenticationError",
    "Authenticator",
    "Claims",
    "ClientAuthenticator",
    "HeaderChanger",
    "find_authenticator",
    "find_client_authenticator",
]

Claims: TypeAlias = tuple[tuple[str, str], ...]
Authenticate: TypeAlias = Callable[[Mapping[str, Sequence[str]]], Awaitable[Claims]]

SENT_CONTEXT: Final[ContextVar[Context]] = ContextVar("sent_context", default=EMPTY_CONTEXT)
"""The context of the batch that is being sent: what is known about the sender of the data. Set by the queue."""


class AuthenticationError(Exception):
    """The caller is not authenticated: answer 401 or UNAUTHENTICATED. The message is sent to the caller: no secrets."""


@runtime_checkable
class Authenticator(Protocol):
    """An extension that authenticates the requests a server receives."""

    async def authenticate(self, headers: Mapping[str, Sequence[str]]) -> Claims:
        """Return what the headers (lower-case names) prove about the caller, as sorted pairs for ``Context.claims``.

        Raises:
            AuthenticationError: they prove nothing; the request is refused.
        """
        ...


@runtime_checkable
class ClientAuthenticator(Protocol):
    """An extension that supplies the credentials of outgoing requests."""

    def client_headers(self) -> Mapping[str, str]:
        """Return the headers to add to the next request (``authorization``: …). Called per request: keep it quick."""
        ...


@runtime_checkable
class HeaderChanger(Protocol):
    """A client authenticator that also looks at, or removes, headers that the client has already. For HTTP only."""

    def header_changes(self, present: Collection[str]) -> Mapping[str, str | None]:
        """Return the headers to set, and with None those to remove. ``present``: the lower-case names there are."""
        ...


def find_authenticator(host: Host, config: AuthConfig | None, key: str) -> Authenticate | None:
    """Return the hook of the extension that ``config`` names, or None without ``auth``. ``key``: path of the block.

    Raises:
        ValueError: the extension does not exist or does not authenticate requests.
    """
    if config is None:
        return None
    extension = _find_extension(host, config, key)
    if not isinstance(extension, Authenticator):
        message = f"{key}::auth::authenticator: extension {config.authenticator!r} does not authenticate requests"
        raise ValueError(message)  # noqa: TRY004 - a mistake in the configuration
    return extension.authenticate


def find_client_authenticator(host: Host, config: AuthConfig | None, key: str) -> ClientAuthenticator | None:
    """Return the extension that ``config`` names, or None without ``auth``. ``key``: path of the client's block.

    Raises:
        ValueError: the extension does not exist or does not supply credentials.
    """
    if config is None:
        return None
    extension = _find_extension(host, config, key)
    if not isinstance(extension, ClientAuthenticator):
        message = f"{key}::auth::authenticator: extension {config.authenticator!r} does not supply client credentials"
        raise ValueError(message)  # noqa: TRY004 - a mistake in the configuration
    return extension


def _find_extension(host: Host, config: AuthConfig, key: str) -> object:
    try:
        return host.extension(config.authenticator)
    except KeyError as exc:
        raise ValueError(
            f"{key}::auth::authenticator: extension {config.authenticator!r} is not running; "
            f"list it under service::extensions ({exc})"
        ) from exc
