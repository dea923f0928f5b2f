"""The rules: what spans say of their traces, and who is kept. All over columns of the engine's table."""

from collections.abc import Callable, Mapping, Sequence
from fnmatch import fnmatchcase
from functools import lru_cache
from typing import Any, Final

import numpy as np

from collector.model import KeyTable, StringColumn, Traces, combine_keys, hash_text
from collector.model.arrays import F64, I32, U8, U64, Array, Indices, Mask
from collector.otlp.consistent_sampling import RANDOMNESS_BITS, read_trace_state, threshold_of
from collector.otlp.semantics import STATUS_CODE_ERROR
from collector.tail_sampling import ERASE, LEAVE, Verdicts, by_trace
from processors.sampling.config import RuleConfig, SamplingConfig

__all__ = ["NO_RULE", "Rules", "any_glob"]

Column = Callable[[str], Array]

NO_RULE: Final = -1
_WHOLE: Final = np.uint64(1 << RANDOMNESS_BITS)
_LAST: Final = np.uint64((1 << RANDOMNESS_BITS) - 1)
_REMEMBERED: Final = 4096  # distinct texts a glob's answer is remembered for


def any_glob(globs: Sequence[str]) -> Callable[[str], bool]:
    """Whether a text matches one of ``globs``; answers are remembered, so many."""
    return lru_cache(_REMEMBERED)(lambda text: any(fnmatchcase(text, glob) for glob in globs))


class Rules:
    """A ``Decider``: the first rule that matches, by the trace's randomness."""

    def __init__(self, config: SamplingConfig, refused_key: Callable[[str, int], None]) -> None:
        """``refused_key(rule, count)`` is called for traces whose key was one too many."""
        self._rules = config.rules
        self._thresholds = np.array(
            [threshold_of(1.0 if rule.ratio is None else rule.ratio) for rule in config.rules], np.uint64
        )
        self._default_bits = np.uint64(sum(1 << i for i, rule in enumerate(config.rules) if rule.matches_all))
        self._quotas = {i: _Quota(rule) for i, rule in enumerate(config.rules) if rule.is_coverage}
        self._upstream = config.upstream_ratio
        self._upstream_of = lru_cache(_REMEMBERED)(self._head_threshold)
        self._refused_key = refused_key

    @property
    def columns(self) -> Mapping[str, Any]:
        """What is noted of a trace."""
        columns: dict[str, Any] = {"bits": np.uint64, "root_ns": np.uint64, "reason": np.int32}
        for i in self._quotas:
            columns[f"key{i}"] = (np.uint64, 2)
            columns[f"keyed{i}"] = np.uint8
        if self._upstream:
            columns["head"] = np.uint64
        return columns

    @property
    def reasons(self) -> Sequence[str]:
        """The rules' names."""
        return [rule.name for rule in self._rules]

    # What a span says of its trace.

    def observe(self, batch: Traces, slots: I32, column: Column) -> None:
        """Note it."""
        grouped = by_trace(slots)
        bits = np.zeros(batch.item_count, np.uint64)
        root = batch.field("parent_span_id") == 0
        start, end = batch.field("start_time_unix_nano"), batch.field("end_time_unix_nano")
        root_ns = np.where(root & (end > start), end - start, np.uint64(0))
        for i, rule in enumerate(self._rules):
            if not rule.matches_all and not rule.is_coverage:
                bits |= self._matches(rule, batch, root, root_ns).astype(np.uint64) << np.uint64(i)
        if bits.any():
            grouped.fold(np.bitwise_or, column("bits"), bits)
        if root_ns.any():
            grouped.fold(np.maximum, column("root_ns"), root_ns)
        for i, quota in self._quotas.items():
            quota.note(batch, slots, root, column(f"key{i}"), column(f"keyed{i}"))
        if self._upstream:
            self._note_head(batch, slots, column)

    @staticmethod
    def _matches(rule: RuleConfig, batch: Traces, root: Mask, root_ns: U64) -> Mask:
        matches = np.zeros(batch.item_count, bool)
        if rule.any is not None and rule.any.status:
            matches |= batch.field("status_code") == STATUS_CODE_ERROR
        if rule.any is not None and (codes := rule.any.http_range):
            for key in ("http.response.status_code", "http.status_code"):
                if batch.attributes().code_of(key) < 0:
                    continue
                status = batch.attribute(key).int  # 0, which is no code, where there is none
                matches |= (status >= codes[0]) & (status <= codes[1])
        if rule.root_duration is not None:
            matches |= root & (root_ns >= np.uint64(rule.root_duration * 1e9))
        return matches

    def _note_head(self, batch: Traces, slots: I32, column: Column) -> None:
        """Traces of a service whose SDK samples and does not say so: its threshold, and randomness that agrees with it.

        The SDKs' ratio sampler keeps low values of the trace id's last 8 bytes, consistent sampling keeps high values
        of its last 7. The complement of the upper 56 of those 64 bits is high where the SDK kept the trace. Where it is
        not (another sampler was at work) the trace id's own randomness is spread over what is above the threshold:
        uniform there in both cases.
        """
        services = batch.attribute("service.name", "resources").text
        heads = np.array([*map(self._upstream_of, services.distinct), 0], np.uint64)[services.codes]
        if not heads.any():
            return
        states = batch.field("trace_state")
        silent = np.array([*map(_is_silent, states.distinct), True], np.bool_)[states.codes]
        of = heads[batch.ancestor("resources")]
        rows = np.flatnonzero(silent & (of > 0) & (slots >= 0) & (column("head")[slots] < of))[::-1]
        if not len(rows):
            return
        at, threshold, low = slots[rows], of[rows], batch.field("trace_id")[rows, 1]
        mirrored = _LAST - (low >> np.uint64(64 - RANDOMNESS_BITS))
        share = (_WHOLE - threshold).astype(np.float64) / float(_WHOLE)
        spread = threshold + ((low & _LAST).astype(np.float64) * share).astype(np.uint64)
        randomness = np.where(mirrored >= threshold, mirrored, np.minimum(spread, _LAST))
        column("head")[at] = threshold
        column("randomness")[at] = randomness
        column("rv")[at] = randomness + np.uint64(1)

    def _head_threshold(self, service: str) -> int:
        for glob, ratio in self._upstream.items():
            if fnmatchcase(service, glob):
                return threshold_of(ratio)
        return 0

    # Decisions.

    def decide(self, slots: I32, column: Column, now_s: float) -> Verdicts:
        """The first rule that matches; a coverage rule only where what follows it keeps too few of a key."""
        bits = column("bits")[slots] | self._default_bits
        reasons = np.full(len(slots), NO_RULE, np.int32)
        for i in range(len(self._rules)):
            reasons[(reasons == NO_RULE) & (bits >> np.uint64(i) & np.uint64(1) != 0)] = i
        thresholds = np.where(reasons >= 0, self._thresholds[reasons], _WHOLE)
        kept = column("randomness")[slots] >= thresholds
        if self._upstream:
            thresholds = np.maximum(thresholds, column("head")[slots])
        for i, quota in self._quotas.items():
            asked = np.flatnonzero((reasons > i) | (reasons == NO_RULE))
            if len(asked):
                first_s = column("first_s")[slots[asked]]
                keys, keyed = column(f"key{i}")[slots[asked]], column(f"keyed{i}")[slots[asked]] > 0
                extra, refused = quota.fill(keys, keyed, kept[asked], first_s, now_s)
                if refused:
                    self._refused_key(self._rules[i].name, refused)
                chosen = asked[extra]
                kept[chosen], reasons[chosen], thresholds[chosen] = True, i, ERASE
        return Verdicts(kept, np.where(kept, thresholds, LEAVE), reasons)


