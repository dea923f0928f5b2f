"""The rules: what spans say about their traces, and which traces are kept.

All state of a trace is in columns of the sampler's table. Rules: docs/reference/sampling.md, rules 4 to 13.
"""

from collections.abc import Callable, Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Any, Final

import numpy as np

from collector.model import KeyTable, StringColumn, Traces, combine_keys, hash_text
from collector.model.arrays import F64, I32, U8, U64, Indices, Mask
from collector.otlp.consistent_sampling import RANDOMNESS_BITS, read_trace_state, threshold_of
from collector.otlp.semantics import STATUS_CODE_ERROR
from collector.otlp.span_durations import span_durations
from collector.tail_sampling import THRESHOLD_ERASED, THRESHOLD_UNCHANGED, ByTrace, ColumnLookup, TraceDecisions
from collector.text.cache import cached_by_text
from processors.sampling.config import RuleConfig, SamplingConfig

__all__ = ["NO_RULE", "Rules", "any_glob"]

NO_RULE: Final = -1
_WHOLE: Final = np.uint64(1 << RANDOMNESS_BITS)
_RANDOMNESS_MAX: Final = np.uint64((1 << RANDOMNESS_BITS) - 1)
_CACHE_BYTES: Final = 1024 * 1024  # of results by text
_KEY_OF_SPAN, _KEY_OF_ROOT = 1, 2  # where the key of a trace is from; 0: it has none yet


def any_glob(globs: Sequence[str]) -> Callable[[str], bool]:
    """A function that returns whether a text matches one of ``globs``; its latest results are cached."""

    def matches(text: str) -> bool:
        return any(fnmatchcase(text, glob) for glob in globs)

    return cached_by_text(matches, max_bytes=_CACHE_BYTES)


