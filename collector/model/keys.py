"""128-bit keys made from columns, for tables (``KeyTable``), routing and sharding.

Hashes are keyed with a secret of this process unless another key or salt is given, so that no sender can produce
values that collide.
"""

from hashlib import blake2b

import numpy as np

from collector.model.arrays import U64, Array, starts_of
from collector.model.columns import StringColumn
from collector.wire import hash as wire_hash

__all__ = ["combine_keys", "hash_text"]


def hash_text(column: StringColumn, salt: bytes = b"") -> U64:
    """The hash of each row's text, U64[n,2]; (0, 0) where the row is absent. Each distinct value is hashed once.

    >>> hash_text(traces.field("name"), b"shared salt").shape
    (3, 2)

    Args:
        column: Dictionary-encoded text.
        salt: The hash is the same in every process that uses the salt; empty = the secret of this process.
    """
    values = column.distinct_bytes
    lengths = np.fromiter((len(value) for value in values), np.int32, len(values))
    starts = starts_of(lengths).astype(np.int32)
    key = blake2b(salt, digest_size=16).digest() if salt else None
    hashes = np.zeros((len(values) + 1, 2), np.uint64)  # the code -1 takes the last row
    hashes[:-1] = wire_hash.hash_slices(b"".join(values), starts, lengths, key)
    return hashes[column.codes]


def combine_keys(*keys: Array, key: bytes | None = None) -> U64:
    """One key from several columns, U64[n,2]. The order of the columns matters.

    >>> combine_keys(hash_text(traces.field("name")), traces.field("kind")).shape
    (3, 2)

    Args:
        keys: U64[n,2] keys or integer, bool or float columns, all of the same length.
        key: 16 bytes; None = the secret of this process.

    Raises:
        ValueError: There is no column, or the lengths differ.
    """
    return wire_hash.combine(*(_as_words(column) for column in keys), key=key)


def _as_words(column: Array) -> U64:
    if column.dtype.kind == "f":
        return column.astype(np.float64).view(np.uint64)
    return column.astype(np.int64).view(np.uint64) if column.dtype.kind == "i" else column.astype(np.uint64, copy=False)
