"""How many spans a sampled span stands for: 1, or the adjusted count of the ``ot=th`` that a sampler has written.

Source: OpenTelemetry specification, tracestate-probability-sampling: adjusted count = 2^56 / (2^56 - threshold).
"""

import re
from typing import Final

import numpy as np

from collector.model import StringColumn
from collector.model.arrays import F64, Mask
from collector.otlp.consistent_sampling import RANDOMNESS_BITS, read_trace_state
from collector.text.cache import cached_by_text

__all__ = ["ADJUSTED_COUNT_MAX", "adjusted_counts"]

ADJUSTED_COUNT_MAX: Final = 2.0**32
"""No real sampler keeps fewer than one span in 4 billion; a span that claims more must not fill the counters."""
_WHOLE: Final = 1 << RANDOMNESS_BITS
_NO_THRESHOLD: Final = -1.0
_PLAIN: Final = re.compile(rb"(ot=th:[0-9a-f]{1,14})(?:;rv:[0-9a-f]{14})?")


def adjusted_counts(trace_states: StringColumn) -> tuple[F64, Mask]:
    """F64[n]: the adjusted count of each span, 1 without a valid threshold; and bool[n]: whether it has one."""
    by_code = [_adjusted_count_of(state) if b"th:" in state else _NO_THRESHOLD for state in trace_states.distinct_bytes]
    if not any(count > 0 for count in by_code):
        return np.ones(len(trace_states)), np.zeros(len(trace_states), np.bool_)
    counts = np.array([*by_code, _NO_THRESHOLD])[trace_states.codes]
    is_adjusted = counts > 0
    return np.where(is_adjusted, counts, 1.0), is_adjusted


def _adjusted_count_of(trace_state: bytes) -> float:
    # Many spans share a threshold, but each has a randomness of its own: leaving it out makes the cache useful.
    match = _PLAIN.fullmatch(trace_state)
    return _cached_count(match[1] if match else trace_state)


def _read_count(trace_state: bytes) -> float:
    state = read_trace_state(trace_state.decode("utf-8", "replace"))
    if state.threshold is None or not state.is_valid:
        return _NO_THRESHOLD
    # In integers: as a float, the largest threshold is 2^56.
    return min(_WHOLE / (_WHOLE - state.threshold), ADJUSTED_COUNT_MAX)


_cached_count: Final = cached_by_text(_read_count, max_bytes=2 * 1024 * 1024)
