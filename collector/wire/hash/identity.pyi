from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

__all__ = ["PROCESS_KEY", "combine", "hash_attributes", "hash_slices", "sum_by_owner"]

PROCESS_KEY: Final[bytes]

def hash_slices(
    wire: bytes, starts: NDArray[np.int32], lengths: NDArray[np.int32], key: bytes | None = None
) -> NDArray[np.uint64]: ...
def hash_attributes(wire: bytes, rows: NDArray[Any], key: bytes | None = None) -> NDArray[np.uint64]: ...
def sum_by_owner(
    hashes: NDArray[np.uint64], owners: NDArray[np.int32], row_count: int, rows: NDArray[Any]
) -> NDArray[np.uint64]: ...
def combine(*parts: NDArray[np.uint64], key: bytes | None = None) -> NDArray[np.uint64]: ...
