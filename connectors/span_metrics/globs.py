r"""Globs of attribute keys, with ``.`` as separator: ``k8s.*.name``, ``db.**.name``. They become RE2 patterns.

So matching takes linear time. Source of the syntax: gobwas/glob, which the Collector uses. ``*`` matches any characters
but separators, ``**`` any characters, ``?`` one character but a separator; ``[abc]``, ``[!a-c]`` and ``{a,b}`` are as
usual, and ``\`` escapes.
"""

import re
from collections.abc import Callable

from collector.text.patterns import compile_pattern

__all__ = ["compile_glob"]


def compile_glob(glob: str) -> Callable[[str], bool]:
    """A function that returns whether a whole key matches.

    Raises:
        ValueError: ``glob`` is malformed.
    """
    pattern = compile_pattern(_translate(glob))
    return lambda key: pattern.fullmatch(key) is not None


def _translate(glob: str) -> str:
    parts: list[str] = []
    at, depth = 0, 0
    while at < len(glob):
        char = glob[at]
        at += 1
        if char == "*":
            is_super = glob[at : at + 1] == "*"
            while glob[at : at + 1] == "*":
                at += 1
            parts.append(r"(?s:.*)" if is_super else r"[^.]*")
        elif char == "?":
            parts.append(r"[^.]")
        elif char == "[":
            end = glob.find("]", at + 1)
            if end < 0:
                raise ValueError(f"glob {glob!r}: '[' is not closed by ']'")
            parts.append(_members(glob, glob[at:end]))
            at = end + 1
        elif char == "{":
            depth += 1
            parts.append("(?:")
        elif char == "}" and depth:
            depth -= 1
            parts.append(")")
        elif char == "," and depth:
            parts.append("|")
        elif char == "\\":
            if at == len(glob):
                raise ValueError(
                    f"glob {glob!r} ends in a backslash, which must be followed by the character that it escapes"
                )
            parts.append(re.escape(glob[at]))
            at += 1
        else:
            parts.append(re.escape(char))
    if depth:
        raise ValueError(f"glob {glob!r}: '{{' is not closed by '}}'")
    return "".join(parts)


def _members(glob: str, inner: str) -> str:
    negated = inner.startswith("!")
    members = inner.removeprefix("!")
    if not members or members.startswith("-") or members.endswith("-"):
        raise ValueError(f"glob {glob!r}: [{inner}] is not a set of characters (examples: [abc], [!a-c])")
    escaped = "".join(char if char == "-" else re.escape(char) for char in members)
    return f"[{'^' if negated else ''}{escaped}]"
