"""The door: every request of a receiver comes in here, once. Admission, validation, and batching while others are on their way in.

Requests of one context that are complete in the same turn of the event loop are validated one by one and go on as one batch, so that
what a batch costs is shared under load, and nobody waits when there is none. Not where an exporter behind the door waits for its
backend: its answer is that of one request.
"""

import asyncio
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from functools import partial
from typing import Any, Final

from collector.api import Answered, ConsumeError, Counter, Receipt, RetryableError
from collector.model import Batch, Context, MalformedBatch, Signal, batch_type
from collector.service.admission import ServiceAdmission
from collector.service.edges import ExporterEdge, Fan
from collector.service.ledger import Entry

__all__ = ["MAX_BYTES", "MAX_ITEMS", "Door"]

MAX_BYTES: Final = 2 * 1024 * 1024
MAX_ITEMS: Final = 8192  # the batch processor's default size


class _Group:
    """Requests that go on as one batch. Their bytes are reserved until the batch is committed."""

    __slots__ = ("answers", "batches", "held", "item_count", "size_bytes")

    def __init__(self) -> None:
        self.batches: list[Batch] = []
        self.answers: list[tuple[Answered, Receipt]] = []
        self.held = ExitStack()
        self.item_count = self.size_bytes = 0

    def add(self, batch: Batch, answered: Answered, receipt: Receipt) -> None:
        """One more request."""
        self.batches.append(batch)
        self.answers.append((answered, receipt))
        self.item_count += receipt.accepted_count
        self.size_bytes += batch.size_bytes


