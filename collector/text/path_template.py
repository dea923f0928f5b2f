"""Templates of request paths: ``/users/123`` becomes ``/users/{id}``. Called once per distinct path.

This module defines which segments are identifiers, for all components that make templates of paths.
"""

import re
from collections.abc import Mapping
from typing import Final

__all__ = ["IDENTIFIERS", "SEGMENT_MAX_CHARS", "template_path"]

# Bounded and without nested repetition, so that matching is linear in the length of the segment.
IDENTIFIERS: Final[Mapping[str, re.Pattern[str]]] = {
    "uuid": re.compile(r"[0-9a-fA-F]{8}-(?:[0-9a-fA-F]{4}-){3}[0-9a-fA-F]{12}"),
    "int": re.compile(r"[0-9]{1,40}"),
    "ulid": re.compile(r"[0-7][0-9A-HJKMNP-TV-Z]{25}"),
    "hex": re.compile(r"(?=[0-9a-fA-F]*[0-9])[0-9a-fA-F]{8,128}"),
    "email": re.compile(r"[^@\s]{1,64}@[^@\s]{1,255}"),
}
"""The kinds of identifiers, and for each the pattern that the whole segment must match."""
SEGMENT_MAX_CHARS: Final = 320
"""A longer segment is not an identifier."""


def template_path(path: str) -> str:
    """The path with each identifier replaced by ``{id}``."""
    return "/".join("{id}" if _is_identifier(segment) else segment for segment in path.split("/"))


def _is_identifier(segment: str) -> bool:
    return 0 < len(segment) <= SEGMENT_MAX_CHARS and any(pattern.fullmatch(segment) for pattern in IDENTIFIERS.values())
