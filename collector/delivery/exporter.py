"""QueuedExporter: what an exporter to a backend derives from, so that all it has to write is its ``send``.

Source: the Collector's exporter/exporterhelper (keys, defaults, metric names, retry rules).
"""

import asyncio
import math
import random
from abc import abstractmethod
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, ClassVar, Final, Generic, TypeVar

from collector.api import Exporter, Host, QueueStorage, RetryableError, Scope, Settings, SharedKey, find_storage
from collector.delivery.breaker import CircuitBreaker
from collector.delivery.concurrency import ConcurrencyLimit
from collector.delivery.config import ExporterConfig
from collector.delivery.dead_letters import DeadLetters
from collector.delivery.gate import Gate
from collector.delivery.health import BackendHealth
from collector.delivery.letter_admin import LetterAdmin
from collector.delivery.log import RateLimitedLog, printable
from collector.delivery.metrics import ExporterMetrics
from collector.delivery.parts import Part, split_to_limits, whole_part
from collector.delivery.queue import SendingQueue, SendUnit
from collector.delivery.retry import RetryPolicy
from collector.delivery.sender import Sender
from collector.delivery.settlement import Settlement
from collector.delivery.tasks import TaskSet, wait_for_first
from collector.model import Batch, Metrics, Signal

__all__ = ["QueuedExporter"]

P = TypeVar("P")

_NAMES_MAX: Final = 3
_RETRY_AFTER_S: Final = 1.0  # for senders that wait for the result
_HURRY_S: Final = 30.0  # a shutdown with no more time than this does not wait for the backoff or the circuit breaker
_LOOK_AGAIN_S: Final = 1.0  # the time that a shutdown has may become shorter
_LEFT_IN_STORAGE: Final = SharedKey("delivery.left_in_storage", dict[str, int], scope=Scope.SERVICE)
"""Items that exporters of this process have left in their queues, by storage and name, until a successor opens it.

A reload must not count them as new.
"""


