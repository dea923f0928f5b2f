"""Converters that take texts apart: key-value pairs, CSV, patterns, URLs, log formats. Called once per distinct text.

Source: opentelemetry-collector-contrib pkg/ottl/ottlfuncs and processor/transformprocessor (v0.156).
"""

import re
from collections.abc import Mapping
from functools import lru_cache
from importlib import import_module
from typing import Any, Final
from urllib.parse import quote, unquote, unquote_plus

from collector.ottl.containers import as_text
from collector.ottl.text import parse_int
from collector.ottl.values import EvaluationError, Scalar
from collector.text.patterns import compile_pattern

__all__ = [
    "camel_case",
    "check_clf",
    "check_csv",
    "check_delimiters",
    "check_groups",
    "extract_patterns",
    "parse_clf",
    "parse_csv",
    "parse_key_values",
    "parse_leef",
    "snake_case",
    "to_key_values",
    "url",
    "user_agent",
]


def _text(value: Scalar) -> str:
    if type(value) is not str:
        raise EvaluationError
    return value


# Letter case, as github.com/iancoleman/strcase has it.


def _form(character: str) -> str:
    if "A" <= character <= "Z":
        return "upper"
    if "a" <= character <= "z":
        return "lower"
    return "digit" if "0" <= character <= "9" else ""


def snake_case(value: Scalar) -> str:
    """``someName`` as ``some_name``."""
    text = _text(value).strip()
    made: list[str] = []
    for index, character in enumerate(text):
        form = _form(character)
        written = character.lower() if form == "upper" else character
        following = _form(text[index + 1]) if index + 1 < len(text) else ""
        if form and following and form != following:
            if form == "upper" and following == "lower" and index and _form(text[index - 1]) == "upper":
                made.append("_")
            made.append(written)
            if form in {"lower", "digit"} or following == "digit":
                made.append("_")
        else:
            made.append("_" if character in " _-." else written)
    return "".join(made)


def camel_case(value: Scalar) -> str:
    """``some_name`` as ``SomeName``."""
    text = _text(value).strip()
    if text == "ID":
        text = "Id"
    made: list[str] = []
    next_upper, previous_upper = True, False
    for character in text:
        form = _form(character)
        written = character
        if next_upper:
            written = character.upper() if form == "lower" else character
        elif previous_upper and form == "upper":
            written = character.lower()
        previous_upper = form == "upper"
        if form:
            made.append(written)
            next_upper = form == "digit"
        else:
            next_upper = character in "_ -."
    return "".join(made)


# Key-value pairs and CSV.


def check_delimiters(literals: Mapping[int, Scalar]) -> None:
    """Check the delimiters of ``ParseKeyValue`` and ``ToKeyValueString``."""
    delimiter, pair_delimiter = literals.get(1, "="), literals.get(2, " ")
    if not delimiter or not pair_delimiter:
        raise ValueError("a delimiter must not be empty")
    if delimiter == pair_delimiter:
        raise ValueError(f"the two delimiters must not be equal, got {delimiter!r}")


def parse_key_values(value: Scalar, delimiter: str = "=", pair_delimiter: str = " ") -> dict[str, Scalar]:
    """The map of a text such as ``a=1 b="x y"``."""
    text = _text(value)
    if not text:
        raise EvaluationError
    made = {}
    for pair in _split_outside_quotes(text, pair_delimiter):
        key, found, content = pair.partition(delimiter)
        if not found:
            raise EvaluationError
        made[key.strip()] = content.strip()
    return made


def _split_outside_quotes(text: str, delimiter: str) -> list[str]:
    parts: list[str] = []
    current: list[str] = []
    quote_character = ""
    escaped = False
    at = 0
    while at < len(text):
        if not quote_character and text.startswith(delimiter, at):
            if current:
                parts.append("".join(current))
                current = []
            at += len(delimiter)
            continue
        character = text[at]
        at += 1
        if escaped:
            escaped = False
        elif not quote_character and character in "\"'":
            quote_character = character
            continue
        elif character == quote_character:
            quote_character = ""
            continue
        else:
            escaped = character == "\\"
        current.append(character)
    if quote_character:
        raise EvaluationError
    return [*parts, "".join(current)] if current else parts


