r"""The patterns of ``replace_match``: ``*``, ``?``, ``[a-z]``, ``[!a]``, ``{one,two}`` and ``\\`` before a character.

They match whole texts, in linear time.
Source: github.com/gobwas/glob, which the Collector uses.
"""

import re
from typing import Final

from collector.text.patterns import Pattern, compile_pattern

__all__ = ["compile_glob"]

_MAX_DEPTH: Final = 32


def compile_glob(text: str) -> Pattern:
    """The compiled pattern.

    Raises:
        ValueError: it is not valid.
    """
    made, depth, at = ["(?s)"], 0, 0
    while at < len(text):
        character = text[at]
        at += 1
        if character == "*":
            while text[at : at + 1] == "*":
                at += 1
            made.append(".*")
        elif character == "?":
            made.append(".")
        elif character == "\\" and at < len(text):
            made.append(re.escape(text[at]))
            at += 1
        elif character == "[":
            end = _end_of_list(text, at)
            made.append(_list(text[at:end]))
            at = end + 1
        elif character == "{":
            depth += 1
            if depth > _MAX_DEPTH:
                raise ValueError(f"invalid pattern {text!r}: it is nested deeper than {_MAX_DEPTH} levels")
            made.append("(?:")
        elif character == "}" and depth:
            depth -= 1
            made.append(")")
        elif character == "," and depth:
            made.append("|")
        else:
            made.append(re.escape(character))
    if depth:
        raise ValueError(f"invalid pattern {text!r}: a brace is not closed")
    return compile_pattern("".join(made))


def _end_of_list(text: str, at: int) -> int:
    while at < len(text) and text[at] != "]":
        at += 2 if text[at] == "\\" else 1
    if at >= len(text):
        raise ValueError(f"invalid pattern {text!r}: a bracket is not closed")
    return at


def _list(content: str) -> str:
    negated, members = content.startswith("!"), content.removeprefix("!")
    if len(members) == 3 and members[1] == "-":
        inside = f"{re.escape(members[0])}-{re.escape(members[2])}"
    else:
        inside = re.sub(r"\\(.)", r"\1", members)
        inside = "".join("\\" + c if c in "\\]^-[" else c for c in inside)
    return f"[{'^' if negated else ''}{inside}]"
