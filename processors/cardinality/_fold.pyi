from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

def any_empty(rows: NDArray[Any]) -> bool: ...
def take_lines(
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
    never_full: bool,
    ended: NDArray[np.uint64] | None,
    now_s: float,
) -> NDArray[np.void]: ...
def add_numbers(
    points: NDArray[np.void],
    metrics: NDArray[np.void],
    lines: NDArray[np.void],
    sources: NDArray[np.void],
    accumulators: NDArray[np.void],
) -> int: ...
def add_totals(
    points: NDArray[np.void],
    lines: NDArray[np.void],
    accumulators: NDArray[np.void],
    counts: NDArray[np.uint64],
    sums: NDArray[np.float64],
    has_sum: NDArray[np.uint8],
) -> None: ...
def bounds_of(
    points: NDArray[np.void], lines: NDArray[np.void]
) -> tuple[NDArray[np.int32], NDArray[np.int32], NDArray[np.bool_]]: ...
def wrong_buckets(
    wire: bytes, points: NDArray[np.void], lines: NDArray[np.void], widths: NDArray[np.int32]
) -> NDArray[np.bool_]: ...
def add_histograms(
    wire: bytes,
    points: NDArray[np.void],
    lines: NDArray[np.void],
    sets: NDArray[np.int32],
    rows: NDArray[np.int32],
    source_rows: list[Any],
    accumulator_rows: list[Any],
    shared: Callable[[int, int], tuple[NDArray[np.int32], bool]],
    sources: NDArray[np.void],
    accumulators: NDArray[np.void],
) -> int: ...
