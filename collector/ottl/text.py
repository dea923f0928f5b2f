"""Conversion of single values from and to text as in Go: numbers, durations, JSON, letter case.

Source: Go 1.26 strconv, time.ParseDuration, strings, encoding/json; opentelemetry-collector-contrib pkg/ottl ("like"
getters).
"""

from __future__ import annotations

import base64
import json
import math
import re
from datetime import UTC, datetime, timedelta
from typing import Final

from collector.model.values import double_text
from collector.ottl.values import Duration, EvaluationError, Scalar, SpanId, Time, TraceId

__all__ = ["duration", "lower", "parse_bool", "parse_double", "parse_int", "text_of", "upper"]

_INT64_LIMIT: Final = 2**63
_DECIMAL: Final = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?|[+-]?(inf|infinity)|nan", re.ASCII | re.IGNORECASE)
_HEX_DOUBLE: Final = re.compile(r"[+-]?0x([0-9a-f]+\.?[0-9a-f]*|\.[0-9a-f]+)p[+-]?\d+", re.ASCII | re.IGNORECASE)
_DIGITS: Final = re.compile(r"[+-]?[0-9a-z]+", re.IGNORECASE | re.ASCII)
_MAX_DIGITS: Final = 128


def parse_int(text: str, base: int = 10) -> int:
    """The signed 64-bit integer that a text represents.

    Raises:
        EvaluationError: it is not one.
    """
    if len(text) > _MAX_DIGITS or not _DIGITS.fullmatch(text) or not (base == 0 or 2 <= base <= 36):
        raise EvaluationError
    if base == 0 and re.fullmatch(r"[+-]?0[0-7]+", text):
        base = 8  # Go's old octal, which Python refuses
    elif base in {2, 8, 16} and re.match(r"[+-]?0[box]", text, re.IGNORECASE):
        raise EvaluationError  # Python accepts the prefix, Go does not
    try:
        value = int(text, base)
    except ValueError:
        raise EvaluationError from None
    if not -_INT64_LIMIT <= value < _INT64_LIMIT:
        raise EvaluationError
    return value


def parse_double(text: str) -> float:
    """The double that a text represents.

    Raises:
        EvaluationError: it is not a number, or too large.
    """
    if _HEX_DOUBLE.fullmatch(text):
        try:
            return float.fromhex(text)
        except OverflowError:
            raise EvaluationError from None
    match = _DECIMAL.fullmatch(text)
    if match is None:
        raise EvaluationError
    value = float(text)
    if math.isinf(value) and not match.group(3):
        raise EvaluationError
    return value


def parse_bool(text: str) -> bool:
    """``1 t T TRUE true True`` and their opposites.

    Raises:
        EvaluationError: the text is none of these words.
    """
    if text in {"1", "t", "T", "TRUE", "true", "True"}:
        return True
    if text in {"0", "f", "F", "FALSE", "false", "False"}:
        return False
    raise EvaluationError


_UNITS: Final = {
    "ns": 1,
    "us": 1_000,
    "µs": 1_000,
    "μs": 1_000,
    "ms": 1_000_000,
    "s": 10**9,
    "m": 60 * 10**9,
    "h": 3600 * 10**9,
}
_PART: Final = re.compile(r"(\d*)(?:\.(\d*))?(ns|us|µs|μs|ms|s|m|h)", re.ASCII)


def duration(text: str) -> Duration:
    """The duration that a text represents: ``1h30m``, ``-1.5s``, ``0``.

    Raises:
        EvaluationError: it is not a duration, or beyond 292 years.
    """
    unsigned = text[1:] if text[:1] in {"+", "-"} else text
    if unsigned == "0":
        return Duration(0)
    total, at = 0, 0
    while at < len(unsigned):
        match = _PART.match(unsigned, at)
        if (
            match is None
            or not (match.group(1) or match.group(2))
            or len(match.group(1)) > 19
            or len(match.group(2) or "") > 1_000
        ):
            raise EvaluationError
        whole, fraction, unit = match.groups()
        scale = _UNITS[unit]
        total += int(whole or "0") * scale
        if fraction:
            # Go uses as many digits as fit
            digits = fraction[:19] if int(fraction[:19]) <= _INT64_LIMIT else fraction[:18]
            total += int(float(int(digits)) * (scale / 10.0 ** len(digits)))
        at = match.end()
    total = -total if text.startswith("-") else total
    if not unsigned or not -_INT64_LIMIT <= total < _INT64_LIMIT:
        raise EvaluationError
    return Duration(total)


def lower(text: str) -> str:
    """Lower case of each code point by itself; unlike in Python a final sigma is not special."""
    return text.lower() if text.isascii() else "".join(character.lower()[0] for character in text)


def upper(text: str) -> str:
    """Upper case of each code point by itself; unlike in Python ``ß`` stays."""
    if text.isascii():
        return text.upper()
    return "".join(changed if len(changed := character.upper()) == 1 else character for character in text)


def text_of(value: Scalar) -> str | None:
    """The text of a value, as converters use it; nil stays nil.

    Raises:
        EvaluationError: the value has no text (NaN and infinity).
    """
    if value is None or type(value) is str:
        return value
    if isinstance(value, TraceId | SpanId):
        return f"[{','.join(map(str, value))}]"
    if isinstance(value, Time):
        return f'"{_rfc3339(value)}"'
    if type(value) is bytes:
        return value.hex()
    return _json(value)


def _json(value: Scalar) -> str:
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int):
        return str(int(value))
    if isinstance(value, float):
        if not math.isfinite(value):
            raise EvaluationError
        return double_text(value)
    if isinstance(value, bytes):
        if not value:
            return "null"  # as in Go
        return f'"{base64.b64encode(value).decode()}"'
    if isinstance(value, dict):
        return "{" + ",".join(f"{_quoted(key)}:{_json(value[key])}" for key in sorted(value)) + "}"
    if isinstance(value, list):
        return "[" + ",".join(map(_json, value)) + "]"
    return _quoted(value)


_HTML: Final = str.maketrans({"<": "\\u003c", ">": "\\u003e", "&": "\\u0026", "\u2028": "\\u2028", "\u2029": "\\u2029"})


def _quoted(text: str) -> str:
    return json.dumps(text, ensure_ascii=False).translate(_HTML)


def _rfc3339(time: int) -> str:
    seconds, nanoseconds = divmod(time, 10**9)
    moment = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(seconds=seconds)
    fraction = f".{nanoseconds:09d}".rstrip("0") if nanoseconds else ""
    return f"{moment:%Y-%m-%dT%H:%M:%S}{fraction}Z"
