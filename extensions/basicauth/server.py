"""Authenticates the callers of servers by name and password. Source: RFC 7617; the Collector's basicauthextension.

A bcrypt hash takes some 50 ms of CPU to verify, on purpose. It is verified in a thread, few at a time, and credentials
that were found right are remembered by their keyed hash, so that a client pays once and not per request.
"""

import asyncio
import base64
import hashlib
import secrets
from collections.abc import Mapping, Sequence
from typing import Final

import bcrypt

from collector.api import Extension, Host, Settings
from collector.transport.auth import AuthenticationError, Claims
from collector.transport.credentials_file import CredentialsFile
from extensions.basicauth.config import HtpasswdConfig
from extensions.basicauth.htpasswd import is_slow, parse_htpasswd, verify

__all__ = ["BasicAuthServer"]

_CONCURRENT_MAX: Final = 2
_WAITING_MAX: Final = 64
_REMEMBERED_MAX: Final = 4096
_UNKNOWN_ROUNDS: Final = 10  # what htpasswd -B and most tools use today


class BasicAuthServer(Extension):
    """Servers call :meth:`authenticate` for each request."""

    def __init__(self, settings: Settings, config: HtpasswdConfig) -> None:
        self._key = f"extensions::{settings.id}::htpasswd"
        try:
            self._inline = parse_htpasswd(config.inline.get_secret_value())
        except ValueError as error:
            raise ValueError(f"htpasswd::inline: {error}") from None
        self._file: CredentialsFile | None = None
        if config.file:
            self._file = CredentialsFile(
                config.file,
                parse_htpasswd,
                key=f"{self._key}::file",
                clock=settings.clock,
                log=settings.telemetry.log,
            )
        self._from_file: dict[str, bytes] = {}
        self._users: Mapping[str, bytes] = self._inline
        self._unknown = b""
        """What the passwords of unknown users are compared with, so that the time does not tell who exists."""
        self._hash_key = secrets.token_bytes(32)
        self._remembered: dict[bytes, None] = {}
        self._waiting_count = 0
        self._verifying = asyncio.Semaphore(_CONCURRENT_MAX)

    async def start(self, host: Host) -> None:  # noqa: ARG002 - needs nothing of it
        """Read the file."""
        if self._file is not None:
            self._file.open()
        self._set_users()

    async def authenticate(self, headers: Mapping[str, Sequence[str]]) -> Claims:
        """The name of the user, as the claim ``username``. See :class:`collector.transport.auth.Authenticator`."""
        if self._file is not None and self._file.value() is not self._from_file:
            self._set_users()
        user, password = _credentials(headers)
        expected = self._users.get(user)
        # Bound to the expected hash: a changed password must not be accepted any more.
        remembered = hashlib.blake2b(
            b"\0".join((user.encode(), password, expected or b"")), key=self._hash_key, digest_size=32
        ).digest()
        if remembered not in self._remembered:
            is_right = await self._verify(self._unknown if expected is None else expected, password)
            if not is_right or expected is None:
                raise AuthenticationError("invalid credentials")
            if len(self._remembered) >= _REMEMBERED_MAX:
                del self._remembered[next(iter(self._remembered))]
            self._remembered[remembered] = None
        return (("username", user),)

    async def _verify(self, expected: bytes, password: bytes) -> bool:
        if not is_slow({"": expected}):
            return verify(expected, password)
        if self._waiting_count >= _WAITING_MAX:
            raise AuthenticationError("too many logins at a time; try again")
        self._waiting_count += 1
        try:
            async with self._verifying:
                return await asyncio.to_thread(verify, expected, password)
        finally:
            self._waiting_count -= 1

    def _set_users(self) -> None:
        self._from_file = self._file.value() if self._file is not None else {}
        self._users = {**self._from_file, **self._inline}
        slow = next((password for password in self._users.values() if is_slow({"": password})), None)
        if slow is None:
            self._unknown = secrets.token_hex(32).encode()
        else:
            rounds = int(slow[4:6]) if slow[4:6].isdigit() else _UNKNOWN_ROUNDS
            self._unknown = bcrypt.hashpw(secrets.token_bytes(16).hex().encode(), bcrypt.gensalt(rounds))
        self._remembered.clear()


def _credentials(headers: Mapping[str, Sequence[str]]) -> tuple[str, bytes]:
    """User and password of a request.

    Raises:
        AuthenticationError: there are none, or not in the form of RFC 7617. The message has nothing of them.
    """
    value = next(iter(headers.get("authorization", ())), "")
    if not value:
        raise AuthenticationError("no basic auth provided")
    scheme, _, encoded = value.partition(" ")
    if scheme.lower() != "basic":
        raise AuthenticationError("invalid authorization scheme; expected Basic")
    try:
        user, separator, password = base64.b64decode(encoded.strip(), validate=True).partition(b":")
        name = user.decode()
    except ValueError:  # binascii.Error and UnicodeDecodeError are
        separator, name, password = b"", "", b""
    if not separator:
        raise AuthenticationError("invalid authorization format")
    return name, password
