"""Writes the accumulators as batches, one for each context.

Rules of docs/reference/cardinality.md that apply here: 1 (series are written also when their sources are silent), 4
(one delta point per flush), 8 (one NO_RECORDED_VALUE for a series that ends), 9 (exemplars) and 10 (times are ours and
increase strictly).
"""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
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
from collector.model.arrays import F64, I32, U64, Array, Mask
from collector.model.builders import Attributes
from collector.model.checkpoint import CheckpointError
from collector.otlp.semantics import NO_RECORDED_VALUE
from processors.cardinality.fold import Fold
from processors.cardinality.identity import context_of, context_part
from processors.cardinality.records import ADDS
from processors.cardinality.written_metric import WrittenMetric, series_bytes

__all__ = ["AccumulatorWriter", "Flush"]

_MS: Final = 1_000_000
_METRICS_PER_PART: Final = 64  # some 10 ms of work


class AccumulatorWriter:
    """The metrics that are written, by key."""

    def __init__(self, fold: Fold) -> None:
        self._fold = fold
        self._metrics: dict[tuple[Any, ...], WrittenMetric] = {}
        self._ending: list[tuple[WrittenMetric, list[Attributes], list[F64]]] = []
        self.memory_bytes = 0
        """Memory of the texts of metrics and series, which have any length."""

    def add_series(self, slot: int, metric: WrittenMetric, attributes: dict[str, Any]) -> None:
        """Write a new accumulator as a series of ``metric``, or of the metric that equals it."""
        key = metric.key
        known = self._metrics.get(key)
        if known is None:
            known = self._metrics[key] = metric
            self.memory_bytes += metric.text_bytes
        known.slots.append(slot)
        known.values.append(attributes)
        known.attributes.append(Attributes(attributes))
        self.memory_bytes += series_bytes(known.attributes[-1])

    def parts(self) -> list[Any]:
        """The series, for a checkpoint, as JSON; series that end are not part of it."""
        return [
            {
                "context": context_part(metric.context),
                "resource": metric.resource.encoded.hex(),
                "scope": [*metric.scope[:2], metric.scope[2].encoded.hex()],
                "name": metric.name,
                "unit": metric.unit,
                "description": metric.description,
                "type": metric.type,
                "temporality": metric.temporality,
                "monotonic": metric.monotonic,
                "series": list(zip(metric.slots, metric.values, strict=True)),
            }
            for metric in self._metrics.values()
        ]

    def restore(self, parts: list[Any]) -> None:
        """Continue from ``parts``.

        Raises:
            CheckpointError, KeyError, TypeError, ValueError: They are not those of such an object.
        """
        for part in parts:
            name, version, attributes = part["scope"]
            metric = WrittenMetric(
                context=context_of(part["context"]),
                resource=Attributes.from_encoded(bytes.fromhex(part["resource"])),
                scope=(str(name), str(version), Attributes.from_encoded(bytes.fromhex(attributes))),
                name=str(part["name"]),
                unit=str(part["unit"]),
                description=str(part["description"]),
                type=int(part["type"]),
                temporality=int(part["temporality"]),
                monotonic=bool(part["monotonic"]),
            )
            for slot, values in part["series"]:
                self.add_series(int(slot), metric, values)
        if sorted(self.names()) != self._fold.accumulators.live().tolist():
            raise CheckpointError("the accumulators and the series that are written do not belong together")

    def names(self) -> dict[int, tuple[str, int]]:
        """The name and type of the metric of each accumulator, by slot."""
        return {slot: (metric.name, metric.type) for metric in self._metrics.values() for slot in metric.slots}

    def remove(self, slots: I32) -> None:
        """Stop writing accumulators; the next flush writes one NO_RECORDED_VALUE for each."""
        if not len(slots):
            return
        removed = set(slots.tolist())
        for key, metric in list(self._metrics.items()):
            if removed.isdisjoint(metric.slots):
                continue
            kept = [i for i, slot in enumerate(metric.slots) if slot not in removed]
            if metric.temporality != TEMPORALITY_DELTA:
                ended = [i for i, slot in enumerate(metric.slots) if slot in removed]
                bounds = [self._fold.bounds_of(metric.slots[i]) for i in ended]
                self._ending.append((metric, [metric.attributes[i] for i in ended], bounds))
            self.memory_bytes -= sum(map(series_bytes, metric.attributes))
            metric.slots = [metric.slots[i] for i in kept]
            metric.values = [metric.values[i] for i in kept]
            metric.attributes = [metric.attributes[i] for i in kept]
            self.memory_bytes += sum(map(series_bytes, metric.attributes))
            if not kept:
                del self._metrics[key]
                self.memory_bytes -= metric.text_bytes

    def end_all(self, now_unix_nano: int) -> list[Metrics]:
        """One NO_RECORDED_VALUE for each series that is not a delta, because the next process writes other ones.

        Until a backend gives up the old series by itself, sums over both would count twice.
        """
        self.remove(np.array(sorted(slot for metric in self._metrics.values() for slot in metric.slots), np.int32))
        return self.flush(now_unix_nano, 0.0, 0.0)

    def flush(self, now_unix_nano: int, now_s: float, stale_after_s: float) -> list[Metrics]:
        """The values of all accumulators now."""
        flush = self.begin_flush(now_unix_nano, now_s, stale_after_s)
        for _ in flush.parts():
            pass
        return flush.finish()

    def begin_flush(self, now_unix_nano: int, now_s: float, stale_after_s: float) -> "Flush":
        """A flush of which the caller does a part at a time; accumulators may be added to between two parts."""
        fold = self._fold
        flush = Flush(
            fold, list(self._metrics.values()), max(now_unix_nano, fold.last_flush + _MS), now_s, stale_after_s
        )
        for metric, attributes, bounds in self._ending:
            flush.end(metric, attributes, bounds)
        self._ending.clear()
        return flush


