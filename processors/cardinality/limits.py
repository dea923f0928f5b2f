"""Who has a name: series counted against the limits of their metric and group, of their tenant, and of the process.

First come, first served. A budget is one limit: of a metric in a group, of a tenant there, of a tenant altogether. A
series has a slot in the table ``named`` and counts against up to three budgets.
"""

from collections.abc import Callable
from typing import Any, Final

import numpy as np

from collector.api import Scope, SharedKey
from collector.model import KeyTable, Metrics, StringColumn, combine_keys, groups, hash_text
from collector.model.arrays import F64, I32, I64, U64, Indices, Mask
from processors.cardinality.births import Births
from processors.cardinality.config import CardinalityConfig
from processors.cardinality.sketch import Sketches

__all__ = ["LIMITED", "PROCESS_SERIES", "Budgets", "Limits", "ProcessSeries"]

METRIC, TENANT, TOTAL = 0, 1, 2  # the column "kind" of budgets
LIMITED: Final = ("budget", "tenant", "total")
"""Columns of named series: the budgets they count against."""
_SKETCHES_MAX: Final = 1024
_SKETCH_BITS: Final = 11  # 2 %
_DEMAND_BITS: Final = 14  # 0.8 %


class Budgets:
    """(points,) the budgets each point counts against; -1: no such limit."""

    __slots__ = ("budget", "tenant", "total", "values")

    def __init__(self, budget: I32, tenant: I32, total: I32, values: StringColumn | None) -> None:
        self.budget, self.tenant, self.total = budget, tenant, total
        self.values = values
        """(points,) the tenants' names."""

    def all(self) -> tuple[I32, I32, I32]:
        """In the order of ``LIMITED``."""
        return self.budget, self.tenant, self.total


class ProcessSeries:
    """The named series of all processors of the process that run: what ``max_series`` counts."""

    def __init__(self) -> None:
        self.members: list[Limits] = []
        self.born = 0
        """How many series have been named: a series' number says which of two is younger, whoever named it."""

    def join(self, limits: "Limits") -> None:
        """A processor runs."""
        if limits not in self.members:
            self.members.append(limits)

    def leave(self, limits: "Limits") -> None:
        """It does not any more, or not until its successor does."""
        if limits in self.members:
            self.members.remove(limits)

    @property
    def count(self) -> int:
        """Named series."""
        return sum(len(limits.named) for limits in self.members)

    def youngest(self, count: int) -> int:
        """The number of the oldest of the ``count`` youngest series."""
        born = np.concatenate([limits.named.column("born")[limits.named.live()] for limits in self.members])
        return int(np.partition(born, len(born) - count)[len(born) - count])


PROCESS_SERIES: Final = SharedKey("cardinality.series", ProcessSeries, scope=Scope.SERVICE)


