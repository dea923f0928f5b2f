"""Replaces what patterns match, by the rules of Go's regexp: ``$1`` and ``${name}`` in the replacement are groups.

Source: Go 1.26 regexp, ``ReplaceAllString`` and ``Expand``.
"""

import re
from collections.abc import Callable
from functools import partial
from typing import Any, Final

from collector.text.patterns import Pattern, compile_pattern
from collector.text.simple_patterns import simple_pattern

__all__ = ["Replacement", "Template", "replace_matches"]

_REFERENCE: Final = re.compile(r"\$(?:\$|(\w+)|\{(\w+)\})", re.ASCII)


class Template:
    r"""A replacement text with references to groups.

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
                if len(name) < 6 and int(name) <= pattern.groups:
                    self._parts.append(int(name))
            elif name in pattern.groupindex:
                self._parts.append(pattern.groupindex[name])
        self._parts.append(text[at:])
        self.constant = None if any(isinstance(part, int) for part in self._parts) else "".join(map(str, self._parts))
        """The replacement if it does not depend on the match."""

    def expand(self, match: Any) -> str:
        """The replacement of one match."""
        if self.constant is not None:
            return self.constant
        return "".join([part if isinstance(part, str) else match.group(part) or "" for part in self._parts])


class Replacement:
    """A pattern with the text that replaces its matches, for many texts.

    >>> Replacement("/[0-9]+", "/{id}")("GET /users/12"), Replacement("x", "y")("abc")
    ('GET /users/{id}', None)
    """

    def __init__(self, pattern: str, template: str) -> None:
        """Compiles both.

        Raises:
            ValueError: The pattern is not valid.
        """
        compiled = compile_pattern(pattern)
        self._search: Callable[[str], Any] = compiled.search
        self._pattern = compiled
        self._template = Template(compiled, template)
        simple = simple_pattern(pattern)
        self._subn = None
        if simple is not None:
            self._search = simple.search
            constant = self._template.constant
            written = self._template.expand if constant is None else constant.replace("\\", "\\\\")
            self._subn = partial(simple.subn, written)

    def __call__(self, text: str) -> str | None:
        """The text with all matches replaced; None if there is none."""
        if self._subn is not None:
            replaced, count = self._subn(text)
            return replaced if count else None
        if self._search(text) is None:
            return None
        return replace_matches(self._pattern, text, self._template.expand)

    def by(self, text: str, change: Callable[[str], str]) -> str | None:
        """Like a call, with ``change`` applied to the replacement of each match."""
        if self._search(text) is None:
            return None
        return replace_matches(self._pattern, text, lambda match: change(self._template.expand(match)))


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
