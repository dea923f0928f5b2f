"""The users of an htpasswd file and their passwords.

The password of a line may be a bcrypt hash (``htpasswd -B``), the weaker ``{SHA}`` and ``{SSHA}``, or plain text.
Apache's MD5 and the ``crypt`` family are refused: they are out of date, and no library that is kept up has them.

Source: Apache httpd, "Password Formats"; RFC 2307 (``{SHA}``, ``{SSHA}``).
"""

import base64
import binascii
import hashlib
import hmac
from collections.abc import Mapping
from typing import Final

import bcrypt

__all__ = ["is_slow", "parse_htpasswd", "verify"]

_BCRYPT: Final = ("$2y$", "$2a$", "$2b$", "$2x$")
_REFUSED: Final = {"$apr1$": "Apache's MD5", "$1$": "crypt's MD5", "$5$": "crypt's SHA-256", "$6$": "crypt's SHA-512"}
_BCRYPT_MAX_BYTES: Final = 72  # bcrypt ignores what follows
_SHA1_BYTES: Final = 20


def parse_htpasswd(text: str) -> dict[str, bytes]:
    """User → password, as the lines of the file have it. A later line takes precedence.

    Raises:
        ValueError: a line cannot be used. The message has its number, but nothing of its content.
    """
    users: dict[str, bytes] = {}
    for number, line in enumerate(text.splitlines(), 1):
        stripped = line.strip()
        if not stripped or stripped.startswith("#"):
            continue
        user, separator, password = stripped.partition(":")
        if not separator or not user or not password:
            raise ValueError(f"line {number} is not valid; expected user:password")
        for prefix, name in _REFUSED.items():
            if password.startswith(prefix):
                raise ValueError(
                    f"line {number} has a hash of {name}, which is not supported; make one with htpasswd -B"
                )
        if password.startswith(("{SHA}", "{SSHA}")):
            _decoded(password, number)
        elif password.startswith(_BCRYPT):
            try:
                bcrypt.checkpw(b"", password.encode())
            except ValueError:
                raise ValueError(f"line {number} has a bcrypt hash that is not valid") from None
        users[user] = password.encode()
    return users


def is_slow(users: Mapping[str, bytes]) -> bool:
    """Whether verifying takes long, because there are bcrypt hashes."""
    return any(password.startswith(tuple(prefix.encode() for prefix in _BCRYPT)) for password in users.values())


def verify(expected: bytes, password: bytes) -> bool:
    """Whether ``password`` is the one that ``expected`` stands for, compared in constant time."""
    kind = expected.decode()
    if kind.startswith(_BCRYPT):
        return bcrypt.checkpw(password[:_BCRYPT_MAX_BYTES], expected)
    if kind.startswith("{SHA}"):
        return hmac.compare_digest(_decoded(kind), hashlib.sha1(password, usedforsecurity=False).digest())
    if kind.startswith("{SSHA}"):
        decoded = _decoded(kind)
        digest, salt = decoded[:_SHA1_BYTES], decoded[_SHA1_BYTES:]
        return hmac.compare_digest(digest, hashlib.sha1(password + salt, usedforsecurity=False).digest())
    return hmac.compare_digest(expected, password)


def _decoded(password: str, number: int = 0) -> bytes:
    scheme, _, encoded = password.partition("}")
    try:
        decoded = base64.b64decode(encoded, validate=True)
    except binascii.Error:
        decoded = b""
    is_valid = len(decoded) == _SHA1_BYTES if scheme == "{SHA" else len(decoded) > _SHA1_BYTES
    if not is_valid:
        raise ValueError(f"line {number} has a hash that is not valid")
    return decoded
