"""The policies: each evaluates many traces at once, whose spans have been folded into columns.

A policy evaluates only the traces that the policies before it have not decided. The Collector does the same trace by
trace, and it matters for policies with a budget.

Source: opentelemetry-collector-contrib processor/tailsamplingprocessor 0.156, ``internal/sampling``.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, Final, cast

import numpy as np

from collector.model.arrays import I64, U8, Array, Indices, Mask
from collector.otlp.semantics import STATUS_CODES
from processors.tail_sampling.limits import SecondCounter, TokenBucket
from processors.tail_sampling.policy_config import (
    AndConfig,
    BytesLimitingConfig,
    CompositeConfig,
    DropConfig,
    LatencyConfig,
    NotConfig,
    NumericAttributeConfig,
    ProbabilisticConfig,
    RateLimitingConfig,
    SharedPolicyConfig,
    SpanCountConfig,
    StatusCodeConfig,
    StringAttributeConfig,
)
from processors.tail_sampling.span_features import (
    BOTH_ENDS,
    FAILED,
    MATCHED,
    BooleanMatch,
    Conditions,
    Feature,
    NumericRange,
    SampledFlag,
    StatusCodes,
    StringMatch,
    TraceHash,
    TraceStateMatch,
)

__all__ = ["DROPPED", "ERROR", "NOT_SAMPLED", "SAMPLED", "Policy", "TraceFacts", "build_policy", "hash_threshold"]

NOT_SAMPLED, SAMPLED, DROPPED, ERROR = range(4)
_DEFAULT_SALT: Final = "default-hash-seed"
_INT64: Final = np.iinfo(np.int64)
_NANOS_PER_MS: Final = 1_000_000
_MASK64: Final = 2**64 - 1


@dataclass(frozen=True)
class TraceFacts:
    """What policies can know about traces, which are in the order of their first spans."""

    span_counts: I64
    size_bytes: I64
    values: Callable[[Feature, str], Array]
    """Returns a feature's column (by suffix), with one value per trace."""
    now_s: float
    """Monotonic time, for rates."""
    unix_second: int
    rows: Indices | None = None
    """The rows of ``values`` that these traces are; None: all."""

    def __len__(self) -> int:
        return len(self.span_counts)

    def column(self, feature: Feature, suffix: str = "") -> Array:
        """The feature's values of these traces."""
        values = self.values(feature, suffix)
        return values if self.rows is None else values[self.rows]

    def select(self, mask: Mask) -> "TraceFacts":
        """The traces of a mask."""
        if mask.all():
            return self
        rows = np.flatnonzero(mask) if self.rows is None else self.rows[mask]
        return TraceFacts(
            self.span_counts[mask], self.size_bytes[mask], self.values, self.now_s, self.unix_second, rows
        )


class Policy(ABC):
    """Decides traces for itself; ``decider`` combines the answers of all policies."""

    def features(self) -> Iterable[Feature]:
        """The features of spans that the policy reads."""
        return ()

    @abstractmethod
    def evaluate(self, traces: TraceFacts) -> U8:
        """The answer for each trace: U8[k] NOT_SAMPLED, SAMPLED, DROPPED or ERROR."""


def build_policy(config: SharedPolicyConfig) -> Policy:
    """The policy of a configuration."""
    block: Any = getattr(config, {"and": "and_", "not": "not_"}.get(config.type, config.type), None)
    return _BUILDERS[config.type](block)


class _Always(Policy):
    def evaluate(self, traces: TraceFacts) -> U8:
        return np.full(len(traces), SAMPLED, np.uint8)


class _Latency(Policy):
    def __init__(self, config: LatencyConfig) -> None:
        self._above_ms, self._up_to_ms = config.threshold_ms, config.upper_threshold_ms

    def features(self) -> Iterable[Feature]:
        return (BOTH_ENDS,)

    def evaluate(self, traces: TraceFacts) -> U8:
        complement, end = traces.column(BOTH_ENDS, "start_complement"), traces.column(BOTH_ENDS, "end").view(np.int64)
        # A trace without any start time has no duration.
        durations_ms = _milliseconds(np.where(complement == 0, end, (~complement).view(np.int64)), end)
        if not self._up_to_ms:
            return (durations_ms >= self._above_ms).astype(np.uint8)
        return ((durations_ms > self._above_ms) & (durations_ms <= self._up_to_ms)).astype(np.uint8)


