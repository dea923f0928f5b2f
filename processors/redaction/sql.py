"""Replaces the values in SQL statements by ``?``, also in statements that are cut off or not valid.

What a value is follows the Collector, so that statements stay recognisable: strings, numbers, booleans, nulls,
positional parameters and dollar-quoted strings; digits in names (``orders_2024``) as well. Comments stay.

Source: github.com/DataDog/go-sqllexer v0.1.12, which the Collector uses (what a token is, what is replaced).
"""

import re
from typing import Final

__all__ = ["sanitize_sql"]

_LETTER: Final = r"[^\W\d]"
_DIGITS: Final = re.compile(r"[0-9]+")
_FUNCTION_TAG: Final = "$func$"
# Possessive quantifiers (*+) keep each of these linear in the length of the statement.
_TOKENS: Final = {
    "space": r"[ \t\n\r]++",
    "constant": r"(?i:true|false|null)(?=[(),;.:\[\]{} \t\n\r]|\Z)",
    "function": rf"{_LETTER}(?:{_LETTER}|[0-9\".?$#/@!])*+(?=\()",
    "name": rf"{_LETTER}(?:{_LETTER}|[0-9\".?$#/@!])*+",
    "string": r"'(?:[^'\\]|\\.)*+(?:'|\\?\Z)",
    "comment": r"--[^\n]*+|/\*(?s:.*?)(?:\*/|\Z)",
    "number": r"[+-](?=[0-9.])(?:[eE][+-]?|[0-9.])*+|0[xX][0-9a-fA-F]*+|0[0-7]++|[0-9](?:[eE][+-]?|[0-9.])*+",
    "wildcard": r"\*",
    "position": r"\$[0-9]++",
    "dollar": r"\$(?=[^0-9]|\Z)",
    "variable": rf"@@(?:{_LETTER}|[0-9])*+|@(?:{_LETTER}|[0-9])++|@[?>]",
    "operator": r"->>?|\#>>?|\#-|\?[|&]|<@|(?:=(?![?@])|[-+*/<>!&|^%~?@:\#]|=(?=[?@]))(?:(?<!=)[-+*/=<>!&|^%~?@:\#]"
    r"|(?<==)[-+*/=<>!&|^%~:\#])*+",
}
_QUOTED: Final = r"{0}[^{0}]*+(?:{0}\.{0}[^{0}]*+)*+(?:{0}|\Z)"
_MYSQL_TOKENS: Final = {
    "string": _TOKENS["string"] + r"|\"(?:[^\"\\]|\\.)*+(?:\"|\\?\Z)",
    "quoted": _QUOTED.format("`"),
    "comment": r"(?:--|\#)[^\n]*+|/\*(?s:.*?)(?:\*/|\Z)",
}
_OTHER_TOKENS: Final = {"quoted": _QUOTED.format('"')}


def _compiled(tokens: dict[str, str]) -> re.Pattern[str]:
    alternatives = [f"(?P<{name}>{pattern})" for name, pattern in tokens.items()]
    return re.compile("|".join([*alternatives, "(?P<other>.)"]), re.DOTALL)


# Comments come before operators and numbers before operators; what is quoted is never part of a name.
_OTHER: Final = _compiled({**_TOKENS, **_OTHER_TOKENS})
_MYSQL: Final = _compiled({**_TOKENS, **_MYSQL_TOKENS})
_MYSQL_SYSTEMS: Final = {"mysql", "mariadb"}
"""Systems in which double quotes enclose strings."""


def sanitize_sql(statement: str, system: str = "") -> str:
    """The statement of a ``db.system`` with ``?`` in place of values.

    >>> sanitize_sql("SELECT * FROM orders_2024 WHERE name = 'Ada' AND id IN (17, 18)")
    'SELECT * FROM orders_? WHERE name = ? AND id IN (?, ?)'
    """
    pattern = _MYSQL if system in _MYSQL_SYSTEMS else _OTHER
    statement = statement.partition("\0")[0]
    written: list[str] = []
    at = 0
    while at < len(statement):
        token = pattern.match(statement, at)
        assert token is not None  # the last alternative matches any character
        kind, text = token.lastgroup, token.group()
        at = token.end()
        match kind:
            case "string" | "number" | "constant" | "position":
                written.append("?")
            case "name":
                written.append(_DIGITS.sub("?", text))
            case "quoted":
                is_closed = len(text) > 1 and text[-1] == text[0]
                written.append(_DIGITS.sub("?", text) if is_closed else "?")
            case "dollar":
                at, replaced = _dollar_quoted(statement, at, system)
                written.append(replaced)
            case _:
                written.append(text)
    return "".join(written).strip()


def _dollar_quoted(statement: str, at: int, system: str) -> tuple[int, str]:
    """Where a string that begins with ``$`` before ``at`` ends, and what replaces it."""
    tag_end = statement.find("$", at)
    if tag_end < 0:
        return len(statement), "?"
    tag = statement[at - 1 : tag_end + 1]
    close = statement.find(tag, tag_end + 1)
    if close < 0:
        return len(statement), "?"
    if tag == _FUNCTION_TAG:
        content = statement[tag_end + 1 : close]
        return close + len(tag), f"{tag}{sanitize_sql(content, system)}{tag}"
    return close + len(tag), "?"
