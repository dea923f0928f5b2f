"""QueuedExporter: everything between ``consume`` and the backend, so that an exporter is its ``send``.

Every item taken is settled exactly once: delivered, refused by the backend, or dropped with a reason; what is not
settled yet is ``in_flight_items``. Reasons of its own: ``queue_full``, ``storage_full``, ``retries_exhausted``,
``retry_disabled``, ``shutdown``, ``internal_error``. An exporter never delays or duplicates what another one gets.

One lane (queue and senders) a signal, as in the Collector, so ``queue_size`` and ``num_consumers`` hold for each
signal. A sender is a place among ``num_consumers``, no task that waits: what it sends is begun at once where the
exporter can (``begin``), else sent in a task, and so is all that follows a failure.
Order: with ``num_consumers: 1`` batches of a signal are sent one after the other; parts of one batch in the order of
``encode``, those of different shards at the same time.

Source: the Collector's exporter/exporterhelper (keys, defaults, metric names, retry rules).
"""

import asyncio
import random
from abc import abstractmethod
from collections.abc import Callable, Coroutine, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar, Final, Generic, TypeVar

from collector.api import Exporter, Host, PermanentError, RetryableError, Settings, TooLargeError
from collector.delivery.backoff import Backoff
from collector.delivery.config import ExporterConfig
from collector.delivery.health import BackendHealth
from collector.delivery.lane import Lane, Work
from collector.delivery.metrics import ExporterMetrics
from collector.delivery.storage import MemoryStorage, Storage
from collector.model import Batch, Signal

__all__ = ["Part", "QueuedExporter"]

P = TypeVar("P")

_LOG_EVERY_S: Final = 10.0
_DRAIN_RETRY_S: Final = 1.0
_MESSAGE_CHARS: Final = 200
_SMALLEST_LIMIT_BYTES: Final = 32 * 1024  # a backend that refuses less for its size refuses something else


@dataclass(slots=True)
class Part(Generic[P]):
    """One request to the backend. Retried, refused and counted by itself: what succeeded is never sent again."""

    payload: P
    item_count: int
    shard: int = 0
    """Parts of one batch with the same shard go in order, different shards at the same time."""
    size_bytes: int = 0
    """As ``max_request_bytes`` counts; 0: never cut, whatever the backend says of its size."""


