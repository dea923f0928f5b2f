"""What ``GET /sampling`` shows: counts by rule, and the slowest traces kept in the last ten minutes. Bounded.

A slow trace is held as a few spans of bytes and becomes JSON only when somebody asks.
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

__all__ = ["Report", "keyed"]


_SHOWN: Final = 5
_WINDOW_S: Final = 600.0
_BUCKET_S: Final = 60.0  # the slowest of each minute are kept: when the slowest of all grows old, the next is known
_SPANS_MAX: Final = 200
_TRACE_BYTES_MAX: Final = 256 * 1024
_JSON_CHARS_MAX: Final = 256 * 1024  # of one trace
_TEXT_MAX: Final = 256
_ATTRIBUTES_MAX: Final = 32
_KINDS: Final = [name.lower() for name in SPAN_KINDS]
_STATUS: Final = [name.lower() for name in STATUS_CODES]


@dataclass(slots=True)
class _Slow:
    trace_id: tuple[int, int]
    root_ns: int
    rule: str
    batches: list[Traces]
    span_count: int
    size_bytes: int


class Report:
    """Of one pipeline."""

    def __init__(self, rule_names: Sequence[str], clock: Clock) -> None:
        self._names = ["none", *rule_names]
        self._clock = clock
        self._counts = np.zeros((len(self._names), 2), np.int64)
        self._minutes: dict[int, dict[tuple[int, int], _Slow]] = {}
        self.late_spans = 0
        self.early_traces = 0

    def adopt(self, other: "Report") -> None:
        """Go on with what another one counted and keeps: rules are told apart by name."""
        for place, name in enumerate(other._names):  # noqa: SLF001 - of this class
            if name in self._names:
                self._counts[self._names.index(name)] += other._counts[place]  # noqa: SLF001
        self._minutes = other._minutes  # noqa: SLF001
        self.late_spans += other.late_spans
        self.early_traces += other.early_traces

    def count(self, counts: I64) -> None:
        """Add traces: (rules + 1, 2), the first row without a rule; dropped, kept."""
        self._counts += counts

    def rules(self) -> dict[str, Any]:
        """``{"rules": [{name, seen, kept, dropped, rate}]}``; ``none`` only where it happened."""
        rows = []
        for place in [*range(1, len(self._names)), 0]:
            dropped, kept = self._counts[place].tolist()
            if place or dropped:
                seen = dropped + kept
                rate = kept / seen if seen else None
                rows.append({"name": self._names[place], "seen": seen, "kept": kept, "dropped": dropped, "rate": rate})
        dropped, kept = self._counts.sum(axis=0).tolist()
        return {"rules": rows, "traces": {"seen": dropped + kept, "kept": kept, "dropped": dropped}}

    # The slowest.

    def look(self, batch: Traces, slots: I32, root_ns: U64, reasons: I32) -> None:
        """Keep what is slow of spans that leave. The parts of a trace come one after the other."""
        lasted = root_ns[slots]
        minute = int(self._clock.monotonic_s() // _BUCKET_S)
        known = self._minutes.setdefault(minute, {})
        floor = min((slow.root_ns for slow in known.values()), default=0) if len(known) >= _SHOWN else 1
        if not len(lasted) or int(lasted.max()) < floor:
            return
        for old in [number for number in self._minutes if number < minute - _WINDOW_S / _BUCKET_S]:
            del self._minutes[old]
        rows = np.flatnonzero(lasted >= floor)
        traces, first = np.unique(slots[rows], return_index=True)
        order = np.argsort(-lasted[rows[first]].astype(np.int64), kind="stable")[:_SHOWN]
        ids = batch.field("trace_id")
        for place in order.tolist():
            row = int(rows[first[place]])
            trace_id = int(ids[row, 0]), int(ids[row, 1])
            slow = known.get(trace_id)
            if slow is None and len(known) >= _SHOWN and int(lasted[row]) <= floor:
                continue
            if slow is None:
                rule = self._names[int(reasons[slots[row]]) + 1]
                slow = known[trace_id] = _Slow(trace_id, int(lasted[row]), rule, [], 0, 0)
            self._add(slow, batch, slots == traces[place])
        for trace_id in sorted(known, key=lambda one: -known[one].root_ns)[_SHOWN:]:
            del known[trace_id]

    @staticmethod
    def _add(slow: _Slow, batch: Traces, mine: Mask) -> None:
        room = _SPANS_MAX - slow.span_count
        at = np.flatnonzero(mine)
        root_first = np.argsort(batch.field("parent_span_id")[at] != 0, kind="stable")
        spans = batch.table().rows
        sizes = np.cumsum((spans["end"] - spans["start"])[at[root_first]])
        at = at[root_first][:room]
        at = at[sizes[: len(at)] <= _TRACE_BYTES_MAX - slow.size_bytes]
        if not len(at):
            return
        chosen = np.zeros(batch.item_count, np.bool_)
        chosen[at] = True
        few = batch.select(chosen).without_index()
        slow.batches.append(few)
        slow.span_count += len(at)
        slow.size_bytes += few.size_bytes

    def slowest(self) -> list[dict[str, Any]]:
        """As JSON, the slowest first."""
        oldest = int(self._clock.monotonic_s() // _BUCKET_S) - _WINDOW_S / _BUCKET_S
        found: dict[tuple[int, int], _Slow] = {}
        for minute, slows in self._minutes.items():
            if minute > oldest:
                found.update({key: slow for key, slow in slows.items() if slow.batches})
        return [_shown(slow) for slow in sorted(found.values(), key=lambda slow: -slow.root_ns)[:_SHOWN]]


def _shown(slow: _Slow) -> dict[str, Any]:
    room = _JSON_CHARS_MAX
    spans: list[dict[str, Any]] = []
    first_ns = min(int(batch.field("start_time_unix_nano").min()) for batch in slow.batches)
    for batch in slow.batches:
        for span in _spans(batch, first_ns):
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


def _spans(batch: Traces, first_ns: int) -> list[dict[str, Any]]:
    """At most ``_SPANS_MAX`` of them, so a loop will do."""
    attributes: list[dict[str, Any]] = [{} for _ in range(batch.item_count)]
    every = batch.attributes()
    keys, values = every.key.to_list(), every.as_text().to_list()
    doubles = every.double.tolist()
    kinds, ints = every.kind.tolist(), every.int.tolist()
    for row, owner in enumerate(every.owner.tolist()):
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
    start, end = batch.field("start_time_unix_nano").tolist(), batch.field("end_time_unix_nano").tolist()
    status = batch.field("status_code").tolist()
    return [
        {
            "span_id": f"{ids[row]:016x}",
            "parent_span_id": f"{parents[row]:016x}" if parents[row] else "",
            "service": _clean(services[row] or ""),
            "name": _clean(names[row] or ""),
            "kind": _KINDS[kind[row]] if 0 <= kind[row] < len(_KINDS) else "unspecified",
            "start_offset_ms": (start[row] - first_ns) / 1e6,
            "duration_ms": max(0, end[row] - start[row]) / 1e6,
            "status": _STATUS[status[row]] if 0 <= status[row] < len(_STATUS) else "unset",
            "attributes": attributes[row],
        }
        for row in range(batch.item_count)
    ]


def _clean(text: str) -> str:
    """Short and printable."""
    cut = text if len(text) <= _TEXT_MAX else text[: _TEXT_MAX - 1] + "…"
    return cut if cut.isprintable() else "".join(char if char.isprintable() else "\ufffd" for char in cut)


def keyed(settings: Settings, shown: Mapping[str, Any]) -> dict[str, Any]:
    """``{"sampling@traces": shown}``: the admin port merges what all objects of a path say, so each says its own name."""
    return {f"{settings.id}@{settings.pipeline}" if settings.pipeline else str(settings.id): dict(shown)}
