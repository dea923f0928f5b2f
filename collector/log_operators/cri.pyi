import numpy as np
from numpy.typing import NDArray

from collector.log_operators.entries import Entries, Path

__all__ = ["container_formats", "parse_cri"]

def container_formats(entries: Entries, numbers: NDArray[np.int32], source: Path) -> NDArray[np.uint8]: ...
def parse_cri(
    entries: Entries, numbers: NDArray[np.int32], source: Path, target: Path, is_utc: bool
) -> NDArray[np.uint8]: ...
