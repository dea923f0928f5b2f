"""The labels of a stream as text: ``{job="nginx", path="/"}``, with the strings of Go."""

import re
from typing import Final

from collector.model import MalformedBatch
from collector.text.cache import cached_by_text
from receivers.loki._push import encode_labels

__all__ = ["attributes_of", "parse_labels"]

_LABEL: Final = re.compile(r'\s*([A-Za-z_][A-Za-z0-9_.]*)\s*=\s*(?:"((?:[^"\\\n]|\\.)*)"|`([^`]*)`)\s*(,|$)')
_ESCAPE: Final = re.compile(
    r"\\(?:([abfnrtv\\\"'])|x([0-9A-Fa-f]{2})|u([0-9A-Fa-f]{4})|U([0-9A-Fa-f]{8})|([0-7]{3})|(.?))", re.DOTALL
)
_CHARACTERS: Final = dict(zip("abfnrtv\\\"'", "\a\b\f\n\r\t\v\\\"'", strict=True))


def parse_labels(text: str) -> dict[str, str]:
    r"""The labels of a stream.

    Raises:
        MalformedBatch: The text is not a set of labels.

    >>> parse_labels('{job="a", path="C:\\\\x"}')
    {'job': 'a', 'path': 'C:\\x'}
    """
    inner = text.strip()
    if not (inner.startswith("{") and inner.endswith("}")):
        raise MalformedBatch("streams.labels", -1, 'expected labels such as {job="nginx"}')
    inner = inner[1:-1].strip()
    found: dict[str, str] = {}
    position = 0
    while position < len(inner):
        match = _LABEL.match(inner, position)
        if match is None:
            raise MalformedBatch("streams.labels", -1, 'expected labels such as {job="nginx"}')
        name, quoted, raw, _ = match.groups()
        if name in found:
            raise MalformedBatch("streams.labels", -1, "a label is there twice")
        found[name] = raw if raw is not None else _ESCAPE.sub(_character, quoted)
        position = match.end()
    return found


def _encoded(text: str) -> bytes:
    return encode_labels(parse_labels(text))


attributes_of: Final = cached_by_text(_encoded, max_bytes=16 * 1024 * 1024, max_entry_bytes=16 * 1024)
"""The labels of a stream as the encoded attributes of a record. Raises MalformedBatch as :func:`parse_labels` does."""


def _character(match: re.Match[str]) -> str:
    simple, octets, short, long, octal, _ = match.groups()
    if simple is not None:
        return _CHARACTERS[simple]
    code = octets or short or long
    number = int(code, 16) if code is not None else int(octal, 8) if octal is not None else -1
    if not 0 <= number < 0x110000 or 0xD800 <= number < 0xE000 or (octal is not None and number > 255):
        raise MalformedBatch("streams.labels", -1, "a value has an invalid escape")
    return chr(number)