class _AnySpanMatches(Policy):
    """Samples traces of which any span has a feature; ``inverted``: of which no span has it."""

    def __init__(self, feature: Feature, *, inverted: bool = False) -> None:
        self._feature, self._inverted = feature, inverted

    def features(self) -> Iterable[Feature]:
        return (self._feature,)

    def evaluate(self, traces: TraceFacts) -> U8:
        answers: U8 = (traces.column(self._feature) != self._inverted).astype(np.uint8)
        return answers


class _OTTLCondition(Policy):
    def __init__(self, feature: Feature) -> None:
        self._feature = feature

    def features(self) -> Iterable[Feature]:
        return (self._feature,)

    def evaluate(self, traces: TraceFacts) -> U8:
        outcome = traces.column(self._feature)
        result = np.where(outcome == MATCHED, np.uint8(SAMPLED), np.uint8(NOT_SAMPLED))
        return np.where(outcome == FAILED, np.uint8(ERROR), result)


class _Probabilistic(Policy):
    def __init__(self, config: ProbabilisticConfig) -> None:
        self._hash = TraceHash((config.hash_salt or _DEFAULT_SALT).encode())
        self._threshold = np.uint64(hash_threshold(config.sampling_percentage / 100))

    def features(self) -> Iterable[Feature]:
        return (self._hash,)

    def evaluate(self, traces: TraceFacts) -> U8:
        return (traces.column(self._hash) <= self._threshold).astype(np.uint8)


class _SpanCount(Policy):
    def __init__(self, config: SpanCountConfig) -> None:
        self._min, self._max = config.min_spans, config.max_spans

    def evaluate(self, traces: TraceFacts) -> U8:
        counts = traces.span_counts
        return ((counts >= self._min) & ((counts <= self._max) | (self._max == 0))).astype(np.uint8)


class _RateLimiting(Policy):
    def __init__(self, config: RateLimitingConfig) -> None:
        self._bucket = TokenBucket(config.spans_per_second, config.burst_capacity or 2 * config.spans_per_second)

    def evaluate(self, traces: TraceFacts) -> U8:
        return self._bucket.allow(traces.span_counts, traces.now_s).astype(np.uint8)


class _BytesLimiting(Policy):
    def __init__(self, config: BytesLimitingConfig) -> None:
        self._bucket = TokenBucket(config.bytes_per_second, config.burst_capacity or 2 * config.bytes_per_second)

    def evaluate(self, traces: TraceFacts) -> U8:
        return self._bucket.allow(traces.size_bytes, traces.now_s).astype(np.uint8)


class _Group(Policy):
    """A policy that contains others."""

    def __init__(self, policies: Sequence[Policy]) -> None:
        self._policies = policies

    def features(self) -> Iterable[Feature]:
        return (feature for policy in self._policies for feature in policy.features())

    def _all_sample(self, traces: TraceFacts, answer: int) -> U8:
        """``answer`` if every policy samples the trace, else the answer of the first policy that does not."""
        answers = np.full(len(traces), answer, np.uint8)
        for policy in self._policies:
            is_open = answers == answer
            if not is_open.any():
                break
            given = policy.evaluate(traces.select(is_open))
            answers[is_open] = np.where(given == SAMPLED, np.uint8(answer), given)
        return answers


class _And(_Group):
    def evaluate(self, traces: TraceFacts) -> U8:
        return self._all_sample(traces, SAMPLED)


class _Drop(_Group):
    def evaluate(self, traces: TraceFacts) -> U8:
        return self._all_sample(traces, DROPPED)


class _Not(_Group):
    def evaluate(self, traces: TraceFacts) -> U8:
        answers = self._policies[0].evaluate(traces)
        return np.where(answers == ERROR, answers, answers == NOT_SAMPLED).astype(np.uint8)


