from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = [
    "combine",
    "continue_process_key",
    "hash_attributes",
    "hash_slices",
    "process_key",
    "sum_by_owner",
]

def process_key() -> bytes: ...
def continue_process_key(key: bytes) -> bool: ...
def hash_slices(
    wire: bytes, starts: NDArray[np.int32], lengths: NDArray[np.int32], key: bytes | None = None
) -> NDArray[np.uint64]: ...
def hash_attributes(wire: bytes, rows: NDArray[Any], key: bytes | None = None) -> NDArray[np.uint64]: ...
def sum_by_owner(
    hashes: NDArray[np.uint64], owners: NDArray[np.int32], row_count: int, rows: NDArray[Any]
) -> NDArray[np.uint64]: ...
def combine(*parts: NDArray[np.uint64], key: bytes | None = None) -> NDArray[np.uint64]: ...
