"""Paths to their shapes: ``GET /users/123?q=1`` to ``GET /users/{id}``. Called once for each distinct value."""

import re
from typing import Final

from processors.cardinality.config import TemplateConfig

__all__ = ["Templater"]

_METHOD: Final = re.compile(r"^([A-Z]{3,7}) (/.*)$", re.DOTALL)
# Bounded and without nested repetition: linear in the segment.
_KINDS: Final = {
    "uuid": re.compile(r"^[0-9a-fA-F]{8}-(?:[0-9a-fA-F]{4}-){3}[0-9a-fA-F]{12}$"),
    "int": re.compile(r"^[0-9]{1,40}$"),
    "ulid": re.compile(r"^[0-7][0-9A-HJKMNP-TV-Z]{25}$"),
    "hex": re.compile(r"^(?=[0-9a-fA-F]*[0-9])[0-9a-fA-F]{8,128}$"),
    "email": re.compile(r"^[^@\s]{1,64}@[^@\s]{1,255}$"),
}
_SEGMENT_MAX: Final = 320


class Templater:
    """One configuration of templates."""

    def __init__(self, config: TemplateConfig) -> None:
        self._config = config
        self._kinds = [(_KINDS[kind], text) for kind, text in config.replace.items()]

    def __call__(self, value: str) -> str:
        """The shape of ``value``; a value that is no path keeps its words."""
        match = _METHOD.match(value)
        method, path = (match[1] + " ", match[2]) if match else ("", value)
        if not self._config.keep_method:
            method = ""
        path, question, query = path.partition("?")
        shaped = "/".join(self._segment(segment) for segment in path.split("/"))
        return method + shaped + (question + query if self._config.query == "keep" else "")

    def _segment(self, segment: str) -> str:
        if segment and len(segment) <= _SEGMENT_MAX:
            for pattern, text in self._kinds:
                if pattern.match(segment):
                    return text
        return segment
