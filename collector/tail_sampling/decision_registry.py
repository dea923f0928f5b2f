"""What sampling decided, for components that need to know it later: exemplars point only at traces that were kept.

A sampling processor registers a lookup under its id; others ask by that id. Nothing is stored here.
"""

from collections.abc import Callable, Sequence
from enum import IntEnum
from typing import Final, TypeAlias

import numpy as np

from collector.api import Scope, SharedKey
from collector.model.arrays import I8, U64

__all__ = ["DECISIONS", "Decision", "DecisionRegistry", "Lookup"]


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

# By Decision: what one pipeline kept counts as kept, even if another one dropped it.
_PRECEDENCE: Final = np.array([0, 1, 3, 2], np.int8)
_BY_PRECEDENCE: Final = np.argsort(_PRECEDENCE).astype(np.int8)


class DecisionRegistry:
    """The lookups of one service's sampling processors, by component id."""

    def __init__(self) -> None:
        self._lookups: dict[str, list[Lookup]] = {}

    def register(self, component_id: str, lookup: Lookup) -> None:
        """Answer for ``component_id``. A processor is one object per pipeline: several may answer for one id."""
        self._lookups.setdefault(component_id, []).append(lookup)

    def unregister(self, component_id: str, lookup: Lookup) -> None:
        """Stop answering. Safe when never registered, and twice."""
        known: Sequence[Lookup] = self._lookups.get(component_id, ())
        remaining = [other for other in known if other != lookup]
        if remaining:
            self._lookups[component_id] = remaining
        else:
            self._lookups.pop(component_id, None)

    def is_registered(self, component_id: str) -> bool:
        """Whether a processor answers for the id."""
        return component_id in self._lookups

    def lookup(self, component_id: str, trace_ids: U64) -> I8 | None:
        """The decision on each trace, I8[n]; None if no processor answers for the id.

        If several processors answer, kept takes precedence, then dropped, then pending.
        """
        known = self._lookups.get(component_id)
        if not known:
            return None
        best = np.zeros(len(trace_ids), np.int8)
        for lookup in known:
            best = np.maximum(best, _PRECEDENCE[lookup(trace_ids)])
        decisions: I8 = _BY_PRECEDENCE[best]
        return decisions


DECISIONS: Final = SharedKey("sampling.decisions", DecisionRegistry, scope=Scope.SERVICE)
