"""What the accumulators say, as batches: one for each context, one metric for each family of series.

Rules: 1 written without news too, 4 one delta point a flush, 8 one NO_RECORDED_VALUE for a series that ends, 9
    exemplars,
10 our own times, strictly increasing.
"""

from collections import defaultdict
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np

from collector.model import (
    METRIC_EXPONENTIAL_HISTOGRAM,
    METRIC_GAUGE,
    METRIC_HISTOGRAM,
    METRIC_SUM,
    TEMPORALITY_DELTA,
    Context,
    Exemplars,
    Metrics,
    MetricsBuilder,
)
from collector.model.arrays import I32, U64, Array, Mask
from collector.model.builders import Attributes
from collector.otlp.semantics import NO_RECORDED_VALUE
from processors.cardinality.fold import Fold
from processors.cardinality.stores import ADDS

__all__ = ["Family", "Writer"]

_MS: Final = 1_000_000


@dataclass(slots=True, eq=False)
class Family:
    """One metric of one resource and scope that we write, with its accumulators."""

    context: Context
    resource: Attributes
    scope: tuple[str, str, Attributes]
    name: str
    unit: str
    description: str
    type: int
    temporality: int
    monotonic: bool
    slots: list[int] = field(default_factory=list)
    values: list[dict[str, Any]] = field(default_factory=list)
    """The attributes of each slot's series."""
    attributes: list[Attributes] = field(default_factory=list)
    """The same, encoded."""

    @property
    def key(self) -> tuple[Any, ...]:
        """What is one metric."""
        return (
            self.context,
            self.resource,
            self.scope,
            self.name,
            self.unit,
            self.type,
            self.temporality,
            self.monotonic,
        )


class Writer:
    """Families of written series."""

    def __init__(self, fold: Fold) -> None:
        self._fold = fold
        self._families: dict[tuple[Any, ...], Family] = {}
        self._ending: list[tuple[Family, list[Attributes]]] = []

    def describe(self, slot: int, family: Family, attributes: dict[str, Any]) -> None:
        """The series of a new accumulator."""
        known = self._families.setdefault(family.key, family)
        known.slots.append(slot)
        known.values.append(attributes)
        known.attributes.append(Attributes(attributes))

    def names(self) -> dict[int, tuple[str, int]]:
        """Accumulator slot → its metric's name and type."""
        return {slot: (family.name, family.type) for family in self._families.values() for slot in family.slots}

    def remove(self, slots: I32) -> None:
        """These accumulators end: each is written once more, as NO_RECORDED_VALUE."""
        if not len(slots):
            return
        gone = set(slots.tolist())
        for key, family in list(self._families.items()):
            if gone.isdisjoint(family.slots):
                continue
            kept = [i for i, slot in enumerate(family.slots) if slot not in gone]
            if family.temporality != TEMPORALITY_DELTA:
                self._ending.append(
                    (family, [family.attributes[i] for i, slot in enumerate(family.slots) if slot in gone])
                )
            family.slots = [family.slots[i] for i in kept]
            family.values = [family.values[i] for i in kept]
            family.attributes = [family.attributes[i] for i in kept]
            if not kept:
                del self._families[key]

    def flush(self, now_unix_nano: int, now_s: float, stale_after_s: float) -> list[Metrics]:
        """Everything the accumulators have to say now."""
        fold = self._fold
        flush = _Flush(fold, max(now_unix_nano, fold.last_flush + _MS), now_s, stale_after_s)
        for family, attributes in self._ending:
            flush.end(family, attributes)
        self._ending.clear()
        for family in self._families.values():
            flush.write(family)
        fold.last_flush = flush.now
        fold.exemplars.forget()
        return flush.build()


