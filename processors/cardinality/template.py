"""Replaces identifiers in paths: ``GET /users/123?q=1`` becomes ``GET /users/{id}``."""

import re
from typing import Final

from collector.text.path_template import IDENTIFIERS, SEGMENT_MAX_CHARS
from processors.cardinality.config import TemplateConfig

__all__ = ["Templater"]

_METHOD: Final = re.compile(r"^([A-Z]{3,7}) (/.*)$", re.DOTALL)


class Templater:
    """Templates with one configuration. Called once per distinct value."""

    def __init__(self, config: TemplateConfig) -> None:
        self._config = config
        self._kinds = [(IDENTIFIERS[kind], text) for kind, text in config.replace.items()]

    def __call__(self, value: str) -> str:
        """The value with its identifiers replaced."""
        match = _METHOD.match(value)
        method, path = (match[1] + " ", match[2]) if match else ("", value)
        if not self._config.keep_method:
            method = ""
        path, question, query = path.partition("?")
        template = "/".join(self._segment(segment) for segment in path.split("/"))
        return method + template + (question + query if self._config.query == "keep" else "")

    def _segment(self, segment: str) -> str:
        if segment and len(segment) <= SEGMENT_MAX_CHARS:
            for pattern, text in self._kinds:
                if pattern.fullmatch(segment):
                    return text
        return segment