class Rules:
    """A ``Decider``: the first rule that matches decides, by the randomness of the trace."""

    def __init__(self, config: SamplingConfig, on_refused_keys: Callable[[str, int], None]) -> None:
        """``on_refused_keys(rule, count)`` is called with traces whose key is beyond the rule's ``max_keys``."""
        self._rules = config.rules
        self._thresholds = np.array(
            [threshold_of(1.0 if rule.ratio is None else rule.ratio) for rule in config.rules], np.uint64
        )
        self._default_bits = np.uint64(sum(1 << i for i, rule in enumerate(config.rules) if rule.matches_all))
        self._quotas = {i: _Quota(rule) for i, rule in enumerate(config.rules) if rule.is_coverage}
        self._upstream = config.upstream_ratio
        self._upstream_threshold = cached_by_text(self._find_upstream_threshold, max_bytes=_CACHE_BYTES)
        self._on_refused_keys = on_refused_keys

    @property
    def columns(self) -> Mapping[str, Any]:
        """The columns it keeps for each trace."""
        columns: dict[str, Any] = {"bits": np.uint64, "root_ns": np.uint64, "reason": np.int32}
        for i in self._quotas:
            columns[f"key{i}"] = (np.uint64, 2)
            columns[f"key_origin{i}"] = np.uint8
        if self._upstream:
            columns["upstream_threshold"] = np.uint64
        return columns

    # What spans say about their traces.

    def observe(self, batch: Traces, grouped: ByTrace, column: ColumnLookup) -> None:
        """Fold spans into the columns: a bit for each rule whose condition one meets, and the duration of the root."""
        slots = grouped.row_slots
        bits = np.zeros(batch.item_count, np.uint64)
        is_root = batch.field("parent_span_id") == 0
        durations_ns, _ = span_durations(batch.field("start_time_unix_nano"), batch.field("end_time_unix_nano"))
        root_ns = np.where(is_root, durations_ns, np.uint64(0))
        for i, rule in enumerate(self._rules):
            if not rule.matches_all and not rule.is_coverage:
                bits |= self._matches(rule, batch, is_root, root_ns).astype(np.uint64) << np.uint64(i)
        if bits.any():
            grouped.fold(np.bitwise_or, column("bits"), bits)
        if root_ns.any():
            grouped.fold(np.maximum, column("root_ns"), root_ns)
        for i, quota in self._quotas.items():
            quota.observe(batch, slots, is_root, column(f"key{i}"), column(f"key_origin{i}"))
        if self._upstream:
            self._observe_upstream(batch, slots, column)

    @staticmethod
    def _matches(rule: RuleConfig, batch: Traces, is_root: Mask, root_ns: U64) -> Mask:
        matches = np.zeros(batch.item_count, bool)
        if rule.any is not None and rule.any.status:
            matches |= batch.field("status_code") == STATUS_CODE_ERROR
        if rule.any is not None and (codes := rule.any.http_range):
            for key in ("http.response.status_code", "http.status_code"):
                if batch.attributes().code_of(key) < 0:
                    continue
                status = batch.attribute(key).int  # 0, which is not a status code, if the span has none
                matches |= (status >= codes[0]) & (status <= codes[1])
        if rule.root_duration is not None:
            matches |= is_root & (root_ns >= np.uint64(rule.root_duration * 1e9))
        return matches

    def _observe_upstream(self, batch: Traces, slots: I32, column: ColumnLookup) -> None:
        """Give traces that an SDK sampled without saying so the SDK's threshold, and randomness that fits it.

        The SDKs' ratio sampler keeps low values of the last 8 bytes of the trace id, while consistent sampling keeps
        high values of the last 7. The complement of the upper 56 of those 64 bits is high where the SDK kept the trace.
        Where it is not, another sampler was at work, and the randomness of the trace id is spread over the values above
        the threshold. It is uniform there in both cases.
        """
        services = batch.attribute("service.name", "resources").text
        by_resource = np.array([*map(self._upstream_threshold, services.distinct), 0], np.uint64)[services.codes]
        if not by_resource.any():
            return
        states = batch.field("trace_state")
        has_no_sampling = np.array([*map(_has_no_sampling, states.distinct), True], np.bool_)[states.codes]
        thresholds = by_resource[batch.ancestor("resources")]
        is_new = (slots >= 0) & (column("upstream_threshold")[slots] < thresholds)
        rows = np.flatnonzero(has_no_sampling & (thresholds > 0) & is_new)[::-1]
        if not len(rows):
            return
        threshold, low_bytes = thresholds[rows], batch.field("trace_id")[rows, 1]
        mirrored = _RANDOMNESS_MAX - (low_bytes >> np.uint64(64 - RANDOMNESS_BITS))
        share = (_WHOLE - threshold).astype(np.float64) / float(_WHOLE)
        spread = threshold + ((low_bytes & _RANDOMNESS_MAX).astype(np.float64) * share).astype(np.uint64)
        randomness = np.where(mirrored >= threshold, mirrored, np.minimum(spread, _RANDOMNESS_MAX))
        column("upstream_threshold")[slots[rows]] = threshold
        column("randomness")[slots[rows]] = randomness
        column("randomness_to_write")[slots[rows]] = randomness + np.uint64(1)

    def _find_upstream_threshold(self, service: str) -> int:
        for glob, ratio in self._upstream.items():
            if fnmatchcase(service, glob):
                return threshold_of(ratio)
        return 0

    # Decisions.

    def decide(self, slots: I32, column: ColumnLookup, now_s: float) -> TraceDecisions:
        """Decide by the first rule that matches; coverage rules add traces where those after them keep too few."""
        bits = column("bits")[slots] | self._default_bits
        reasons = np.full(len(slots), NO_RULE, np.int32)
        for i in range(len(self._rules)):
            reasons[(reasons == NO_RULE) & (bits >> np.uint64(i) & np.uint64(1) != 0)] = i
        thresholds = np.where(reasons >= 0, self._thresholds[reasons], _WHOLE)
        kept = column("randomness")[slots] >= thresholds
        if self._upstream:
            thresholds = np.maximum(thresholds, column("upstream_threshold")[slots])
        for i, quota in self._quotas.items():
            rows = np.flatnonzero((reasons > i) | (reasons == NO_RULE))
            if len(rows):
                first_s = column("first_s")[slots[rows]]
                keys, has_key = column(f"key{i}")[slots[rows]], column(f"key_origin{i}")[slots[rows]] > 0
                extra, refused_count = quota.fill(keys, has_key, kept[rows], first_s, now_s)
                if refused_count:
                    self._on_refused_keys(self._rules[i].name, refused_count)
                added = rows[extra]
                kept[added], reasons[added], thresholds[added] = True, i, THRESHOLD_ERASED
        return TraceDecisions(kept, np.where(kept, thresholds, THRESHOLD_UNCHANGED), reasons)


