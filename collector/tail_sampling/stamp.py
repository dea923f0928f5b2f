"""Thresholds and randomness written into trace states. A threshold is only ever raised, or erased where a share is unknown.

Source: OpenTelemetry specification, trace/tracestate-probability-sampling.
"""

from typing import Any, Final

import numpy as np

from collector.model import StringColumn, Traces, groups
from collector.model.arrays import U64
from collector.otlp.consistent_sampling import read_trace_state, with_values

__all__ = ["ERASE", "LEAVE", "stamped"]


LEAVE: Final = np.uint64(2**64 - 1)
ERASE: Final = np.uint64(2**64 - 2)


def stamped(batch: Traces, thresholds: U64, rv: U64) -> Traces:
    """The batch with each span's ``th`` raised to ``thresholds``, left alone (LEAVE, 0) or gone (ERASE), and ``rv`` set where it has none.

    Args:
        batch: Spans.
        thresholds: U64[n].
        rv: U64[n]: randomness + 1; 0 = write none.
    """
    states = batch.field("trace_state")
    idle = (thresholds == LEAVE) | (thresholds == 0) | ((thresholds == ERASE) & ~states.present)
    if idle.all() and not rv.any():
        return batch
    kinds = groups(states.codes, thresholds, rv)
    texts: list[str] = []
    changed = np.zeros(kinds.count, bool)
    for kind, row in enumerate(kinds.first.tolist()):
        text = states.distinct[states.codes[row]] if states.codes[row] >= 0 else ""
        written = _written(text, thresholds[row], int(rv[row]))
        changed[kind] = written != text
        texts.append(written)
    column = StringColumn.from_codes(np.ascontiguousarray(kinds.codes, np.int32), texts)
    edit: Any = batch.edit().set_field("trace_state", column, changed[kinds.codes])
    result = edit.apply()
    assert isinstance(result, Traces)
    return result


def _written(text: str, threshold: np.uint64, rv: int) -> str:
    before, randomness, _ = read_trace_state(text)
    if threshold == ERASE:
        return with_values(text, None) if "th:" in text else text
    after = before
    if threshold != LEAVE and int(threshold) > (before or 0):
        after = int(threshold)
    new_rv = rv - 1 if rv and randomness is None else None
    if after == before and new_rv is None:
        return text
    return with_values(text, after, new_rv)
