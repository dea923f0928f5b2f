"""Sender: sends the units of one queue, attempt after attempt, until every item of them is settled.

A unit is sent at once, in the call that adds it to the queue, if the exporter can (``try_send``); otherwise in a task.
What follows a failure always happens in a task. There is no task that waits for work: the queue passes on at most
``num_consumers`` units at a time, and a sender that has released one asks for the next.

Order: with ``num_consumers: 1`` the batches of a signal are sent one after the other, the parts of one batch in the
order of ``encode``; parts of different shards are sent at the same time.
"""

import asyncio
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, ClassVar, Final, Generic, Protocol, TypeVar

from collector.api import Clock, PermanentError, RetryableError, TooLargeError
from collector.delivery.dead_letters import DeadLetters, LostPart
from collector.delivery.gate import Gate
from collector.delivery.health import BackendHealth
from collector.delivery.log import RateLimitedLog
from collector.delivery.parts import Part, is_within_limits, whole_part, with_rows
from collector.delivery.queue import SendingQueue, SendUnit
from collector.delivery.retry import Backoff, RetryPolicy
from collector.delivery.settlement import Settlement
from collector.delivery.tasks import TaskSet
from collector.model import Batch
from collector.transport.auth import SENT_CONTEXT

__all__ = ["PartSender", "Sender"]

P = TypeVar("P")

# A backend that refuses a request smaller than this as too large has another problem.
_SMALLEST_LIMIT_BYTES: Final = 32 * 1024
# Requests made at most to find the items for which a batch was refused. It is lowered while nothing is found that way.
_ISOLATION_REQUESTS_MAX: Final = 128
_ISOLATION_REQUESTS_MIN: Final = 4


class PartSender(Protocol[P]):
    """What a sender needs of its exporter. See :class:`collector.delivery.QueuedExporter` for what the members mean."""

    max_request_bytes: int
    max_items: int
    isolated_reasons: ClassVar[frozenset[str]]

    async def send(self, payload: P) -> int | None:
        """One attempt; returns how many items the backend rejected."""
        ...

    def try_send(self, batch: Batch, on_done: Callable[[int | Exception], None]) -> bool:
        """One attempt without a task."""
        ...

    def encode(self, batch: Batch) -> Sequence[Part[P]]:
        """The requests that carry the batch."""
        ...

    def cut(self, part: Part[P]) -> Sequence[Part[P]]:
        """The part in about two halves."""
        ...

    def cut_refused(self, part: Part[P]) -> Sequence[Part[P]]:
        """The part in about two halves, to find out which of them is refused."""
        ...

    def describe(self, payload: P) -> str:
        """Names for the log."""
        ...


@dataclass(frozen=True, slots=True)
class _FailedAttempt:
    """A first attempt that was made without a task and failed."""

    batch: Batch
    started_s: float
    error: Exception


@dataclass(slots=True)
class _Outcome:
    """What was not delivered of one unit."""

    errors: list[Exception] = field(default_factory=list)
    """Those that a caller who waits for the result may receive."""
    lost: list[LostPart] = field(default_factory=list)
    """Of the batch that is being sent."""

    def lose(self, part: Part[Any], error: PermanentError | RetryableError, reason: str) -> None:
        """Note a part that is refused or given up; what an exporter adds of its own has no items."""
        if part.item_count:
            self.errors.append(error)
            self.lost.append(LostPart(part.payload, part.item_count, reason, error, part.rows))

    def error(self) -> Exception | None:
        """The error of the whole.

        One part that the backend may accept later makes the whole batch worth sending again: at least once rather than
        at most once.
        """
        if not self.errors:
            return None
        return next((error for error in self.errors if isinstance(error, RetryableError)), self.errors[0])


