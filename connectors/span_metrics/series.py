"""The series of one metric family (calls and durations, or events), one row each of a table.

A resource has ``limit`` named series in a family; what is over it is counted in one overflow series of that resource,
so sums stay true. Source of the overflow attribute: OpenTelemetry metrics SDK specification, "Overflow attribute".
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final, Literal

import numpy as np

from collector.model import Groups, KeyTable, combine_keys
from collector.model.arrays import F64, I32, I64, U64, Array, Mask
from collector.model.builders import Attributes
from connectors.span_metrics.dimensions import Rows
from connectors.span_metrics.exponential import ExponentialBuckets
from connectors.span_metrics.weights import Weights

__all__ = ["NO_OP", "OVERFLOW", "Budget", "Family", "Observed", "Operation", "Resource", "Resources"]

OVERFLOW: Final = Attributes({"otel.metric.overflow": True})
NO_OP: Final = -1
_OVERFLOW_MARK: Final = 0x6F766572666C6F77
_FULL: Final = 1 << 62  # a count this large begins again, before it leaves 63 bits

Operation = Callable[[int, int], int]
"""(row, resource slot) to the code under which the report knows what the row is."""


@dataclass(frozen=True, slots=True)
class Resource:
    """What is said of all series of a resource."""

    attributes: Attributes
    service: str


class Resources:
    """Resources by key. Past ``room`` new ones share slot 0, which has no attributes."""

    def __init__(self) -> None:
        self.table = KeyTable({"seen": np.float64}, capacity=64)
        self.known: dict[int, Resource] = {}
        slots, _ = self.table.insert(np.zeros((1, 2), np.uint64))
        self.common = int(slots[0])
        self.known[self.common] = Resource(OVERFLOW, "")

    def slots_of(self, keys: U64, describe: Callable[[int], Resource], now_s: float, room: int) -> I32:
        """Each key's slot; ``describe(row)`` is asked once for a new one."""
        slots, is_new = self.table.insert(keys, room + 1)
        for row in np.flatnonzero(is_new).tolist():
            self.known[int(slots[row])] = describe(row)
        found: I32 = np.where(slots < 0, np.int32(self.common), slots)
        self.table.column("seen")[found] = now_s
        return found

    def remove(self, slots: Array) -> None:
        """Forget resources."""
        slots = slots[slots != self.common]
        for slot in slots.tolist():
            self.known.pop(slot, None)
        self.table.remove(slots)


@dataclass(slots=True)
class Budget:
    """How many series there may be."""

    limit: int
    """Named ones a resource and family; 0: no limit."""
    total: int
    """Of all families together."""
    used: int = 0
    overflowed: int = 0
    """Spans and events counted in overflow series."""


@dataclass(frozen=True, slots=True)
class Observed:
    """What is to be added: one row an observation."""

    weights: Weights
    is_error: Mask | None = None
    values: F64 | None = None
    """Durations; None: the family has no histogram."""


