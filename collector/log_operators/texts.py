"""Functions from a text to a value, for parsers that are not compiled. They are called once per distinct text.

Source: opentelemetry-collector-contrib pkg/stanza/operator/parser and internal/coreinternal/parseutils (v0.156).
"""

import re
from collections.abc import Callable
from typing import Any, Final
from urllib.parse import unquote, unquote_plus

import orjson

from collector.ottl.text_forms import parse_csv
from collector.ottl.values import EvaluationError
from collector.text.patterns import compile_pattern

__all__ = ["csv_function", "json_array_function", "parse_uri", "regex_function", "unquoted"]

Parse = Callable[[str], Any]
"""Returns the value; raises ValueError if the text is not of the expected form."""


def regex_function(regex: str) -> Parse:
    """The named groups of the first match."""
    pattern = compile_pattern(regex)
    names = pattern.groupindex

    def parse(text: str) -> dict[str, str]:
        match = pattern.search(text)
        if match is None:
            raise ValueError("no match")
        return {name: match.group(number) or "" for name, number in names.items()}

    return parse


def csv_function(header: str, delimiter: str, header_delimiter: str, mode: str) -> Parse:
    """The values of a row by the names in the header. ``mode``: ``strict``, ``lazyQuotes`` or ``ignoreQuotes``."""

    def parse(text: str) -> Any:
        try:
            return parse_csv(text, header, delimiter, header_delimiter, mode)
        except EvaluationError:
            raise ValueError("no row") from None

    return parse


def json_array_function(keys: list[str]) -> Parse:
    """The values of an array, by these keys if there are any. Objects in it become texts."""

    def parse(text: str) -> Any:
        values = orjson.loads(text)  # its error is a ValueError
        if not isinstance(values, list):
            raise ValueError("no array")  # noqa: TRY004 - as all functions here
        if any(isinstance(value, list) for value in values):
            raise ValueError("an array in the array")
        made = [orjson.dumps(value).decode() if isinstance(value, dict) else value for value in values]
        if not keys:
            return made
        if len(made) != len(keys):
            raise ValueError("another number of values than keys")
        return dict(zip(keys, made, strict=True))

    return parse


_URI: Final = re.compile(r"(?:([A-Za-z][A-Za-z0-9+.\-]*):)?(?://([^/?]*))?([^?]*)(?:\?(.*))?", re.DOTALL)
_HOST: Final = re.compile(r"(\[[^\]]*\]|[^:\[\]]*)(?::(\d*))?")
_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f]")
_BAD_ESCAPE: Final = re.compile(r"%(?![0-9A-Fa-f]{2})")


def parse_uri(text: str) -> dict[str, Any]:
    """Scheme, user, host, port, path and query of an absolute URI or path, or the parameters of a query."""
    if text.startswith("?"):
        return _query(text[1:], strict=True)
    match = _URI.fullmatch(text)
    if not text or match is None or _CONTROL.search(text):
        raise ValueError("no URI")
    scheme, authority, path, query = match.groups()
    if scheme is None and not text.startswith("/"):
        raise ValueError("no absolute URI")
    userinfo, _, host_text = (authority or "").rpartition("@")
    host = _HOST.fullmatch(host_text)
    if host is None or re.search(r'[\s<>"]', host_text) or _BAD_ESCAPE.search(path + userinfo):
        raise ValueError("no URI")
    is_opaque = scheme is not None and authority is None and not path.startswith("/")
    found = {
        "scheme": (scheme or "").lower(),
        "user": unquote(userinfo.partition(":")[0]),
        "host": unquote(host.group(1)).strip("[]"),
        "port": host.group(2) or "",
        "path": "" if is_opaque else path,
    }
    return {key: value for key, value in found.items() if value} | _query(query or "", strict=False)


def _query(text: str, *, strict: bool) -> dict[str, Any]:
    made: dict[str, list[str]] = {}
    for pair in text.split("&"):
        if not pair:
            continue
        if ";" in pair or _BAD_ESCAPE.search(pair):
            if strict:
                raise ValueError("no query")
            continue
        name, _, content = pair.partition("=")
        made.setdefault(unquote_plus(name), []).append(unquote_plus(content))
    return {"query": made} if made else {}


_ESCAPES: Final = {"a": "\a", "b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t", "v": "\v", "\\": "\\"}
_ESCAPE: Final = re.compile(r"\\(x[0-9a-fA-F]{2}|u[0-9a-fA-F]{4}|U[0-9a-fA-F]{8}|[0-7]{3}|.)", re.DOTALL)


def unquoted(text: str) -> str:
    """The text of a Go literal in double quotes, single quotes or backquotes. Source: Go's strconv.Unquote."""
    if len(text) < 2 or text[0] != text[-1] or text[0] not in "\"'`":
        raise ValueError("no quotes")
    quote, inner = text[0], text[1:-1]
    if quote == "`":
        if "`" in inner:
            raise ValueError("a quote in the text")
        return inner.replace("\r", "")
    if "\n" in inner or quote in re.sub(r"\\.", "", inner, flags=re.DOTALL):
        raise ValueError("a quote or a line break in the text")
    raw: list[bytes] = []
    at = 0
    for match in _ESCAPE.finditer(inner):
        raw += [inner[at : match.start()].encode(), _escaped(match.group(1), quote)]
        at = match.end()
    rest = inner[at:]
    if "\\" in rest:
        raise ValueError("an escape without an end")
    made = b"".join([*raw, rest.encode()]).decode("utf-8", "replace")
    if quote == "'" and len(made) != 1:
        raise ValueError("single quotes hold one character")
    return made


def _escaped(escape: str, quote: str) -> bytes:
    if escape in _ESCAPES:
        return _ESCAPES[escape].encode()
    if escape == quote:
        return escape.encode()
    if escape[0] == "x" and len(escape) == 3:
        return bytes([int(escape[1:], 16)])
    if escape[0] in "uU" and len(escape) > 4:
        return chr(int(escape[1:], 16)).encode()
    if len(escape) == 3 and int(escape, 8) < 256:
        return bytes([int(escape, 8)])
    raise ValueError("an unknown escape")
