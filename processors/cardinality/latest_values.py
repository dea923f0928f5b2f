"""Combines the latest values of the sources of each accumulator: sum, last, greatest or least value, or mean.

Integers and doubles are kept apart, so that integers stay exact.
"""

from dataclasses import dataclass
from typing import Final

import numpy as np

from collector.model.arrays import F64, I32, I64, U64, Array, Indices, Mask
from collector.model.runs import run_ends, run_starts

__all__ = ["LatestValues", "SourceValues"]

_INT_MAX: Final = 2.0**62


@dataclass(frozen=True, slots=True)
class SourceValues:
    """The latest values of some live sources."""

    accumulator: I32
    bits: I64
    """The value if it is an integer, else the bits of the double."""
    is_double: Mask
    times: U64

    def as_doubles(self) -> F64:
        """The values as doubles."""
        doubles: F64 = np.where(self.is_double, self.bits.view(np.float64), self.bits.astype(np.float64))
        return doubles

    def take(self, mask: Mask) -> "SourceValues":
        """Some of them."""
        return SourceValues(self.accumulator[mask], self.bits[mask], self.is_double[mask], self.times[mask])


class LatestValues:
    """The combined value of each accumulator, by slot: the sum of ``ints`` and ``doubles``."""

    def __init__(self, size: int) -> None:
        """``size``: slots of the table of accumulators."""
        self.ints: I64 = np.zeros(size, np.int64)
        self.doubles: F64 = np.zeros(size)
        self.is_double: Mask = np.zeros(size, bool)
        self.is_due: Mask = np.zeros(size, bool)
        """Which accumulators have a live source, and so a value to write."""

    def combine(self, fold: str, sources: SourceValues) -> None:
        """Set the values of the accumulators of ``sources``, which all have this ``fold``."""
        self.is_due[sources.accumulator] = True
        combine = {"sum": self._sum, "mean": self._mean, "last": self._last, "max": self._max, "min": self._min}[fold]
        combine(sources)

    def _sum(self, sources: SourceValues) -> None:
        accumulator, values = sources.accumulator, sources.as_doubles()
        np.logical_or.at(self.is_double, accumulator, sources.is_double)
        reach = np.zeros(len(self.ints))
        np.add.at(reach, accumulator[~sources.is_double], np.abs(values[~sources.is_double]))
        leaves_range = reach >= _INT_MAX
        self.is_double |= leaves_range
        is_int = ~sources.is_double & ~leaves_range[accumulator]
        np.add.at(self.ints, accumulator[is_int], sources.bits[is_int])
        np.add.at(self.doubles, accumulator[~is_int], values[~is_int])

    def _mean(self, sources: SourceValues) -> None:
        count = np.bincount(sources.accumulator, minlength=len(self.doubles))
        np.add.at(self.doubles, sources.accumulator, sources.as_doubles())
        has_sources = count > 0
        self.doubles[has_sources] /= count[has_sources]
        self.is_double |= has_sources

    def _last(self, sources: SourceValues) -> None:
        order = np.lexsort((sources.times, sources.accumulator))
        self._select(sources, order[run_ends(sources.accumulator[order])])

    def _max(self, sources: SourceValues) -> None:
        order = _by_value(sources)
        self._select(sources, order[run_ends(sources.accumulator[order])])

    def _min(self, sources: SourceValues) -> None:
        order = _by_value(sources)
        self._select(sources, order[run_starts(sources.accumulator[order])])

    def _select(self, sources: SourceValues, rows: Indices) -> None:
        """The value of an accumulator is that of one source."""
        accumulator, bits, is_double = sources.accumulator[rows], sources.bits[rows], sources.is_double[rows]
        self.ints[accumulator] = np.where(is_double, 0, bits)
        self.doubles[accumulator] = np.where(is_double, bits.view(np.float64), 0.0)
        self.is_double[accumulator] = is_double


def _by_value(sources: SourceValues) -> Array:
    # Integers beyond 2^53 may be equal as doubles, so they are compared as integers after that.
    return np.lexsort((np.where(sources.is_double, 0, sources.bits), sources.as_doubles(), sources.accumulator))
