"""What became of traces that are no longer open, for their late spans and for their logs. Bounded; the least lately asked go first."""

from typing import Final

import numpy as np

from collector.model import KeyTable
from collector.model.arrays import I32, U64, Array

__all__ = ["Decisions"]

_SLACK: Final = 16  # a cache overshoots by 1/16 before it is cut: cutting asks every entry


class Decisions:
    """Trace id to one decision's facts. A size of 0 remembers nothing."""

    def __init__(self, size: int) -> None:
        self.size = size
        self._table = KeyTable({"asked": np.uint64, "threshold": np.uint64, "rv": np.uint64, "at_s": np.float64})
        self._turn = 0

    def __len__(self) -> int:
        return len(self._table)

    @property
    def memory_bytes(self) -> int:
        """Of the table."""
        return self._table.memory_bytes

    def note(self, trace_ids: U64, *, thresholds: U64, rv: U64, now_s: float) -> None:
        """Remember traces decided at ``now_s``: the threshold of their spans, and the randomness to write (0 = none)."""
        if not self.size or not len(trace_ids):
            return
        slots, _ = self._table.insert(trace_ids)
        self._touch(slots)
        for name, values in (("threshold", thresholds), ("rv", rv)):
            self._table.column(name)[slots] = values
        self._table.column("at_s")[slots] = now_s
        self.cut()

    def find(self, trace_ids: U64) -> I32:
        """The slot of each, -1 = not remembered. Asking keeps it."""
        slots = self._table.find(trace_ids)
        if len(self._table):
            self._touch(slots[slots >= 0])
        return slots

    def column(self, name: str) -> Array:
        """``threshold``, ``rv``, ``at_s``; one row a slot."""
        return self._table.column(name)

    def cut(self, *, exactly: bool = False) -> None:
        """Forget what is beyond the size."""
        excess = len(self._table) - self.size
        if excess > (0 if exactly else self.size // _SLACK):
            live = self._table.live()
            oldest = np.argpartition(self._table.column("asked")[live], excess - 1)[:excess]
            self._table.remove(live[oldest])

    def adopt(self, other: "Decisions") -> None:
        """Take over what another one remembers."""
        live = other._table.live()  # noqa: SLF001 - of this class
        live = live[np.argsort(other._table.column("asked")[live], kind="stable")]  # noqa: SLF001
        if self.size and len(live):
            slots, _ = self._table.insert(other._table.keys(live))  # noqa: SLF001
            for name in ("threshold", "rv", "at_s"):
                self._table.column(name)[slots] = other._table.column(name)[live]  # noqa: SLF001
            self._table.column("asked")[slots] = np.arange(1, len(live) + 1)
            self._turn += len(live)
            self.cut(exactly=True)
        other._table.remove(live)  # noqa: SLF001

    def _touch(self, slots: I32) -> None:
        self._turn += 1
        self._table.column("asked")[slots] = self._turn
