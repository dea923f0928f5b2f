"""Tail sampling over whole traces: all errors, all that is slow, some of each API, a consistent share of the rest.

Who is kept: ``rules``. Holding, deciding in time, remembering: ``collector.tail_sampling``. Logs: ``logs``. Shown:
``report``.
"""

from collections.abc import Mapping
from typing import Any, Final, Literal

import numpy as np

from collector.api import Host, Settings
from collector.model import Batch, Signal, Traces
from collector.model.arrays import F64, I32
from collector.tail_sampling import TailSampler, Verdicts
from processors.sampling.config import SamplingConfig
from processors.sampling.logs import SAMPLERS
from processors.sampling.report import Report, keyed
from processors.sampling.rules import NO_RULE, Rules, any_glob

__all__ = ["SamplingProcessor"]

_ROUTES: Final = ("http.route", "url.path", "http.target")


class SamplingProcessor(TailSampler):
    """In a traces pipeline."""

    def __init__(self, settings: Settings, config: SamplingConfig) -> None:
        telemetry = settings.telemetry
        self._keys_refused = telemetry.counter(
            "tailrace_sampling_coverage_refused_traces", "Traces whose key was one more than max_keys", ("rule",)
        )
        super().__init__(
            settings,
            Rules(config, lambda rule, count: self._keys_refused.add(count, rule=rule)),
            decision_wait_s=config.decision_wait,
            max_bytes=config.max_bytes,
            kept_cache_size=config.decision_cache_size,
            dropped_cache_size=config.decision_cache_size,
        )
        self._config = config
        drops = config.drop_spans
        self._names = any_glob(drops.names) if drops.names else None
        self._routes = any_glob(drops.routes) if drops.routes else None
        self.report = Report([rule.name for rule in config.rules], settings.clock)
        self._decisions = telemetry.counter("tailrace_sampling_traces", "Traces decided", ("rule", "decision"))
        self._late = telemetry.counter(
            "tailrace_sampling_late_spans", "Spans that came after their trace's decision", ("decision",)
        )
        self._early = telemetry.counter(
            "tailrace_sampling_early_decisions", "Traces decided early because max_bytes was reached"
        )
        telemetry.gauge("tailrace_sampling_held_bytes", "Bytes held", read=lambda: float(self.held_bytes()))
        telemetry.gauge(
            "tailrace_sampling_traces_on_memory", "Traces not decided yet", read=lambda: float(self.open_count)
        )
        telemetry.gauge(
            "tailrace_sampling_decisions_on_memory", "Decisions remembered", read=lambda: float(self.remembered_count)
        )
        settings.shared.get(SAMPLERS).append(self)

    def take_over(self, state: object) -> bool:
        """Hold and remember what the predecessor does, and continue its report."""
        if not isinstance(state, SamplingProcessor) or not super().take_over(state):
            return False
        self.report.adopt(state.report)
        return True

    async def start(self, host: Host) -> None:
        """Begin deciding."""
        host.add_admin_route("/sampling", self._show)
        await super().start(host)

    async def consume(self, batch: Batch) -> None:
        """Hold the spans of open traces, pass on or drop those of decided ones."""
        assert isinstance(batch, Traces)
        wanted = self._without_dropped_spans(batch)
        if wanted is not None:
            await super().consume(wanted)

    def _without_dropped_spans(self, batch: Traces) -> Traces | None:
        """The batch less the spans nobody wants; None where nothing is left."""
        if self._names is None and self._routes is None:
            return batch
        unwanted = np.zeros(batch.item_count, bool)
        if self._names is not None:
            unwanted |= batch.field("name").where(self._names)
        if self._routes is not None:
            for key in _ROUTES:
                if batch.attributes().code_of(key) >= 0:
                    unwanted |= batch.attribute(key).text.where(self._routes)
        count = int(np.count_nonzero(unwanted))
        if not count:
            return batch
        self._settings.telemetry.dropped(Signal.TRACES, count, "drop_spans")
        return batch.select(~unwanted) if count < batch.item_count else None

    # What is counted and shown.

    def decided(self, slots: I32, verdicts: Verdicts, column: Any) -> None:
        """Count them by rule."""
        size = len(self._config.rules) + 1
        counts = np.bincount((verdicts.reasons + 1) * 2 + verdicts.kept, minlength=2 * size).reshape(size, 2)
        names = ["none", *(rule.name for rule in self._config.rules)]
        for place in np.flatnonzero(counts.any(axis=1)).tolist():
            for word, count in zip(("dropped", "kept"), counts[place].tolist(), strict=True):
                if count:
                    self._decisions.add(count, rule=names[place], decision=word)
        self.report.count(counts)
        column("reason")[slots] = verdicts.reasons

    def late(self, kept_count: int, dropped_count: int, ages_s: F64) -> None:  # noqa: ARG002 - the seam
        """Count them."""
        for count, word in ((kept_count, "kept"), (dropped_count, "dropped")):
            if count:
                self._late.add(count, decision=word)
        self.report.late_spans += kept_count + dropped_count

    def early(self, trace_count: int, cause: Literal["bytes", "traces"]) -> None:  # noqa: ARG002 - the seam
        """Count them."""
        self._early.add(trace_count)
        self.report.early_traces += trace_count

    def leaving(self, batch: Traces, slots: I32, column: Any) -> None:
        """Keep a copy of the slowest."""
        self.report.look(batch, slots, column("root_ns"), column("reason"))

    async def _show(self, query: Mapping[str, str]) -> dict[str, Any]:
        """What ``GET /sampling`` says of this pipeline."""
        del query
        shown = {
            "signal": "traces",
            **self.report.rules(),
            "held": {
                "bytes": self.span_bytes,
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
        return keyed(self._settings, shown)


assert NO_RULE == -1  # the counts above begin with it
