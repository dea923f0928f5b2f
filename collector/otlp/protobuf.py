"""Protobuf fields encoded in Python, for what is encoded once per distinct value and cached; kernels encode the items.

Source: protobuf encoding guide (varints, length-delimited fields).
"""

__all__ = ["field", "varint"]


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
