"""Exemplars of merged points: the newest few for each written point and flush (docs/reference/cardinality.md, rule 9).

Attributes that the written series has lost are in ``filtered_attributes``, so that the tenant or the id that caused the
explosion can be found. Candidates are kept as small batches of their points, and only those that are written are
decoded.
"""

from collections.abc import Sequence
from typing import Any, Final

import numpy as np

from collector.model import EMPTY_CONTEXT, Exemplars, Metrics
from collector.model.arrays import I32, U64, Indices, Mask
from collector.model.runs import rank_in_run, run_starts
from processors.cardinality.identity import attributes_of

__all__ = ["ExemplarPool"]

_INT: Final = 1
_PARTS_MAX: Final = 64  # batches that are kept before candidates that are no longer among the newest are removed
_MAX_BYTES: Final = 8 * 1024 * 1024  # of all candidates; what exceeds it is not kept


class ExemplarPool:
    """Candidates since the last flush."""

    def __init__(self, limit: int, hidden: frozenset[str]) -> None:
        """``limit``: exemplars per written point. ``hidden``: keys that are left out of ``filtered_attributes``."""
        self._limit, self._hidden = limit, hidden
        self._parts: list[tuple[Metrics, I32]] = []  # a batch, and the accumulator of each of its exemplars or -1

    def configure(self, limit: int, hidden: frozenset[str]) -> None:
        """Apply other settings (after a reload)."""
        self._limit, self._hidden = limit, hidden

    @property
    def memory_bytes(self) -> int:
        """Memory of the candidates."""
        return sum(batch.memory_bytes + owners.nbytes for batch, owners in self._parts)

    def note(self, batch: Metrics, rows: Indices, targets: I32) -> None:
        """Keep the exemplars of points (ascending ``rows``) that were merged into the accumulators ``targets``."""
        if not self._limit or not batch.field("exemplar_count", "points")[rows].any():
            return
        target_of = np.full(batch.item_count, -1, np.int32)
        target_of[rows] = targets
        self._keep(batch, target_of[batch.table("exemplars").parent])
        if len(self._parts) > _PARTS_MAX:
            self._thin()

    def forget(self) -> None:
        """Forget all candidates, after a flush has written them."""
        self._parts.clear()

    def drop(self, slots: I32) -> None:
        """Forget the candidates of accumulators that are removed."""
        self._parts = [
            (batch, np.where(np.isin(owners, slots), -1, owners).astype(np.int32)) for batch, owners in self._parts
        ]

    def collect(self) -> dict[int, list[tuple[Metrics, int]]]:
        """The newest exemplars of each accumulator as (batch, row of the table of exemplars)."""
        self._thin()
        found: dict[int, list[tuple[Metrics, int]]] = {}
        for batch, owners in self._parts:
            for row, owner in enumerate(owners.tolist()):
                if owner >= 0:
                    found.setdefault(owner, []).append((batch, row))
        return found

    def of_points(
        self, found: dict[int, list[tuple[Metrics, int]]], slots: Sequence[int], written: Sequence[dict[str, Any]]
    ) -> Exemplars | None:
        """The exemplars of the points of accumulators ``slots``, whose series have the attributes ``written``."""
        chosen = [(i, batch, row) for i, slot in enumerate(slots) for batch, row in found.get(slot, ())]
        if not chosen:
            return None
        rows = np.array([batch.table("exemplars").rows[row] for _, batch, row in chosen])
        is_int = rows["value_kind"] == _INT
        values = (
            rows["int_value"]
            if is_int.all()
            else np.where(is_int, rows["int_value"].astype(np.float64), rows["double_value"])
        )
        return Exemplars(
            owner=np.array([i for i, _, _ in chosen], np.int32),
            times=rows["time"],
            values=values,
            trace_ids=np.column_stack((rows["trace_id_hi"], rows["trace_id_lo"])),
            span_ids=rows["span_id"],
            attributes=[self._filtered(batch, row, written[i]) for i, batch, row in chosen],
        )

    def _filtered(self, batch: Metrics, row: int, written: dict[str, Any]) -> dict[str, Any]:
        """The attributes of an exemplar and its point that the written series does not have."""
        point = int(batch.table("exemplars").parent[row])
        attributes = {**attributes_of(batch, "points", point), **attributes_of(batch, "exemplars", row)}
        return {
            key: value
            for key, value in attributes.items()
            if key not in self._hidden and (key not in written or written[key] != value)
        }

    def _keep(self, batch: Metrics, owners: I32) -> None:
        """Keep the newest exemplars of a batch. ``owners``: the accumulator of each; -1: it is not kept."""
        mask = _newest(batch.table("exemplars").rows["time"], owners, self._limit)
        if not mask.any():
            return
        point_of = batch.table("exemplars").parent
        has_newest = np.zeros(batch.item_count, bool)
        has_newest[point_of[mask]] = True
        kept = batch.select(has_newest).select(mask[has_newest[point_of]], "exemplars")
        if self.memory_bytes + kept.size_bytes <= _MAX_BYTES:
            self._parts.append((kept, owners[mask]))

    def _thin(self) -> None:
        """Forget candidates that are not among the newest of their accumulator."""
        if len(self._parts) < 2:
            return
        owners = np.concatenate([owners for _, owners in self._parts])
        times = np.concatenate([batch.table("exemplars").rows["time"] for batch, _ in self._parts])
        mask = _newest(times, owners, self._limit)
        parts, self._parts = self._parts, []
        begin = 0
        for batch, owners_of_part in parts:
            is_newest = mask[begin : begin + len(owners_of_part)]
            begin += len(owners_of_part)
            self._keep(batch, np.where(is_newest, owners_of_part, -1).astype(np.int32))
        if not self._parts:
            return
        batches = [batch.with_context(EMPTY_CONTEXT) for batch, _ in self._parts]
        self._parts = [(Metrics.concat(batches), np.concatenate([owners for _, owners in self._parts]))]


def _newest(times: U64, owners: I32, limit: int) -> Mask:
    """(n,) the ``limit`` newest of each owner; none of owner -1."""
    newest_first = np.lexsort((times, owners))[::-1]
    ordered = owners[newest_first]
    mask = np.zeros(len(owners), bool)
    mask[newest_first] = (rank_in_run(run_starts(ordered)) < limit) & (ordered >= 0)
    return mask
