"""The processor ``sampling`` in a logs pipeline: log records follow the decision on their trace.

The records of a decided trace follow at once. Those of a trace that is undecided, or not seen yet, wait for the
decision. If no span of the trace arrives within ``decision_wait``, the trace id is compared with the ratio of the last
rule. Rules: docs/reference/sampling.md, rules 16 to 21.
"""

from collections.abc import Mapping
from typing import Any, Final, Literal, SupportsInt

import numpy as np

from collector.api import Host, Settings, SharedKey
from collector.model import Batch, Logs, Signal
from collector.model.arrays import I8, I32, U64, Mask
from collector.otlp.consistent_sampling import RANDOMNESS_BITS, threshold_of
from collector.tail_sampling import DecidedTraces, Decision, HoldingStage, TailSampler
from processors.sampling.config import SamplingConfig
from processors.sampling.report import keyed

__all__ = ["SAMPLERS", "LogsFollower"]

_RANDOMNESS_MASK: Final = np.uint64((1 << RANDOMNESS_BITS) - 1)
_FOLLOWED, _UNSEEN, _NO_TRACE = "followed", "unseen", "no_trace"

SAMPLERS: Final = SharedKey("sampling.samplers", list[TailSampler])
"""The samplers of one component id in traces pipelines, which its objects in logs pipelines follow."""


