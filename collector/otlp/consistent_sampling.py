"""Consistent probability sampling: thresholds, randomness and the ``ot`` member of a trace state.

Source: OpenTelemetry specification, trace/tracestate-probability-sampling.md. A span is kept where randomness ≥
    threshold;
threshold = (1 - probability) · 2^56; randomness is ``rv``, else the trace id's low 56 bits. A threshold may only be
raised.
"""

import math
import re
from typing import Final, NamedTuple

__all__ = [
    "RANDOMNESS_BITS",
    "TraceState",
    "parse_randomness",
    "parse_threshold",
    "parse_trace_state",
    "read_trace_state",
    "threshold_digits",
    "threshold_of",
    "threshold_with_precision",
    "with_threshold",
    "with_values",
]

RANDOMNESS_BITS: Final = 56
_DIGITS: Final = RANDOMNESS_BITS // 4
_WHOLE: Final = 1 << RANDOMNESS_BITS
_COARSE_BITS: Final = 32  # six hex digits say a ratio of 1 % to 2 parts in a million: short on the wire, exact enough
_FINE_RATIO: Final = 2.0**-12
_TH: Final = re.compile(r"^[0-9a-f]{1,14}\Z")
_RV: Final = re.compile(r"^[0-9a-f]{14}\Z")


class TraceState(NamedTuple):
    """What the ``ot`` member says."""

    threshold: int | None
    randomness: int | None
    is_valid: bool
    """False: a ``th`` or ``rv`` is there and malformed."""


def threshold_of(ratio: float) -> int:
    """The threshold that keeps ``ratio`` of all traces; 2^56 keeps none."""
    exact = round((1.0 - ratio) * _WHOLE)
    if ratio >= 1.0 or ratio <= 0.0 or ratio < _FINE_RATIO:
        return exact
    return min(round(exact / (1 << _COARSE_BITS)) << _COARSE_BITS, _WHOLE - 1)


def threshold_with_precision(ratio: float, digits: int) -> int:
    """The same with ``digits`` significant hexadecimal digits (leading ``f`` and ``0`` do not count), as the Collector rounds it."""
    if ratio >= 1.0:
        return 0
    if ratio < 2.0**-RANDOMNESS_BITS:
        return _WHOLE
    leading = max(-math.frexp(part)[1] // 4 if math.frexp(part)[1] < 0 else 0 for part in (ratio, 1.0 - ratio))
    threshold = _WHOLE - round(ratio * _WHOLE)
    shift = 4 * (_DIGITS - min(_DIGITS, digits + leading))
    if shift:
        threshold = (threshold + (1 << (shift - 1))) >> shift << shift
    return min(threshold, _WHOLE - 1)


def parse_threshold(text: str) -> int | None:
    """The threshold of a ``th`` value; None where malformed."""
    return int(text.ljust(_DIGITS, "0"), 16) if _TH.match(text) else None


def parse_randomness(text: str) -> int | None:
    """The randomness of an ``rv`` value; None where malformed."""
    return int(text, 16) if _RV.match(text) else None


def threshold_digits(threshold: int) -> str:
    """A threshold below 2^56 as it is written: without trailing zeros."""
    return f"{threshold:014x}".rstrip("0") or "0"


def read_trace_state(text: str) -> TraceState:
    """What the ``ot`` member of a trace state says."""
    for member in text.split(","):
        key, _, value = member.strip().partition("=")
        if key == "ot":
            fields = dict(part.partition(":")[::2] for part in value.split(";"))
            threshold, randomness = parse_threshold(fields.get("th", "")), parse_randomness(fields.get("rv", ""))
            is_valid = (threshold is not None or "th" not in fields) and (randomness is not None or "rv" not in fields)
            return TraceState(threshold, randomness, is_valid)
    return TraceState(None, None, is_valid=True)


def parse_trace_state(text: str) -> tuple[int | None, int | None]:
    """(threshold, randomness) of the ``ot`` member; None where absent or malformed."""
    return read_trace_state(text)[:2]


def with_values(text: str, threshold: int | None, randomness: int | None = None) -> str:
    """The trace state with ``th`` set, or erased where it is None, and ``rv`` set where it is given; the rest stays, ``ot`` comes first."""
    members = [member.strip() for member in text.split(",") if member.strip()]
    own = next((member for member in members if member.partition("=")[0] == "ot"), "")
    ours = ("th:",) if randomness is None else ("th:", "rv:")
    fields = [part for part in own.partition("=")[2].split(";") if part and not part.startswith(ours)]
    if randomness is not None:
        fields.insert(0, f"rv:{randomness:014x}")
    if threshold is not None:
        fields.insert(0, f"th:{threshold_digits(threshold)}")
    others = [member for member in members if member is not own]
    return ",".join(["ot=" + ";".join(fields), *others] if fields else others)


def with_threshold(text: str, threshold: int) -> str:
    """The trace state with ``ot=th:`` set to ``threshold``; other members and fields stay, ``ot`` comes first."""
    return with_values(text, threshold)
