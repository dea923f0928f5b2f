"""AnyValue from bytes to text, and which Python values one can hold. For single and distinct values; they are encoded by ``wire.build``.

Source: ``common.proto`` (opentelemetry-proto 1.x); text: OpenTelemetry specification, common/README "AttributeValue to
    string".
"""

import base64
import json
import math
import struct
from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

__all__ = ["AttributeValue", "any_value", "any_value_text", "double_text"]

AttributeValue: TypeAlias = str | bool | int | float | bytes | Sequence[Any] | Mapping[str, Any]


def double_text(value: float) -> str:
    """A double as JSON writes it: ``1.0`` → ``1``; ``NaN``, ``Infinity``, ``-Infinity`` by name."""
    if math.isnan(value):
        return "NaN"
    if math.isinf(value):
        return "Infinity" if value > 0 else "-Infinity"
    if value == 0:
        return "-0" if math.copysign(1, value) < 0 else "0"
    # Source: ECMA-404 has no form of its own; encoding/json of Go, which the Collector uses, switches to an exponent
    # outside [1e-6, 1e21).
    if 1e-6 <= abs(value) < 1e21:
        text = repr(value)
        if "e" in text:
            text = f"{value:.0f}" if abs(value) >= 1 else _plain(text)
        return text.removesuffix(".0")
    mantissa, _, exponent = repr(value).partition("e")
    return (
        f"{mantissa.removesuffix('.0')}e{'-' if exponent.startswith('-') else '+'}{exponent.lstrip('+-').lstrip('0')}"
    )


def _plain(text: str) -> str:
    """A number below 1 that Python wrote with an exponent, without one."""
    mantissa, _, exponent = text.partition("e")
    digits = mantissa.lstrip("-").replace(".", "")
    return ("-" if mantissa.startswith("-") else "") + "0." + "0" * (-int(exponent) - 1) + digits


def any_value_text(content: bytes) -> str:
    """An AnyValue message's content as text."""
    value = any_value(content)
    if isinstance(value, str):
        return value
    if value is None:
        return ""
    if isinstance(value, bytes):
        return base64.b64encode(value).decode()
    return _json(value)


def _json(value: Any) -> str:
    if isinstance(value, str):
        return json.dumps(value, ensure_ascii=False)
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int):
        return str(value)
    if isinstance(value, float):
        return double_text(value) if math.isfinite(value) else f'"{double_text(value)}"'
    if isinstance(value, bytes):
        return f'"{base64.b64encode(value).decode()}"'
    if isinstance(value, dict):
        # sorted, as Go writes maps: equal maps in another order are one label value
        return (
            "{" + ",".join(f"{json.dumps(key, ensure_ascii=False)}:{_json(value[key])}" for key in sorted(value)) + "}"
        )
    return "[" + ",".join(map(_json, value)) + "]"


def any_value(content: bytes) -> Any:
    """The Python value of an AnyValue's content that was checked at the door."""
    value: Any = None
    for number, item in _fields(content):
        if number == 1:
            value = item.decode("utf-8", "replace")
        elif number == 2:
            value = bool(item)
        elif number == 3:
            value = item - 2**64 if item >= 2**63 else item
        elif number == 4:
            value = struct.unpack("<d", item)[0]
        elif number == 5:
            value = [any_value(element) for field, element in _fields(item) if field == 1]
        elif number == 6:
            value = dict(_entry(element) for field, element in _fields(item) if field == 1)
        elif number == 7:
            value = item
    return value


def _entry(content: bytes) -> tuple[str, Any]:
    key, value = "", None
    for number, item in _fields(content):
        if number == 1:
            key = item.decode("utf-8", "replace")
        elif number == 2:
            value = any_value(item)
    return key, value


def _fields(content: bytes) -> list[tuple[int, Any]]:
    """(field number, int or bytes) of each field of a message; stops at what is none."""
    fields: list[tuple[int, Any]] = []
    at = 0
    while at < len(content):
        tag, at = _read_varint(content, at)
        form = tag & 7
        if form == 0:
            item: Any
            item, at = _read_varint(content, at)
        elif form in {1, 5}:
            width = 8 if form == 1 else 4
            item, at = content[at : at + width], at + width
        elif form == 2:
            length, at = _read_varint(content, at)
            item, at = content[at : at + length], at + length
        else:
            break
        if at > len(content):
            break
        fields.append((tag >> 3, item))
    return fields


def _read_varint(content: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while at < len(content):
        byte = content[at]
        value |= (byte & 0x7F) << shift
        at += 1
        shift += 7
        if byte < 0x80:
            return value % 2**64, at
    return value % 2**64, len(content) + 1
