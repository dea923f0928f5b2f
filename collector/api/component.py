"""The kinds of component and their obligations.

**Life cycle.** The service constructs a component, calls :meth:`Component.take_over` if a reload replaces an older
object, then ``start``, and finally ``shutdown``. Construction does no I/O: ``tailrace validate`` constructs the whole
graph offline. ``start`` is quick: it opens sockets and starts tasks, but does not wait for other servers. ``shutdown``
flushes what is held, and is safe on a component that was never started and when it is called twice. Everything of a
component runs on one event loop; a component owns its tasks and ends them.

**Order.** The service starts what is downstream first and stops what is upstream first, so a receiver can use its
outputs from ``start`` until ``shutdown`` returns.

**Reload.** A component whose configuration has not changed stays as it is; only its outputs lead elsewhere. Of the
others, a receiver, exporter or extension is started while its predecessor still runs, unless it continues the
predecessor's state (:meth:`Component.hand_over`) or both need the same file or directory
(:meth:`Component.sole_use`).

**Handing a batch on** has one vocabulary: ``consume`` is awaited; ``try_consume`` does the same at once, in a plain
call, and returns False if that is not possible, having done nothing.
"""

from abc import ABC, abstractmethod
from collections.abc import Collection, Mapping
from typing import Any, ClassVar

from collector.api.host import Host
from collector.model import Batch, Signal

__all__ = ["Component", "Connector", "Exporter", "Extension", "Receiver", "Stage", "Transform"]


class Component:
    """Anything with a life cycle.

    Example::

        class Scraper(Receiver):
            async def start(self, host: Host) -> None:
                self._scraping.start()

            async def shutdown(self) -> None:
                await self._scraping.stop()
    """

    async def start(self, host: Host) -> None:
        """Begin work.

        Raises:
            Exception: refuses the start of the whole service; the message says what the user has to change.
        """

    async def shutdown(self) -> None:
        """Stop taking work, flush what is held, release everything."""

    def hand_over(self, config: Any) -> object | None:  # noqa: ARG002 - the default has nothing to hand over
        """What a successor continues from, or None if there is nothing to continue and ``shutdown`` flushes as usual.

        Called before ``shutdown`` if a reload replaces the component by one with the same id (for a processor: in the
        same pipeline); ``config`` is the successor's configuration. Batches may still arrive until ``shutdown`` returns
        and must end up in the returned state. What the state holds stays in ``held_items`` until a successor has taken
        it.
        The method must be quick, and safe on a component that was never started.
        """
        return None

    def take_over(self, state: object) -> bool:  # noqa: ARG002 - the default cannot use any state
        """Continue from what the predecessor's :meth:`hand_over` returned. Called before ``start``.

        Returns False if the state cannot be used; what it holds is then dropped and counted.
        """
        return False

    def sole_use(self) -> Collection[str]:
        """What only one component of the process may use at a time: paths of files and directories, names of storages.

        A reload ends a component that uses one of them before it starts another one that does. Requests wait in the
        meantime. Sockets do not belong here: see :meth:`collector.api.Host.listen`.
        """
        return ()


class Extension(Component):
    """Serves other components or operators, outside the pipelines.

    Example::

        class Tenants(Extension):
            def tenant_of(self, api_key: str) -> str | None:
                return self._tenants.get(api_key)

        # in the ``start(host)`` of a component that uses it
        self._tenants = host.extension("tenants")
    """


class Receiver(Component):
    """Brings data in and hands it to ``settings.outputs[signal]``, a :class:`ReceiverOutput`.

    Example::

        class LinesReceiver(Receiver):
            def __init__(self, settings: Settings, config: LinesConfig) -> None:
                self._output = settings.outputs[Signal.LOGS]

            async def on_lines(self, lines: list[str]) -> None:
                builder = LogsBuilder()
                scope = builder.scope(builder.resource({"service.name": "lines"}))
                builder.records(scope, times=[self._clock.time_unix_nano()] * len(lines), bodies=lines)
                await self._output.consume(builder.build())
    """


class Transform(Component, ABC):
    """A processor that is a pure, synchronous function of one batch, as most are.

    If fewer items leave than entered, the service counts the difference under ``drop_reason``, except for what the
    component itself counted with ``telemetry.dropped`` or ``telemetry.folded``.

    Example::

        class DropDebug(Transform):
            drop_reason = "debug"

            def transform(self, batch: Batch) -> Batch:
                return batch.select(batch.field("severity_number") > 8)
    """

    drop_reason: ClassVar[str] = "filtered"

    @abstractmethod
    def transform(self, batch: Batch) -> Batch | None:
        """The batch to pass on: the same object, a new one, or None for nothing. Must not raise because of bad data."""


