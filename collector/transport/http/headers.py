"""Names and values of HTTP headers."""

import re
from collections.abc import Sequence
from typing import Final

__all__ = ["HEADER_NAME", "HeaderList", "check_headers", "header_bytes"]

HeaderList = Sequence[tuple[str, str]]
"""Names and values, in order."""

HEADER_NAME: Final = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
"""A token of RFC 9110 §5.6.2."""


def check_headers(headers: HeaderList, key: str) -> HeaderList:
    """Return ``headers`` if no name or value can end its line (response splitting).

    Raises:
        ValueError: one can; the message names ``key``.
    """
    for name, value in headers:
        if not HEADER_NAME.fullmatch(name) or any(character in value for character in "\r\n\0"):
            raise ValueError(f"{key}: {name!r} or its value is not a valid HTTP header")
    return headers


def header_bytes(headers: HeaderList) -> bytes:
    """Return the lines of these headers in HTTP/1.1."""
    return "".join(f"{name}: {value}\r\n" for name, value in headers).encode("latin-1", "replace")
