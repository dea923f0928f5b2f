"""Trace ids whose decision is remembered: the least recently asked for go first."""

from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from collector.model import KeyTable

__all__ = ["DecisionCache"]

_EXACT_MAX: Final = 4096  # larger caches make room for many at a time


class DecisionCache:
    """At most ``size`` ids; 0: none, ever. Source: the Collector's ``decision_cache`` (an LRU of trace ids)."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._table = KeyTable({"used": np.uint64}, capacity=min(max(size, 1), 1024))
        self._turn = 0

    def __len__(self) -> int:
        return len(self._table)

    def find(self, trace_ids: NDArray[np.uint64]) -> NDArray[np.bool_]:
        """bool[n]: the id is remembered. It counts as used now."""
        if not len(self._table):
            return np.zeros(len(trace_ids), np.bool_)
        slots = self._table.find(trace_ids)
        found: NDArray[np.bool_] = slots >= 0
        self._use(slots[found])
        return found

    def put(self, trace_ids: NDArray[np.uint64]) -> NDArray[np.bool_]:
        """Remember these, each id once. bool[k]: it is remembered now."""
        if not self._size:
            return np.zeros(len(trace_ids), np.bool_)
        self._use(self._table.insert(trace_ids[-self._size :])[0])
        excess = len(self._table) - self._size
        if excess > 0:
            if self._size > _EXACT_MAX:
                excess = max(excess, self._size // 16)
            live = self._table.live()
            oldest = np.argpartition(self._table.column("used")[live], excess - 1)[:excess]
            self._table.remove(live[oldest])
        return self._table.find(trace_ids) >= 0

    def _use(self, slots: NDArray[Any]) -> None:
        self._table.column("used")[slots] = np.arange(self._turn, self._turn + len(slots), dtype=np.uint64)
        self._turn += len(slots)
