"""Features of spans, folded into one value per trace, which policies evaluate.

A feature that several policies read is stored once. Its columns start at zero for a new trace.

Source: opentelemetry-collector-contrib processor/tailsamplingprocessor 0.156, ``internal/sampling``.
"""

import re
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Final

import numpy as np

from collector.model import KIND_STRING, AttributeColumn, Traces
from collector.model.arrays import U8, U64, Array, Mask
from collector.otlp.semantics import TRACE_FLAG_SAMPLED
from collector.ottl import Conditions as Compiled
from collector.ottl import ErrorMode, compile_conditions
from collector.tail_sampling import ByTrace
from collector.text.cache import cached_by_text
from collector.text.patterns import compile_pattern

__all__ = [
    "BOTH_ENDS",
    "FAILED",
    "MATCHED",
    "BooleanMatch",
    "Conditions",
    "Feature",
    "NumericRange",
    "SampledFlag",
    "StatusCodes",
    "StringMatch",
    "TimeRange",
    "TraceHash",
    "TraceStateMatch",
    "fnv1a_64",
    "trace_state_value",
]

MATCHED, FAILED = 1, 2  # values of Conditions: the outcome of the first span that decides
_CACHED_BYTES: Final = 1024  # for each text whose result is cached; results of longer texts are not kept
_CACHED_DEFAULT: Final = 128
_FNV64_OFFSET: Final = 0xCBF29CE484222325
_FNV64_PRIME: Final = 0x100000001B3
_MASK64: Final = 2**64 - 1


class Feature(ABC):
    """Folds the spans of a trace into columns. Equal features (frozen dataclasses) share their columns."""

    dtypes: Mapping[str, Any] = {"": np.bool_}
    """Its columns by suffix."""

    @abstractmethod
    def fold(self, batch: Traces, grouped: ByTrace, columns: Mapping[str, Array]) -> None:
        """Fold the spans of a batch, in order, into ``columns`` (by suffix), whose rows are the slots."""


class _AnySpan(Feature):
    """Whether any span, or the resource of any span, matches."""

    def fold(self, batch: Traces, grouped: ByTrace, columns: Mapping[str, Array]) -> None:
        columns[""][grouped.row_slots[self.matches(batch)]] = True

    @abstractmethod
    def matches(self, batch: Traces) -> Mask:
        """bool[n]: which spans match."""


@dataclass(frozen=True)
class TimeRange(Feature):
    """The earliest start and the latest end. The start is stored as its complement, so that 0 is the latest one.

    A start of 0 is a missing one, and does not count, as in the Collector.
    """

    dtypes = {"start_complement": np.uint64, "end": np.uint64}  # noqa: RUF012 - never written

    def fold(self, batch: Traces, grouped: ByTrace, columns: Mapping[str, Array]) -> None:
        """See the class."""
        starts = batch.field("start_time_unix_nano")
        grouped.fold(np.maximum, columns["start_complement"], np.where(starts == 0, np.uint64(0), ~starts))
        grouped.fold(np.maximum, columns["end"], batch.field("end_time_unix_nano"))


BOTH_ENDS: Final = TimeRange()


@dataclass(frozen=True)
class TraceHash(Feature):
    """The hash of a salt and the trace id."""

    dtypes = {"": np.uint64}  # noqa: RUF012 - never written
    salt: bytes

    def fold(self, batch: Traces, grouped: ByTrace, columns: Mapping[str, Array]) -> None:
        """See the class."""
        new = columns[""][grouped.slots] == 0
        if new.any():
            columns[""][grouped.slots[new]] = fnv1a_64(batch.field("trace_id")[grouped.first_rows()[new]], self.salt)


@dataclass(frozen=True)
class NumericRange(_AnySpan):
    """An int attribute within bounds. As in the Collector, a value of any other kind counts as 0."""

    key: str
    min_value: int
    max_value: int

    def matches(self, batch: Traces) -> Mask:
        """See the class."""

        def within(column: AttributeColumn, _: bool) -> Mask:
            result: Mask = column.present & (column.int >= self.min_value) & (column.int <= self.max_value)
            return result

        return _on_span_or_resource(batch, self.key, within)


