"""Checks tokens for servers, and provides them to clients. Source: the Collector's bearertokenauthextension."""

import hmac
from collections.abc import Mapping, Sequence

from collector.api import Extension, Host, RetryableError, Settings
from collector.transport.auth import AuthenticationError, Claims
from collector.transport.credentials_file import CredentialsFile
from extensions.bearertokenauth.config import BearerTokenAuthConfig

__all__ = ["BearerTokenAuth"]


class BearerTokenAuth(Extension):
    """Servers call :meth:`authenticate`, clients call :meth:`client_headers`, for each request."""

    def __init__(self, settings: Settings, config: BearerTokenAuthConfig) -> None:
        self._header = config.header.lower()
        self._prefix = f"{config.scheme} " if config.scheme else ""
        self._log = settings.telemetry.log
        self._has_unused_tokens = bool(config.filename and (config.tokens or config.token.get_secret_value()))
        tokens = config.tokens or (config.token,)
        self._values = self._with_scheme([token.get_secret_value() for token in tokens])
        self._file: CredentialsFile | None = None
        if config.filename:
            self._file = CredentialsFile(
                config.filename,
                lambda text: self._with_scheme(_tokens(text)),
                key=f"extensions::{settings.id}::filename",
                clock=settings.clock,
                log=self._log,
            )

    async def start(self, host: Host) -> None:  # noqa: ARG002 - needs nothing of it
        """Read the file."""
        if self._has_unused_tokens:
            self._log.warning("filename is set, so token and tokens are not used")
        if self._file is not None:
            self._file.open()

    async def authenticate(self, headers: Mapping[str, Sequence[str]]) -> Claims:
        """No claims. See :class:`collector.transport.auth.Authenticator`."""
        given = next(iter(headers.get(self._header, ())), "").encode()
        if not given:
            raise AuthenticationError(f"missing or empty authorization header: {self._header}")
        is_known = False
        for value in self._current():  # all of them, so that the time does not tell which one is nearly right
            is_known |= hmac.compare_digest(given, value)
        if not is_known:
            raise AuthenticationError("provided authorization does not match expected scheme or token")
        return ()

    def client_headers(self) -> Mapping[str, str]:
        """The first token.

        Raises:
            RetryableError: the file has no token at present.
        """
        values = self._current()
        if not values:
            raise RetryableError("the file with the bearer token is empty", reason="no_token")
        return {self._header: values[0].decode()}

    def _current(self) -> Sequence[bytes]:
        values: Sequence[bytes] = self._values if self._file is None else self._file.value()
        return values

    def _with_scheme(self, tokens: Sequence[str]) -> tuple[bytes, ...]:
        return tuple(f"{self._prefix}{token}".encode() for token in tokens)


def _tokens(text: str) -> list[str]:
    """The first word of each line; what follows it is a comment."""
    return [words[0] for line in text.splitlines() if (words := line.split())]
