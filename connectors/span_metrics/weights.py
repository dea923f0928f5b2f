"""How many spans each span counts for: the adjusted count, exact for sums and as a whole number for counters."""

from dataclasses import dataclass

import numpy as np

from collector.model import StringColumn
from collector.model.arrays import F64, I64, Array, Mask
from collector.otlp.adjusted_count import adjusted_counts

__all__ = ["Weights", "weights_of"]


@dataclass(frozen=True, slots=True)
class Weights:
    """The weights of some spans."""

    exact: F64
    """F64[n]: the adjusted counts."""
    count: I64
    """I64[n]: the adjusted counts as whole numbers, equal to the exact ones on average."""
    is_adjusted: Mask
    """bool[n]: a sampler has written a threshold."""

    def take(self, rows: Array) -> "Weights":
        """The weights of ``rows``."""
        return Weights(self.exact[rows], self.count[rows], self.is_adjusted[rows])


def weights_of(trace_states: StringColumn, random: np.random.Generator) -> Weights:
    """The weights of spans with these trace states; a malformed ``ot`` is ignored.

    Counts are rounded up or down at random, in proportion to the fraction: each is whole, and their sum is unbiased.
    """
    exact, is_adjusted = adjusted_counts(trace_states)
    if not is_adjusted.any():
        return Weights(exact, np.ones(len(exact), np.int64), is_adjusted)
    whole = np.floor(exact)
    rounds_up = random.random(len(exact)) < exact - whole
    return Weights(exact, (whole + rounds_up).astype(np.int64), is_adjusted)
