"""Tail sampling without its rules: what holds whole traces until somebody decides, remembers decisions and writes ``ot=th``.

Not here: who is kept (a ``Decider``: processors ``sampling``, ``tail_sampling``).

``sampler``    TailSampler, the stage; Decider and Verdicts, the seam; LEAVE and ERASE, what may become of a threshold
``held``       HeldRows: batches as they came, each row with the slot of its trace
``decisions``  Decisions: what became of traces, bounded
``reduce``     ByTrace: one pass over a batch's rows for each fact of its traces
``stamp``      thresholds and randomness written into trace states
"""

from collector.tail_sampling.decision_cache import Decisions
from collector.tail_sampling.held import HeldRows
from collector.tail_sampling.reduce import ByTrace, by_trace
from collector.tail_sampling.sampler import (
    DROPPED,
    ERASE,
    KEPT,
    LEAVE,
    OPEN,
    UNKNOWN,
    Decider,
    Settled,
    TailSampler,
    Verdicts,
)

__all__ = [
    "DROPPED",
    "ERASE",
    "KEPT",
    "LEAVE",
    "OPEN",
    "UNKNOWN",
    "ByTrace",
    "Decider",
    "Decisions",
    "HeldRows",
    "Settled",
    "TailSampler",
    "Verdicts",
    "by_trace",
]