class QueuedExporter(Exporter, Generic[P]):
    """Base of exporters to a backend. Subclasses give :meth:`send`, and :meth:`encode` and :meth:`cut` where the payload is no batch.

    ``QueuedExporter[Batch]``: ``send`` gets batches of at most ``max_request_bytes`` and ``max_items``.
    Open connections in :meth:`open`, close them in :meth:`close`.
    """

    settles_by_itself = True
    max_request_bytes: int = 0
    """Just below the backend's limit; 0: none. Lowered when the backend refuses less for its size."""
    max_items: int = 0
    keeps_timeout: ClassVar[bool] = False
    """:meth:`send` ends in time by itself: a second timer for every request costs as much as queue and ledger together."""
    drain_timeout_s: ClassVar[float] = 10.0
    """How long ``shutdown`` goes on sending; the service may end it earlier by cancelling."""

    def __init__(
        self, settings: Settings, config: ExporterConfig, *, uniform: Callable[[float, float], float] = random.uniform
    ) -> None:
        self.settings = settings
        self.telemetry = settings.telemetry
        self._queue = config.sending_queue
        self._retry = config.retry_on_failure
        self._timeout_s = None if self.keeps_timeout else config.timeout or None
        self._clock = settings.clock
        self._uniform = uniform
        self._host: Host | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._closed = False
        self._is_over = False  # what is left is dropped: answers that come yet are too late
        self._draining = asyncio.Event()
        self._logged_at_s: dict[str, float] = {}
        self.health = BackendHealth(f"exporter {settings.id}", settings.clock)
        self.waits_for_result = self._queue.wait_for_result or not self._queue.enabled
        self._begins = (
            type(self).begin is not QueuedExporter.begin
            and self._timeout_s is None
            and self._queue.enabled
            and self._queue.batch is None
        )
        self._lanes = {
            signal: Lane(signal, self._queue, self._clock, MemoryStorage(), self._charge, self._start_sender)
            for signal in sorted(settings.signals)
        }
        self._direct_items = dict.fromkeys(self._lanes, 0)
        self._metrics = ExporterMetrics(settings, self._lanes)

    # What subclasses provide.

    @abstractmethod
    async def send(self, payload: P) -> int | None:
        """Deliver one payload, one attempt. Returns how many of its items the backend rejected while taking the rest (partial success).

        Runs under the configured ``timeout``, unless ``keeps_timeout``.

        Raises:
            PermanentError: refused; the items are counted under its reason and not sent again.
            RetryableError: not now; sent again after the backoff, and not before ``retry_after_s``.
        """

    def begin(self, batch: Batch, done: Callable[[int | Exception], None]) -> bool:  # noqa: ARG002 - the default never can
        """:meth:`send` without a task, where the payload is the batch itself and one can be sent at once: most of what a small one costs.

        ``done`` hears once what ``send`` would have returned or raised: later, never from in here. False: not now,
        nothing was done. Asked only where no ``timeout`` is to be kept (see ``keeps_timeout``), with batches that need
        no :meth:`split`.
        """
        return False

    def encode(self, batch: Batch) -> Sequence[Part[P]]:
        """The requests that carry ``batch``. Items in none of them were dropped and counted by this method.

        Called once a batch, however often its parts are sent. The default gives the batch itself, split by the limits.
        """
        return [_whole(part) for part in self.split(batch)]  # P = Batch

    def cut(self, part: Part[P]) -> Sequence[Part[P]]:
        """The part's items in order as parts of about half its size; the part alone where it cannot be cut."""
        batch: Any = part.payload  # P = Batch
        return [
            Part(half, half.item_count, part.shard, half.size_bytes)
            for half in batch.split(max_bytes=part.size_bytes // 2)
        ]

    def split(self, batch: Batch) -> list[Batch]:
        """Parts that each keep ``max_request_bytes`` and ``max_items``."""
        if self._fits(batch):
            return [batch]
        parts = (
            batch.split(max_items=self.max_items) if self.max_items and batch.item_count > self.max_items else [batch]
        )
        if self.max_request_bytes and batch.size_bytes > self.max_request_bytes:
            parts = [
                small
                for part in parts
                for small in (
                    part.split(max_bytes=self.max_request_bytes)
                    if part.size_bytes > self.max_request_bytes
                    else (part,)
                )
            ]
        return parts

    def _fits(self, batch: Batch) -> bool:
        max_bytes, max_items = self.max_request_bytes, self.max_items
        return (not max_bytes or batch.size_bytes <= max_bytes) and (not max_items or batch.item_count <= max_items)

    async def open(self, host: Host) -> None:
        """Make clients; no waiting for other servers."""

    async def close(self) -> None:
        """Release what :meth:`open` made; nothing is sent any more."""

    def note_partial_success(self, signal: Signal, rejected_count: int, message: str) -> None:
        """Log what the backend said beside its success; the count is what :meth:`send` returns."""
        shown = " ".join("".join(ch if ch.isprintable() else " " for ch in message[:_MESSAGE_CHARS]).split())
        self._log(
            "warning",
            "the backend answered with partial success",
            signal=str(signal),
            rejected=rejected_count,
            message=shown,
        )

    # The component.

    async def start(self, host: Host) -> None:
        """See :class:`collector.api.Component`."""
        self._host = host
        if self._queue.enabled and self._queue.storage:
            for signal, lane in self._lanes.items():
                lane.storage = self._storage(host, f"{self.settings.id} {signal}")
        await self.open(host)
        self.health.start(host)
        if not self._queue.enabled:
            return
        for lane in self._lanes.values():
            restored = lane.restore()
            if restored:
                self.telemetry.created(lane.signal, restored)
            lane.start(self._queue.num_consumers)
            if self._queue.batch is not None:
                self._spawn(lane.flush_when_due())

    async def shutdown(self) -> None:
        """Send what is queued until ``drain_timeout_s`` is over, drop the rest (with a durable storage it stays)."""
        if self._closed:
            return
        self._closed = True
        started = self._host is not None
        try:
            if started:
                await self._drain()
        finally:
            self._is_over = True
            for task in self._tasks:
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)
            for lane in self._lanes.values():
                for work in lane.left():
                    self._abandon(lane, work)
            if started:
                await self.close()

    async def consume(self, batch: Batch) -> None:
        """See :class:`collector.api.Exporter`."""
        if not self.waits_for_result:
            self.try_consume(batch)
        elif not batch.item_count:
            return
        elif self._closed:
            self._drop(batch.signal, batch.item_count, "shutdown")
            raise RetryableError("the exporter is shutting down", reason="shutdown")
        elif not self._queue.enabled:
            await self._send_directly(batch)
        else:
            result = asyncio.get_running_loop().create_future()
            reason = self._offer(batch, result)
            if reason:
                raise RetryableError(f"the queue of {self.settings.id} is full", reason=reason)
            await result

    def try_consume(self, batch: Batch) -> bool:
        """See :class:`collector.api.Exporter`."""
        if self.waits_for_result:
            return False
        if self._closed:
            self._drop(batch.signal, batch.item_count, "shutdown")
        elif batch.item_count:
            self._offer(batch, None)
        return True

    def _offer(self, batch: Batch, result: asyncio.Future[None] | None) -> str:
        """Into the queue. Why not, where it is dropped instead; else ""."""
        lane = self._lanes[batch.signal]
        reason = "queue_full"
        try:
            if lane.offer(batch, result):
                return ""
        except OSError as exc:
            reason = "storage_full"
            self._log("error", "the queue's storage takes no more", error=str(exc))
        self._drop(batch.signal, batch.item_count, reason)
        self._log(
            "error",
            "queue is full, data is dropped",
            signal=str(batch.signal),
            reason=reason,
            queue_size=lane.units,
            queue_bytes=lane.size_bytes,
        )
        return reason

    def blocks_on_overflow(self) -> bool:
        """See :class:`collector.api.Exporter`."""
        return self._queue.enabled and self._queue.block_on_overflow

    def has_room(self, batch: Batch) -> bool:
        """See :class:`collector.api.Exporter`."""
        return not self._closed and (not self._queue.enabled or self._lanes[batch.signal].has_room(batch))

    def in_flight_items(self) -> Mapping[Signal, int]:
        """See :class:`collector.api.Exporter`."""
        return {signal: lane.item_count + self._direct_items[signal] for signal, lane in self._lanes.items()}

    # Senders.

    def _start_sender(self, lane: Lane, work: Work) -> None:
        """Send: at once where that can be begun without a task."""
        if not self._begin(lane, work):
            self._spawn(self._send_in_task(lane, work))

    def _begin(self, lane: Lane, work: Work) -> bool:
        if not self._begins:
            return False
        try:
            batch = lane.storage.read(work.entries[0].key)
            if not (
                self._fits(batch)
                and self.begin(batch, partial(self._end, lane, work, batch, self._clock.monotonic_s()))
            ):
                return False
        except Exception:  # noqa: BLE001 - whatever it is, the task meets it again and counts it
            return False
        lane.in_flight_requests += 1
        return True

    def _end(self, lane: Lane, work: Work, batch: Batch, started_s: float, outcome: int | Exception) -> None:
        """What was begun is over. Where it failed a task goes on, as if this had been its first attempt."""
        lane.in_flight_requests -= 1
        if self._is_over:
            return
        if isinstance(outcome, Exception):
            self._spawn(self._send_in_task(lane, work, _Failure(batch, started_s, outcome)))
            return
        self.health.succeeded()
        self._delivered(lane.signal, batch.item_count, outcome)
        lane.settled(work, None)
        next_work = lane.next()
        if next_work is not None:
            self._start_sender(lane, next_work)

    async def _send_in_task(self, lane: Lane, work: Work | None, begun: "_Failure | None" = None) -> None:
        """One work after the other while there are any that cannot be begun. ``begun``: what came of the first one."""
        while work is not None:
            try:
                error = await self._send_work(
                    lane, work, self._read(lane, work) if begun is None else [begun.batch], begun
                )
            except Exception as exc:  # noqa: BLE001 - a sender that ends would stop the exporter for good
                self._fail(lane.signal, work.item_count, exc)
                error = RetryableError("internal error", reason="internal_error")
            lane.settled(work, error)
            begun, work = None, lane.next()
            if work is not None and self._begin(lane, work):
                return

    def _read(self, lane: Lane, work: Work) -> list[Batch]:
        batches = lane.read(work)
        if self._queue.batch is not None:
            self._metrics.sent_size(work.item_count, work.size_bytes)
        return batches

    async def _send_directly(self, batch: Batch) -> None:
        """Without a queue: whoever brings the batch waits, as in the Collector."""
        signal, work = batch.signal, Work([], batch.item_count)
        self._direct_items[signal] += batch.item_count
        self._charge(batch.memory_bytes)
        try:
            error = await self._send_work(self._lanes[signal], work, [batch])
        except asyncio.CancelledError:
            self._drop(signal, work.item_count, "cancelled")
            raise
        except Exception as exc:
            self._fail(signal, work.item_count, exc)
            raise RetryableError("internal error", reason="internal_error") from exc
        finally:
            self._direct_items[signal] -= batch.item_count
            self._charge(-batch.memory_bytes)
        if error is not None:
            raise error

    async def _send_work(
        self, lane: Lane, work: Work, batches: Iterable[Batch], begun: "_Failure | None" = None
    ) -> Exception | None:
        """Settle all items of the batches, counting ``work.item_count`` down; the error a waiting sender has to hear."""
        errors: list[Exception] = []
        for batch in batches:
            encoded = self.encode(batch) if begun is None else [_whole(batch)]
            if len(encoded) == 1:  # nearly always
                work.item_count -= batch.item_count - encoded[0].item_count
                await self._settle(lane, work, encoded[0], errors, begun)
                continue
            shards: dict[int, list[Part[P]]] = {}
            item_count = 0
            for part in encoded:
                shards.setdefault(part.shard, []).append(part)
                item_count += part.item_count
            work.item_count -= batch.item_count - item_count
            if len(shards) == 1:
                (parts,) = shards.values()
                await self._send_in_order(lane, work, parts, errors)
            elif shards:
                async with asyncio.TaskGroup() as group:
                    for parts in shards.values():
                        group.create_task(self._send_in_order(lane, work, parts, errors))
        if not errors:
            return None
        # One part that may yet be taken makes the request worth sending again: at least once, not at most once.
        return next((error for error in errors if isinstance(error, RetryableError)), errors[0])

    async def _send_in_order(self, lane: Lane, work: Work, parts: Sequence[Part[P]], errors: list[Exception]) -> None:
        for part in parts:
            await self._settle(lane, work, part, errors)

    async def _settle(
        self, lane: Lane, work: Work, part: Part[P], errors: list[Exception], begun: "_Failure | None" = None
    ) -> None:
        signal, item_count = lane.signal, part.item_count
        try:
            rejected = await self._send_until_settled(lane, part, begun)
        except PermanentError as exc:
            if isinstance(exc, TooLargeError) and (halves := self._halves(part)):
                await self._send_in_order(lane, work, halves, errors)
                return
            self.telemetry.refused(signal, item_count, exc.reason)
            self._log(
                "error",
                "the backend refused data",
                signal=str(signal),
                items=item_count,
                reason=exc.reason,
                error=str(exc),
            )
            errors.append(exc)
        except RetryableError as exc:
            reason = "retries_exhausted" if self._retry.enabled else "retry_disabled"
            self._drop(signal, item_count, reason)
            self._log(
                "error",
                "the backend did not take data, it is dropped",
                signal=str(signal),
                items=item_count,
                reason=reason,
                error=str(exc),
            )
            errors.append(exc)
        else:
            self._delivered(signal, item_count, rejected)
        work.item_count -= item_count

    def _halves(self, part: Part[P]) -> Sequence[Part[P]]:
        """The part cut in two, after the backend said it is too large; from now on nothing of its size is sent. Nothing: no use.

        The door and ``sending_queue.batch`` merge requests: what the backend would have taken one by one must not be
        lost for that.
        """
        size_bytes = part.size_bytes
        if size_bytes < 2 * _SMALLEST_LIMIT_BYTES or len(halves := self.cut(part)) < 2:
            return ()
        if not self.max_request_bytes or size_bytes <= self.max_request_bytes:
            self.max_request_bytes = size_bytes // 2
            self._log(
                "warning",
                "the backend takes smaller requests than these; batches are split from now on",
                size_bytes=size_bytes,
                split_at_bytes=self.max_request_bytes,
            )
        return halves

    async def _send_until_settled(self, lane: Lane, part: Part[P], begun: "_Failure | None" = None) -> int:
        """Attempts with waits between them; the first is over where it was ``begun``. The rejected count, or raises the last error."""
        backoff: Backoff | None = None
        started_s = self._clock.monotonic_s() if begun is None else begun.started_s
        while True:
            lane.in_flight_requests += 1
            try:
                if begun is not None:
                    raise begun.error
                if self._timeout_s is None:
                    rejected = await self.send(part.payload)
                else:
                    async with asyncio.timeout(self._timeout_s):
                        rejected = await self.send(part.payload)
            except TimeoutError as exc:
                error = RetryableError("no answer in time", reason="timeout")
                error.__cause__ = exc
            except RetryableError as exc:
                error = exc
            except PermanentError as exc:
                self.health.failed(exc)
                raise
            else:
                self.health.succeeded()
                return rejected or 0
            finally:
                lane.in_flight_requests -= 1
                begun = None
            self.health.failed(error)
            now_s = self._clock.monotonic_s()
            backoff = backoff or Backoff(self._retry, started_s, self._uniform)
            wait_s = backoff.next_s(now_s, error.retry_after_s)
            if wait_s is None:
                raise error
            self._log(
                "warning",
                "sending failed, will be tried again",
                wait_s=round(wait_s, 1),
                reason=error.reason,
                error=str(error),
            )
            await self._wait(wait_s)

    async def _wait(self, wait_s: float) -> None:
        """Sleep before the next attempt. Draining ends the sleep and shortens those that follow: there is not much time left."""
        if self._draining.is_set():
            await self._clock.sleep(min(wait_s, _DRAIN_RETRY_S))
        else:
            await _first_of(self._clock.sleep(wait_s), self._draining.wait())

    # Ends.

    async def _drain(self) -> None:
        """Until all is settled or the time is over."""
        self._draining.set()
        for lane in self._lanes.values():
            lane.flush()
        await _first_of(self._all_empty(), self._clock.sleep(self.drain_timeout_s))

    async def _all_empty(self) -> None:
        for lane in self._lanes.values():
            await lane.wait_empty()

    def _abandon(self, lane: Lane, work: Work) -> None:
        """The exporter ends before the work is settled."""
        if lane.storage.durable:
            return  # it is there at the next start, and in flight until then
        item_count = work.item_count
        if item_count:
            self._drop(lane.signal, item_count, "shutdown")
            self._log(
                "error",
                "data is dropped, the service ended before it was sent",
                signal=str(lane.signal),
                items=item_count,
            )
        lane.settled(work, RetryableError("the exporter is shutting down", reason="shutdown"))

    def _fail(self, signal: Signal, item_count: int, exc: Exception) -> None:
        self._drop(signal, item_count, "internal_error")
        self._log(
            "error", "data is dropped, the exporter failed on it", signal=str(signal), items=item_count, exc_info=exc
        )

    def _drop(self, signal: Signal, item_count: int, reason: str) -> None:
        if item_count:
            self.telemetry.dropped(signal, item_count, reason)

    def _delivered(self, signal: Signal, item_count: int, rejected_count: int) -> None:
        if rejected_count > 0:
            rejected_count = min(rejected_count, item_count)
            self.telemetry.refused(signal, rejected_count, "partial_success")
            item_count -= rejected_count
        if item_count:
            self.telemetry.delivered(signal, item_count)

    # Log, helpers.

    def _log(self, level: str, sentence: str, **values: Any) -> None:
        """One line of a kind in ten seconds: an outage must not fill the log."""
        now_s = self._clock.monotonic_s()
        if now_s - self._logged_at_s.get(sentence, -_LOG_EVERY_S) < _LOG_EVERY_S:
            return
        self._logged_at_s[sentence] = now_s
        getattr(self.telemetry.log, level)(sentence, **values)

    def _charge(self, size_bytes: int) -> None:
        if self._host is not None:
            self._host.admission.charge(size_bytes)

    def _storage(self, host: Host, name: str) -> Storage:
        key = f"exporters::{self.settings.id}::sending_queue::storage"
        try:
            extension = host.extension(self._queue.storage)
        except KeyError as exc:
            raise ValueError(f"{key}: no extension {self._queue.storage!r} is configured") from exc
        if not callable(getattr(extension, "storage", None)):
            raise ValueError(f"{key}: extension {self._queue.storage!r} stores nothing")  # noqa: TRY004 - the user's value is wrong
        storage: Storage = extension.storage(name)
        return storage

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


@dataclass(slots=True)
class _Failure:
    """A first attempt without a task, and what came of it."""

    batch: Batch
    started_s: float
    error: Exception


def _whole(batch: Batch) -> Part[Any]:
    return Part(batch, batch.item_count, size_bytes=batch.size_bytes)


async def _first_of(*waits: Coroutine[Any, Any, Any]) -> None:
    """Return when one is over; the others are cancelled."""
    tasks = [asyncio.ensure_future(wait) for wait in waits]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