@dataclass(frozen=True)
class BooleanMatch(_AnySpan):
    """A bool attribute with a given value. As in the Collector, a value of any other kind counts as false."""

    key: str
    value: bool

    def matches(self, batch: Traces) -> Mask:
        """See the class."""

        def equal(column: AttributeColumn, _: bool) -> Mask:
            result: Mask = column.present & (column.bool == self.value)
            return result

        return _on_span_or_resource(batch, self.key, equal)


@dataclass(frozen=True)
class StringMatch(_AnySpan):
    """A text attribute that is one of the values, or matches one of the regular expressions.

    As in the Collector, an empty text of a span never matches, and a value of a resource that is not a text is matched
    as an empty text.
    """

    key: str
    values: tuple[str, ...]
    is_regex: bool
    cached_count: int = 0
    """Number of texts whose result is cached; 0: 128."""

    def matches(self, batch: Traces) -> Mask:
        """See the class."""

        def one_of(column: AttributeColumn, is_span: bool) -> Mask:
            if not self.is_regex:
                exact: Mask = column.text.isin(filter(None, self.values))
                return exact
            found: Mask = column.text.where(self._matcher)  # False if absent or of another kind
            if not is_span:
                found |= column.present & (column.kind != KIND_STRING) & self._matcher("")
                return found
            found &= ~column.text.equals("")
            return found

        return _on_span_or_resource(batch, self.key, one_of)

    @cached_property
    def _matcher(self) -> Callable[[str], bool]:
        patterns = [compile_pattern(value) for value in self.values]

        def matches(text: str) -> bool:
            return any(pattern.search(text) for pattern in patterns)

        return _cached(matches, self.cached_count or _CACHED_DEFAULT)


@dataclass(frozen=True)
class StatusCodes(_AnySpan):
    """A status code that is one of ``codes``."""

    codes: tuple[int, ...]

    def matches(self, batch: Traces) -> Mask:
        """See the class."""
        status = batch.field("status_code")
        found: Mask = np.logical_or.reduce([status == code for code in self.codes])
        return found


@dataclass(frozen=True)
class SampledFlag(_AnySpan):
    """The W3C trace flag "sampled" is set."""

    def matches(self, batch: Traces) -> Mask:
        """See the class."""
        flags: Mask = batch.field("flags") & np.uint32(TRACE_FLAG_SAMPLED) != 0
        return flags


@dataclass(frozen=True)
class TraceStateMatch(_AnySpan):
    """A member of the trace state has one of the values. A trace state that violates the W3C rules has no members."""

    key: str
    values: tuple[str, ...]

    def matches(self, batch: Traces) -> Mask:
        """See the class."""
        return batch.field("trace_state").where(self._matcher)

    @cached_property
    def _matcher(self) -> Callable[[str], bool]:
        # The Collector's limit: key, "=" and value have at most 256 characters together.
        wanted = {value for value in self.values if value and len(self.key.encode()) + len(value.encode()) < 256}
        return _cached(lambda text: trace_state_value(text, self.key) in wanted, _CACHED_DEFAULT)


