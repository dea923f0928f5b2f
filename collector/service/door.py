"""The door: every request of a receiver comes in here, once. Admission, validation, and batching while others are on their way in.

Requests of one context that are complete within two turns of the event loop are validated one by one and go on as one
batch, so that what a batch costs is shared under load, and nobody waits when there is none: an idle loop turns at once.
Not where an exporter behind the door waits for its backend: its answer is that of one request.
"""

import asyncio
from collections.abc import Callable, Coroutine, Iterator, Sequence
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
_Late = Coroutine[Any, Any, None]


class _Group:
    """Requests that go on as one batch. Their bytes are charged to the budget until the batch is committed."""

    __slots__ = ("answers", "bound_bytes", "context", "size_bytes", "wires")

    def __init__(self, context: Context, bound_bytes: int) -> None:
        self.context = context
        self.bound_bytes = bound_bytes
        """Of the group; what there was room for when it was begun, so that its requests need not ask for each one."""
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
        # a receiver that names its transports has no line without one
        self._entry = entry_of(transport) if transport else None
        self._doors = {} if doors is None else doors
        self._doors[transport] = self
        self._groups: dict[Context, _Group] = {}  # of these turns
        # of them: nearly always the one, found without asking for the context's hash
        self._newest: _Group | None = None
        # of a group; less where items are so small that these would be more than MAX_ITEMS
        self._bound_bytes = MAX_BYTES
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
        """Commit one request with the others of these turns; see :class:`collector.api.ReceiverOutput`."""
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
                answered(error)
                return
            group = self._new_group(context, size_bytes)
        group.wires.append(wire)
        group.answers.append(answered)
        group.size_bytes += size_bytes

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
            refusal = self._refusal(batch, item_count)
            if refusal is not None:
                raise refusal
            rest = self._give(batch, item_count)
            if rest is not None:
                await rest

    def _loop(self) -> asyncio.AbstractEventLoop:
        """Kept: asking for it costs a system call (getpid)."""
        if self._running_loop is None:
            self._running_loop = asyncio.get_running_loop()
        return self._running_loop

    def _first_use(self) -> Entry:
        self._entry = self._entry_of("")
        return self._entry

    def _new_group(self, context: Context, size_bytes: int) -> _Group:
        """A group for a request of ``size_bytes``, which are held. Committed when the next turn is over: until then requests are added."""
        group = _Group(context, min(self._bound_bytes, size_bytes + self._admission.room_bytes()))
        if not self._fan.waits:
            self._groups[context] = self._newest = group
        loop = self._loop()
        # In the turn after the next: what came while this one was served is read first and goes on with it.
        loop.call_soon(loop.call_soon, self._commit_group, group)
        return group

    def _commit_group(self, group: _Group) -> None:
        """Commit and answer at once, in a task only from where a stage or an exporter has to be waited for."""
        if self._groups.get(group.context) is group:
            del self._groups[group.context]
        if self._newest is group:
            self._newest = None
        work = self._commit_requests(group.wires, group.answers, group.context)
        late: _Late | None = None
        try:
            late = next(work, None)
        finally:
            if late is None:
                self._admission.charge(-group.size_bytes)
        if late is None:
            return
        task = self._loop().create_task(self._commit_late(late, work, group.size_bytes))
        self._commits.add(task)
        task.add_done_callback(self._commits.discard)

    async def _commit_late(self, late: _Late, work: Iterator[_Late], size_bytes: int) -> None:
        try:
            await late
            for more in work:
                await more
        finally:
            self._admission.charge(-size_bytes)

    def _commit_requests(self, wires: list[bytes], answers: list[Answered], context: Context) -> Iterator[_Late]:
        """Validate and commit, as one where nothing speaks against it, else one by one; each sender is answered.

        What it yields must be awaited before it goes on.
        """
        joined = self._joined(wires, context) if len(wires) > 1 else None
        if joined is None:
            for wire, answered in zip(wires, answers, strict=True):
                yield from self._commit_alone(wire, context, answered)
            return
        batch, counts = joined
        if batch.item_count <= MAX_ITEMS:
            yield from self._commit(batch, answers, [_receipt(count) for count in counts])
            return
        for part in _parts(counts):
            yield from self._commit_requests(wires[part], answers[part], context)

    def _joined(self, wires: list[bytes], context: Context) -> tuple[Batch, list[int]] | None:
        """The requests as one batch that there is room for, and the items of each; None where each must go by itself."""
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

    def _commit_alone(self, wire: bytes, context: Context, answered: Answered) -> Iterator[_Late]:
        try:
            checked = self._type.check(wire, context)
            refusal = None if checked.batch is None else self._refusal(checked.batch, checked.batch.item_count)
        except MalformedBatch as error:
            self._answer([answered], [error])
            return
        except Exception as error:  # noqa: BLE001 - nothing may end the process, and the sender must hear of it
            self._log.error("a request could not be checked", exc_info=error)
            self._answer([answered], [error])
            return
        batch, rejected = checked.batch, checked.rejected_count
        if rejected:
            entry = self._entry or self._first_use()
            entry.received += rejected
            entry.rejected += rejected
        if checked.repaired_count:
            self._repaired.add(checked.repaired_count)
        if refusal is not None:
            self._answer([answered], [refusal])
        elif batch is None:
            self._answer([answered], [Receipt(0, rejected, checked.message)])
        else:
            receipt = Receipt(batch.item_count, rejected, checked.message) if rejected else _receipt(batch.item_count)
            yield from self._commit(batch, [answered], [receipt])

    def _refusal(self, batch: Batch, item_count: int) -> RetryableError | None:
        """Why the batch is refused, counted; None: there is room."""
        error = self._room_for(batch)
        if error is not None:
            entry = self._entry or self._first_use()
            entry.received += item_count
            entry.refuse(item_count, error.reason)
        return error

    def _commit(self, batch: Batch, answers: list[Answered], receipts: list[Receipt]) -> Iterator[_Late]:
        """The edge: whatever happens behind it, every sender is answered."""
        try:
            rest = self._give(batch, batch.item_count) if batch.item_count else None
        except Exception as error:  # noqa: BLE001 - nothing may end the process
            self._answer(answers, self._failed(batch, answers, error))
            return
        if rest is None:
            self._answer(answers, receipts)
        else:
            yield self._commit_rest(rest, batch, answers, receipts)

    async def _commit_rest(self, rest: _Late, batch: Batch, answers: list[Answered], receipts: list[Receipt]) -> None:
        outcomes: Sequence[Receipt | Exception] = receipts
        try:
            await rest
        except ConsumeError as error:
            outcomes = [error] * len(answers)
        except Exception as error:  # noqa: BLE001 - nothing may end the process
            outcomes = self._failed(batch, answers, error)
        self._answer(answers, outcomes)

    def _failed(self, batch: Batch, answers: list[Answered], error: Exception) -> list[Exception]:
        self._log.error("the pipeline failed on a request", items=batch.item_count, exc_info=error)
        return [error] * len(answers)

    def _answer(self, answers: Sequence[Answered], outcomes: Sequence[Receipt | Exception]) -> None:
        """The edge to the transport: its fault must not leave the others of the batch without their answers."""
        for answered, outcome in zip(answers, outcomes, strict=True):
            try:
                answered(outcome)
            except Exception as error:  # noqa: BLE001 - nothing may end the process
                self._log.error("a request could not be answered", exc_info=error)

    def _give(self, batch: Batch, item_count: int) -> _Late | None:
        """Commit the batch. What is returned must be awaited, and raises what an exporter that waits has to say."""
        entry = self._entry or self._first_use()
        entry.received += item_count
        entry.out += item_count
        rest = self._fan.give(batch, item_count)
        return None if rest is None else _counted(rest, item_count, entry)

    def _room_for(self, batch: Batch) -> RetryableError | None:
        """Why the batch must be refused before anything is committed: afterwards a resend would duplicate what others took."""
        for edge in self._must_not_lose:
            if not edge.has_room(batch):
                return RetryableError("the queue of an exporter that must not lose data is full", reason="queue_full")
        for edge in self._exporters:
            if edge.has_room(batch):
                return None
        return RetryableError("the queues of all exporters are full", reason="queue_full") if self._exporters else None


async def _counted(rest: _Late, item_count: int, entry: Entry) -> None:
    try:
        await rest
    except ConsumeError:
        entry.failed += item_count
        raise


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
