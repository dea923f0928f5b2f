"""Remote-write messages that are written once per label, resource or metric family. Points are left to the kernel.

Source: prometheus prompb/remote.proto, prompb/types.proto.
"""

import struct
from typing import Final

from collector.wire.protobuf import field, varint

__all__ = ["encode_label", "encode_metadata", "encode_sample_series"]

_METADATA_TYPE: Final = {"counter": 1, "gauge": 2, "histogram": 3, "summary": 5}


def encode_label(name: str, value: str) -> bytes:
    """A Label, as a field of TimeSeries or Exemplar."""
    return field(b"\x0a", field(b"\x0a", name.encode()) + field(b"\x12", value.encode()))


def encode_sample_series(labels: bytes, value: float, time_ms: int) -> bytes:
    """A TimeSeries with one sample, as a field of WriteRequest."""
    return field(b"\x0a", labels + field(b"\x12", b"\x09" + struct.pack("<d", value) + b"\x10" + varint(time_ms)))


def encode_metadata(name: str, kind: str, description: str, unit: str) -> bytes:
    """A MetricMetadata, as a field of WriteRequest."""
    body = b"\x08" + varint(_METADATA_TYPE.get(kind, 0)) + field(b"\x12", name.encode())
    if description:
        body += field(b"\x22", description.encode())
    if unit:
        body += field(b"\x2a", unit.encode())
    return field(b"\x1a", body)
