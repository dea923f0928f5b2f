"""The records that the stream kernels work on; the structs there have the same fields."""

from enum import IntEnum
from typing import Final

import numpy as np

__all__ = ["EXPONENTIAL_RESULT", "EXPONENTIAL_STREAM", "RESULT", "STREAM", "Verdict"]


class Verdict(IntEnum):
    """What became of a point."""

    CHANGED = 0
    """It has the values of the result."""
    UNCHANGED = 1
    """It is passed on with its own values."""
    # The others are dropped; the lower-case name is the reason.
    INITIAL = 2
    RESET = 3
    BUCKET_MISMATCH = 4
    OUT_OF_ORDER = 5
    LIMIT = 6
    NO_VALUE = 7
    OLDER_START = 8
    NOT_FINITE = 9


STREAM: Final = np.dtype(
    [
        ("last_time", np.uint64),
        ("start_time", np.uint64),
        ("count", np.uint64),
        ("int_value", np.int64),
        ("value", np.float64),
        ("min", np.float64),
        ("max", np.float64),
        ("seen_s", np.float64),
        ("bounds", np.uint64),
        ("place", np.int64),
        ("bucket_count", np.int32),
        ("present", np.int32),
    ],
    align=True,
)
RESULT: Final = np.dtype(
    [
        ("start_time", np.uint64),
        ("count", np.uint64),
        ("int_value", np.int64),
        ("value", np.float64),
        ("min", np.float64),
        ("max", np.float64),
        ("place", np.int64),
        ("bucket_count", np.int32),
        ("present", np.int32),
        ("verdict", np.int32),
        ("padding", np.int32),
    ],
    align=True,
)
EXPONENTIAL_STREAM: Final = np.dtype(
    [
        ("last_time", np.uint64),
        ("start_time", np.uint64),
        ("count", np.uint64),
        ("zero_count", np.uint64),
        ("sum", np.float64),
        ("min", np.float64),
        ("max", np.float64),
        ("zero_threshold", np.float64),
        ("seen_s", np.float64),
        ("place", np.int64),
        ("scale", np.int64),
        ("offset", np.int64, 2),
        ("length", np.int64, 2),
        ("capacity", np.int32),
        ("present", np.int32),
        ("is_known", np.int32),
        ("padding", np.int32),
    ],
    align=True,
)
EXPONENTIAL_RESULT: Final = np.dtype(
    [
        ("start_time", np.uint64),
        ("count", np.uint64),
        ("zero_count", np.uint64),
        ("sum", np.float64),
        ("min", np.float64),
        ("max", np.float64),
        ("zero_threshold", np.float64),
        ("scale", np.int64),
        ("place", np.int64, 2),
        ("offset", np.int64, 2),
        ("length", np.int64, 2),
        ("present", np.int32),
        ("verdict", np.int32),
    ],
    align=True,
)
