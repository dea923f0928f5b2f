"""The door: every request of a receiver comes in here, once. Admission, validation, and batching while others are on their way in.

Requests of one context that are complete in the same turn of the event loop are validated one by one and go on as one batch, so that
what a batch costs is shared under load, and nobody waits when there is none. Not where an exporter behind the door waits for its
backend: its answer is that of one request.
"""

import asyncio
from collections.abc import Callable, Sequence
from functools import lru_cache, partial
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
    """Requests that go on as one batch. Their bytes are charged to the budget until the batch is committed."""

    __slots__ = ("answers", "context", "size_bytes", "wires")

    def __init__(self, context: Context) -> None:
        self.context = context
        self.wires: list[bytes] = []
        self.answers: list[Answered] = []
        self.size_bytes = 0


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
        self._bound_bytes = MAX_BYTES  # of a group; less where items are so small that these would be more than MAX_ITEMS
        self._commits: set[asyncio.Task[None]] = set()
        self._running_loop: asyncio.AbstractEventLoop | None = None

    def over(self, transport: str) -> "Door":
        """The same door, counting under another transport."""
        known = self._doors.get(transport)
        if known is not None:
            return known
        shared = (self._signal, self._fan, self._exporters, self._admission, self._entry_of, self._repaired, self._log)
        return Door(*shared, transport=transport, doors=self._doors)

    def submit(self, wire: bytes, context: Context, answered: Answered) -> None:
        """Commit one request with the others of this turn; see :class:`collector.api.ReceiverOutput`."""
        size_bytes = len(wire)
        try:
            self._admission.reserve(size_bytes)  # asks; what is held is charged below, once for the whole group
        except RetryableError as error:
            answered(error)
            return
        group = self._groups.get(context)
        if group is None or group.size_bytes + size_bytes > self._bound_bytes:
            group = self._new_group(context)
        group.wires.append(wire)
        group.answers.append(answered)
        group.size_bytes += size_bytes
        self._admission.charge(size_bytes)

    async def admit(self, wire: bytes, context: Context) -> Receipt:
        """Validate and commit one request; see :class:`collector.api.ReceiverOutput`."""
        future: asyncio.Future[Receipt] = self._loop().create_future()
        self.submit(wire, context, partial(_settle, future))
        return await future

    async def consume(self, batch: Batch) -> None:
        """The same for a batch the receiver built."""
        item_count = batch.item_count
        if not item_count:
            return
        with self._admission.reserve(batch.size_bytes):
            await self._commit(batch, item_count, self._entry or self._first_use())

    def _loop(self) -> asyncio.AbstractEventLoop:
        """Kept: asking for it costs a system call (getpid)."""
        if self._running_loop is None:
            self._running_loop = asyncio.get_running_loop()
        return self._running_loop

    def _first_use(self) -> Entry:
        self._entry = self._entry_of("")
        return self._entry

    def _new_group(self, context: Context) -> _Group:
        """A group, with the task that commits it. The task begins when this turn is over: until then requests are added."""
        group = _Group(context)
        if not self._fan.waits:
            self._groups[context] = group
        task = self._loop().create_task(self._commit_group(group))
        self._commits.add(task)
        task.add_done_callback(self._commits.discard)
        return group

    async def _commit_group(self, group: _Group) -> None:
        """A task of its own: a stage or an exporter that waits may suspend it."""
        if self._groups.get(group.context) is group:
            del self._groups[group.context]
        try:
            await self._commit_requests(group.wires, group.answers, group.context)
        finally:
            self._admission.charge(-group.size_bytes)

    async def _commit_requests(self, wires: list[bytes], answers: list[Answered], context: Context) -> None:
        """Validate and commit, as one where nothing speaks against it, else one by one; each sender is answered."""
        joined = self._joined(wires, context) if len(wires) > 1 else None
        if joined is not None:
            batch, counts = joined
            if batch.item_count <= MAX_ITEMS:
                await self._commit_joined(batch, counts, answers)
            else:
                for part in _parts(counts):
                    await self._commit_requests(wires[part], answers[part], context)
            return
        for wire, answered in zip(wires, answers, strict=True):
            self._answer(answered, await self._commit_alone(wire, context))

    def _joined(self, wires: list[bytes], context: Context) -> tuple[Batch, list[int]] | None:
        """The requests as one batch, and the items of each; None where each must go by itself."""
        try:
            joined = self._type.check_joined(wires, context)
            if joined is None:
                return None
            batch = joined[0]
            self._bound_bytes = min(MAX_BYTES, batch.size_bytes * MAX_ITEMS // max(batch.item_count, 1))
            if 0 < batch.item_count <= MAX_ITEMS and self._room_for(batch) is not None:
                return None
        except Exception as error:  # noqa: BLE001 - nothing may end the process, and every sender must hear of it
            self._log.error("requests could not be checked together", exc_info=error)
            return None
        return joined

    async def _commit_joined(self, batch: Batch, counts: list[int], answers: list[Answered]) -> None:
        error = None
        if batch.item_count:
            error = await self._try_commit(batch, batch.item_count)
        for answered, count in zip(answers, counts, strict=True):
            self._answer(answered, error or _receipt(count))

    async def _commit_alone(self, wire: bytes, context: Context) -> Receipt | Exception:
        try:
            checked = self._type.check(wire, context)
        except MalformedBatch as error:
            return error
        except Exception as error:  # noqa: BLE001 - nothing may end the process, and the sender must hear of it
            self._log.error("a request could not be checked", exc_info=error)
            return error
        rejected = checked.rejected_count
        if rejected:
            entry = self._entry or self._first_use()
            entry.received += rejected
            entry.rejected += rejected
        if checked.repaired_count:
            self._repaired.add(checked.repaired_count)
        batch = checked.batch
        if batch is None:
            return Receipt(0, rejected, checked.message)
        return await self._try_commit(batch, batch.item_count) or Receipt(batch.item_count, rejected, checked.message)

    def _answer(self, answered: Answered, outcome: Receipt | Exception) -> None:
        """The edge to the transport: its fault must not leave the others of the batch without their answers."""
        try:
            answered(outcome)
        except Exception as error:  # noqa: BLE001 - nothing may end the process
            self._log.error("a request could not be answered", exc_info=error)

    async def _try_commit(self, batch: Batch, item_count: int) -> Exception | None:
        """The edge: whatever happens behind it, every sender is answered."""
        try:
            await self._commit(batch, item_count, self._entry or self._first_use())
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


@lru_cache(maxsize=1024)
def _receipt(item_count: int) -> Receipt:
    """Of a request that was taken whole."""
    return Receipt(item_count)


def _parts(counts: list[int]) -> list[slice]:
    """Runs of requests of at most ``MAX_ITEMS`` items; one of more goes alone."""
    parts, start, items = [], 0, 0
    for place, count in enumerate(counts):
        if place > start and items + count > MAX_ITEMS:
            parts.append(slice(start, place))
            start, items = place, 0
        items += count
    return [*parts, slice(start, len(counts))]


def _settle(future: asyncio.Future[Receipt], outcome: Receipt | Exception) -> None:
    if future.done():  # the caller went away
        return
    if isinstance(outcome, Receipt):
        future.set_result(outcome)
    else:
        future.set_exception(outcome)
