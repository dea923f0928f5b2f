"""The last values of the histograms that have the same bounds, or of the summaries that have the same quantiles."""

import numpy as np

from collector.model.arrays import I32

__all__ = ["DistributionTable"]


class DistributionTable:
    """Values, sum and count of the series that share one set of bounds or quantiles, a row per series."""

    def __init__(self, label_count: int) -> None:
        self.values = np.zeros((16, label_count))
        self.sums = np.zeros(16)
        self.counts = np.zeros(16)
        self.has_sum = np.zeros(16, np.uint8)
        self.exemplars = np.zeros((0, label_count), np.int32)
        """The number of the exemplar of each value; without rows until there is one."""
        self.row_count = 0

    @property
    def memory_bytes(self) -> int:
        """The size of the table, including unused rows."""
        arrays = (self.values, self.sums, self.counts, self.has_sum, self.exemplars)
        return sum(array.nbytes for array in arrays)

    def exemplar_numbers(self) -> I32:
        """``exemplars`` with a row for each series."""
        if len(self.exemplars) < len(self.values):
            grown = np.zeros(self.values.shape, np.int32)
            grown[: len(self.exemplars)] = self.exemplars
            self.exemplars = grown
        return self.exemplars

    def is_sparse(self, used_count: int) -> bool:
        """Whether most rows belong to no series, if this many do."""
        return 2 * used_count < self.row_count

    def keep_only(self, rows: I32) -> I32:
        """Leave out all other rows, each of which occurs once; returns what became of these."""
        count = len(rows)
        room = max(16, count)
        for name in ("values", "sums", "counts", "has_sum", "exemplars"):
            old = getattr(self, name)
            new = np.zeros((room if name != "exemplars" or len(old) else 0, *old.shape[1:]), old.dtype)
            known = rows < len(old)
            if len(new):
                new[:count][known] = old[rows[known]]
            setattr(self, name, new)
        self.row_count = count
        return np.arange(count, dtype=np.int32)

    def allocate(self, count: int) -> I32:
        """Rows for ``count`` new series."""
        rows = np.arange(self.row_count, self.row_count + count, dtype=np.int32)
        self.row_count += count
        while self.row_count > len(self.sums):
            self.values = np.concatenate((self.values, np.zeros_like(self.values)))
            self.sums = np.concatenate((self.sums, np.zeros_like(self.sums)))
            self.counts = np.concatenate((self.counts, np.zeros_like(self.counts)))
            self.has_sum = np.concatenate((self.has_sum, np.zeros_like(self.has_sum)))
        return rows