class Flush:
    """One flush. Until it is finished, no accumulator may be removed."""

    def __init__(
        self, fold: Fold, metrics: Sequence[WrittenMetric], now: int, now_s: float, stale_after_s: float
    ) -> None:
        self._fold = fold
        self._metrics = metrics
        self.now = now
        self._latest = fold.latest(now, now_s, stale_after_s)
        self._exemplars = fold.exemplars.collect()
        fold.exemplars.forget()
        self._builders: dict[Context, MetricsBuilder] = {}
        self._scopes: dict[Context, dict[tuple[Any, ...], int]] = defaultdict(dict)

    def parts(self) -> Iterator[None]:
        """Write the metrics, a part of them for each turn of the iterator."""
        for number, metric in enumerate(self._metrics, 1):
            self.write(metric)
            if number % _METRICS_PER_PART == 0:
                yield

    def finish(self) -> list[Metrics]:
        """The batches, one for each context."""
        self._fold.last_flush = self.now
        return [batch for builder in self._builders.values() if (batch := builder.build()).item_count]

    def _scope(self, metric: WrittenMetric) -> tuple[MetricsBuilder, int]:
        builder = self._builders.get(metric.context)
        if builder is None:
            builder = self._builders[metric.context] = MetricsBuilder(metric.context)
        scopes = self._scopes[metric.context]
        number = scopes.get((metric.resource, metric.scope))
        if number is None:
            number = scopes[metric.resource, metric.scope] = builder.scope(
                builder.resource(metric.resource), *metric.scope
            )
        return builder, number

    def write(self, metric: WrittenMetric) -> None:
        """Add the points of a metric that are due."""
        self._write(metric)
        if self._fold.new_accumulators:
            for slot in metric.slots:
                self._fold.new_accumulators.pop(slot, None)

    def _write(self, metric: WrittenMetric) -> None:
        column = self._fold.accumulators.column
        slots = np.array(metric.slots, np.int32)
        slots = slots[slots < len(self._latest.is_due)]  # without series that began during this flush
        is_delta = metric.temporality == TEMPORALITY_DELTA
        adds = column("fold")[slots] == ADDS
        is_due = np.where(adds, column("touched")[slots] != 0 if is_delta else True, self._latest.is_due[slots])
        if not is_due.any():
            return
        builder, scope = self._scope(metric)
        points = _Points(slots[is_due], np.flatnonzero(is_due).astype(np.int32))
        for part in (points,) if is_delta else (self._zeros(points), points):
            if not len(part.slots):
                continue
            if metric.type == METRIC_HISTOGRAM:
                self._histograms(builder, scope, metric, part)
            elif metric.type == METRIC_EXPONENTIAL_HISTOGRAM:
                self._exponential(builder, scope, metric, part)
            else:
                self._numbers(builder, scope, metric, part)
        if is_delta:
            self._clear(metric, points.slots)

    def _zeros(self, points: "_Points") -> "_Points":
        """A zero for each new series, at the time it began, so that its first value is an increase for the backend."""
        began = self._fold.new_accumulators
        is_new = np.array([slot in began for slot in points.slots.tolist()] if began else [False] * len(points.slots))
        new = points.take(is_new)
        starts = self._fold.accumulators.column("start")[new.slots]
        times = np.array([began[slot] for slot in new.slots.tolist()], np.uint64)
        times = np.maximum(np.minimum(times, np.uint64(self.now - _MS)), starts)
        # A zero in the same millisecond as the value would be a second value for one time.
        fits = times + np.uint64(_MS) <= np.uint64(self.now)
        zeros = new.take(fits)
        zeros.zero_times = times[fits]
        return zeros

    def _common(self, metric: WrittenMetric, points: "_Points") -> dict[str, Any]:
        """The arguments that all types of points have in common."""
        count = len(points.slots)
        is_delta = metric.temporality == TEMPORALITY_DELTA
        found = self._exemplars if points.zero_times is None else {}
        written = [metric.values[i] for i in points.numbers.tolist()] if found else []
        exemplars: Exemplars | None = (
            self._fold.exemplars.of_points(found, points.slots.tolist(), written) if found else None
        )
        starts: U64 = (
            np.full(count, self._fold.last_flush, np.uint64)
            if is_delta
            else self._fold.accumulators.column("start")[points.slots]
        )
        return {
            "times": np.full(count, self.now, np.uint64) if points.zero_times is None else points.zero_times,
            "start_times": starts,
            "attributes": (points.numbers, metric.attributes),
            "unit": metric.unit,
            "description": metric.description,
            "exemplars": exemplars,
        }

    def _numbers(self, builder: MetricsBuilder, scope: int, metric: WrittenMetric, points: "_Points") -> None:
        column = self._fold.accumulators.column
        is_latest = column("fold")[points.slots] != ADDS
        ints = np.where(is_latest, self._latest.ints[points.slots], column("int")[points.slots])
        parts = np.where(is_latest, self._latest.doubles[points.slots], column("double")[points.slots])
        doubles = np.where(is_latest, self._latest.is_double[points.slots], column("is_double")[points.slots] != 0)
        if points.zero_times is not None:
            ints, parts = np.zeros_like(ints), np.zeros_like(parts)
        for has_type in (doubles, ~doubles):
            if not has_type.any():
                continue
            values: Array = parts[has_type] + ints[has_type] if has_type is doubles else ints[has_type]
            common = self._common(metric, points.take(has_type))
            if metric.type == METRIC_GAUGE:
                del common["start_times"]  # a gauge has no interval
                builder.gauge(scope, metric.name, values=values, **common)
            else:
                builder.sum(
                    scope,
                    metric.name,
                    temporality=metric.temporality,
                    monotonic=metric.monotonic,
                    values=values,
                    **common,
                )

    def _totals(self, metric: WrittenMetric, points: "_Points") -> dict[str, Any]:
        column, slots = self._fold.accumulators.column, points.slots
        no_range = column("lacks_range")[slots] != 0
        counts, sums = column("count")[slots], column("sum")[slots]
        if points.zero_times is not None:
            counts, sums = np.zeros_like(counts), np.zeros_like(sums)
        return {
            "temporality": metric.temporality,
            "counts": counts,
            "sums": np.ma.array(sums, mask=column("lacks_sum")[slots] != 0),
            "mins": np.ma.array(column("min")[slots], mask=no_range),
            "maxs": np.ma.array(column("max")[slots], mask=no_range),
        }

    def _histograms(self, builder: MetricsBuilder, scope: int, metric: WrittenMetric, points: "_Points") -> None:
        column, histograms = self._fold.accumulators.column, self._fold.histograms
        sets = column("set")[points.slots]
        for set_ in np.unique(sets[sets >= 0]).tolist():
            of_set = points.take(sets == set_)
            counts = histograms.accumulator_pools[set_]["counts"][column("row")[of_set.slots]]
            if of_set.zero_times is not None:
                counts = np.zeros_like(counts)
            builder.histogram(
                scope,
                metric.name,
                bucket_counts=counts,
                bounds=histograms.bounds[set_],
                **self._totals(metric, of_set),
                **self._common(metric, of_set),
            )

    def _exponential(self, builder: MetricsBuilder, scope: int, metric: WrittenMetric, points: "_Points") -> None:
        filled = points.take(self._fold.accumulators.column("set")[points.slots] >= 0)
        if not len(filled.slots):
            return
        buckets = self._fold.exponential.written(filled.slots)
        if filled.zero_times is not None:
            buckets.counts, buckets.zero_counts = np.zeros_like(buckets.counts), np.zeros_like(buckets.zero_counts)
        builder.exponential_histogram(
            scope,
            metric.name,
            scales=buckets.scales,
            zero_counts=buckets.zero_counts,
            zero_thresholds=buckets.thresholds,
            positive=buckets.side(0),
            negative=buckets.side(1),
            **self._totals(metric, filled),
            **self._common(metric, filled),
        )

    def _clear(self, metric: WrittenMetric, slots: I32) -> None:
        """Begin a new delta interval."""
        column = self._fold.accumulators.column
        for name in ("int", "double", "count", "sum", "touched", "lacks_sum", "lacks_range"):
            column(name)[slots] = 0
        column("min")[slots], column("max")[slots] = np.inf, -np.inf
        if metric.type == METRIC_HISTOGRAM:
            sets, rows = column("set")[slots], column("row")[slots]
            for set_ in np.unique(sets[sets >= 0]).tolist():
                self._fold.histograms.accumulator_pools[set_]["counts"][rows[sets == set_]] = 0
        elif metric.type == METRIC_EXPONENTIAL_HISTOGRAM:
            self._fold.exponential.clear(slots[column("set")[slots] >= 0])

    def end(self, metric: WrittenMetric, attributes: list[Attributes], bounds: list[F64]) -> None:
        """Add one NO_RECORDED_VALUE for each series, with its bounds: a backend has a series for each of them."""
        if metric.type == METRIC_HISTOGRAM and len({values.tobytes() for values in bounds}) > 1:
            for number, values in enumerate(bounds):
                self.end(metric, attributes[number : number + 1], [values])
            return
        builder, scope = self._scope(metric)
        count = len(attributes)
        zeros = np.zeros(count, np.uint64)
        common: dict[str, Any] = {
            "times": np.full(count, self.now, np.uint64),
            "attributes": attributes,
            "unit": metric.unit,
            "description": metric.description,
            "flags": np.full(count, NO_RECORDED_VALUE),
        }
        if metric.type == METRIC_GAUGE:
            builder.gauge(scope, metric.name, values=np.zeros(count), **common)
        elif metric.type == METRIC_SUM:
            builder.sum(
                scope,
                metric.name,
                values=np.zeros(count),
                temporality=metric.temporality,
                monotonic=metric.monotonic,
                **common,
            )
        elif metric.type == METRIC_HISTOGRAM:
            builder.histogram(
                scope,
                metric.name,
                temporality=metric.temporality,
                counts=zeros,
                bucket_counts=np.zeros((count, len(bounds[0]) + 1), np.uint64),
                bounds=bounds[0],
                **common,
            )
        else:
            builder.exponential_histogram(
                scope,
                metric.name,
                temporality=metric.temporality,
                counts=zeros,
                scales=np.zeros(count, np.int32),
                **common,
            )


@dataclass(slots=True)
class _Points:
    """Accumulators, and the number of each in its metric."""

    slots: I32
    numbers: I32
    zero_times: U64 | None = None
    """Not None: zeros are written at these times instead of the values."""

    def take(self, mask: Mask) -> "_Points":
        times = None if self.zero_times is None else self.zero_times[mask]
        return _Points(self.slots[mask], self.numbers[mask], times)
