"""Arrays that rows are appended to."""

import numpy as np
from numpy.typing import DTypeLike

from collector.model.arrays import Array

__all__ = ["GrowingRows"]


class GrowingRows:
    """Rows of one shape. Appending a row costs the same however many there are."""

    def __init__(self, dtype: DTypeLike, *shape: int) -> None:
        self._values = np.zeros((16, *shape), dtype)
        self._count = 0

    def __len__(self) -> int:
        return self._count

    @property
    def memory_bytes(self) -> int:
        """The size, including unused rows."""
        return self._values.nbytes

    def append(self, row: object) -> None:
        """Add a row."""
        if self._count == len(self._values):
            grown = np.zeros((2 * self._count, *self._values.shape[1:]), self._values.dtype)
            grown[: self._count] = self._values
            self._values = grown
        self._values[self._count] = row
        self._count += 1

    def rows(self) -> Array:
        """All rows, writable. Those that exist by now are not moved within this array by later calls of ``append``."""
        return self._values[: self._count]