def to_key_values(value: Scalar, delimiter: str = "=", pair_delimiter: str = " ", sort_output: bool = False) -> str:
    """A map as a text such as ``a=1 b="x y"``."""
    if type(value) is not dict:
        raise EvaluationError

    def quoted(text: str) -> str:
        text = text.replace('"', '\\"')
        return f'"{text}"' if pair_delimiter in text or delimiter in text else text

    pairs = [quoted(key) + delimiter + quoted(as_text(value[key])) for key in (sorted(value) if sort_output else value)]
    return pair_delimiter.join(pairs)


def check_csv(literals: Mapping[int, Scalar]) -> None:
    """Check the delimiters and the mode of ``ParseCSV``."""
    delimiter = literals.get(2, ",")
    if len(delimiter) != 1:
        raise ValueError(f"delimiter must be a single character, got {delimiter!r}")
    if "\n" in delimiter or "\r" in delimiter or '"' in delimiter:
        raise ValueError(f"delimiter must not be {delimiter!r}")
    if literals.get(3) == "":
        raise ValueError("header_delimiter must be a single character, got ''")
    if 3 in literals and len(literals[3]) != 1:
        raise ValueError(f"header_delimiter must be a single character, got {literals[3]!r}")
    mode = literals.get(4, "strict")
    if mode not in {"strict", "lazyQuotes", "ignoreQuotes"}:
        raise ValueError(f"mode must be strict, lazyQuotes or ignoreQuotes, got {mode!r}")


def parse_csv(
    value: Scalar, header: Scalar, delimiter: str = ",", header_delimiter: str | None = None, mode: str = "strict"
) -> dict[str, Scalar]:
    """The fields of a CSV line by the names in the header."""
    text, names = _text(value), _text(header)
    if not names:
        raise EvaluationError
    columns = names.split(header_delimiter or delimiter)
    fields = text.split(delimiter) if mode == "ignoreQuotes" else _csv_fields(text, delimiter, mode == "lazyQuotes")
    if len(fields) != len(columns):
        raise EvaluationError
    return dict(zip(columns, fields, strict=True))


def _csv_fields(text: str, delimiter: str, lazy: bool) -> list[str]:
    """The fields of a line; a line break continues the last field. Source: Go 1.26 encoding/csv."""
    text = text.replace("\r\n", "\n")
    fields: list[str] = []
    lines = 0
    at = 0
    while at < len(text):
        if text[at] == "\n":  # empty lines are skipped
            at += 1
            continue
        row, at = _csv_row(text, at, delimiter, lazy)
        if lines:
            fields[-1] += "\n" + row[0]
            fields.extend(row[1:])
        else:
            fields = row
        lines += 1
    if not lines:
        raise EvaluationError
    return fields


def _csv_row(text: str, at: int, delimiter: str, lazy: bool) -> tuple[list[str], int]:
    row: list[str] = []
    while True:
        if at < len(text) and text[at] == '"':
            field, at = _quoted_field(text, at + 1, delimiter, lazy)
        else:
            end = at
            while end < len(text) and text[end] not in {delimiter, "\n"}:
                end += 1
            field, at = text[at:end], end
            if '"' in field and not lazy:
                raise EvaluationError
        row.append(field)
        if at >= len(text):
            return row, at
        character = text[at]
        at += 1
        if character == "\n":
            return row, at


def _quoted_field(text: str, at: int, delimiter: str, lazy: bool) -> tuple[str, int]:
    made: list[str] = []
    while True:
        end = text.find('"', at)
        if end < 0:
            if not lazy:
                raise EvaluationError
            made.append(text[at:])
            return "".join(made), len(text)
        made.append(text[at:end])
        following = text[end + 1 : end + 2]
        if following == '"':
            made.append('"')
            at = end + 2
        elif following in {delimiter, "\n", ""}:
            return "".join(made), end + 1
        elif lazy:
            made.append('"')
            at = end + 1
        else:
            raise EvaluationError


# Patterns.


def check_groups(literals: Mapping[int, Scalar]) -> None:
    """Check the pattern of ``ExtractPatterns``."""
    if isinstance(literals.get(1), str):
        compile_pattern(literals[1])


