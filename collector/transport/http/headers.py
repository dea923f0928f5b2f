"""Names and values of HTTP headers."""

import re
from collections.abc import Collection, Mapping, Sequence
from typing import Final

__all__ = ["HEADER_NAME", "HeaderList", "check_client_headers", "check_headers", "header_bytes"]

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


def check_client_headers(headers: Mapping[str, str], reserved: Collection[str], key: str) -> None:
    """Refuse configured request headers that cannot be sent, or that the client writes itself (``reserved``).

    Raises:
        ValueError: the message names the header and ``key``, but no value.
    """
    seen = set()
    for name, value in headers.items():
        if not HEADER_NAME.fullmatch(name):
            raise ValueError(
                f"{key}: {name!r} is not a valid header name: expected ASCII letters, digits and !#$%&'*+-.^_`|~"
            )
        if any(character in value for character in "\r\n\0"):
            raise ValueError(f"{key}: the value of {name} contains a line break or NUL")
        lowered = name.lower()
        if lowered in reserved:
            raise ValueError(f"{key}: {name} cannot be configured, because the exporter sets it itself; remove it")
        if lowered in seen:
            raise ValueError(f"{key}: {name} is given twice: names of headers do not differ by their case")
        seen.add(lowered)


def header_bytes(headers: HeaderList) -> bytes:
    """Return the lines of these headers in HTTP/1.1."""
    return "".join(f"{name}: {value}\r\n" for name, value in headers).encode("latin-1", "replace")
