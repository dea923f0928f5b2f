"""Sums: what each source gained. Rules 1, 2, 4 and 6.

Ints and doubles have an accumulator each, so that ints stay exact; what is written is both together. An int accumulator that would leave
64 bits goes on as a double, and that is counted (rule: never a wrapped number).
"""

from typing import Any, Final

import numpy as np
import numpy.typing as npt

from collector.model import KeyTable
from processors.cardinality.stores import Lines, previous

__all__ = ["add_sums", "remember_values", "stored_values"]

_INT: Final = 1  # POINT.value_kind
_SAFE: Final = 2.0**62  # sums below it cannot wrap, whatever the rounding of their doubles


def stored_values(sources: KeyTable, slots: npt.NDArray[np.int32]) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float64]]:
    """The last value of each source, as int or as double; the other is 0."""
    bits = sources.column("value")[slots]
    doubles = sources.column("is_double")[slots] & 1 != 0  # the bits above are the kind of source
    return np.where(doubles, 0, bits), np.where(doubles, bits.view(np.float64), 0.0)


def remember_values(sources: KeyTable, lines: Lines) -> None:
    """The last value of each source from its last line."""
    points, slots = lines.points[lines.last], lines.slots[lines.last]
    is_int = points["value_kind"] == _INT
    sources.column("value")[slots] = np.where(is_int, points["int_value"], points["double_value"].view(np.int64))
    sources.column("is_double")[slots] = ~is_int


def add_sums(sources: KeyTable, accumulators: KeyTable, lines: Lines) -> int:
    """Adds the gains of ``lines``; returns how many of them went into a double because their int left 64 bits."""
    points = lines.points
    is_int = points["value_kind"] == _INT
    ints, doubles = np.where(is_int, points["int_value"], 0), np.where(is_int, 0.0, points["double_value"])
    stored_int, stored_double = stored_values(sources, lines.slots)
    before_int, before_double = previous(ints, stored_int, lines.first), previous(doubles, stored_double, lines.first)
    monotonic = lines.metric["monotonic"] != 0
    fell = np.where((before_double == 0) & is_int, ints < before_int, ints + doubles < before_int + before_double)
    # The whole value: of delta, of a restarted source, of a new one that began after us; what it gained otherwise. Cumulative sums
    # that are not monotonic are sums of latest values and made when they are written.
    whole = ~lines.cumulative | (lines.fresh & lines.full) | (~lines.fresh & (lines.started_anew | fell)) | lines.overwrites
    adds = (lines.target >= 0) & (monotonic | ~lines.cumulative) & ~(lines.cumulative & lines.fresh & ~lines.full & ~lines.overwrites)
    target = lines.target[adds]
    is_double = ~is_int | (before_double != 0)
    accumulators.column("is_double")[target[is_double[adds]]] = 1
    gain_int, wide = _gains(ints[adds], np.where(whole, 0, before_int)[adds])
    gain_double = (doubles - np.where(whole, 0.0, before_double))[adds]
    lost = _add_ints(accumulators, target, gain_int, wide)
    np.add.at(accumulators.column("double"), target, gain_double)
    remember_values(sources, lines)
    return lost


def _gains(values: npt.NDArray[np.int64], base: npt.NDArray[np.int64]) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float64]]:
    """``values - base``, and the same as doubles, which do not wrap."""
    return values - base, values.astype(np.float64) - base.astype(np.float64)


def _add_ints(accumulators: KeyTable, target: npt.NDArray[np.int32], gains: npt.NDArray[np.int64], wide: npt.NDArray[np.float64]) -> int:
    ints = accumulators.column("int")
    if not len(target):
        return 0
    if float(np.abs(ints[target].astype(np.float64)).max()) + float(np.abs(wide).sum()) < _SAFE:
        np.add.at(ints, target, gains)
        return 0
    reached = np.zeros(len(ints))
    np.add.at(reached, target, np.abs(wide))
    unsafe = (np.abs(ints.astype(np.float64)) + reached >= _SAFE)[target]
    np.add.at(ints, target[~unsafe], gains[~unsafe])
    moved: npt.NDArray[Any] = np.unique(target[unsafe])
    doubles = accumulators.column("double")
    doubles[moved] += ints[moved].astype(np.float64)
    ints[moved] = 0
    accumulators.column("is_double")[moved] = 1
    np.add.at(doubles, target[unsafe], wide[unsafe])
    return int(np.count_nonzero(unsafe))
