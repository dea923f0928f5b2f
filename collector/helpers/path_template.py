"""Request paths to their shapes: ``/users/123`` to ``/users/{id}``. Called once for each distinct path.

What a segment must look like to be an identifier is fixed here; it is what ``cardinality`` calls uuid, int, ulid, hex and email.
"""

import re
from typing import Final

__all__ = ["template_path"]

# Bounded and without nested repetition: linear in the segment.
_IDENTIFIER: Final = re.compile(
    r"[0-9]{1,40}"
    r"|[0-9a-fA-F]{8}-(?:[0-9a-fA-F]{4}-){3}[0-9a-fA-F]{12}"
    r"|[0-7][0-9A-HJKMNP-TV-Z]{25}"
    r"|(?=[0-9a-fA-F]*[0-9])[0-9a-fA-F]{8,128}"
    r"|[^@\s]{1,64}@[^@\s]{1,255}"
)
_SEGMENT_MAX_CHARS: Final = 320


def template_path(path: str) -> str:
    """``path`` with ``{id}`` for each segment that is an identifier."""
    return "/".join(
        "{id}" if segment and len(segment) <= _SEGMENT_MAX_CHARS and _IDENTIFIER.fullmatch(segment) else segment
        for segment in path.split("/")
    )
