"""The processor ``tail_sampling``: samples whole traces by the Collector's policies.

``collector.tail_sampling`` holds traces, releases them and remembers decisions, and ``decider`` makes the decisions.
This module maps the Collector's configuration to that engine and counts the Collector's metrics.

Source: ``processor.go`` of tailsamplingprocessor 0.156; docs/tail_sampling.md lists the differences and their reasons.
"""

from typing import Final, Literal

import numpy as np

from collector.api import Histogram, Host, Settings
from collector.model import Batch
from collector.model.arrays import F64, I32
from collector.tail_sampling import ColumnLookup, TailSampler, TraceDecisions
from processors.tail_sampling.config import TailSamplingConfig
from processors.tail_sampling.decider import PolicyDecider

__all__ = ["TailSamplingProcessor"]

_PREFIX: Final = "otelcol_processor_tail_sampling_"
_WAIT_MIN_S: Final = 0.1
_EVICTED_PER_TRACE: Final = 16  # evicted traces that are remembered: under overload they are many more than those held
_AGE_BUCKETS_S: Final = (0, 5, 10, 25, 50, 75, 100, 250, 500, 750, 1000, 2500, 5000, 7500, 10000)


class TailSamplingProcessor(TailSampler):
    """The processor of one pipeline."""

    def __init__(self, settings: Settings, config: TailSamplingConfig) -> None:
        self._config = config
        self._policies = PolicyDecider(config, settings.telemetry, settings.clock, settings.id.name)
        cache = config.decision_cache
        # Without a cache the Collector remembers a decision as long as the trace is in memory. With ``span-ingest``, a
        # trace that is not sampled by the end of its wait is forgotten.
        dropped_default = 0 if config.sampling_strategy == "span-ingest" else config.num_traces
        after_root_s = config.decision_wait_after_root_received
        super().__init__(
            settings,
            self._policies,
            decision_wait_s=max(config.decision_wait, _WAIT_MIN_S),
            decision_wait_after_root_s=max(after_root_s, _WAIT_MIN_S) if after_root_s else 0.0,
            max_traces=config.num_traces,
            block_on_overflow=config.block_on_overflow,
            kept_cache_size=cache.sampled_cache_size or config.num_traces,
            dropped_cache_size=cache.non_sampled_cache_size or dropped_default,
            abandoned_cache_size=_EVICTED_PER_TRACE * config.num_traces,
            drop_pending_on_shutdown=config.drop_pending_traces_on_shutdown,
            on_overflow="drop",
            storage=config.storage,
            checkpoint_interval_s=config.checkpoint_interval,
        )
        telemetry = settings.telemetry
        self._early_releases = telemetry.counter(
            _PREFIX + "early_releases_from_cache_decision", "Spans decided by the decision cache", ("sampled",)
        )
        self._too_early = telemetry.counter(
            _PREFIX + "sampling_trace_dropped_too_early", "Traces evicted before their decision"
        )
        self._too_large = telemetry.counter(
            _PREFIX + "traces_dropped_too_large", "Traces beyond maximum_trace_size_bytes"
        )
        self._late_age = telemetry.histogram(
            _PREFIX + "sampling_late_span_age",
            "Seconds from a trace's decision to the arrival of a late span",
            _AGE_BUCKETS_S,
        )
        self._removal_age = telemetry.histogram(
            _PREFIX + "sampling_trace_removal_age",
            "Seconds from a trace's arrival to its removal from memory",
            _AGE_BUCKETS_S,
        )
        telemetry.gauge(_PREFIX + "sampling_traces_on_memory", "Undecided traces", read=lambda: float(self.open_count))

    async def start(self, host: Host) -> None:
        """Begin to decide traces that are due."""
        for policy in self._config.policies:
            if policy.composite is not None:
                allocated = {allocation.policy for allocation in policy.composite.rate_allocation}
                names = [sub_policy.name for sub_policy in policy.composite.composite_sub_policy]
                if missing := [name for name in names if name not in allocated]:
                    self._settings.telemetry.log.warning(
                        "sub-policies of a composite policy are missing from rate_allocation; they sample nothing",
                        policy=policy.name,
                        sub_policies=missing,
                    )
        await super().start(host)

    async def consume(self, batch: Batch) -> None:
        """Hold the spans of open traces, pass on or drop those of decided ones."""
        await super().consume(batch)
        if self._policies.acts_on_arrival:
            self._read_spans()
        if len(too_large := self._policies.take_too_large()):
            self._too_large.add(self.drop_now(too_large, "trace_too_large"))
        if len(decided := self._policies.take_decided()):
            await self.decide_now(decided)

    def on_decided(self, slots: I32, decisions: TraceDecisions, column: ColumnLookup) -> None:  # noqa: ARG002 - a hook
        """Record how long the traces were in memory."""
        self._observe(self._removal_age, self._clock.monotonic_s() - column("first_s")[slots])

    def on_late_spans(self, kept_count: int, dropped_count: int, ages_s: F64) -> None:
        """Count spans that the caches decide, and record how late they are."""
        cache = self._config.decision_cache
        if kept_count and cache.sampled_cache_size:
            self._early_releases.add(kept_count, sampled="true")
        if dropped_count and cache.non_sampled_cache_size:
            self._early_releases.add(dropped_count, sampled="false")
        self._observe(self._late_age, ages_s)

    def on_evicted(self, trace_count: int, cause: Literal["bytes", "traces"]) -> None:  # noqa: ARG002 - a hook
        """Count evicted traces."""
        self._too_early.add(trace_count)

    @staticmethod
    def _observe(histogram: Histogram, ages_s: F64) -> None:
        """Observe ages in whole seconds, as the Collector does, once per distinct value."""
        ages, counts = np.unique(ages_s.astype(np.int64), return_counts=True)
        for age, count in zip(ages.tolist(), counts.tolist(), strict=True):
            histogram.observe(float(age), count)
