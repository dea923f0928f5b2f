"""The policies: what each says of traces whose spans have been folded into columns.

Asked for many traces at once. A policy is asked only for the traces the ones before it left open, as the Collector does
trace by trace: that decides what policies that count have counted. Source of the decisions:
opentelemetry-collector-contrib processor/tailsamplingprocessor 0.156, ``internal/sampling``.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, Final, cast

import numpy as np

from collector.model.arrays import I64, U8, Array, Indices, Mask
from collector.otlp.semantics import STATUS_CODES
from processors.tail_sampling.features import (
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

__all__ = ["DROPPED", "ERROR", "NOT_SAMPLED", "SAMPLED", "Policy", "Traces", "build", "threshold"]


NOT_SAMPLED, SAMPLED, DROPPED, ERROR = range(4)
_DEFAULT_SALT: Final = "default-hash-seed"
_INT64: Final = np.iinfo(np.int64)
_NANOS_A_MS: Final = 1_000_000
_MASK64: Final = 2**64 - 1


@dataclass(frozen=True)
class Traces:
    """The traces asked for, in the order of their first span."""

    span_counts: I64
    size_bytes: I64
    values: Callable[[Feature, str], Array]
    """A feature's column (by suffix), one value a trace."""
    now_s: float
    """For rates: seconds that never go back."""
    unix_second: int
    rows: Indices | None = None
    """Which of ``values``; None: all."""

    def __len__(self) -> int:
        return len(self.span_counts)

    def column(self, feature: Feature, suffix: str = "") -> Array:
        """The feature's values of these traces."""
        whole = self.values(feature, suffix)
        return whole if self.rows is None else whole[self.rows]

    def only(self, mask: Mask) -> "Traces":
        """Those of a mask."""
        if mask.all():
            return self
        rows = np.flatnonzero(mask) if self.rows is None else self.rows[mask]
        return Traces(self.span_counts[mask], self.size_bytes[mask], self.values, self.now_s, self.unix_second, rows)


class Policy(ABC):
    """One policy's opinion."""

    def features(self) -> Iterable[Feature]:
        """What it needs to know of the spans."""
        return ()

    @abstractmethod
    def evaluate(self, traces: Traces) -> U8:
        """uint8[k]: NOT_SAMPLED, SAMPLED, DROPPED or ERROR."""


def build(config: SharedPolicyConfig) -> Policy:
    """The policy of a configuration."""
    block: Any = getattr(config, {"and": "and_", "not": "not_"}.get(config.type, config.type), None)
    return _BUILDERS[config.type](block)


class _Always(Policy):
    def evaluate(self, traces: Traces) -> U8:
        return np.full(len(traces), SAMPLED, np.uint8)


class _Latency(Policy):
    def __init__(self, config: LatencyConfig) -> None:
        self._above_ms, self._upto_ms = config.threshold_ms, config.upper_threshold_ms

    def features(self) -> Iterable[Feature]:
        return (BOTH_ENDS,)

    def evaluate(self, traces: Traces) -> U8:
        start = (~traces.column(BOTH_ENDS, "start_complement")).view(np.int64)
        lasted_ms = _milliseconds(start, traces.column(BOTH_ENDS, "end").view(np.int64))
        if not self._upto_ms:
            return (lasted_ms >= self._above_ms).astype(np.uint8)
        return ((lasted_ms > self._above_ms) & (lasted_ms <= self._upto_ms)).astype(np.uint8)


class _Bit(Policy):
    """Any span matched; or none did."""

    def __init__(self, feature: Feature, *, inverted: bool = False) -> None:
        self._feature, self._inverted = feature, inverted

    def features(self) -> Iterable[Feature]:
        return (self._feature,)

    def evaluate(self, traces: Traces) -> U8:
        verdict: U8 = (traces.column(self._feature) != self._inverted).astype(np.uint8)
        return verdict


class _OTTLCondition(Policy):
    def __init__(self, feature: Feature) -> None:
        self._feature = feature

    def features(self) -> Iterable[Feature]:
        return (self._feature,)

    def evaluate(self, traces: Traces) -> U8:
        outcome = traces.column(self._feature)
        result = np.where(outcome == MATCHED, np.uint8(SAMPLED), np.uint8(NOT_SAMPLED))
        return np.where(outcome == FAILED, np.uint8(ERROR), result)


class _Probabilistic(Policy):
    def __init__(self, config: ProbabilisticConfig) -> None:
        self._hash = TraceHash((config.hash_salt or _DEFAULT_SALT).encode())
        self._threshold = np.uint64(threshold(config.sampling_percentage / 100))

    def features(self) -> Iterable[Feature]:
        return (self._hash,)

    def evaluate(self, traces: Traces) -> U8:
        return (traces.column(self._hash) <= self._threshold).astype(np.uint8)


class _SpanCount(Policy):
    def __init__(self, config: SpanCountConfig) -> None:
        self._min, self._max = config.min_spans, config.max_spans

    def evaluate(self, traces: Traces) -> U8:
        counts = traces.span_counts
        return ((counts >= self._min) & ((counts <= self._max) | (self._max == 0))).astype(np.uint8)


class _RateLimiting(Policy):
    def __init__(self, config: RateLimitingConfig) -> None:
        self._bucket = TokenBucket(config.spans_per_second, config.burst_capacity or 2 * config.spans_per_second)

    def evaluate(self, traces: Traces) -> U8:
        return self._bucket.allow(traces.span_counts, traces.now_s).astype(np.uint8)


