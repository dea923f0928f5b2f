import numpy as np
from numpy.typing import NDArray

__all__ = ["dictionary", "find_slice", "pair_codes"]

def dictionary(
    wire: bytes, starts: NDArray[np.int32], lengths: NDArray[np.int32]
) -> tuple[NDArray[np.int32], NDArray[np.int32]]: ...
def pair_codes(a: NDArray[np.uint64], b: NDArray[np.uint64]) -> tuple[NDArray[np.int32], NDArray[np.int32]]: ...
def find_slice(wire: bytes, starts: NDArray[np.int32], lengths: NDArray[np.int32], wanted: bytes) -> int: ...