class LogsFollower(HoldingStage[Logs]):
    """The processor ``sampling`` in a logs pipeline."""

    def __init__(self, settings: Settings, config: SamplingConfig) -> None:
        super().__init__(
            settings,
            Signal.LOGS,
            columns={"is_by_id": np.bool_},
            decision_wait_s=config.decision_wait,
            shortest_wait_s=config.decision_wait,
            max_bytes=config.logs.max_bytes,
            storage=config.storage,
            checkpoint_interval_s=config.checkpoint_interval,
        )
        self._config = config
        self._samplers: list[TailSampler] = settings.shared.get(SAMPLERS)
        self._unseen_threshold = np.uint64(threshold_of(config.unseen_ratio))
        self._random = np.random.default_rng()
        self._counts: dict[tuple[str, str], int] = {}
        telemetry = settings.telemetry
        self._records = telemetry.counter(
            "tailrace_sampling_log_records", "Sampling decisions, one per log record", ("by", "decision")
        )
        self._evicted_traces = telemetry.counter(
            "tailrace_sampling_early_log_traces", "Traces whose records were decided early because of logs.max_bytes"
        )
        telemetry.gauge(
            "tailrace_sampling_held_log_bytes", "Bytes of log records held", read=lambda: float(self.held_bytes())
        )

    # The component.

    async def start(self, host: Host) -> None:
        """Begin to follow the samplers."""
        if not self._samplers:
            self._settings.telemetry.log.warning(
                "this processor is not used in any traces pipeline; "
                "records with a trace id are sampled by the trace id alone"
            )
        for sampler in self._samplers:
            sampler.subscribe(self._on_decisions)
        host.add_admin_route("/sampling", self._show)
        await super().start(host)
        if len(self._traces):  # taken over, and possibly decided in the meantime
            self._deciding.run_soon()

    async def shutdown(self) -> None:
        """Decide everything that is held, undecided traces included, unless a successor or a storage keeps it."""
        await super().shutdown()
        for sampler in self._samplers:
            sampler.unsubscribe(self._on_decisions)

    async def consume(self, batch: Batch) -> None:
        """Hold the records of undecided traces, pass on or drop the others."""
        assert isinstance(batch, Logs)
        if not batch.item_count:
            return
        trace_ids = batch.field("trace_id")
        has_trace = (trace_ids[:, 0] | trace_ids[:, 1]) != 0
        kept = self._keep_without_trace(batch, has_trace)
        decisions = np.full(len(trace_ids), Decision.DROPPED, np.int8)
        decisions[has_trace] = self._decisions(np.ascontiguousarray(trace_ids[has_trace]))
        follows_kept, follows_dropped = (
            has_trace & (decisions == Decision.KEPT),
            has_trace & (decisions == Decision.DROPPED),
        )
        self._count(_FOLLOWED, np.count_nonzero(follows_kept), np.count_nonzero(follows_dropped))
        kept |= follows_kept
        waits = has_trace & ~follows_kept & ~follows_dropped
        if waits.any() and not self._samplers:
            passes = waits & self._passes_by_id(trace_ids)
            self._count(_UNSEEN, np.count_nonzero(passes), np.count_nonzero(waits & ~passes))
            kept, waits = kept | passes, np.zeros_like(waits)
        stored = None
        if waits.any():
            slots = np.full(len(trace_ids), -1, np.int32)
            slots[waits] = self._slots_of(np.ascontiguousarray(trace_ids[waits]))
            self._hold(batch, slots)
            stored = self._store(batch, slots, trace_ids)
        self._count_dropped(int(np.count_nonzero(~kept & ~waits)))
        if kept.any():
            await self._send(batch.select(kept))
        await self._keep_within_limits()
        if stored is not None:
            await stored

    # Decisions.

    def _keep_without_trace(self, batch: Logs, has_trace: Mask) -> Mask:
        """bool[n]: which of the records without a trace id are kept."""
        if has_trace.all():
            return np.zeros(len(has_trace), np.bool_)
        config = self._config.logs
        kept: Mask = ~has_trace & (batch.field("severity_number") >= config.min_number)
        below = ~has_trace & ~kept
        if config.below_ratio >= 1.0:
            kept = kept | below
        elif config.below_ratio > 0.0:
            kept = kept | (below & (self._random.random(len(below)) < config.below_ratio))
        self._count(_NO_TRACE, np.count_nonzero(kept), np.count_nonzero(~has_trace & ~kept))
        return kept

    def _decisions(self, trace_ids: U64) -> I8:
        """The samplers' decision on each trace. If several samplers know a trace, the first one counts."""
        decisions = np.full(len(trace_ids), Decision.UNKNOWN, np.int8)
        for sampler in self._samplers:
            unknown = np.flatnonzero(decisions == Decision.UNKNOWN)
            if not len(unknown):
                break
            decisions[unknown] = sampler.decisions(np.ascontiguousarray(trace_ids[unknown]))
        return decisions

    def _on_decisions(self, decided: DecidedTraces) -> None:
        """A sampler has decided traces: release the records that wait for them."""
        slots = self._traces.find(decided.trace_ids)
        waits = slots >= 0
        if waits.any():
            decisions = np.where(decided.kept[waits], Decision.KEPT, Decision.DROPPED)
            self._traces.column("decision")[slots[waits]] = decisions
            self._deciding.run_soon()

    def _passes_by_id(self, trace_ids: U64) -> Mask:
        passes: Mask = (trace_ids[:, 1] & _RANDOMNESS_MASK) >= self._unseen_threshold
        return passes

    def _decide(self, slots: I32) -> None:
        """By trace id, with the ratio for traces that are never seen."""
        kept = self._passes_by_id(self._traces.keys(slots))
        self._traces.column("decision")[slots] = np.where(kept, Decision.KEPT, Decision.DROPPED)
        self._traces.column("is_by_id")[slots] = True

    async def _decide_due(self) -> None:
        due = self._due(self._clock.monotonic_s())
        if len(due):
            # A sampler that holds the trace will report its decision.
            decisions = self._decisions(self._traces.keys(due))
            for decision in (Decision.KEPT, Decision.DROPPED):
                self._traces.column("decision")[due[decisions == decision]] = decision
            self._decide(due[decisions == Decision.UNKNOWN])
        await self._release()

    async def _decide_all(self) -> None:
        trace_ids = self._traces.keys(self._traces.live())
        for sampler in self._samplers:
            await sampler.decide_now(trace_ids)  # which calls ``_on_decisions``
        live = self._traces.live()
        self._decide(live[self._traces.column("decision")[live] == Decision.PENDING])

    # What is counted and shown.

    def on_evicted(self, trace_count: int, cause: Literal["bytes", "traces"]) -> None:  # noqa: ARG002 - a hook
        """Count the traces."""
        self._evicted_traces.add(trace_count)

    def _before_release(
        self,
        decided: I32,  # noqa: ARG002 - the hook's signature
        kept_parts: list[tuple[Logs, I32]],
        discarded_slots: I32,
    ) -> None:
        """Count the records by what decided them."""
        is_by_id = self._traces.column("is_by_id")
        kept_by_id = sum(int(np.count_nonzero(is_by_id[slots])) for _, slots in kept_parts)
        dropped_by_id = np.count_nonzero(is_by_id[discarded_slots])
        self._count(_UNSEEN, kept_by_id, dropped_by_id)
        kept_count = sum(len(slots) for _, slots in kept_parts)
        self._count(_FOLLOWED, kept_count - kept_by_id, len(discarded_slots) - dropped_by_id)

    def _count(self, by: str, kept_count: SupportsInt, dropped_count: SupportsInt) -> None:
        for count, decision in ((int(kept_count), "kept"), (int(dropped_count), "dropped")):
            if count:
                self._records.add(count, by=by, decision=decision)
                self._counts[by, decision] = self._counts.get((by, decision), 0) + count

    async def _show(self, query: Mapping[str, str]) -> dict[str, Any]:
        """The entry of this pipeline in ``GET /sampling``."""
        del query
        records = {
            by: {decision: self._counts.get((by, decision), 0) for decision in ("kept", "dropped")}
            for by in (_FOLLOWED, _UNSEEN, _NO_TRACE)
        }
        held = {
            "bytes": self.row_bytes,
            "max_bytes": self._config.logs.max_bytes,
            "records": self.held_items(),
            "traces": self.open_count,
        }
        return keyed(self._settings, {"signal": "logs", "records": records, "held": held})