class _BytesLimiting(Policy):
    def __init__(self, config: BytesLimitingConfig) -> None:
        self._bucket = TokenBucket(config.bytes_per_second, config.burst_capacity or 2 * config.bytes_per_second)

    def evaluate(self, traces: Traces) -> U8:
        return self._bucket.allow(traces.size_bytes, traces.now_s).astype(np.uint8)


class _Group(Policy):
    """Policies inside another."""

    def __init__(self, policies: Sequence[Policy]) -> None:
        self._policies = policies

    def features(self) -> Iterable[Feature]:
        return (feature for policy in self._policies for feature in policy.features())

    def _all_sample(self, traces: Traces, verdict: int) -> U8:
        """``verdict`` where every policy samples; the first that does not, or that fails, ends it."""
        result = np.full(len(traces), verdict, np.uint8)
        for policy in self._policies:
            left = result == verdict
            if not left.any():
                break
            given = policy.evaluate(traces.only(left))
            result[left] = np.where(given == SAMPLED, np.uint8(verdict), given)
        return result


class _And(_Group):
    def evaluate(self, traces: Traces) -> U8:
        return self._all_sample(traces, SAMPLED)


class _Drop(_Group):
    def evaluate(self, traces: Traces) -> U8:
        return self._all_sample(traces, DROPPED)


class _Not(_Group):
    def evaluate(self, traces: Traces) -> U8:
        given = self._policies[0].evaluate(traces)
        return np.where(given == ERROR, given, given == NOT_SAMPLED).astype(np.uint8)


class _Composite(_Group):
    """The first policy that samples a trace claims it, and lets it through while its spans of this second last."""

    def __init__(self, policies: Sequence[Policy], limits: Sequence[int]) -> None:
        super().__init__(policies)
        self._counters = [SecondCounter(limit) for limit in limits]

    def evaluate(self, traces: Traces) -> U8:
        result = np.full(len(traces), NOT_SAMPLED, np.uint8)
        open_ = np.ones(len(traces), np.bool_)
        for policy, counter in zip(self._policies, self._counters, strict=True):
            asked = np.flatnonzero(open_)
            if not len(asked):
                break
            given = policy.evaluate(traces.only(open_))
            result[asked[given == ERROR]] = ERROR
            claimed = asked[given == SAMPLED]
            result[claimed[counter.allow(traces.span_counts[claimed], traces.unix_second)]] = SAMPLED
            open_[asked[given != NOT_SAMPLED]] = False
        return result


def _numeric(config: NumericAttributeConfig) -> Policy:
    feature = NumericRange(config.key, config.min_value or int(_INT64.min), config.max_value or int(_INT64.max))
    return _Bit(feature, inverted=config.invert_match)


def _string(config: StringAttributeConfig) -> Policy:
    remembered = config.cache_max_size if config.enabled_regex_matching else 0
    return _Bit(
        StringMatch(config.key, config.values, config.enabled_regex_matching, remembered), inverted=config.invert_match
    )


def _status(config: StatusCodeConfig) -> Policy:
    return _Bit(StatusCodes(tuple(sorted({STATUS_CODES.index(code) for code in config.status_codes}))))


def _each(policies: Iterable[SharedPolicyConfig]) -> list[Policy]:
    return [build(policy) for policy in policies]


def _composite(config: CompositeConfig) -> Policy:
    total = config.max_total_spans_per_second
    return _Composite(_each(config.composite_sub_policy), [min(limit, total) for limit in config.allocations()])


_BUILDERS: Final[dict[str, Callable[[Any], Policy]]] = {
    "always_sample": lambda _: _Always(),
    "latency": _Latency,
    "numeric_attribute": _numeric,
    "probabilistic": _Probabilistic,
    "status_code": _status,
    "string_attribute": _string,
    "trace_state": lambda config: _Bit(TraceStateMatch(config.key, config.values)),
    "trace_flags": lambda _: _Bit(SampledFlag()),
    "rate_limiting": _RateLimiting,
    "bytes_limiting": _BytesLimiting,
    "span_count": _SpanCount,
    "boolean_attribute": lambda config: _Bit(BooleanMatch(config.key, config.value), inverted=config.invert_match),
    "ottl_condition": lambda config: _OTTLCondition(Conditions(config.span, config.spanevent, config.error_mode)),
    "and": lambda config: _And(_each(cast("AndConfig", config).and_sub_policy)),
    "not": lambda config: _Not([build(cast("NotConfig", config).not_sub_policy)]),
    "drop": lambda config: _Drop(_each(cast("DropConfig", config).drop_sub_policy)),
    "composite": _composite,
}


def _milliseconds(start: I64, end: I64) -> I64:
    """Whole milliseconds from start to end, towards zero; differences that do not fit stay at the limits of int64, as in Go."""
    lasted = end - start
    overflown = ((end ^ start) & (end ^ lasted)) < 0
    lasted = np.where(overflown, np.where(end < 0, _INT64.min, _INT64.max), lasted)
    floor = lasted // _NANOS_A_MS
    result: I64 = floor + ((lasted < 0) & (lasted % _NANOS_A_MS != 0))
    return result


def threshold(ratio: float) -> int:
    """The largest hash that is sampled: ``ratio`` of 2^64 - 1, as Go's big.Float of 64 bits rounds it."""
    if ratio <= 0:
        return 0
    if ratio >= 1:
        return _MASK64
    product = Fraction(_MASK64) * Fraction(ratio)
    # 64 significant bits, ties to even, then cut off: below 2^63 the rounding is finer than one.
    bits = (product.numerator // product.denominator).bit_length()
    scale = Fraction(2) ** (64 - bits)
    return min(int(round(product * scale) / scale), _MASK64)
