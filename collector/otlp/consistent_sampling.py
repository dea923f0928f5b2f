"""Consistent probability sampling: thresholds, randomness and the ``ot`` member of a trace state.

A span is kept if its randomness is at least the threshold, which is (1 - probability) · 2^56. The randomness is ``rv``,
or the low 56 bits of the trace id if there is no ``rv``. A threshold may be raised but never lowered.

Source: OpenTelemetry specification, trace/tracestate-probability-sampling.md.
"""

import math
import re
from typing import Final, NamedTuple

__all__ = [
    "RANDOMNESS_BITS",
    "TraceState",
    "is_well_formed",
    "parse_randomness",
    "parse_threshold",
    "read_trace_state",
    "threshold_digits",
    "threshold_of",
    "threshold_with_precision",
    "with_values",
]

RANDOMNESS_BITS: Final = 56
_DIGITS: Final = RANDOMNESS_BITS // 4
_WHOLE: Final = 1 << RANDOMNESS_BITS
_COARSE_BITS: Final = (
    32  # six hex digits give a ratio of 1 % to 2 parts in a million: short on the wire, and exact enough
)
_FINE_RATIO: Final = 2.0**-12
_TH: Final = re.compile(r"^[0-9a-f]{1,14}\Z")
_RV: Final = re.compile(r"^[0-9a-f]{14}\Z")
_OT_FIELD: Final = r"[a-z][a-z0-9]*:[a-zA-Z0-9._-]*"
_KEY: Final = r"[a-z][a-z0-9_*/-]{0,255}|[a-z0-9][a-z0-9_*/-]{0,240}@[a-z][a-z0-9_*/-]{0,13}"
_VALUE: Final = r"[\x20-\x2b\x2d-\x3c\x3e-\x7e]{0,255}[\x21-\x2b\x2d-\x3c\x3e-\x7e]"
_MEMBER: Final = re.compile(rf"ot={_OT_FIELD}(?:;{_OT_FIELD})*|(?!ot=)(?:{_KEY})={_VALUE}")


class TraceState(NamedTuple):
    """The content of the ``ot`` member."""

    threshold: int | None
    randomness: int | None
    is_valid: bool
    """False if ``th`` or ``rv`` is present but malformed."""


def threshold_of(ratio: float) -> int:
    """The threshold that keeps the share ``ratio`` of all traces; 2^56 keeps none."""
    exact = round((1.0 - ratio) * _WHOLE)
    if ratio >= 1.0 or ratio <= 0.0 or ratio < _FINE_RATIO:
        return exact
    return min(round(exact / (1 << _COARSE_BITS)) << _COARSE_BITS, _WHOLE - 1)


def threshold_with_precision(ratio: float, digits: int) -> int:
    """The threshold of ``ratio`` as the Collector rounds it: ``digits`` hex digits after leading ``f`` and ``0``."""
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
    """The threshold of a ``th`` value; None if it is malformed."""
    return int(text.ljust(_DIGITS, "0"), 16) if _TH.match(text) else None


def parse_randomness(text: str) -> int | None:
    """The randomness of an ``rv`` value; None if it is malformed."""
    return int(text, 16) if _RV.match(text) else None


def threshold_digits(threshold: int) -> str:
    """A threshold below 2^56 as ``th`` holds it: in hexadecimal, without trailing zeros."""
    return f"{threshold:014x}".rstrip("0") or "0"


def read_trace_state(text: str) -> TraceState:
    """The content of the ``ot`` member of a trace state."""
    for member in text.split(","):
        key, _, value = member.strip().partition("=")
        if key == "ot":
            fields = dict(part.partition(":")[::2] for part in value.split(";"))
            threshold, randomness = parse_threshold(fields.get("th", "")), parse_randomness(fields.get("rv", ""))
            is_valid = (threshold is not None or "th" not in fields) and (randomness is not None or "rv" not in fields)
            return TraceState(threshold, randomness, is_valid)
    return TraceState(None, None, is_valid=True)


def is_well_formed(text: str) -> bool:
    """Whether a trace state, and its ``ot`` member, have the syntax of their specifications.

    Source: W3C Trace Context, tracestate header field values; OpenTelemetry specification, TraceState handling. Empty
    members are allowed, and lengths other than those of keys and values are not checked.
    """
    if not text:
        return True
    members = [member.strip(" \t") for member in text.split(",")]
    return all(_MEMBER.fullmatch(member) is not None for member in members if member)


def with_values(text: str, threshold: int | None, randomness: int | None = None) -> str:
    """The trace state with ``th`` set, or removed if ``threshold`` is None, and ``rv`` set if ``randomness`` is given.

    Other fields and members are kept; ``ot`` comes first.
    """
    members = [member.strip() for member in text.split(",") if member.strip()]
    ot_member = next((member for member in members if member.partition("=")[0] == "ot"), "")
    replaced = ("th:",) if randomness is None else ("th:", "rv:")
    fields = [part for part in ot_member.partition("=")[2].split(";") if part and not part.startswith(replaced)]
    if randomness is not None:
        fields.insert(0, f"rv:{randomness:014x}")
    if threshold is not None:
        fields.insert(0, f"th:{threshold_digits(threshold)}")
    others = [member for member in members if member is not ot_member]
    return ",".join(["ot=" + ";".join(fields), *others] if fields else others)
