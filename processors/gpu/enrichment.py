"""The enrichment of one batch: the outcome of each candidate item, and the attributes it gets.

Attributes that depend only on an item's GPUs (ids, model, sizes, the method) are computed once per set of GPUs and
spread over the rows by code; only the figures of the item's own window are columns of numbers.
"""

from collections.abc import Mapping
from math import isnan
from typing import Any, Final

import numpy as np

from collector.gpu import Device, Snapshot
from collector.model import AttributeColumn, AttributeValue, Batch, Edit, StringColumn
from collector.model.arrays import F64, I32, U64, Indices, Mask
from processors.gpu.attribution import METHODS, OTHER_HOST, Assignment, Attribution
from processors.gpu.join import COVERED, EXPIRED, UNCOVERED, Figures, join

__all__ = ["Enrichment"]


_INVALID_TIME: Final = 3
_OUTCOMES: Final = {COVERED: "enriched", EXPIRED: "expired", UNCOVERED: "uncovered", _INVALID_TIME: "invalid_time"}


class Enrichment:
    """The spans of a batch that are GPU work, or its severe log records."""

    def __init__(
        self,
        batch: Batch,
        snapshot: Snapshot,
        attribution: Attribution,
        min_window_s: float,
        rows: Indices,
        start: U64,
        end: U64,
        *,
        stated_start: U64,
        now_unix_nano: int,
    ) -> None:
        """``start`` is after the time in a queue, ``stated_start`` is the start that the item states."""
        self._batch, self._snapshot, self._attribution, self._min_window_s = batch, snapshot, attribution, min_window_s
        self._assignment: Assignment = attribution.assign(batch, rows, stated_start)
        self._is_assigned = self._assignment.target >= 0
        if self._is_assigned.all():
            self._rows, self._target, self._method = rows, self._assignment.target, self._assignment.method
        else:
            chosen = self._is_assigned
            self._rows, self._target, self._method = (
                rows[chosen],
                self._assignment.target[chosen],
                self._assignment.method[chosen],
            )
            start, end, stated_start = start[chosen], end[chosen], stated_start[chosen]
        self._start, self._end = start, np.maximum(start, end)
        # The item is of this machine, so its clock is ours: a time in the future, beyond one interval, is wrong.
        latest = np.uint64(now_unix_nano + int(snapshot.sample_interval_s * 1e9))
        is_valid = (stated_start > 0) & (stated_start <= end) & (end <= latest)
        self._figures: Figures = join(snapshot, attribution.targets, self._target, self._start, self._end)
        self._outcome = np.where(is_valid, self._figures.outcome, np.int8(_INVALID_TIME))
        self._enriched: Indices = np.flatnonzero(self._outcome == COVERED)
        self._where = self._mask(self._enriched)

    def count(self, counter: Any) -> None:
        """Add the outcomes of the items to a counter with the labels method and outcome."""
        unassigned = self._assignment.target[~self._is_assigned]
        other = int(np.count_nonzero(unassigned == OTHER_HOST))
        for count, outcome in ((other, "other_host"), (len(unassigned) - other, "ambiguous")):
            if count:
                counter.add(count, method="none", outcome=outcome)
        width = len(_OUTCOMES)
        counts = np.bincount(self._method * width + self._outcome, minlength=len(METHODS) * width)
        for code in np.flatnonzero(counts).tolist():
            counter.add(int(counts[code]), method=METHODS[code // width], outcome=_OUTCOMES[code % width])

    def span_attributes(self) -> Batch:
        """The batch with the attributes of spans added."""
        if not len(self._enriched):
            return self._batch
        figures, edit = self._figures, self._batch.edit()
        self._by_target(
            edit, "hw.id", "hw.parent", "hw.model", "gpu.ids", "gpu.count", "gpu.memory.limit", "gpu.processes"
        )
        self._by_code(edit, "gpu.attribution.method", dict(enumerate(METHODS)), self._method)
        self._set(edit, "gpu.source", self._snapshot.source, self._where)
        self._set(edit, "gpu.sample_interval", self._snapshot.sample_interval_s, self._where)
        self._doubles(edit, "gpu.utilization.mean", figures.utilization_mean)
        self._doubles(edit, "gpu.utilization.max", figures.utilization_max)
        self._integers(edit, "gpu.memory.used.max", figures.memory_used_max)
        self._doubles(edit, "gpu.power.mean", figures.power_mean)
        is_long = (self._end - self._start) >= np.uint64(int(self._min_window_s * 1e9))
        self._doubles(edit, "gpu.device.energy", np.where(is_long, figures.energy, np.nan))
        self._integers(edit, "gpu.samples", figures.samples.astype(np.float64))
        self._doubles(edit, "gpu.coverage", figures.coverage)
        return edit.apply()

    def log_attributes(self) -> Batch:
        """The batch with the attributes of log records added."""
        if not len(self._enriched):
            return self._batch
        edit = self._batch.edit()
        self._by_target(edit, "hw.id", "gpu.memory.limit")
        self._set(edit, "gpu.source", self._snapshot.source, self._where)
        self._doubles(edit, "gpu.utilization", self._figures.utilization_mean)
        self._integers(edit, "gpu.memory.used", self._figures.memory_used_max)
        return edit.apply()

    def _by_target(self, edit: Edit[Any], *keys: str) -> None:
        used = np.flatnonzero(np.bincount(self._target[self._enriched])).tolist()
        facts = {code: _facts(self._snapshot, self._attribution.targets[code]) for code in used}
        for key in keys:
            self._by_code(edit, key, {code: facts[code][key] for code in used if key in facts[code]}, self._target)

    def _by_code(self, edit: Edit[Any], key: str, values: Mapping[int, AttributeValue], codes: I32) -> None:
        """Set the value of each row's code, if it has one. One value for all rows is the usual, cheapest case."""
        used = np.flatnonzero(np.bincount(codes[self._enriched])).tolist()
        present = [code for code in used if code in values]
        if len(present) == len(used) == 1:
            self._set(edit, key, values[used[0]], self._where)
        elif present:
            place = np.full(used[-1] + 1, -1, np.int32)
            place[present] = np.arange(len(present), dtype=np.int32)
            spread = np.full(self._batch.item_count, -1, np.int32)
            spread[self._rows[self._enriched]] = place[codes[self._enriched]]
            self._set(edit, key, _spread([values[code] for code in present], spread), None)

    def _doubles(self, edit: Edit[Any], key: str, values: F64) -> None:
        self._numbers(edit, key, values, np.float64)

    def _integers(self, edit: Edit[Any], key: str, values: F64) -> None:
        self._numbers(edit, key, values, np.int64)

    def _numbers(self, edit: Edit[Any], key: str, values: F64, dtype: type[np.float64 | np.int64]) -> None:
        """Set numbers; NaN leaves the attribute absent."""
        rows, where = self._enriched, self._where
        values = values[rows]
        unknown = np.isnan(values)
        if unknown.any():
            rows, values = rows[~unknown], values[~unknown]
            where = self._mask(rows)
        if len(rows):
            spread = np.zeros(self._batch.item_count, dtype)
            spread[self._rows[rows]] = values if dtype is np.float64 else np.rint(values)
            self._set(edit, key, spread, where)

    def _mask(self, chosen: Indices) -> Mask:
        mask = np.zeros(self._batch.item_count, np.bool_)
        mask[self._rows[chosen]] = True
        return mask

    def _set(self, edit: Edit[Any], key: str, values: Any, where: Mask | None) -> None:
        """Set an attribute where it is absent. If no item has the key, "upsert" does the same and is cheaper."""
        edit.set(key, values, where, mode="insert" if self._batch.attributes().code_of(key) >= 0 else "upsert")


def _spread(values: list[AttributeValue], codes: I32) -> AttributeColumn | StringColumn:
    """A column of few values by their codes; -1 means absent."""
    texts = [value for value in values if isinstance(value, str)]
    if len(texts) == len(values):
        return StringColumn.from_codes(codes, texts)
    return AttributeColumn.of([*values, None]).take(codes)  # code -1 is the last element, None


def _facts(snapshot: Snapshot, members: tuple[int, ...]) -> dict[str, AttributeValue]:
    """The attributes of a set of GPUs that do not depend on the window; what is not known is left out."""
    devices = [snapshot.devices[number] for number in members]
    facts: dict[str, AttributeValue] = {}
    if len(devices) == 1:
        facts = {"hw.id": devices[0].id, "hw.parent": devices[0].parent_id}
    else:
        facts = {"gpu.ids": [device.id for device in devices], "gpu.count": len(devices)}
    facts["hw.model"] = _common_model(devices)
    limit = sum(device.memory_limit_bytes for device in devices)
    if not isnan(limit):
        facts["gpu.memory.limit"] = round(limit)
    counts = [snapshot.readings[number].process_count for number in members] if snapshot.readings else [None]
    known = [count for count in counts if count is not None]
    if len(known) == len(counts):  # the count of the most shared device
        facts["gpu.processes"] = max(known)
    return {key: value for key, value in facts.items() if value != ""}


def _common_model(devices: list[Device]) -> str:
    models = {device.model for device in devices}
    return models.pop() if len(models) == 1 else ""
