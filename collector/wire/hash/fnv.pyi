import numpy as np
from numpy.typing import NDArray

__all__ = ["fnv1a_32"]

def fnv1a_32(wire: bytes, starts: NDArray[np.int32], lengths: NDArray[np.int32], state: int) -> NDArray[np.uint32]: ...
