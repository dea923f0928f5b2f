"""The records that ``cardinality`` keeps of sources and of the series it writes, and those of the points of a batch.

SOURCE and ACCUMULATOR are the columns of a ``KeyTable`` and, in ``_records.pxd``, C structs: a source occupies one or
two cache lines, however many of its fields are used. Rules are those of docs/reference/cardinality.md.
"""

from typing import Final

import numpy as np

from collector.model.arrays import Array, Mask

__all__ = [
    "ACCUMULATOR",
    "ADDS",
    "COUNTS",
    "DROP_REASONS",
    "ENDED",
    "FOLDS",
    "FREED",
    "LIVE",
    "NEW",
    "PROCESSES_MAX",
    "PROCESSES_SHIFT",
    "RESTARTED",
    "SOURCE",
    "UPDATE",
    "previous_of_source",
]


SOURCE: Final = np.dtype(
    [
        ("start", "<u8"),
        ("time", "<u8"),
        ("value", "<i8"),
        ("seen", "<f4"),
        ("accumulator", "<i4"),
        ("mark", "<i4"),
        ("status", "u1"),
        ("kind", "u1"),
        ("is_double", "u1"),
        ("flags", "u1"),
    ],
    align=True,
)
"""A source: one series as it is received.

``start``, ``time``: of its last point, ns. ``value``: the bits of its last value, those of a double if ``is_double``;
for histograms the (set, row) of its buckets as two int32. ``seen``: monotonic s. ``accumulator``: the slot of its
accumulator; -1: the series is named. ``mark``: scratch. ``status``: see below. ``kind``: METRIC type. ``flags``:
``COUNTS``, ``RESTARTED``, and the number of further processes (rule 13) from ``PROCESSES_SHIFT`` on.
"""
ACCUMULATOR: Final = np.dtype(
    [
        ("int", "<i8"),
        ("double", "<f8"),
        ("count", "<u8"),
        ("sum", "<f8"),
        ("min", "<f8"),
        ("max", "<f8"),
        ("pending", "<u8"),
        ("start", "<u8"),
        ("seen", "<f8"),
        ("set", "<i4"),
        ("row", "<i4"),
        ("is_double", "u1"),
        ("touched", "u1"),
        ("fold", "u1"),
        ("kind", "u1"),
        ("lacks_sum", "u1"),
        ("lacks_range", "u1"),
    ],
    align=True,
)
"""A series that the processor writes, into which its sources are merged.

``int``, ``double``: the two parts of a sum. ``count`` to ``max``: of histograms. ``pending``: scratch. ``start``: ns.
``seen``: monotonic s. ``set``, ``row``: where its buckets are; set -1: it has none yet. ``touched``: has new points
since the last flush. ``fold``: an index of ``FOLDS``. ``kind``: METRIC type. ``lacks_sum``, ``lacks_range``: a point
had no sum, or no minimum and maximum.
"""
UPDATE: Final = np.dtype(
    [
        ("point", "<i4"),
        ("source", "<i4"),
        ("accumulator", "<i4"),
        ("kind", "u1"),
        ("is_first", "?"),
        ("is_last", "?"),
        ("is_new", "?"),
        ("counts_in_full", "?"),
        ("overwrites", "?"),
        ("restarted", "?"),
        ("is_cumulative", "?"),
    ],
    align=True,
)
"""A point of a batch together with its source; the updates of one source follow each other in order of time.

``point``: a row of the batch's points. ``source``: the slot of its source. ``accumulator``: a slot; -1: the value is
only stored, because the series is named. ``kind``: METRIC type. ``is_first``, ``is_last``: of its source in this batch.
``is_new``: the first update ever of its source. ``counts_in_full``: rule 2, a new source counts with its whole value.
``overwrites``: the first update that goes into the series of its own name; it counts with its whole value, which that
name shows already. ``restarted``: its start time is another one than
that of the update before, and not before the time of that update.
"""
COUNTS: Final = 1
"""In ``flags`` of a source: it is cumulative and its values add up, so it must not count twice."""
RESTARTED: Final = 2
"""In ``flags`` of a source: it had an earlier start time."""
PROCESSES_SHIFT: Final = 3
PROCESSES_MAX: Final = 31
"""How many further processes with its identity, each of them a source of its own, a source may have."""
NEW, LIVE, ENDED, FREED = range(4)
"""``status`` of a source: just inserted; live; has sent NO_RECORDED_VALUE; lost its name."""
FOLDS: Final = ("", "last", "sum", "max", "min", "mean")
"""``fold`` of an accumulator: 0 adds up gains, the others combine the latest values of live sources."""
ADDS: Final = 0
DROP_REASONS: Final = ("", "not_finite", "out_of_range", "exponential", "state_full", "out_of_order", "overlap")
"""Why a point was not merged."""


def previous_of_source(values: Array, stored: Array, is_first: Mask) -> Array:
    """The value that the source of each update had before: that of the update above, or the stored one."""
    shifted = np.empty_like(values)
    shifted[1:] = values[:-1]
    shifted[:1] = values[:1]
    return np.where(is_first, stored, shifted)
