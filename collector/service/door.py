"""The door: every request of a receiver enters here, once. It admits, validates and batches requests.

Requests of one context that are complete within two turns of the event loop are validated one by one and committed as
one batch. Under load the cost of a batch is shared; without load nobody waits, because an idle loop turns at once.
Requests are not batched where an exporter behind the door waits for its backend, since its answer is for one request.
"""

import asyncio
from collections.abc import Callable, Collection, Coroutine, Iterator, Sequence
from functools import lru_cache, partial
from typing import Any, Final

from collector.api import ConsumeError, Counter, OnReceipt, Receipt, RetryableError, out_of_memory
from collector.model import Batch, Context, MalformedBatch, Signal, batch_type
from collector.service.admission import ServiceAdmission
from collector.service.edges import ExporterEdge
from collector.service.ledger import LedgerEntry
from collector.service.outputs import Fan, HeldFan, connected, held

__all__ = ["MAX_BYTES", "MAX_ITEMS", "Door"]

MAX_BYTES: Final = 2 * 1024 * 1024
MAX_ITEMS: Final = 8192  # the batch processor's default size
_RETRY_AFTER_S: Final = 1.0  # a queue that drains has room again after about this long
_Pending = Coroutine[Any, Any, None]
"""The part of a delivery that must be awaited."""


class _Group:
    """Requests that are committed as one batch. Their bytes are charged to the budget until then."""

    __slots__ = ("bound_bytes", "callbacks", "context", "size_bytes", "wires")

    def __init__(self, context: Context, bound_bytes: int) -> None:
        self.context = context
        self.bound_bytes = bound_bytes
        """Limit of the group: the room when it was created, so that the budget is not consulted per request."""
        self.wires: list[bytes] = []
        self.callbacks: list[OnReceipt] = []
        self.size_bytes = 0


