"""Reads and changes entries of a trace state. Source: W3C Trace Context, tracestate header."""

import re
from typing import Final

__all__ = ["entry", "with_entry"]

_KEY: Final = re.compile(r"[a-z][a-z0-9_\-*/]{0,255}|[a-z0-9][a-z0-9_\-*/]{0,240}@[a-z][a-z0-9_\-*/]{0,13}")
_VALUE: Final = re.compile(r"[\x20-\x2b\x2d-\x3c\x3e-\x7e]{0,255}[\x21-\x2b\x2d-\x3c\x3e-\x7e]")
_MAX_ENTRIES: Final = 32


def _entries(text: str) -> dict[str, str] | None:
    """The entries in order; None if the trace state is not valid."""
    entries: dict[str, str] = {}
    for member in text.split(","):
        if not member:
            continue
        name, equals, value = member.strip(" \t").partition("=")
        if not equals or not _KEY.fullmatch(name) or not _VALUE.fullmatch(value) or name in entries:
            return None
        entries[name] = value
        if len(entries) > _MAX_ENTRIES:
            return None
    return entries


def entry(text: str, key: str) -> str | None:
    """The value of an entry, "" if there is none, nil if the trace state is not valid."""
    entries = _entries(text)
    return None if entries is None else entries.get(key, "")


def with_entry(text: str, key: str, value: str) -> str:
    """The trace state with the entry first; the text itself if it, the key or the value is not valid."""
    entries = _entries(text)
    if entries is None or not _KEY.fullmatch(key) or not _VALUE.fullmatch(value):
        return text
    entries.pop(key, None)
    kept = list(entries.items())[: _MAX_ENTRIES - 1]
    return ",".join(f"{name}={content}" for name, content in [(key, value), *kept])
