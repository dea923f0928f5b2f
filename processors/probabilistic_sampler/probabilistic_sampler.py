"""The processor ``probabilistic_sampler``: keeps the items whose randomness is at least the threshold.

``_SamplingInput`` has the randomness of the items and earlier thresholds, as far as they are usable. The mode derives
the new threshold from it. The higher one of the two is written into the items that are kept, so that adjusted counts
stay right.

Source: opentelemetry-collector-contrib probabilisticsamplerprocessor (sampler_mode.go, tracesprocessor.go,
logsprocessor.go); OpenTelemetry specification, trace/tracestate-probability-sampling.md.
"""

from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from collector.api import Settings, Transform
from collector.model import KIND_DOUBLE, KIND_INT, Batch, Signal, StringColumn, groups
from collector.model.arrays import I8, I64, U8, Mask
from collector.otlp.consistent_sampling import (
    RANDOMNESS_BITS,
    is_well_formed,
    parse_randomness,
    parse_threshold,
    read_trace_state,
    threshold_digits,
    threshold_with_precision,
    with_values,
)
from processors.probabilistic_sampler.config import ProbabilisticSamplerConfig
from processors.probabilistic_sampler.fnv import BUCKET_BITS, hash_attribute, hash_ids, randomness_of

__all__ = ["ProbabilisticSampler"]


_NEVER: Final = 1 << RANDOMNESS_BITS
_NONE: Final = -1
_SMALLEST_PERCENT: Final = 100.0 / _NEVER
_LOW_BITS: Final = np.uint64(_NEVER - 1)
_THRESHOLD: Final = "sampling.threshold"
_RANDOMNESS: Final = "sampling.randomness"
_POLICIES: Final = ("missing_randomness", "trace_id_hash", "trace_id_w3c", "sampling_randomness", "sampling_priority")
_MISSING, _HASH, _W3C, _EXPLICIT, _PRIORITY, _ATTRIBUTE = range(6)


@dataclass(slots=True)
class _SamplingInput:
    """The sampling information of the items, one row per item. Randomness and thresholds are below 2^56 or _NONE."""

    randomness: I64
    threshold: I64
    policy: I8
    usable: Mask
    """Whether randomness and threshold may decide. Else ``fail_closed`` decides."""
    malformed: Mask
    """The sampling information cannot be parsed; it is left as it is."""
    erase: Mask
    """The threshold contradicts the randomness, so the probability is unknown."""
    new_randomness: Mask
    """The randomness has to be written, because it cannot be derived from the trace id downstream."""


