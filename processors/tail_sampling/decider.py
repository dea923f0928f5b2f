"""The decider of ``tail_sampling``: the columns that policies need, what they decide together, and its metrics.

A trace is dropped if a ``drop`` policy matches it, and sampled if any other policy samples it. Drop policies are
evaluated first.

Source: opentelemetry-collector-contrib processor/tailsamplingprocessor 0.156, ``processor.go`` (makeDecision,
makeDecisionOnSpanIngest).
"""

from collections.abc import Mapping
from typing import Any, Final

import numpy as np

from collector.api import Clock, Telemetry
from collector.model import Traces
from collector.model.arrays import I32, I64, U8, U64, Indices, Mask
from collector.tail_sampling import THRESHOLD_UNCHANGED, ByTrace, ColumnLookup, TraceDecisions
from processors.tail_sampling.config import TailSamplingConfig
from processors.tail_sampling.policies import DROPPED, ERROR, NOT_SAMPLED, SAMPLED, Policy, TraceFacts, build_policy
from processors.tail_sampling.span_features import Conditions, Feature
from processors.tail_sampling.trace_sizes import framed_sizes, parts_of

__all__ = ["PolicyDecider"]

_UNDECIDED: Final = 255
_LABELS: Final = ("policy", "sampled", "decision")
_METRIC_LABELS: Final = {
    SAMPLED: ("true", "sampled"),
    NOT_SAMPLED: ("false", "not_sampled"),
    DROPPED: ("false", "dropped"),
}
_WARNING_INTERVAL_S: Final = 60.0
_PREFIX: Final = "otelcol_processor_tail_sampling_"
_TIMER_BUCKETS_MS: Final = (
    1, 2, 5, 10, 25, 50, 75, 100, 150, 200, 300, 400, 500, 750,
    1000, 2000, 3000, 4000, 5000, 10000, 20000, 30000, 50000,
)  # fmt: skip


