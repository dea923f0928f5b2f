"""The edges between components: they walk a batch through transforms, fan it out, and count. Components cannot forget to.

A batch that enters an output runs synchronously through the transforms of each pipeline that the output feeds; what is
left goes to the pipeline's targets (a stage, or its exporters and connectors). An error ends the batch's way in that
one pipeline, is counted and logged, and is nobody else's matter. Only a ``ConsumeError`` of an exporter that waits for
its backend comes back to the caller, after everybody else was given the batch.
"""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Sequence
from typing import Any, ClassVar

from collector.api import Connector, ConsumeError, Exporter, RetryableError, Stage, Transform
from collector.model import Batch, Signal
from collector.service.ledger import Entry

__all__ = ["ExporterEdge", "Fan", "NodeEdge", "Segment", "StageOutput", "Step"]

_HANDED_OVER_MAX = 64  # batches inside one exporter that suspends though it should not; more are dropped
_Consume = Callable[[Batch], Awaitable[None]]


class Step:
    """One transform of one pipeline."""

    __slots__ = ("drop_reason", "entry", "log", "transform")

    def __init__(self, component: Transform, entry: Entry, log: Any) -> None:
        self.transform: Callable[[Batch], Batch | None] = component.transform
        self.entry, self.log, self.drop_reason = entry, log, component.drop_reason

    def fail(self, item_count: int, error: Exception) -> None:
        """Count a batch lost to an exception."""
        self.entry.drop(item_count, "error")
        self.log.error(
            "the processor failed, the batch is dropped for this pipeline",
            items=item_count,
            error=repr(error),
            exc_info=error,
        )


class _Edge:
    """What both kinds share: a batch that is taken in a plain call, or lost to a fault."""

    __slots__ = ("_take", "consume", "entries", "log")
    _lost_by: ClassVar[str]

    def __init__(self, component: Stage | Connector | Exporter, entries: dict[Signal, Entry], log: Any) -> None:
        self.entries, self.log = entries, log
        self.consume: _Consume = component.consume
        self._take: Callable[[Batch], bool] | None = None if isinstance(component, Connector) else component.take

    def take(self, batch: Batch, item_count: int) -> bool:
        """Give it the batch if it takes it at once. False: nothing was done."""
        if self._take is None:
            return False
        entry = self.entries[batch.signal]
        entry.received += item_count
        try:
            if self._take(batch):
                return True
        except Exception as error:  # noqa: BLE001 - nothing may end the process
            self._fail(item_count, entry, error)
            return True
        entry.received -= item_count
        return False

    def _fail(self, item_count: int, entry: Entry, error: Exception) -> None:
        lost = min(item_count, max(0, entry.row().imbalance))
        entry.drop(lost, "error")
        self.log.error(self._lost_by, items=lost, error=repr(error), exc_info=error)


class NodeEdge(_Edge):
    """Into a stage or a connector."""

    __slots__ = ("component", "waits")
    _lost_by = "the component failed, the batch is dropped here"

    def __init__(self, component: Stage | Connector, entries: dict[Signal, Entry], log: Any, *, waits: bool) -> None:
        super().__init__(component, entries, log)
        self.component = component
        self.waits = waits
        """An exporter that waits for its result is behind it: it may take long."""

    def has_room(self, batch: Batch) -> bool:
        """Always: having come so far, it takes."""
        del batch
        return True

    async def give(self, batch: Batch, item_count: int) -> ConsumeError | None:
        """Give it the batch. Returns what an exporter behind it has to tell the sender."""
        entry = self.entries[batch.signal]
        entry.received += item_count
        try:
            await self.consume(batch)
        except ConsumeError as error:
            return error
        except Exception as error:  # noqa: BLE001 - nothing may end the process
            self._fail(item_count, entry, error)
        return None


class ExporterEdge(_Edge):
    """Into an exporter.

    Exporters hand a batch to their queue: most ``take`` it at once. Those that do not are awaited and do not suspend
    either, unless ``waits_for_result``; then the caller waits with them. One that suspends all the same is given each
    batch in a task of its own, so that it delays nobody, and drops beyond a bound.
    """

    __slots__ = ("_handed_over", "_hands_over", "_tasks", "component", "waits")
    _lost_by = "the exporter failed, the batch is dropped for it"

    def __init__(self, component: Exporter, entries: dict[Signal, Entry], log: Any) -> None:
        super().__init__(component, entries, log)
        self.component = component
        self.waits = component.waits_for_result
        self._hands_over: bool | None = None  # not known before the first batch
        self._tasks: set[asyncio.Task[Any]] = set()
        self._handed_over = dict.fromkeys(entries, 0)  # items of tasks that have not begun

    def held_items(self, signal: Signal) -> int:
        """Items in flight in the exporter, and those on their way into it."""
        return self.component.in_flight_items().get(signal, 0) + self._handed_over[signal]

    def has_room(self, batch: Batch) -> bool:
        """Whether the batch would be taken without loss."""
        return len(self._tasks) < _HANDED_OVER_MAX and self.component.has_room(batch)

    async def give(self, batch: Batch, item_count: int) -> ConsumeError | None:
        """Give it the batch. Returns its ConsumeError if it waits for results."""
        entry = self.entries[batch.signal]
        entry.received += item_count
        if self.waits or self._hands_over is False:
            return await self._consume(batch, entry)
        if len(self._tasks) >= _HANDED_OVER_MAX:
            entry.drop(item_count, "queue_full")
            self.log.error("the exporter is busy, the batch is dropped", items=item_count)
            return None
        self._handed_over[batch.signal] += item_count
        task = asyncio.ensure_future(self._begin(batch, entry))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        if self._hands_over is None:
            await asyncio.sleep(0)  # one turn: the task has run as far as it gets without waiting
            self._hands_over = not task.done()
            if self._hands_over:
                self.log.warning(
                    "the exporter makes its callers wait; batches are handed to it in tasks, at most a few",
                    limit=_HANDED_OVER_MAX,
                )
        return None

    async def _begin(self, batch: Batch, entry: Entry) -> ConsumeError | None:
        self._handed_over[batch.signal] -= batch.item_count
        return await self._consume(batch, entry)

    async def _consume(self, batch: Batch, entry: Entry) -> ConsumeError | None:
        try:
            await self.consume(batch)
        except ConsumeError as error:
            if self.waits:
                return error
            self._fail(batch.item_count, entry, error)
        except asyncio.CancelledError:
            if not self.waits:  # our own task, ended by `cancel`
                entry.drop(min(batch.item_count, max(0, entry.row().imbalance)), "shutdown")
            raise
        except Exception as error:  # noqa: BLE001 - nothing may end the process
            self._fail(batch.item_count, entry, error)
        return None

    def cancel(self) -> None:
        """End what is still inside a suspended exporter (it is shut down)."""
        for task in list(self._tasks):
            task.cancel()


