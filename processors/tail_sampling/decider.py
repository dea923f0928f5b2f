"""Policies together: which columns they need, what they decide, and what is counted of it.

Precedence: a ``drop`` policy, then any policy that samples; nothing else is sampled. Drop policies are asked first.
Source: opentelemetry-collector-contrib processor/tailsamplingprocessor 0.156, ``processor.go`` (makeDecision,
    makeDecisionOnSpanIngest).
"""

from collections.abc import Callable, Mapping
from typing import Any, Final

import numpy as np

from collector.api import Clock, Telemetry
from collector.model import Traces as Batch
from collector.model.arrays import I32, I64, U8, U64, Array, Indices, Mask
from collector.tail_sampling import LEAVE, Verdicts, by_trace
from processors.tail_sampling.config import TailSamplingConfig
from processors.tail_sampling.features import Conditions, Feature
from processors.tail_sampling.policies import DROPPED, ERROR, NOT_SAMPLED, SAMPLED, Policy, Traces, build
from processors.tail_sampling.sizes import framed, parts_of

__all__ = ["PolicyDecider"]

Column = Callable[[str], Array]

_UNDECIDED: Final = 255
_LABELS: Final = ("policy", "sampled", "decision")
_WORDS: Final = {SAMPLED: ("true", "sampled"), NOT_SAMPLED: ("false", "not_sampled"), DROPPED: ("false", "dropped")}
_REPORT_EVERY_S: Final = 60.0
_PREFIX: Final = "otelcol_processor_tail_sampling_"
_TIMER_BUCKETS_MS: Final = (
    1, 2, 5, 10, 25, 50, 75, 100, 150, 200, 300, 400, 500, 750, 1000, 2000, 3000, 4000, 5000, 10000, 20000, 30000, 50000,
)  # fmt: skip


