"""Thresholds and randomness written into trace states. A threshold is raised, or erased if the share kept is unknown.

Source: OpenTelemetry specification, trace/tracestate-probability-sampling.
"""

from typing import Any

import numpy as np

from collector.model import StringColumn, Traces, groups
from collector.model.arrays import U64
from collector.otlp.consistent_sampling import read_trace_state, with_values
from collector.tail_sampling.decider import THRESHOLD_ERASED, THRESHOLD_UNCHANGED

__all__ = ["with_thresholds"]


def with_thresholds(batch: Traces, thresholds: U64, randomness: U64) -> Traces:
    """The batch with ``th`` and ``rv`` written into the trace states of its spans.

    Args:
        batch: Spans.
        thresholds: U64[n]; ``th`` is raised to it, removed (THRESHOLD_ERASED) or left alone (THRESHOLD_UNCHANGED, 0).
        randomness: U64[n]: randomness + 1, written as ``rv`` if the span has none; 0 = write none.
    """
    states = batch.field("trace_state")
    unchanged = (
        (thresholds == THRESHOLD_UNCHANGED) | (thresholds == 0) | ((thresholds == THRESHOLD_ERASED) & ~states.present)
    )
    if unchanged.all() and not randomness.any():
        return batch
    combinations = groups(states.codes, thresholds, randomness)
    texts: list[str] = []
    changed = np.zeros(combinations.count, np.bool_)
    for code, row in enumerate(combinations.first.tolist()):
        text = states.distinct[states.codes[row]] if states.codes[row] >= 0 else ""
        new_text = _with_threshold(text, thresholds[row], int(randomness[row]))
        changed[code] = new_text != text
        texts.append(new_text)
    column = StringColumn.from_codes(np.ascontiguousarray(combinations.codes, np.int32), texts)
    edit: Any = batch.edit().set_field("trace_state", column, changed[combinations.codes])
    result = edit.apply()
    assert isinstance(result, Traces)
    return result


def _with_threshold(text: str, threshold: np.uint64, randomness: int) -> str:
    current, current_randomness, _ = read_trace_state(text)
    if threshold == THRESHOLD_ERASED:
        return with_values(text, None) if "th:" in text else text
    new = current
    if threshold != THRESHOLD_UNCHANGED and int(threshold) > (current or 0):
        new = int(threshold)
    new_randomness = randomness - 1 if randomness and current_randomness is None else None
    if new == current and new_randomness is None:
        return text
    return with_values(text, new, new_randomness)
