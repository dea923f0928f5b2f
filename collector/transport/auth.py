"""The hook by which servers ask an extension who is calling. Not an authenticator itself: those are extensions.

Source: the Collector's ``auth.authenticator`` and extension/extensionauth (Server.Authenticate).
"""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Protocol, TypeAlias, runtime_checkable

from collector.api import Host
from config.blocks import AuthConfig

__all__ = ["Authenticate", "AuthenticationError", "Authenticator", "Claims", "find_authenticator"]

Claims: TypeAlias = tuple[tuple[str, str], ...]
Authenticate: TypeAlias = Callable[[Mapping[str, Sequence[str]]], Awaitable[Claims]]


class AuthenticationError(Exception):
    """The caller did not show who it is: answer 401 / UNAUTHENTICATED. The message goes to the caller, so it holds no secret."""


@runtime_checkable
class Authenticator(Protocol):
    """An extension that authenticates requests."""

    async def authenticate(self, headers: Mapping[str, Sequence[str]]) -> Claims:
        """What the headers (lower-case names) prove about the caller: sorted (claim, value) pairs, kept in ``Context.claims``.

        Raises:
            AuthenticationError: nothing; the request is refused.
        """
        ...


def find_authenticator(host: Host, config: AuthConfig | None, key: str) -> Authenticate | None:
    """The hook of the extension ``config`` names; None without ``auth``. ``key`` is the path of the server's configuration.

    Raises:
        ValueError: there is no such extension, or it does not authenticate.
    """
    if config is None:
        return None
    try:
        extension = host.extension(config.authenticator)
    except KeyError as exc:
        raise ValueError(
            f"{key}::auth::authenticator: no extension {config.authenticator!r} runs; list it under service::extensions ({exc})"
        ) from exc
    if not isinstance(extension, Authenticator):
        message = f"{key}::auth::authenticator: extension {config.authenticator!r} does not authenticate requests"
        raise ValueError(message)  # noqa: TRY004 - a mistake in the configuration
    return extension.authenticate
