from collections.abc import Callable
from typing import Any

from collector.model.arrays import I32, Mask, Records

def bounds_of(points: Records, updates: Records) -> tuple[I32, I32, Mask]: ...
def wrong_buckets(wire: bytes, points: Records, updates: Records, widths: I32) -> Mask: ...
def add_histograms(
    wire: bytes,
    points: Records,
    updates: Records,
    sets: I32,
    rows: I32,
    source_rows: list[Any],
    accumulator_rows: list[Any],
    shared: Callable[[int, int], tuple[I32, bool]],
    sources: Records,
    accumulators: Records,
) -> int: ...