class Limits:
    """The budgets and the named series."""

    def __init__(self, config: CardinalityConfig, process: ProcessSeries) -> None:
        self.config, self._process = config, process
        self.named = KeyTable({
            "budget": np.int32, "tenant": np.int32, "total": np.int32, "weight": np.int32, "seen": np.float32, "born": np.int64,
            "merged": np.uint8,
        })  # fmt: skip
        self.budgets = KeyTable({
            "kind": np.uint8, "series": np.int64, "limit": np.int64, "seen": np.float64, "folded": np.int64, "overflow": np.int64,
            "sketch": np.int32,
        }, capacity=64)  # fmt: skip
        self.names: dict[int, tuple[str, tuple[str | None, ...]]] = {}
        """Budget of a metric → its name and the values of ``group_by``; of a tenant → the tenant's name."""
        self.births = Births()
        self.demand = Sketches(bits=_DEMAND_BITS, rows_max=1)
        self.sketches = Sketches(bits=_SKETCH_BITS, rows_max=_SKETCHES_MAX)
        self._all = self.demand.allocate()
        self._tenants: dict[str, int] = {}
        self._lowered = False

    @property
    def memory_bytes(self) -> int:
        """Sketches and first points: what belongs to the state that is bounded."""
        return self.births.memory_bytes + self.demand.memory_bytes + self.sketches.memory_bytes

    # Budgets.

    def of(self, batch: Metrics, context: U64 | None, now_s: float) -> Budgets:
        """The budgets of a batch's points."""
        names = batch.field("name", "metrics")
        metric = batch.table("points").parent
        resources = batch.ancestor("resources", "metrics")
        columns = [batch.attribute(key, "resources").as_text() for key in self.config.group_by]
        group = (
            combine_keys(*map(hash_text, columns))
            if columns
            else np.zeros((batch.table("resources").row_count, 2), np.uint64)
        )
        keys = combine_keys(hash_text(names), group[resources])
        if context is not None:
            keys = keys ^ context

        def describe(row: int) -> tuple[str, tuple[str | None, ...]]:
            resource = resources[row]
            values = tuple(
                column.distinct[column.codes[resource]] if column.codes[resource] >= 0 else None for column in columns
            )
            return names.distinct[names.codes[row]] if names.codes[row] >= 0 else "", values

        by_metric = self._insert(keys, METRIC, describe, now_s)
        budget = by_metric[metric]
        none = np.full(len(budget), -1, np.int32)
        tenant_config = self.config.tenant
        if tenant_config is None:
            return Budgets(budget, none, none, None)
        column = batch.attribute(tenant_config.attribute, "points", inherit=True).as_text()
        values = column.map(self._tenant)
        tenant_keys = hash_text(values)
        if context is not None:
            tenant_keys = tenant_keys ^ context
        has = np.flatnonzero(values.present)

        def named(row: int) -> tuple[str, tuple[str | None, ...]]:
            return values.distinct[values.codes[has[row]]], ()

        tenant, total = none.copy(), none.copy()
        if len(has):
            if tenant_config.total:
                total[has] = self._insert(combine_keys(tenant_keys[has], np.full(len(has), TOTAL)), TOTAL, named, now_s)
            if tenant_config.limit:
                both = combine_keys(keys[metric[has]], tenant_keys[has])
                tenant[has] = self._insert(both, TENANT, named, now_s)
        return Budgets(budget, tenant, total, values)

    def _tenant(self, value: str) -> str | None:
        """The tenant's name, as long as there is room to tell it from others; None for an empty one."""
        tenant = self.config.tenant
        assert tenant is not None
        if not value or value in self._tenants:
            return value or None
        if len(self._tenants) >= tenant.max_values:
            return tenant.other
        self._tenants[value] = 0
        return value

    def _insert(
        self, keys: U64, kind: int, describe: Callable[[int], tuple[str, tuple[str | None, ...]]], now_s: float
    ) -> I32:
        slots, is_new = self.budgets.insert(keys, limit=2 * self.config.max_series)
        column = self.budgets.column
        for row in np.flatnonzero(is_new).tolist():
            slot = int(slots[row])
            self.names[slot] = describe(row)
            column("kind")[slot], column("sketch")[slot] = kind, -1
            column("limit")[slot] = self._limit(kind, self.names[slot][0])
        column("seen")[slots[slots >= 0]] = now_s
        return slots

    def _limit(self, kind: int, name: str) -> int:
        if kind == METRIC:
            return self.config.limit_of(name)
        tenant = self.config.tenant
        if tenant is None:
            return 0
        return tenant.limit if kind == TENANT else tenant.total

    # Names.

    def admit(
        self, series: U64, weights: I64, budgets: Budgets, wanted: Mask, now_s: float
    ) -> tuple[I32, Indices, I32]:
        """(points,) the slot of each point's series, -1: none; and the rows and slots of those named just now."""
        slots = self.named.find(series)
        fresh = np.flatnonzero(wanted & (slots < 0))
        chosen = np.zeros(0, np.intp)
        new_slots = np.zeros(0, np.int32)
        if len(fresh):
            first = fresh[groups(series[fresh]).first]
            chosen = first[self._room(first, weights, budgets)]
            if len(chosen):
                new_slots, _ = self.named.insert(series[chosen])
                column = self.named.column
                column("weight")[new_slots] = weights[chosen]
                column("born")[new_slots] = self._process.born + np.arange(len(chosen))
                self._process.born += len(chosen)
                for name, of in zip(LIMITED, budgets.all(), strict=True):
                    column(name)[new_slots] = of[chosen]
                self._count(new_slots, 1)
                slots = self.named.find(series)
        self.named.column("seen")[slots[slots >= 0]] = now_s
        return slots, chosen, new_slots

    def _room(self, rows: Indices, weights: I64, budgets: Budgets) -> Mask:
        """(rows,) which new series get a name, in their order; one that gets none takes no room."""
        room = self.config.max_series - self._process.count
        if room <= 0:
            return np.zeros(len(rows), bool)
        column = self.budgets.column
        used, limit = column("series"), column("limit")
        asked = weights[rows]
        fits = budgets.budget[rows] >= 0
        every = True
        for of in budgets.all():
            mine = of[rows]
            counted = (mine >= 0) & (limit[mine] > 0)
            left = limit[mine] - used[mine]
            fits &= ~counted | (asked <= left)
            some = np.flatnonzero(counted)
            order = some[np.argsort(mine[some], kind="stable")]
            if len(order):
                sums = np.cumsum(asked[order])
                starts = np.flatnonzero(np.concatenate(([True], mine[order][1:] != mine[order][:-1])))
                base = np.repeat(np.concatenate(([0], sums[starts[1:] - 1])), np.diff(np.append(starts, len(order))))
                every = every and bool((sums - base <= left[order]).all())
        if every and len(rows) <= room:
            return fits
        # A limit is reached within this batch: one by one, those for which there still is room anywhere.
        left_of: dict[int, int] = {}
        for i in np.flatnonzero(fits).tolist():
            mine_all = [int(of[rows[i]]) for of in budgets.all()]
            limited = [slot for slot in mine_all if slot >= 0 and limit[slot] > 0]
            weight = int(asked[i])
            if room <= 0 or any(left_of.setdefault(slot, int(limit[slot] - used[slot])) < weight for slot in limited):
                fits[i] = False
                continue
            room -= 1
            for slot in limited:
                left_of[slot] -= weight
        return fits

    def _count(self, slots: I32, sign: int) -> None:
        """Adds the weights of named series to their budgets, or takes them off."""
        weights = self.named.column("weight")[slots].astype(np.int64) * sign
        for name in LIMITED:
            of = self.named.column(name)[slots]
            np.add.at(self.budgets.column("series"), of[of >= 0], weights[of >= 0])

    def grow(self, slots: I32, weights: I64) -> None:
        """Named series that have become more than they were (buckets): they count for what they are."""
        column = self.named.column("weight")
        known = np.flatnonzero(slots >= 0)
        more = known[weights[known] > column[slots[known]]]
        if len(more):
            changed = np.unique(slots[more])
            self._count(changed, -1)
            np.maximum.at(column, slots[more], weights[more].astype(np.int32))
            self._count(changed, 1)

    def free(self, slots: I32) -> None:
        """Give slots back."""
        self._count(slots, -1)
        self.named.remove(slots)

    def silent(self, now_s: float) -> I32:
        """Slots of series that were silent for ``window``."""
        live = self.named.live()
        silent: I32 = live[now_s - self.named.column("seen")[live] > self.config.window]
        return silent

    def over(self) -> I32:
        """After a reload: slots of the series that came last, where there are more than the limits now allow."""
        if not self._lowered:
            return np.zeros(0, np.int32)
        self._lowered = False
        live = self.named.live()
        column = self.named.column
        live = live[np.argsort(-column("born")[live], kind="stable")]  # the youngest first
        excess = self._process.count - self.config.max_series
        gone = column("born")[live] >= self._process.youngest(excess) if excess > 0 else np.zeros(len(live), bool)
        weights = column("weight")[live].astype(np.int64)
        limit = self.budgets.column("limit")
        used = self.budgets.column("series")
        for name in LIMITED:
            of = column(name)[live]
            freed = np.zeros(len(limit), np.int64)
            np.add.at(freed, of[gone & (of >= 0)], weights[gone & (of >= 0)])
            beyond = np.where(limit > 0, used - freed - limit, 0)
            rows = np.flatnonzero(~gone & (of >= 0) & (beyond[of] > 0))
            rows = rows[np.argsort(of[rows], kind="stable")]
            if len(rows):
                sums = np.cumsum(weights[rows])
                starts = np.flatnonzero(np.concatenate(([True], of[rows][1:] != of[rows][:-1])))
                base = np.repeat(np.concatenate(([0], sums[starts[1:] - 1])), np.diff(np.append(starts, len(rows))))
                gone[rows[sums - base - weights[rows] < beyond[of[rows]]]] = True
        last: I32 = live[gone]
        return last

    def configure(self, config: CardinalityConfig) -> None:
        """Other limits for the same series (a reload)."""
        self.config, self._lowered = config, True
        kinds, limits = self.budgets.column("kind"), self.budgets.column("limit")
        for slot, (name, _) in self.names.items():
            limits[slot] = self._limit(int(kinds[slot]), name)

    # What is asked for.

    def reject(self, keys: U64, budgets: I32) -> None:
        """Series over their limits: counted as demand of their metric, once each."""
        if not len(keys):
            return
        self.demand.add(self._all, keys)
        column = self.budgets.column("sketch")
        for slot in np.unique(budgets[(budgets >= 0) & (column[budgets] < 0)]).tolist():
            column[slot] = self.sketches.allocate()
        self.sketches.add(np.where(budgets >= 0, column[budgets], -1).astype(np.int32), keys)

    def demand_of(self, slots: I32) -> F64:
        """(n,) series asked for of budgets: named ones, and about how many were rejected."""
        column = self.budgets.column
        found: F64 = column("series")[slots] + np.rint(self.sketches.estimate(column("sketch")[slots]))
        return found

    @property
    def demand_total(self) -> float:
        """Of the process."""
        return len(self.named) + float(np.rint(self.demand.estimate(np.array([self._all], np.int32))[0]))

    def metrics(self) -> I32:
        """Budgets of metrics."""
        live = self.budgets.live()
        mine: I32 = live[self.budgets.column("kind")[live] == METRIC]
        return mine

    def expire(self, now_s: float) -> None:
        """Budgets that nobody uses."""
        column = self.budgets.column
        live = self.budgets.live()
        unused = live[(column("seen")[live] < now_s - self.config.window) & (column("series")[live] <= 0)]
        for slot in unused.tolist():
            name, _ = self.names.pop(slot)
            if column("kind")[slot] == TOTAL:
                self._tenants.pop(name, None)
            if (row := int(column("sketch")[slot])) >= 0:
                self.sketches.release(row)
        self.budgets.remove(unused)
        if self.config.tenant is not None and not self.config.tenant.total:
            named: dict[str, Any] = {self.names[slot][0]: 0 for slot in self.names if column("kind")[slot] == TENANT}
            self._tenants = named

    def turn(self) -> None:
        """A window ends."""
        self.demand.turn()
        self.sketches.turn()
