"""One reload: the components of the running graph that leave are exchanged for those of the new graph that come.

No listening socket is closed and no request refused. Three steps; until the second one has begun nothing is lost if a
component cannot start:

1. ``prepare``: whatever can run beside its predecessor is started (extensions, exporters, receivers, which share their
   predecessors' sockets).
2. ``swap``: receivers without a successor end. Then requests wait at the doors. Processors that leave are flushed in
   the order of the data and hand their state over; exporters and extensions end whose files or storages a successor
   needs. The successors start, and every output leads to the new graph.
3. ``retire``: what still runs of the old graph drains in the background.

Decision: docs/adr/004-reload.md.
"""

import asyncio
from collections.abc import Iterable, Sequence
from contextlib import suppress
from typing import Any, Final

from collector.api import Component, ComponentKind, Exporter
from collector.service.graph import Connection, Graph
from collector.service.hand_over import States, collect_state, pass_states
from collector.service.lifecycle import Lifecycle, of_kind
from collector.service.nodes import Node
from collector.service.outputs import Fan

__all__ = ["Exchange"]

_SWAP_S: Final = 5.0
"""How long requests may wait for a component of the old graph to end; then it continues to end in the background.
Shorter than the 10 s after which senders give up by default (OpenTelemetry SDKs' export timeout).
"""
_RELEASE_S: Final = 10.0  # how long an exporter may go on sending whose successor waits for what it uses
_RETIRE_S: Final = 300.0
"""How long an exporter that was replaced or removed may drain, or ``service::shutdown_timeout`` if that is longer. The
default of ``retry_on_failure::max_elapsed_time``.
"""
_ENTERING_S: Final = 1.0  # how long to wait for batches on their way into a component before it is ended
_PROCESSING: Final = (ComponentKind.PROCESSOR, ComponentKind.CONNECTOR)


