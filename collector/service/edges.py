"""The edges between components.

They pass a batch through transforms, fan it out and count, so that components need not.

A batch that enters an output runs synchronously through the transforms of each pipeline that the output feeds; what
remains goes to the pipeline's targets (a stage, or its exporters and connectors). An error ends the batch's path in
that one pipeline, is counted and logged, and affects no other pipeline. Only a ``ConsumeError`` of an exporter that
waits for its backend reaches the caller, after all other targets were given the batch.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import Any, ClassVar, Final

from collector.api import Connector, ConsumeError, Exporter, PermanentError, Stage, Transform
from collector.delivery.log import RateLimitedLog
from collector.model import Batch, Signal
from collector.service.ledger import BATCH_IN_PROGRESS, BatchInProgress, LedgerEntry

__all__ = ["Edge", "ExporterEdge", "NodeEdge", "Segment", "Step"]

_CONCURRENT_MAX: Final = 64
"""Batches inside one exporter that has no queue of its own; further ones are dropped."""
_CANCEL_TIMEOUT_S: Final = 1.0  # for an exporter that cleans up after a cancellation


class Step:
    """One transform of one pipeline."""

    __slots__ = ("drop_reason", "entry", "log", "transform")

    def __init__(self, component: Transform, entry: LedgerEntry, log: RateLimitedLog) -> None:
        self.transform: Callable[[Batch], Batch | None] = component.transform
        self.entry, self.log, self.drop_reason = entry, log, component.drop_reason

    def fail(self, item_count: int, error: Exception) -> None:
        """Count what an exception has lost of a batch."""
        self.entry.drop(item_count, "error")
        _log_failure(self.log, "the processor failed; the batch is dropped from this pipeline", item_count, error)


def _log_failure(log: RateLimitedLog, message: str, lost_count: int, error: Exception) -> None:
    """Say that a component raised; ``message`` only if items are lost with that."""
    if lost_count:
        log.error(message, items=lost_count, error=repr(error), exc_info=error)
    else:
        log.error("the component failed, but no items are lost", error=repr(error), exc_info=error)


class _Edge:
    """What both kinds of edge share: a batch is taken in a plain call, or lost to a fault of the component."""

    __slots__ = ("_component_consume", "_component_try_consume", "entries", "log")
    _failed_message: ClassVar[str]

    def __init__(
        self, component: Stage | Connector | Exporter, entries: dict[Signal, LedgerEntry], log: RateLimitedLog
    ) -> None:
        self.entries, self.log = entries, log
        self._component_consume: Callable[[Batch], Awaitable[None]] = component.consume
        self._component_try_consume: Callable[[Batch], bool] | None = (
            None if isinstance(component, Connector) else component.try_consume
        )

    def try_consume(self, batch: Batch, item_count: int) -> bool:
        """Pass the batch to the component if that needs no waiting. False: nothing was done."""
        if self._component_try_consume is None:
            return False
        entry = self.entries[batch.signal]
        entry.received += item_count
        try:
            if self._component_try_consume(batch):
                return True
        except Exception as error:  # noqa: BLE001 - a component's fault must not end the process
            self._fail(item_count, entry, error)
            return True
        entry.received -= item_count
        return False

    def _fail(self, item_count: int, entry: LedgerEntry, error: Exception) -> None:
        lost_count = entry.unaccounted(item_count)
        entry.drop(lost_count, "error")
        _log_failure(self.log, self._failed_message, lost_count, error)


class NodeEdge(_Edge):
    """Into a stage or a connector."""

    __slots__ = ("component", "waits", "waits_for_result")
    _failed_message = "the component failed; the batch is dropped"

    def __init__(
        self,
        component: Stage | Connector,
        entries: dict[Signal, LedgerEntry],
        log: RateLimitedLog,
        behind: Iterable["ExporterEdge"],
    ) -> None:
        """``behind``: the exporters that its batches reach."""
        super().__init__(component, entries, log)
        self.component = component
        behind = tuple(behind)
        self.waits = any(edge.waits for edge in behind)
        """There is an exporter behind it that waits for its result or its storage, so it may take long."""
        self.waits_for_result = any(edge.waits_for_result for edge in behind)

    async def consume(self, batch: Batch, item_count: int) -> ConsumeError | None:
        """Pass the batch to the component. Returns the error that an exporter behind it reports to the sender."""
        entry = self.entries[batch.signal]
        entry.received += item_count
        try:
            await self._component_consume(batch)
        except asyncio.CancelledError:
            entry.drop(entry.unaccounted(item_count), "shutdown")
            raise
        except ConsumeError as error:  # of an exporter behind it, which has counted the items, or its own
            self._drop_uncounted(item_count, entry, error)
            return error
        except Exception as error:  # noqa: BLE001 - a component's fault must not end the process
            self._fail(item_count, entry, error)
        return None

    def _drop_uncounted(self, item_count: int, entry: LedgerEntry, error: ConsumeError) -> None:
        if lost_count := entry.unaccounted(item_count):
            entry.drop(lost_count, error.reason)
            self.log.error(self._failed_message, items=lost_count, reason=error.reason, error=str(error))


class ExporterEdge(_Edge):
    """Into an exporter.

    Exporters with a queue in memory take a batch at once (``try_consume``). One with ``waits_for_result`` or
    ``waits_for_storage`` is awaited, and the caller waits with it. Any other is awaited in a task per batch, so that a
    slow exporter delays nobody; when too many batches are inside it, further ones are dropped. The edge accounts for
    exporters that do not settle by themselves: a batch for which ``consume`` returned is delivered.
    """

    __slots__ = ("_in_progress", "_tasks", "component", "waits", "waits_for_result")
    _failed_message = "the exporter failed; the batch is not exported"

    def __init__(self, component: Exporter, entries: dict[Signal, LedgerEntry], log: RateLimitedLog) -> None:
        super().__init__(component, entries, log)
        self.component = component
        self.waits_for_result = component.waits_for_result
        self.waits = component.waits_for_result or component.waits_for_storage
        if not component.settles_by_itself:
            self._component_try_consume = self._try_and_credit
        self._tasks: set[asyncio.Task[Any]] = set()
        self._in_progress: set[BatchInProgress] = set()
        """Batches in tasks that have not begun, or inside an exporter that does not settle by itself."""

    def held_items(self, signal: Signal) -> int:
        """Items in flight in the exporter, and those on their way into it."""
        entry = self.entries[signal]
        held_count = self.component.in_flight_items().get(signal, 0)
        if self._in_progress:
            remaining_count = sum(work.remaining for work in self._in_progress if work.entry is entry)
            # Less what the exporter has counted outside the task that works on the batch.
            held_count += min(remaining_count, max(0, entry.received + entry.created - entry.gone - held_count))
        return held_count

    def has_room(self, batch: Batch) -> bool:
        """Whether the exporter would take the batch without loss."""
        return len(self._tasks) < _CONCURRENT_MAX and self.component.has_room(batch)

    async def consume(self, batch: Batch, item_count: int) -> ConsumeError | None:
        """Pass the batch to the exporter. Returns its ConsumeError if it waits for results."""
        entry = self.entries[batch.signal]
        entry.received += item_count
        if not self.waits and len(self._tasks) >= _CONCURRENT_MAX:
            entry.drop(item_count, "queue_full")
            self.log.error(
                "the exporter already works on as many batches as it may; further ones are dropped",
                items=item_count,
                batches_max=_CONCURRENT_MAX,
            )
            return None
        work = BatchInProgress(entry, item_count)
        self._in_progress.add(work)
        if self.waits:
            return await self._consume(batch, work)
        task = asyncio.ensure_future(self._consume(batch, work))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return None

    async def _consume(self, batch: Batch, work: BatchInProgress) -> ConsumeError | None:
        entry, settles = work.entry, self.component.settles_by_itself
        if settles:
            self._in_progress.discard(work)
        token = BATCH_IN_PROGRESS.set(None if settles else work)
        error: Exception | None = None
        try:
            await self._component_consume(batch)
        except asyncio.CancelledError:
            self._in_progress.discard(work)
            if not self.waits:  # this edge's own task, ended by `cancel`
                entry.drop(self._uncounted(work), "shutdown")
            elif not settles:  # the sender has gone, or the service ends
                entry.drop(self._uncounted(work), "cancelled")
            raise
        except Exception as exc:  # noqa: BLE001 - a component's fault must not end the process
            error = exc
        finally:
            BATCH_IN_PROGRESS.reset(token)
        self._in_progress.discard(work)
        if not settles:
            self._credit(work, error)
        elif error is not None and not (self.waits and isinstance(error, ConsumeError)):
            self._fail(work.item_count, entry, error)
        return error if self.waits and isinstance(error, ConsumeError) else None

    def _try_and_credit(self, batch: Batch) -> bool:
        work = BatchInProgress(self.entries[batch.signal], batch.item_count)
        token = BATCH_IN_PROGRESS.set(work)
        error: Exception | None = None
        try:
            if not self.component.try_consume(batch):
                return False
        except Exception as exc:  # noqa: BLE001 - a component's fault must not end the process
            error = exc
        finally:
            BATCH_IN_PROGRESS.reset(token)
        self._credit(work, error)
        return True

    def _uncounted(self, work: BatchInProgress) -> int:
        """Items of a batch that has left the exporter and that are in no column yet."""
        return work.entry.unaccounted(work.remaining)

    def _credit(self, work: BatchInProgress, error: Exception | None) -> None:
        """Account for what a plain exporter did with a batch, less what it has accounted for itself."""
        entry, item_count = work.entry, self._uncounted(work)
        if error is None:
            entry.delivered += item_count
        elif isinstance(error, PermanentError):
            entry.refuse(item_count, error.reason)
            if item_count:  # otherwise the exporter has counted and reported what was refused
                self.log.error("the exporter refused a batch", items=item_count, reason=error.reason, error=str(error))
        else:
            self._fail(item_count, entry, error)

    async def drain(self, deadline_s: float) -> None:
        """Let the batches inside the exporter finish, until ``deadline_s`` on the loop's clock."""
        if self._tasks:
            timeout_s = max(0.0, deadline_s - asyncio.get_running_loop().time())
            await asyncio.wait(self._tasks, timeout=timeout_s)

    async def cancel(self) -> None:
        """End the tasks that are still inside the exporter, after it was shut down."""
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks, timeout=_CANCEL_TIMEOUT_S)


