"""Protobuf fields encoded in Python, for what is encoded once per distinct value and cached; kernels encode the items.

What we wrote can be read back, for what happens once in a while.

Source: protobuf encoding guide (varints, length-delimited fields).
"""

from collections.abc import Iterator

__all__ = ["field", "fields", "read_varint", "varint"]


def varint(value: int) -> bytes:
    """``value``, at least 0, as a varint."""
    parts = bytearray()
    while value >= 0x80:
        parts.append(value & 0x7F | 0x80)
        value >>= 7
    parts.append(value)
    return bytes(parts)


def field(tag: bytes, content: bytes) -> bytes:
    """A length-delimited field: its encoded tag, the length and the content."""
    return tag + varint(len(content)) + content


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


def read_varint(message: bytes, at: int) -> tuple[int, int]:
    """The varint at ``at`` and the position after it."""
    value = shift = 0
    while message[at] >= 0x80:
        value |= (message[at] & 0x7F) << shift
        shift += 7
        at += 1
    return value | message[at] << shift, at + 1
