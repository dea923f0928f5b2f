"""Tail sampling without its rules: holds whole traces until they are decided, remembers decisions, writes ``ot=th``.

The rules that decide are implementations of ``Decider``, in the processors ``sampling`` and ``tail_sampling``.

``holding_stage``      HoldingStage: a stage that holds rows until the decision on their trace
``sampler``            TailSampler: the stage that makes the decisions
``decider``            Decider and TraceDecisions: the interface between the sampler and its rules
``held_rows``          HeldRows: batches as they came, each row with the slot of its trace
``decision_cache``     DecisionCache: decisions on traces that have left
``decision_registry``  DecisionRegistry: the decisions of all samplers, for other components
``by_trace``           ByTrace: reduces facts about spans to facts about their traces
``trace_states``       writes thresholds and randomness into trace states
"""

from collector.tail_sampling.by_trace import ByTrace
from collector.tail_sampling.decider import (
    THRESHOLD_ERASED,
    THRESHOLD_UNCHANGED,
    ColumnLookup,
    Decider,
    TraceDecisions,
)
from collector.tail_sampling.decision_cache import DecisionCache
from collector.tail_sampling.decision_registry import Decision
from collector.tail_sampling.held_rows import HeldRows
from collector.tail_sampling.holding_stage import HoldingStage
from collector.tail_sampling.sampler import DecidedTraces, TailSampler

__all__ = [
    "THRESHOLD_ERASED",
    "THRESHOLD_UNCHANGED",
    "ByTrace",
    "ColumnLookup",
    "DecidedTraces",
    "Decider",
    "Decision",
    "DecisionCache",
    "HeldRows",
    "HoldingStage",
    "TailSampler",
    "TraceDecisions",
]