@dataclass(frozen=True)
class Conditions(Feature):
    """OTTL conditions on spans and span events: the outcome of the first span for which one holds or fails."""

    dtypes = {"": np.uint8}  # noqa: RUF012 - never written
    span: tuple[str, ...]
    spanevent: tuple[str, ...]
    error_mode: ErrorMode
    failures: Counter[str] = field(default_factory=Counter, compare=False)
    """How often a condition could not be evaluated, by context. The reader clears it."""

    @cached_property
    def _compiled(self) -> tuple[Compiled | None, Compiled | None]:
        return (
            compile_conditions(self.span, "span") if self.span else None,
            compile_conditions(self.spanevent, "spanevent") if self.spanevent else None,
        )

    def fold(self, batch: Traces, grouped: ByTrace, columns: Mapping[str, Array]) -> None:
        """See the class. The conditions on a span take precedence over those on its events."""
        on_span, on_event = self._compiled
        outcome = np.zeros(batch.item_count, np.uint8)
        if on_event is not None:
            events = self._outcome("spanevent", *on_event.mask(batch))
            decisive = np.flatnonzero(events)[::-1]  # reversed, so that a span's first event is written last
            outcome[batch.table("events").parent[decisive]] = events[decisive]
        if on_span is not None:
            span_outcome = self._outcome("span", *on_span.mask(batch))
            outcome = np.where(span_outcome != 0, span_outcome, outcome)
        column, slots = columns[""], grouped.row_slots
        decisive = np.flatnonzero(outcome)[::-1]
        decisive = decisive[column[slots[decisive]] == 0]
        column[slots[decisive]] = outcome[decisive]

    def _outcome(self, context: str, matched: Mask, failed: Mask) -> U8:
        if count := int(np.count_nonzero(failed)):
            self.failures[context] += count
        result = np.where(matched, np.uint8(MATCHED), np.uint8(0))
        return np.where(failed, np.uint8(FAILED), result) if self.error_mode == "propagate" else result


def _on_span_or_resource(batch: Traces, key: str, matches: Callable[[AttributeColumn, bool], Mask]) -> Mask:
    """bool[n]: ``matches(column, is_span)`` for the attribute of the span or of its resource; False if both lack it."""
    found: Mask = np.zeros(batch.item_count, np.bool_)
    if batch.attributes().code_of(key) >= 0:
        found = matches(batch.attribute(key), True)
    if batch.attributes("resources").code_of(key) >= 0:
        resources = matches(batch.attribute(key, "resources"), False)
        if resources.any():
            found = found | resources[batch.ancestor("resources")]
    return found


def _cached(function: Callable[[str], bool], count: int) -> Callable[[str], bool]:
    """``function`` with its results for the last ``count`` texts cached, at least."""
    return cached_by_text(function, max_bytes=2 * count * _CACHED_BYTES, max_entry_bytes=_CACHED_BYTES)


def fnv1a_64(trace_ids: U64, salt: bytes) -> U64:
    """U64[k]: FNV-1a of 64 bits over the salt and the 16 bytes of each trace id. Source: draft-eastlake-fnv."""
    seed = _FNV64_OFFSET
    for byte in salt:
        seed = ((seed ^ byte) * _FNV64_PRIME) & _MASK64
    state = np.full(len(trace_ids), seed, np.uint64)
    for half in (0, 1):
        octets = np.ascontiguousarray(trace_ids[:, half]).astype(">u8").view(np.uint8).reshape(-1, 8)
        for place in range(8):
            state = (state ^ octets[:, place]) * np.uint64(_FNV64_PRIME)
    return state


# W3C Trace Context, tracestate, as far as the Collector checks it (go.opentelemetry.io/otel/trace, ParseTraceState).
_KEY: Final = r"(?:[a-z][a-z0-9_*/-]{0,255}|[a-z0-9][a-z0-9_*/-]{0,240}@[a-z][a-z0-9_*/-]{0,13})"
_VALUE: Final = r"[\x20-\x2b\x2d-\x3c\x3e-\x7e]{0,255}[\x21-\x2b\x2d-\x3c\x3e-\x7e]"
_MEMBER: Final = re.compile(f"[ \\t]*({_KEY})=({_VALUE})[ \\t]*")
_MEMBERS_MAX: Final = 32


def trace_state_value(text: str, key: str) -> str:
    """The value of a member; empty if there is none, or if the trace state violates the rules anywhere."""
    members: dict[str, str] = {}
    for part in text.split(","):
        if not part:
            continue
        match = _MEMBER.fullmatch(part)
        if match is None or match[1] in members or len(members) == _MEMBERS_MAX:
            return ""
        members[match[1]] = match[2]
    return members.get(key, "")
