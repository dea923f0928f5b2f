"""The interface between the tail sampler and the rules it samples by."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final, Protocol, TypeAlias

import numpy as np

from collector.model import Traces
from collector.model.arrays import I32, U64, Array, Mask
from collector.tail_sampling.by_trace import ByTrace

__all__ = ["THRESHOLD_ERASED", "THRESHOLD_UNCHANGED", "ColumnLookup", "Decider", "TraceDecisions"]

ColumnLookup: TypeAlias = Callable[[str], Array]
"""Returns a column of the sampler's table by name; its rows are slots. Valid until the next trace is added."""

THRESHOLD_UNCHANGED: Final = np.uint64(2**64 - 1)
"""Instead of a threshold: the trace states stay as they are."""
THRESHOLD_ERASED: Final = np.uint64(2**64 - 2)
"""Instead of a threshold: ``ot=th`` is removed, because the share of traces kept is not known."""


@dataclass(frozen=True, slots=True)
class TraceDecisions:
    """A decider's answer for n traces."""

    kept: Mask
    """bool[n]."""
    thresholds: U64
    """U64[n]: what ``ot=th`` of a kept trace is raised to, THRESHOLD_UNCHANGED or THRESHOLD_ERASED."""
    reasons: I32
    """I32[n]: the number of the rule or policy that decided, for metrics; -1 = none."""


class Decider(Protocol):
    """Decides which traces are kept."""

    @property
    def columns(self) -> Mapping[str, Any]:
        """The KeyTable columns it keeps for each trace, by name; their values are zero at a trace's first span."""
        ...

    def observe(self, batch: Traces, grouped: ByTrace, column: ColumnLookup) -> None:
        """Fold the spans of a batch, grouped by the slot of their trace, into the columns."""
        ...

    def decide(self, slots: I32, column: ColumnLookup, now_s: float) -> TraceDecisions:
        """Decide traces, once and for all.

        Besides its own columns it may read the sampler's: ``first_s``, ``span_count``, ``randomness`` and
        ``randomness_to_write``.
        """
        ...
