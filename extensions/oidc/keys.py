"""The keys of an issuer: fetched from it, or read from a file, and brought up to date.

Source: OpenID Connect Discovery 1.0; RFC 7517 (JSON Web Key Set). Keys and signatures are those of ``joserfc``.
"""

import ssl
import warnings
from collections.abc import Mapping, Sequence
from typing import Any, Final
from urllib.parse import urlsplit

import aiohttp
import orjson
from joserfc.errors import JoseError
from joserfc.jwk import ECKey, JWKRegistry, OKPKey, RSAKey

from collector.api import Clock
from collector.transport.credentials_file import CredentialsFile
from extensions.oidc.config import ProviderConfig

__all__ = ["ALGORITHMS", "Key", "KeyFile", "KeyServer"]

Key = RSAKey | ECKey | OKPKey
"""A public key."""

ALGORITHMS: Final[Mapping[type[Key], tuple[str, ...]]] = {
    RSAKey: ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512"),
    ECKey: ("ES256", "ES384", "ES512"),
    OKPKey: ("EdDSA", "Ed25519"),
}
"""The algorithms of each type of key. None of them has a secret that the verifier shares with the issuer."""

_TIMEOUT_S: Final = 5.0
_MAX_BYTES: Final = 1 << 20
_MAX_KEYS: Final = 100
_FETCH_AGAIN_S: Final = 10.0


class KeyFile:
    """The keys in a file."""

    def __init__(self, config: ProviderConfig, *, key: str, clock: Clock, log: Any) -> None:
        self._file = CredentialsFile(
            config.public_keys_file, _keys_in, key=f"{key}::public_keys_file", clock=clock, log=log
        )

    def open(self) -> None:
        """Read the file.

        Raises:
            ValueError: It cannot be read, or has no usable keys.
        """
        self._file.open()

    def current(self) -> Sequence[Key]:
        """The keys, as they were at most a second ago."""
        keys: Sequence[Key] = self._file.value()
        return keys

    async def refresh(self, *, is_due: bool) -> bool:  # noqa: ARG002 - the file is watched anyway
        """Nothing is to be fetched."""
        return False


class KeyServer:
    """The keys that an issuer publishes."""

    def __init__(self, config: ProviderConfig, *, key: str, clock: Clock, log: Any) -> None:
        self._issuer = config.issuer_url
        self._ca_path = config.issuer_ca_path
        self._key, self._clock, self._log = key, clock, log
        self._ssl: ssl.SSLContext | bool = True
        self._keys: Sequence[Key] = ()
        self._asked_at_s = -_FETCH_AGAIN_S

    def open(self) -> None:
        """Read the certificate authority.

        Raises:
            ValueError: It cannot be read.
        """
        if self._ca_path:
            try:
                self._ssl = ssl.create_default_context(cafile=self._ca_path)
            except (OSError, ssl.SSLError) as error:
                raise ValueError(f"{self._key}::issuer_ca_path: cannot read {self._ca_path}: {error}") from error

    def current(self) -> Sequence[Key]:
        """The keys that were fetched last; none before the first answer."""
        return self._keys

    async def refresh(self, *, is_due: bool) -> bool:
        """Fetch the keys again: because it is time, or because a token needs a key that is not known.

        Returns False if the issuer was asked only a moment ago, or does not answer.
        """
        now_s = self._clock.monotonic_s()
        if not is_due and now_s - self._asked_at_s < _FETCH_AGAIN_S:
            return False
        self._asked_at_s = now_s
        try:
            keys = await self._fetched()
        except (aiohttp.ClientError, TimeoutError, OSError, ValueError) as error:
            self._log.warning(
                "the keys of an issuer could not be fetched; those fetched before are used",
                issuer=self._issuer,
                error=str(error) or type(error).__name__,
            )
            return False
        self._keys = keys
        return True

    async def _fetched(self) -> Sequence[Key]:
        connector = aiohttp.TCPConnector(ssl=self._ssl)
        timeout = aiohttp.ClientTimeout(total=_TIMEOUT_S)
        async with aiohttp.ClientSession(connector=connector, timeout=timeout, trust_env=True) as session:
            url = f"{self._issuer.rstrip('/')}/.well-known/openid-configuration"
            found = _json_object(await _body(session, url))
            if found.get("issuer") != self._issuer:
                raise ValueError(f"{url} is about another issuer")
            jwks_uri = found.get("jwks_uri")
            if not isinstance(jwks_uri, str) or urlsplit(jwks_uri).scheme not in {"http", "https"}:
                raise ValueError(f"{url} names no jwks_uri")
            if self._issuer.startswith("https://") and not jwks_uri.startswith("https://"):
                raise ValueError(f"{url} names a jwks_uri without TLS")
            return _keys_in((await _body(session, jwks_uri)).decode())


async def _body(session: aiohttp.ClientSession, url: str) -> bytes:
    async with session.get(url, allow_redirects=False) as response:
        if response.status != 200:
            raise ValueError(f"{url} answered with status {response.status}")
        chunks: list[bytes] = []
        size_bytes = 0
        async for chunk in response.content.iter_any():
            chunks.append(chunk)
            size_bytes += len(chunk)
            if size_bytes > _MAX_BYTES:
                raise ValueError(f"the answer of {url} is larger than {_MAX_BYTES} bytes")
        return b"".join(chunks)


def _json_object(content: bytes | str) -> dict[str, Any]:
    try:
        found = orjson.loads(content)
    except orjson.JSONDecodeError as error:
        raise ValueError(f"not valid JSON: {error}") from None
    if not isinstance(found, dict):
        raise ValueError("expected a JSON object")  # noqa: TRY004 - bad content, not a bad argument
    return found


def _keys_in(content: str) -> tuple[Key, ...]:
    """The public keys of a JSON Web Key Set; those of other types, and invalid ones, are left out.

    Raises:
        ValueError: There is none.
    """
    listed = _json_object(content).get("keys")
    keys: list[Key] = []
    for entry in listed[:_MAX_KEYS] if isinstance(listed, list) else ():
        if not isinstance(entry, dict) or entry.get("kty") not in {"RSA", "EC", "OKP"}:
            continue
        public = {name: value for name, value in entry.items() if name not in _PRIVATE}
        try:
            with warnings.catch_warnings(action="ignore"):  # about short keys: the issuer's business
                key = JWKRegistry.import_key(public)
        except (JoseError, ValueError, TypeError, KeyError):
            continue
        if isinstance(key, Key) and entry.get("use", "sig") == "sig":
            keys.append(key)
    if not keys:
        raise ValueError("there are no usable keys; RSA, EC and OKP are supported")
    return tuple(keys)


_PRIVATE: Final = frozenset({"d", "p", "q", "dp", "dq", "qi", "oth", "key_ops"})
