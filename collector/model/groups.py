"""Groups: rows with equal values in some columns get one dense code. Exact, compiled, in order of first appearance.

Not a sort and not ``np.unique`` (which over two words costs more than indexing the request). Rows are compared by
value, never by hash.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, TypeAlias

import numpy as np

from collector.model.arrays import I32, I64, U64, Array
from collector.wire import hash as wire_hash

__all__ = ["Groups", "groups"]

_WORD_BITS = 64


class Coded(Protocol):
    """A dictionary-encoded column, such as ``StringColumn``."""

    @property
    def codes(self) -> I32:
        """I32[n], -1 = absent."""


Groupable: TypeAlias = Array | Coded


@dataclass(frozen=True, slots=True)
class Groups:
    """Which rows belong together.

    Attributes:
        codes: I32[n]: the group of each row, dense, in order of first appearance.
        first: I32[g]: the first row of each group.
        counts: I64[g]: how many rows each group has.
    """

    codes: I32
    first: I32
    counts: I64

    @property
    def count(self) -> int:
        """How many groups there are."""
        return len(self.first)


def groups(*columns: Groupable) -> Groups:
    """Groups rows that are equal in every column.

    Args:
        columns: Of one length: integer, bool or float arrays (floats by their bits: NaN equals itself, 0.0 is not
            -0.0), ``U64[n,2]``
            keys, or dictionary-encoded columns (by their codes: absent equals absent).

    Raises:
        ValueError: there is no column, or the lengths differ.
        TypeError: a column is of another kind.
    """
    words = _pack([part for column in columns for part in _words(column)])
    left = words[0]
    # One word alone is paired with a constant.
    for word in words[1:] or [np.broadcast_to(np.uint64(0), left.shape)]:
        codes, first = wire_hash.pair_codes(left, word)
        left = codes.astype(np.uint64)
    counts = np.bincount(codes, minlength=len(first)).astype(np.int64, copy=False)
    for array in (codes, first, counts):
        array.flags.writeable = False
    return Groups(codes, first, counts)


def _words(column: Groupable) -> list[tuple[Array, int]]:
    """The column as unsigned arrays with the bits each needs."""
    array = column if isinstance(column, np.ndarray) else column.codes
    if array.ndim == 2 and array.dtype == np.uint64:
        return [(array[:, word], _WORD_BITS) for word in range(array.shape[1])]
    if array.ndim != 1 or array.dtype.kind not in "biuf" or array.dtype.itemsize * 8 > _WORD_BITS:
        raise TypeError(f"cannot group by an array of shape {array.shape} and dtype {array.dtype}")
    bits = 1 if array.dtype.kind == "b" else 8 * array.dtype.itemsize
    return [(array.view(f"u{array.dtype.itemsize}"), bits)]


def _pack(parts: Sequence[tuple[Array, int]]) -> list[U64]:
    """The parts side by side in as few 64-bit words as a greedy walk needs."""
    if not parts:
        raise ValueError("groups needs at least one column")
    if len({len(array) for array, _ in parts}) > 1:
        raise ValueError(f"columns differ in length: {', '.join(str(len(array)) for array, _ in parts)}")
    words: list[U64] = []
    room = 0
    for array, bits in parts:
        if bits > room:
            words.append(array.astype(np.uint64, copy=False))
            room = _WORD_BITS - bits
        else:
            words[-1] = (words[-1] << np.uint64(bits)) | array.astype(np.uint64)
            room -= bits
    return words
