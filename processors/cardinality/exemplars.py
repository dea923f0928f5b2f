"""Exemplars of folded points (rule 9): the newest few of each written point and flush.

What the written series does not say any more is in ``filtered_attributes``: which tenant, which id made it explode can
be seen without a series. Kept are small batches of the points in question; exemplars are decoded when they are written,
and only those.
"""

from collections.abc import Sequence
from typing import Any, Final

import numpy as np

from collector.model import EMPTY_CONTEXT, Exemplars, Metrics
from collector.model.arrays import I32, U64, Indices, Mask
from processors.cardinality.identity import attributes_of

__all__ = ["ExemplarPool"]

_INT: Final = 1
_PARTS_MAX: Final = 64  # batches kept before they are gone through for what is still among the newest


class ExemplarPool:
    """Candidates since the last flush."""

    def __init__(self, limit: int, hidden: frozenset[str]) -> None:
        self.limit = limit
        """Exemplars a written point."""
        self.hidden = hidden
        """Keys that do not go into ``filtered_attributes``."""
        self._parts: list[tuple[Metrics, I32]] = []

    @property
    def memory_bytes(self) -> int:
        """What is held."""
        return sum(batch.memory_bytes + owners.nbytes for batch, owners in self._parts)

    def note(self, batch: Metrics, rows: Indices, targets: I32) -> None:
        """Points (ascending ``rows``) that went into the accumulators ``targets``."""
        if not self.limit or not batch.field("exemplar_count", "points")[rows].any():
            return
        into = np.full(batch.item_count, -1, np.int32)
        into[rows] = targets
        self._keep(batch, into[batch.table("exemplars").parent])
        if len(self._parts) > _PARTS_MAX:
            self._thin()

    def forget(self) -> None:
        """A flush has written them."""
        self._parts.clear()

    def drop(self, slots: I32) -> None:
        """These accumulators are gone."""
        self._parts = [
            (batch, np.where(np.isin(owners, slots), -1, owners).astype(np.int32)) for batch, owners in self._parts
        ]

    def collect(self) -> dict[int, list[tuple[Metrics, int]]]:
        """Accumulator → its newest exemplars as (batch, exemplar row)."""
        self._thin()
        found: dict[int, list[tuple[Metrics, int]]] = {}
        for batch, owners in self._parts:
            for row, owner in enumerate(owners.tolist()):
                if owner >= 0:
                    found.setdefault(owner, []).append((batch, row))
        return found

    def of(
        self, found: dict[int, list[tuple[Metrics, int]]], slots: Sequence[int], written: Sequence[dict[str, Any]]
    ) -> Exemplars | None:
        """The exemplars of the points ``slots``, whose series have the attributes ``written``."""
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
        """What the exemplar says and its series does not."""
        point = int(batch.table("exemplars").parent[row])
        said = {**attributes_of(batch, "points", point), **attributes_of(batch, "exemplars", row)}
        return {
            key: value
            for key, value in said.items()
            if key not in self.hidden and (key not in written or written[key] != value)
        }

    def _keep(self, batch: Metrics, owners: I32) -> None:
        """Holds the newest exemplars of ``batch``, whose accumulators are ``owners``; -1: none."""
        mask = _newest(batch.table("exemplars").rows["time"], owners, self.limit)
        if not mask.any():
            return
        points = np.zeros(batch.item_count, bool)
        points[batch.table("exemplars").parent[mask]] = True
        inside = points[batch.table("exemplars").parent]
        small = batch.select(points)
        small = small.select(mask[inside], "exemplars")
        self._parts.append((small, owners[mask]))

    def _thin(self) -> None:
        """Only what is among the newest of its accumulator stays."""
        if len(self._parts) < 2:
            return
        owners = np.concatenate([owners for _, owners in self._parts])
        times = np.concatenate([batch.table("exemplars").rows["time"] for batch, _ in self._parts])
        mask = _newest(times, owners, self.limit)
        parts, self._parts = self._parts, []
        at = 0
        for batch, mine in parts:
            keep = mask[at : at + len(mine)]
            at += len(mine)
            self._keep(batch, np.where(keep, mine, -1).astype(np.int32))
        if not self._parts:
            return
        batches = [batch.with_context(EMPTY_CONTEXT) for batch, _ in self._parts]
        self._parts = [(Metrics.concat(batches), np.concatenate([mine for _, mine in self._parts]))]


def _newest(times: U64, owners: I32, limit: int) -> Mask:
    """(n,) the ``limit`` newest of each owner; nothing of owner -1."""
    order = np.lexsort((times, owners))
    ordered = owners[order]
    ends = (
        np.flatnonzero(np.concatenate((ordered[1:] != ordered[:-1], [True]))) if len(ordered) else np.zeros(0, np.intp)
    )
    place_from_end = np.repeat(ends, np.diff(np.concatenate(([-1], ends)))) - np.arange(len(ordered))
    mask = np.zeros(len(owners), bool)
    mask[order] = (place_from_end < limit) & (ordered >= 0)
    return mask
