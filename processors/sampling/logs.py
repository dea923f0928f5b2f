"""Log records follow the decision of their trace: the processor in a logs pipeline, beside its own in a traces pipeline.

A record whose trace is decided follows at once. One whose trace is open, or not seen yet, waits: until the decision,
and where no span
comes within ``decision_wait``, it is decided by its trace id against the ratio of the rest. Who wants the rules:
``config.LogsConfig``.
"""

import asyncio
import contextlib
from collections.abc import Mapping
from typing import Any, Final

import numpy as np

from collector.api import ConsumeError, Host, Settings, SharedKey, Stage
from collector.model import Batch, Context, KeyTable, Logs, Signal
from collector.model.arrays import F64, I32, U8, U64, Mask
from collector.otlp.consistent_sampling import RANDOMNESS_BITS, threshold_of
from collector.tail_sampling import DROPPED, KEPT, OPEN, UNKNOWN, HeldRows, Settled, TailSampler
from processors.sampling.config import SamplingConfig
from processors.sampling.report import keyed

__all__ = ["SAMPLERS", "LogsFollower"]


_LOW_BITS: Final = np.uint64((1 << RANDOMNESS_BITS) - 1)
_TICKS: Final = 10
_TICK_MAX_S: Final = 1.0
_EARLY_SHARE: Final = 16
_FOLLOWED, _UNSEEN, _NO_TRACE = "followed", "unseen", "no_trace"


SAMPLERS: Final = SharedKey("sampling.samplers", list[TailSampler])
"""The samplers of one id in traces pipelines, which its objects in logs pipelines follow."""


