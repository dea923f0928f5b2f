"""Replaces what patterns match, by the rules of Go's regexp: ``$1`` and ``${name}`` in the replacement are groups.

Source: Go 1.26 regexp, ``ReplaceAllString`` and ``Expand``.
"""

import re
from collections.abc import Callable
from typing import Any, Final

from collector.text.patterns import Pattern

__all__ = ["Template", "replace_matches"]

_REFERENCE: Final = re.compile(r"\$(?:\$|(\w+)|\{(\w+)\})", re.ASCII)


class Template:
    """A replacement text with references to groups.

    >>> from collector.text.patterns import compile_pattern
    >>> pattern = compile_pattern(r"(\\w+)@(?P<host>\\w+)")
    >>> replace_matches(pattern, "me@home, you@work", Template(pattern, "$1 at ${host}").expand)
    'me at home, you at work'
    """

    def __init__(self, pattern: Pattern, text: str) -> None:
        """A reference to a group that the pattern does not have is replaced by nothing, as in Go."""
        self._parts: list[str | int] = []
        at = 0
        for reference in _REFERENCE.finditer(text):
            self._parts.append(text[at : reference.start()])
            at = reference.end()
            name = reference.group(1) or reference.group(2)
            if name is None:
                self._parts.append("$")
            elif name.isascii() and name.isdigit():
                if len(name) < 6 and int(name) <= pattern.groups:  # noqa: PLR2004 - a group number
                    self._parts.append(int(name))
            elif name in pattern.groupindex:
                self._parts.append(pattern.groupindex[name])
        self._parts.append(text[at:])
        self._constant = None if any(isinstance(part, int) for part in self._parts) else "".join(map(str, self._parts))

    def expand(self, match: Any) -> str:
        """The replacement of one match."""
        if self._constant is not None:
            return self._constant
        return "".join([part if isinstance(part, str) else match.group(part) or "" for part in self._parts])


def replace_matches(pattern: Pattern, text: str, replacement: Callable[[Any], str]) -> str:
    """The text with each match replaced. An empty match right after another match does not count."""
    pieces: list[str] = []
    at, last_end = 0, -1
    for match in pattern.finditer(text):
        start, end = match.span()
        if start == end == last_end:
            continue
        pieces.append(text[at:start])
        pieces.append(replacement(match))
        at = last_end = end
    pieces.append(text[at:])
    return "".join(pieces)
