"""The processor: for each span that is GPU work the figures of its own interval, for each severe log record the state.

Spans of another host, of no GPU we can name, or of a time we know nothing of pass unchanged. What is there already is kept.
"""

from functools import partial
from typing import Any, Final, TypeAlias

import numpy as np
import numpy.typing as npt

from collector.api import Host, Settings, Transform
from collector.helpers.gpu import Sampler, Snapshot, acquire, release
from collector.helpers.gpu.telemetry import SamplerMetrics
from collector.helpers.patterns import compile_pattern
from collector.model import AttributeColumn, Batch, Edit, Signal, StringColumn
from processors.gpu.attribution import METHODS, OTHER_HOST, Assignment, Attribution
from processors.gpu.config import GpuProcessorConfig
from processors.gpu.join import COVERED, EXPIRED, UNCOVERED, Figures, join, memory_limits, process_counts
from processors.gpu.locality import HostIdentity

__all__ = ["GpuProcessor"]

Times: TypeAlias = npt.NDArray[np.uint64]
Rows: TypeAlias = npt.NDArray[np.intp]
Mask: TypeAlias = npt.NDArray[np.bool_]

# Source: opentelemetry-proto trace.proto SpanKind, logs.proto SeverityNumber (the first of each range of four).
_KINDS: Final = {"UNSPECIFIED": 0, "INTERNAL": 1, "SERVER": 2, "CLIENT": 3, "PRODUCER": 4, "CONSUMER": 5}
_SEVERITIES: Final = {"trace": 1, "debug": 5, "info": 9, "warn": 13, "error": 17, "fatal": 21}
_SEVERITY_WORDS: Final = _SEVERITIES | {"warning": 13, "err": 17, "critical": 21, "crit": 21, "emergency": 21, "alert": 21, "panic": 21}
_OUTCOMES: Final = {COVERED: "enriched", EXPIRED: "expired", UNCOVERED: "uncovered"}
_INVALID_TIME: Final = 3
_MAX_NAMES: Final = 10_000  # decisions kept; names with ids in them must not fill memory
_MAX_NAME_CHARS: Final = 512  # a pattern sees no more of a name, and no more of it is remembered


class GpuProcessor(Transform):
    """For traces or logs of one pipeline."""

    def __init__(
        self,
        settings: Settings,
        config: GpuProcessorConfig,
        previous: "GpuProcessor | None" = None,
        *,
        sampler: Sampler | None = None,
        host: HostIdentity | None = None,
    ) -> None:
        """``sampler`` and ``host`` stand in for the process's own sampler and this machine."""
        self._config, self._clock, self._log = config, settings.clock, settings.telemetry.log
        self._given_sampler, self._sampler = sampler, sampler
        self._previous = previous.sampler if previous is not None else None
        self._host = host
        self._is_acquired = False
        self._attribution: Attribution | None = None
        self._kinds = np.array([_KINDS[kind] for kind in config.match.kinds], np.int64)
        self._patterns = [compile_pattern(pattern) for pattern in config.match.names]
        self._names: dict[str, bool] = {}
        self._min_severity = _SEVERITIES[config.logs.min_severity]
        self._metrics = SamplerMetrics(settings.telemetry, self._snapshot)
        counter = settings.telemetry.counter
        self._spans = counter("tailrace_gpu_spans", "Spans that are GPU work, by what became of them.", ("method", "outcome"))
        self._records = counter(
            "tailrace_gpu_log_records", "Log records of at least min_severity, by what became of them.", ("method", "outcome")
        )

    @property
    def sampler(self) -> Sampler | None:
        """Where the samples come from, once started."""
        return self._sampler

    async def start(self, host: Host) -> None:  # noqa: ARG002 - Component's signature
        """Begin to sample, unless the receiver or another pipeline does already."""
        if self._host is None:
            self._host = HostIdentity.own()
        if self._sampler is None:
            self._sampler = acquire(self._config, self._log, self._previous)
            self._is_acquired = True
        self._previous = None

    async def shutdown(self) -> None:
        """Leave the sampler to the others."""
        if self._is_acquired and self._sampler is not None:
            self._is_acquired = False
            release(self._sampler)

    def transform(self, batch: Batch) -> Batch:
        """The batch with the attributes; the same object where there is nothing to say."""
        snapshot = self._snapshot()
        if snapshot is None or not batch.item_count or not snapshot.devices:
            return batch
        self._metrics.update()
        if self._attribution is None or not self._attribution.is_of(snapshot):
            self._attribution = Attribution(self._config, self._host or HostIdentity(), snapshot)
        work = partial(_Work, batch, snapshot, self._attribution, self._config)
        if batch.signal is Signal.TRACES:
            return self._traces(batch, work)
        return self._logs(batch, work)

    def _snapshot(self) -> Snapshot | None:
        return None if self._sampler is None else self._sampler.snapshot

    def _traces(self, batch: Batch, work: Any) -> Batch:
        rows = np.flatnonzero(self._is_gpu_work(batch))
        if not len(rows):
            return batch
        start = _times(batch, "start_time_unix_nano")[rows]
        end = _times(batch, "end_time_unix_nano")[rows]
        spans: _Work = work(rows, self._after_queue(batch, rows, start, end), end, start, self._clock.time_unix_nano())
        spans.count(self._spans)
        return spans.span_attributes()

    def _logs(self, batch: Batch, work: Any) -> Batch:
        rows = np.flatnonzero(self._is_severe(batch))
        if not len(rows):
            return batch
        times = _times(batch, "time_unix_nano")[rows]
        times = np.where(times == 0, _times(batch, "observed_time_unix_nano")[rows], times)
        records: _Work = work(rows, times, times, times, self._clock.time_unix_nano())
        records.count(self._records)
        return records.log_attributes()

    def _is_gpu_work(self, batch: Batch) -> Mask:
        match = self._config.match
        is_kind: Mask = np.isin(np.asarray(batch.field("kind")), self._kinds)
        if not is_kind.any():
            return is_kind
        is_named = np.zeros(batch.item_count, np.bool_)
        for key in match.any_attribute:
            is_named |= batch.attribute(key).present
        if self._patterns and not is_named.all():
            is_named |= _column(batch.field("name")).where(self._is_work_name)
        return is_kind & is_named

    def _is_work_name(self, name: str) -> bool:
        name = name[:_MAX_NAME_CHARS]
        known = self._names.get(name)
        if known is None:
            if len(self._names) >= _MAX_NAMES:
                self._names.clear()
            known = self._names[name] = any(pattern.search(name) for pattern in self._patterns)
        return known

    def _after_queue(self, batch: Batch, rows: Rows, start: Times, end: Times) -> Times:
        """The starts, moved by what the span says it waited; never behind its end."""
        waited = np.full(len(rows), np.nan)
        for key in self._config.interval.queue:
            seconds = batch.attribute(key).numeric()[rows]
            waited = np.where(np.isnan(waited), seconds, waited)
        length = np.where(end > start, end - start, np.uint64(0))
        nanoseconds = np.clip(np.nan_to_num(waited, nan=0.0, posinf=0.0, neginf=0.0) * 1e9, 0.0, 2.0**63).astype(np.uint64)
        after: Times = start + np.minimum(nanoseconds, length)
        return after

    def _is_severe(self, batch: Batch) -> Mask:
        number = np.asarray(batch.field("severity_number"))
        is_severe: Mask = number >= self._min_severity
        unset = number == 0
        if unset.any():
            is_severe |= unset & _column(batch.field("severity_text")).where(self._is_severe_word)
        return is_severe

    def _is_severe_word(self, word: str) -> bool:
        return _SEVERITY_WORDS.get(word.strip().lower(), 0) >= self._min_severity


