"""Patterns of paths.

Source: the patterns are those of github.com/bmatcuk/doublestar/v4, which the Collector uses.
"""

import os
import re
from typing import Any, Final

__all__ = ["expanded", "glob_pattern", "steps_of"]

_MAGIC: Final = re.compile(r"[*?\[{\\]")


def glob_pattern(glob: str) -> "re.Pattern[str]":
    r"""The regular expression of a pattern of paths.

    >>> bool(glob_pattern("/var/log/**/*.{log,txt}").fullmatch("/var/log/a/b/c.log"))
    True

    Raises:
        ValueError: The pattern is not valid.
    """
    made: list[str] = []
    at = depth = 0
    while at < len(glob):
        char = glob[at]
        at += 1
        if char == "*":
            if glob.startswith("*", at) and (at == 1 or glob[at - 2] == "/") and glob[at + 1 : at + 2] in {"", "/"}:
                at += 2
                made.append("(?:[^/]*/)*" if at <= len(glob) else ".*")
            else:
                made.append("[^/]*")
        elif char == "?":
            made.append("[^/]")
        elif char == "[":
            end = glob.find("]", at + 1)
            if end < 0:
                raise ValueError(f"{glob!r} is not a valid pattern: '[' has no ']'")
            chars = glob[at:end]
            negated = chars[:1] in {"^", "!"}
            chars = re.sub(r"([\[\]^&~|])", r"\\\1", chars[negated:])
            made.append(f"(?!/)[{'^' if negated else ''}{chars}]")
            at = end + 1
        elif char == "{":
            depth += 1
            made.append("(?:")
        elif char == "}" and depth:
            depth -= 1
            made.append(")")
        elif char == "," and depth:
            made.append("|")
        elif char == "\\" and at < len(glob):
            made.append(re.escape(glob[at]))
            at += 1
        else:
            made.append(re.escape(char))
    if depth:
        raise ValueError(f"{glob!r} is not a valid pattern: '{{' has no '}}'")
    try:
        return re.compile("".join(made), re.DOTALL)
    except re.error as error:
        raise ValueError(f"{glob!r} is not a valid pattern: {error}") from None


def expanded(glob: str) -> list[str]:
    """The pattern without braces: one for each alternative, which may have several parts of a path."""
    braces = re.search(r"\{([^{}]*)\}", glob)
    if braces is None:
        return [glob]
    before, after = glob[: braces.start()], glob[braces.end() :]
    return [made for option in braces.group(1).split(",") for made in expanded(f"{before}{option}{after}")]


def steps_of(glob: str) -> tuple[str, list[Any]]:
    """The folder to begin in, and a step for each part of the path: a name, a pattern, or None for ``**``."""
    parts = os.path.normpath(glob).split("/")
    steps: list[Any] = [None if part == "**" else glob_pattern(part) if _MAGIC.search(part) else part for part in parts]
    root = ""
    if steps and steps[0] == "":
        root, steps = "/", steps[1:]
    return root, steps