class _Flush:
    """One writing of everything."""

    def __init__(self, fold: Fold, now: int, now_s: float, stale_after_s: float) -> None:
        self._fold = fold
        self.now = now
        self._latest = fold.latest(now_s, stale_after_s)
        self._exemplars = fold.exemplars.collect()
        self._builders: dict[Context, MetricsBuilder] = {}
        self._scopes: dict[Context, dict[tuple[Any, ...], int]] = defaultdict(dict)

    def build(self) -> list[Metrics]:
        return [batch for builder in self._builders.values() if (batch := builder.build()).item_count]

    def _scope(self, family: Family) -> tuple[MetricsBuilder, int]:
        builder = self._builders.get(family.context)
        if builder is None:
            builder = self._builders[family.context] = MetricsBuilder(family.context)
        scopes = self._scopes[family.context]
        known = scopes.get((family.resource, family.scope))
        if known is None:
            known = scopes[family.resource, family.scope] = builder.scope(
                builder.resource(family.resource), *family.scope
            )
        return builder, known

    def write(self, family: Family) -> None:
        """The family's series that are due."""
        column = self._fold.accumulators.column
        slots = np.array(family.slots, np.int32)
        is_delta = family.temporality == TEMPORALITY_DELTA
        adds = column("fold")[slots] == ADDS
        due = np.where(adds, column("touched")[slots] != 0 if is_delta else True, self._latest[3][slots])
        if not due.any():
            return
        builder, scope = self._scope(family)
        every = _Points(slots[due], np.flatnonzero(due).astype(np.int32))
        if family.type == METRIC_HISTOGRAM:
            self._histograms(builder, scope, family, every)
        elif family.type == METRIC_EXPONENTIAL_HISTOGRAM:
            self._exponential(builder, scope, family, every)
        else:
            self._numbers(builder, scope, family, every)
        if is_delta:
            self._clear(family, every.slots)

    def _common(self, family: Family, points: "_Points") -> dict[str, Any]:
        """What every type's points have."""
        count = len(points.slots)
        is_delta = family.temporality == TEMPORALITY_DELTA
        written = [family.values[i] for i in points.codes.tolist()] if self._exemplars else []
        exemplars: Exemplars | None = (
            self._fold.exemplars.of(self._exemplars, points.slots.tolist(), written) if self._exemplars else None
        )
        starts: U64 = (
            np.full(count, self._fold.last_flush, np.uint64)
            if is_delta
            else self._fold.accumulators.column("start")[points.slots]
        )
        return {
            "times": np.full(count, self.now, np.uint64), "start_times": starts, "attributes": (points.codes, family.attributes),
            "unit": family.unit, "description": family.description, "exemplars": exemplars,
        }  # fmt: skip

    def _numbers(self, builder: MetricsBuilder, scope: int, family: Family, points: "_Points") -> None:
        column = self._fold.accumulators.column
        latest = column("fold")[points.slots] != ADDS
        ints = np.where(latest, self._latest[0][points.slots], column("int")[points.slots])
        parts = np.where(latest, self._latest[1][points.slots], column("double")[points.slots])
        doubles = np.where(latest, self._latest[2][points.slots], column("is_double")[points.slots] != 0)
        for chosen in (doubles, ~doubles):
            if not chosen.any():
                continue
            values: Array = parts[chosen] + ints[chosen] if doubles[chosen][0] else ints[chosen]
            common = self._common(family, points.take(chosen))
            if family.type == METRIC_GAUGE:
                del common["start_times"]  # a latest value has no interval
                builder.gauge(scope, family.name, values=values, **common)
            else:
                builder.sum(
                    scope,
                    family.name,
                    temporality=family.temporality,
                    monotonic=family.monotonic,
                    values=values,
                    **common,
                )

    def _totals(self, family: Family, slots: I32) -> dict[str, Any]:
        column = self._fold.accumulators.column
        no_range = column("lacks_range")[slots] != 0
        return {
            "temporality": family.temporality,
            "counts": column("count")[slots],
            "sums": np.ma.array(column("sum")[slots], mask=column("lacks_sum")[slots] != 0),
            "mins": np.ma.array(column("min")[slots], mask=no_range),
            "maxs": np.ma.array(column("max")[slots], mask=no_range),
        }

    def _histograms(self, builder: MetricsBuilder, scope: int, family: Family, points: "_Points") -> None:
        column, histograms = self._fold.accumulators.column, self._fold.histograms
        sets = column("set")[points.slots]
        for set_ in np.unique(sets[sets >= 0]).tolist():
            mine = points.take(sets == set_)
            counts = histograms.accumulator_rows[set_]["counts"][column("row")[mine.slots]]
            builder.histogram(
                scope, family.name, bucket_counts=counts, bounds=histograms.bounds[set_],
                **self._totals(family, mine.slots), **self._common(family, mine),
            )  # fmt: skip

    def _exponential(self, builder: MetricsBuilder, scope: int, family: Family, points: "_Points") -> None:
        mine = points.take(self._fold.accumulators.column("set")[points.slots] >= 0)
        if not len(mine.slots):
            return
        found = self._fold.exponential.written(mine.slots)
        builder.exponential_histogram(
            scope, family.name, scales=found.scales, zero_counts=found.zero_counts, zero_thresholds=found.thresholds,
            positive=found.side(0), negative=found.side(1), **self._totals(family, mine.slots), **self._common(family, mine),
        )  # fmt: skip

    def _clear(self, family: Family, slots: I32) -> None:
        """A delta interval is over."""
        column = self._fold.accumulators.column
        for name in ("int", "double", "count", "sum", "touched", "lacks_sum", "lacks_range"):
            column(name)[slots] = 0
        column("min")[slots], column("max")[slots] = np.inf, -np.inf
        if family.type == METRIC_HISTOGRAM:
            sets, rows = column("set")[slots], column("row")[slots]
            for set_ in np.unique(sets[sets >= 0]).tolist():
                self._fold.histograms.accumulator_rows[set_]["counts"][rows[sets == set_]] = 0
        elif family.type == METRIC_EXPONENTIAL_HISTOGRAM:
            self._fold.exponential.clear(slots[column("set")[slots] >= 0])

    def end(self, family: Family, attributes: list[Attributes]) -> None:
        """One NO_RECORDED_VALUE for series of the family."""
        builder, scope = self._scope(family)
        count = len(attributes)
        zeros = np.zeros(count, np.uint64)
        common: dict[str, Any] = {
            "times": np.full(count, self.now, np.uint64), "attributes": attributes, "unit": family.unit, "description": family.description,
            "flags": np.full(count, NO_RECORDED_VALUE),
        }  # fmt: skip
        if family.type == METRIC_GAUGE:
            builder.gauge(scope, family.name, values=np.zeros(count), **common)
        elif family.type == METRIC_SUM:
            builder.sum(
                scope,
                family.name,
                values=np.zeros(count),
                temporality=family.temporality,
                monotonic=family.monotonic,
                **common,
            )
        elif family.type == METRIC_HISTOGRAM:
            builder.histogram(
                scope, family.name, temporality=family.temporality, counts=zeros, bucket_counts=np.zeros((count, 0), np.uint64), bounds=(),
                **common,
            )  # fmt: skip
        else:
            builder.exponential_histogram(
                scope,
                family.name,
                temporality=family.temporality,
                counts=zeros,
                scales=np.zeros(count, np.int32),
                **common,
            )


@dataclass(slots=True)
class _Points:
    """Accumulator slots, and for each its number in its family."""

    slots: I32
    codes: I32

    def take(self, mask: Mask) -> "_Points":
        return _Points(self.slots[mask], self.codes[mask])
