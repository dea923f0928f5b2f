"""How long spans lasted, as far as their times can be believed."""

from typing import Final

import numpy as np

from collector.model.arrays import U64, Mask

__all__ = ["SPAN_DURATION_MAX_NS", "span_durations"]

SPAN_DURATION_MAX_NS: Final = 30 * 24 * 3600 * 1_000_000_000
"""Longer durations are errors: a start time of 0 or in seconds would make a duration of 56 years."""


def span_durations(starts: U64, ends: U64) -> tuple[U64, Mask]:
    """U64[n]: end - start in ns, 0 where that is not a duration; and bool[n]: where it is not one.

    It is not one if a time is missing, the span ends before it starts, or it lasted longer than 30 days.
    """
    durations = ends - starts  # wraps, to more than the maximum, if the span ends before it starts
    is_invalid = (durations > np.uint64(SPAN_DURATION_MAX_NS)) | (starts == 0) | (ends == 0)
    return np.where(is_invalid, np.uint64(0), durations), is_invalid
