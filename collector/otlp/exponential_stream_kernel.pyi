import numpy as np
from numpy.typing import NDArray

from collector.model.arrays import Records

__all__ = ["BucketPool", "to_cumulative", "to_delta"]

class BucketPool:
    @property
    def memory_bytes(self) -> int: ...
    @property
    def used_count(self) -> int: ...
    def counts(self) -> NDArray[np.uint64]: ...
    def extend(self, counts: NDArray[np.uint64]) -> None: ...
    def compact(self, streams: Records, slots: NDArray[np.int32]) -> None: ...

def to_delta(
    wire: bytes,
    points: Records,
    rows: NDArray[np.int64],
    slots: NDArray[np.int32],
    is_new: NDArray[np.uint8],
    streams: Records,
    pool: BucketPool,
    results: Records,
    out: BucketPool,
    began_unix_nano: int,
    initial: int,
    now_s: float,
) -> None: ...
def to_cumulative(
    wire: bytes,
    points: Records,
    rows: NDArray[np.int64],
    slots: NDArray[np.int32],
    is_new: NDArray[np.uint8],
    streams: Records,
    pool: BucketPool,
    results: Records,
    out: BucketPool,
    now_s: float,
) -> None: ...