class Door:
    """The output of a receiver: a :class:`collector.api.ReceiverOutput`."""

    def __init__(
        self,
        signal: Signal,
        fan: Fan | HeldFan,
        exporters: Sequence[ExporterEdge],
        admission: ServiceAdmission,
        entry_of: Callable[[str], LedgerEntry],
        repaired: Counter,
        log: Any,
        *,
        transport: str = "",
        doors: "dict[str, Door] | None" = None,
    ) -> None:
        self._type = batch_type(signal)
        self._admission, self._entry_of, self._repaired, self._log = admission, entry_of, repaired, log
        self._lead_to(fan, exporters)
        self._is_closed = False
        self._signal = signal
        # A receiver that names its transports has no ledger line without a transport.
        self._entry = entry_of(transport) if transport else None
        self._doors = {} if doors is None else doors
        self._doors[transport] = self
        self._groups: dict[Context, _Group] = {}  # not committed yet
        # The newest of them is nearly always the right one, and found without hashing the context.
        self._newest: _Group | None = None
        # Limit of a group; lower than MAX_BYTES where items are so small that there would be more than MAX_ITEMS.
        self._bound_bytes = MAX_BYTES
        self._commits: set[asyncio.Task[None]] = set()
        self._running_loop: asyncio.AbstractEventLoop | None = None

    @property
    def by_transport(self) -> "Collection[Door]":
        """This door and those that :meth:`for_transport` has returned. A reload leads each of them elsewhere."""
        return self._doors.values()

    def connect(self, fan: Fan, exporters: Sequence[ExporterEdge]) -> None:
        """Lead to ``fan`` from now on, and to ``exporters``, which are asked for room. Requests that wait go on."""
        self._is_closed = False
        self._lead_to(connected(self._fan, fan), exporters)

    def hold(self) -> None:
        """Let requests wait until the next ``connect``. Only the memory budget refuses any in the meantime."""
        self._lead_to(held(self._fan), ())

    def close(self) -> None:
        """Refuse requests from now on, retryably: there is nothing behind this door after a reload."""
        self._is_closed = True
        if isinstance(self._fan, HeldFan):
            self._fan.release(None)

    def _lead_to(self, fan: Fan | HeldFan, exporters: Sequence[ExporterEdge]) -> None:
        self._fan = fan
        self._exporters = tuple(exporters)
        self._blocking = tuple(edge for edge in exporters if edge.component.blocks_on_overflow())

    def for_transport(self, transport: str) -> "Door":
        """See :class:`collector.api.ReceiverOutput`."""
        known = self._doors.get(transport)
        if known is not None:
            return known
        shared = (self._signal, self._fan, self._exporters, self._admission, self._entry_of, self._repaired, self._log)
        return Door(*shared, transport=transport, doors=self._doors)

    def try_consume_request(self, wire: bytes, context: Context, on_done: OnReceipt) -> None:
        """Commit one request together with others that arrive in the same turns.

        See :class:`collector.api.ReceiverOutput`.
        """
        size_bytes = len(wire)
        group = self._newest
        if group is None or group.context is not context:
            group = self._groups.get(context)
        if group is not None and group.size_bytes + size_bytes <= group.bound_bytes:
            self._admission.charge(size_bytes)
        else:
            try:
                self._admission.hold(size_bytes)
            except RetryableError as error:
                self.refuse_unread(error.reason)
                on_done(error)
                return
            group = self._new_group(context, size_bytes)
        group.wires.append(wire)
        group.callbacks.append(on_done)
        group.size_bytes += size_bytes

    def refuse_unread(self, reason: str) -> None:
        """See :class:`collector.api.ReceiverOutput`."""
        entry = self._entry or self._first_use()
        entry.received += 1
        entry.refuse(1, reason)

    async def consume_request(self, wire: bytes, context: Context) -> Receipt:
        """Validate and commit one request; see :class:`collector.api.ReceiverOutput`."""
        future: asyncio.Future[Receipt] = self._loop().create_future()
        self.try_consume_request(wire, context, partial(_settle, future))
        return await future

    async def consume(self, batch: Batch) -> None:
        """Commit a batch that the receiver built; see :class:`collector.api.ReceiverOutput`."""
        item_count = batch.item_count
        if not item_count:
            return
        with self._admission.reserve(batch.size_bytes):
            refusal = self._refusal(batch, item_count)
            if refusal is not None:
                raise refusal
            remainder = self._deliver(batch, item_count)
            if remainder is not None:
                await remainder

    def _loop(self) -> asyncio.AbstractEventLoop:
        """The running loop, cached: looking it up costs a system call (getpid)."""
        if self._running_loop is None:
            self._running_loop = asyncio.get_running_loop()
        return self._running_loop

    def _first_use(self) -> LedgerEntry:
        self._entry = self._entry_of("")
        return self._entry

    def _new_group(self, context: Context, size_bytes: int) -> _Group:
        """A group for a request of ``size_bytes``, which are held already.

        Further requests can join it until the next turn ends.
        """
        group = _Group(context, min(self._bound_bytes, size_bytes + self._admission.room_bytes()))
        if not self._fan.waits_for_result:
            self._groups[context] = self._newest = group
        loop = self._loop()
        # Two turns later: requests that arrived while this one was being served are read first and join the group.
        loop.call_soon(loop.call_soon, self._commit_group, group)
        return group

    def _commit_group(self, group: _Group) -> None:
        """Commit and answer at once; only the part that has to wait for a stage or an exporter runs in a task."""
        if self._groups.get(group.context) is group:
            del self._groups[group.context]
        if self._newest is group:
            self._newest = None
        work = self._commit_requests(group.wires, group.callbacks, group.context)
        pending: _Pending | None = None
        try:
            pending = next(work, None)
        finally:
            if pending is None:
                self._admission.charge(-group.size_bytes)
        if pending is None:
            return
        task = self._loop().create_task(self._commit_pending(pending, work, group.size_bytes))
        self._commits.add(task)
        task.add_done_callback(self._commits.discard)

    async def _commit_pending(self, pending: _Pending, work: Iterator[_Pending], size_bytes: int) -> None:
        try:
            await pending
            for more in work:
                await more
        finally:
            self._admission.charge(-size_bytes)

    def _commit_requests(self, wires: list[bytes], callbacks: list[OnReceipt], context: Context) -> Iterator[_Pending]:
        """Validate and commit, as one batch if possible, else one by one; every sender is answered.

        What it yields must be awaited before the iteration continues.
        """
        joined = self._joined(wires, context) if len(wires) > 1 else None
        if joined is None:
            for wire, on_done in zip(wires, callbacks, strict=True):
                yield from self._commit_alone(wire, context, on_done)
            return
        batch, counts = joined
        if batch.item_count <= MAX_ITEMS:
            yield from self._commit(batch, callbacks, [_receipt(count) for count in counts])
            return
        for part in _parts(counts):
            yield from self._commit_requests(wires[part], callbacks[part], context)

    def _joined(self, wires: list[bytes], context: Context) -> tuple[Batch, list[int]] | None:
        """The requests as one batch that there is room for, with each one's item count.

        None if they must be committed singly.
        """
        try:
            joined = self._type.check_joined(wires, context)
            if joined is None:
                return None
            batch = joined[0]
            batch.request_count = len(wires)
            self._bound_bytes = min(MAX_BYTES, batch.size_bytes * MAX_ITEMS // max(batch.item_count, 1))
            if 0 < batch.item_count <= MAX_ITEMS and self._room_for(batch) is not None:
                return None
        except Exception as error:  # noqa: BLE001 - a fault must not end the process, and every sender needs an answer
            self._log.error("requests could not be validated together", exc_info=error)
            return None
        return joined

    def _commit_alone(self, wire: bytes, context: Context, on_done: OnReceipt) -> Iterator[_Pending]:
        try:
            checked = self._type.check(wire, context)
            refusal = None if checked.batch is None else self._refusal(checked.batch, checked.batch.item_count)
        except MalformedBatch as error:
            self._report([on_done], [error])
            return
        except MemoryError:
            refusal = out_of_memory()
            self.refuse_unread(refusal.reason)
            self._report([on_done], [refusal])
            return
        except Exception as error:  # noqa: BLE001 - a fault must not end the process, and the sender needs an answer
            self._log.error("a request could not be validated", exc_info=error)
            self._report([on_done], [error])
            return
        batch, rejected = checked.batch, checked.rejected_count
        if rejected:
            entry = self._entry or self._first_use()
            entry.received += rejected
            entry.rejected += rejected
        if checked.repaired_count:
            self._repaired.add(checked.repaired_count)
        if refusal is not None:
            self._report([on_done], [refusal])
        elif batch is None:
            self._report([on_done], [Receipt(0, rejected, checked.message)])
        else:
            receipt = Receipt(batch.item_count, rejected, checked.message) if rejected else _receipt(batch.item_count)
            yield from self._commit(batch, [on_done], [receipt])

    def _refusal(self, batch: Batch, item_count: int) -> RetryableError | None:
        """Count and return the reason to refuse the batch; None if there is room."""
        error = self._room_for(batch)
        if error is not None:
            entry = self._entry or self._first_use()
            entry.received += item_count
            entry.refuse(item_count, error.reason)
        return error

    def _commit(self, batch: Batch, callbacks: list[OnReceipt], receipts: list[Receipt]) -> Iterator[_Pending]:
        """Deliver the batch; whatever happens behind the door, every sender is answered."""
        try:
            remainder = self._deliver(batch, batch.item_count) if batch.item_count else None
        except Exception as error:  # noqa: BLE001 - a fault must not end the process
            self._report(callbacks, self._failed(batch, callbacks, error))
            return
        if remainder is None:
            self._report(callbacks, receipts)
        else:
            yield self._await_delivery(remainder, batch, callbacks, receipts)

    async def _await_delivery(
        self, remainder: _Pending, batch: Batch, callbacks: list[OnReceipt], receipts: list[Receipt]
    ) -> None:
        outcomes: Sequence[Receipt | Exception] = receipts
        try:
            await remainder
        except ConsumeError as error:
            outcomes = [error] * len(callbacks)
        except Exception as error:  # noqa: BLE001 - a fault must not end the process
            outcomes = self._failed(batch, callbacks, error)
        self._report(callbacks, outcomes)

    def _failed(self, batch: Batch, callbacks: list[OnReceipt], error: Exception) -> list[Exception]:
        self._log.error("the pipeline failed to process a request", items=batch.item_count, exc_info=error)
        return [error] * len(callbacks)

    def _report(self, callbacks: Sequence[OnReceipt], outcomes: Sequence[Receipt | Exception]) -> None:
        """Report the outcomes. A fault of one callback must not leave the other senders without an answer."""
        for on_done, outcome in zip(callbacks, outcomes, strict=True):
            try:
                on_done(outcome)
            except Exception as error:  # noqa: BLE001 - a fault must not end the process
                self._log.error("a request could not be answered because its callback failed", exc_info=error)

    def _deliver(self, batch: Batch, item_count: int) -> _Pending | None:
        """Pass the batch to the pipelines.

        A returned coroutine must be awaited and raises the errors of waiting exporters.
        """
        entry = self._entry or self._first_use()
        entry.received += item_count
        entry.out += item_count
        remainder = self._fan.try_consume(batch, item_count)
        return None if remainder is None else _counted(remainder, item_count, entry)

    def _room_for(self, batch: Batch) -> RetryableError | None:
        """Why the batch must be refused before it is committed.

        Later, a resend would duplicate it at other exporters.
        """
        if self._is_closed:
            return RetryableError("the receiver's pipelines were removed by a reload", reason="shutdown")
        for edge in self._blocking:
            if not edge.has_room(batch):
                return _full("the queue of an exporter with block_on_overflow is full")
        for edge in self._exporters:
            if edge.has_room(batch):
                return None
        return _full("the queues of all exporters are full") if self._exporters else None


def _full(message: str) -> RetryableError:
    return RetryableError(message, reason="queue_full", retry_after_s=_RETRY_AFTER_S)


async def _counted(remainder: _Pending, item_count: int, entry: LedgerEntry) -> None:
    try:
        await remainder
    except ConsumeError:
        entry.failed += item_count
        raise


@lru_cache(maxsize=1024)
def _receipt(item_count: int) -> Receipt:
    """The receipt of a request that was accepted completely."""
    return Receipt(item_count)


def _parts(counts: list[int]) -> list[slice]:
    """Runs of requests of at most ``MAX_ITEMS`` items; a larger request is a run of its own."""
    parts, start, items = [], 0, 0
    for place, count in enumerate(counts):
        if place > start and items + count > MAX_ITEMS:
            parts.append(slice(start, place))
            start, items = place, 0
        items += count
    return [*parts, slice(start, len(counts))]


def _settle(future: asyncio.Future[Receipt], outcome: Receipt | Exception) -> None:
    if future.done():  # the caller was cancelled
        return
    if isinstance(outcome, Receipt):
        future.set_result(outcome)
    else:
        future.set_exception(outcome)
