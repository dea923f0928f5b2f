"""How many spans a span stands for: 1, or the adjusted count of the ``ot=th`` its head sampler wrote.

Source: OpenTelemetry specification, tracestate-probability-sampling: adjusted count = 2^56 / (2^56 - threshold).
"""

import re
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

import numpy as np

from collector.model import StringColumn
from collector.model.arrays import F64, I64, Array, Mask
from collector.otlp.consistent_sampling import RANDOMNESS_BITS, read_trace_state

__all__ = ["ADJUSTED_MAX", "Weights", "weights_of"]

ADJUSTED_MAX: Final = 2.0**32
"""A sampler that keeps fewer than one in 4 billion is none: one such span must not fill the counters."""
_WHOLE: Final = 1 << RANDOMNESS_BITS
_NO_THRESHOLD: Final = -1.0
_PLAIN: Final = re.compile(rb"(ot=th:[0-9a-f]{1,14})(?:;rv:[0-9a-f]{14})?")


@dataclass(frozen=True, slots=True)
class Weights:
    """Of each span."""

    exact: F64
    """F64[n]: the adjusted count: for sums of floats."""
    count: I64
    """I64[n]: whole, on average the exact one: for what is counted."""
    is_adjusted: Mask
    """bool[n]: a sampler said something."""

    def take(self, rows: Array) -> "Weights":
        """Of these rows."""
        return Weights(self.exact[rows], self.count[rows], self.is_adjusted[rows])


def weights_of(trace_states: StringColumn, random: np.random.Generator) -> Weights:
    """The weights of spans with these trace states; a malformed ``ot`` counts as none.

    Counts are rounded up or down at random, in proportion to the fraction: each is whole, and their sum is unbiased.
    """
    count = len(trace_states)
    values = trace_states.distinct_bytes
    adjusted = [_adjusted_of(value) if b"th:" in value else _NO_THRESHOLD for value in values]
    if not any(each > 0 for each in adjusted):
        return Weights(np.ones(count), np.ones(count, np.int64), np.zeros(count, np.bool_))
    found = np.array([*adjusted, _NO_THRESHOLD])[trace_states.codes]
    is_adjusted = found > 0
    exact = np.where(is_adjusted, found, 1.0)
    whole = np.floor(exact)
    return Weights(exact, (whole + (random.random(count) < exact - whole)).astype(np.int64), is_adjusted)


def _adjusted_of(trace_state: bytes) -> float:
    """Most say nothing but a threshold that many have, and a randomness of their own."""
    match = _PLAIN.fullmatch(trace_state)
    return _adjusted(match[1]) if match else _adjusted(trace_state)


@lru_cache(maxsize=4096)
def _adjusted(value: bytes) -> float:
    trace_state = value.decode("utf-8", "replace")
    state = read_trace_state(trace_state)
    if state.threshold is None or not state.is_valid:
        return _NO_THRESHOLD
    return min(_WHOLE / (_WHOLE - state.threshold), ADJUSTED_MAX)
