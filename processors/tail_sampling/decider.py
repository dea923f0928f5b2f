"""Policies together: which columns they need, what they decide, and what is counted of it.

Precedence: a ``drop`` policy, then any policy that samples; nothing else is sampled. Drop policies are asked first.
Source: opentelemetry-collector-contrib processor/tailsamplingprocessor 0.156, ``processor.go`` (makeDecision, makeDecisionOnSpanIngest).
"""

from collections.abc import Callable, Mapping
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from collector.api import Clock, Telemetry
from collector.model import Traces as Batch
from processors.tail_sampling.config import TailSamplingConfig
from processors.tail_sampling.features import Conditions, Feature
from processors.tail_sampling.policies import DROPPED, ERROR, NOT_SAMPLED, SAMPLED, Policy, Traces, build

__all__ = ["UNDECIDED", "Decider"]

I32 = NDArray[np.int32]
I64 = NDArray[np.int64]
U8 = NDArray[np.uint8]
Mask = NDArray[np.bool_]

UNDECIDED: Final = 255
_LABELS: Final = ("policy", "sampled", "decision")
_WORDS: Final = {SAMPLED: ("true", "sampled"), NOT_SAMPLED: ("false", "not_sampled"), DROPPED: ("false", "dropped")}
_REPORT_EVERY_S: Final = 60.0
_PREFIX: Final = "otelcol_processor_tail_sampling_"


class Decider:
    """The policies of one configuration."""

    def __init__(self, config: TailSamplingConfig, telemetry: Telemetry, clock: Clock, component_name: str = "") -> None:
        """``component_name``: stands before the policies' names in the metrics, as in the Collector."""
        self._clock, self._log = clock, telemetry.log
        self._report_after_s = 0.0
        self._first_match = config.sample_on_first_match
        ordered = sorted(config.policies, key=lambda policy: policy.type != "drop")  # stable
        self._policies: list[Policy] = [build(policy) for policy in ordered]
        self._is_drop = [policy.type == "drop" for policy in ordered]
        self._names = [f"{component_name}.{policy.name}" if component_name else policy.name for policy in ordered]
        self._features: dict[Feature, dict[str, str]] = {}
        for policy in self._policies:
            for feature in policy.features():
                if feature not in self._features:
                    self._features[feature] = {suffix: f"{len(self._features)}:{suffix}" for suffix in feature.dtypes}
        self.needs_sizes = config.maximum_trace_size_bytes > 0 or "bytes_limiting" in _types(config.model_dump(by_alias=True))
        """Whether the bytes of each trace have to be known."""
        counter = telemetry.counter
        self._global = counter(_PREFIX + "global_count_traces_sampled", "Traces decided", _LABELS[1:])
        self._traces = counter(_PREFIX + "count_traces_sampled", "What each policy said of traces", _LABELS)
        self._spans = counter(_PREFIX + "count_spans_sampled", "Spans of the traces each policy spoke of", _LABELS)
        self._bytes = counter(_PREFIX + "count_bytes_sampled", "Bytes of the traces each policy spoke of, where sizes are kept", _LABELS)
        self._errors = counter(_PREFIX + "sampling_policy_evaluation_error", "Policies that could not be evaluated on a trace")
        self._executions = counter(_PREFIX + "sampling_policy_execution_count", "Traces a policy was asked for", _LABELS[:1])
        self._time = counter(_PREFIX + "sampling_policy_execution_time_sum", "Time spent in a policy, in microseconds", _LABELS[:1])

    @property
    def columns(self) -> dict[str, Any]:
        """Name to dtype of the columns it keeps of each trace; a new trace's are zero."""
        return {name: feature.dtypes[suffix] for feature, names in self._features.items() for suffix, name in names.items()}

    def observe(self, batch: Batch, slots: I32, column: Callable[[str], NDArray[Any]]) -> None:
        """Fold the spans of a batch into the columns. ``slots`` int32[n]: the row of each span's trace."""
        for feature, names in self._features.items():
            feature.fold(batch, slots, {suffix: column(name) for suffix, name in names.items()})
            if isinstance(feature, Conditions) and feature.failures:
                self._report(feature)

    def values(self, slots: NDArray[Any], column: Callable[[str], NDArray[Any]]) -> Callable[[Feature, str], NDArray[Any]]:
        """How ``policies.Traces`` gets at the columns of ``slots``."""
        return lambda feature, suffix: column(self._features[feature][suffix])[slots]

    def decide(self, traces: Traces) -> U8:
        """uint8[k]: SAMPLED, NOT_SAMPLED or DROPPED."""
        final = np.full(len(traces), NOT_SAMPLED, np.uint8)
        open_ = np.ones(len(traces), np.bool_)
        for place, policy in enumerate(self._policies):
            asked = np.flatnonzero(open_)
            if not len(asked):
                break
            given = self._ask(place, policy, traces.only(open_))
            self._count(place, traces, asked, given)
            final[asked[given == SAMPLED]] = SAMPLED
            final[asked[given == DROPPED]] = DROPPED
            open_[asked[given == DROPPED]] = False
            if self._first_match:
                open_[asked[given == SAMPLED]] = False
        self._count_final(final)
        return final

    def judge(self, parts: Traces, owners: NDArray[Any]) -> U8:
        """Judge parts of traces as they come in: uint8[k] SAMPLED, DROPPED or UNDECIDED.

        A part is not asked about once an earlier one decided its trace. ``owners`` int[k]: the trace of each part, parts in order.
        """
        final = np.full(len(parts), UNDECIDED, np.uint8)
        open_ = np.ones(len(parts), np.bool_)
        may_be_dropped = np.zeros(len(parts), np.bool_)
        said: list[tuple[int, NDArray[np.intp], U8]] = []
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
        in_time = self._up_to_first(final != UNDECIDED, owners)
        for place, asked, given in said:
            self._count(place, parts, asked[in_time[asked]], given[in_time[asked]])
        final[~in_time] = UNDECIDED
        self._count_final(final)
        return final

    @staticmethod
    def _up_to_first(decided: Mask, owners: NDArray[Any]) -> Mask:
        """bool[k]: no earlier part of the same owner is decided."""
        rows = np.flatnonzero(decided)
        if not len(rows):
            return np.ones(len(decided), np.bool_)
        unique, codes = np.unique(owners, return_inverse=True)
        first = np.full(len(unique), len(decided), np.intp)
        np.minimum.at(first, codes[rows], rows)
        in_time: Mask = np.arange(len(decided)) <= first[codes]
        return in_time

    def count_cleanup(self, count: int) -> None:
        """Count traces that ended undecided: not sampled, by no policy."""
        if count:
            self._global.add(count, sampled="false", decision="not_sampled")

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

    def _count(self, place: int, traces: Traces, asked: NDArray[np.intp], given: U8) -> None:
        self._executions.add(len(asked), policy=self._names[place])
        if failed := int(np.count_nonzero(given == ERROR)):
            self._errors.add(failed)
        for verdict, (sampled, word) in _WORDS.items():
            chosen = asked[given == verdict]
            if len(chosen):
                labels = {"policy": self._names[place], "sampled": sampled, "decision": word}
                self._traces.add(len(chosen), **labels)
                self._spans.add(int(traces.span_counts[chosen].sum()), **labels)
                if self.needs_sizes:
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
