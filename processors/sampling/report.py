"""The document of ``GET /sampling``: counts by rule, and the slowest traces kept in the last ten minutes.

Its size is bounded. A slow trace is stored as a few batches of spans and is converted to JSON on request.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from collector.api import Clock, Settings
from collector.model import KIND_BOOL, KIND_DOUBLE, KIND_INT, Traces
from collector.model.arrays import I32, I64, U64, Mask
from collector.otlp.semantics import SPAN_KINDS, STATUS_CODES
from collector.otlp.span_durations import span_durations

__all__ = ["Report", "keyed"]


_SLOWEST_COUNT: Final = 5
_WINDOW_S: Final = 600.0
_BUCKET_S: Final = 60.0  # the slowest of each minute are kept, so that there are others when the slowest of all expires
_SPANS_MAX: Final = 200
_TRACE_BYTES_MAX: Final = 256 * 1024
_JSON_CHARS_MAX: Final = 256 * 1024  # of one trace
_TEXT_CHARS_MAX: Final = 256
_ATTRIBUTES_MAX: Final = 32
_KINDS: Final = [name.lower() for name in SPAN_KINDS]
_STATUS: Final = [name.lower() for name in STATUS_CODES]


@dataclass(slots=True)
class _SlowTrace:
    trace_id: tuple[int, int]
    root_ns: int
    rule: str
    batches: list[Traces]
    span_count: int
    size_bytes: int


class Report:
    """The report of one pipeline."""

    def __init__(self, rule_names: Sequence[str], clock: Clock) -> None:
        self._names = ["none", *rule_names]
        self._clock = clock
        self._counts = np.zeros((len(self._names), 2), np.int64)
        self._minutes: dict[int, dict[tuple[int, int], _SlowTrace]] = {}
        self.late_spans = 0
        self.early_traces = 0

    def take_over(self, other: "Report") -> None:
        """Continue from the counts and the slow traces of another report. Rules are matched by name."""
        for number, name in enumerate(other._names):  # noqa: SLF001 - of this class
            if name in self._names:
                self._counts[self._names.index(name)] += other._counts[number]  # noqa: SLF001
        self._minutes = other._minutes  # noqa: SLF001
        self.late_spans += other.late_spans
        self.early_traces += other.early_traces

    def count(self, counts: I64) -> None:
        """Add traces by rule, I64[rules + 1, 2]: the first row is for no rule; the columns are dropped, kept."""
        self._counts += counts

    def rules(self) -> dict[str, Any]:
        """``{"rules": [{name, seen, kept, dropped, rate}], "traces": …}``; ``none`` comes last, if it occurred."""
        rows = []
        for number in [*range(1, len(self._names)), 0]:
            dropped, kept = self._counts[number].tolist()
            if number or dropped:
                seen = dropped + kept
                rate = kept / seen if seen else None
                rows.append({"name": self._names[number], "seen": seen, "kept": kept, "dropped": dropped, "rate": rate})
        dropped, kept = self._counts.sum(axis=0).tolist()
        return {"rules": rows, "traces": {"seen": dropped + kept, "kept": kept, "dropped": dropped}}

    # The slowest traces.

    def add_slowest(self, batch: Traces, slots: I32, root_ns: U64, reasons: I32) -> None:
        """Keep the slowest traces of a batch of kept spans; a trace may be spread over several batches.

        ``slots`` I32[n]: the trace of each span; ``root_ns`` and ``reasons`` are columns by slot.
        """
        durations_ns = root_ns[slots]
        minute = int(self._clock.monotonic_s() // _BUCKET_S)
        known = self._minutes.setdefault(minute, {})
        floor = min((slow.root_ns for slow in known.values()), default=0) if len(known) >= _SLOWEST_COUNT else 1
        if not len(durations_ns) or int(durations_ns.max()) < floor:
            return
        for old in [number for number in self._minutes if number < minute - _WINDOW_S / _BUCKET_S]:
            del self._minutes[old]
        rows = np.flatnonzero(durations_ns >= floor)
        slow_slots, first = np.unique(slots[rows], return_index=True)
        order = np.argsort(-durations_ns[rows[first]].astype(np.int64), kind="stable")[:_SLOWEST_COUNT]
        ids = batch.field("trace_id")
        for i in order.tolist():
            row = int(rows[first[i]])
            trace_id = int(ids[row, 0]), int(ids[row, 1])
            trace = known.get(trace_id)
            if trace is None and len(known) >= _SLOWEST_COUNT and int(durations_ns[row]) <= floor:
                continue
            if trace is None:
                rule = self._names[int(reasons[slots[row]]) + 1]
                trace = known[trace_id] = _SlowTrace(trace_id, int(durations_ns[row]), rule, [], 0, 0)
            self._add_spans(trace, batch, slots == slow_slots[i])
        for trace_id in sorted(known, key=lambda key: -known[key].root_ns)[_SLOWEST_COUNT:]:
            del known[trace_id]

    @staticmethod
    def _add_spans(trace: _SlowTrace, batch: Traces, is_of_trace: Mask) -> None:
        """Add as many spans as the limits allow, root spans first."""
        rows = np.flatnonzero(is_of_trace)
        rows = rows[np.argsort(batch.field("parent_span_id")[rows] != 0, kind="stable")]
        spans = batch.table().rows
        total_bytes = np.cumsum((spans["end"] - spans["start"])[rows])
        rows = rows[: _SPANS_MAX - trace.span_count]
        rows = rows[total_bytes[: len(rows)] <= _TRACE_BYTES_MAX - trace.size_bytes]
        if not len(rows):
            return
        chosen = np.zeros(batch.item_count, np.bool_)
        chosen[rows] = True
        part = batch.select(chosen).without_index()
        trace.batches.append(part)
        trace.span_count += len(rows)
        trace.size_bytes += part.size_bytes

    def slowest(self) -> list[dict[str, Any]]:
        """The slowest traces as JSON, the slowest first."""
        oldest = int(self._clock.monotonic_s() // _BUCKET_S) - _WINDOW_S / _BUCKET_S
        found: dict[tuple[int, int], _SlowTrace] = {}
        for minute, traces in self._minutes.items():
            if minute > oldest:
                found.update({trace_id: trace for trace_id, trace in traces.items() if trace.batches})
        slowest = sorted(found.values(), key=lambda trace: -trace.root_ns)[:_SLOWEST_COUNT]
        return [_trace_json(trace) for trace in slowest]


def _trace_json(slow: _SlowTrace) -> dict[str, Any]:
    room = _JSON_CHARS_MAX
    spans: list[dict[str, Any]] = []
    starts = [batch.field("start_time_unix_nano") for batch in slow.batches]
    first_ns = min((int(known.min()) for each in starts if len(known := each[each != 0])), default=0)
    for batch in slow.batches:
        for span in _spans_json(batch, first_ns):
            room -= (
                200
                + sum(len(key) + len(str(value)) + 6 for key, value in span["attributes"].items())
                + len(span["name"])
            )
            if room < 0:
                break
            spans.append(span)
    spans.sort(key=lambda span: (span["start_offset_ms"], span["parent_span_id"] != ""))
    root = next((span for span in spans if not span["parent_span_id"]), None)
    return {
        "trace_id": f"{slow.trace_id[0]:016x}{slow.trace_id[1]:016x}",
        "root_service": root["service"] if root else "",
        "root_name": root["name"] if root else "",
        "duration_ms": slow.root_ns / 1e6,
        "rule": slow.rule,
        "spans": spans,
    }


def _spans_json(batch: Traces, first_ns: int) -> list[dict[str, Any]]:
    """The spans of a batch, at most ``_SPANS_MAX``, so that a loop is fast enough."""
    attributes: list[dict[str, Any]] = [{} for _ in range(batch.item_count)]
    table = batch.attributes()
    keys, values = table.key.to_list(), table.as_text().to_list()
    doubles = table.double.tolist()
    kinds, ints = table.kind.tolist(), table.int.tolist()
    for row, owner in enumerate(table.owner.tolist()):
        if len(attributes[owner]) < _ATTRIBUTES_MAX:
            value: Any = _clean(values[row] or "")
            if kinds[row] == KIND_BOOL:
                value = values[row] == "true"
            elif kinds[row] == KIND_INT:
                value = ints[row]
            elif kinds[row] == KIND_DOUBLE and math.isfinite(doubles[row]):
                value = doubles[row]
            attributes[owner][_clean(keys[row] or "")] = value
    ids, parents = batch.field("span_id").tolist(), batch.field("parent_span_id").tolist()
    names, kind = batch.field("name").to_list(), batch.field("kind").tolist()
    services = batch.attribute("service.name", "resources").as_text().take(batch.ancestor("resources")).to_list()
    starts = batch.field("start_time_unix_nano")
    durations_ns, _ = span_durations(starts, batch.field("end_time_unix_nano"))
    offsets_ns = np.where(starts < np.uint64(first_ns), np.uint64(0), starts - np.uint64(first_ns))  # a start may be 0
    status = batch.field("status_code").tolist()
    return [
        {
            "span_id": f"{ids[row]:016x}",
            "parent_span_id": f"{parents[row]:016x}" if parents[row] else "",
            "service": _clean(services[row] or ""),
            "name": _clean(names[row] or ""),
            "kind": _KINDS[kind[row]] if 0 <= kind[row] < len(_KINDS) else "unspecified",
            "start_offset_ms": int(offsets_ns[row]) / 1e6,
            "duration_ms": int(durations_ns[row]) / 1e6,
            "status": _STATUS[status[row]] if 0 <= status[row] < len(_STATUS) else "unset",
            "attributes": attributes[row],
        }
        for row in range(batch.item_count)
    ]


def _clean(text: str) -> str:
    """The text cut to a length that can be shown, with unprintable characters replaced."""
    cut = text if len(text) <= _TEXT_CHARS_MAX else text[: _TEXT_CHARS_MAX - 1] + "…"
    return cut if cut.isprintable() else "".join(char if char.isprintable() else "\ufffd" for char in cut)


def keyed(settings: Settings, document: Mapping[str, Any]) -> dict[str, Any]:
    """``{"sampling@traces": document}``: the admin port merges the answers of all objects, so each has a name."""
    return {f"{settings.id}@{settings.pipeline}" if settings.pipeline else str(settings.id): dict(document)}
