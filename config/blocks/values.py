"""Forms of single values: durations, sizes in bytes, secrets."""

import re
from typing import Annotated

from pydantic import BeforeValidator, Field, PlainSerializer, SecretStr, WithJsonSchema

__all__ = ["DURATION_PATTERN", "ByteSize", "Duration", "Secret", "duration_text"]

DURATION_PATTERN = r"^([-+]?([0-9]*\.?[0-9]+(ns|us|µs|ms|s|m|h))+|0)$"
"""A duration as an editor can check it, for the JSON Schema."""

_DURATION_PART = re.compile(r"([0-9]+(?:\.[0-9]*)?|\.[0-9]+)(ns|us|µs|ms|s|m|h)")
_DURATION_UNIT_S = {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0}
_DURATION_UNIT_NS = {
    "h": 3_600_000_000_000, "m": 60_000_000_000, "s": 1_000_000_000, "ms": 1_000_000, "us": 1_000, "ns": 1
}  # fmt: skip
_MAX_NANOSECONDS = 2.0**63
_DURATION_EXAMPLES = "examples: 5s, 1m30s, 250ms"
_SIZE = re.compile(r"^([0-9]+(?:\.[0-9]+)?)\s*([KMGT]i?B|B)?$")
_SIZE_UNIT_BYTES = {None: 1, "B": 1} | {
    f"{prefix}{i}B": (1024 if i else 1000) ** power for power, prefix in enumerate("KMGT", 1) for i in ("", "i")
}
_SIZE_EXAMPLES = "examples: 4096, 64KiB, 256MiB, 1GiB"


def _duration_s(value: object) -> float:
    """Seconds from Go's duration form (``1h30m``, ``500ms``, ``0``); numbers are nanoseconds, as in the Collector."""
    # ValueError throughout, not TypeError: pydantic collects only the former.
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise ValueError(f"expected a duration, got {_kind_of(value)} ({_DURATION_EXAMPLES})")  # noqa: TRY004
    if not isinstance(value, str):
        return _number_s(value)
    text = value.strip()
    if text == "0":
        return 0.0
    sign, body = (-1.0, text[1:]) if text.startswith("-") else (1.0, text.removeprefix("+"))
    parts = _DURATION_PART.findall(body)
    if not parts or "".join(number + unit for number, unit in parts) != body:
        raise ValueError(f"{value!r} is not a valid duration ({_DURATION_EXAMPLES})")
    return sign * sum(float(number) * _DURATION_UNIT_S[unit] for number, unit in parts)


def _number_s(value: float) -> float:
    """Seconds from a number without a unit: nanoseconds, whose fraction is dropped."""
    if not -_MAX_NANOSECONDS < value < _MAX_NANOSECONDS:
        raise ValueError(f"{value} is not a valid duration ({_DURATION_EXAMPLES})")
    return int(value) / 1e9


def duration_text(seconds: float) -> str:
    """The shortest Go form of ``seconds``, which is exact to the nanosecond."""
    nanoseconds = round(seconds * 1e9)
    for unit, scale in _DURATION_UNIT_NS.items():
        if nanoseconds and not nanoseconds % scale:
            return f"{nanoseconds // scale}{unit}"
    return "0s"


def _size_bytes(value: object) -> object:
    """Bytes from ``256MiB``, ``10MB``, ``4096``; what is not text is left to pydantic."""
    if not isinstance(value, str):
        return value
    match = _SIZE.match(value.strip())
    if not match:
        raise ValueError(f"{value!r} is not a valid size ({_SIZE_EXAMPLES})")
    return int(float(match[1]) * _SIZE_UNIT_BYTES[match[2]])


def _kind_of(value: object) -> str:
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true" if value else "false"
    return "a mapping" if isinstance(value, dict) else "a list"


Duration = Annotated[
    float,
    BeforeValidator(_duration_s),
    PlainSerializer(duration_text, return_type=str),
    WithJsonSchema({"type": ["string", "number"], "pattern": DURATION_PATTERN}),
]
"""Seconds, written in the configuration as a Go duration: ``250ms``, ``5s``, ``1m30s``; a number is nanoseconds."""

ByteSize = Annotated[
    int,
    BeforeValidator(_size_bytes),
    Field(ge=0),
    WithJsonSchema({"type": ["integer", "string"], "minimum": 0, "pattern": r"^([0-9.]+\s*([KMGT]i?B|B)?|.*\$\{.+)$"}),
]
"""Bytes, written in the configuration as a number or with a unit: ``4096``, ``64KiB``, ``256MiB``."""


class Secret(SecretStr):
    """A string that is printed as ``[REDACTED]`` everywhere; ``get_secret_value()`` returns it."""

    def _display(self) -> str:
        return "[REDACTED]"
