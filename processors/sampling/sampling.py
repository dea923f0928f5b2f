"""The processor ``sampling`` in a traces pipeline: decides whole traces by rules.

The rules are in ``rules``. ``collector.tail_sampling`` holds traces, decides them in time and remembers decisions.
``logs`` is the processor in a logs pipeline, and ``report`` the document on the admin port.
Rules: docs/reference/sampling.md.
"""

from collections.abc import Mapping
from typing import Any, Final, Literal

import numpy as np

from collector.api import Host, Settings
from collector.model import Batch, Traces
from collector.model.arrays import F64, I32
from collector.tail_sampling import ColumnLookup, TailSampler, TraceDecisions
from processors.sampling.config import SamplingConfig
from processors.sampling.logs import SAMPLERS
from processors.sampling.report import Report, keyed
from processors.sampling.rules import NO_RULE, Rules, any_glob

__all__ = ["SamplingProcessor"]

_ROUTES: Final = ("http.route", "url.path", "http.target")


class SamplingProcessor(TailSampler):
    """The processor of one traces pipeline."""

    def __init__(self, settings: Settings, config: SamplingConfig) -> None:
        telemetry = settings.telemetry
        self._keys_refused = telemetry.counter(
            "tailrace_sampling_coverage_refused_traces",
            "Traces left to later rules because max_keys was reached",
            ("rule",),
        )
        super().__init__(
            settings,
            Rules(config, lambda rule, count: self._keys_refused.add(count, rule=rule)),
            decision_wait_s=config.decision_wait,
            max_bytes=config.max_bytes,
            kept_cache_size=config.decision_cache_size,
            dropped_cache_size=config.decision_cache_size,
            storage=config.storage,
            checkpoint_interval_s=config.checkpoint_interval,
        )
        self._config = config
        drops = config.drop_spans
        self._is_dropped_name = any_glob(drops.names) if drops.names else None
        self._is_dropped_route = any_glob(drops.routes) if drops.routes else None
        self.report = Report([rule.name for rule in config.rules], settings.clock)
        self._decisions = telemetry.counter(
            "tailrace_sampling_traces", "Sampling decisions, one per trace", ("rule", "decision")
        )
        self._late_spans = telemetry.counter(
            "tailrace_sampling_late_spans", "Spans that arrived after the decision on their trace", ("decision",)
        )
        self._early_decisions = telemetry.counter(
            "tailrace_sampling_early_decisions", "Traces decided early because of max_bytes"
        )
        telemetry.gauge(
            "tailrace_sampling_held_bytes", "Bytes of the spans held", read=lambda: float(self.held_bytes())
        )
        telemetry.gauge(
            "tailrace_sampling_traces_on_memory", "Traces not decided yet", read=lambda: float(self.open_count)
        )
        telemetry.gauge(
            "tailrace_sampling_decisions_on_memory",
            "Decisions remembered for late spans and logs",
            read=lambda: float(self.remembered_count),
        )
        settings.shared.get(SAMPLERS).append(self)

    def take_over(self, state: object) -> bool:
        """Continue to hold and remember what the predecessor does, and continue its report."""
        if not isinstance(state, SamplingProcessor) or not super().take_over(state):
            return False
        self.report.take_over(state.report)
        return True

    async def start(self, host: Host) -> None:
        """Begin to decide traces that are due, and show the report on the admin port."""
        host.add_admin_route("/sampling", self._show)
        await super().start(host)

    async def consume(self, batch: Batch) -> None:
        """Hold the spans of undecided traces, pass on or drop those of decided ones."""
        assert isinstance(batch, Traces)
        remaining = self._without_dropped_spans(batch)
        if remaining is not None:
            await super().consume(remaining)

    def _without_dropped_spans(self, batch: Traces) -> Traces | None:
        """The batch without the spans that ``drop_spans`` matches; None if it matches all of them."""
        if self._is_dropped_name is None and self._is_dropped_route is None:
            return batch
        dropped = np.zeros(batch.item_count, bool)
        if self._is_dropped_name is not None:
            dropped |= batch.field("name").where(self._is_dropped_name)
        if self._is_dropped_route is not None:
            for key in _ROUTES:
                if batch.attributes().code_of(key) >= 0:
                    dropped |= batch.attribute(key).text.where(self._is_dropped_route)
        count = int(np.count_nonzero(dropped))
        if not count:
            return batch
        self._count_dropped(count, "drop_spans")
        return batch.select(~dropped) if count < batch.item_count else None

    # What is counted and shown.

    def on_decided(self, slots: I32, decisions: TraceDecisions, column: ColumnLookup) -> None:
        """Count the traces by rule."""
        names = ["none", *(rule.name for rule in self._config.rules)]  # NO_RULE is -1
        codes = (decisions.reasons - NO_RULE) * 2 + decisions.kept
        counts = np.bincount(codes, minlength=2 * len(names)).reshape(len(names), 2)
        for number in np.flatnonzero(counts.any(axis=1)).tolist():
            for decision, count in zip(("dropped", "kept"), counts[number].tolist(), strict=True):
                if count:
                    self._decisions.add(count, rule=names[number], decision=decision)
        self.report.count(counts)
        column("reason")[slots] = decisions.reasons

    def on_late_spans(self, kept_count: int, dropped_count: int, ages_s: F64) -> None:  # noqa: ARG002 - a hook
        """Count the spans."""
        for count, decision in ((kept_count, "kept"), (dropped_count, "dropped")):
            if count:
                self._late_spans.add(count, decision=decision)
        self.report.late_spans += kept_count + dropped_count

    def on_evicted(self, trace_count: int, cause: Literal["bytes", "traces"]) -> None:  # noqa: ARG002 - a hook
        """Count the traces."""
        self._early_decisions.add(trace_count)
        self.report.early_traces += trace_count

    def on_release(self, batch: Traces, slots: I32, column: ColumnLookup) -> None:
        """Keep a copy of the slowest traces for the report."""
        self.report.add_slowest(batch, slots, column("root_ns"), column("reason"))

    async def _show(self, query: Mapping[str, str]) -> dict[str, Any]:
        """The entry of this pipeline in ``GET /sampling``."""
        del query
        document = {
            "signal": "traces",
            **self.report.rules(),
            "held": {
                "bytes": self.row_bytes,
                "max_bytes": self._config.max_bytes,
                "spans": self.held_items(),
                "traces": self.open_count,
                "table_bytes": self.table_bytes,
            },
            "decisions_remembered": self.remembered_count,
            "late_spans": self.report.late_spans,
            "early_traces": self.report.early_traces,
            "slowest": self.report.slowest(),
        }
        return keyed(self._settings, document)
