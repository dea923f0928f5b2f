"""Names of any characters on a page, and what scrapers that know only legacy names receive instead.

Prometheus 3 asks for UTF-8 names with ``escaping=allow-utf-8`` in its Accept header; they are quoted then. For others
they are escaped as they ask.

Source: prometheus/common model/metric.go (EscapeName), expfmt/encode.go (Negotiate), expfmt/text_create.go.
"""

import re
from typing import Final

from collector.prometheus import escape_by_values
from collector.text.cache import TextCache

__all__ = ["ALLOW_UTF8", "Format", "escape_name", "escape_names", "is_legacy_label", "is_legacy_name", "negotiate"]

ALLOW_UTF8: Final = "allow-utf-8"
_SCHEMES: Final = (ALLOW_UTF8, "underscores", "dots", "values")
_ESCAPED: Final = {scheme: TextCache[str](max_bytes=1024 * 1024) for scheme in _SCHEMES}
_LEGACY_NAME: Final = re.compile(r"[a-zA-Z_:][a-zA-Z0-9_:]*", re.ASCII)
_LEGACY_LABEL: Final = re.compile(r"[a-zA-Z_][a-zA-Z0-9_]*", re.ASCII)
_TEXT: Final = rb'"((?:[^"\\]|\\.)*)"'
_COMMENT: Final = re.compile(rb"# (HELP|TYPE) (?:" + _TEXT + rb"|(\S+))")
_LABEL: Final = re.compile(rb"(?:" + _TEXT + rb"|([^\"=,{}\s]+))=" + _TEXT + rb",?")
_METRIC: Final = re.compile(rb"(?:\{" + _TEXT + rb",?|([^{\s]+)\{?)")
_EXEMPLAR: Final = b" # {"
_SUFFIXES: Final = ("", "_total", "_bucket", "_sum", "_count")


def is_legacy_name(name: str) -> bool:
    """Whether a metric of that name needs no quotes."""
    return _LEGACY_NAME.fullmatch(name) is not None


def is_legacy_label(name: str) -> bool:
    """Whether a label of that name needs no quotes."""
    return _LEGACY_LABEL.fullmatch(name) is not None


class Format:
    """What a scraper accepts. ``escaping`` is one of Prometheus' schemes."""

    __slots__ = ("content_type", "escaping", "openmetrics")

    def __init__(self, openmetrics: bool, version: str, escaping: str) -> None:
        kind = "application/openmetrics-text" if openmetrics else "text/plain"
        self.openmetrics = openmetrics
        self.escaping = escaping or "underscores"
        self.content_type = f"{kind}; version={version}; charset=utf-8"
        if escaping:
            self.content_type += f"; escaping={escaping}"


def negotiate(accept: str, *, openmetrics: bool) -> Format:
    """The format for an Accept header: the one with the highest weight of those we have."""
    choices: list[tuple[float, int, Format]] = []
    for position, entry in enumerate(accept.split(",")):
        media_type, *parameters = (part.strip() for part in entry.split(";"))
        values = {
            key.strip().lower(): value.strip().strip('"')
            for key, _, value in (parameter.partition("=") for parameter in parameters)
        }
        escaping = values.get("escaping", "")
        if escaping not in _SCHEMES:
            escaping = ""
        try:
            weight = float(values.get("q", "1"))
        except ValueError:
            weight = 0.0
        version = values.get("version", "")
        if media_type == "application/openmetrics-text" and openmetrics and version in ("", "0.0.1", "1.0.0"):
            choices.append((-weight, position, Format(True, version or "1.0.0", escaping)))
        elif media_type in ("text/plain", "text/*", "*/*") and version in ("", "0.0.4", "1.0.0"):
            choices.append((-weight, position, Format(False, version or "0.0.4", escaping)))
    choices = [choice for choice in choices if choice[0] < 0]
    return min(choices, key=lambda choice: choice[:2])[2] if choices else Format(False, "0.0.4", "")


def escape_name(name: str, scheme: str) -> str:
    """The name with legacy characters only.

    >>> [escape_name("a.b_c", scheme) for scheme in ("underscores", "dots", "values")]
    ['a_b_c', 'a_dot_b__c', 'U__a_2e_b__c']
    """
    known = _ESCAPED[scheme].get(name, "")
    if not known:
        known = _escape(name, scheme)
        _ESCAPED[scheme].put(name, known)
    return known


def _escape(name: str, scheme: str) -> str:
    if not name or scheme == ALLOW_UTF8 or (scheme != "dots" and is_legacy_name(name)):
        return name
    if scheme == "values":
        return escape_by_values(name)
    legacy = [is_legacy_name("_" * (i > 0) + char) for i, char in enumerate(name)]
    if scheme == "underscores":
        return "".join(char if fits else "_" for char, fits in zip(name, legacy, strict=True))
    return "".join(
        "__" if char == "_" else "_dot_" if char == "." else char if fits else "__"
        for char, fits in zip(name, legacy, strict=True)
    )


def escape_names(page: bytes, scheme: str) -> bytes:
    """A page with quoted names as one with escaped names.

    A family whose escaped name another one has already, and a label whose escaped name the series has already, are
    left out.
    """
    lines: list[bytes] = []
    seen: set[str] = set()
    family = ""
    is_shown = True
    for line in page.split(b"\n"):
        if line.startswith(b"# ") and (match := _COMMENT.match(line)):
            family = _name(match[2], match[3])
            name = escape_name(family, scheme)
            if match[1] == b"HELP":
                is_shown = name not in seen
                seen.add(name)
            written = b"# %s %s%s" % (match[1], name.encode(), line[match.end() :])
        elif not line or line.startswith(b"#"):
            lines.append(line)
            continue
        else:
            written = _escape_line(line, family, scheme)
        if is_shown:
            lines.append(written)
    return b"\n".join(lines)


def _escape_line(line: bytes, family: str, scheme: str) -> bytes:
    """One sample with escaped names; what its name has beyond that of the family is left as it is."""
    match = _METRIC.match(line)
    assert match is not None, "the store wrote this line"
    name, at = _name(match[1], match[2]), match.end()
    suffix = name.removeprefix(family)
    name = escape_name(family, scheme) + suffix if suffix in _SUFFIXES else escape_name(name, scheme)
    written = b""
    if match[0].endswith(b"{") or match[1] is not None:
        written, at = _escape_labels(line, at, scheme)
        written = b"{" + written + b"}" if written else b""
    value, mark, exemplar = line[at:].partition(_EXEMPLAR)
    if mark:
        labels, at = _escape_labels(exemplar, 0, scheme)
        value += mark + labels + b"}" + exemplar[at:]
    return name.encode() + written + value


def _escape_labels(text: bytes, at: int, scheme: str) -> tuple[bytes, int]:
    """The labels from ``at`` on with escaped names, and where the brace after them ends."""
    labels: dict[str, bytes] = {}
    while found := _LABEL.match(text, at):
        labels.setdefault(escape_name(_name(found[1], found[2]), scheme).replace(":", "_"), found[3])
        at = found.end()
    return b",".join(b'%s="%s"' % (key.encode(), value) for key, value in labels.items()), at + 1


def _name(quoted: bytes | None, plain: bytes | None) -> str:
    if quoted is None:
        return (plain or b"").decode()
    return re.sub(r"\\(.)", lambda match: "\n" if match[1] == "n" else match[1], quoted.decode())