class _Quota:
    """So many traces of each key in a window: those that are kept anyhow count, the oldest of the others fill up."""

    def __init__(self, rule: RuleConfig) -> None:
        self._per = rule.per
        self._count, self._window_s = rule.quota
        self._max_keys = rule.max_keys
        self._keys = KeyTable({"kept": np.int64})
        self._window = -1

    def note(self, batch: Traces, slots: I32, root: Mask, key: U64, keyed: U8) -> None:
        """The key of each trace: its root's, until that comes its first span's. 1 = of some span, 2 = of the root."""
        # the first one is written last and stays
        wanted = np.flatnonzero((slots >= 0) & (keyed[slots] < np.where(root, 2, 1)))[::-1]
        if not len(wanted):
            return
        at = slots[wanted]
        keys = combine_keys(*(hash_text(_text(batch, name, wanted)) for name in self._per))
        rank = np.where(root[wanted], 2, 1).astype(np.uint8)
        order = np.argsort(rank, kind="stable")
        key[at[order]] = keys[order]
        keyed[at[order]] = rank[order]

    def fill(self, keys: U64, keyed: Mask, kept: Mask, first_s: F64, now_s: float) -> tuple[Indices, int]:
        """Which traces are kept to fill up the quotas, and how many have a key too many."""
        window = int(now_s // self._window_s)
        if window != self._window:
            self._window = window
            self._keys.remove(self._keys.live())
        places, _ = self._keys.insert(np.ascontiguousarray(keys), self._max_keys)
        known = (places >= 0) & keyed
        count = self._keys.column("kept")
        for_kept = by_trace(np.where(known & kept, places, np.int32(-1)))
        count[for_kept.slots] += for_kept.counts
        open_ = np.flatnonzero(known & ~kept)
        open_ = open_[count[places[open_]] < self._count]
        if not len(open_):
            return open_, int(np.count_nonzero(places < 0))
        order = open_[np.lexsort((first_s[open_], places[open_]))]
        ordered = places[order]
        starts = np.flatnonzero(np.r_[True, ordered[1:] != ordered[:-1]])
        counts = np.diff(np.append(starts, len(ordered)))
        rank = np.arange(len(ordered)) - np.repeat(starts, counts)
        extra = order[rank < self._count - count[ordered]]
        filled = by_trace(places[extra])
        count[filled.slots] += filled.counts
        return extra, int(np.count_nonzero(places < 0))


def _text(batch: Traces, name: str, rows: Indices) -> StringColumn:
    """The text of a key's part, of these spans."""
    if name == "span.name":
        spans = batch.table().rows
        return StringColumn.from_slices(batch.wire, spans["name"][rows], spans["name_len"][rows]).fill("")
    if all(batch.attributes(table).code_of(name) < 0 for table in ("spans", "scopes")):  # once a resource, not a span
        return batch.attribute(name, "resources").as_text().fill("").take(batch.ancestor("resources")[rows])
    return batch.attribute(name, inherit=True).take(rows).as_text().fill("")


@lru_cache(_REMEMBERED)
def _is_silent(trace_state: str) -> bool:
    """Whether it says nothing of sampling."""
    return "ot=" not in trace_state or read_trace_state(trace_state)[:2] == (None, None)
