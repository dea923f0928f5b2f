"""What sampling decided, for components that must know it later: exemplars point at traces that were kept.

One registry a process: a sampling processor registers a way to ask it under its id, others ask by that id. Nothing is
held here.
"""

from collections.abc import Callable, Sequence
from enum import IntEnum
from typing import Final, TypeAlias

import numpy as np

from collector.model.arrays import I8, U64

__all__ = ["Decision", "Lookup", "is_registered", "lookup", "register", "unregister"]


class Decision(IntEnum):
    """What is known of a trace."""

    UNKNOWN = 0
    """Never seen, or forgotten."""
    PENDING = 1
    """Held, not decided yet."""
    KEPT = 2
    DROPPED = 3


Lookup: TypeAlias = Callable[[U64], I8]
"""Trace ids U64[n,2] to a ``Decision`` each, I8[n]. Must not raise, and must not suspend."""

_ORDER: Final = np.array([0, 1, 3, 2], np.int8)  # by Decision: what one pipeline kept is kept, whatever another dropped
_BY_ORDER: Final = np.argsort(_ORDER).astype(np.int8)
_registered: dict[str, list[Lookup]] = {}


def register(component_id: str, ask: Lookup) -> None:
    """Answer for ``component_id``. A processor is one object a pipeline: several may answer for one id."""
    _registered.setdefault(component_id, []).append(ask)


def unregister(component_id: str, ask: Lookup) -> None:
    """Answer no longer; safe when never registered, and twice."""
    known: Sequence[Lookup] = _registered.get(component_id, ())
    left = [each for each in known if each != ask]
    if left:
        _registered[component_id] = left
    else:
        _registered.pop(component_id, None)


def is_registered(component_id: str) -> bool:
    """Whether anybody answers for the id."""
    return component_id in _registered


def lookup(component_id: str, trace_ids: U64) -> I8 | None:
    """The decision on each trace, I8[n]; None where nobody answers for the id. Where several do, kept wins, then dropped, then pending."""
    known = _registered.get(component_id)
    if not known:
        return None
    best = np.zeros(len(trace_ids), np.int8)
    for ask in known:
        best = np.maximum(best, _ORDER[ask(trace_ids)])
    return _BY_ORDER[best]
