"""Sampling decisions for other components: exemplars, for example, point only at traces that were kept.

A sampling processor registers a lookup under its component id, and other components query it by that id. Nothing is
stored here.
"""

from collections.abc import Callable, Sequence
from enum import IntEnum
from typing import Final, TypeAlias

import numpy as np

from collector.api import Scope, SharedKey
from collector.model.arrays import I8, U64

__all__ = ["DECISIONS", "Decision", "DecisionLookup", "DecisionRegistry"]


class Decision(IntEnum):
    """The state of a trace."""

    UNKNOWN = 0
    """Never seen, or forgotten."""
    PENDING = 1
    """Held, not decided yet."""
    KEPT = 2
    DROPPED = 3


DecisionLookup: TypeAlias = Callable[[U64], I8]
"""Returns the ``Decision`` on each trace id, U64[n,2] to I8[n]. It must neither raise nor suspend."""

# By Decision: what one pipeline kept counts as kept, even if another one dropped it.
_PRECEDENCE: Final = np.array([0, 1, 3, 2], np.int8)
_BY_PRECEDENCE: Final = np.argsort(_PRECEDENCE).astype(np.int8)


class DecisionRegistry:
    """The lookups of one service's sampling processors, by component id."""

    def __init__(self) -> None:
        self._lookups: dict[str, list[DecisionLookup]] = {}

    def register(self, component_id: str, lookup: DecisionLookup) -> None:
        """Add a lookup for ``component_id``. A processor is one object per pipeline, so an id can have several."""
        self._lookups.setdefault(component_id, []).append(lookup)

    def unregister(self, component_id: str, lookup: DecisionLookup) -> None:
        """Remove a lookup. Does nothing if it is not registered."""
        lookups: Sequence[DecisionLookup] = self._lookups.get(component_id, ())
        remaining = [other for other in lookups if other != lookup]
        if remaining:
            self._lookups[component_id] = remaining
        else:
            self._lookups.pop(component_id, None)

    def is_registered(self, component_id: str) -> bool:
        """Whether there is a lookup for the id."""
        return component_id in self._lookups

    def decisions(self, component_id: str, trace_ids: U64) -> I8 | None:
        """The decision on each trace, I8[n]; None if no lookup is registered for the id.

        If several lookups know a trace, kept takes precedence, then dropped, then pending.
        """
        lookups = self._lookups.get(component_id)
        if not lookups:
            return None
        best = np.zeros(len(trace_ids), np.int8)
        for lookup in lookups:
            best = np.maximum(best, _PRECEDENCE[lookup(trace_ids)])
        decisions: I8 = _BY_PRECEDENCE[best]
        return decisions


DECISIONS: Final = SharedKey("sampling.decisions", DecisionRegistry, scope=Scope.SERVICE)
"""The registry of the service."""
