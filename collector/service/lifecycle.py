"""Starting and ending components, and accounting for what they hold.

Components start downstream first, receivers last. They end in the order of the data, receivers first, so that
everything that was taken can leave; what has not left in time is dropped with the reason ``shutdown``.
"""

import asyncio
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Any, Final

from collector.api import Component, ComponentKind, Stage, Status
from collector.service.graph import StartError
from collector.service.host import ComponentHost, HostService
from collector.service.keeping import states_of_files
from collector.service.nodes import Node, NodeKey

__all__ = ["LAST_CHANCE_S", "Lifecycle"]

LAST_CHANCE_S: Final = 1.0
"""For a component to finish when the time is used up."""
_PROCESSING: Final = frozenset({ComponentKind.PROCESSOR, ComponentKind.CONNECTOR})


class Lifecycle:
    """Starts and ends the components of one service."""

    def __init__(self, service: HostService, log: Any) -> None:
        self._service, self._log = service, log
        self._left: dict[NodeKey, Node] = {}
        """Ended components that left items in a storage, which a successor will find there."""

    async def start(self, nodes: Iterable[Node], extensions: Mapping[str, Component]) -> None:
        """Start the components one after the other; they can look up ``extensions``.

        Raises:
            StartError: one of them cannot start. Those before it run.
        """
        for node in nodes:
            host = node.host = ComponentHost(self._service, extensions)
            node.files = states_of_files(node.config)
            node.is_started = True
            self.attach(node)
            try:
                await node.component.start(host)
            except Exception as error:
                host.report(Status.PERMANENT_ERROR, str(error))
                message = str(error) if node.path in str(error) else f"{node.path}: {error}"
                raise StartError(message) from error
            if host.status is Status.STARTING:
                host.report(Status.OK)
            left = self._left.pop(node.key, None)
            if left is not None and left.detach is not None:
                left.detach()

    async def end(self, nodes: Sequence[Node], deadline_s: float, *, handed_over: Collection[Node] = ()) -> None:
        """End the components, which are in the order of their start, until ``deadline_s`` on the loop's clock.

        What they still hold then is dropped, except what those ``handed_over`` hold: their successors take it.
        """
        edges = [node.edge for node in nodes if node.edge is not None]
        for node in nodes:
            if node.host is not None and not node.is_ended:
                node.host.report(Status.STOPPING)
        try:
            await self.stop(of_kind(nodes, ComponentKind.RECEIVER), deadline_s)
            for node in reversed(of_kind(nodes, *_PROCESSING)):
                await self.stop([node], deadline_s)
            await asyncio.gather(*(edge.drain(deadline_s) for edge in edges))
            await self.stop(of_kind(nodes, ComponentKind.EXPORTER), deadline_s)
            await self.stop(of_kind(nodes, ComponentKind.EXTENSION), deadline_s)
        finally:
            await asyncio.gather(*(edge.cancel() for edge in edges))
            for node in nodes:
                if node.is_ended and node not in handed_over:  # if this was cancelled, another call ends the others
                    self.settle(node)

    async def stop(self, nodes: Iterable[Node], deadline_s: float) -> None:
        """Shut down those of the components that have not ended, side by side."""
        await asyncio.gather(*(self._stop_one(node, deadline_s) for node in nodes if not node.is_ended))

    async def _stop_one(self, node: Node, deadline_s: float) -> None:
        try:
            if node.host is not None:
                node.host.shutdown_deadline_s = min(node.host.shutdown_deadline_s, deadline_s)
            # A component that uses its time to the end needs a moment more to account for what is left.
            async with asyncio.timeout_at(max(deadline_s, asyncio.get_running_loop().time()) + LAST_CHANCE_S):
                await node.component.shutdown()
        except TimeoutError:
            self._log.error("a component did not shut down in time", component=node.path, pipeline=node.pipeline)
        except Exception as error:  # noqa: BLE001 - whatever one component raises, the others are shut down too
            self._log.exception("a component failed while shutting down", component=node.path, error=str(error))
        node.is_ended = True
        if node.host is not None:
            node.host.report(Status.STOPPED)

    def attach(self, node: Node) -> None:
        """Make ledger and memory budget count what the component holds. Does nothing the second time."""
        if node.detach is not None:
            return
        entries = [(held.entry.holders, held.count) for held in node.held]
        for holders, count in entries:
            holders.append(count)
        remove_source: Callable[[], None] | None = None
        if isinstance(node.component, Stage):
            remove_source = self._service.admission.add_source(node.component.held_bytes)

        def detach() -> None:
            node.detach = None
            for holders, count in entries:
                holders.remove(count)
            if remove_source is not None:
                remove_source()

        node.detach = detach

    def settle(self, node: Node) -> None:
        """Count what an ended component still holds as dropped, unless it is in a storage."""
        if node.detach is None:
            return  # it was never started, or a successor counts it by now
        if any(held.is_kept and held.count() for held in node.held):
            self._left[node.key] = node
            return
        for held in node.held:
            if (lost_count := held.count()) > 0:
                held.entry.drop(lost_count, "shutdown")
        node.detach()


def of_kind(nodes: Iterable[Node], *kinds: ComponentKind) -> list[Node]:
    """Those of the components that are of one of the kinds, in the same order."""
    return [node for node in nodes if node.kind in kinds]
