"""``GET /span_metrics``: calls, errors and durations of each service and its operations since the connector began.

The numbers of a service are those of its entry spans, SERVER and CONSUMER, if it has any: if its inner spans counted as
well, one request would count several times.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from collector.model.arrays import F64, I64, Array
from collector.model.checkpoint import CheckpointError, Part, Parts, part_of
from collector.otlp.exponential_histogram import SCALE_MAX
from connectors.span_metrics.series import NO_OPERATION, MetricFamily

__all__ = ["Report"]

_OPERATIONS_MAX: Final = 10_000
_NAME_MAX_CHARS: Final = 255
_TOP: Final = 10
_ENTRY: Final = frozenset({"SERVER", "CONSUMER"})
# Exponential histograms are added up in buckets of scale 2 (each 19 % wide), from 2^-20 to 2^40 of the unit.
_GRID_SCALE: Final = 2
_GRID_LOW: Final = -20 << _GRID_SCALE
_GRID: Final = np.exp2(np.arange(_GRID_LOW, 40 << _GRID_SCALE) / (1 << _GRID_SCALE))


@dataclass(frozen=True, slots=True)
class _Operation:
    service: str
    name: str
    kind: str


class Report:
    """Adds up the series of each operation, and keeps the totals of series that were removed."""

    def __init__(self, families: Mapping[str, MetricFamily], unit_ms: float, since_unix_nano: int) -> None:
        """``families``: by name. ``unit_ms``: the unit of their histograms in milliseconds."""
        self.since_unix_nano = since_unix_nano
        self._calls = families.get("red") or families["calls"]
        durations = families.get("red") or families.get("duration")
        self._durations = durations if durations is not None and durations.has_histogram else None
        bounds = _GRID if self._durations is not None and self._durations.bounds is None else None
        if self._durations is not None and self._durations.bounds is not None:
            bounds = self._durations.bounds
        self._bounds_ms = None if bounds is None else bounds * unit_ms
        self._operations: list[_Operation] = []
        self._codes: dict[_Operation, int] = {}
        self._removed_calls = np.zeros((0, 2), np.int64)
        self._removed_buckets = np.zeros((0, 0 if bounds is None else len(bounds) + 1), np.int64)
        self._flushed: tuple[float, I64] | None = None
        self._rates: F64 = np.zeros(0)

    def code_of(self, service: str, name: str, kind: str) -> int:
        """The code of an operation. Beyond a bound, new operations of a kind share one code; long names are cut."""
        operation = _Operation(service[:_NAME_MAX_CHARS], name[:_NAME_MAX_CHARS], kind)
        code = self._codes.get(operation)
        if code is None:
            if len(self._operations) >= _OPERATIONS_MAX:
                operation = _Operation("", "(others)", kind)
                code = self._codes.get(operation)
            if code is None:
                code = self._codes[operation] = len(self._operations)
                self._operations.append(operation)
        return code

    @property
    def operation_count(self) -> int:
        """How many operations there are."""
        return len(self._operations)

    def parts(self) -> dict[str, Part]:
        """The operations and the totals of removed series, for a checkpoint."""
        return {
            "since": self.since_unix_nano,
            "operations": [[operation.service, operation.name, operation.kind] for operation in self._operations],
            "calls": self._grown(self._removed_calls),
            "buckets": self._grown(self._removed_buckets),
        }

    def restore(self, parts: Parts) -> None:
        """Continue from ``parts``.

        Raises:
            CheckpointError, KeyError, TypeError, ValueError: They are not those of such a report.
        """
        operations = [_Operation(str(service), str(name), str(kind)) for service, name, kind in parts["operations"]]
        calls = part_of(parts, "calls", np.int64, len(operations))
        buckets = part_of(parts, "buckets", np.int64, len(operations))
        if calls.shape[1:] != self._removed_calls.shape[1:] or buckets.shape[1:] != self._removed_buckets.shape[1:]:
            raise CheckpointError("the totals of the report have another shape")
        self.since_unix_nano = int(parts["since"])
        self._operations = operations
        self._codes = {operation: code for code, operation in enumerate(operations)}
        self._removed_calls, self._removed_buckets = calls.copy(), buckets.copy()

    def keep_totals(self, family: MetricFamily, slots: Array) -> None:
        """Keep what series have counted that are about to be removed."""
        if family is self._calls:
            self._removed_calls = self._grown(self._removed_calls)
            self._add_calls(self._removed_calls, slots)
        if family is self._durations:
            self._removed_buckets = self._grown(self._removed_buckets)
            self._add_buckets(self._removed_buckets, slots)

    def flushed(self, now_s: float) -> None:
        """Compute the rates of the interval that this flush ends."""
        calls = self._totals()[:, 0]
        if self._flushed is not None and now_s > self._flushed[0]:
            before = np.zeros(len(calls), np.int64)
            before[: len(self._flushed[1])] = self._flushed[1]
            self._rates = (calls - before) / (now_s - self._flushed[0])
        self._flushed = (now_s, calls)

    def begin_rates(self, now_s: float) -> None:
        """Begin the first interval."""
        if self._flushed is None:
            self._flushed = (now_s, self._totals()[:, 0])

    def document(self) -> dict[str, Any]:
        """The answer of the admin route for this connector."""
        totals, buckets = self._totals(), self._all_buckets()
        rates = np.zeros(len(totals))
        rates[: len(self._rates)] = self._rates
        by_service: dict[str, list[int]] = {}
        for code, operation in enumerate(self._operations):
            by_service.setdefault(operation.service, []).append(code)
        services = [self._service(name, np.array(codes), totals, buckets, rates) for name, codes in by_service.items()]
        services.sort(key=lambda service: (-service["calls"], service["service"]))
        return {"services": services, "since_unix_nano": self.since_unix_nano}

    def _service(
        self, service: str, codes: Array, totals: Array, buckets: Array | None, rates: Array
    ) -> dict[str, Any]:
        kinds = {code: self._operations[code].kind for code in codes.tolist()}
        entries = [code for code, kind in kinds.items() if kind in _ENTRY]
        # An overflow series has no kind; it counts as an entry if the service has nothing but entries.
        counted = np.array(entries) if entries and not _ENTRY.issuperset(set(kinds.values()) - {""}) else codes
        calls, errors = totals[counted].sum(axis=0).tolist()
        top = codes[np.argsort(-totals[codes, 0], kind="stable")][:_TOP].tolist()
        row = None if buckets is None else buckets[counted].sum(axis=0)
        return {
            "service": service,
            "calls": calls,
            "rate_per_s": round(float(rates[counted].sum()), 3),
            "errors": errors,
            "error_ratio": round(errors / calls, 6) if calls else 0.0,
            **{f"p{percent}_ms": self._quantile(row, percent) for percent in (50, 95, 99)},
            "operations": [
                {
                    "name": self._operations[code].name,
                    "kind": self._operations[code].kind,
                    "calls": int(totals[code, 0]),
                    "errors": int(totals[code, 1]),
                    "p95_ms": self._quantile(None if buckets is None else buckets[code], 95),
                }
                for code in top
            ],
        }

    def _quantile(self, buckets: Array | None, percent: int) -> float | None:
        """Interpolated within its bucket as ``histogram_quantile`` does; in the last bucket the lower bound."""
        if buckets is None or self._bounds_ms is None or not (total := int(buckets.sum())):
            return None
        rank = total * percent / 100
        ends = np.cumsum(buckets)
        bucket = int(np.searchsorted(ends, rank, "left"))
        if not len(self._bounds_ms):
            return None
        if bucket >= len(self._bounds_ms):
            return round(float(self._bounds_ms[-1]), 3)
        low = float(self._bounds_ms[bucket - 1]) if bucket else 0.0
        high = float(self._bounds_ms[bucket])
        before = float(ends[bucket - 1]) if bucket else 0.0
        return round(low + (high - low) * (rank - before) / float(buckets[bucket]), 3)

    def _totals(self) -> I64:
        totals = self._grown(self._removed_calls).copy()
        self._add_calls(totals, self._calls.table.live())
        return totals

    def _all_buckets(self) -> I64 | None:
        if self._durations is None:
            return None
        buckets = self._grown(self._removed_buckets).copy()
        self._add_buckets(buckets, self._durations.table.live())
        return buckets

    def _add_calls(self, totals: I64, slots: Array) -> None:
        table = self._calls.table
        slots = slots[table.column("operation")[slots] != NO_OPERATION]
        operations = table.column("operation")[slots]
        np.add.at(totals[:, 0], operations, table.column("count")[slots])
        np.add.at(totals[:, 1], operations, table.column("errors")[slots])

    def _add_buckets(self, buckets: I64, slots: Array) -> None:
        assert self._durations is not None
        table = self._durations.table
        slots = slots[table.column("operation")[slots] != NO_OPERATION]
        operations = table.column("operation")[slots]
        if self._durations.bounds is not None:
            np.add.at(buckets, operations, table.column("buckets")[slots])
        elif self._durations.exponential is not None:
            points = self._durations.exponential.points(slots)
            np.add.at(buckets[:, 0], operations, points.zero_counts)
            owner = np.repeat(np.arange(len(slots)), np.diff(points.splits))
            index = points.offsets[owner] + np.arange(points.splits[-1]) - points.splits[:-1][owner]
            # At the scale of the grid; a bucket that is coarser counts at its lower end.
            shift = points.scales[owner].astype(np.int64) - _GRID_SCALE
            index = np.where(shift >= 0, index >> np.maximum(shift, 0), index << np.clip(-shift, 0, SCALE_MAX))
            column = np.clip(index + 1 - _GRID_LOW, 0, buckets.shape[1] - 1)
            np.add.at(buckets, (operations[owner], column), points.bucket_counts.astype(np.int64))

    def _grown(self, array: I64) -> I64:
        """The array with a row for each operation."""
        missing = len(self._operations) - len(array)
        return np.concatenate([array, np.zeros((missing, array.shape[1]), np.int64)]) if missing > 0 else array
