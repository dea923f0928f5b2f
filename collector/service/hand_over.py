"""The state of components over a reload: collected from those that end, passed to their successors.

A component's fault in ``hand_over`` or ``take_over`` is logged and never ends the reload.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, TypeAlias

from collector.service.nodes import Node, NodeKey

__all__ = ["HandedOver", "States", "collect_state", "pass_states"]


@dataclass(frozen=True, slots=True)
class HandedOver:
    """A state, and the component that it comes from, which still counts the items in it."""

    state: object
    node: Node


States: TypeAlias = dict[NodeKey, HandedOver]


def collect_state(states: States, node: Node, successor: Node, log: Any) -> None:
    """Add the state of ``node`` to ``states`` if it has any. Its ``shutdown`` must follow."""
    try:
        state = node.component.hand_over(successor.config)
    except Exception as error:
        log.exception(
            "a component failed to hand over its state; it is flushed instead", component=node.path, error=str(error)
        )
        return
    if state is not None:
        states[node.key] = HandedOver(state, node)


def pass_states(
    states: States, nodes: Iterable[Node], log: Any, *, attach: Callable[[Node], None], settle: Callable[[Node], None]
) -> None:
    """Pass ``states`` to ``nodes``, which have not been started, and remove them.

    ``attach`` makes ledger and memory budget count what a node holds; ``settle`` counts what it holds as dropped.
    """
    for node in nodes:
        handed_over = states.pop(node.key, None)
        if handed_over is None:
            continue
        attach(node)
        previous = handed_over.node
        held_before = [(held.entry, held.count()) for held in previous.held]
        try:
            is_taken = node.component.take_over(handed_over.state)
        except Exception as error:
            log.exception(
                "a component failed to take over its predecessor's state", component=node.path, error=str(error)
            )
            # It may have failed after it took some of the items, which are now its own.
            taken = {held.entry: held.count() for held in node.held}
            for entry, count in held_before:
                if (lost_count := count - taken.get(entry, 0)) > 0:
                    entry.drop(lost_count, "shutdown")
            is_taken = True
        if not is_taken:
            settle(previous)
        elif previous.detach is not None:
            previous.detach()