Edge = NodeEdge | ExporterEdge


class Segment:
    """A run of transforms of one pipeline and the targets behind it."""

    __slots__ = ("awaited", "nonblocking", "pipeline", "steps")

    def __init__(self, pipeline: str, steps: Sequence[Step], targets: Iterable[Edge]) -> None:
        self.pipeline = pipeline
        self.steps = tuple(steps)
        targets = tuple(targets)
        self.nonblocking = tuple(target for target in targets if not target.waits)
        self.awaited = tuple(target for target in targets if target.waits)
        """Targets that wait for a backend, side by side and after the others."""

    def transform(self, batch: Batch, item_count: int) -> tuple[Batch, int] | None:
        """What the transforms leave of the batch, with its item count; None for nothing. Never raises."""
        for step in self.steps:
            entry = step.entry
            entry.received += item_count
            explained = entry.explained
            try:
                result = step.transform(batch)
                if result is batch:
                    entry.out += item_count
                    continue
                result_count = 0 if result is None else result.item_count
            except Exception as error:  # noqa: BLE001 - a component's fault must not end the process
                step.fail(item_count - (entry.explained - explained), error)
                return None
            lost_count = item_count - result_count - (entry.explained - explained)
            if lost_count > 0:
                entry.drop(lost_count, step.drop_reason)
            entry.out += result_count
            if result is None or not result_count:
                return None
            result.request_count = batch.request_count
            batch, item_count = result, result_count
        return batch, item_count
