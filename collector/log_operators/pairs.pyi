import numpy as np
from numpy.typing import NDArray

from collector.log_operators.entries import Entries, Path

__all__ = ["parse_pairs"]

def parse_pairs(
    entries: Entries, numbers: NDArray[np.int32], source: Path, target: Path, pair: bytes, delimiter: bytes
) -> NDArray[np.uint8]: ...