class Stage(Component, ABC):
    """A processor that holds data or time; it emits through ``settings.outputs[signal].consume``, also from timers.

    There is one object per pipeline. Every item leaves exactly once: it is emitted, counted as dropped or folded, or it
    is still in ``held_items``.

    Example::

        class Delay(Stage):
            async def consume(self, batch: Batch) -> None:
                self._held.append(batch)

            def held_items(self) -> int:
                return sum(batch.item_count for batch in self._held)
    """

    keeps_held_items: bool = False
    """True: what it holds at shutdown stays in a storage until the next start."""

    @abstractmethod
    async def consume(self, batch: Batch) -> None:
        """Take the batch. From now on it belongs to this stage, which may not refuse it.

        The sender's answer waits until the method returns.
        """

    def try_consume(self, batch: Batch) -> bool:  # noqa: ARG002 - the default never can
        """Do what ``consume`` does if that needs no waiting. False: nothing was done; the caller awaits ``consume``."""
        return False

    def held_items(self) -> int:
        """Items taken and neither emitted nor dropped yet; read by the ledger."""
        return 0

    def held_bytes(self) -> int:
        """Memory of what is held; charged to the admission budget."""
        return 0


class Exporter(Component, ABC):
    """Delivers batches of every signal it is configured for.

    Exporters to a backend derive from :class:`collector.delivery.QueuedExporter`, which adds queue, retry and batching.
    A plain exporter only implements ``consume``: a batch for which it returns counts as delivered, except for items
    that the exporter itself counted with ``telemetry.dropped`` or ``telemetry.refused``; a batch for which it raises
    :class:`PermanentError` counts as refused, and one for which it raises anything else as dropped. It is called in a
    task of its own, so that it delays nobody, for several batches at a time.

    For every exporter: received = delivered + dropped + refused + in flight.

    Example::

        class PrintExporter(Exporter):
            async def consume(self, batch: Batch) -> None:
                print(batch.signal, batch.item_count)
    """

    settles_by_itself: ClassVar[bool] = False
    """True: it reports delivered, refused and dropped items to the ledger itself, as exporters with a queue do."""
    waits_for_result: bool = False
    """True: ``consume`` returns once the backend has taken the batch, and raises what the backend answered."""
    waits_for_storage: bool = False
    """True: ``consume`` returns once the batch is stored where a restart does not harm it, and raises RetryableError if
    it cannot be stored. What is in flight at shutdown stays there until the next start."""

    @abstractmethod
    async def consume(self, batch: Batch) -> None:
        """Deliver the batch, or take it into a queue.

        Raises:
            ConsumeError: the batch was not taken. The sender learns of it only if ``waits_for_result`` or
                ``waits_for_storage`` is set.
        """

    def try_consume(self, batch: Batch) -> bool:  # noqa: ARG002 - the default never can
        """Do what ``consume`` does if that needs no waiting. False: nothing was done; the caller awaits ``consume``."""
        return False

    def blocks_on_overflow(self) -> bool:
        """True: while the queue is full, requests are refused at the door instead of being dropped here."""
        return False

    def has_room(self, batch: Batch) -> bool:  # noqa: ARG002 - the default has no bound
        """Whether ``consume(batch)`` would take the batch right now without loss."""
        return True

    async def pause(self) -> None:
        """Begin no further request to the backend, and return when those in flight have ended.

        Called before a reload shuts the exporter down whose successor continues its storage, so that no request is
        cut off and then sent again. Batches still arrive and are stored.
        """

    def resume(self) -> None:
        """Send again after :meth:`pause`: the reload has failed."""

    def in_flight_items(self) -> Mapping[Signal, int]:
        """Items taken and not yet delivered, refused or dropped, by signal; read by the ledger."""
        return {}


class Connector(Component, ABC):
    """The end of one pipeline and the start of another: ``consume`` like an exporter, outputs like a receiver.

    ``settings.outputs[signal]`` fans out to every pipeline that lists the connector as a receiver;
    ``settings.pipelines`` has those pipelines by name, for connectors that route.

    Example::

        class Forward(Connector):
            async def consume(self, batch: Batch) -> None:
                await self._settings.outputs[batch.signal].consume(batch)
    """

    keeps_held_items: bool = False
    """True: what it holds at shutdown stays in a storage until the next start."""

    @abstractmethod
    async def consume(self, batch: Batch) -> None:
        """Take the batch; emit what follows from it, now or later."""

    def held_items(self) -> Mapping[Signal, int]:
        """Items taken and neither emitted nor dropped yet, by the signal they were taken as; read by the ledger."""
        return {}
