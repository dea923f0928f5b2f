"""The processor: adds what the GPU did in its interval to each span that is GPU work, its state to severe log records.

Items of another host, of no GPU that can be identified, or of a time without samples pass unchanged, and existing
attributes are kept. The rules are in docs/reference/gpu.md.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, Final

import numpy as np

from collector.api import Host, Settings, Transform
from collector.gpu import SAMPLERS, GpuSampler, Snapshot
from collector.gpu.telemetry import SamplerMetrics
from collector.model import Batch, Signal, StringColumn
from collector.model.arrays import U64, Indices, Mask
from collector.otlp.semantics import SEVERITY_NUMBERS, SPAN_KINDS, severity_number_of
from collector.text.cache import TextCache
from collector.text.patterns import compile_pattern
from processors.gpu.attribution import Attribution
from processors.gpu.config import GpuProcessorConfig
from processors.gpu.enrichment import Enrichment
from processors.gpu.locality import HostIdentity

__all__ = ["GpuProcessor"]


_MAX_NAME_CHARS: Final = 512  # patterns and the cache see only this much of a name


class GpuProcessor(Transform):
    """The processor of one pipeline of traces or logs."""

    def __init__(
        self,
        settings: Settings,
        config: GpuProcessorConfig,
        *,
        sampler: GpuSampler | None = None,
        host: HostIdentity | None = None,
    ) -> None:
        """``sampler`` and ``host`` replace the shared sampler of the process and this machine's identity."""
        self._config, self._clock, self._log = config, settings.clock, settings.telemetry.log
        self._given_sampler, self._sampler = sampler, sampler
        self._predecessor: GpuSampler | None = None
        self._host = host
        self._samplers = settings.shared.get(SAMPLERS)
        self._is_acquired = False
        self._attribution: Attribution | None = None
        # The last element is for numbers that are not a span kind.
        self._is_kind = np.array([kind in config.match.kinds for kind in SPAN_KINDS] + [False], np.bool_)
        self._patterns = [compile_pattern(pattern) for pattern in config.match.names]
        self._names = TextCache[bool | None]()
        self._min_severity = SEVERITY_NUMBERS[config.logs.min_severity.upper()]
        self._metrics = SamplerMetrics(settings.telemetry, self._snapshot)
        counter = settings.telemetry.counter
        self._spans = counter(
            "tailrace_gpu_spans",
            "Spans that count as GPU work, by method of attribution and outcome",
            ("method", "outcome"),
        )
        self._records = counter(
            "tailrace_gpu_log_records",
            "Log records of at least min_severity, by method of attribution and outcome",
            ("method", "outcome"),
        )

    @property
    def sampler(self) -> GpuSampler | None:
        """The sampler in use; None before the start."""
        return self._sampler

    def hand_over(self, config: GpuProcessorConfig) -> GpuSampler | None:  # noqa: ARG002
        """The sampler, whose history a successor continues."""
        return self._sampler

    def take_over(self, state: object) -> bool:
        """Continue the history of the predecessor's sampler, if the same devices are sampled."""
        self._predecessor = state if isinstance(state, GpuSampler) else None
        return self._predecessor is not None

    async def start(self, host: Host) -> None:  # noqa: ARG002 - Component's signature
        """Start the sampler, unless the receiver or another pipeline has started it."""
        if self._host is None:
            self._host = HostIdentity.own()
        if self._sampler is None:
            self._sampler = self._samplers.acquire(self._config, self._log, self._predecessor)
            self._is_acquired = True
        self._predecessor = None

    async def shutdown(self) -> None:
        """Release the sampler."""
        if self._is_acquired and self._sampler is not None:
            self._is_acquired = False
            self._samplers.release(self._sampler)

    def transform(self, batch: Batch) -> Batch:
        """The batch with the attributes added; the same object if there is nothing to add."""
        snapshot = self._snapshot()
        if snapshot is None or not batch.item_count or not snapshot.devices:
            return batch
        self._metrics.update()
        if self._attribution is None or not self._attribution.is_current(snapshot):
            self._attribution = Attribution(self._config, self._host or HostIdentity(), snapshot)
        enrich = partial(
            Enrichment,
            batch,
            snapshot,
            self._attribution,
            self._config.min_window,
            now_unix_nano=self._clock.time_unix_nano(),
        )
        return self._traces(batch, enrich) if batch.signal is Signal.TRACES else self._logs(batch, enrich)

    def _snapshot(self) -> Snapshot | None:
        return None if self._sampler is None else self._sampler.snapshot

    def _traces(self, batch: Batch, enrich: Callable[..., Enrichment]) -> Batch:
        rows = np.flatnonzero(self._is_gpu_work(batch))
        if not len(rows):
            return batch
        start = _times(batch, "start_time_unix_nano")[rows]
        end = _times(batch, "end_time_unix_nano")[rows]
        spans = enrich(rows, self._after_queue(batch, rows, start, end), end, stated_start=start)
        spans.count(self._spans)
        return spans.span_attributes()

    def _logs(self, batch: Batch, enrich: Callable[..., Enrichment]) -> Batch:
        rows = np.flatnonzero(self._is_severe(batch))
        if not len(rows):
            return batch
        times = _times(batch, "time_unix_nano")[rows]
        times = np.where(times == 0, _times(batch, "observed_time_unix_nano")[rows], times)
        records = enrich(rows, times, times, stated_start=times)
        records.count(self._records)
        return records.log_attributes()

    def _is_gpu_work(self, batch: Batch) -> Mask:
        match = self._config.match
        kind = np.asarray(batch.field("kind"))
        is_kind: Mask = self._is_kind[np.where((kind >= 0) & (kind < len(SPAN_KINDS)), kind, len(SPAN_KINDS))]
        if not is_kind.any():
            return is_kind
        is_named = np.zeros(batch.item_count, np.bool_)
        for key in match.any_attribute:
            if _has(batch, key):
                is_named |= batch.attribute(key).present
        if self._patterns and not is_named.all():
            is_named |= _column(batch.field("name")).where(self._is_work_name)
        return is_kind & is_named

    def _is_work_name(self, name: str) -> bool:
        name = name[:_MAX_NAME_CHARS]
        known = self._names.get(name, None)
        if known is None:
            known = any(pattern.search(name) for pattern in self._patterns)
            self._names.put(name, known)
        return known

    def _after_queue(self, batch: Batch, rows: Indices, start: U64, end: U64) -> U64:
        """The starts plus the time that the spans spent in a queue; never after their ends."""
        keys = [key for key in self._config.interval.queue if _has(batch, key)]
        if not keys:
            return start
        wait_s = np.full(len(rows), np.nan)
        for key in keys:
            seconds = batch.attribute(key).numeric()[rows]
            wait_s = np.where(np.isnan(wait_s), seconds, wait_s)
        duration = np.where(end > start, end - start, np.uint64(0))
        nanoseconds = np.clip(np.nan_to_num(wait_s, nan=0.0, posinf=0.0, neginf=0.0) * 1e9, 0.0, 2.0**63).astype(
            np.uint64
        )
        after: U64 = start + np.minimum(nanoseconds, duration)
        return after

    def _is_severe(self, batch: Batch) -> Mask:
        number = np.asarray(batch.field("severity_number"))
        is_severe: Mask = number >= self._min_severity
        unset = number == 0
        if unset.any():
            is_severe |= unset & _column(batch.field("severity_text")).where(self._is_severe_word)
        return is_severe

    def _is_severe_word(self, word: str) -> bool:
        return severity_number_of(word) >= self._min_severity


def _has(batch: Batch, key: str) -> bool:
    """Whether any item may have the attribute; if not, its column need not be read."""
    return batch.attributes().code_of(key) >= 0


def _times(batch: Batch, name: str) -> U64:
    return np.asarray(batch.field(name), np.uint64)


def _column(values: Any) -> StringColumn:
    assert isinstance(values, StringColumn)
    return values
