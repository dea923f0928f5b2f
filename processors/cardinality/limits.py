"""Which series are named: the limits of each metric and group, of each tenant, and of the process.

Slots are given in the order of arrival. A budget is one limit: of a metric in a group, of a tenant there, or of a
tenant altogether. A series occupies a slot of the table ``named`` and is counted in up to three budgets.
"""

from collections.abc import Callable
from typing import Any, Final

import numpy as np

from collector.api import Scope, SharedKey
from collector.model import KeyTable, Metrics, StringColumn, combine_keys, groups, hash_text
from collector.model.arrays import F64, I32, I64, U64, Array, Indices, Mask
from collector.model.checkpoint import CheckpointError, Part, Parts, nested, within
from collector.model.runs import run_starts, running_sum_in_run
from processors.cardinality.config import CardinalityConfig
from processors.cardinality.first_points import FirstPoints
from processors.cardinality.sketch import Sketches

__all__ = ["BUDGET_COLUMNS", "PROCESS_SERIES", "Limits", "PointBudgets", "ProcessSeries"]

METRIC, TENANT, TENANT_TOTAL = 0, 1, 2  # the column "kind" of budgets
BUDGET_COLUMNS: Final = ("metric", "tenant", "tenant_total")
"""Columns of named series: the budgets in which they are counted."""
_SKETCHES_MAX: Final = 1024
_SKETCH_BITS: Final = 11  # standard error 2 %
_DEMAND_BITS: Final = 14  # standard error 0.8 %
_NAME_MAX_CHARS: Final = 255  # what is kept of a name; OpenTelemetry allows no longer one for a metric
_BUDGET_BYTES: Final = 600  # what a budget takes: its slot and its name
_BUDGETS_SHARE: Final = 0.5  # of the state's memory

BudgetName = tuple[str, tuple[str | None, ...]]
"""Of a metric's budget: its name and the values of ``group_by``; of a tenant's: the name of the tenant."""


class PointBudgets:
    """(points,) the budgets in which the series of each point is counted; -1: there is no such limit."""

    __slots__ = ("metric", "tenant", "tenant_names", "tenant_total")

    def __init__(self, metric: I32, tenant: I32, tenant_total: I32, tenant_names: StringColumn | None) -> None:
        self.metric, self.tenant, self.tenant_total = metric, tenant, tenant_total
        self.tenant_names = tenant_names
        """(points,) the tenants' names; None: no tenants are configured."""

    def columns(self) -> tuple[I32, I32, I32]:
        """The budgets in the order of ``BUDGET_COLUMNS``."""
        return self.metric, self.tenant, self.tenant_total


class ProcessSeries:
    """The named series of all running processors of the process, which ``max_series`` limits."""

    def __init__(self) -> None:
        self._members: list[Limits] = []
        self._named_count = 0

    def join(self, limits: "Limits") -> None:
        """Count the series of a processor that starts."""
        if limits not in self._members:
            self._members.append(limits)

    def leave(self, limits: "Limits") -> None:
        """Do not count them any more; the processor stops, or a successor will take them over."""
        if limits in self._members:
            self._members.remove(limits)

    @property
    def count(self) -> int:
        """How many series are named."""
        return sum(len(limits.named) for limits in self._members)

    def next_numbers(self, count: int) -> I64:
        """Numbers for new series: of two series, the younger has the higher number, in whichever processor."""
        numbers: I64 = self._named_count + np.arange(count)
        self._named_count += count
        return numbers

    def continue_after(self, number: int) -> None:
        """Give new series higher numbers than this one."""
        self._named_count = max(self._named_count, number + 1)

    def youngest(self, count: int) -> int:
        """The lowest number of the ``count`` youngest series."""
        numbers = np.concatenate([limits.named.column("number")[limits.named.live()] for limits in self._members])
        return int(np.partition(numbers, len(numbers) - count)[len(numbers) - count])


