"""Tail sampling over whole traces: all errors, all that is slow, a consistent share of the rest.

Batches are held as they came, each with the slot of every row's trace; a trace is a row of a table, never an object. Decisions fall
``decision_wait`` after a trace's first span, earlier where ``max_bytes`` is exceeded (oldest first) and at shutdown. Late spans follow
the decision of their trace while it is remembered.
"""

import asyncio
import contextlib
from collections import deque
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from collector.api import Component, ConsumeError, Host, Settings, Stage
from collector.helpers.consistent_sampling import RANDOMNESS_BITS, parse_trace_state, threshold_of, with_threshold
from collector.model import Batch, Context, KeyTable, Signal, StringColumn, Traces, groups
from processors.sampling.config import RuleConfig, SamplingConfig

__all__ = ["SamplingProcessor", "create"]

Mask = npt.NDArray[np.bool_]
I32 = npt.NDArray[np.int32]

PENDING, KEPT, DROPPED = 0, 1, 2
_STATUS_ERROR: Final = 2
_TICKS: Final = 10  # checks a decision_wait
_LOW_BITS: Final = np.uint64((1 << RANDOMNESS_BITS) - 1)
_ROUTES: Final = ("http.route", "url.path", "http.target")


@dataclass(slots=True)
class _Held:
    """One batch and what of it is undecided."""

    batch: Traces
    slots: I32
    waiting: Mask
    size_bytes: int