class LogsFollower(Stage):
    """In a logs pipeline."""

    def __init__(self, settings: Settings, config: SamplingConfig) -> None:
        self._settings, self._config, self._clock = settings, config, settings.clock
        self._samplers: list[TailSampler] = settings.shared.get(SAMPLERS)
        self._threshold = np.uint64(threshold_of(config.rest_ratio))
        self._random = np.random.default_rng()
        self._traces = KeyTable({"first_s": np.float64, "state": np.uint8})
        self._empty_table_bytes = self._traces.memory_bytes
        self._held: HeldRows[Logs] = HeldRows()
        self._releasing = asyncio.Lock()
        self._wake = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []
        self._hands_over = False
        self._counts: dict[tuple[str, str], int] = {}
        telemetry = settings.telemetry
        self._records = telemetry.counter("tailrace_sampling_log_records", "Log records decided", ("by", "decision"))
        self._early = telemetry.counter(
            "tailrace_sampling_early_log_traces", "Traces whose records were decided early: max_bytes"
        )
        telemetry.gauge(
            "tailrace_sampling_held_log_bytes", "Bytes of log records held", read=lambda: float(self.held_bytes())
        )

    # The component.

    async def start(self, host: Host) -> None:
        """Begin following."""
        if not self._samplers:
            self._settings.telemetry.log.warning(
                "no traces pipeline has this processor: records with a trace id are decided by the trace id alone"
            )
        for sampler in self._samplers:
            sampler.follow(self._settle)
        host.add_admin_route("/sampling", self._show)
        self._tasks = [
            asyncio.ensure_future(self._decide_when_due()),
            asyncio.ensure_future(self._pass_on_when_settled()),
        ]

    def hand_over(self, config: Any) -> "LogsFollower":  # noqa: ARG002 - any successor decides what is held
        """Itself: the next ``shutdown`` keeps what is held."""
        self._hands_over = True
        return self

    def take_over(self, state: object) -> bool:
        """Hold what the predecessor holds."""
        if not isinstance(state, LogsFollower):
            return False
        self._adopt(state)
        return True

    async def shutdown(self) -> None:
        """Decide everything and pass on what is kept. Open traces are decided for it."""
        if self._tasks:
            tasks, self._tasks = self._tasks, []
            async with self._releasing:
                for task in tasks:
                    task.cancel()
                await asyncio.gather(*tasks, return_exceptions=True)
        hands_over, self._hands_over = self._hands_over, False
        if not hands_over and len(self._traces):
            ids = self._traces.keys(self._traces.live())
            for sampler in self._samplers:
                await sampler.decide_now(ids)  # tells ``_settle``
            live = self._traces.live()
            self._decide_unseen(live[self._traces.column("state")[live] == OPEN])
            await self._release()
        for sampler in self._samplers:
            sampler.unfollow(self._settle)

    def held_items(self) -> int:
        """Records undecided."""
        return self._held.item_count

    def held_bytes(self) -> int:
        """Bytes of the batches they are in, and what the table grew by."""
        return self._held.size_bytes + self._traces.memory_bytes - self._empty_table_bytes

    async def consume(self, batch: Batch) -> None:
        """Hold the records of undecided traces, pass on or drop the others."""
        assert isinstance(batch, Logs)
        if not batch.item_count:
            return
        ids = batch.field("trace_id")
        has_trace = (ids[:, 0] | ids[:, 1]) != 0
        kept = self._without_trace(batch, has_trace)
        states = np.full(len(ids), DROPPED, np.uint8)
        states[has_trace] = self._states(np.ascontiguousarray(ids[has_trace]))
        followed_kept, followed_dropped = has_trace & (states == KEPT), has_trace & (states == DROPPED)
        self._count(_FOLLOWED, followed_kept, followed_dropped)
        kept |= followed_kept
        waits = has_trace & ((states == OPEN) | (states == UNKNOWN))
        if not self._samplers and waits.any():
            passes = waits & ((ids[:, 1] & _LOW_BITS) >= self._threshold)
            self._count(_UNSEEN, passes, waits & ~passes)
            kept, waits = kept | passes, np.zeros_like(waits)
        if waits.any():
            self._hold(batch, np.ascontiguousarray(ids[waits]), waits, self._clock.monotonic_s())
        self._drop(int(np.count_nonzero(~kept & ~waits)))
        if kept.any():
            await self._send([batch.select(kept)])
        await self._keep_within_limits()

    def _without_trace(self, batch: Logs, has_trace: Mask) -> Mask:
        """bool[n]: which records without a trace id are kept."""
        if has_trace.all():
            return np.zeros(len(has_trace), np.bool_)
        config = self._config.logs
        kept: Mask = ~has_trace & (batch.field("severity_number") >= config.min_number)
        below = ~has_trace & ~kept
        if config.below_ratio >= 1.0:
            kept = kept | below
        elif config.below_ratio > 0.0:
            kept = kept | (below & (self._random.random(len(below)) < config.below_ratio))
        self._count(_NO_TRACE, kept, ~has_trace & ~kept)
        return kept

    def _states(self, ids: U64) -> U8:
        """What the samplers say, one after the other: the first that knows a trace counts."""
        states = np.full(len(ids), UNKNOWN, np.uint8)
        for sampler in self._samplers:
            unknown = np.flatnonzero(states == UNKNOWN)
            if not len(unknown):
                break
            states[unknown] = sampler.states(np.ascontiguousarray(ids[unknown]))
        return states

    def _hold(self, batch: Logs, ids: U64, rows: Mask, first_s: float | F64) -> None:
        slots = np.full(batch.item_count, -1, np.int32)
        slots[rows], is_new = self._traces.insert(ids)
        new = slots[rows][is_new]
        self._traces.column("first_s")[new] = first_s if isinstance(first_s, float) else first_s[is_new]
        self._traces.column("state")[new] = OPEN
        self._held.add(batch, slots)

    def _adopt(self, previous: "LogsFollower") -> None:
        """Take over what another one, shut down after ``hand_over``, holds."""
        old = previous._traces  # noqa: SLF001 - of this class
        live, everything = old.live(), np.zeros(len(old.column("state")) + 1, np.bool_)
        everything[live] = True
        for batch, slots in previous._held.take(everything, np.zeros_like(everything))[0]:  # noqa: SLF001
            self._hold(batch, old.keys(slots), np.ones(len(slots), np.bool_), old.column("first_s")[slots])
        states = old.column("state")[live]
        settled = live[states != OPEN]
        self._settle(Settled(old.keys(settled), old.column("state")[settled] == KEPT))
        old.remove(live)

    # Decisions.

    def _settle(self, settled: Settled) -> None:
        """Traces were decided: what waits for them may go."""
        slots = self._traces.find(settled.trace_ids)
        here = slots >= 0
        if here.any():
            self._traces.column("state")[slots[here]] = np.where(settled.kept[here], KEPT, DROPPED)
            self._wake.set()

    def _decide_unseen(self, slots: I32) -> None:
        """By trace id: as the rest would be."""
        if not len(slots):
            return
        ids = self._traces.keys(slots)
        kept = (ids[:, 1] & _LOW_BITS) >= self._threshold
        self._traces.column("state")[slots] = np.where(kept, KEPT + _BY_ID, DROPPED + _BY_ID)

    async def _decide_when_due(self) -> None:
        wait_s = self._config.decision_wait
        while True:
            await self._clock.sleep(min(wait_s / _TICKS, _TICK_MAX_S))
            async with self._releasing:
                self._decide_unseen(self._due(self._clock.monotonic_s() - wait_s))
                await self._release()

    async def _pass_on_when_settled(self) -> None:
        while True:
            await self._wake.wait()
            self._wake.clear()
            async with self._releasing:
                await self._release()

    def _due(self, before_s: float) -> I32:
        """Traces whose first record came before, and which no sampler holds: a sampler that does will tell."""
        live = self._traces.live()
        column = self._traces.column
        due: I32 = live[(column("first_s")[live] <= before_s) & (column("state")[live] == OPEN)]
        if not len(due):
            return due
        states = self._states(self._traces.keys(due))
        for code in (KEPT, DROPPED):
            column("state")[due[states == code]] = code
        unseen: I32 = due[states == UNKNOWN]
        return unseen

    async def _keep_within_limits(self) -> None:
        limit = self._config.logs.max_bytes
        if not limit or self._held.size_bytes <= limit:
            return
        async with self._releasing:
            excess = self._held.size_bytes - limit + limit // _EARLY_SHARE
            chosen: list[I32] = []
            for slots, size_bytes in self._held.oldest():
                chosen.append(slots)
                excess -= size_bytes
                if excess <= 0:
                    break
            if chosen:
                slots = np.unique(np.concatenate(chosen)).astype(np.int32)
                slots = slots[self._traces.column("state")[slots] == OPEN]
                self._early.add(len(slots))
                self._decide_unseen(slots)
            await self._release()

    # Leaving.

    async def _release(self) -> None:
        """Pass on and drop what has been decided."""
        live = self._traces.live()
        state = self._traces.column("state")[live]
        if not (state != OPEN).any():
            return
        parts: list[Logs] = []
        for by, offset in ((_FOLLOWED, 0), (_UNSEEN, _BY_ID)):
            wanted, gone = (np.zeros(len(self._traces.column("state")) + 1, np.bool_) for _ in range(2))
            wanted[live[state == KEPT + offset]] = True
            gone[live[state == DROPPED + offset]] = True
            taken, dropped_count = self._held.take(wanted, gone)
            parts += [batch for batch, _ in taken]
            self._tally(by, sum(len(slots) for _, slots in taken), dropped_count)
            self._drop(dropped_count)
        self._traces.remove(live[state != OPEN])
        await self._send(parts)

    async def _send(self, parts: list[Logs]) -> None:
        by_context: dict[Context, list[Logs]] = {}
        for batch in parts:
            by_context.setdefault(batch.context, []).append(batch)
        for batches in by_context.values():
            # An exporter that waits for its backend may have given up. It has counted that; the sender was answered
            # long ago.
            with contextlib.suppress(ConsumeError):
                await self._settings.outputs[Signal.LOGS].consume(Logs.concat(batches))

    def _drop(self, item_count: int) -> None:
        if item_count:
            self._settings.telemetry.dropped(Signal.LOGS, item_count, "sampled")

    # What is counted and shown.

    def _count(self, by: str, kept: Mask, dropped: Mask) -> None:
        self._tally(by, int(np.count_nonzero(kept)), int(np.count_nonzero(dropped)))

    def _tally(self, by: str, kept_count: int, dropped_count: int) -> None:
        for count, word in ((kept_count, "kept"), (dropped_count, "dropped")):
            if count:
                self._records.add(count, by=by, decision=word)
                self._counts[by, word] = self._counts.get((by, word), 0) + count

    async def _show(self, query: Mapping[str, str]) -> dict[str, Any]:
        """What ``GET /sampling`` says of this pipeline."""
        del query
        records = {
            by: {word: self._counts.get((by, word), 0) for word in ("kept", "dropped")}
            for by in (_FOLLOWED, _UNSEEN, _NO_TRACE)
        }
        held = {"bytes": self._held.size_bytes, "max_bytes": self._config.logs.max_bytes, "records": self.held_items()}
        return keyed(
            self._settings, {"signal": "logs", "records": records, "held": {**held, "traces": len(self._traces)}}
        )


_BY_ID: Final = 4  # added to a state: decided by trace id, not by its trace