@lru_cache(maxsize=8)  # a pattern may be the value of an attribute, and a compiled one takes up to 8 MB
def _compiled(pattern: str) -> Any:
    return compile_pattern(pattern)


def extract_patterns(value: Scalar, pattern: Scalar) -> dict[str, Scalar]:
    """The named groups of the first match of a pattern."""
    try:
        compiled = _compiled(_text(pattern))
    except ValueError:
        raise EvaluationError from None
    if not compiled.groupindex:
        raise EvaluationError
    match = compiled.search(_text(value))
    return {} if match is None else {name: match.group(name) or "" for name in compiled.groupindex}


# URLs and user agents.

_URL: Final = re.compile(r"(?:([A-Za-z][A-Za-z0-9+.\-]*):)?(?://([^/?#]*))?([^?#]*)(?:\?([^#]*))?(?:#(.*))?", re.DOTALL)
_HOST: Final = re.compile(r"(\[[^\]]*\]|[^:\[\]]*)(?::(\d*))?")


def url(value: Scalar) -> dict[str, Scalar]:
    """The parts of a URL, by the names of the semantic conventions."""
    text = _text(value)
    match = _URL.fullmatch(text)
    if not text or match is None or re.search(r"[\x00-\x1f\x7f]", text):
        raise EvaluationError
    if text.startswith("?"):
        return _query(text[1:])
    if text.startswith(":"):
        raise EvaluationError
    scheme, authority, path, query, fragment = match.groups()
    if authority is None and scheme is None and ":" in path.split("/")[0]:
        raise EvaluationError
    userinfo, at, host_text = (authority or "").rpartition("@")
    host = _HOST.fullmatch(host_text)
    if host is None or re.search(r'[\s<>"]', host_text) or not _escapes_are_valid(path + (fragment or "") + userinfo):
        raise EvaluationError
    is_opaque = scheme is not None and authority is None and not path.startswith("/")
    plain_path = "" if is_opaque else unquote(path)
    made: dict[str, Scalar] = {
        "url.original": text if is_opaque else _original(scheme, authority, path, query, fragment),
        "url.domain": unquote(host.group(1)).strip("[]"),
        "url.scheme": (scheme or "").lower(),
        "url.path": plain_path,
    }
    if host.group(2):
        made["url.port"] = parse_int(host.group(2))
    if fragment:
        made["url.fragment"] = unquote(fragment)
    if at:
        name, colon, password = userinfo.partition(":")
        made["url.user_info"] = userinfo
        if name:
            made["url.username"] = unquote(name)
        if colon:
            made["url.password"] = unquote(password)
    if query:
        made["url.query"] = query
    _, dot, extension = plain_path.rpartition(".")
    if dot and extension:
        made["url.extension"] = extension
    return made


def _escapes_are_valid(text: str) -> bool:
    return not re.search(r"%(?![0-9A-Fa-f]{2})", text)


_PATH_SAFE: Final = "/$&+,:;=@!*'()~[]%"


def _original(scheme: str | None, authority: str | None, path: str, query: str | None, fragment: str | None) -> str:
    text = f"{scheme.lower()}:" if scheme else ""
    text += f"//{authority}" if authority is not None else ""
    text += quote(path, safe=_PATH_SAFE)
    text += f"?{query}" if query is not None else ""
    return text + (f"#{quote(fragment, safe=_PATH_SAFE + '?')}" if fragment else "")


def _query(text: str) -> dict[str, Scalar]:
    made: dict[str, Scalar] = {}
    for pair in text.split("&"):
        if not pair:
            continue
        if ";" in pair or not _escapes_are_valid(pair):
            raise EvaluationError
        name, _, content = pair.partition("=")
        made.setdefault(unquote_plus(name), []).append(unquote_plus(content))
    return made


def user_agent(value: Scalar) -> dict[str, Scalar]:
    """What a user agent says about the program and the operating system."""
    text = _text(value)
    parse = import_module("ua_parser").parse
    found = parse(text)
    program, system = found.user_agent, found.os
    made = {
        "user_agent.name": program.family if program else "Other",
        "user_agent.original": text,
        "user_agent.version": _version(program, "major", "minor", "patch") if program else "",
        "os.name": system.family if system else "Other",
    }
    version = _version(system, "major", "minor", "patch", "patch_minor") if system else ""
    return {**made, **({"os.version": version} if version else {})}