class SamplingProcessor(Stage):
    """See the module."""

    def __init__(self, settings: Settings, config: SamplingConfig) -> None:
        self._settings = settings
        self._config = config
        self._clock = settings.clock
        self._thresholds = np.array([threshold_of(rule.ratio) for rule in config.rules], np.uint64)
        self._default_bits = np.uint64(sum(1 << i for i, rule in enumerate(config.rules) if rule.matches_all))
        self._traces = KeyTable(
            {"first": np.float64, "bits": np.uint64, "randomness": np.uint64, "decision": np.uint8, "threshold": np.uint64}
        )
        self._held: deque[_Held] = deque()
        self._held_bytes = self._held_items = 0
        self._releasing = asyncio.Lock()
        self._task: asyncio.Task[None] | None = None
        telemetry = settings.telemetry
        self._decisions = telemetry.counter("tailrace_sampling_traces", "Traces decided", ("rule", "decision"))
        self._late = telemetry.counter("tailrace_sampling_late_spans", "Spans that came after their trace's decision", ("decision",))
        self._early = telemetry.counter("tailrace_sampling_early_decisions", "Traces decided early because max_bytes was reached")
        telemetry.gauge("tailrace_sampling_held_bytes", "Bytes held", read=lambda: float(self._held_bytes))
        telemetry.gauge("tailrace_sampling_traces_on_memory", "Traces known", read=lambda: float(len(self._traces)))

    async def start(self, host: Host) -> None:  # noqa: ARG002 - it needs nothing of the host
        """Begin deciding."""
        self._task = asyncio.ensure_future(self._decide_when_due())

    async def shutdown(self) -> None:
        """Decide everything and pass on what is kept."""
        if self._task is not None:
            task, self._task = self._task, None
            async with self._releasing:  # what is on its way gets there
                task.cancel()
                await asyncio.gather(task, return_exceptions=True)
        if self._held:
            self._decide(self._traces.live())
            await self._release()

    def held_items(self) -> int:
        """Spans undecided."""
        return self._held_items

    def held_bytes(self) -> int:
        """Bytes of the batches they are in."""
        return self._held_bytes

    async def consume(self, batch: Batch) -> None:
        """Hold the spans of open traces, pass on or drop those of decided ones."""
        assert isinstance(batch, Traces)
        wanted = self._without_dropped_spans(batch)
        if wanted is None:
            return
        batch = wanted
        trace_ids = batch.field("trace_id")
        slots, is_new = self._traces.insert(trace_ids)
        self._note_new(batch, slots[is_new], is_new)
        column = self._traces.column
        np.bitwise_or.at(column("bits"), slots, self._bits(batch))
        decision = column("decision")[slots]
        late = decision != PENDING
        if not late.all():  # held before anything is awaited: a decision that falls meanwhile finds these spans
            held = _Held(batch, slots, ~late, batch.memory_bytes)
            self._held.append(held)
            self._held_bytes += held.size_bytes
            self._held_items += int(np.count_nonzero(held.waiting))
        if late.any():
            for code, word in ((KEPT, "kept"), (DROPPED, "dropped")):
                if count := int(np.count_nonzero(decision == code)):
                    self._late.add(count, decision=word)
            self._drop(int(np.count_nonzero(decision == DROPPED)))
            await self._emit([(batch, slots, decision == KEPT)])
        if self._config.max_bytes and self._held_bytes > self._config.max_bytes:
            self._decide_oldest()
            await self._release()

    # What a span says of its trace.

    def _without_dropped_spans(self, batch: Traces) -> Traces | None:
        """The batch less the spans nobody wants; None where nothing is left."""
        config = self._config.drop_spans
        if not config.names and not config.routes:
            return batch
        unwanted = np.zeros(batch.item_count, bool)
        if config.names:
            unwanted |= batch.field("name").where(lambda name: any(fnmatchcase(name, glob) for glob in config.names))
        for key in _ROUTES if config.routes else ():
            unwanted |= batch.attribute(key).text.where(lambda route: any(fnmatchcase(route, glob) for glob in config.routes))
        count = int(np.count_nonzero(unwanted))
        if not count:
            return batch
        self._settings.telemetry.dropped(Signal.TRACES, count, "drop_spans")
        return batch.select(~unwanted) if count < batch.item_count else None

    def _note_new(self, batch: Traces, slots: I32, is_new: Mask) -> None:
        """Start the rows of traces seen for the first time."""
        if not len(slots):
            return
        column = self._traces.column
        column("first")[slots] = self._clock.monotonic_s()
        column("bits")[slots] = self._default_bits
        column("decision")[slots] = PENDING
        column("threshold")[slots] = 0
        randomness = batch.field("trace_id")[is_new, 1] & _LOW_BITS
        states = batch.field("trace_state")
        if states.present.any():
            explicit = np.array([-1 if (rv := parse_trace_state(text)[1]) is None else rv for text in states.distinct] + [-1], np.int64)
            given = explicit[states.codes[is_new]]
            randomness = np.where(given >= 0, given.astype(np.uint64), randomness)
        column("randomness")[slots] = randomness

    def _bits(self, batch: Traces) -> npt.NDArray[np.uint64]:
        """(n,) one bit a rule that the span alone makes its trace match."""
        bits = np.zeros(batch.item_count, np.uint64)
        for i, rule in enumerate(self._config.rules):
            if not rule.matches_all:
                bits |= self._matches(rule, batch).astype(np.uint64) << np.uint64(i)
        return bits

    @staticmethod
    def _matches(rule: RuleConfig, batch: Traces) -> Mask:
        matches = np.zeros(batch.item_count, bool)
        if rule.any is not None and rule.any.status:
            matches |= batch.field("status_code") == _STATUS_ERROR
        if rule.any is not None and (codes := rule.any.http_range):
            for key in ("http.response.status_code", "http.status_code"):
                status = batch.attribute(key)
                matches |= status.present & (status.int >= codes[0]) & (status.int <= codes[1])
        if rule.root_duration is not None:
            start, end = batch.field("start_time_unix_nano"), batch.field("end_time_unix_nano")
            lasted = np.where(end > start, end - start, np.uint64(0))
            matches |= (batch.field("parent_span_id") == 0) & (lasted >= np.uint64(rule.root_duration * 1e9))
        return matches

    # Decisions.

    async def _decide_when_due(self) -> None:
        wait_s = self._config.decision_wait
        while True:
            await self._clock.sleep(wait_s / _TICKS)
            live = self._traces.live()
            column = self._traces.column
            due = live[(column("decision")[live] == PENDING) & (column("first")[live] <= self._clock.monotonic_s() - wait_s)]
            async with self._releasing:
                if len(due):
                    self._decide(due)
                    await self._release()
                self._forget()

    def _decide(self, slots: I32) -> None:
        """Decide those of ``slots`` that are open: the first rule that matches, by the trace's randomness."""
        column = self._traces.column
        slots = slots[column("decision")[slots] == PENDING]
        if not len(slots):
            return
        bits = column("bits")[slots]
        rule = np.full(len(slots), -1, np.int32)
        for i in range(len(self._config.rules)):
            rule[(rule < 0) & (bits >> np.uint64(i) & np.uint64(1) != 0)] = i
        threshold = np.where(rule >= 0, self._thresholds[rule], np.uint64(1 << RANDOMNESS_BITS))
        kept = column("randomness")[slots] >= threshold
        column("decision")[slots] = np.where(kept, KEPT, DROPPED)
        column("threshold")[slots] = threshold
        for i, name in enumerate([*(rule_.name for rule_ in self._config.rules), "none"]):
            matched = rule == (i if i < len(self._config.rules) else -1)
            for word, chosen in (("kept", matched & kept), ("dropped", matched & ~kept)):
                if count := int(np.count_nonzero(chosen)):
                    self._decisions.add(count, rule=name, decision=word)

    def _decide_oldest(self) -> None:
        """Decide the traces of the oldest batches until what is left fits."""
        excess = self._held_bytes - self._config.max_bytes
        for held in self._held:
            if excess <= 0:
                break
            slots = np.unique(held.slots[held.waiting])
            self._early.add(int(np.count_nonzero(self._traces.column("decision")[slots] == PENDING)))
            self._decide(slots)
            excess -= held.size_bytes

    async def _release(self) -> None:
        """Pass on and drop what has been decided."""
        decisions = self._traces.column("decision")
        parts: list[tuple[Traces, I32, Mask]] = []
        remaining: deque[_Held] = deque()
        dropped = 0
        for held in self._held:
            decision = decisions[held.slots]
            kept = held.waiting & (decision == KEPT)
            lost = held.waiting & (decision == DROPPED)
            if kept.any():
                parts.append((held.batch, held.slots, kept))
            dropped += int(np.count_nonzero(lost))
            self._held_items -= int(np.count_nonzero(kept | lost))
            held.waiting = held.waiting & (decision == PENDING)
            if held.waiting.any():
                remaining.append(held)
            else:
                self._held_bytes -= held.size_bytes
        self._held = remaining
        self._drop(dropped)
        await self._emit(parts)

    def _forget(self) -> None:
        """Let go of the oldest decided traces beyond what the cache may hold."""
        live = self._traces.live()
        decided = live[self._traces.column("decision")[live] != PENDING]
        excess = len(decided) - self._config.decision_cache_size
        if excess > 0:
            oldest = np.argpartition(self._traces.column("first")[decided], excess - 1)[:excess]
            self._traces.remove(decided[oldest])

    # Leaving.

    async def _emit(self, parts: list[tuple[Traces, I32, Mask]]) -> None:
        """Pass on the chosen rows, with their thresholds written, one batch a context."""
        by_context: dict[Context, list[Traces]] = {}
        for batch, slots, kept in parts:
            if not kept.any():
                continue
            chosen = batch.select(kept)
            by_context.setdefault(batch.context, []).append(self._with_thresholds(chosen, self._traces.column("threshold")[slots[kept]]))
        for batches in by_context.values():
            # An exporter that waits for its backend may have given up. It has counted that; the sender was answered long ago.
            with contextlib.suppress(ConsumeError):
                await self._settings.outputs[Signal.TRACES].consume(Traces.concat(batches))

    @staticmethod
    def _with_thresholds(batch: Traces, thresholds: npt.NDArray[np.uint64]) -> Traces:
        """``ot=th`` of each span raised to the threshold it passed here."""
        if not thresholds.any():
            return batch
        states = batch.field("trace_state")
        pairs = groups(states.codes, thresholds)
        texts: list[str] = []
        changed = np.zeros(pairs.count, bool)
        for pair, row in enumerate(pairs.first.tolist()):
            text = states.distinct[states.codes[row]] if states.codes[row] >= 0 else ""
            threshold, before = int(thresholds[row]), parse_trace_state(text)[0]
            changed[pair] = threshold > (before or 0)
            texts.append(with_threshold(text, threshold) if changed[pair] else text)
        column = StringColumn.from_codes(np.ascontiguousarray(pairs.codes, np.int32), texts)
        edit: Any = batch.edit().set_field("trace_state", column, changed[pairs.codes])
        result = edit.apply()
        assert isinstance(result, Traces)
        return result

    def _drop(self, item_count: int) -> None:
        if item_count:
            self._settings.telemetry.dropped(Signal.TRACES, item_count, "sampled")


def create(settings: Settings, config: SamplingConfig, previous: Component | None) -> SamplingProcessor:  # noqa: ARG001 - the old object decides what it holds at its shutdown
    """The component."""
    return SamplingProcessor(settings, config)
