"""Authenticates the callers of servers by signed tokens of OpenID Connect.

A token that was verified is remembered by its keyed hash until it expires, so that a client pays once and not per
request. What is remembered is forgotten when the keys change.

Source: the Collector's oidcauthextension (keys, claims); RFC 7519; OpenID Connect Core 1.0, section 3.1.3.7.
"""

import base64
import binascii
import hashlib
import secrets
import warnings
from collections.abc import Mapping, Sequence
from typing import Any, Final, NamedTuple

import orjson
from joserfc import jws
from joserfc.errors import JoseError

from collector.api import Extension, Host, PeriodicTask, RetryableError, Settings
from collector.transport.auth import AuthenticationError, Claims
from extensions.oidc.claims import claims_of
from extensions.oidc.config import OIDCConfig, ProviderConfig
from extensions.oidc.keys import ALGORITHMS, Key, KeyFile, KeyServer

__all__ = ["OIDC"]

_TOKEN_MAX_CHARS: Final = 16 * 1024
_REMEMBERED_MAX: Final = 4096


class _Verified(NamedTuple):
    claims: Claims
    expires_at_s: float
    keys: Sequence[Key]


class _Provider:
    """One issuer."""

    def __init__(self, settings: Settings, config: ProviderConfig, key: str) -> None:
        self.config = config
        kind = KeyFile if config.public_keys_file else KeyServer
        self.keys: KeyFile | KeyServer = kind(config, key=key, clock=settings.clock, log=settings.telemetry.log)


