"""Headers of HTTP/1.1 messages."""

from collections.abc import Sequence

__all__ = ["HeaderList", "header_bytes"]

HeaderList = Sequence[tuple[str, str]]
"""Names and values, in order."""


def header_bytes(headers: HeaderList) -> bytes:
    """Return the lines of these headers in HTTP/1.1."""
    return "".join(f"{name}: {value}\r\n" for name, value in headers).encode("latin-1", "replace")