Edge = NodeEdge | ExporterEdge


class Segment:
    """A run of transforms of one pipeline and the targets behind it."""

    __slots__ = ("calm", "pipeline", "steps", "waiting")

    def __init__(self, pipeline: str, steps: Sequence[Step], targets: Iterable[Edge]) -> None:
        self.pipeline = pipeline
        self.steps = tuple(steps)
        targets = tuple(targets)
        self.calm = tuple(target for target in targets if not target.waits)
        self.waiting = tuple(target for target in targets if target.waits)

    def run(self, batch: Batch, item_count: int) -> tuple[Batch, int] | None:
        """What the transforms leave of the batch, and of how many items; None for nothing. Never raises."""
        for step in self.steps:
            entry = step.entry
            entry.received += item_count
            explained = entry.explained
            try:
                left = step.transform(batch)
                if left is batch:
                    entry.out += item_count
                    continue
                left_count = 0 if left is None else left.item_count
            except Exception as error:  # noqa: BLE001 - nothing may end the process
                step.fail(item_count - (entry.explained - explained), error)
                return None
            lost = item_count - left_count - (entry.explained - explained)
            if lost > 0:
                entry.drop(lost, step.drop_reason)
            entry.out += left_count
            if left is None or not left_count:
                return None
            batch, item_count = left, left_count
        return batch, item_count


class Fan:
    """An output: everything that one receiver, connector or stage feeds with one signal. An :class:`collector.api.Output`."""

    __slots__ = ("segments", "waits")

    def __init__(self, segments: Sequence[Segment]) -> None:
        self.segments = tuple(segments)
        self.waits = any(segment.waiting for segment in self.segments)
        """An exporter that waits for its result is behind it."""

    async def consume(self, batch: Batch) -> None:
        """Give the batch to every pipeline.

        Raises:
            ConsumeError: of an exporter that waits; a retryable one if there are several.
        """
        rest = self.give(batch, batch.item_count)
        if rest is not None:
            await rest

    def give(self, batch: Batch, item_count: int) -> Coroutine[Any, Any, None] | None:
        """``consume`` as far as it needs no waiting: often to its end (None). The rest must be awaited, and raises what it raises."""
        calm: list[_Left] | None = None
        waiting: list[_Left] | None = None
        for segment in self.segments:
            left = segment.run(batch, item_count)
            if left is None:
                continue
            for edge in segment.calm:
                if not edge.take(*left):
                    calm = [*(calm or ()), (edge, *left)]
            if segment.waiting:
                waiting = [*(waiting or ()), *((edge, *left) for edge in segment.waiting)]
        return None if calm is None and waiting is None else _give_rest(calm or (), waiting or ())


_Left = tuple[Edge, Batch, int]


async def _give_rest(calm: Sequence[_Left], waiting: Sequence[_Left]) -> None:
    results = [await edge.give(batch, item_count) for edge, batch, item_count in calm]
    if waiting:
        results += await asyncio.gather(*(edge.give(batch, item_count) for edge, batch, item_count in waiting))
    errors = [error for error in results if error is not None]
    if errors:
        raise next((error for error in errors if isinstance(error, RetryableError)), errors[0])


class CountedOutput:
    """What a connector emits through: counts, then fans out."""

    __slots__ = ("_entry", "_fan")

    def __init__(self, fan: Fan, entry: Entry) -> None:
        self._fan, self._entry = fan, entry

    async def consume(self, batch: Batch) -> None:
        """Pass the batch on."""
        item_count = batch.item_count
        self._entry.out += item_count
        rest = self._fan.give(batch, item_count)
        if rest is not None:
            await rest


class StageOutput:
    """What a stage emits through. Its callers are timers and flushes: errors end here, the exporters have counted them."""

    __slots__ = ("_entry", "_fan", "_log")

    def __init__(self, fan: Fan, entry: Entry, log: Any) -> None:
        self._fan, self._entry, self._log = fan, entry, log

    async def consume(self, batch: Batch) -> None:
        """Pass the batch on."""
        item_count = batch.item_count
        self._entry.out += item_count
        rest = self._fan.give(batch, item_count)
        if rest is None:
            return
        try:
            await rest
        except ConsumeError as error:
            self._log.warning(
                "an exporter behind this processor refused a batch", reason=error.reason, error=str(error)
            )
