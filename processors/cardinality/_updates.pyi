from typing import Any

import numpy as np
from numpy.typing import NDArray

def any_empty(rows: NDArray[Any]) -> bool: ...
def other_starts(
    points: NDArray[np.void],
    metrics: NDArray[np.void],
    rows: NDArray[np.intp],
    slots: NDArray[np.int32],
    sources: NDArray[np.void],
    reasons: NDArray[np.uint8],
) -> NDArray[np.int64]: ...
def take_updates(
    points: NDArray[np.void],
    metrics: NDArray[np.void],
    rows: NDArray[np.intp],
    slots: NDArray[np.int32],
    targets: NDArray[np.int32],
    own_name: NDArray[np.uint8],
    sources: NDArray[np.void],
    accumulators: NDArray[np.void],
    reasons: NDArray[np.uint8],
    *,
    full_from: int,
    began: int,
    never_full: bool,
    ended: NDArray[np.uint64] | None,
    believed_until: int,
    now_s: float,
) -> tuple[NDArray[np.void], int, int, int]: ...
def add_numbers(
    points: NDArray[np.void],
    metrics: NDArray[np.void],
    updates: NDArray[np.void],
    sources: NDArray[np.void],
    accumulators: NDArray[np.void],
) -> int: ...
def add_totals(
    points: NDArray[np.void],
    updates: NDArray[np.void],
    accumulators: NDArray[np.void],
    counts: NDArray[np.uint64],
    sums: NDArray[np.float64],
    has_sum: NDArray[np.uint8],
) -> None: ...