class _Quota:
    """Keeps at least ``at_least`` traces of each key per window.

    Traces that are kept anyway count towards the quota; the oldest of the others fill it up.
    """

    def __init__(self, rule: RuleConfig) -> None:
        self._per = rule.per
        self._at_least, self._window_s = rule.quota
        self._max_keys = rule.max_keys
        self._keys = KeyTable({"kept_count": np.int64})
        self._window = -1

    def observe(self, batch: Traces, slots: I32, is_root: Mask, key: U64, key_origin: U8) -> None:
        """Note the key of each trace: that of its root, or of its first span while the root has not arrived."""
        origin = np.where(is_root, _KEY_OF_ROOT, _KEY_OF_SPAN)
        # In reverse, so that the first span of a trace is written last.
        rows = np.flatnonzero((slots >= 0) & (key_origin[slots] < origin))[::-1]
        if not len(rows):
            return
        keys = combine_keys(*(hash_text(_key_part(batch, name, rows)) for name in self._per))
        origin = origin[rows].astype(np.uint8)
        order = np.argsort(origin, kind="stable")
        ordered_slots = slots[rows][order]
        key[ordered_slots] = keys[order]
        key_origin[ordered_slots] = origin[order]

    def fill(self, keys: U64, has_key: Mask, kept: Mask, first_s: F64, now_s: float) -> tuple[Indices, int]:
        """The rows of traces to keep in addition, and how many traces have a key beyond ``max_keys``."""
        window = int(now_s // self._window_s)
        if window != self._window:
            self._window = window
            self._keys.remove(self._keys.live())
        key_slots, _ = self._keys.insert(np.ascontiguousarray(keys), self._max_keys)
        refused_count = int(np.count_nonzero(key_slots < 0))
        is_known = (key_slots >= 0) & has_key
        kept_count = self._keys.column("kept_count")
        kept_by_key = ByTrace(np.where(is_known & kept, key_slots, np.int32(-1)))
        kept_count[kept_by_key.slots] += kept_by_key.counts
        candidates = np.flatnonzero(is_known & ~kept)
        candidates = candidates[kept_count[key_slots[candidates]] < self._at_least]
        if not len(candidates):
            return candidates, refused_count
        order = candidates[np.lexsort((first_s[candidates], key_slots[candidates]))]
        ordered = key_slots[order]
        starts = np.flatnonzero(np.r_[True, ordered[1:] != ordered[:-1]])
        counts = np.diff(np.append(starts, len(ordered)))
        rank = np.arange(len(ordered)) - np.repeat(starts, counts)
        extra = order[rank < self._at_least - kept_count[ordered]]
        extra_by_key = ByTrace(key_slots[extra])
        kept_count[extra_by_key.slots] += extra_by_key.counts
        return extra, refused_count


def _key_part(batch: Traces, name: str, rows: Indices) -> StringColumn:
    """The text of one part of the key, for these spans."""
    if name == "span.name":
        spans = batch.table().rows
        return StringColumn.from_slices(batch.wire, spans["name"][rows], spans["name_len"][rows]).fill("")
    if all(batch.attributes(table).code_of(name) < 0 for table in ("spans", "scopes")):
        # Only resources have the attribute: convert it to text once per resource, not once per span.
        return batch.attribute(name, "resources").as_text().fill("").take(batch.ancestor("resources")[rows])
    return batch.attribute(name, inherit=True).take(rows).as_text().fill("")


@cached_by_text
def _has_no_sampling(trace_state: str) -> bool:
    """Whether the trace state has neither a threshold nor randomness."""
    return "ot=" not in trace_state or read_trace_state(trace_state)[:2] == (None, None)