class Sender(Generic[P]):
    """See the module. ``timeout_s`` bounds an attempt (None: the exporter does); ``sends_at_once``: try it first."""

    def __init__(
        self,
        exporter: PartSender[P],
        queue: SendingQueue,
        settlement: Settlement,
        retry: RetryPolicy,
        gate: Gate,
        health: BackendHealth,
        *,
        tasks: TaskSet,
        log: RateLimitedLog,
        clock: Clock,
        timeout_s: float | None,
        sends_at_once: bool,
        record_merged: Callable[[int, int], None],
        dead_letters: DeadLetters | None = None,
    ) -> None:
        self._exporter = exporter
        self._queue = queue
        self._settlement = settlement
        self._retry = retry
        self.gate = gate
        self._health = health
        self._tasks = tasks
        self._log = log
        self._clock = clock
        self._timeout_s = timeout_s
        self._sends_at_once = sends_at_once
        self._record_merged = record_merged
        self._dead_letters = dead_letters
        self._stopped = False
        self._isolation_requests = _ISOLATION_REQUESTS_MAX
        self._accepted_requests = 0

    def start_sending(self, unit: SendUnit) -> None:
        """Send the unit, at once if possible, otherwise in a task."""
        if not self._try_send(unit):
            self._tasks.spawn(self._send_units(unit))

    async def send_unqueued(self, batch: Batch, *, keeps_lost: bool = True) -> Exception | None:
        """Send a batch without the queue, as in the Collector; returns the error for the caller, which waits.

        ``keeps_lost``: whether what is lost becomes a dead letter.
        """
        unit = self._settlement.begin_unqueued(batch)
        try:
            return await self._send_batches(unit, [batch], keeps_lost=keeps_lost)
        except asyncio.CancelledError:
            self._settlement.cancel(unit)
            raise
        except Exception as exc:  # noqa: BLE001 - whatever a faulty exporter raises
            self._settlement.fail(unit, exc)
            error = _internal_error()
            error.__cause__ = exc
            return error
        finally:
            self._settlement.end_unqueued(unit, batch)

    def stop(self) -> None:
        """Ignore outcomes of attempts from now on: what is not settled yet is about to be dropped."""
        self._stopped = True

    # At once.

    def _try_send(self, unit: SendUnit) -> bool:
        """Send the unit without a task. False: nothing was done."""
        if not self._sends_at_once:
            return False
        gate = self.gate
        if gate.is_calm:
            gate.in_flight += 1
        elif not gate.try_enter():
            return False
        exporter = self._exporter
        sent_before = None
        try:
            batch = self._queue.read_single(unit)
            if batch is not None and is_within_limits(batch, exporter.max_request_bytes, exporter.max_items):
                sent_before = SENT_CONTEXT.set(batch.context)
                if exporter.try_send(batch, partial(self._on_done, unit, batch, self._clock.monotonic_s())):
                    return True
        except Exception:  # noqa: BLE001, S110 - the task runs into the same error and counts it
            pass
        finally:
            if sent_before is not None:
                SENT_CONTEXT.reset(sent_before)
        gate.abort()
        return False

    def _on_done(self, unit: SendUnit, batch: Batch, started_s: float, outcome: int | Exception) -> None:
        """Settle a unit that was sent at once. If the attempt failed, a task continues as if it had made it."""
        if self._stopped:
            self.gate.abort()
            return
        if isinstance(outcome, Exception):
            self._note_failure(outcome, started_s)
            self._tasks.spawn(self._send_units(unit, _FailedAttempt(batch, started_s, outcome)))
            return
        gate = self.gate
        if gate.is_calm:
            gate.in_flight -= 1
        else:
            gate.succeed(started_s)
        self._health.record_success()
        self._settlement.deliver(unit, batch.item_count, outcome)
        self._settlement.release(unit, None)
        next_unit = self._queue.next_unit()
        if next_unit is not None:
            self.start_sending(next_unit)

    # In a task.

    async def _send_units(self, unit: SendUnit | None, failed: _FailedAttempt | None = None) -> None:
        """Send one unit after the other while there are any that cannot be sent at once."""
        while unit is not None:
            try:
                error = await self._send_batches(
                    unit, await self._read(unit) if failed is None else [failed.batch], failed
                )
            except Exception as exc:  # noqa: BLE001 - must not end the task: the queue counts on the place it fills
                await self._keep_failed(unit, exc)
                self._settlement.fail(unit, exc)
                error = _internal_error()
            self._settlement.release(unit, error)
            failed, unit = None, self._queue.next_unit()
            if unit is not None and self._try_send(unit):
                return

    async def _read(self, unit: SendUnit) -> list[Batch]:
        batches = await self._queue.read(unit)
        if self._queue.merges:
            self._record_merged(unit.unsettled_count, unit.size_bytes)
        return batches

    async def _send_batches(
        self,
        unit: SendUnit,
        batches: Iterable[Batch],
        failed: _FailedAttempt | None = None,
        *,
        keeps_lost: bool = True,
    ) -> Exception | None:
        """Settle all items of the batches; returns the error that a caller who waits for the result should receive."""
        outcome = _Outcome()
        for batch in batches:
            SENT_CONTEXT.set(batch.context)
            encoded = self._exporter.encode(batch) if failed is None else [whole_part(batch)]
            item_count = encoded[0].item_count if len(encoded) == 1 else sum(part.item_count for part in encoded)
            if item_count != batch.item_count:
                self._settlement.leave_out(unit, batch.item_count - item_count)
            if len(encoded) == 1:  # nearly always
                await self._settle_part(unit, encoded[0], outcome, failed)
            else:
                await self._settle_shards(unit, encoded, outcome)
            if outcome.lost and keeps_lost:
                await self._keep_lost(batch, outcome)
        return outcome.error()

    async def _settle_shards(self, unit: SendUnit, encoded: Sequence[Part[P]], outcome: _Outcome) -> None:
        shards: dict[int, list[Part[P]]] = {}
        for part in encoded:
            shards.setdefault(part.shard, []).append(part)
        if len(shards) == 1:
            (parts,) = shards.values()
            await self._settle_in_order(unit, parts, outcome)
        elif shards:
            async with asyncio.TaskGroup() as group:
                for parts in shards.values():
                    group.create_task(self._settle_in_order(unit, parts, outcome))

    async def _keep_lost(self, batch: Batch, outcome: _Outcome) -> None:
        """Pass on what was lost of the batch to the dead letters, before the queue forgets it."""
        lost, outcome.lost = outcome.lost, []
        if self._dead_letters is not None:
            await self._dead_letters.keep_parts(batch, lost)

    async def _keep_failed(self, unit: SendUnit, error: Exception) -> None:
        """Pass on a unit with which the exporter failed to the dead letters, if it can be read."""
        if self._dead_letters is None:
            return
        try:
            for batch in await self._queue.read(unit):
                await self._dead_letters.keep(batch, "internal_error", f"{type(error).__name__}: {error}")
        except Exception as exc:  # noqa: BLE001 - the unit may have failed because of this batch
            self._log.error("a batch that the exporter failed to send cannot be kept", error=str(exc))

    async def _settle_in_order(self, unit: SendUnit, parts: Sequence[Part[P]], outcome: _Outcome) -> None:
        for part in parts:
            await self._settle_part(unit, part, outcome)

    async def _settle_part(
        self, unit: SendUnit, part: Part[P], outcome: _Outcome, failed: _FailedAttempt | None = None
    ) -> None:
        refusal = await self._attempt_part(unit, part, outcome, failed)
        if refusal is None:
            self._isolation_requests = _ISOLATION_REQUESTS_MAX
        elif isinstance(refusal, TooLargeError) and (halves := self._cut(part)):
            await self._settle_in_order(unit, halves, outcome)
        else:
            accepted_before = self._accepted_requests
            await self._isolate(unit, part, refusal, outcome, self._isolation_requests)
            self._isolation_requests = (
                _ISOLATION_REQUESTS_MAX
                if self._accepted_requests > accepted_before
                else max(self._isolation_requests // 4, _ISOLATION_REQUESTS_MIN)
            )

    async def _attempt_part(
        self, unit: SendUnit, part: Part[P], outcome: _Outcome, failed: _FailedAttempt | None = None
    ) -> PermanentError | None:
        """Settle a part that is delivered or given up. Returns the error of a part that is refused, which is not."""
        try:
            rejected_count = await self._deliver(part, failed)
        except PermanentError as exc:
            return exc
        except RetryableError as exc:
            self._settlement.give_up(unit, part.item_count, exc, self._retry.drop_reason)
            outcome.lose(part, exc, self._retry.drop_reason)
        else:
            self._accepted_requests += 1
            self._settlement.deliver(unit, part.item_count, rejected_count)
        return None

    async def _isolate(
        self, unit: SendUnit, part: Part[P], error: PermanentError, outcome: _Outcome, request_count: int
    ) -> int:
        """Settle a refused part: halve it and send the halves until only those are refused that are to blame.

        One bad item must not cost the good ones of its batch. At most ``request_count`` requests are sent; the number
        left over is returned.
        """
        exporter = self._exporter
        halves: Sequence[Part[P]] = ()
        if error.reason in exporter.isolated_reasons and part.size_bytes:
            halves = with_rows(exporter.cut_refused(part), part.rows)
        if not 2 <= len(halves) <= request_count:
            self._settlement.refuse(unit, part.item_count, error, exporter.describe(part.payload))
            outcome.lose(part, error, error.reason)
            return request_count
        request_count -= len(halves)
        for number, half in enumerate(halves, 1):
            refusal = await self._attempt_part(unit, half, outcome)
            if refusal is None:
                continue
            # The first half may not use up what the second one needs, but must be able to find one item.
            share = request_count
            if number < len(halves):
                share = max(request_count // 2, min(request_count, 2 * half.item_count.bit_length()))
            request_count += await self._isolate(unit, half, refusal, outcome, share) - share
        return request_count

    def _cut(self, part: Part[P]) -> Sequence[Part[P]]:
        """Halves of a part that the backend found too large, or nothing if cutting is of no use. Lowers the size limit.

        Requests are merged on receipt and by ``sending_queue.batch``. What the backend would have accepted one by one
        must not be lost because of that.
        """
        size_bytes, exporter = part.size_bytes, self._exporter
        if size_bytes < 2 * _SMALLEST_LIMIT_BYTES or len(halves := exporter.cut(part)) < 2:
            return ()
        if not exporter.max_request_bytes or size_bytes <= exporter.max_request_bytes:
            exporter.max_request_bytes = size_bytes // 2
            self._log.warning(
                "the backend refused a request as too large; batches are split from now on",
                size_bytes=size_bytes,
                split_at_bytes=exporter.max_request_bytes,
            )
        return with_rows(halves, part.rows)

    # Attempts.

    async def _deliver(self, part: Part[P], failed: _FailedAttempt | None) -> int:
        """Attempt the part until it succeeds, and return how many items were rejected; raises the last error.

        ``failed`` stands for the first attempt if that was made at once.
        """
        backoff: Backoff | None = None
        started_s = self._clock.monotonic_s() if failed is None else failed.started_s
        while True:
            try:
                if failed is not None:
                    raise failed.error
                if not self.gate.try_enter():
                    backoff = backoff or self._retry.backoff(started_s)
                    await self.gate.enter(backoff.give_up_s)
                return await self._attempt(part)
            except RetryableError as exc:
                error = exc
            failed = None
            backoff = backoff or self._retry.backoff(started_s)
            wait_s = backoff.next_wait_s(self._clock.monotonic_s(), error.retry_after_s)
            if wait_s is None:
                raise error
            self._log.warning(
                "sending failed and will be retried", wait_s=round(wait_s, 1), reason=error.reason, error=str(error)
            )
            # Once the backend accepts data again, only what it has told to wait still does.
            await self._retry.wait(wait_s, None if error.retry_after_s else self.gate.wait_recovered)

    async def _attempt(self, part: Part[P]) -> int:
        """One attempt, within the timeout, after the gate was entered."""
        started_s = self._clock.monotonic_s()
        try:
            if self._timeout_s is None:
                rejected_count = await self._exporter.send(part.payload)
            else:
                async with asyncio.timeout(self._timeout_s):
                    rejected_count = await self._exporter.send(part.payload)
        except TimeoutError as exc:
            error = RetryableError("the backend did not answer in time", reason="timeout")
            self._note_failure(error, started_s)
            raise error from exc
        except BaseException as exc:
            self._note_failure(exc, started_s)
            raise
        self.gate.succeed(started_s)
        self._health.record_success()
        return rejected_count or 0

    def _note_failure(self, error: BaseException, started_s: float) -> None:
        """Note the end of an attempt that failed, in whatever way."""
        if isinstance(error, PermanentError | RetryableError):
            self.gate.fail(error, started_s)
            self._health.record_failure(error)
        else:
            self.gate.abort()


def _internal_error() -> RetryableError:
    return RetryableError("the exporter failed with an internal error", reason="internal_error")
