"""The few remote-write messages that are written once a label, a resource or a family, not once a point."""

import struct
from typing import Final

__all__ = ["encode_label", "encode_metadata", "encode_sample_series"]

_METADATA_TYPE: Final = {"counter": 1, "gauge": 2, "histogram": 3, "summary": 5}


def _varint(value: int) -> bytes:
    parts = bytearray()
    while value >= 0x80:
        parts.append(value & 0x7F | 0x80)
        value >>= 7
    parts.append(value)
    return bytes(parts)


def _field(tag: bytes, content: bytes) -> bytes:
    return tag + _varint(len(content)) + content


def encode_label(name: str, value: str) -> bytes:
    """A Label as a field of TimeSeries or Exemplar."""
    return _field(b"\x0a", _field(b"\x0a", name.encode()) + _field(b"\x12", value.encode()))


def encode_sample_series(labels: bytes, value: float, time_ms: int) -> bytes:
    """A TimeSeries with one sample, as a field of WriteRequest."""
    return _field(b"\x0a", labels + _field(b"\x12", b"\x09" + struct.pack("<d", value) + b"\x10" + _varint(time_ms)))


def encode_metadata(name: str, kind: str, description: str, unit: str) -> bytes:
    """A MetricMetadata, as a field of WriteRequest."""
    body = b"\x08" + _varint(_METADATA_TYPE.get(kind, 0)) + _field(b"\x12", name.encode())
    if description:
        body += _field(b"\x22", description.encode())
    if unit:
        body += _field(b"\x2a", unit.encode())
    return _field(b"\x1a", body)