@dataclass(slots=True)
class Family:
    """One table of series. ``bounds`` of explicit buckets, ``exponential``, or neither: counted only."""

    name: Literal["red", "calls", "duration", "events"]
    bounds: F64 | None = None
    exponential: ExponentialBuckets | None = None
    table: KeyTable = field(init=False)
    attributes: dict[int, Attributes] = field(default_factory=dict)
    overflow: dict[int, int] = field(default_factory=dict)
    """Resource slot to the slot of its overflow series."""
    named: dict[int, int] = field(default_factory=dict)
    """Resource slot to how many named series it has."""
    last: KeyTable | None = None
    """Delta: when series that may come again were last written."""

    def __post_init__(self) -> None:
        columns: dict[str, Any] = {
            "resource": np.int32, "operation": np.int32, "count": np.int64, "errors": np.int64, "sum": np.float64, "start": np.uint64,
            "seen": np.float64, "is_fresh": np.bool_, "is_named": np.bool_, "exemplars": np.int32,
        }  # fmt: skip
        if self.bounds is not None:
            columns["buckets"] = (np.int64, (len(self.bounds) + 1,))
        if self.exponential is not None:
            columns |= {"zero": np.int64, "min": np.float64, "max": np.float64} | self.exponential.columns()
        self.table = KeyTable(columns, capacity=64)

    @property
    def has_histogram(self) -> bool:
        """Whether durations are kept."""
        return self.bounds is not None or self.exponential is not None

    def slots_of(
        self,
        rows: Rows,
        found: Groups,
        resource_keys: U64,
        budget: Budget,
        operation: Operation | None,
        now: int,
        now_s: float,
    ) -> I32:
        """The slot of each group; new series are made, overflow series where they may not be. ``resource_keys`` U64[g,2]."""
        keys = rows.keys(found, resource_keys)
        slots = self.table.find(keys)
        resource = rows.resource[found.first]
        unknown = slots < 0
        if unknown.any():
            full = [owner for owner, count in self.named.items() if budget.limit and count >= budget.limit]
            for group in np.flatnonzero(unknown & ~np.isin(resource, full)).tolist():
                if budget.used >= budget.total:
                    break
                owner = int(resource[group])
                if not budget.limit or self.named.get(owner, 0) < budget.limit:
                    self._begin(keys[group : group + 1], owner, rows, int(found.first[group]), budget, operation, now)
            slots = self.table.find(keys)
            over = slots < 0
            if over.any():
                budget.overflowed += int(found.counts[over].sum())
                owners, first, inverse = np.unique(resource[over], return_index=True, return_inverse=True)
                places = [
                    self._overflow_slot(owner, key[None, :], operation, now)
                    for owner, key in zip(owners.tolist(), resource_keys[over][first], strict=True)
                ]
                slots[over] = np.array(places, np.int32)[inverse]
        self.table.column("seen")[slots] = now_s
        return slots

    def _begin(
        self, key: U64, owner: int, rows: Rows, row: int, budget: Budget, operation: Operation | None, now: int
    ) -> None:
        """A new named series, unless its key was inserted a moment ago."""
        slot = self._insert(key, owner, now)
        if slot is not None:
            self.attributes[slot] = Attributes(rows.attributes(row))
            self.table.column("is_named")[slot] = True
            self.table.column("operation")[slot] = NO_OP if operation is None else operation(row, owner)
            self.named[owner] = self.named.get(owner, 0) + 1
            budget.used += 1

    def _overflow_slot(self, owner: int, resource_key: U64, operation: Operation | None, now: int) -> int:
        known = self.overflow.get(owner)
        if known is not None:
            return known
        slot = self._insert(combine_keys(resource_key, np.full(1, _OVERFLOW_MARK, np.uint64)), owner, now)
        assert slot is not None
        self.overflow[owner] = slot
        self.attributes[slot] = OVERFLOW
        self.table.column("operation")[slot] = NO_OP if operation is None else operation(-1, owner)
        return slot

    def _insert(self, key: U64, owner: int, now: int) -> int | None:
        """A new series; None where the key was inserted a moment ago."""
        slots, is_new = self.table.insert(key)
        if not is_new[0]:
            return None
        slot = int(slots[0])
        start = now
        if self.last is not None:
            known = int(self.last.find(key)[0])
            start = int(self.last.column("time")[known]) if known >= 0 else now
        self.table.column("resource")[slot] = owner
        self.table.column("start")[slot] = start
        self.table.column("is_fresh")[slot] = True
        return slot

    def add(self, slots: Array, observed: Observed) -> None:
        """Count each observation in the series of its slot; ``slots`` I32[n]."""
        table, weights = self.table, observed.weights
        np.add.at(table.column("count"), slots, weights.count)
        if observed.is_error is not None and observed.is_error.any():
            np.add.at(table.column("errors"), slots[observed.is_error], weights.count[observed.is_error])
        values = observed.values
        if values is None or not self.has_histogram:
            return
        np.add.at(table.column("sum"), slots, values * weights.exact)
        if self.bounds is not None:
            buckets = table.column("buckets")
            index = slots.astype(np.int64) * buckets.shape[1] + np.searchsorted(self.bounds, values, "left")
            np.add.at(buckets.reshape(-1), index, weights.count)
        if self.exponential is not None:
            self._add_exponential(slots, values, weights.count)

    def _add_exponential(self, slots: Array, values: F64, counts: I64) -> None:
        assert self.exponential is not None
        table = self.table
        lows, highs = table.column("min"), table.column("max")
        touched = np.unique(slots)
        fresh = touched[(table.column("positive")[touched] == 0) & (table.column("zero")[touched] == 0)]
        lows[fresh], highs[fresh] = np.inf, -np.inf
        np.minimum.at(lows, slots, values)
        np.maximum.at(highs, slots, values)
        positive = values > 0
        np.add.at(table.column("zero"), slots[~positive], counts[~positive])
        self.exponential.add(table, slots[positive], values[positive], counts[positive])

    def remove(self, slots: Array, budget: Budget) -> None:
        """Forget series."""
        table = self.table
        is_named, resource = table.column("is_named")[slots], table.column("resource")[slots]
        for slot, named, owner in zip(slots.tolist(), is_named.tolist(), resource.tolist(), strict=True):
            self.attributes.pop(slot, None)
            if named:
                budget.used -= 1
                left = self.named.get(owner, 0) - 1
                if left > 0:
                    self.named[owner] = left
                else:
                    self.named.pop(owner, None)
            elif self.overflow.get(owner) == slot:
                del self.overflow[owner]
        table.remove(slots)

    def restart_full(self, slots: Array, now: int) -> None:
        """Series whose count has become too large begin again."""
        table = self.table
        full = slots[table.column("count")[slots] >= _FULL]
        if not len(full):
            return
        names = ["count", "errors", "sum"]
        names += ["buckets"] if self.bounds is not None else []
        names += ["zero"] if self.exponential is not None else []
        for name in names:
            table.column(name)[full] = 0
        if self.exponential is not None:
            self.exponential.clear(table, full)
        table.column("start")[full] = now
        table.column("is_fresh")[full] = True
