"""Pieces of protobuf messages for tests that build wire bytes by hand, through protobuf's own encoder and decoder."""

from google.protobuf.internal.decoder import _DecodeVarint
from google.protobuf.internal.encoder import _VarintBytes

__all__ = ["padded_varint", "tag", "varint", "varints"]


def varint(value: int) -> bytes:
    """``value`` ≥ 0 as a varint."""
    return bytes(_VarintBytes(value))


def padded_varint(value: int) -> bytes:
    """``value`` as a varint of one byte more than it needs: valid, but not what an encoder writes."""
    encoded = varint(value)
    return encoded[:-1] + bytes((encoded[-1] | 0x80, 0))


def varints(packed: bytes) -> list[int]:
    """The values of a packed field."""
    values, at = [], 0
    while at < len(packed):
        value, at = _DecodeVarint(packed, at)
        values.append(value)
    return values


def tag(number: int, wire_type: int = 2) -> bytes:
    """The tag of a field, by default of a length-delimited one."""
    return varint(number << 3 | wire_type)