def _version(found: Any, *names: str) -> str:
    parts: list[str] = []
    for name in names:
        part = getattr(found, name)
        if not part:
            break
        parts.append(part)
    return ".".join(parts)


# Log formats.

_QUOTED: Final = r'"((?:[^"\\]|\\.)*)"'
_CLF: Final = compile_pattern(rf"^(\S+) (\S+) (\S+) \[([^\]]+)\] {_QUOTED} (\S+) (\S+)$")
_COMBINED: Final = compile_pattern(rf"^(\S+) (\S+) (\S+) \[([^\]]+)\] {_QUOTED} (\S+) (\S+) {_QUOTED} {_QUOTED}$")
_ESCAPES: Final = {
    "\\": "\\", '"': '"', "n": "\n", "t": "\t", "r": "\r", "b": "\b", "f": "\f", "v": "\v",
}  # fmt: skip


def check_clf(literals: Mapping[int, Scalar]) -> None:
    """Check the format of ``ParseCLF``."""
    if literals.get(1, "clf") not in {"clf", "combined"}:
        raise ValueError(f"format must be 'clf' or 'combined', got {literals[1]!r}")


def _unescaped(text: str) -> str:
    def plain(match: re.Match[str]) -> str:
        if match.group(1):
            return bytes([int(match.group(1), 16)]).decode("utf-8", "replace")
        return _ESCAPES.get(match.group(2), match.group())

    return re.sub(r"\\(?:x([0-9A-Fa-f]{2})|(.))", plain, text, flags=re.DOTALL)


def parse_clf(value: Scalar, form: str = "clf") -> dict[str, Scalar]:
    """The fields of a line in the common or combined log format."""
    match = (_COMBINED if form == "combined" else _CLF).search(_text(value).strip())
    if match is None:
        raise EvaluationError
    fields = match.groups("")
    request = _unescaped(fields[4])
    made: dict[str, Scalar] = {
        "clf.remote_host": fields[0],
        "clf.rfc931": fields[1],
        "clf.auth_user": fields[2],
        "clf.timestamp": fields[3],
        "clf.request": request,
    }
    parts = request.split(" ", 2)
    if len(parts) == 3:
        made["clf.method"], made["clf.request_uri"], made["clf.protocol"] = parts
    made["clf.status"] = parse_int(fields[5])
    if fields[6] != "-":
        made["clf.bytes"] = parse_int(fields[6])
    if form == "combined":
        made["clf.referer"], made["clf.user_agent"] = _unescaped(fields[7]), _unescaped(fields[8])
    return made


def parse_leef(value: Scalar) -> dict[str, Scalar]:
    """The fields of a message in the Log Event Extended Format, 1.0 or 2.0."""
    text = _text(value)
    start = text.find("LEEF:")
    version, bar, rest = text[start + 5 :].partition("|") if start >= 0 else ("", "", "")
    if not bar or version not in {"1.0", "2.0"}:
        raise EvaluationError
    parts = rest.split("|", 4)
    if len(parts) < 4:
        raise EvaluationError
    attributes = parts[4] if len(parts) > 4 else ""
    delimiter = "\t"
    if version == "2.0" and attributes:
        mark, _, after = attributes.partition("|")
        if "=" not in mark:
            delimiter, attributes = _leef_delimiter(mark), after
    return {
        "leef.version": version,
        "leef.vendor": parts[0],
        "leef.product.name": parts[1],
        "leef.product.version": parts[2],
        "leef.event.id": parts[3],
        "leef.attributes": {
            key: content
            for pair in attributes.split(delimiter)
            for key, equals, content in [pair.partition("=")]
            if equals and key
        },
    }


def _leef_delimiter(mark: str) -> str:
    if not mark:
        return "\t"
    if mark[:2].lower() == "0x":
        if not re.fullmatch(r"[0-9A-Fa-f]{2}", mark[2:]):
            raise EvaluationError
        return bytes.fromhex(mark[2:]).decode("latin-1")
    if len(mark) != 1:
        raise EvaluationError
    return mark
