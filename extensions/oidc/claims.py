"""What a token says about the caller, as the pairs that processors see in ``batch.context.claims``.

Source: the Collector's oidcauthextension, authdata.go (names). The token itself, ``raw`` there, is a secret and is left
out; so are claims that differ in every token of a caller, because only data with equal claims is batched together.
"""

from collections.abc import Mapping
from typing import Any, Final

import orjson

from collector.transport.auth import AuthenticationError, Claims

__all__ = ["claims_of"]

_PER_TOKEN: Final = frozenset(
    {"exp", "iat", "nbf", "jti", "auth_time", "nonce", "at_hash", "c_hash", "sid", "uti", "rh"}
)
_VALUE_MAX_BYTES: Final = 1024
_ALL_MAX_BYTES: Final = 8 * 1024


def claims_of(payload: Mapping[str, Any], username_claim: str, groups_claim: str) -> Claims:
    """``subject``, ``membership`` and ``claims.<name>``, sorted; values that are too long are left out.

    Raises:
        AuthenticationError: The claim that names the user or the groups is missing.
    """
    subject = payload.get(username_claim or "sub", "")
    if username_claim and username_claim not in payload:
        raise AuthenticationError(f"the token has no claim {username_claim!r}")
    if not isinstance(subject, str):
        raise AuthenticationError(f"the claim {username_claim or 'sub'!r} of the token is not text")
    if groups_claim and groups_claim not in payload:
        raise AuthenticationError(f"the token has no claim {groups_claim!r}")
    named = {"subject": subject, "membership": _text(payload.get(groups_claim)) if groups_claim else ""}
    named |= {f"claims.{name}": _text(value) for name, value in payload.items() if name not in _PER_TOKEN}
    found: list[tuple[str, str]] = []
    size_bytes = 0
    for name, value in named.items():
        size_bytes += len(name) + len(value.encode("utf-8", "replace"))
        if not value or len(value.encode("utf-8", "replace")) > _VALUE_MAX_BYTES or size_bytes > _ALL_MAX_BYTES:
            continue
        found.append((name, value))
    return tuple(sorted(found))


def _text(value: Any) -> str:
    """Lists of texts are joined by ``;``, as attributes of several values are everywhere; the rest is JSON."""
    if isinstance(value, str):
        return value
    if isinstance(value, list):
        return ";".join(map(_text, value))
    if value is None:
        return ""
    return orjson.dumps(value).decode()
