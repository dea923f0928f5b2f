"""The series of one metric family (calls and durations, or events): a table with one slot per series.

A resource may have ``Budget.limit`` named series in a family. Further ones are counted in one overflow series of the
resource, so sums stay true. Source of the overflow attribute: OpenTelemetry metrics SDK specification, "Overflow
attribute".
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final, Literal

import numpy as np

from collector.model import Groups, KeyTable, combine_keys
from collector.model.arrays import F64, I32, I64, U64, Array, Mask
from collector.model.builders import Attributes
from collector.otlp.exponential_histogram import ExponentialHistogramColumns
from connectors.span_metrics.dimensions import DimensionRows
from connectors.span_metrics.weights import Weights

__all__ = ["NO_OPERATION", "Budget", "MetricFamily", "Observations", "OperationOf", "Resource", "Resources"]

NO_OPERATION: Final = -1
_OVERFLOW: Final = Attributes({"otel.metric.overflow": True})
_OVERFLOW_KEY_PART: Final = 0x6F766572666C6F77  # "overflow"
_SERIES_MAX_BYTES: Final = 16 * 1024  # attributes of one series; a longer set is counted in the overflow series
_RESOURCE_MAX_BYTES: Final = 64 * 1024  # attributes of one resource; a larger one shares the common resource
_TEXT_MAX_BYTES: Final = 128 * 1024 * 1024  # attributes of all series
_COUNT_MAX: Final = 1 << 62  # a count that reaches it begins again, before it leaves 63 bits

OperationOf = Callable[[int, int], int]
"""(row, resource slot) to the code of the operation that the report shows for it; row -1 is the overflow series."""


@dataclass(frozen=True, slots=True)
class Resource:
    """What all series of a resource have in common."""

    attributes: Attributes
    service: str


class Resources:
    """The resources of the spans, by key. Those for which there is no room share one, which has no attributes."""

    def __init__(self) -> None:
        self.table = KeyTable({"seen": np.float64}, capacity=64)
        self.known: dict[int, Resource] = {}
        slots, _ = self.table.insert(np.zeros((1, 2), np.uint64))
        self.common = int(slots[0])
        """The slot of the resource that is shared."""
        self.known[self.common] = Resource(_OVERFLOW, "")

    def slots_of(self, keys: U64, describe: Callable[[int], Resource], now_s: float, room: int) -> I32:
        """The slot of each key. ``describe(row)`` is called once per new resource; ``room``: how many there may be."""
        slots, is_new = self.table.insert(keys, room + 1)
        for row in np.flatnonzero(is_new).tolist():
            resource = describe(row)
            if resource.attributes.size_bytes > _RESOURCE_MAX_BYTES:
                self.table.remove(slots[row : row + 1])
                slots = np.where(slots == slots[row], np.int32(-1), slots)
                continue
            self.known[int(slots[row])] = resource
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
    """Named series of a resource in a family; 0: unlimited."""
    total: int
    """Named series of all resources and families together."""
    used: int = 0
    """Named series there are."""
    text_bytes: int = 0
    """Their attributes."""
    overflowed: int = 0
    """Spans and events that were counted in overflow series."""


@dataclass(frozen=True, slots=True)
class Observations:
    """Spans or events to be counted, one per row."""

    weights: Weights
    is_error: Mask | None = None
    values: F64 | None = None
    """Durations; None where the family has no histogram."""


@dataclass(slots=True)
class MetricFamily:
    """A table of series: with explicit buckets (``bounds``), with an exponential histogram, or with counts alone."""

    name: Literal["red", "calls", "duration", "events"]
    """``red`` (rate, errors, duration) is ``calls`` and ``duration`` in one, where both have the same dimensions."""
    bounds: F64 | None = None
    exponential_size: int = 0
    """The buckets of the exponential histogram; 0: there is none."""
    table: KeyTable = field(init=False)
    exponential: ExponentialHistogramColumns | None = field(init=False, default=None)
    attributes: dict[int, Attributes] = field(default_factory=dict)
    overflow_slots: dict[int, int] = field(default_factory=dict)
    """The slot of a resource's overflow series, by the resource's slot."""
    named_counts: dict[int, int] = field(default_factory=dict)
    """How many named series a resource has, by the resource's slot."""
    flush_times: KeyTable | None = None
    """Delta: when each series was written last, also while it rests."""

    def __post_init__(self) -> None:
        columns: dict[str, Any] = {
            "resource": np.int32,
            "operation": np.int32,
            "count": np.int64,
            "errors": np.int64,
            "sum": np.float64,
            "start": np.uint64,
            "seen": np.float64,
            "is_new": np.bool_,
            "is_named": np.bool_,
            "candidate_count": np.int32,
        }
        if self.bounds is not None:
            columns["buckets"] = (np.int64, (len(self.bounds) + 1,))
        if self.exponential_size:
            columns |= {"min": np.float64, "max": np.float64}
            columns |= ExponentialHistogramColumns.columns("exponential_", self.exponential_size, np.int64)
        self.table = KeyTable(columns, capacity=64)
        if self.exponential_size:
            self.exponential = ExponentialHistogramColumns(self.table, "exponential_", self.exponential_size)

    @property
    def has_histogram(self) -> bool:
        """Whether durations are kept."""
        return self.bounds is not None or self.exponential is not None

    def slots_of(
        self,
        rows: DimensionRows,
        series: Groups,
        resource_keys: U64,
        budget: Budget,
        operation_of: OperationOf | None,
        now: int,
        now_s: float,
    ) -> I32:
        """The slot of each group of rows: of its series, which is made if it is new, or of an overflow series.

        Args:
            rows: The dimensions of the rows.
            series: Groups of rows with equal dimensions.
            resource_keys: U64[g,2] of the groups' resources.
            budget: How many series there may be; is charged.
            operation_of: The report's operation of a new series; None: it has none.
            now: Wall clock, ns.
            now_s: Monotonic clock.
        """
        keys = rows.keys(series, resource_keys)
        slots = self.table.find(keys)
        resource = rows.resource[series.first]
        is_unknown = slots < 0
        if is_unknown.any():
            full = [owner for owner, count in self.named_counts.items() if budget.limit and count >= budget.limit]
            for group in np.flatnonzero(is_unknown & ~np.isin(resource, full)).tolist():
                if budget.used >= budget.total:
                    break
                owner = int(resource[group])
                if not budget.limit or self.named_counts.get(owner, 0) < budget.limit:
                    key = keys[group : group + 1]
                    self._begin(key, owner, rows, int(series.first[group]), budget, operation_of, now)
            slots = self.table.find(keys)
            is_over = slots < 0
            if is_over.any():
                budget.overflowed += int(series.counts[is_over].sum())
                owners, first, inverse = np.unique(resource[is_over], return_index=True, return_inverse=True)
                overflow_slots = [
                    self._overflow_slot(owner, key[None, :], operation_of, now)
                    for owner, key in zip(owners.tolist(), resource_keys[is_over][first], strict=True)
                ]
                slots[is_over] = np.array(overflow_slots, np.int32)[inverse]
        self.table.column("seen")[slots] = now_s
        return slots

    def _begin(
        self,
        key: U64,
        owner: int,
        rows: DimensionRows,
        row: int,
        budget: Budget,
        operation_of: OperationOf | None,
        now: int,
    ) -> None:
        """A new named series, unless another group of the batch has the same key, or its attributes are too large."""
        attributes = Attributes(rows.attributes(row))
        size_bytes = attributes.size_bytes
        if size_bytes > _SERIES_MAX_BYTES or budget.text_bytes + size_bytes > _TEXT_MAX_BYTES:
            return
        slot = self._insert(key, owner, now)
        if slot is not None:
            self.attributes[slot] = attributes
            budget.text_bytes += size_bytes
            self.table.column("is_named")[slot] = True
            self.table.column("operation")[slot] = NO_OPERATION if operation_of is None else operation_of(row, owner)
            self.named_counts[owner] = self.named_counts.get(owner, 0) + 1
            budget.used += 1

    def _overflow_slot(self, owner: int, resource_key: U64, operation_of: OperationOf | None, now: int) -> int:
        known = self.overflow_slots.get(owner)
        if known is not None:
            return known
        slot = self._insert(combine_keys(resource_key, np.full(1, _OVERFLOW_KEY_PART, np.uint64)), owner, now)
        assert slot is not None
        self.overflow_slots[owner] = slot
        self.attributes[slot] = _OVERFLOW
        self.table.column("operation")[slot] = NO_OPERATION if operation_of is None else operation_of(-1, owner)
        return slot

    def _insert(self, key: U64, owner: int, now: int) -> int | None:
        """The slot of a new series; None if the table has the key already."""
        slots, is_new = self.table.insert(key)
        if not is_new[0]:
            return None
        slot = int(slots[0])
        start = now
        if self.flush_times is not None:
            known = int(self.flush_times.find(key)[0])
            start = int(self.flush_times.column("time")[known]) if known >= 0 else now
        self.table.column("resource")[slot] = owner
        self.table.column("start")[slot] = start
        self.table.column("is_new")[slot] = True
        return slot

    def add(self, slots: Array, observations: Observations) -> None:
        """Count each observation in the series of its slot; ``slots`` I32[n]."""
        table, weights, is_error = self.table, observations.weights, observations.is_error
        np.add.at(table.column("count"), slots, weights.count)
        if is_error is not None and is_error.any():
            np.add.at(table.column("errors"), slots[is_error], weights.count[is_error])
        values = observations.values
        if values is None or not self.has_histogram:
            return
        np.add.at(table.column("sum"), slots, values * weights.exact)
        if self.bounds is not None:
            buckets = table.column("buckets")
            index = slots.astype(np.int64) * buckets.shape[1] + np.searchsorted(self.bounds, values, "left")
            np.add.at(buckets.reshape(-1), index, weights.count)
        if self.exponential is not None:
            self._add_exponential(self.exponential, slots, values, weights.count)

    def _add_exponential(
        self, exponential: ExponentialHistogramColumns, slots: Array, values: F64, counts: I64
    ) -> None:
        lows, highs = self.table.column("min"), self.table.column("max")
        touched = np.unique(slots)
        new = touched[exponential.is_empty(touched)]
        lows[new], highs[new] = np.inf, -np.inf
        np.minimum.at(lows, slots, values)
        np.maximum.at(highs, slots, values)
        exponential.add(slots, values, counts)

    def remove(self, slots: Array, budget: Budget) -> None:
        """Forget series."""
        table = self.table
        is_named, resource = table.column("is_named")[slots], table.column("resource")[slots]
        for slot, named, owner in zip(slots.tolist(), is_named.tolist(), resource.tolist(), strict=True):
            attributes = self.attributes.pop(slot, None)
            if named:
                budget.used -= 1
                budget.text_bytes -= 0 if attributes is None else attributes.size_bytes
                remaining = self.named_counts.get(owner, 0) - 1
                if remaining > 0:
                    self.named_counts[owner] = remaining
                else:
                    self.named_counts.pop(owner, None)
            elif self.overflow_slots.get(owner) == slot:
                del self.overflow_slots[owner]
        table.remove(slots)

    def restart_full(self, slots: Array, now: int) -> None:
        """Begin series anew whose count has become too large."""
        table = self.table
        full = slots[table.column("count")[slots] >= _COUNT_MAX]
        if not len(full):
            return
        for name in ("count", "errors", "sum", *(("buckets",) if self.bounds is not None else ())):
            table.column(name)[full] = 0
        if self.exponential is not None:
            self.exponential.clear(full)
        table.column("start")[full] = now
        table.column("is_new")[full] = True
