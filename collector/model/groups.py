"""Groups rows with equal values in some columns under dense codes, in order of first appearance.

Rows are compared by value, never by hash alone. This is not a sort: ``np.unique`` over two words costs more than
indexing the whole request.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np

from collector.model.arrays import I32, I64, U64, Array
from collector.model.columns import StringColumn
from collector.wire import hash as wire_hash

__all__ = ["Groups", "groups"]

_WORD_BITS = 64


Groupable: TypeAlias = Array | StringColumn


@dataclass(frozen=True, slots=True)
class Groups:
    """The groups that rows belong to.

    Attributes:
        codes: I32[n]: the group of each row, dense, in order of first appearance.
        first: I32[g]: the first row of each group.
        counts: I64[g]: the number of rows of each group.

    >>> by_kind = groups(traces.field("kind"))
    >>> by_kind.count, by_kind.codes.tolist(), by_kind.counts.tolist()
    (2, [0, 1, 0], [2, 1])
    """

    codes: I32
    first: I32
    counts: I64

    @property
    def count(self) -> int:
        """The number of groups."""
        return len(self.first)


def groups(*columns: Groupable) -> Groups:
    """Groups rows that are equal in every column.

    >>> from collector.model import groups
    >>> by_trace = groups(traces.field("trace_id"))
    >>> by_trace.codes.tolist(), by_trace.first.tolist(), by_trace.counts.tolist()
    ([0, 0, 1], [0, 2], [2, 1])
    >>> groups(traces.field("name"), traces.field("kind")).count
    3

    Args:
        columns: Columns of the same length: integer, bool or float arrays, ``U64[n,2]`` keys, or text columns. Floats
            are compared by their bits (NaN equals itself, 0.0 differs from -0.0), texts by their codes (absent equals
            absent).

    Raises:
        ValueError: There is no column, or the lengths differ.
        TypeError: A column is of another kind.
    """
    words = _pack([part for column in columns for part in _words(column)])
    paired = words[0]
    # A single word is paired with a constant.
    for word in words[1:] or [np.broadcast_to(np.uint64(0), paired.shape)]:
        codes, first = wire_hash.pair_codes(paired, word)
        paired = codes.astype(np.uint64)
    counts = np.bincount(codes, minlength=len(first)).astype(np.int64, copy=False)
    for array in (codes, first, counts):
        array.flags.writeable = False
    return Groups(codes, first, counts)


def _words(column: Groupable) -> list[tuple[Array, int]]:
    """The column as unsigned arrays, each with the number of bits it needs."""
    array = column if isinstance(column, np.ndarray) else column.codes
    if array.ndim == 2 and array.dtype == np.uint64:
        return [(array[:, word], _WORD_BITS) for word in range(array.shape[1])]
    if array.ndim != 1 or array.dtype.kind not in "biuf" or array.dtype.itemsize * 8 > _WORD_BITS:
        raise TypeError(f"cannot group by an array of shape {array.shape} and dtype {array.dtype}")
    bits = 1 if array.dtype.kind == "b" else 8 * array.dtype.itemsize
    return [(array.view(f"u{array.dtype.itemsize}"), bits)]


def _pack(parts: Sequence[tuple[Array, int]]) -> list[U64]:
    """Packs the parts greedily into 64-bit words."""
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
