"""The six kinds of component and their obligations.

Construction does no I/O (``validate`` constructs the whole graph offline). ``start`` is quick: it opens sockets and
starts tasks, it does not wait for other servers. ``shutdown`` flushes what is held, and is safe on a component that was
never started and when called twice. All of a component runs on one event loop; it owns its tasks and ends them. The
service starts what is downstream first and stops what is upstream first, so outputs can be used from ``start`` of a
receiver until its ``shutdown`` returns.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import ClassVar

from collector.api.host import Host
from collector.model import Batch, Signal

__all__ = ["Component", "Connector", "Exporter", "Extension", "Receiver", "Stage", "Transform"]


class Component:
    """Anything with a life cycle."""

    async def start(self, host: Host) -> None:
        """Begin work. Raise to refuse the start of the whole service, with a message that says what to change."""

    async def shutdown(self) -> None:
        """Stop taking work, flush what is held, release everything."""


class Extension(Component):
    """Serves other components or operators, outside the pipelines."""


class Receiver(Component):
    """Brings data in and hands it to ``settings.outputs[signal]``, a :class:`ReceiverOutput`."""


class Transform(Component, ABC):
    """A processor that is a pure, synchronous function of one batch: most are.

    What leaves less than what entered is counted by the service under ``drop_reason``, unless the component itself
    counted it with ``telemetry.dropped`` or ``telemetry.folded``.
    """

    drop_reason: ClassVar[str] = "filtered"

    @abstractmethod
    def transform(self, batch: Batch) -> Batch | None:
        """The batch to pass on: the same object, a new one, or None for nothing. Must not raise for bad data."""


class Stage(Component, ABC):
    """A processor that holds data or time: emits through ``settings.outputs[signal].consume``, also from its own timers.

    One object per pipeline. Items leave exactly once: emitted, counted as dropped or folded, or still ``held_items``.
    """

    @abstractmethod
    async def consume(self, batch: Batch) -> None:
        """Take the batch. Having taken it, it is this stage's: it may not refuse."""

    def take(self, batch: Batch) -> bool:  # noqa: ARG002 - the default never can
        """``consume``, where that is possible without waiting. False: nothing was done, ``consume`` it."""
        return False

    def hand_over(self) -> bool:
        """Called before ``shutdown`` where a reload follows whose graph has this id in this pipeline. True: it keeps what is held.

        The successor takes it from ``previous`` in its ``start``. What nobody took is still in ``held_items``, and
        leaves with the next ``shutdown``.
        """
        return False

    def held_items(self) -> int:
        """Items taken and neither emitted nor dropped yet; the ledger asks."""
        return 0

    def held_bytes(self) -> int:
        """Memory of what is held; charged to the admission budget."""
        return 0


class Exporter(Component, ABC):
    """Delivers batches of every signal it is configured for. Nearly all derive from ``collector.delivery.QueuedExporter``.

    For each exporter: received = delivered + refused by the backend + dropped(reason) + in flight.
    """

    waits_for_result: bool = False  # consume() returns after the backend took it, raises what the backend said

    @abstractmethod
    async def consume(self, batch: Batch) -> None:
        """Take the batch, or drop it for this exporter alone and count that. Raises ConsumeError only if ``waits_for_result``."""

    def take(self, batch: Batch) -> bool:  # noqa: ARG002 - the default never can
        """``consume``, where that is possible without waiting. False: nothing was done, ``consume`` it."""
        return False

    def must_not_lose(self) -> bool:
        """True (``block_on_overflow``): a full queue refuses the request at the door instead of dropping here."""
        return False

    def has_room(self, batch: Batch) -> bool:  # noqa: ARG002 - the default has no bound
        """Whether ``consume(batch)`` right now would be taken without loss."""
        return True

    def in_flight_items(self) -> Mapping[Signal, int]:
        """Items taken and not yet delivered, refused or dropped, by signal; the ledger asks."""
        return {}


class Connector(Component, ABC):
    """The end of one pipeline and the start of another: ``consume`` like an exporter, ``settings.outputs`` like a receiver.

    ``settings.outputs[signal]`` fans out to every pipeline that lists it as receiver;
    ``settings.pipelines`` names them one by one for connectors that route.
    """

    @abstractmethod
    async def consume(self, batch: Batch) -> None:
        """Take the batch; emit what follows from it, now or later."""

    def held_items(self) -> int:
        """Items taken and neither emitted nor dropped yet."""
        return 0