PROCESS_SERIES: Final = SharedKey("cardinality.series", ProcessSeries, scope=Scope.SERVICE)


class Limits:
    """The budgets and the named series."""

    def __init__(self, config: CardinalityConfig, process: ProcessSeries) -> None:
        self._config, self._process = config, process
        self.named = KeyTable(
            {
                **dict.fromkeys(BUDGET_COLUMNS, np.int32),
                "weight": np.int32,
                "seen": np.float32,
                "number": np.int64,
                "merged": np.uint8,
            }
        )
        self.budgets = KeyTable(
            {
                "kind": np.uint8,
                "name_hash": np.uint64,
                "series": np.int64,
                "limit": np.int64,
                "seen": np.float64,
                "folded": np.int64,
                "overflow": np.int64,
                "sketch": np.int32,
            },
            capacity=64,
        )
        self.names: dict[int, BudgetName] = {}
        """The name of each budget, by its slot."""
        self.first_points = FirstPoints()
        self._demand = Sketches(bits=_DEMAND_BITS, rows_max=1)
        self._demand_row = self._demand.allocate()
        self._sketches = Sketches(bits=_SKETCH_BITS, rows_max=_SKETCHES_MAX)
        self._tenants: set[str] = set()
        self._may_exceed = False

    @property
    def memory_bytes(self) -> int:
        """Memory of budgets, sketches and first points, which is part of the bounded state."""
        budgets = _BUDGET_BYTES * len(self.budgets)
        return self.first_points.memory_bytes + self._demand.memory_bytes + self._sketches.memory_bytes + budgets

    # Budgets.

    def budgets_of(self, batch: Metrics, context: U64 | None, now_s: float) -> PointBudgets:
        """The budgets of the points of a batch; new ones are made."""
        config = self._config
        names = batch.field("name", "metrics")
        metric = batch.table("points").parent
        resources = batch.ancestor("resources", "metrics")
        columns = [batch.attribute(key, "resources").as_text() for key in config.group_by]
        no_group = np.zeros((batch.table("resources").row_count, 2), np.uint64)
        group = combine_keys(*map(hash_text, columns)) if columns else no_group
        name_hashes = hash_text(names)
        keys = combine_keys(name_hashes, group[resources])
        if context is not None:
            keys = keys ^ context

        def metric_and_group(row: int) -> BudgetName:
            return _text_at(names, row) or "", tuple(_text_at(column, resources[row]) for column in columns)

        by_metric = self._insert(keys, METRIC, metric_and_group, now_s, name_hashes[:, 0])[metric]
        no_budget = np.full(len(by_metric), -1, np.int32)
        if config.tenant is None:
            return PointBudgets(by_metric, no_budget, no_budget, None)
        column = batch.attribute(config.tenant.attribute, "points", inherit=True).as_text()
        tenants = column.map(self._tenant_name)
        tenant_keys = hash_text(tenants)
        if context is not None:
            tenant_keys = tenant_keys ^ context
        has_tenant = np.flatnonzero(tenants.present)

        def tenant_name(row: int) -> BudgetName:
            return tenants.distinct[tenants.codes[has_tenant[row]]], ()

        by_tenant, by_tenant_total = no_budget.copy(), no_budget.copy()
        if len(has_tenant):
            if config.tenant.total:
                total_keys = combine_keys(tenant_keys[has_tenant], np.full(len(has_tenant), TENANT_TOTAL))
                by_tenant_total[has_tenant] = self._insert(total_keys, TENANT_TOTAL, tenant_name, now_s)
            if config.tenant.limit:
                metric_keys = combine_keys(keys[metric[has_tenant]], tenant_keys[has_tenant])
                by_tenant[has_tenant] = self._insert(metric_keys, TENANT, tenant_name, now_s)
        return PointBudgets(by_metric, by_tenant, by_tenant_total, tenants)

    def _tenant_name(self, value: str) -> str | None:
        """The tenant, or ``other`` if there are too many to tell them apart; None for the empty text."""
        tenant = self._config.tenant
        assert tenant is not None
        if not value or value in self._tenants:
            return value or None
        if len(self._tenants) >= tenant.max_values or len(value) > _NAME_MAX_CHARS:
            return tenant.other
        self._tenants.add(value)
        return value

    def _insert(
        self,
        keys: U64,
        kind: int,
        name_of: Callable[[int], BudgetName],
        now_s: float,
        name_hashes: Array | None = None,
    ) -> I32:
        budgets_max = int(_BUDGETS_SHARE * self._config.state_limit_mib * 1024 * 1024 / _BUDGET_BYTES)
        slots, is_new = self.budgets.insert(keys, limit=min(2 * self._config.max_series, budgets_max))
        column = self.budgets.column
        for row in np.flatnonzero(is_new).tolist():
            slot = int(slots[row])
            self.names[slot] = name_of(row)
            column("kind")[slot], column("sketch")[slot] = kind, -1
            column("name_hash")[slot] = 0 if name_hashes is None else name_hashes[row]
            column("limit")[slot] = self._limit(kind, self.names[slot][0])
        column("seen")[slots[slots >= 0]] = now_s
        return slots

    def _limit(self, kind: int, name: str) -> int:
        if kind == METRIC:
            return self._config.limit_of(name)
        tenant = self._config.tenant
        if tenant is None:
            return 0
        return tenant.limit if kind == TENANT else tenant.total

    # Named series.

    def admit(
        self, series: U64, weights: I64, budgets: PointBudgets, is_wanted: Mask, now_s: float
    ) -> tuple[I32, Indices, I32]:
        """Name new series of wanted points while there is room.

        Returns:
            (points,) the slot of the series of each point, -1: it is not named; and rows and slots of the new series.
        """
        slots = self.named.find(series)
        unnamed = np.flatnonzero(is_wanted & (slots < 0))
        admitted = np.zeros(0, np.intp)
        new_slots = np.zeros(0, np.int32)
        if len(unnamed):
            first = unnamed[groups(series[unnamed]).first]
            admitted = first[self._has_room(first, weights, budgets)]
            if len(admitted):
                new_slots, _ = self.named.insert(series[admitted])
                column = self.named.column
                column("weight")[new_slots] = weights[admitted]
                column("number")[new_slots] = self._process.next_numbers(len(admitted))
                for name, slots_of_points in zip(BUDGET_COLUMNS, budgets.columns(), strict=True):
                    column(name)[new_slots] = slots_of_points[admitted]
                self._count(new_slots, 1)
                slots = self.named.find(series)
        self.named.column("seen")[slots[slots >= 0]] = now_s
        return slots, admitted, new_slots

    def _has_room(self, rows: Indices, weights: I64, budgets: PointBudgets) -> Mask:
        """(rows,) which new series can be named, in their order; a series that cannot takes no room from later ones."""
        room = self._config.max_series - self._process.count
        if room <= 0:
            return np.zeros(len(rows), bool)
        used, limit = self.budgets.column("series"), self.budgets.column("limit")
        added = weights[rows]
        fits = budgets.metric[rows] >= 0
        all_fit = len(rows) <= room
        for slots_of_points in budgets.columns():
            slots = slots_of_points[rows]
            is_limited = (slots >= 0) & (limit[slots] > 0)
            remaining = limit[slots] - used[slots]
            fits &= ~is_limited | (added <= remaining)
            limited = np.flatnonzero(is_limited)
            order = limited[np.argsort(slots[limited], kind="stable")]
            sums = running_sum_in_run(added[order], run_starts(slots[order]))
            all_fit = all_fit and bool((sums <= remaining[order]).all())
        if all_fit:
            return fits
        # A limit is reached within this batch: one after the other, those for which every budget still has room.
        remaining_of: dict[int, int] = {}
        for i in np.flatnonzero(fits).tolist():
            slots_of_series = [int(slots_of_points[rows[i]]) for slots_of_points in budgets.columns()]
            limited_slots = [slot for slot in slots_of_series if slot >= 0 and limit[slot] > 0]
            weight = int(added[i])
            if room <= 0 or any(
                remaining_of.setdefault(slot, int(limit[slot] - used[slot])) < weight for slot in limited_slots
            ):
                fits[i] = False
                continue
            room -= 1
            for slot in limited_slots:
                remaining_of[slot] -= weight
        return fits

    def _count(self, slots: I32, sign: int) -> None:
        """Add the weights of named series to their budgets (``sign`` 1), or subtract them (-1)."""
        weights = self.named.column("weight")[slots].astype(np.int64) * sign
        for budgets in self._budgets_of_named(slots):
            has_budget = budgets >= 0
            np.add.at(self.budgets.column("series"), budgets[has_budget], weights[has_budget])

    def _budgets_of_named(self, slots: I32) -> list[I32]:
        """(slots,) the budgets of named series, in the order of ``BUDGET_COLUMNS``."""
        return [self.named.column(name)[slots] for name in BUDGET_COLUMNS]

    def raise_weights(self, slots: I32, weights: I64) -> None:
        """Count named series for more if they have become larger (histograms with more buckets)."""
        column = self.named.column("weight")
        is_named = np.flatnonzero(slots >= 0)
        larger = is_named[weights[is_named] > column[slots[is_named]]]
        if len(larger):
            changed = np.unique(slots[larger])
            self._count(changed, -1)
            np.maximum.at(column, slots[larger], weights[larger].astype(np.int32))
            self._count(changed, 1)

    def free(self, slots: I32) -> None:
        """Free the slots of named series."""
        self._count(slots, -1)
        self.named.remove(slots)

    def silent(self, now_s: float) -> I32:
        """The slots of series that were silent for ``window``."""
        live = self.named.live()
        silent: I32 = live[now_s - self.named.column("seen")[live] > self._config.window]
        return silent

    def excess(self) -> I32:
        """After a reload: the slots of the youngest series, where there are more than the limits allow now."""
        if not self._may_exceed:
            return np.zeros(0, np.int32)
        self._may_exceed = False
        live = self.named.live()
        column = self.named.column
        live = live[np.argsort(-column("number")[live], kind="stable")]  # the youngest first
        excess_count = self._process.count - self._config.max_series
        is_excess = np.zeros(len(live), bool)
        if excess_count > 0:
            is_excess |= column("number")[live] >= self._process.youngest(excess_count)
        weights = column("weight")[live].astype(np.int64)
        limit, used = self.budgets.column("limit"), self.budgets.column("series")
        for budgets in self._budgets_of_named(live):
            freed = np.zeros(len(limit), np.int64)
            is_counted = is_excess & (budgets >= 0)
            np.add.at(freed, budgets[is_counted], weights[is_counted])
            beyond = np.where(limit > 0, used - freed - limit, 0)
            rows = np.flatnonzero(~is_excess & (budgets >= 0) & (beyond[budgets] > 0))
            rows = rows[np.argsort(budgets[rows], kind="stable")]
            sums = running_sum_in_run(weights[rows], run_starts(budgets[rows]))
            is_excess[rows[sums - weights[rows] < beyond[budgets[rows]]]] = True
        slots: I32 = live[is_excess]
        return slots

    def configure(self, config: CardinalityConfig) -> None:
        """Apply other limits to the same series (after a reload)."""
        self._config, self._may_exceed = config, True
        kinds, limits = self.budgets.column("kind"), self.budgets.column("limit")
        for slot, (name, _) in self.names.items():
            limits[slot] = self._limit(int(kinds[slot]), name)

    # Checkpoints.

    def parts(self) -> dict[str, Part]:
        """The named series and their budgets, for a checkpoint; estimates of rejected series begin anew."""
        return {
            "names": [[slot, name, list(group)] for slot, (name, group) in self.names.items()],
            "tenants": sorted(self._tenants),
            **nested("named", self.named.snapshot()),
            **nested("budgets", self.budgets.snapshot()),
            **nested("first_points", self.first_points.parts()),
        }

    def restore(self, parts: Parts, elapsed_s: float) -> None:
        """Continue from ``parts``; ``elapsed_s`` is added to monotonic times.

        Raises:
            CheckpointError, KeyError, TypeError, ValueError: They are not those of such an object.
        """
        self.named.restore(within("named", parts))
        self.budgets.restore(within("budgets", parts))
        self.first_points.restore(within("first_points", parts))
        self._tenants = {str(tenant) for tenant in parts["tenants"]}
        self.names = {
            int(slot): (str(name), tuple(None if text is None else str(text) for text in group))
            for slot, name, group in parts["names"]
        }
        live, named = self.budgets.live(), self.named.live()
        if sorted(self.names) != live.tolist():
            raise CheckpointError("the budgets and their names do not belong together")
        for budgets in self._budgets_of_named(named):
            if not np.isin(budgets[budgets >= 0], live).all():
                raise CheckpointError("a named series has a budget that is not known")
        self.budgets.column("sketch")[live] = -1
        self.budgets.column("seen")[live] += elapsed_s
        self.named.column("seen")[named] += np.float32(elapsed_s)
        if len(named):
            self._process.continue_after(int(self.named.column("number")[named].max()))
        self.configure(self._config)

    # Demand.

    def count_rejected(self, keys: U64, budgets: I32) -> None:
        """Count series over their limits as demand of their metric, each of them once."""
        if not len(keys):
            return
        self._demand.add(self._demand_row, keys)
        column = self.budgets.column("sketch")
        for slot in np.unique(budgets[(budgets >= 0) & (column[budgets] < 0)]).tolist():
            column[slot] = self._sketches.allocate()
        self._sketches.add(np.where(budgets >= 0, column[budgets], -1).astype(np.int32), keys)

    def demand_of(self, slots: I32) -> F64:
        """(n,) the demand of each budget: its named series, and an estimate of the rejected ones."""
        column = self.budgets.column
        demand: F64 = column("series")[slots] + np.rint(self._sketches.estimate(column("sketch")[slots]))
        return demand

    @property
    def demand_total(self) -> float:
        """The demand of the processor."""
        rejected = self._demand.estimate(np.array([self._demand_row], np.int32))[0]
        return len(self.named) + float(np.rint(rejected))

    def metric_budgets(self) -> I32:
        """The slots of the budgets of metrics."""
        live = self.budgets.live()
        slots: I32 = live[self.budgets.column("kind")[live] == METRIC]
        return slots

    def expire(self, now_s: float) -> None:
        """Forget budgets that were not used for ``window``."""
        column = self.budgets.column
        live = self.budgets.live()
        unused = live[(column("seen")[live] < now_s - self._config.window) & (column("series")[live] <= 0)]
        for slot in unused.tolist():
            name, _ = self.names.pop(slot)
            if column("kind")[slot] == TENANT_TOTAL:
                self._tenants.discard(name)
            if (row := int(column("sketch")[slot])) >= 0:
                self._sketches.release(row)
        self.budgets.remove(unused)
        if self._config.tenant is not None and not self._config.tenant.total:
            self._tenants = {self.names[slot][0] for slot in self.names if column("kind")[slot] == TENANT}

    def rotate(self) -> None:
        """Begin a new window of the estimates."""
        self._demand.rotate()
        self._sketches.rotate()


def _text_at(column: StringColumn, row: Any) -> str | None:
    """The beginning of a text."""
    code = column.codes[row]
    return column.distinct[code][:_NAME_MAX_CHARS] if code >= 0 else None
