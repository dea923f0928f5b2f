"""Consistent probability sampling: thresholds, randomness and the ``ot`` member of a trace state.

Source: OpenTelemetry specification, trace/tracestate-probability-sampling.md. A span is kept where randomness ≥ threshold;
threshold = (1 - probability) · 2^56; randomness is ``rv``, else the trace id's low 56 bits. A threshold may only be raised.
"""

import re
from typing import Final

__all__ = ["RANDOMNESS_BITS", "parse_trace_state", "threshold_of", "with_threshold"]

RANDOMNESS_BITS: Final = 56
_DIGITS: Final = RANDOMNESS_BITS // 4
_WHOLE: Final = 1 << RANDOMNESS_BITS
_COARSE_BITS: Final = 32  # six hex digits say a ratio of 1 % to 2 parts in a million: short on the wire, exact enough
_FINE_RATIO: Final = 2.0**-12
_TH: Final = re.compile(r"^[0-9a-f]{1,14}$")
_RV: Final = re.compile(r"^[0-9a-f]{14}$")


def threshold_of(ratio: float) -> int:
    """The threshold that keeps ``ratio`` of all traces; 2^56 keeps none."""
    exact = round((1.0 - ratio) * _WHOLE)
    if ratio >= 1.0 or ratio <= 0.0 or ratio < _FINE_RATIO:
        return exact
    return min(round(exact / (1 << _COARSE_BITS)) << _COARSE_BITS, _WHOLE - 1)


def parse_trace_state(text: str) -> tuple[int | None, int | None]:
    """(threshold, randomness) of the ``ot`` member; None where absent or malformed."""
    for member in text.split(","):
        key, _, value = member.strip().partition("=")
        if key == "ot":
            fields = dict(part.partition(":")[::2] for part in value.split(";"))
            th, rv = fields.get("th", ""), fields.get("rv", "")
            return (int(th.ljust(_DIGITS, "0"), 16) if _TH.match(th) else None, int(rv, 16) if _RV.match(rv) else None)
    return None, None


def with_threshold(text: str, threshold: int) -> str:
    """The trace state with ``ot=th:`` set to ``threshold``; other members and fields stay, ``ot`` comes first."""
    digits = f"{threshold:014x}".rstrip("0") or "0"
    members = [member.strip() for member in text.split(",") if member.strip()]
    own = next((member for member in members if member.partition("=")[0] == "ot"), "")
    fields = [part for part in own.partition("=")[2].split(";") if part and not part.startswith("th:")]
    return ",".join(["ot=" + ";".join([f"th:{digits}", *fields]), *(member for member in members if member is not own)])
