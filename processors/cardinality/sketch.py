"""How many distinct keys, in little memory: HyperLogLog over the keys of the series table, vectorised.

Two generations: what was seen in this window and in the one before; an estimate is of both together, so that nothing
disappears at the moment the window turns. Source: Flajolet, Fusy, Gandouet, Meunier 2007; small numbers by linear
counting. Standard error 1.04/√registers.
"""

from typing import Final

import numpy as np

from collector.model.arrays import F64, I32, U8, U64

__all__ = ["Sketches"]

_SMALL: Final = 2.5  # times the registers: below it linear counting is the better estimate


class Sketches:
    """Rows of registers, each counting one set of keys."""

    def __init__(self, *, bits: int, rows_max: int) -> None:
        self._bits = bits
        self._size = 1 << bits
        self._rows_max = rows_max
        self._now = np.zeros((0, self._size), np.uint8)
        self._before = np.zeros((0, self._size), np.uint8)
        self._used = 0
        self._free: list[int] = []

    @property
    def memory_bytes(self) -> int:
        """Both generations."""
        return self._now.nbytes + self._before.nbytes

    def allocate(self) -> int:
        """An empty row, -1 if there is no room."""
        if self._free:
            row = self._free.pop()
            self._now[row] = self._before[row] = 0
            return row
        if self._used >= self._rows_max:
            return -1
        if self._used == len(self._now):
            shape = (min(max(4, 2 * len(self._now)), self._rows_max), self._size)
            for name in ("_now", "_before"):
                grown = np.zeros(shape, np.uint8)
                grown[: self._used] = getattr(self, name)
                setattr(self, name, grown)
        self._used += 1
        return self._used - 1

    def release(self, row: int) -> None:
        """Give a row back."""
        self._free.append(row)

    def add(self, rows: I32 | int, keys: U64) -> None:
        """Put ``keys`` U64[n,2] (uniform: hashes) into ``rows`` (n,) or into one row; row -1 is passed over."""
        ranks = self._ranks(keys[:, 1])
        places = (keys[:, 0] & np.uint64(self._size - 1)).astype(np.int64)
        if isinstance(rows, int):
            if rows >= 0:
                np.maximum.at(self._now[rows], places, ranks)
            return
        held = rows >= 0
        if not held.all():
            rows, places, ranks = rows[held], places[held], ranks[held]
        np.maximum.at(self._now.reshape(-1), rows.astype(np.int64) * self._size + places, ranks)

    def estimate(self, rows: I32) -> F64:
        """(n,) distinct keys of each row in this window and the one before; 0 for row -1."""
        found = np.zeros(len(rows))
        held = rows >= 0
        registers = np.maximum(self._now[rows[held]], self._before[rows[held]])
        size = self._size
        raw = (0.7213 / (1 + 1.079 / size)) * size * size / np.ldexp(1.0, -registers.astype(np.int32)).sum(axis=1)
        zeros = (registers == 0).sum(axis=1)
        with np.errstate(divide="ignore"):
            linear = size * np.log(size / zeros)
        found[held] = np.where((raw <= _SMALL * size) & (zeros > 0), linear, raw)
        return found

    def turn(self) -> None:
        """A window ends: this generation becomes the one before."""
        self._now, self._before = self._before, self._now
        self._now[:] = 0

    @staticmethod
    def _ranks(words: U64) -> U8:
        """1 + leading zeros of 52 bits of each word."""
        exponents = np.frexp((words >> np.uint64(12)).astype(np.float64))[1]  # 52 bits are exact in a double
        ranks: U8 = (53 - exponents).astype(np.uint8)
        return ranks
