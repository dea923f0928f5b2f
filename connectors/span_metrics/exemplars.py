"""Candidates for exemplars: traces to look at, until the flush that attaches them.

With ``only_kept`` a candidate waits for what the sampling processor decides: kept ones are attached, dropped ones
forgotten, undecided ones asked about again at the next flush, for a while.
"""

from dataclasses import dataclass
from typing import Final

import numpy as np

from collector.model import Exemplars, KeyTable
from collector.model.arrays import F64, I32, U64, Array
from collector.tail_sampling.decision_registry import Decision, DecisionRegistry

__all__ = ["Candidates", "Chosen"]

_TOTAL_MAX: Final = 65_536
_SPARE: Final = 8
"""Candidates a series may have for each exemplar it can get, where sampling drops some."""
_WAIT_S: Final = 300.0
"""An undecided trace that old is decided nowhere."""

_CANDIDATE: Final = np.dtype(
    [
        ("key", np.uint64, 2),
        ("trace", np.uint64, 2),
        ("span", np.uint64),
        ("time", np.uint64),
        ("value", np.float64),
        ("seen", np.float64),
    ]
)


@dataclass(frozen=True, slots=True)
class Chosen:
    """Exemplars of a flush, by slot ascending."""

    slots: I32
    rows: Array

    def of(self, slots: Array, offset: int) -> Exemplars | None:
        """Those of a call's points: point ``offset + i`` is slot ``slots[i]``."""
        order = np.argsort(slots)
        place = np.searchsorted(slots[order], self.slots)
        mine = (place < len(slots)) & (slots[order[np.minimum(place, len(slots) - 1)]] == self.slots)
        if not mine.any():
            return None
        rows = self.rows[mine]
        return Exemplars(
            owner=offset + order[place[mine]], times=rows["time"], values=rows["value"], trace_ids=np.ascontiguousarray(rows["trace"]),
            span_ids=rows["span"],
        )  # fmt: skip


class Candidates:
    """Of one family."""

    def __init__(self, per_point: int, only_kept: str, decisions: DecisionRegistry) -> None:
        self._per_point, self._only_kept, self._decisions = per_point, only_kept, decisions
        self._room = per_point * (_SPARE if only_kept else 1)
        self._parts: list[Array] = []
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def add(
        self, table: KeyTable, slots: Array, trace_ids: U64, span_ids: U64,
        times: U64, values: F64, now_s: float,
    ) -> None:  # fmt: skip
        """Spans that were counted, one a row: the first of each series that has room become candidates."""
        taken = table.column("exemplars")
        wanted = (taken[slots] < self._room) & table.column("is_named")[slots] & (trace_ids != 0).any(axis=1)
        rows = np.flatnonzero(wanted)
        if not len(rows) or self._count >= _TOTAL_MAX:
            return
        rows = rows[np.argsort(slots[rows], kind="stable")]
        mine = slots[rows]
        starts = np.flatnonzero(np.concatenate([[True], mine[1:] != mine[:-1]]))
        rank = np.arange(len(mine)) - np.repeat(starts, np.diff(np.append(starts, len(mine))))
        rows = rows[taken[mine] + rank < self._room][: _TOTAL_MAX - self._count]
        part = np.empty(len(rows), _CANDIDATE)
        part["key"], part["trace"], part["span"] = table.keys(slots[rows]), trace_ids[rows], span_ids[rows]
        part["time"], part["value"], part["seen"] = times[rows], values[rows], now_s
        self._parts.append(part)
        self._count += len(part)
        np.add.at(taken, slots[rows], 1)

    def choose(self, table: KeyTable, now_s: float) -> Chosen | None:
        """What this flush attaches; what stays undecided is kept."""
        table.column("exemplars")[:] = 0
        if not self._count:
            return None
        rows = np.concatenate(self._parts)
        slots = table.find(np.ascontiguousarray(rows["key"]))
        waits = np.zeros(len(rows), np.bool_)
        if self._only_kept:
            decided = self._decisions.decisions(self._only_kept, np.ascontiguousarray(rows["trace"]))
            if decided is None:
                decided = np.full(len(rows), Decision.UNKNOWN, np.int8)
            young = now_s - rows["seen"] < _WAIT_S
            # A span may come here before the sampling processor, beside us in the same fan-out, has seen it.
            waits = young & ((decided == Decision.PENDING) | (decided == Decision.UNKNOWN))
            slots = np.where(decided == Decision.KEPT, slots, np.int32(-1))
        self._parts = [rows[waits]] if waits.any() else []
        self._count = int(waits.sum())
        chosen = np.flatnonzero((slots >= 0) & ~waits)
        chosen = chosen[np.argsort(slots[chosen], kind="stable")]
        mine = slots[chosen]
        first = np.searchsorted(mine, mine, "left")
        keep = np.arange(len(mine)) - first < self._per_point
        back = table.find(np.ascontiguousarray(rows["key"][waits]))
        np.add.at(table.column("exemplars"), back[back >= 0], 1)
        return Chosen(mine[keep], rows[chosen[keep]]) if keep.any() else None
