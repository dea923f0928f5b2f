"""AnyValue messages as Python values and as text. For single and distinct values only; ``wire.encode`` encodes them.

Source: ``common.proto`` of opentelemetry-proto 1.x; for text the OpenTelemetry specification, common/README,
"AttributeValue to string".
"""

import base64
import json
import math
import struct
from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

from collector.wire.protobuf import FIXED32, FIXED64, LENGTH_DELIMITED, VARINT, read_varint

__all__ = ["AttributeValue", "any_value", "any_value_text", "double_text"]

AttributeValue: TypeAlias = str | bool | int | float | bytes | Sequence[Any] | Mapping[str, Any]
"""A Python value that an attribute can have."""


def double_text(value: float) -> str:
    """A double as text in the style of JSON, or ``NaN``, ``Infinity``, ``-Infinity``.

    >>> double_text(1.0), double_text(2.5e-7), double_text(float("-inf"))
    ('1', '2.5e-7', '-Infinity')
    """
    if math.isnan(value):
        return "NaN"
    if math.isinf(value):
        return "Infinity" if value > 0 else "-Infinity"
    if value == 0:
        return "-0" if math.copysign(1, value) < 0 else "0"
    # ECMA-404 does not prescribe a form. This is that of Go's encoding/json, which the Collector uses: an exponent only
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
    """A number below 1 without the exponent that Python wrote."""
    mantissa, _, exponent = text.partition("e")
    digits = mantissa.lstrip("-").replace(".", "")
    return ("-" if mantissa.startswith("-") else "") + "0." + "0" * (-int(exponent) - 1) + digits


def any_value_text(content: bytes) -> str:
    """The content of an AnyValue message as text."""
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
        # Sorted, as Go writes maps: maps that differ only in their order become the same label value.
        return (
            "{" + ",".join(f"{json.dumps(key, ensure_ascii=False)}:{_json(value[key])}" for key in sorted(value)) + "}"
        )
    return "[" + ",".join(map(_json, value)) + "]"


def any_value(content: bytes) -> Any:
    """The content of a valid AnyValue message as a Python value."""
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
    """(number, int or bytes) of each field of a message; stops at the first invalid one."""
    fields: list[tuple[int, Any]] = []
    at = 0
    while at < len(content):
        tag, at = read_varint(content, at)
        form = tag & 7
        if form == VARINT:
            item: Any
            item, at = read_varint(content, at)
        elif form in {FIXED64, FIXED32}:
            width = 8 if form == FIXED64 else 4
            item, at = content[at : at + width], at + width
        elif form == LENGTH_DELIMITED:
            length, at = read_varint(content, at)
            item, at = content[at : at + length], at + length
        else:
            break
        if at > len(content):
            break
        fields.append((tag >> 3, item))
    return fields
