"""Protobuf fields in Python, for what is encoded or read once per distinct value; kernels handle the items.

Source: protobuf encoding guide (varints, tags, length-delimited fields).
"""

from collections.abc import Iterator
from typing import Final

__all__ = [
    "FIXED32",
    "FIXED64",
    "LENGTH_DELIMITED",
    "VARINT",
    "bytes_field",
    "field",
    "field_tag",
    "fields",
    "number_field",
    "read_varint",
    "text_field",
    "varint",
]

VARINT: Final = 0
FIXED64: Final = 1
LENGTH_DELIMITED: Final = 2
FIXED32: Final = 5
"""The wire types."""


def varint(value: int) -> bytes:
    """``value``, at least 0, as a varint."""
    parts = bytearray()
    while value >= 0x80:
        parts.append(value & 0x7F | 0x80)
        value >>= 7
    parts.append(value)
    return bytes(parts)


def field_tag(number: int, wire_type: int) -> bytes:
    """The encoded tag of a field."""
    return varint(number << 3 | wire_type)


def field(tag: bytes, content: bytes) -> bytes:
    """A length-delimited field: its encoded tag, the length and the content."""
    return tag + varint(len(content)) + content


def number_field(number: int, value: int) -> bytes:
    """A varint field; nothing for 0, as in proto3."""
    return varint(number << 3) + varint(value) if value else b""


def bytes_field(number: int, value: bytes) -> bytes:
    """A length-delimited field; nothing if it is empty, as in proto3."""
    return field(field_tag(number, LENGTH_DELIMITED), value) if value else b""


def text_field(number: int, value: str) -> bytes:
    """A field of text; nothing if it is empty, as in proto3."""
    return bytes_field(number, value.encode())


def fields(message: bytes) -> Iterator[tuple[int, bytes]]:
    r"""Tag byte and content of each field of a message that has only length-delimited fields with tags of one byte.

    Nothing is checked: the message must be one that we wrote.

    >>> list(fields(field(b"\x0a", b"ab") + field(b"\x12", b"")))
    [(10, b'ab'), (18, b'')]
    """
    at = 0
    while at < len(message):
        tag = message[at]
        length, at = read_varint(message, at + 1)
        yield tag, message[at : at + length]
        at += length


def read_varint(content: bytes, at: int) -> tuple[int, int]:
    """(value, where it ends) of the varint at ``at``. A truncated one ends after ``len(content)``."""
    value = shift = 0
    while at < len(content):
        byte = content[at]
        value |= (byte & 0x7F) << shift
        at += 1
        shift += 7
        if byte < 0x80:
            return value % 2**64, at
    return value % 2**64, len(content) + 1