class OIDC(Extension):
    """Servers call :meth:`authenticate` for each request."""

    def __init__(self, settings: Settings, config: OIDCConfig) -> None:
        self._header = config.attribute.lower()
        self._skew_s = config.clock_skew
        self._clock = settings.clock
        self._providers = {
            one.issuer_url: _Provider(settings, one, f"extensions::{settings.id}::providers::{number}")
            for number, one in enumerate(config.all_providers())
        }
        self._refreshing = PeriodicTask(
            self._refresh, config.refresh_interval, settings.clock, log=settings.telemetry.log
        )
        self._hash_key = secrets.token_bytes(32)
        self._remembered: dict[bytes, _Verified] = {}

    async def start(self, host: Host) -> None:  # noqa: ARG002 - needs nothing of it
        """Read files; the keys of issuers are fetched in the background."""
        for provider in self._providers.values():
            provider.keys.open()
        self._refreshing.start()
        self._refreshing.run_soon()

    async def shutdown(self) -> None:
        """Fetch no more."""
        await self._refreshing.stop()

    async def authenticate(self, headers: Mapping[str, Sequence[str]]) -> Claims:
        """``subject``, ``membership`` and ``claims.<name>``. See :class:`collector.transport.auth.Authenticator`.

        Raises:
            AuthenticationError: There is no valid token.
            RetryableError: The keys of the issuer are not known yet.
        """
        token = self._token(headers)
        digest = hashlib.blake2b(token.encode(), key=self._hash_key, digest_size=32).digest()
        now_s = self._clock.time_unix_nano() / 1e9
        known = self._remembered.get(digest)
        provider = self._provider(token) if known is None or len(self._providers) > 1 else self._only()
        if known is not None and known.expires_at_s > now_s and known.keys is provider.keys.current():
            return known.claims
        payload = await self._verified(provider, token)
        claims, expires_at_s = self._checked(provider.config, payload, now_s)
        self._remembered.pop(digest, None)
        if len(self._remembered) >= _REMEMBERED_MAX:
            del self._remembered[next(iter(self._remembered))]
        self._remembered[digest] = _Verified(claims, expires_at_s, provider.keys.current())
        return claims

    def _token(self, headers: Mapping[str, Sequence[str]]) -> str:
        given = next(iter(headers.get(self._header, ())), "")
        if not given:
            raise AuthenticationError(f"missing or empty header: {self._header}")
        parts = given.split(" ")
        if len(parts) != 2 or not parts[1].isascii():
            raise AuthenticationError("invalid authorization header format")
        if len(parts[1]) > _TOKEN_MAX_CHARS:
            raise AuthenticationError(f"the token has more than {_TOKEN_MAX_CHARS} characters")
        return parts[1]

    def _only(self) -> _Provider:
        return next(iter(self._providers.values()))

    def _provider(self, token: str) -> _Provider:
        """The provider for a token, whose signature has not been checked yet."""
        if len(self._providers) == 1:
            return self._only()
        issuer = _part(token, 1).get("iss")
        provider = self._providers.get(issuer) if isinstance(issuer, str) else None
        if provider is None:
            raise AuthenticationError("no provider is configured for the issuer of the token")
        return provider

    async def _verified(self, provider: _Provider, token: str) -> dict[str, Any]:
        """The claims of a token with a valid signature."""
        header = _part(token, 0)
        if not provider.keys.current():
            await provider.keys.refresh(is_due=False)
        if not provider.keys.current():
            raise RetryableError("the keys of the issuer are not available at present", reason="no_keys")
        found = _verify(token, header, provider.keys.current())
        if found is None and await provider.keys.refresh(is_due=False):  # the issuer may have a new key
            found = _verify(token, header, provider.keys.current())
        if found is None:
            raise AuthenticationError("the signature of the token is not valid")
        return found

    def _checked(self, config: ProviderConfig, payload: dict[str, Any], now_s: float) -> tuple[Claims, float]:
        """(The claims of a valid token, until when it is valid)."""
        expires_at_s, not_before_s = _number(payload, "exp"), _number(payload, "nbf")
        if expires_at_s is None:
            raise AuthenticationError("the token has no time of expiry")
        if expires_at_s + self._skew_s <= now_s:
            raise AuthenticationError("the token has expired")
        if not_before_s is not None and not_before_s - self._skew_s > now_s:
            raise AuthenticationError("the token is not valid yet")
        if not config.ignore_issuer and payload.get("iss") != config.issuer_url:
            raise AuthenticationError("the token is from another issuer")
        audience = payload.get("aud")
        audiences = audience if isinstance(audience, list) else [audience]
        if not config.ignore_audience and config.audience not in audiences:
            raise AuthenticationError("the token is for another audience")
        return claims_of(payload, config.username_claim, config.groups_claim), expires_at_s + self._skew_s

    async def _refresh(self) -> None:
        for provider in self._providers.values():
            await provider.keys.refresh(is_due=True)
        now_s = self._clock.time_unix_nano() / 1e9
        self._remembered = {digest: one for digest, one in self._remembered.items() if one.expires_at_s > now_s}


def _verify(token: str, header: dict[str, Any], keys: Sequence[Key]) -> dict[str, Any] | None:
    """The claims of a token that one of the keys has signed; None if none has."""
    name, algorithm = header.get("kid"), header.get("alg")
    for key in keys:
        if algorithm not in ALGORITHMS[type(key)] or (name is not None and key.kid is not None and key.kid != name):
            continue
        if key.alg is not None and key.alg != algorithm:
            continue
        try:
            with warnings.catch_warnings(action="ignore"):  # about the name EdDSA, which issuers still use
                payload = jws.deserialize_compact(token, key, algorithms=[algorithm]).payload
            claims = orjson.loads(payload)
        except (JoseError, ValueError):
            continue
        if isinstance(claims, dict):
            return claims
    return None


def _part(token: str, number: int) -> dict[str, Any]:
    """The header (0) or the claims (1) of a token, whose signature has not been checked yet."""
    parts = token.split(".")
    try:
        encoded = parts[number] if len(parts) == 3 else ""
        found = orjson.loads(base64.urlsafe_b64decode(encoded + "=" * (-len(encoded) % 4)))
    except (binascii.Error, ValueError):
        found = None
    if not isinstance(found, dict):
        raise AuthenticationError("the token is not a signed JSON Web Token")
    return found


def _number(payload: Mapping[str, Any], name: str) -> float | None:
    value = payload.get(name)
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None
