"""Patterns so simple that Python's own ``re`` is linear for them: it is several times as fast as RE2 from Python.

They are characters and classes in a row, of which only the last may be repeated: a search then never goes back. What
they match is the same in RE2; the tests compare the two.
"""

import re
from typing import Any, Final

from collector.text.patterns import Pattern, compile_pattern

__all__ = ["literal_pattern", "search_pattern", "simple_pattern"]

_CLASSES: Final = {
    "d": "[0-9]",
    "D": "[^0-9]",
    "w": "[0-9A-Za-z_]",
    "W": "[^0-9A-Za-z_]",
    "s": "[\\t\\n\\f\\r ]",
    "S": "[^\\t\\n\\f\\r ]",
}
_IN_CLASS: Final = {"d": "0-9", "w": "0-9A-Za-z_", "s": "\\t\\n\\f\\r "}
_CONTROL: Final = {"t": "\\t", "n": "\\n", "r": "\\r", "f": "\\f"}
_META: Final = frozenset(".+*?()|[]{}^$\\")
_REPEATED: Final = re.compile(r"[+*?]|\{(\d{1,3})(?:,(\d{0,3}))?\}")


def simple_pattern(text: str) -> "re.Pattern[str] | None":
    """The pattern for ``re``; None if it is not simple, may match nothing, or is not valid."""
    made: list[str] = []
    at = 0
    anchor = ""
    if text.startswith("^"):
        anchor, at = "\\A", 1
    while at < len(text):
        atom, at = _atom(text, at)
        if atom is None:
            return None
        made.append(atom)
        repeated = _REPEATED.match(text, at)
        if repeated is not None:
            is_optional = repeated.group() in {"*", "?"} or not int(repeated.group(1) or 1)
            if repeated.end() != len(text) or (is_optional and len(made) == 1):
                return None
            made.append(repeated.group())
            at = repeated.end()
    if not made:
        return None
    try:
        return re.compile(anchor + "".join(made))
    except (re.error, OverflowError):
        return None


def literal_pattern(text: str) -> tuple[str, str] | None:
    r"""How a pattern that is a text, perhaps anchored, matches: ``contains``, ``prefix``, ``suffix`` or ``equals`` it.

    None if it is another pattern. The pattern is known to be valid.

    >>> literal_pattern("^/health"), literal_pattern("\\.png$"), literal_pattern("a+")
    (('prefix', '/health'), ('suffix', '.png'), None)
    """
    at, end = int(text.startswith("^")), len(text)
    made: list[str] = []
    while at < end:
        character = text[at]
        if character == "$" and at == end - 1:
            return ("equals" if text.startswith("^") else "suffix"), "".join(made)
        if character == "\\":
            at += 1
            character = text[at : at + 1]
            if not character or character.isalnum() or not character.isascii():
                return None
        elif character in _META:
            return None
        made.append(character)
        at += 1
    return ("prefix" if text.startswith("^") else "contains"), "".join(made)


def search_pattern(text: str) -> Pattern:
    """The pattern for searching: for ``re`` if it is simple, else for RE2.

    Raises:
        ValueError: It is not valid.
    """
    compiled = compile_pattern(text)
    simple: Any = simple_pattern(text)
    return compiled if simple is None else simple


def _atom(text: str, at: int) -> tuple[str | None, int]:
    """One character or class from ``at`` on, and where it ends."""
    character = text[at]
    if character == "\\":
        escaped = text[at + 1 : at + 2]
        if escaped in _CLASSES:
            return _CLASSES[escaped], at + 2
        if escaped in _CONTROL:
            return _CONTROL[escaped], at + 2
        if escaped and not escaped.isalnum() and escaped.isascii():
            return re.escape(escaped), at + 2
        return None, at
    if character == "[":
        return _class(text, at)
    if character == ".":
        return "[^\\n]", at + 1
    return (None, at) if character in _META else (re.escape(character), at + 1)


def _class(text: str, start: int) -> tuple[str | None, int]:
    at = start + 1
    negated = text[at : at + 1] == "^"
    at += negated
    made: list[str] = []
    while at < len(text) and text[at] != "]":
        character = text[at]
        if character == "\\":
            escaped = text[at + 1 : at + 2]
            if escaped in _IN_CLASS:
                made.append(_IN_CLASS[escaped])
            elif escaped in _CONTROL:
                made.append(_CONTROL[escaped])
            elif escaped and not escaped.isalnum() and escaped.isascii():
                made.append("\\" + escaped)
            else:
                return None, start
            at += 2
            if text[at : at + 1] == "-" and text[at + 1 : at + 2] != "]":
                return None, start
        elif character == "[":
            return None, start
        elif text[at + 1 : at + 2] == "-" and text[at + 2 : at + 3] not in {"]", "", "\\", "["}:
            first, last = character, text[at + 2]
            if first > last or not (first.isalnum() and last.isalnum()):
                return None, start
            made.append(f"{first}-{last}")
            at += 3
        else:
            made.append(re.escape(character))
            at += 1
    if at >= len(text) or not made:
        return None, start
    return f"[{'^' if negated else ''}{''.join(made)}]", at + 1
