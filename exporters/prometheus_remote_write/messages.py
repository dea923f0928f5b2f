"""Remote-write messages that are written once per label, resource or metric family. Points are left to the kernel.

Source: prometheus prompb/remote.proto, prompb/types.proto.
"""

import struct
from typing import Final

from collector.prometheus import METADATA_TYPES, LabelFormat
from collector.wire.protobuf import field, fields, read_varint, varint

__all__ = ["LABEL_FORMAT", "cut_by_time", "encode_label", "encode_metadata", "encode_sample_series", "series_names"]


def encode_label(name: str, value: str) -> bytes:
    """A Label, as a field of TimeSeries or Exemplar."""
    return field(b"\x0a", field(b"\x0a", name.encode()) + field(b"\x12", value.encode()))


def _encode_name(name: str) -> bytes:
    return field(b"\x0a", name.encode()) + b"\x12"


LABEL_FORMAT: Final = LabelFormat(encode_label, _encode_name, is_text=False)


def encode_sample_series(labels: bytes, value: float, time_ms: int) -> bytes:
    """A TimeSeries with one sample, as a field of WriteRequest."""
    return field(b"\x0a", labels + field(b"\x12", b"\x09" + struct.pack("<d", value) + b"\x10" + varint(time_ms)))


def encode_metadata(name: str, kind: str, description: str, unit: str) -> bytes:
    """A MetricMetadata, as a field of WriteRequest."""
    body = b"\x08" + varint(METADATA_TYPES.get(kind, 0)) + field(b"\x12", name.encode())
    if description:
        body += field(b"\x22", description.encode())
    if unit:
        body += field(b"\x2a", unit.encode())
    return field(b"\x1a", body)


# Requests are read back only after a receiver has refused them.

_TIME_FIELDS: Final = {0x12: 2, 0x1A: 3, 0x22: 15}
"""The number of the timestamp in what a TimeSeries holds: Sample, Exemplar, Histogram."""


def cut_by_time(body: bytes) -> tuple[bytes, bytes, int, int] | None:
    """The earlier and the later half of a request's samples; None if all of them have the same time.

    Also returns how many times the first half has, and the last of them in milliseconds.
    """
    series = [list(fields(content)) for tag, content in fields(body) if tag == 0x0A]
    times = sorted({_time_ms(tag, content) for parts in series for tag, content in parts if tag in (0x12, 0x22)})
    if len(times) < 2:
        return None
    count = len(times) // 2
    middle = times[count]
    halves = [b"", b""]
    for parts in series:
        labels = b"".join(field(b"\x0a", content) for tag, content in parts if tag == 0x0A)
        contents: list[list[tuple[int, bytes]]] = [[], []]
        for tag, content in parts:
            if tag in _TIME_FIELDS:
                contents[_time_ms(tag, content) >= middle].append((tag, content))
        for half, chosen in enumerate(contents):
            if any(tag != 0x1A for tag, _ in chosen):
                encoded = b"".join(field(bytes((tag,)), content) for tag, content in chosen)
                halves[half] += field(b"\x0a", labels + encoded)
    return halves[0], halves[1], count, times[count - 1]


def series_names(body: bytes, limit: int) -> list[str]:
    """The first few series of a request, as Prometheus writes them."""
    names: list[str] = []
    for tag, content in fields(body):
        if tag != 0x0A:
            continue
        if len(names) == limit:
            names.append("...")
            break
        labels = {}
        for part, label in fields(content):
            if part == 0x0A:
                texts = dict(fields(label))
                labels[texts.get(0x0A, b"").decode()] = texts.get(0x12, b"").decode()
        name = labels.pop("__name__", "")
        names.append(name + "{" + ", ".join(f'{key}="{value}"' for key, value in labels.items()) + "}")
    return names


def _time_ms(tag: int, message: bytes) -> int:
    """The timestamp of a Sample, Exemplar or Histogram."""
    wanted, at = _TIME_FIELDS[tag], 0
    while at < len(message):
        key = message[at]
        at += 1
        if key & 7 == 1:
            at += 8
            continue
        value, at = read_varint(message, at)
        if key & 7 == 2:
            at += value
        elif key >> 3 == wanted:
            return value
    return 0
