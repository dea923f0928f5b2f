from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

def bounds_of(
    points: NDArray[np.void], updates: NDArray[np.void]
) -> tuple[NDArray[np.int32], NDArray[np.int32], NDArray[np.bool_]]: ...
def wrong_buckets(
    wire: bytes, points: NDArray[np.void], updates: NDArray[np.void], widths: NDArray[np.int32]
) -> NDArray[np.bool_]: ...
def add_histograms(
    wire: bytes,
    points: NDArray[np.void],
    updates: NDArray[np.void],
    sets: NDArray[np.int32],
    rows: NDArray[np.int32],
    source_rows: list[Any],
    accumulator_rows: list[Any],
    shared: Callable[[int, int], tuple[NDArray[np.int32], bool]],
    sources: NDArray[np.void],
    accumulators: NDArray[np.void],
) -> int: ...
