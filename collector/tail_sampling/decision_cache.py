"""Decisions on traces that are no longer held, for their late spans and their logs.

The cache is bounded; the decisions that were used least recently are forgotten first.
"""

from typing import Final

import numpy as np

from collector.model import KeyTable
from collector.model.arrays import I32, U64, Array

__all__ = ["DecisionCache"]

_SLACK: Final = 16  # the cache grows to 1/16 above its size before it is trimmed: trimming looks at every entry
_COLUMNS: Final = ("threshold", "randomness_to_write", "decided_s")


class DecisionCache:
    """Remembers one kind of decision, kept or dropped, by trace id. A size of 0 remembers nothing."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._table = KeyTable(
            {
                "last_use": np.uint64,
                "threshold": np.uint64,
                "randomness_to_write": np.uint64,
                "decided_s": np.float64,
            }
        )
        self._use_count = 0

    def __len__(self) -> int:
        return len(self._table)

    @property
    def memory_bytes(self) -> int:
        """Memory of the table."""
        return self._table.memory_bytes

    def remember(self, trace_ids: U64, *, thresholds: U64, randomness_to_write: U64, now_s: float) -> None:
        """Add traces decided at ``now_s``, with the threshold and the randomness to write into their late spans."""
        if not self._size or not len(trace_ids):
            return
        slots, _ = self._table.insert(trace_ids)
        self._use(slots)
        self._table.column("threshold")[slots] = thresholds
        self._table.column("randomness_to_write")[slots] = randomness_to_write
        self._table.column("decided_s")[slots] = now_s
        self._trim(self._size // _SLACK)

    def find(self, trace_ids: U64) -> I32:
        """The slot of each trace, -1 = not remembered. A decision that is found counts as used."""
        slots = self._table.find(trace_ids)
        if len(self._table):
            self._use(slots[slots >= 0])
        return slots

    def column(self, name: str) -> Array:
        """``threshold``, ``randomness_to_write`` or ``decided_s``, by slot."""
        return self._table.column(name)

    def take_over(self, other: "DecisionCache") -> None:
        """Move the decisions of another cache to this one."""
        source, target = other._table, self._table  # noqa: SLF001 - of this class
        live = source.live()
        live = live[np.argsort(source.column("last_use")[live], kind="stable")]
        if self._size and len(live):
            slots, _ = target.insert(source.keys(live))
            for name in _COLUMNS:
                target.column(name)[slots] = source.column(name)[live]
            target.column("last_use")[slots] = np.arange(1, len(live) + 1)
            self._use_count += len(live)
            self._trim(0)
        source.remove(live)

    def _use(self, slots: I32) -> None:
        self._use_count += 1
        self._table.column("last_use")[slots] = self._use_count

    def _trim(self, slack: int) -> None:
        excess = len(self._table) - self._size
        if excess > slack:
            live = self._table.live()
            oldest = np.argpartition(self._table.column("last_use")[live], excess - 1)[:excess]
            self._table.remove(live[oldest])