class ProbabilisticSampler(Transform):
    """The processor of one pipeline."""

    drop_reason = "sampled"

    def __init__(self, settings: Settings, config: ProbabilisticSamplerConfig) -> None:
        (self._signal,) = settings.signals
        self._config = config
        self._random = np.random.default_rng()
        self._is_hashing = config.mode == "hash_seed"
        self._threshold = _threshold(config)
        telemetry = settings.telemetry
        if 0 < config.sampling_percentage < 1:
            telemetry.log.warning(
                "sampling_percentage is below 1; note that it is in percent: 0.1 keeps one item in a thousand",
                sampling_percentage=config.sampling_percentage,
            )
        if config.ratio and self._threshold == _NEVER:
            telemetry.log.warning(
                "sampling_percentage is too small for mode hash_seed; nothing is kept",
                sampling_percentage=config.sampling_percentage,
            )
        self._policies = (*_POLICIES, config.from_attribute)
        self._sampled = telemetry.counter(
            f"otelcol_processor_probabilistic_sampler_count_{self._signal}_sampled",
            "Sampling decisions, one per item",
            ("policy", "sampled"),
        )

    def transform(self, batch: Batch) -> Batch | None:
        """The items that are kept, with their thresholds written."""
        if not batch.item_count:
            return batch
        items = self._read_spans(batch) if self._signal is Signal.TRACES else self._read_records(batch)
        _check(items)
        threshold = np.where(items.usable, self._decide(items), _NEVER if self._config.fail_closed else 0)
        threshold = self._apply_priorities(batch, items, threshold)
        random = np.where(items.randomness == _NONE, _NEVER - 1, items.randomness)
        kept = random >= threshold
        self._count(items.policy, kept)
        if not kept.any():
            return None
        rows = np.flatnonzero(kept)
        result = batch.select(kept)
        return self._written(result, items, rows, threshold[rows])

    # The sampling information of the items.

    def _read_spans(self, batch: Batch) -> _SamplingInput:
        ids = batch.field("trace_id")
        states = batch.field("trace_state")
        read = [read_trace_state(text) for text in states.distinct]
        earlier = _spread([state.threshold for state in read], states)
        explicit = _spread([state.randomness for state in read], states)
        are_valid = [state.is_valid and is_well_formed(text) for state, text in zip(read, states.distinct, strict=True)]
        malformed = np.array([*(not is_valid for is_valid in are_valid), False], np.bool_)[states.codes]
        return self._sampling_input(ids, earlier, explicit, malformed)

    def _read_records(self, batch: Batch) -> _SamplingInput:
        config = self._config
        thresholds, random = batch.attribute(_THRESHOLD).text, batch.attribute(_RANDOMNESS).text
        earlier = _spread([parse_threshold(text) for text in thresholds.distinct], thresholds)
        explicit = _spread([parse_randomness(text) for text in random.distinct], random)
        malformed = (thresholds.where(bool) & (earlier == _NONE)) | (random.where(bool) & (explicit == _NONE))
        ids = batch.field("trace_id")
        if self._is_hashing and config.attribute_source == "record":
            ids = np.zeros_like(ids)
        items = self._sampling_input(ids, earlier, explicit, malformed)
        missing = items.policy == _MISSING
        if config.from_attribute and missing.any():
            column = batch.attribute(config.from_attribute)
            found = missing & column.present
            hashed = randomness_of(hash_attribute(column, config.hash_seed)).astype(np.int64)
            items.randomness = np.where(found, hashed, items.randomness)
            items.policy[found] = _ATTRIBUTE
            items.new_randomness |= found & ~items.malformed
        return items

    def _sampling_input(self, ids: Any, earlier: I64, explicit: I64, malformed: Mask) -> _SamplingInput:
        """Combine trace ids with what was read. With ``hash_seed``, a threshold or randomness is an error."""
        has_id = ids.any(axis=1)
        if self._is_hashing:
            random = np.where(has_id, randomness_of(hash_ids(ids, self._config.hash_seed)).astype(np.int64), _NONE)
            policy = np.where(has_id, _HASH, _MISSING).astype(np.int8)
            usable = ~malformed & (earlier == _NONE) & (explicit == _NONE)
            return _SamplingInput(random, earlier, policy, usable, malformed, np.zeros_like(malformed), has_id & usable)
        own = np.where(has_id, (ids[:, 1] & _LOW_BITS).astype(np.int64), _NONE)
        random = np.where(explicit == _NONE, own, explicit)
        policy = np.where(explicit != _NONE, _EXPLICIT, np.where(has_id, _W3C, _MISSING)).astype(np.int8)
        return _SamplingInput(
            random, earlier, policy, ~malformed, malformed, np.zeros_like(malformed), np.zeros_like(malformed)
        )

    # The decision.

    def _decide(self, items: _SamplingInput) -> Any:
        """The threshold by the mode: one number, or one per item."""
        if self._config.mode != "proportional":
            return self._threshold
        distinct, inverse = np.unique(items.threshold, return_inverse=True)
        ratio, digits = self._config.ratio, self._config.sampling_precision
        whole = [1.0 if earlier == _NONE else (_NEVER - earlier) / _NEVER for earlier in distinct.tolist()]
        return np.array([threshold_with_precision(ratio * share, digits) for share in whole], np.int64)[inverse]

    def _apply_priorities(self, batch: Batch, items: _SamplingInput, threshold: I64) -> I64:
        """Apply priorities: ``sampling.priority`` alone decides a span; a record may replace the share by its own.

        A record without randomness draws some for its own share, so that its adjusted count is right.
        """
        if self._signal is Signal.TRACES:
            column = batch.attribute("sampling.priority")
            if not column.present.any():
                return threshold
            numbers = np.array([*map(_number, column.text.distinct), np.nan])[column.text.codes]
            value = np.where(column.text.present, numbers, column.numeric())
            has_priority = (value == 0) | (value > 0)
            items.policy[has_priority] = _PRIORITY
            return np.where(value == 0, _NEVER, np.where(value > 0, 0, threshold))
        if not self._config.sampling_priority:
            return threshold
        column = batch.attribute(self._config.sampling_priority)
        percent = np.where((column.kind == KIND_INT) | (column.kind == KIND_DOUBLE), column.numeric(), 0.0)
        has_share = (percent >= _SMALLEST_PERCENT) & (percent <= 100.0)
        if not has_share.any():
            return threshold
        distinct, inverse = np.unique(percent[has_share], return_inverse=True)
        digits = self._config.sampling_precision
        replaced = np.array([threshold_with_precision(value / 100.0, digits) for value in distinct.tolist()], np.int64)
        threshold = np.broadcast_to(threshold, has_share.shape).copy()
        threshold[has_share] = replaced[inverse]
        draws = np.flatnonzero(has_share & (items.randomness == _NONE) & (threshold > 0))
        if len(draws):
            items.randomness[draws] = self._random.integers(0, _NEVER, len(draws))
            items.new_randomness[draws] = ~items.malformed[draws]
        return threshold

    def _count(self, policy: I8, kept: Mask) -> None:
        counts = np.bincount(policy.astype(np.int64) * 2 + kept, minlength=2 * len(self._policies))
        for code in np.flatnonzero(counts).tolist():
            self._sampled.add(
                int(counts[code]), policy=self._policies[code // 2], sampled="true" if code % 2 else "false"
            )

    # Writing.

    def _written(self, batch: Batch, items: _SamplingInput, rows: Any, threshold: I64) -> Batch:
        """The kept items with threshold and randomness written. A threshold is never lowered, but may be removed."""
        earlier = items.threshold[rows]
        erase = items.erase[rows]
        final = np.where(erase, _NONE, np.maximum(threshold, earlier))
        random = np.where(items.new_randomness[rows], items.randomness[rows], _NONE)
        changed = ~items.malformed[rows] & ((final != earlier) | (random != _NONE))
        if not changed.any():
            return batch
        edit: Any = batch.edit()
        if self._signal is Signal.LOGS:
            edit.set(_THRESHOLD, _digits(final), changed & (final != _NONE))
            edit.delete(_THRESHOLD, changed & (final == _NONE))
            edit.set(_RANDOMNESS, _hexadecimal(random), changed & (random != _NONE))
        else:
            states = batch.field("trace_state")
            plain = changed & ~states.where(bool) & (random != _NONE) & (final != _NONE)
            if plain.any():  # with hash_seed every trace has another text; it is made without an object per trace
                edit.set_field("trace_state", _fresh_states(final, random, plain), plain)
            other = changed & ~plain
            if other.any():
                edit.set_field("trace_state", _states(states, final, random, other), other)
        result: Batch = edit.apply()
        return result


def _check(items: _SamplingInput) -> None:
    """Mark items as unusable that have no randomness, or a threshold above it, which contradicts it."""
    items.usable &= items.policy != _MISSING
    items.erase = items.usable & (items.threshold != _NONE) & (items.threshold > items.randomness)
    items.usable &= ~items.erase


def _threshold(config: ProbabilisticSamplerConfig) -> int:
    """The threshold of the configuration; ``proportional`` derives one from the threshold of each item."""
    if not config.ratio:
        return _NEVER
    if config.mode != "hash_seed":
        return threshold_with_precision(config.ratio, config.sampling_precision)
    buckets = 1 << BUCKET_BITS
    accepted = int(np.float32(min(config.sampling_percentage, 100.0)) * np.float32(buckets / 100.0))
    return (buckets - accepted) << (RANDOMNESS_BITS - BUCKET_BITS)


def _spread(values: list[int | None], column: StringColumn) -> I64:
    """I64[n]: the rows' values, given one per distinct text; _NONE where there is none."""
    return np.array([*(_NONE if value is None else value for value in values), _NONE], np.int64)[column.codes]


def _number(text: str) -> float:
    """The number that a text represents, NaN for any other text."""
    try:
        return float(text) if "_" not in text and text == text.strip() else np.nan
    except ValueError:
        return np.nan


def _digits(thresholds: I64) -> StringColumn:
    """Thresholds as text; absent for _NONE."""
    distinct, inverse = np.unique(thresholds, return_inverse=True)
    texts = ["" if value == _NONE else threshold_digits(value) for value in distinct.tolist()]
    return StringColumn.from_codes(np.where(thresholds == _NONE, -1, inverse), texts)


def _digit_table(values: I64) -> U8:
    """U8[n, 14]: the values, of 56 bits, in hexadecimal digits."""
    places = np.arange(RANDOMNESS_BITS - 4, -1, -4, dtype=np.int64)
    table: U8 = np.frombuffer(b"0123456789abcdef", np.uint8)[(values[:, None] >> places) & 15]
    return table


def _hexadecimal(values: I64) -> StringColumn:
    """Randomness as text; absent for _NONE."""
    table = _digit_table(values)
    starts = np.where(values == _NONE, -1, np.arange(len(values)) * table.shape[1])
    return StringColumn.from_slices(table.tobytes(), starts, np.full(len(values), table.shape[1]))


def _fresh_states(thresholds: I64, random: I64, where: Mask) -> StringColumn:
    """New trace states ``ot=rv:…;th:…`` for the rows of a mask; absent elsewhere."""
    head, middle = b"ot=rv:", b";th:"
    digits = _digit_table(thresholds)
    parts = (
        np.broadcast_to(np.frombuffer(head, np.uint8), (len(random), len(head))),
        _digit_table(random),
        np.broadcast_to(np.frombuffer(middle, np.uint8), (len(random), len(middle))),
        digits,
    )
    table = np.concatenate(parts, axis=1)
    zeros = np.argmax(digits[:, ::-1] != ord("0"), axis=1)  # trailing zeros, which are not written
    zeros = np.where(thresholds == 0, digits.shape[1] - 1, zeros)
    starts = np.where(where, np.arange(len(random)) * table.shape[1], -1)
    return StringColumn.from_slices(table.tobytes(), starts, table.shape[1] - zeros)


def _states(states: StringColumn, thresholds: I64, random: I64, where: Mask) -> StringColumn:
    """The trace states with the values written, for the rows of a mask; one text per distinct combination."""
    rows = np.flatnonzero(where)
    found = groups(states.codes[rows], thresholds[rows], random[rows])
    texts = []
    for row in rows[found.first].tolist():
        text = states.distinct[states.codes[row]] if states.codes[row] >= 0 else ""
        threshold, value = int(thresholds[row]), int(random[row])
        texts.append(with_values(text, None if threshold == _NONE else threshold, None if value == _NONE else value))
    codes = np.full(len(where), -1, np.int32)
    codes[rows] = found.codes
    return StringColumn.from_codes(codes, texts)
