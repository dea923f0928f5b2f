"""Forms of values in Prometheus' configuration that differ from the Collector's: durations and sizes.

Source: prometheus/common model/time.go (ParseDuration); alecthomas/units bytes.go (Base2Bytes).
"""

import re
from typing import Annotated, Any, Final

from pydantic import BeforeValidator, Field, PlainSerializer, WithJsonSchema

__all__ = ["PrometheusDuration", "PrometheusSize"]

_DURATION: Final = re.compile(
    r"(?:(\d+)y)?(?:(\d+)w)?(?:(\d+)d)?(?:(\d+)h)?(?:(\d+)m)?(?:(\d+)s)?(?:(\d+)ms)?", re.ASCII
)
_SECONDS: Final = (365 * 86400, 7 * 86400, 86400, 3600, 60, 1, 0.001)
_SIZE: Final = re.compile(r"(\d+(?:\.\d+)?)([KMGTPE]i?)?B", re.ASCII)


def _duration_s(value: Any) -> Any:
    if value in (0, "0"):
        return 0.0
    found = _DURATION.fullmatch(value) if isinstance(value, str) and value else None
    if found is None:
        raise ValueError(f"{value!r} is not a valid duration (examples: 15s, 1m30s, 1d)")
    return sum(int(number) * unit for number, unit in zip(found.groups(), _SECONDS, strict=True) if number)


def _size_bytes(value: Any) -> Any:
    if value in (0, "0"):
        return 0
    found = _SIZE.fullmatch(value) if isinstance(value, str) else None
    if found is None:
        raise ValueError(f"{value!r} is not a valid size (examples: 10MB, 512KiB)")
    return int(float(found[1]) * 1024 ** (" KMGTPE".index((found[2] or " ")[0])))


PrometheusDuration = Annotated[
    float,
    BeforeValidator(_duration_s),
    PlainSerializer(lambda seconds: f"{round(seconds * 1000)}ms"),
    WithJsonSchema({"type": ["string", "number"], "pattern": r"^(\d+(y|w|d|h|m|s|ms))*$|^0$"}),
]
"""Seconds, written as Prometheus writes durations: ``15s``, ``1m30s``, ``1d``."""

PrometheusSize = Annotated[
    int,
    BeforeValidator(_size_bytes),
    Field(ge=0),
    PlainSerializer(lambda size: f"{size}B" if size else "0"),
    WithJsonSchema({"type": ["string", "number"], "pattern": r"^[0-9.]+([KMGTPE]i?)?B$|^0$"}),
]
"""Bytes, written as Prometheus writes sizes: ``10MB`` is 10 · 1024 · 1024."""
