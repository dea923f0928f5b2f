"""Estimates how many distinct keys there are, in little memory: HyperLogLog of series keys, vectorised.

There are two generations, for the current window and the one before. An estimate covers both, so that it does not drop
when a window ends. Source: Flajolet, Fusy, Gandouet, Meunier 2007; small numbers are estimated by linear counting.
Standard error: 1.04 / √registers.
"""

from typing import Final

import numpy as np

from collector.model.arrays import F64, I32, U8, U64

__all__ = ["Sketches"]

_SMALL: Final = 2.5  # times the registers; below it linear counting is more precise
_POWERS: Final = np.ldexp(1.0, -np.arange(256))  # by the value of a register
_ROWS_AT_ONCE: Final = 64  # so that what is computed on the way stays in the processor's cache


class Sketches:
    """Rows of registers; each row estimates the size of one set of keys."""

    def __init__(self, *, bits: int, rows_max: int) -> None:
        self._bits = bits
        self._size = 1 << bits
        self._rows_max = rows_max
        self._current = np.zeros((0, self._size), np.uint8)
        self._previous = np.zeros((0, self._size), np.uint8)
        self._used = 0
        self._free: list[int] = []

    @property
    def memory_bytes(self) -> int:
        """Memory of both generations."""
        return self._current.nbytes + self._previous.nbytes

    def allocate(self) -> int:
        """An empty row; -1 if there is no room."""
        if self._free:
            row = self._free.pop()
            self._current[row] = self._previous[row] = 0
            return row
        if self._used >= self._rows_max:
            return -1
        if self._used == len(self._current):
            shape = (min(max(4, 2 * len(self._current)), self._rows_max), self._size)
            for name in ("_current", "_previous"):
                grown = np.zeros(shape, np.uint8)
                grown[: self._used] = getattr(self, name)
                setattr(self, name, grown)
        self._used += 1
        return self._used - 1

    def release(self, row: int) -> None:
        """Release a row."""
        self._free.append(row)

    def add(self, rows: I32 | int, keys: U64) -> None:
        """Add ``keys`` U64[n,2] (uniformly distributed) to ``rows`` (n,) or to one row; row -1 is skipped."""
        ranks = self._ranks(keys[:, 1])
        places = (keys[:, 0] & np.uint64(self._size - 1)).astype(np.int64)
        if isinstance(rows, int):
            if rows >= 0:
                np.maximum.at(self._current[rows], places, ranks)
            return
        has_row = rows >= 0
        if not has_row.all():
            rows, places, ranks = rows[has_row], places[has_row], ranks[has_row]
        np.maximum.at(self._current.reshape(-1), rows.astype(np.int64) * self._size + places, ranks)

    def estimate(self, rows: I32) -> F64:
        """(n,) the distinct keys of each row in this window and the one before; 0 for row -1."""
        estimates = np.zeros(len(rows))
        with_row = np.flatnonzero(rows >= 0)
        for begin in range(0, len(with_row), _ROWS_AT_ONCE):
            some = with_row[begin : begin + _ROWS_AT_ONCE]
            estimates[some] = self._estimate(rows[some])
        return estimates

    def _estimate(self, rows: I32) -> F64:
        registers = np.maximum(self._current[rows], self._previous[rows])
        size = self._size
        raw = (0.7213 / (1 + 1.079 / size)) * size * size / _POWERS[registers].sum(axis=1)
        zeros = (registers == 0).sum(axis=1)
        with np.errstate(divide="ignore"):
            linear = size * np.log(size / zeros)
        estimates: F64 = np.where((raw <= _SMALL * size) & (zeros > 0), linear, raw)
        return estimates

    def rotate(self) -> None:
        """End the current window."""
        self._current, self._previous = self._previous, self._current
        self._current[:] = 0

    @staticmethod
    def _ranks(words: U64) -> U8:
        """1 + leading zeros of 52 bits of each word."""
        exponents = np.frexp((words >> np.uint64(12)).astype(np.float64))[1]  # 52 bits fit in a double
        ranks: U8 = (53 - exponents).astype(np.uint8)
        return ranks