class Exchange:
    """From the graph ``old`` to ``new``, which was built beside it. ``timeout_s``: limit of everything that drains."""

    def __init__(self, old: Graph, new: Graph, lifecycle: Lifecycle, *, timeout_s: float, log: Any) -> None:
        self.new = new
        self._old, self._lifecycle, self._timeout_s, self._log = old, lifecycle, timeout_s, log
        kept = {*old.nodes()} & {*new.nodes()}
        self.leaving = [node for node in old.nodes() if node not in kept]
        self.coming = [node for node in new.nodes() if node not in kept]
        self.states: States = {}
        self._extensions = {str(node.id): node.component for node in new.extensions}
        self._successors = {node.key: node for node in self.coming}
        self._first = self._ending_first()
        self._late = self._starting_late()
        self._ending: set[asyncio.Task[None]] = set()
        """Components that did not end in time for the swap."""

    # The order.

    def _ending_first(self) -> set[Node]:
        """The receivers, exporters and extensions that must end before their successors start."""
        wanted = _sole_uses(self.coming)
        others = [node for node in self.leaving if node.kind not in _PROCESSING]
        first = {
            node
            for node in others
            if _sole_uses([node]) & wanted or (node.key in self._successors and _has_state(node.component))
        }
        ended = {str(node.id) for node in first if node.kind is ComponentKind.EXTENSION}
        return first | {node for node in others if node.host is not None and node.host.used_extensions & ended}

    def _starting_late(self) -> set[Node]:
        """The components that start while requests wait: processors, and successors of those that end first."""
        keys = {node.key for node in self._first}
        used = _sole_uses(self._first)
        late = {node for node in self.coming if node.key in keys or _sole_uses([node]) & used}
        if of_kind(late, ComponentKind.EXTENSION):  # which of the others will look it up is not known before they start
            return {*self.coming}
        return late | {*of_kind(self.coming, *_PROCESSING)}

    def needs(self) -> set[str]:
        """What the new components use that only one component may use at a time."""
        return _sole_uses(self.coming)

    def uses(self) -> set[str]:
        """The same of the old components that have not ended."""
        return _sole_uses(node for node in self.leaving if not node.is_ended)

    # The steps.

    async def prepare(self) -> None:
        """Start what can run beside its predecessor.

        Raises:
            StartError: a component cannot start. Nothing has changed, after :meth:`undo`.
        """
        for node in self.leaving:
            if node.host is not None:
                node.host.is_leaving = True
        await self._lifecycle.start([node for node in self.coming if node not in self._late], self._extensions)
        await self._pause_stored()

    async def _pause_stored(self) -> None:
        """Let requests end of exporters that leave the remainder in a storage to their successors."""
        ending = [node.component for node in self._first if any(held.is_kept for held in node.held)]
        pauses = [component.pause() for component in ending if isinstance(component, Exporter)]
        with suppress(TimeoutError):  # then they are cut off, and sent again
            async with asyncio.timeout(self._timeout_s):
                await asyncio.gather(*pauses)

    async def undo(self) -> None:
        """End what :meth:`prepare` has started; the old graph goes on."""
        await self._lifecycle.end(self.coming, self._deadline_s(self._timeout_s))
        self._stay()

    async def swap(self) -> None:
        """Exchange the components, and lead every output to the new graph.

        Raises:
            StartError: a component cannot start. :meth:`restore` has to follow.
        """
        receivers = of_kind(self.leaving, ComponentKind.RECEIVER)
        ending = [node for node in receivers if node in self._first or node.key not in self._successors]
        for node in ending:
            self._collect(node)
        await self._lifecycle.stop(ending, self._deadline_s(self._timeout_s))
        limit_s = self._deadline_s(min(_SWAP_S, self._timeout_s))
        await self._end_processors(limit_s)
        exporters = [node for node in of_kind(self.leaving, ComponentKind.EXPORTER) if node in self._first]
        await asyncio.gather(*(node.edge.drain(limit_s) for node in exporters if node.edge is not None))
        extensions = [node for node in of_kind(self.leaving, ComponentKind.EXTENSION) if node in self._first]
        for node in (*exporters, *extensions):
            self._collect(node)
        await asyncio.gather(*(self._release(node) for node in exporters))
        await self._lifecycle.stop(extensions, self._deadline_s(self._timeout_s))
        self.pass_states(self.states, self.coming)
        await self._lifecycle.start([node for node in self.coming if node in self._late], self._extensions)
        self.connect()

    def connect(self) -> None:
        """Make the new graph the one that data goes through."""
        self.new.connect()
        for node in self.coming:
            node.telemetry.show()
        for node in self.new.nodes():
            if node.host is not None:
                node.host.extensions = self._extensions
        for key in self._old.doors.keys() - self.new.doors.keys():
            self._old.doors[key].close()

    async def retire(self) -> None:
        """Drain what still runs of the old graph, and account for what it holds."""
        deadline_s = self._deadline_s(self._timeout_s)
        stop = self._lifecycle.stop
        try:
            await asyncio.gather(
                # Their requests already go through the new graph.
                stop(of_kind(self.leaving, ComponentKind.RECEIVER), deadline_s),
                self._retire_exporters(self._deadline_s(max(_RETIRE_S, self._timeout_s))),
            )
            await stop(self.leaving, self._deadline_s(self._timeout_s))
        finally:
            for task in self._ending:
                task.cancel()
            await asyncio.gather(*self._ending, return_exceptions=True)
            await asyncio.gather(*(node.edge.cancel() for node in self.leaving if node.edge is not None))
            for node in self.leaving:
                if node.is_ended:
                    self._lifecycle.settle(node)

    def hasten(self, deadline_s: float) -> None:
        """Let what :meth:`retire` drains end at ``deadline_s``, on the loop's clock."""
        for node in self.leaving:
            if node.host is not None:
                node.host.shutdown_deadline_s = min(node.host.shutdown_deadline_s, deadline_s)

    async def restore(self, back: Graph) -> None:
        """After :meth:`swap` has failed: run ``back``, the previous configuration with the components that still run.

        Raises:
            StartError: that cannot be started either.
        """
        missing = [node for node in back.nodes() if not node.is_started]
        successors = {node.key: node for node in missing}
        started = [node for node in self.coming if node.is_started or node.detach is not None]
        for node in started:
            if node.key in successors:
                collect_state(self.states, node, successors[node.key], self._log)
        passing = {handed_over.node for handed_over in self.states.values()}
        deadline_s = self._deadline_s(self._timeout_s)
        await self._lifecycle.end(self.coming, deadline_s, handed_over=passing)
        self._stay()
        self.pass_states(self.states, missing)
        extensions = {str(node.id): node.component for node in back.extensions}
        try:
            await self._lifecycle.start(missing, extensions)
        finally:
            kept = {*back.nodes()}
            await self._lifecycle.end([node for node in self._old.nodes() if node not in kept], deadline_s)
        back.connect()
        for node in missing:
            node.telemetry.show()

    # Helpers.

    def pass_states(self, states: States, nodes: Iterable[Node]) -> None:
        """Pass states to their successors among ``nodes``."""
        pass_states(states, nodes, self._log, attach=self._lifecycle.attach, settle=self._lifecycle.settle)

    def _deadline_s(self, timeout_s: float) -> float:
        return asyncio.get_running_loop().time() + timeout_s

    def _stay(self) -> None:
        """The old components do not leave after all; doors that only the new graph has refuse what waits there."""
        for node in self.leaving:
            if node.host is not None:
                node.host.is_leaving = False
            if isinstance(node.component, Exporter):
                node.component.resume()
        for key in self.new.doors.keys() - self._old.doors.keys():
            self.new.doors[key].close()

    def _collect(self, node: Node) -> None:
        successor = self._successors.get(node.key)
        if successor is not None:
            collect_state(self.states, node, successor, self._log)

    async def _end_processors(self, limit_s: float) -> None:
        """End the processors that leave, in the order of the data. What is in front of one of them has to wait."""
        nodes = self._old.processors[::-1]
        last = max((place for place, node in enumerate(nodes) if node in self.leaving), default=-1)
        if any(node.kind is ComponentKind.EXPORTER for node in self._first):
            last = len(nodes)
        entering_s = self._deadline_s(_ENTERING_S)
        doors = self._old.doors.values()
        for door in doors:
            door.hold()
        if last >= 0:
            await _wait_idle([door.fan for door in doors], entering_s)
        connections: dict[object, Connection] = {each.output: each for each in self._old.connections}
        for node in nodes[: last + 1]:
            if node in self.leaving:
                self._collect(node)
                await self._end_in_time([node], limit_s)
                continue
            outputs = (*node.settings.outputs.values(), *node.settings.pipelines.values())
            held = [connections[output] for output in outputs]
            for connection in held:
                connection.hold()
            await _wait_idle([connection.fan for connection in held], entering_s)

    async def _end_in_time(self, nodes: Sequence[Node], limit_s: float) -> None:
        """End the components. Those that do not manage until ``limit_s`` continue in the background."""
        tasks = {
            asyncio.ensure_future(self._lifecycle.stop([node], self._deadline_s(self._timeout_s))) for node in nodes
        }
        if tasks:
            timeout_s = max(0.0, limit_s - asyncio.get_running_loop().time())
            self._ending |= tasks
            await asyncio.wait(tasks, timeout=timeout_s)

    async def _release(self, node: Node) -> None:
        """End an exporter completely, because its successor needs what it uses. A storage keeps what is not sent."""
        await self._lifecycle.stop([node], self._deadline_s(min(_RELEASE_S, self._timeout_s)))

    async def _retire_exporters(self, deadline_s: float) -> None:
        if self._ending:
            await asyncio.wait(self._ending)
        await _wait_idle(self._old.fans(), min(deadline_s, self._deadline_s(_SWAP_S)))
        exporters = of_kind(self.leaving, ComponentKind.EXPORTER)
        await asyncio.gather(*(node.edge.drain(deadline_s) for node in exporters if node.edge is not None))
        await self._lifecycle.stop(exporters, deadline_s)


async def _wait_idle(fans: Iterable[Fan], deadline_s: float) -> None:
    with suppress(TimeoutError):
        async with asyncio.timeout_at(deadline_s):
            for fan in fans:
                await fan.wait_idle()


def _sole_uses(nodes: Iterable[Node]) -> set[str]:
    return {name for node in nodes for name in node.component.sole_use()}


def _has_state(component: Component) -> bool:
    """Whether a successor can continue from its state."""
    return type(component).hand_over is not Component.hand_over