class QueuedExporter(Exporter, Generic[P]):
    """Base of exporters to a backend: it queues, retries, splits and counts. A subclass implements :meth:`send`.

    ``P`` is the payload of a request. In a ``QueuedExporter[Batch]``, ``send`` receives batches within
    ``max_request_bytes`` and ``max_items``; an exporter with another payload also implements :meth:`encode` and
    :meth:`cut`. Connections are opened in :meth:`open` and closed in :meth:`close`.

    An exporter never delays or duplicates what another exporter receives, and every item that it takes is delivered,
    refused by the backend, or dropped with a reason.

    Example::

        class LinesExporter(QueuedExporter[Batch]):
            max_request_bytes = 1024 * 1024

            async def open(self, host: Host) -> None:
                self._client = LinesClient(self._url)

            async def close(self) -> None:
                await self._client.close()

            async def send(self, payload: Batch) -> None:
                status = await self._client.post(payload.wire)
                if status == 503:
                    raise RetryableError("the server is overloaded", reason="http_503")
                if status != 200:
                    raise PermanentError(f"the server answered {status}", reason=f"http_{status}")
    """

    settles_by_itself = True
    max_request_bytes: int = 0
    """Size limit of a request, to be set just below the backend's; 0 means no limit. Lowered when the backend refuses a
    smaller request as too large."""
    max_items: int = 0
    """Limit of the items in a request; 0 means no limit."""
    enforces_timeout: ClassVar[bool] = False
    """True: :meth:`send` ends within the configured ``timeout`` by itself. This saves a timer per request, which costs
    as much as queue and ledger together."""
    isolated_reasons: ClassVar[frozenset[str]] = frozenset()
    """Reasons of a :class:`PermanentError` (``http_400``) after which a request of several items is sent again in
    halves, so that only the items to blame are lost. For backends that keep nothing of a refused request, or to which
    an item may be sent twice."""
    queue_key: ClassVar[str] = "sending_queue"
    """The configuration key of the queue, for messages."""

    def __init__(
        self,
        settings: Settings,
        config: ExporterConfig,
        *,
        max_concurrent_requests: int | None = None,
        uniform: Callable[[float, float], float] = random.uniform,
    ) -> None:
        """``max_concurrent_requests``: if it is not ``num_consumers``, because batches are sent in several shards.

        ``uniform(low, high)`` provides the jitter of the waits between attempts.
        """
        queue_config = config.sending_queue
        self.settings = settings
        self.telemetry = settings.telemetry
        self.health = BackendHealth(f"exporter {settings.id}", settings.clock)
        self.waits_for_result = queue_config.wait_for_result or not queue_config.enabled
        self.waits_for_storage = queue_config.enabled and bool(queue_config.storage)
        self._queue_config = queue_config
        self._host: Host | None = None
        self._is_shut_down = self._is_closed = self._is_paused = False
        self._left = settings.shared.get(_LEFT_IN_STORAGE)
        self._tasks = TaskSet()
        self._log = RateLimitedLog(settings.telemetry.log, settings.clock)
        self._retry = RetryPolicy(config.retry_on_failure, settings.clock, uniform)
        self._queues = {
            signal: SendingQueue(signal, queue_config, settings.clock) for signal in sorted(settings.signals)
        }
        self._settlements = {
            signal: Settlement(queue, self.telemetry, self._log) for signal, queue in self._queues.items()
        }
        self._senders: dict[Signal, Sender[P]] = {}
        metrics = ExporterMetrics(settings, self._queues, self._senders, self.health)
        self._dead_letters: dict[Signal, DeadLetters] = {}
        if config.dead_letter is not None:
            self._dead_letters = {
                signal: DeadLetters(
                    settings,
                    signal,
                    config.dead_letter,
                    self._log,
                    callers_wait=self.waits_for_result,
                    count_lost=metrics.record_lost_letters,
                )
                for signal in self._queues
            }
            metrics.show_dead_letters(self._dead_letters)
        self._letter_admin = LetterAdmin(settings, self._dead_letters, self._send_letter)
        timeout_s = None if self.enforces_timeout else config.timeout or None
        sends_at_once = (
            type(self).try_send is not QueuedExporter.try_send
            and timeout_s is None
            and queue_config.enabled
            and queue_config.batch is None
        )
        max_requests = max_concurrent_requests or queue_config.num_consumers
        for signal, queue in self._queues.items():
            self._senders[signal] = Sender(
                self,
                queue,
                self._settlements[signal],
                self._retry,
                self._gate(config, max_requests if queue_config.enabled else None),
                self.health,
                tasks=self._tasks,
                log=self._log,
                clock=settings.clock,
                timeout_s=timeout_s,
                sends_at_once=sends_at_once,
                record_merged=metrics.record_merged,
                dead_letters=self._dead_letters.get(signal),
            )
        self.health.watch(self._queues, {signal: sender.gate for signal, sender in self._senders.items()})

    # What subclasses implement.

    @abstractmethod
    async def send(self, payload: P) -> int | None:
        """Make one attempt to deliver the payload.

        Runs under the configured ``timeout``, unless ``enforces_timeout`` is set. Returns how many items of the payload
        the backend rejected while it accepted the others (partial success).

        Raises:
            PermanentError: refused; the items are counted under its reason and not sent again. TooLargeError: the same,
                but a payload that can be cut is sent again in parts.
            RetryableError: not possible now; sent again after the backoff, and not before ``retry_after_s``.
        """

    def try_send(
        self,
        batch: Batch,  # noqa: ARG002 - by default there is no way
        on_done: Callable[[int | Exception], None],  # noqa: ARG002
    ) -> bool:
        """Do what :meth:`send` does without a task, which is most of what sending a small batch costs.

        Optional, for exporters whose payload is the batch itself. ``on_done`` must be called exactly once, later and
        never from within this method, with what ``send`` would have returned or raised. False: the batch cannot be sent
        at once, and nothing was done. Only called if no ``timeout`` has to be enforced from outside (see
        ``enforces_timeout``) and for batches within the limits.
        """
        return False

    def encode(self, batch: Batch) -> Sequence[Part[P]]:
        """The requests that carry the batch. Items in none of them must have been dropped and counted by this method.

        Called once per batch, however often its parts are sent. The default is the batch itself, split by the limits.
        """
        return [whole_part(part) for part in self.split(batch)]  # P = Batch

    def cut(self, part: Part[P]) -> Sequence[Part[P]]:
        """The part's items, in order, as parts of about half its size; the part alone if it cannot be cut."""
        batch: Any = part.payload  # P = Batch
        return [
            Part(half, half.item_count, part.shard, half.size_bytes)
            for half in batch.split(max_bytes=part.size_bytes // 2)
        ]

    def cut_refused(self, part: Part[P]) -> Sequence[Part[P]]:
        """Like :meth:`cut`, of a part that was refused for one of ``isolated_reasons``."""
        return self.cut(part)

    def describe(self, payload: P) -> str:
        """Some of the payload's metrics, for the log about a refusal; empty if there is nothing to name."""
        if not isinstance(payload, Metrics):
            return ""
        return printable(", ".join(payload.field("name", "metrics").distinct[:_NAMES_MAX]))

    def split(self, batch: Batch) -> list[Batch]:
        """The batch as batches within ``max_request_bytes`` and ``max_items``."""
        return split_to_limits(batch, self.max_request_bytes, self.max_items)

    async def open(self, host: Host) -> None:
        """Create clients. Must not wait for other servers."""

    async def close(self) -> None:
        """Release what :meth:`open` created; nothing is sent any more."""

    def note_partial_success(self, signal: Signal, rejected_count: int, message: str) -> None:
        """Log what the backend said about a partial success. Rejected items are counted by what ``send`` returns."""
        self._log.warning(
            "the backend reported partial success",
            signal=str(signal),
            rejected=rejected_count,
            message=printable(message),
        )

    def note_unusable_response(self, signal: Signal, problem: str) -> None:
        """Log that the backend accepted a request, but that what it said about it cannot be read: it is delivered."""
        self._log.warning(
            "the backend accepted the data, but its response is not usable; rejected items would not be known",
            signal=str(signal),
            problem=problem,
        )

    # The component.

    async def start(self, host: Host) -> None:
        """See :class:`collector.api.Component`."""
        self._host = host
        try:
            await self._open_queues(host)
            for letters in self._dead_letters.values():
                await letters.open(host)
            await self.open(host)
        except BaseException:
            await self._close_stores()
            raise
        self.health.start(host)
        if self._dead_letters:
            self._letter_admin.start(host)
        if not self._queue_config.enabled:
            return
        for signal, queue in self._queues.items():
            queue.start(self._queue_config.num_consumers, self._senders[signal].start_sending)
            if queue.is_durable:
                self._tasks.spawn(queue.load())
            if queue.merges:
                self._tasks.spawn(queue.flush_when_due())

    async def shutdown(self) -> None:
        """Send what is queued as long as the service has time, and drop the remainder; a durable storage keeps it."""
        if self._is_shut_down:
            return
        self._is_shut_down = True
        try:
            if self._host is not None and not self._is_paused:
                await self._drain(self._host)
        finally:
            for sender in self._senders.values():
                sender.stop()
            await self._tasks.cancel_all()
            for signal, queue in self._queues.items():
                units = queue.take_all()
                await self._keep_unsent(signal, units)
                for unit in units:
                    self._settlements[signal].abandon(unit)
            await self._close_stores()
            if self._host is not None:
                await self.close()

    async def pause(self) -> None:
        """See :class:`collector.api.Exporter`."""
        self._is_paused = True
        await asyncio.gather(*(sender.gate.pause() for sender in self._senders.values()))

    def resume(self) -> None:
        """See :class:`collector.api.Exporter`."""
        self._is_paused = False
        for sender in self._senders.values():
            sender.gate.resume()

    async def consume(self, batch: Batch) -> None:
        """See :class:`collector.api.Exporter`."""
        if self.try_consume(batch) or not batch.item_count:
            return
        if self._is_shut_down:
            self._settlements[batch.signal].drop_on_shutdown(batch.item_count)
            raise RetryableError("the exporter is shutting down", reason="shutdown", retry_after_s=_RETRY_AFTER_S)
        if not self._queue_config.enabled:
            if (error := await self._send_unqueued(batch)) is not None:
                raise error
            return
        result = asyncio.get_running_loop().create_future()
        if self._enqueue(batch, result):
            await result
        elif self.waits_for_result:
            raise RetryableError(
                f"the queue of {self.settings.id} is full", reason="queue_full", retry_after_s=_RETRY_AFTER_S
            )

    def try_consume(self, batch: Batch) -> bool:
        """See :class:`collector.api.Exporter`."""
        if self.waits_for_result or self.waits_for_storage:
            return False
        if self._is_shut_down:
            self._settlements[batch.signal].drop_on_shutdown(batch.item_count)
        elif batch.item_count:
            self._enqueue(batch, None)
        return True

    def blocks_on_overflow(self) -> bool:
        """See :class:`collector.api.Exporter`."""
        return self._queue_config.enabled and self._queue_config.block_on_overflow

    def has_room(self, batch: Batch) -> bool:
        """See :class:`collector.api.Exporter`."""
        return not self._is_shut_down and (not self._queue_config.enabled or self._queues[batch.signal].has_room(batch))

    def in_flight_items(self) -> Mapping[Signal, int]:
        """See :class:`collector.api.Exporter`."""
        if self._is_closed:
            return {signal: self._left.get(self._place(signal), 0) for signal in self._queues}
        return {signal: settlement.in_flight_count for signal, settlement in self._settlements.items()}

    def sole_use(self) -> Collection[str]:
        """See :class:`collector.api.Component`."""
        names = [self._place(signal) for signal in self._queues] if self.waits_for_storage else []
        names += [letters.store_name for letters in self._dead_letters.values()]
        return names

    def send_empty(self, batch: Batch) -> None:
        """Have ``encode`` called with a batch without items, in its turn, for what the exporter sends of its own."""
        if self._queue_config.enabled:
            self._queues[batch.signal].try_add(batch)
        else:
            self._tasks.spawn(self._send_empty_unqueued(batch))

    # Helpers.

    async def _send_empty_unqueued(self, batch: Batch) -> None:
        """Whatever becomes of it, there are no items to account for."""
        await self._send_unqueued(batch)

    def _gate(self, config: ExporterConfig, max_requests: int | None) -> Gate:
        """The gate of one signal; ``max_requests`` None: whoever sends waits, so their number is not limited here."""
        breaker, concurrency = config.circuit_breaker, config.adaptive_concurrency
        limit = ConcurrencyLimit(max_requests, concurrency.latency_factor) if max_requests is not None else None
        return Gate(
            CircuitBreaker(
                breaker.failure_threshold if breaker.enabled else 0,
                lambda: self._retry.probe_backoff(breaker.probe_interval),
            ),
            limit if concurrency.enabled else None,
            self.settings.clock,
        )

    async def _keep_unsent(self, signal: Signal, units: Sequence[SendUnit]) -> None:
        """Pass on what is about to be dropped because of the shutdown to the dead letters."""
        letters, queue = self._dead_letters.get(signal), self._queues[signal]
        if letters is None or queue.is_durable or self.waits_for_result:
            return
        batches = [batch for unit in units if unit.unsettled_count for batch in await queue.read(unit)]
        await asyncio.gather(*(letters.keep(batch, "shutdown", "the exporter shut down") for batch in batches))

    def _enqueue(self, batch: Batch, result: asyncio.Future[None] | None) -> bool:
        """Add the batch to its queue. False: it was dropped instead."""
        signal = batch.signal
        if self._queues[signal].try_add(batch, result):
            return True
        self._settlements[signal].drop_on_full_queue(batch.item_count)
        letters = self._dead_letters.get(signal)
        if letters is not None and letters.includes_overflow and not self.waits_for_result:
            letters.keep_soon(batch, "queue_full", "the queue has no room")
        return False

    async def _send_unqueued(self, batch: Batch, *, keeps_lost: bool = True) -> Exception | None:
        """Send without a queue, while the caller waits; returns the error."""
        charge = self._host.admission.charge if self._host is not None else None
        if charge is not None:
            charge(batch.memory_bytes)
        try:
            return await self._senders[batch.signal].send_unqueued(batch, keeps_lost=keeps_lost)
        finally:
            if charge is not None:
                charge(-batch.memory_bytes)

    async def _send_letter(self, batch: Batch) -> Exception | None:
        """Send a dead letter again; returns the error. It does not become another one."""
        if self._is_shut_down:
            self._settlements[batch.signal].drop_on_shutdown(batch.item_count)
            return RetryableError("the exporter is shutting down", reason="shutdown", retry_after_s=_RETRY_AFTER_S)
        return await self._send_unqueued(batch, keeps_lost=False)

    async def open_storage(self, host: Host, name: str) -> QueueStorage:
        """The storage of this name in the extension that ``sending_queue::storage`` names."""
        key = f"exporters::{self.settings.id}::{self.queue_key}::storage"
        extension = find_storage(host, self._queue_config.storage, key=key)
        try:
            return await extension.queue(name)
        except OSError as error:
            raise OSError(f"{key}: {error}") from error

    def _place(self, signal: Signal) -> str:
        """Which queue of which storage this is, among all of the process."""
        return f"{self._queue_config.storage}: {self._storage_name(signal)}"

    def _storage_name(self, signal: Signal) -> str:
        return f"{self.settings.id} {signal}"

    async def _open_queues(self, host: Host) -> None:
        for signal, queue in self._queues.items():
            name = self._storage_name(signal)
            storage = await self.open_storage(host, name) if self.waits_for_storage else None
            restored_count = queue.open(storage, host.admission.charge, self._settlements[signal])
            known_count = self._left.pop(self._place(signal), 0)
            if storage is not None and not known_count:  # a predecessor in this process would know what is lost
                self._settlements[signal].drop_lost(storage.lost_item_count)
            if restored_count > known_count:
                self.telemetry.created(signal, restored_count - known_count)
            elif restored_count < known_count:
                self.telemetry.dropped(signal, known_count - restored_count, "storage_damaged")

    async def _close_stores(self) -> None:
        for letters in self._dead_letters.values():
            await letters.close()
        await self._close_queues()

    async def _close_queues(self) -> None:
        """Give the storages back. What is left in them stays in flight until a successor takes it."""
        for signal, queue in self._queues.items():
            if queue.is_durable:
                await queue.close()
                self._left[self._place(signal)] = queue.item_count
        self._is_closed = True

    async def _drain(self, host: Host) -> None:
        """Return when everything is settled or the time is over. While there is plenty of it, retries do not hurry."""
        clock, deadline_s = self.settings.clock, math.inf
        for queue in self._queues.values():
            queue.flush()
        while any(queue.size for queue in self._queues.values()):
            now_s = clock.monotonic_s()
            deadline_s = min(deadline_s, now_s + host.shutdown_time_left_s())
            if deadline_s - now_s <= _HURRY_S:
                self._retry.drain()
                for sender in self._senders.values():
                    sender.gate.drain()
            if now_s >= deadline_s:
                return
            wait_s = min(deadline_s - now_s, _LOOK_AGAIN_S)
            await wait_for_first(self._wait_empty(), clock.sleep(wait_s))

    async def _wait_empty(self) -> None:
        for queue in self._queues.values():
            await queue.wait_empty()
