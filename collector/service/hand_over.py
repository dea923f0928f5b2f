"""The state of components over a reload.

Collected from the old graph, passed to the new one, accounted for if nobody takes it.

A component's fault in ``hand_over`` or ``take_over`` is logged and never ends the reload.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

from collector.service.graph import Graph, HeldItems, NodeKey

__all__ = ["HandedOver", "States", "collect_states", "drop_held", "pass_states"]


@dataclass(frozen=True, slots=True)
class HandedOver:
    """The state of a component that is being replaced, and the items it holds."""

    state: object
    held: Sequence[HeldItems]


States: TypeAlias = dict[NodeKey, HandedOver]


def collect_states(graph: Graph, planned: Graph, log: Any) -> States:
    """The states of those components of ``graph`` that have a successor in ``planned``."""
    states: States = {}
    successors = {node.key for node in planned.nodes()}
    for node in graph.nodes():
        if node.key not in successors:
            continue
        try:
            state = node.component.hand_over(planned.config.components(node.kind)[node.id].config)
        except Exception as error:
            log.exception(
                "a component failed to hand over its state; it is flushed instead",
                component=node.path,
                error=str(error),
            )
            continue
        if state is not None:
            held = [held for held in graph.held if held.node == node.key and not held.is_in_flight]
            states[node.key] = HandedOver(state, held)
    return states


def pass_states(graph: Graph, states: States, log: Any) -> None:
    """Pass ``states`` to the components of ``graph`` and remove them.

    What no component takes is dropped and counted.
    """
    for node in graph.nodes():
        handed_over = states.pop(node.key, None)
        if handed_over is None:
            continue
        held_before = [(held, held.count()) for held in handed_over.held]
        is_taken = False
        try:
            is_taken = node.component.take_over(handed_over.state)
        except Exception as error:
            log.exception(
                "a component failed to take over its predecessor's state", component=node.path, error=str(error)
            )
            # It may have failed after it took some of the items, which are now its own.
            adopted = {held.entry: held.count() for held in graph.held if held.node == node.key}
            for held, count in held_before:
                _drop(held, count - adopted.get(held.entry, 0))
            continue
        if not is_taken:
            drop_held(handed_over.held)


def drop_held(held_items: Iterable[HeldItems]) -> None:
    """Count as dropped what is still held and no longer has a way out."""
    for held in held_items:
        if not held.is_kept:
            _drop(held, held.count())


def _drop(held: HeldItems, item_count: int) -> None:
    if held.entry.held is not held.count:
        return  # a successor counts it by now
    if item_count > 0:
        held.entry.drop(item_count, "shutdown")
    held.entry.held = None