class _Work:
    """The items of one batch that are to be enriched."""

    def __init__(
        self,
        batch: Batch,
        snapshot: Snapshot,
        attribution: Attribution,
        config: GpuProcessorConfig,
        rows: Rows,
        start: Times,
        end: Times,
        stated_start: Times,
        now_unix_nano: int,
    ) -> None:
        self._batch, self._snapshot, self._attribution, self._config = batch, snapshot, attribution, config
        self._rows = rows
        self._assignment: Assignment = attribution.assign(batch, rows, stated_start)
        target = self._assignment.target
        self._is_assigned = target >= 0
        self._start, stated_start, stated_end = start[self._is_assigned], stated_start[self._is_assigned], end[self._is_assigned]
        self._end = np.maximum(self._start, stated_end)
        # Clocks of one machine agree; what is later than now and the hold of the newest sample is a wrong clock.
        latest = np.uint64(now_unix_nano + int(snapshot.sample_interval_s * 1e9))
        is_valid = (stated_start > 0) & (stated_start <= stated_end) & (stated_end <= latest)
        self._figures: Figures = join(snapshot, attribution.targets, target[self._is_assigned], self._start, self._end)
        self._outcome = np.where(is_valid, self._figures.outcome, np.int8(_INVALID_TIME))
        self._is_told = self._outcome == COVERED

    def count(self, counter: Any) -> None:
        """Add what became of the items to a counter with the labels method and outcome."""
        unassigned = self._assignment.target[~self._is_assigned]
        other = int(np.count_nonzero(unassigned == OTHER_HOST))
        for count, outcome in ((other, "other_host"), (len(unassigned) - other, "ambiguous")):
            if count:
                counter.add(count, method="none", outcome=outcome)
        method = self._assignment.method[self._is_assigned]
        width = _INVALID_TIME + 1
        counts = np.bincount(method * width + self._outcome, minlength=len(METHODS) * width)
        for code in np.flatnonzero(counts).tolist():
            outcome = _OUTCOMES.get(code % width, "invalid_time")
            counter.add(int(counts[code]), method=METHODS[code // width], outcome=outcome)

    def span_attributes(self) -> Batch:
        """The batch with what spans are told."""
        if not self._is_told.any():
            return self._batch
        snapshot, figures = self._snapshot, self._figures
        edit = self._batch.edit()
        self._identity(edit)
        self._number(edit, "gpu.utilization.mean", figures.utilization_mean)
        self._number(edit, "gpu.utilization.max", figures.utilization_max)
        self._integer(edit, "gpu.memory.used.max", figures.memory_used_max)
        self._integer(edit, "gpu.memory.limit", self._of_target(memory_limits(snapshot, self._attribution.targets)))
        self._number(edit, "gpu.power.mean", figures.power_mean)
        is_long = (self._end - self._start) >= np.uint64(int(self._config.min_window * 1e9))
        self._number(edit, "gpu.device.energy", np.where(is_long, figures.energy, np.nan))
        self._integer(edit, "gpu.samples", figures.samples.astype(np.float64))
        self._number(edit, "gpu.coverage", figures.coverage)
        self._integer(edit, "gpu.processes", self._of_target(process_counts(snapshot, self._attribution.targets)))
        told = self._mask(self._is_told)
        edit.set("gpu.sample_interval", snapshot.sample_interval_s, told, mode="insert")
        edit.set("gpu.source", snapshot.source, told, mode="insert")
        method = self._spread(self._assignment.method[self._is_assigned], np.int32)
        edit.set("gpu.attribution.method", StringColumn.from_codes(method, METHODS), told, mode="insert")
        return edit.apply()

    def log_attributes(self) -> Batch:
        """The batch with what log records are told."""
        if not self._is_told.any():
            return self._batch
        edit = self._batch.edit()
        self._text_of_target(edit, "hw.id", [self._only(members, "id") for members in self._attribution.targets])
        self._number(edit, "gpu.utilization", self._figures.utilization_mean)
        self._integer(edit, "gpu.memory.used", self._figures.memory_used_max)
        self._integer(edit, "gpu.memory.limit", self._of_target(memory_limits(self._snapshot, self._attribution.targets)))
        edit.set("gpu.source", self._snapshot.source, self._mask(self._is_told), mode="insert")
        return edit.apply()

    def _identity(self, edit: Edit[Any]) -> None:
        targets = self._attribution.targets
        self._text_of_target(edit, "hw.id", [self._only(members, "id") for members in targets])
        self._text_of_target(edit, "hw.parent", [self._only(members, "parent_id") for members in targets])
        self._text_of_target(edit, "hw.model", [self._common_model(members) for members in targets])
        sets = [[self._snapshot.devices[number].id for number in members] if len(members) > 1 else None for members in targets]
        target = self._assignment.target[self._is_assigned]
        is_set = self._is_told & np.array([ids is not None for ids in sets], np.bool_)[target]
        if is_set.any():
            column = AttributeColumn.of(sets).take(self._spread(target, np.int32))
            edit.set("gpu.ids", column, self._mask(is_set), mode="insert")
            counts = np.array([len(members) for members in targets], np.float64)
            self._integer(edit, "gpu.count", np.where(is_set, self._of_target(counts), np.nan))

    def _only(self, members: tuple[int, ...], name: str) -> str:
        return str(getattr(self._snapshot.devices[members[0]], name)) if len(members) == 1 else ""

    def _common_model(self, members: tuple[int, ...]) -> str:
        models = {self._snapshot.devices[number].model for number in members}
        return models.pop() if len(models) == 1 else ""

    def _text_of_target(self, edit: Edit[Any], key: str, texts: list[str]) -> None:
        """Set a text that depends on the target alone; the empty text is none."""
        target = self._assignment.target[self._is_assigned]
        has_text = np.array([bool(text) for text in texts], np.bool_)
        where = self._is_told & has_text[target]
        if where.any():
            edit.set(key, StringColumn.from_codes(self._spread(target, np.int32), texts), self._mask(where), mode="insert")

    def _of_target(self, values: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        result: npt.NDArray[np.float64] = values[self._assignment.target[self._is_assigned]]
        return result

    def _number(self, edit: Edit[Any], key: str, values: npt.NDArray[np.float64]) -> None:
        where = self._is_told & ~np.isnan(values)
        if where.any():
            edit.set(key, self._spread(values, np.float64), self._mask(where), mode="insert")

    def _integer(self, edit: Edit[Any], key: str, values: npt.NDArray[np.float64]) -> None:
        where = self._is_told & ~np.isnan(values)
        if where.any():
            edit.set(key, self._spread(np.rint(np.where(where, values, 0.0)), np.int64), self._mask(where), mode="insert")

    def _spread(self, values: npt.NDArray[Any], dtype: type) -> npt.NDArray[Any]:
        """Values of the assigned items as a column over all items."""
        result: npt.NDArray[Any] = np.zeros(self._batch.item_count, dtype)
        result[self._rows[self._is_assigned]] = values
        return result

    def _mask(self, where: Mask) -> Mask:
        return np.asarray(self._spread(where, np.bool_), np.bool_)


def _times(batch: Batch, name: str) -> Times:
    return np.asarray(batch.field(name), np.uint64)


def _column(values: Any) -> StringColumn:
    assert isinstance(values, StringColumn)
    return values
