"""Keys of 128 bits made from columns: what tables (``KeyTable``), routing and shards know things by.

Keyed with the secret of this process unless another key or salt is given, so nobody outside can make values that
collide.
"""

from collections.abc import Sequence
from hashlib import blake2b
from typing import Protocol

import numpy as np

from collector.model.arrays import I32, U64, Array
from collector.wire import hash as wire_hash

__all__ = ["combine_keys", "hash_text"]


class Text(Protocol):
    """A dictionary-encoded text column, such as ``StringColumn``."""

    @property
    def codes(self) -> I32:
        """I32[n], -1 = absent."""

    @property
    def distinct_bytes(self) -> Sequence[bytes]:
        """The values, UTF-8."""


def hash_text(column: Text, salt: bytes = b"") -> U64:
    """The hash of each row's text, U64[n,2]; (0, 0) where the row is absent. Work is done once for each distinct value.

    Args:
        column: Dictionary-encoded text.
        salt: Makes the hash the same in every process that knows the salt; empty = the secret of this process.
    """
    values = column.distinct_bytes
    lengths = np.fromiter((len(value) for value in values), np.int32, len(values))
    starts = (np.cumsum(lengths, dtype=np.int64) - lengths).astype(np.int32)
    key = blake2b(salt, digest_size=16).digest() if salt else None
    hashes = np.zeros((len(values) + 1, 2), np.uint64)  # its last row is what code -1 takes
    hashes[:-1] = wire_hash.hash_slices(b"".join(values), starts, lengths, key)
    return hashes[column.codes]


def combine_keys(*keys: Array, key: bytes | None = None) -> U64:
    """One key from several columns, U64[n,2]; their order matters.

    Args:
        keys: U64[n,2] keys, integer, bool or float columns, all of one length.
        key: 16 bytes; None = the secret of this process.

    Raises:
        ValueError: there is no column, or the lengths differ.
    """
    return wire_hash.combine(*(_as_words(column) for column in keys), key=key)


def _as_words(column: Array) -> U64:
    if column.dtype.kind == "f":
        return column.astype(np.float64).view(np.uint64)
    return column.astype(np.int64).view(np.uint64) if column.dtype.kind == "i" else column.astype(np.uint64, copy=False)