class Door:
    """A receiver's output. An :class:`collector.api.ReceiverOutput`."""

    def __init__(
        self,
        signal: Signal,
        fan: Fan,
        exporters: Sequence[ExporterEdge],
        admission: ServiceAdmission,
        entry_of: Callable[[str], Entry],
        repaired: Counter,
        log: Any,
        *,
        transport: str = "",
        doors: "dict[str, Door] | None" = None,
    ) -> None:
        self._type = batch_type(signal)
        self._fan, self._admission, self._entry_of, self._repaired, self._log = fan, admission, entry_of, repaired, log
        self._exporters = tuple(exporters)
        self._must_not_lose = tuple(edge for edge in exporters if edge.component.must_not_lose())
        self._signal = signal
        self._entry = entry_of(transport) if transport else None  # a receiver that names its transports has no line without one
        self._doors = {} if doors is None else doors
        self._doors[transport] = self
        self._groups: dict[Context, _Group] = {}  # of this turn
        self._commits: set[asyncio.Task[None]] = set()

    def over(self, transport: str) -> "Door":
        """The same door, counting under another transport."""
        known = self._doors.get(transport)
        if known is not None:
            return known
        shared = (self._signal, self._fan, self._exporters, self._admission, self._entry_of, self._repaired, self._log)
        return Door(*shared, transport=transport, doors=self._doors)

    def submit(self, wire: bytes, context: Context, answered: Answered) -> None:
        """Validate one request and commit it with the others of this turn; see :class:`collector.api.ReceiverOutput`."""
        group = self._groups.get(context)
        if group is None:
            group = _Group()
        size_bytes = len(wire)
        if group.batches and group.size_bytes + size_bytes > MAX_BYTES:
            self._send(context)
            group = _Group()
        try:
            reservation = self._admission.reserve(size_bytes)
            checked = self._type.check(wire, context)
        except (MalformedBatch, ConsumeError) as error:
            answered(error)
            return
        except Exception as error:  # noqa: BLE001 - nothing may end the process, and the sender must hear of it
            self._log.error("a request could not be checked", exc_info=error)
            answered(error)
            return
        entry = self._entry or self._first_use()
        rejected = checked.rejected_count
        if rejected:
            entry.received += rejected
            entry.rejected += rejected
        if checked.repaired_count:
            self._repaired.add(checked.repaired_count)
        batch = checked.batch
        if batch is None:
            answered(Receipt(0, rejected, checked.message))
            return
        item_count = batch.item_count
        if group.batches and group.item_count + item_count > MAX_ITEMS:
            self._send(context)
            group = _Group()
        if not group.batches:
            if not self._groups and not self._fan.waits:
                asyncio.get_running_loop().call_soon(self._end_turn)
            self._groups[context] = group
        group.held.enter_context(reservation)
        group.add(batch, answered, Receipt(item_count, rejected, checked.message))
        if self._fan.waits:
            self._send(context)

    async def admit(self, wire: bytes, context: Context) -> Receipt:
        """Validate and commit one request; see :class:`collector.api.ReceiverOutput`."""
        future: asyncio.Future[Receipt] = asyncio.get_running_loop().create_future()
        self.submit(wire, context, partial(_settle, future))
        return await future

    async def consume(self, batch: Batch) -> None:
        """The same for a batch the receiver built."""
        item_count = batch.item_count
        if not item_count:
            return
        with self._admission.reserve(batch.size_bytes):
            await self._commit(batch, item_count, self._entry or self._first_use())

    def _first_use(self) -> Entry:
        self._entry = self._entry_of("")
        return self._entry

    def _end_turn(self) -> None:
        for context in list(self._groups):
            self._send(context)

    def _send(self, context: Context) -> None:
        """Commit a group, in a task of its own: a stage or an exporter that waits may suspend."""
        task = asyncio.ensure_future(self._commit_group(self._groups.pop(context)))
        self._commits.add(task)
        task.add_done_callback(self._commits.discard)

    async def _commit_group(self, group: _Group) -> None:
        """Commit all as one and answer each; where there is no room for all, one by one, so that those are taken that fit."""
        entry = self._entry or self._first_use()
        with group.held:
            if len(group.batches) > 1:
                merged = self._type.concat(group.batches)
                if self._room_for(merged) is None:
                    error = await self._try_commit(merged, group.item_count, entry)
                    for answered, receipt in group.answers:
                        self._answer(answered, error or receipt)
                    return
            for batch, (answered, receipt) in zip(group.batches, group.answers, strict=True):
                self._answer(answered, await self._try_commit(batch, receipt.accepted_count, entry) or receipt)

    def _answer(self, answered: Answered, outcome: Receipt | Exception) -> None:
        """The edge to the transport: its fault must not leave the others of the batch without their answers."""
        try:
            answered(outcome)
        except Exception as error:  # noqa: BLE001 - nothing may end the process
            self._log.error("a request could not be answered", exc_info=error)

    async def _try_commit(self, batch: Batch, item_count: int, entry: Entry) -> Exception | None:
        """The edge: whatever happens behind it, every sender is answered."""
        try:
            await self._commit(batch, item_count, entry)
        except ConsumeError as error:
            return error
        except Exception as error:  # noqa: BLE001 - nothing may end the process
            self._log.error("the pipeline failed on a request", items=item_count, exc_info=error)
            return error
        return None

    async def _commit(self, batch: Batch, item_count: int, entry: Entry) -> None:
        entry.received += item_count
        error = self._room_for(batch)
        if error is not None:
            entry.refuse(item_count, error.reason)
            raise error
        entry.out += item_count
        try:
            await self._fan.give(batch, item_count)
        except ConsumeError:
            entry.failed += item_count
            raise

    def _room_for(self, batch: Batch) -> RetryableError | None:
        """Why the batch must be refused before anything is committed: afterwards a resend would duplicate what others took."""
        for edge in self._must_not_lose:
            if not edge.has_room(batch):
                return RetryableError("the queue of an exporter that must not lose data is full", reason="queue_full")
        for edge in self._exporters:
            if edge.has_room(batch):
                return None
        return RetryableError("the queues of all exporters are full", reason="queue_full") if self._exporters else None


def _settle(future: asyncio.Future[Receipt], outcome: Receipt | Exception) -> None:
    if future.done():  # the caller went away
        return
    if isinstance(outcome, Receipt):
        future.set_result(outcome)
    else:
        future.set_exception(outcome)