class _Composite(_Group):
    """The first policy that samples a trace claims it, and samples it if its spans for this second suffice."""

    def __init__(self, policies: Sequence[Policy], limits: Sequence[int]) -> None:
        super().__init__(policies)
        self._counters = [SecondCounter(limit) for limit in limits]

    def evaluate(self, traces: TraceFacts) -> U8:
        answers = np.full(len(traces), NOT_SAMPLED, np.uint8)
        is_open = np.ones(len(traces), np.bool_)
        for policy, counter in zip(self._policies, self._counters, strict=True):
            rows = np.flatnonzero(is_open)
            if not len(rows):
                break
            given = policy.evaluate(traces.select(is_open))
            answers[rows[given == ERROR]] = ERROR
            claimed = rows[given == SAMPLED]
            answers[claimed[counter.allow(traces.span_counts[claimed], traces.unix_second)]] = SAMPLED
            is_open[rows[given != NOT_SAMPLED]] = False
        return answers


def _numeric(config: NumericAttributeConfig) -> Policy:
    feature = NumericRange(config.key, config.min_value or int(_INT64.min), config.max_value or int(_INT64.max))
    return _AnySpanMatches(feature, inverted=config.invert_match)


def _string(config: StringAttributeConfig) -> Policy:
    cached_count = config.cache_max_size if config.enabled_regex_matching else 0
    return _AnySpanMatches(
        StringMatch(config.key, config.values, config.enabled_regex_matching, cached_count),
        inverted=config.invert_match,
    )


def _status(config: StatusCodeConfig) -> Policy:
    return _AnySpanMatches(StatusCodes(tuple(sorted({STATUS_CODES.index(code) for code in config.status_codes}))))


def _build_all(configs: Iterable[SharedPolicyConfig]) -> list[Policy]:
    return [build_policy(config) for config in configs]


def _composite(config: CompositeConfig) -> Policy:
    total = config.max_total_spans_per_second
    return _Composite(_build_all(config.composite_sub_policy), [min(limit, total) for limit in config.allocations()])


_BUILDERS: Final[dict[str, Callable[[Any], Policy]]] = {
    "always_sample": lambda _: _Always(),
    "latency": _Latency,
    "numeric_attribute": _numeric,
    "probabilistic": _Probabilistic,
    "status_code": _status,
    "string_attribute": _string,
    "trace_state": lambda config: _AnySpanMatches(TraceStateMatch(config.key, config.values)),
    "trace_flags": lambda _: _AnySpanMatches(SampledFlag()),
    "rate_limiting": _RateLimiting,
    "bytes_limiting": _BytesLimiting,
    "span_count": _SpanCount,
    "boolean_attribute": lambda config: _AnySpanMatches(
        BooleanMatch(config.key, config.value), inverted=config.invert_match
    ),
    "ottl_condition": lambda config: _OTTLCondition(Conditions(config.span, config.spanevent, config.error_mode)),
    "and": lambda config: _And(_build_all(cast("AndConfig", config).and_sub_policy)),
    "not": lambda config: _Not([build_policy(cast("NotConfig", config).not_sub_policy)]),
    "drop": lambda config: _Drop(_build_all(cast("DropConfig", config).drop_sub_policy)),
    "composite": _composite,
}


def _milliseconds(start: I64, end: I64) -> I64:
    """Whole milliseconds from start to end, towards zero; as in Go, differences are cut to the limits of int64."""
    nanos = end - start
    has_overflowed = ((end ^ start) & (end ^ nanos)) < 0
    nanos = np.where(has_overflowed, np.where(end < 0, _INT64.min, _INT64.max), nanos)
    floor = nanos // _NANOS_PER_MS
    result: I64 = floor + ((nanos < 0) & (nanos % _NANOS_PER_MS != 0))
    return result


def hash_threshold(ratio: float) -> int:
    """The largest hash that is sampled: the share ``ratio`` of 2^64 - 1, rounded like Go's big.Float of 64 bits."""
    if ratio <= 0:
        return 0
    if ratio >= 1:
        return _MASK64
    product = Fraction(_MASK64) * Fraction(ratio)
    # Round to 64 significant bits, ties to even, then cut off the fraction: below 2^63 there is one.
    bits = (product.numerator // product.denominator).bit_length()
    scale = Fraction(2) ** (64 - bits)
    return min(int(round(product * scale) / scale), _MASK64)