class PolicyDecider:
    """A ``Decider`` of ``collector.tail_sampling``: the policies of one configuration."""

    def __init__(
        self, config: TailSamplingConfig, telemetry: Telemetry, clock: Clock, component_name: str = ""
    ) -> None:
        """``component_name`` precedes the names of the policies in the metrics, as in the Collector."""
        self._clock, self._log = clock, telemetry.log
        self._next_warning_s = 0.0
        self._first_match = config.sample_on_first_match
        self._on_ingest = config.sampling_strategy == "span-ingest"
        self._size_limit = config.maximum_trace_size_bytes
        self._needs_sizes = self._size_limit > 0 or "bytes_limiting" in _types(config.model_dump(by_alias=True))
        ordered = sorted(config.policies, key=lambda policy: policy.type != "drop")  # stable
        self._policies: list[Policy] = [build_policy(policy) for policy in ordered]
        self._is_drop = [policy.type == "drop" for policy in ordered]
        self._names = [f"{component_name}.{policy.name}" if component_name else policy.name for policy in ordered]
        self._features: dict[Feature, dict[str, str]] = {}  # the names of each feature's columns by suffix
        for policy in self._policies:
            for feature in policy.features():
                if feature not in self._features:
                    self._features[feature] = {suffix: f"{len(self._features)}:{suffix}" for suffix in feature.dtypes}
        self._trace_count = 0
        self._too_large = self._decided_on_arrival = _NO_IDS
        counter = telemetry.counter
        self._new = counter(_PREFIX + "new_trace_id_received", "Traces seen for the first time")
        self._global = counter(
            _PREFIX + "global_count_traces_sampled", "Sampling decisions, one per trace", _LABELS[1:]
        )
        self._traces = counter(_PREFIX + "count_traces_sampled", "Decisions of each policy on traces", _LABELS)
        self._spans = counter(_PREFIX + "count_spans_sampled", "Spans of the traces that each policy decided", _LABELS)
        self._bytes = counter(
            _PREFIX + "count_bytes_sampled",
            "Bytes of the traces that each policy decided, if sizes are tracked",
            _LABELS,
        )
        self._errors = counter(
            _PREFIX + "sampling_policy_evaluation_error", "Policies that could not be evaluated on a trace"
        )
        self._executions = counter(
            _PREFIX + "sampling_policy_execution_count", "Traces that a policy evaluated", _LABELS[:1]
        )
        self._time = counter(
            _PREFIX + "sampling_policy_execution_time_sum", "Time spent in a policy, in microseconds", _LABELS[:1]
        )
        self._timer = telemetry.histogram(
            _PREFIX + "sampling_decision_timer_latency",
            "Duration of each round of decisions, in milliseconds",
            _TIMER_BUCKETS_MS,
        )

    @property
    def columns(self) -> Mapping[str, Any]:
        """Columns of a trace: its place in the order of arrival, sizes, the answer on arrival, and features."""
        own = {"serial": np.int64, "resource_bytes": np.int64, "request_bytes": np.int64, "early_answer": np.uint8}
        return {**own, **self._feature_columns}

    @property
    def _feature_columns(self) -> dict[str, Any]:
        return {
            name: feature.dtypes[suffix] for feature, names in self._features.items() for suffix, name in names.items()
        }

    @property
    def acts_on_arrival(self) -> bool:
        """Whether ``take_too_large`` or ``take_decided`` can return traces; then spans must be read on arrival."""
        return self._on_ingest or self._size_limit > 0

    def observe(self, batch: Traces, grouped: ByTrace, column: ColumnLookup) -> None:
        """Fold the spans of a batch into the columns; with ``span-ingest`` also evaluate the policies on them."""
        slots = grouped.row_slots
        if len(slots) and slots.min() < 0:
            batch, slots = batch.select(slots >= 0), slots[slots >= 0]
            grouped = ByTrace(slots)
        if not len(slots):
            return
        new = column("serial")[grouped.slots] == 0
        in_order = grouped.slots[new][np.argsort(grouped.first_rows()[new])]
        column("serial")[in_order] = np.arange(self._trace_count + 1, self._trace_count + 1 + len(in_order))
        self._trace_count += len(in_order)
        if len(in_order):
            self._new.add(len(in_order))
        if self._on_ingest:
            self._decide_parts(batch, grouped, column)
        else:
            if self._needs_sizes:
                parts = parts_of(batch, slots, with_sizes=True)
                self._add_sizes(parts.slots, parts.size_bytes, column)
                self._note_too_large(batch, grouped, column)
            self._fold(batch, grouped, column)

    def take_too_large(self) -> U64:
        """The ids U64[k,2] of the traces that have become too large since the last call."""
        trace_ids, self._too_large = self._too_large, _NO_IDS
        return trace_ids

    def take_decided(self) -> U64:
        """The ids U64[k,2] of the traces that were decided on arrival since the last call."""
        trace_ids, self._decided_on_arrival = self._decided_on_arrival, _NO_IDS
        return trace_ids

    def decide(self, slots: I32, column: ColumnLookup, now_s: float) -> TraceDecisions:
        """Evaluate the policies on traces, in the order in which they arrived."""
        started_s = self._clock.monotonic_s()
        if self._on_ingest:
            # Decided on arrival, or not at all: NOT_SAMPLED is 0 as well.
            final = column("early_answer")[slots]
            if undecided_count := int(np.count_nonzero(final == NOT_SAMPLED)):
                self._global.add(undecided_count, sampled="false", decision="not_sampled")
            return self._decisions(final, np.full(len(slots), -1, np.int32))
        order = np.argsort(column("serial")[slots], kind="stable")
        ordered = slots[order]
        traces = TraceFacts(
            column("span_count")[ordered],
            column("request_bytes")[ordered],
            lambda feature, suffix: column(self._features[feature][suffix])[ordered],
            now_s,
            self._clock.time_unix_nano() // 1_000_000_000,
        )
        final, reasons = np.empty(len(slots), np.uint8), np.empty(len(slots), np.int32)
        final[order], reasons[order] = self._evaluate_all(traces)
        self._count_final(final)
        self._timer.observe((self._clock.monotonic_s() - started_s) * 1e3)
        return self._decisions(final, reasons)

    @staticmethod
    def _decisions(final: U8, reasons: I32) -> TraceDecisions:
        return TraceDecisions(final == SAMPLED, np.full(len(final), THRESHOLD_UNCHANGED, np.uint64), reasons)

    # Spans coming in.

    def _fold(self, batch: Traces, grouped: ByTrace, column: ColumnLookup) -> None:
        for feature, names in self._features.items():
            feature.fold(batch, grouped, {suffix: column(name) for suffix, name in names.items()})
            if isinstance(feature, Conditions) and feature.failures:
                self._report_failures(feature)

    @staticmethod
    def _add_sizes(slots: I32, size_bytes: I64, column: ColumnLookup) -> None:
        np.add.at(column("resource_bytes"), slots, size_bytes)
        np.add.at(column("request_bytes"), slots, framed_sizes(size_bytes))

    def _note_too_large(self, batch: Traces, grouped: ByTrace, column: ColumnLookup) -> None:
        if self._size_limit:
            is_large = column("resource_bytes")[grouped.slots] > self._size_limit
            if is_large.any():
                trace_ids = batch.field("trace_id")[grouped.first_rows()[is_large]]
                self._too_large = np.concatenate((self._too_large, trace_ids))

    def _decide_parts(self, batch: Traces, grouped: ByTrace, column: ColumnLookup) -> None:
        """Evaluate the policies on the part of each trace under each resource alone.

        Only counts of spans and bytes include the earlier parts of the trace.
        """
        parts = parts_of(batch, grouped.row_slots, with_sizes=self._needs_sizes)
        # The sampler has counted this batch's spans already.
        span_counts = (
            column("span_count")[parts.slots]
            - _totals(parts.slots, parts.span_counts)
            + _running_totals(parts.slots, parts.span_counts)
        )
        size_bytes = column("request_bytes")[parts.slots]
        size_bytes = size_bytes + _running_totals(parts.slots, framed_sizes(parts.size_bytes))
        if self._needs_sizes:
            self._add_sizes(parts.slots, parts.size_bytes, column)
            self._note_too_large(batch, grouped, column)
        part_columns = {name: np.zeros(len(parts.slots), dtype) for name, dtype in self._feature_columns.items()}
        self._fold(batch, ByTrace(parts.codes), part_columns.__getitem__)
        early_answer = column("early_answer")
        is_open = early_answer[parts.slots] == NOT_SAMPLED
        if self._size_limit:
            is_open &= column("resource_bytes")[parts.slots] <= self._size_limit
        rows = np.flatnonzero(is_open)
        if not len(rows):
            return
        started_s = self._clock.monotonic_s()
        facts = TraceFacts(
            span_counts[rows],
            size_bytes[rows],
            lambda feature, suffix: part_columns[self._features[feature][suffix]][rows],
            started_s,
            self._clock.time_unix_nano() // 1_000_000_000,
        )
        answers = self._evaluate_parts(facts, parts.slots[rows])
        self._timer.observe((self._clock.monotonic_s() - started_s) * 1e3)
        decided = parts.slots[rows][answers != _UNDECIDED]
        early_answer[decided] = answers[answers != _UNDECIDED]
        if len(decided):
            trace_ids = batch.field("trace_id")[grouped.first_rows()[np.isin(grouped.slots, decided)]]
            self._decided_on_arrival = np.concatenate((self._decided_on_arrival, trace_ids))

    # The policies.

    def _evaluate_all(self, traces: TraceFacts) -> tuple[U8, I32]:
        """(U8[k] SAMPLED, NOT_SAMPLED or DROPPED; I32[k] the number of the policy that decided, -1 = none)."""
        final = np.full(len(traces), NOT_SAMPLED, np.uint8)
        reasons = np.full(len(traces), -1, np.int32)
        is_open = np.ones(len(traces), np.bool_)
        for number, policy in enumerate(self._policies):
            rows = np.flatnonzero(is_open)
            if not len(rows):
                break
            answers = self._evaluate(number, policy, traces.select(is_open))
            self._count(number, traces, rows, answers)
            sampled, dropped = rows[answers == SAMPLED], rows[answers == DROPPED]
            reasons[sampled[final[sampled] == NOT_SAMPLED]] = number
            reasons[dropped] = number
            final[sampled], final[dropped] = SAMPLED, DROPPED
            is_open[dropped] = False
            if self._first_match:
                is_open[sampled] = False
        return final, reasons

    def _evaluate_parts(self, parts: TraceFacts, slots: I32) -> U8:
        """Evaluate parts of traces as they arrive: U8[k] SAMPLED, DROPPED or _UNDECIDED.

        A part does not count once an earlier one has decided its trace. ``slots`` I32[k]: the trace of each part; the
        parts are in order.
        """
        final = np.full(len(parts), _UNDECIDED, np.uint8)
        is_open = np.ones(len(parts), np.bool_)
        may_be_dropped = np.zeros(len(parts), np.bool_)
        evaluated: list[tuple[int, Indices, U8]] = []
        for number, policy in enumerate(self._policies):
            chosen = is_open if self._is_drop[number] else is_open & ~may_be_dropped
            rows = np.flatnonzero(chosen)
            if not len(rows):
                continue
            answers = self._evaluate(number, policy, parts.select(chosen))
            evaluated.append((number, rows, answers))
            if self._is_drop[number]:
                may_be_dropped[rows[answers == NOT_SAMPLED]] = True
            is_decisive = (answers == DROPPED) | (answers == SAMPLED)
            final[rows[is_decisive]] = answers[is_decisive]
            is_open[rows[is_decisive]] = False
        counts = self._is_up_to_first(final != _UNDECIDED, slots)
        for number, rows, answers in evaluated:
            self._count(number, parts, rows[counts[rows]], answers[counts[rows]])
        final[~counts] = _UNDECIDED
        self._count_final(final)
        return final

    @staticmethod
    def _is_up_to_first(decided: Mask, slots: I32) -> Mask:
        """bool[k]: whether no earlier part of the same trace is decided."""
        rows = np.flatnonzero(decided)
        if not len(rows):
            return np.ones(len(decided), np.bool_)
        unique, codes = np.unique(slots, return_inverse=True)
        first = np.full(len(unique), len(decided), np.intp)
        np.minimum.at(first, codes[rows], rows)
        result: Mask = np.arange(len(decided)) <= first[codes]
        return result

    def _report_failures(self, conditions: Conditions) -> None:
        """Log conditions that fail with ``ignore``, at most once per minute. Failures of ``propagate`` are counted."""
        now_s = self._clock.monotonic_s()
        if conditions.error_mode == "ignore" and now_s >= self._next_warning_s:
            self._next_warning_s = now_s + _WARNING_INTERVAL_S
            self._log.warning("ottl conditions could not be evaluated", **conditions.failures)
        conditions.failures.clear()

    def _evaluate(self, number: int, policy: Policy, traces: TraceFacts) -> U8:
        started_s = self._clock.monotonic_s()
        answers = policy.evaluate(traces)
        self._time.add(max(0.0, self._clock.monotonic_s() - started_s) * 1e6, policy=self._names[number])
        return answers

    def _count(self, number: int, traces: TraceFacts, rows: Indices, answers: U8) -> None:
        self._executions.add(len(rows), policy=self._names[number])
        if failure_count := int(np.count_nonzero(answers == ERROR)):
            self._errors.add(failure_count)
        for answer, (sampled, decision) in _METRIC_LABELS.items():
            chosen = rows[answers == answer]
            if len(chosen):
                labels = {"policy": self._names[number], "sampled": sampled, "decision": decision}
                self._traces.add(len(chosen), **labels)
                self._spans.add(int(traces.span_counts[chosen].sum()), **labels)
                if self._needs_sizes:
                    self._bytes.add(int(traces.size_bytes[chosen].sum()), **labels)

    def _count_final(self, final: U8) -> None:
        for answer, (sampled, decision) in _METRIC_LABELS.items():
            if count := int(np.count_nonzero(final == answer)):
                self._global.add(count, sampled=sampled, decision=decision)


_NO_IDS: Final[U64] = np.empty((0, 2), np.uint64)


def _types(written: Any) -> set[str]:
    """Every ``type`` in a written configuration, at any depth."""
    if isinstance(written, Mapping):
        own = {written["type"]} if isinstance(written.get("type"), str) else set()
        return own.union(*(_types(value) for value in written.values()))
    if isinstance(written, list | tuple):
        return set().union(*(_types(value) for value in written))
    return set()


def _totals(slots: I32, counts: I64) -> I64:
    """I64[k]: for each row the sum of ``counts`` over all rows of its slot."""
    _, codes = np.unique(slots, return_inverse=True)
    result: I64 = np.bincount(codes, counts).astype(np.int64)[codes]
    return result


def _running_totals(slots: I32, counts: I64) -> I64:
    """I64[k]: for each row the sum of ``counts`` over the rows of its slot up to and including this one."""
    order = np.argsort(slots, kind="stable")
    ordered = counts[order]
    sums = np.cumsum(ordered)
    starts = np.flatnonzero(np.diff(slots[order], prepend=-1))
    before = np.repeat(sums[starts] - ordered[starts], np.diff(np.append(starts, len(ordered))))
    result = np.empty(len(counts), np.int64)
    result[order] = sums - before
    return result
