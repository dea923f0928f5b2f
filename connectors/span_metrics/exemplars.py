"""Candidates for exemplars: traces to look at, kept until the flush that attaches them.

With ``only_kept``, a candidate waits for the decision of the sampling processor: kept traces are attached, dropped ones
forgotten, and undecided ones looked up again at the next flush, for a while.
"""

from dataclasses import dataclass
from typing import Final

import numpy as np

from collector.model import Exemplars, KeyTable
from collector.model.arrays import F64, I32, U64, Array, starts_of
from collector.model.runs import rank_in_run, run_starts
from collector.tail_sampling.decision_registry import Decision, DecisionRegistry

__all__ = ["ExemplarCandidates", "FlushExemplars"]

_TOTAL_MAX: Final = 65_536
_CANDIDATES_PER_EXEMPLAR: Final = 8
"""Where sampling drops some of them, a series may have this many candidates for each exemplar it can get."""
_WAIT_S: Final = 300.0
"""A trace that is undecided for so long will not be decided."""

_CANDIDATE: Final = np.dtype(
    [
        ("series", np.uint64, 2),
        ("trace", np.uint64, 2),
        ("span", np.uint64),
        ("time", np.uint64),
        ("value", np.float64),
        ("seen", np.float64),
    ]
)


@dataclass(frozen=True, slots=True)
class FlushExemplars:
    """The exemplars of one flush and family, by ascending slot."""

    slots: I32
    candidates: Array

    def of_points(self, slots: Array, first_point: int) -> Exemplars | None:
        """The exemplars of some points: point ``first_point + i`` is that of series ``slots[i]``."""
        # The points are looked up among the candidates: a flush asks once per resource, always of all candidates.
        begins = np.searchsorted(self.slots, slots, "left")
        counts = np.searchsorted(self.slots, slots, "right") - begins
        total = int(counts.sum())
        if not total:
            return None
        owner = np.repeat(np.arange(len(slots)), counts)
        rank = np.arange(total) - np.repeat(starts_of(counts), counts)
        candidates = self.candidates[begins[owner] + rank]
        return Exemplars(
            owner=first_point + owner,
            times=candidates["time"],
            values=candidates["value"],
            trace_ids=np.ascontiguousarray(candidates["trace"]),
            span_ids=candidates["span"],
        )


class ExemplarCandidates:
    """The candidates of one family."""

    def __init__(self, per_point: int, only_kept: str, decisions: DecisionRegistry) -> None:
        self._per_point, self._only_kept, self._decisions = per_point, only_kept, decisions
        self._per_series = per_point * (_CANDIDATES_PER_EXEMPLAR if only_kept else 1)
        self._parts: list[Array] = []
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def add(
        self, table: KeyTable, slots: Array, trace_ids: U64, span_ids: U64, times: U64, values: F64, now_s: float
    ) -> None:
        """Spans that were counted, one per row: the first ones of each series that has room become candidates."""
        counts = table.column("candidate_count")
        is_wanted = (counts[slots] < self._per_series) & table.column("is_named")[slots] & (trace_ids != 0).any(axis=1)
        rows = np.flatnonzero(is_wanted)
        if not len(rows) or self._count >= _TOTAL_MAX:
            return
        rows = rows[np.argsort(slots[rows], kind="stable")]
        rank = rank_in_run(run_starts(slots[rows]))
        rows = rows[counts[slots[rows]] + rank < self._per_series][: _TOTAL_MAX - self._count]
        part = np.empty(len(rows), _CANDIDATE)
        part["series"], part["trace"], part["span"] = table.keys(slots[rows]), trace_ids[rows], span_ids[rows]
        part["time"], part["value"], part["seen"] = times[rows], values[rows], now_s
        self._parts.append(part)
        self._count += len(part)
        np.add.at(counts, slots[rows], 1)

    def take_for_flush(self, table: KeyTable, now_s: float) -> FlushExemplars | None:
        """What this flush attaches. Candidates that are still undecided are kept, all others forgotten."""
        table.column("candidate_count")[:] = 0
        if not self._count:
            return None
        candidates = np.concatenate(self._parts)
        slots = table.find(np.ascontiguousarray(candidates["series"]))
        waits = np.zeros(len(candidates), np.bool_)
        if self._only_kept:
            decisions = self._decisions.decisions(self._only_kept, np.ascontiguousarray(candidates["trace"]))
            if decisions is None:
                decisions = np.full(len(candidates), Decision.UNKNOWN, np.int8)
            # The processor may not know a trace yet: where both are fed by one fan-out, a span may come here first.
            is_undecided = (decisions == Decision.PENDING) | (decisions == Decision.UNKNOWN)
            waits = is_undecided & (now_s - candidates["seen"] < _WAIT_S)
            slots = np.where(decisions == Decision.KEPT, slots, np.int32(-1))
        self._parts = [candidates[waits]] if waits.any() else []
        self._count = int(waits.sum())
        waiting_slots = table.find(np.ascontiguousarray(candidates["series"][waits]))
        np.add.at(table.column("candidate_count"), waiting_slots[waiting_slots >= 0], 1)
        ready = np.flatnonzero((slots >= 0) & ~waits)
        ready = ready[np.argsort(slots[ready], kind="stable")]
        ready = ready[rank_in_run(run_starts(slots[ready])) < self._per_point]
        return FlushExemplars(slots[ready], candidates[ready]) if len(ready) else None