class PolicyDecider:
    """The policies of one configuration; a ``Decider`` of ``collector.tail_sampling``."""

    def __init__(
        self, config: TailSamplingConfig, telemetry: Telemetry, clock: Clock, component_name: str = ""
    ) -> None:
        """``component_name``: stands before the policies' names in the metrics, as in the Collector."""
        self._clock, self._log = clock, telemetry.log
        self._report_after_s = 0.0
        self._first_match = config.sample_on_first_match
        self._on_ingest = config.sampling_strategy == "span-ingest"
        self._size_limit = config.maximum_trace_size_bytes
        self._needs_sizes = self._size_limit > 0 or "bytes_limiting" in _types(config.model_dump(by_alias=True))
        ordered = sorted(config.policies, key=lambda policy: policy.type != "drop")  # stable
        self._policies: list[Policy] = [build(policy) for policy in ordered]
        self._is_drop = [policy.type == "drop" for policy in ordered]
        self._names = [f"{component_name}.{policy.name}" if component_name else policy.name for policy in ordered]
        self._features: dict[Feature, dict[str, str]] = {}
        for policy in self._policies:
            for feature in policy.features():
                if feature not in self._features:
                    self._features[feature] = {suffix: f"{len(self._features)}:{suffix}" for suffix in feature.dtypes}
        self._serial = 0
        self._no_ids = np.empty((0, 2), np.uint64)
        self._too_large = self._decisive = self._no_ids
        counter = telemetry.counter
        self._new = counter(_PREFIX + "new_trace_id_received", "Traces seen for the first time")
        self._global = counter(_PREFIX + "global_count_traces_sampled", "Traces decided", _LABELS[1:])
        self._traces = counter(_PREFIX + "count_traces_sampled", "What each policy said of traces", _LABELS)
        self._spans = counter(_PREFIX + "count_spans_sampled", "Spans of the traces each policy spoke of", _LABELS)
        self._bytes = counter(
            _PREFIX + "count_bytes_sampled", "Bytes of the traces each policy spoke of, where sizes are kept", _LABELS
        )
        self._errors = counter(
            _PREFIX + "sampling_policy_evaluation_error", "Policies that could not be evaluated on a trace"
        )
        self._executions = counter(
            _PREFIX + "sampling_policy_execution_count", "Traces a policy was asked for", _LABELS[:1]
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
        """What it keeps of each trace: its place in the order of arrival, sizes, the verdict on arrival, the policies' columns."""
        own = {"serial": np.int64, "resource_bytes": np.int64, "request_bytes": np.int64, "judged": np.uint8}
        return {**own, **self._feature_columns}

    @property
    def _feature_columns(self) -> dict[str, Any]:
        return {
            name: feature.dtypes[suffix] for feature, names in self._features.items() for suffix, name in names.items()
        }

    @property
    def reasons(self) -> tuple[str, ...]:
        """The policies' names, in the order they are asked."""
        return tuple(self._names)

    @property
    def acts_on_arrival(self) -> bool:
        """Whether ``too_large`` or ``decisive`` may ever name a trace: then spans are to be read as they come."""
        return self._on_ingest or self._size_limit > 0

    def observe(self, batch: Batch, slots: I32, column: Column) -> None:
        """Fold the spans of a batch into the columns; with ``span-ingest`` judge them as well."""
        if len(slots) and slots.min() < 0:
            batch, slots = batch.select(slots >= 0), slots[slots >= 0]
        if not len(slots):
            return
        grouped = by_trace(slots)
        new = column("serial")[grouped.slots] == 0
        in_order = grouped.slots[new][np.argsort(grouped.first_rows()[new])]
        column("serial")[in_order] = np.arange(self._serial + 1, self._serial + 1 + len(in_order))
        self._serial += len(in_order)
        if len(in_order):
            self._new.add(len(in_order))
        if self._on_ingest:
            self._judge_parts(batch, slots, column)
        else:
            if self._needs_sizes:
                parts = parts_of(batch, slots, with_sizes=True)
                self._add_sizes(parts.slots, parts.size_bytes, column)
                self._note_too_large(batch, slots, column)
            self._fold(batch, slots, column)

    def too_large(self) -> U64:
        """U64[k,2]: traces found too large since it was last asked."""
        found, self._too_large = self._too_large, self._no_ids
        return found

    def decisive(self) -> U64:
        """U64[k,2]: traces decided on arrival since it was last asked."""
        found, self._decisive = self._decisive, self._no_ids
        return found

    def decide(self, slots: I32, column: Column, now_s: float) -> Verdicts:
        """What the policies say of traces, asked in the order of arrival."""
        started_s = self._clock.monotonic_s()
        if self._on_ingest:
            final = np.where(column("judged")[slots] == 0, NOT_SAMPLED, column("judged")[slots]).astype(np.uint8)
            if left := int(np.count_nonzero(column("judged")[slots] == 0)):
                self._global.add(left, sampled="false", decision="not_sampled")
            return self._verdicts(final, np.full(len(slots), -1, np.int32))
        order = np.argsort(column("serial")[slots], kind="stable")
        of = slots[order]
        traces = Traces(
            column("span_count")[of],
            column("request_bytes")[of],
            lambda feature, suffix: column(self._features[feature][suffix])[of],
            now_s,
            self._clock.time_unix_nano() // 1_000_000_000,
        )
        final, reasons = np.empty(len(slots), np.uint8), np.empty(len(slots), np.int32)
        final[order], reasons[order] = self._ask_all(traces)
        self._count_final(final)
        self._timer.observe((self._clock.monotonic_s() - started_s) * 1e3)
        return self._verdicts(final, reasons)

    @staticmethod
    def _verdicts(final: U8, reasons: I32) -> Verdicts:
        return Verdicts(final == SAMPLED, np.full(len(final), LEAVE, np.uint64), reasons)

    # What comes in.

    def _fold(self, batch: Batch, slots: I32, column: Column) -> None:
        for feature, names in self._features.items():
            feature.fold(batch, slots, {suffix: column(name) for suffix, name in names.items()})
            if isinstance(feature, Conditions) and feature.failures:
                self._report(feature)

    @staticmethod
    def _add_sizes(slots: I32, size_bytes: I64, column: Column) -> None:
        np.add.at(column("resource_bytes"), slots, size_bytes)
        np.add.at(column("request_bytes"), slots, framed(size_bytes))

    def _note_too_large(self, batch: Batch, slots: I32, column: Column) -> None:
        if self._size_limit:
            grouped = by_trace(slots)
            large = column("resource_bytes")[grouped.slots] > self._size_limit
            if large.any():
                ids = batch.field("trace_id")[grouped.first_rows()[large]]
                self._too_large = np.concatenate((self._too_large, ids))

    def _judge_parts(self, batch: Batch, slots: I32, column: Column) -> None:
        """Judge what came of each trace under each resource, for itself; of spans and bytes with what came before."""
        parts = parts_of(batch, slots, with_sizes=self._needs_sizes)
        # The engine has counted this batch's spans already.
        spans = (
            column("span_count")[parts.slots]
            - _totals(parts.slots, parts.span_counts)
            + _running(parts.slots, parts.span_counts)
        )
        size_bytes = column("request_bytes")[parts.slots] + _running(parts.slots, framed(parts.size_bytes))
        if self._needs_sizes:
            self._add_sizes(parts.slots, parts.size_bytes, column)
            self._note_too_large(batch, slots, column)
        own = {name: np.zeros(len(parts.slots), dtype) for name, dtype in self._feature_columns.items()}
        self._fold(batch, parts.codes, own.__getitem__)
        judged = column("judged")
        open_ = judged[parts.slots] == 0
        if self._size_limit:
            open_ &= column("resource_bytes")[parts.slots] <= self._size_limit
        rows = np.flatnonzero(open_)
        if not len(rows):
            return
        started_s = self._clock.monotonic_s()
        asked = Traces(
            spans[rows],
            size_bytes[rows],
            lambda feature, suffix: own[self._features[feature][suffix]][rows],
            started_s,
            self._clock.time_unix_nano() // 1_000_000_000,
        )
        verdict = self._judge(asked, parts.slots[rows])
        self._timer.observe((self._clock.monotonic_s() - started_s) * 1e3)
        decided = parts.slots[rows][verdict != _UNDECIDED]
        judged[decided] = verdict[verdict != _UNDECIDED]
        if len(decided):
            grouped = by_trace(slots)
            ids = batch.field("trace_id")[grouped.first_rows()[np.isin(grouped.slots, decided)]]
            self._decisive = np.concatenate((self._decisive, ids))

    # The policies.

    def _ask_all(self, traces: Traces) -> tuple[U8, I32]:
        """(uint8[k] SAMPLED, NOT_SAMPLED or DROPPED; int32[k] the policy it was, -1 = none)."""
        final = np.full(len(traces), NOT_SAMPLED, np.uint8)
        reasons = np.full(len(traces), -1, np.int32)
        open_ = np.ones(len(traces), np.bool_)
        for place, policy in enumerate(self._policies):
            asked = np.flatnonzero(open_)
            if not len(asked):
                break
            given = self._ask(place, policy, traces.only(open_))
            self._count(place, traces, asked, given)
            sampled, dropped = asked[given == SAMPLED], asked[given == DROPPED]
            reasons[sampled[final[sampled] == NOT_SAMPLED]] = place
            reasons[dropped] = place
            final[sampled], final[dropped] = SAMPLED, DROPPED
            open_[dropped] = False
            if self._first_match:
                open_[sampled] = False
        return final, reasons

    def _judge(self, parts: Traces, owners: Array) -> U8:
        """Judge parts of traces as they come in: uint8[k] SAMPLED, DROPPED or _UNDECIDED.

        A part is not asked about once an earlier one decided its trace. ``owners`` int[k]: the trace of each part,
        parts in order.
        """
        final = np.full(len(parts), _UNDECIDED, np.uint8)
        open_ = np.ones(len(parts), np.bool_)
        may_be_dropped = np.zeros(len(parts), np.bool_)
        said: list[tuple[int, Indices, U8]] = []
        for place, policy in enumerate(self._policies):
            may_ask = open_ if self._is_drop[place] else open_ & ~may_be_dropped
            asked = np.flatnonzero(may_ask)
            if not len(asked):
                continue
            given = self._ask(place, policy, parts.only(may_ask))
            said.append((place, asked, given))
            if self._is_drop[place]:
                may_be_dropped[asked[given == NOT_SAMPLED]] = True
            decisive = asked[(given == DROPPED) | (given == SAMPLED)]
            final[decisive] = given[(given == DROPPED) | (given == SAMPLED)]
            open_[decisive] = False
        in_time = self._up_to_first(final != _UNDECIDED, owners)
        for place, asked, given in said:
            self._count(place, parts, asked[in_time[asked]], given[in_time[asked]])
        final[~in_time] = _UNDECIDED
        self._count_final(final)
        return final

    @staticmethod
    def _up_to_first(decided: Mask, owners: Array) -> Mask:
        """bool[k]: no earlier part of the same owner is decided."""
        rows = np.flatnonzero(decided)
        if not len(rows):
            return np.ones(len(decided), np.bool_)
        unique, codes = np.unique(owners, return_inverse=True)
        first = np.full(len(unique), len(decided), np.intp)
        np.minimum.at(first, codes[rows], rows)
        in_time: Mask = np.arange(len(decided)) <= first[codes]
        return in_time

    def _report(self, conditions: Conditions) -> None:
        """Say, now and then, that conditions cannot be evaluated; ``silent`` does not, ``propagate`` is counted."""
        now_s = self._clock.monotonic_s()
        if conditions.error_mode == "ignore" and now_s >= self._report_after_s:
            self._report_after_s = now_s + _REPORT_EVERY_S
            self._log.warning("ottl conditions could not be evaluated", **conditions.failures)
        conditions.failures.clear()

    def _ask(self, place: int, policy: Policy, traces: Traces) -> U8:
        started_s = self._clock.monotonic_s()
        given = policy.evaluate(traces)
        self._time.add(max(0.0, self._clock.monotonic_s() - started_s) * 1e6, policy=self._names[place])
        return given

    def _count(self, place: int, traces: Traces, asked: Indices, given: U8) -> None:
        self._executions.add(len(asked), policy=self._names[place])
        if failed := int(np.count_nonzero(given == ERROR)):
            self._errors.add(failed)
        for verdict, (sampled, word) in _WORDS.items():
            chosen = asked[given == verdict]
            if len(chosen):
                labels = {"policy": self._names[place], "sampled": sampled, "decision": word}
                self._traces.add(len(chosen), **labels)
                self._spans.add(int(traces.span_counts[chosen].sum()), **labels)
                if self._needs_sizes:
                    self._bytes.add(int(traces.size_bytes[chosen].sum()), **labels)

    def _count_final(self, final: U8) -> None:
        for verdict, (sampled, word) in _WORDS.items():
            if count := int(np.count_nonzero(final == verdict)):
                self._global.add(count, sampled=sampled, decision=word)


def _types(written: Any) -> set[str]:
    """Every ``type`` in a written configuration."""
    if isinstance(written, Mapping):
        own = {written["type"]} if isinstance(written.get("type"), str) else set()
        return own.union(*(_types(value) for value in written.values()))
    if isinstance(written, list | tuple):
        return set().union(*(_types(value) for value in written))
    return set()


def _totals(owners: I32, counts: I64) -> I64:
    """int64[k]: of each row, the sum over all rows of its owner."""
    _, codes = np.unique(owners, return_inverse=True)
    result: I64 = np.bincount(codes, counts).astype(np.int64)[codes]
    return result


def _running(owners: I32, counts: I64) -> I64:
    """int64[k]: of each row, the sum over its owner's rows up to and including it."""
    order = np.argsort(owners, kind="stable")
    ordered = counts[order]
    sums = np.cumsum(ordered)
    starts = np.flatnonzero(np.diff(owners[order], prepend=-1))
    before = np.repeat(sums[starts] - ordered[starts], np.diff(np.append(starts, len(ordered))))
    result = np.empty(len(counts), np.int64)
    result[order] = sums - before
    return result
