"""Decisions on traces that are no longer held, for their late spans and their logs.

The cache is bounded; the decisions that were used least recently are forgotten first.
"""

from typing import Final

import numpy as np

from collector.model import KeyTable
from collector.model.arrays import I32, U64, Array, Mask
from collector.model.checkpoint import Part, Parts

__all__ = ["DecisionCache"]

_SLACK: Final = 16  # the cache grows to 1/16 above its size before it is trimmed: trimming looks at every entry
_COLUMNS: Final = ("threshold", "randomness_to_write", "decided_s")


class DecisionCache:
    """Remembers one kind of decision, kept or dropped, by trace id. A size of 0 remembers nothing."""

    def __init__(self, size: int, abandoned_size: int = 0) -> None:
        """Make an empty cache.

        Args:
            size: Number of decisions that are remembered.
            abandoned_size: Number of traces that were dropped undecided, which are remembered in addition: under
                overload there are many, and one that is forgotten too early begins again with its second half.
        """
        self._size, self._abandoned_size = size, abandoned_size
        self._abandoned_count = 0
        self._table = KeyTable(
            {
                "last_use": np.uint64,
                "threshold": np.uint64,
                "randomness_to_write": np.uint64,
                "decided_s": np.float64,
                "is_abandoned": np.bool_,
            }
        )
        self._use_count = 0

    def __len__(self) -> int:
        return len(self._table)

    @property
    def memory_bytes(self) -> int:
        """Memory of the table."""
        return self._table.memory_bytes

    def remember(
        self,
        trace_ids: U64,
        *,
        thresholds: U64,
        randomness_to_write: U64,
        now_s: float,
        are_abandoned: Mask | None = None,
    ) -> None:
        """Add traces decided at ``now_s``, with the threshold and the randomness to write into their late spans.

        ``are_abandoned``: which of them were dropped undecided; None: none.
        """
        abandoned = np.zeros(len(trace_ids), np.bool_)
        if are_abandoned is not None and self._abandoned_size:
            abandoned = are_abandoned
        if not self._size:
            trace_ids, abandoned = trace_ids[abandoned], abandoned[abandoned]
            thresholds, randomness_to_write = thresholds[: len(trace_ids)], randomness_to_write[: len(trace_ids)]
        if not len(trace_ids):
            return
        slots, _ = self._table.insert(trace_ids)
        was_abandoned = self._table.column("is_abandoned")
        self._abandoned_count += int(np.count_nonzero(abandoned)) - int(np.count_nonzero(was_abandoned[slots]))
        was_abandoned[slots] = abandoned
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
        if (self._size or self._abandoned_size) and len(live):
            slots, _ = target.insert(source.keys(live))
            for name in _COLUMNS:
                target.column(name)[slots] = source.column(name)[live]
            target.column("last_use")[slots] = np.arange(1, len(live) + 1)
            target.column("is_abandoned")[slots] = source.column("is_abandoned")[live] & bool(self._abandoned_size)
            self._abandoned_count = int(np.count_nonzero(target.column("is_abandoned")[target.live()]))
            self._use_count += len(live)
            self._trim(0)
        source.remove(live)
        other._abandoned_count = 0  # noqa: SLF001

    def snapshot(self) -> dict[str, Part]:
        """Copies of the decisions: parts of a checkpoint."""
        return self._table.snapshot()

    def restore(self, parts: Parts, elapsed_s: float) -> None:
        """Remember what ``parts`` has; ``elapsed_s`` is added to the times of the decisions.

        Raises:
            CheckpointError: The parts are not those of such a cache.
        """
        saved = DecisionCache(self._size, self._abandoned_size)
        saved._table.restore(parts)
        saved._table.column("decided_s")[saved._table.live()] += elapsed_s
        self.take_over(saved)

    def _use(self, slots: I32) -> None:
        self._use_count += 1
        self._table.column("last_use")[slots] = self._use_count

    def _trim(self, slack: int) -> None:
        excess = len(self._table) - self._abandoned_count - self._size
        if excess > slack:
            self._remove_oldest(excess, abandoned=False)
        excess = self._abandoned_count - self._abandoned_size
        if excess > min(slack, self._abandoned_size // _SLACK):
            self._remove_oldest(excess, abandoned=True)
            self._abandoned_count -= excess

    def _remove_oldest(self, count: int, *, abandoned: bool) -> None:
        live = self._table.live()
        live = live[self._table.column("is_abandoned")[live] == abandoned]
        oldest = np.argpartition(self._table.column("last_use")[live], count - 1)[:count]
        self._table.remove(live[oldest])
