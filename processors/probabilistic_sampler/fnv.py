"""FNV-1a of 32 bits over columns, and the randomness that the Collector makes of it.

Source: draft-eastlake-fnv; opentelemetry-collector-contrib probabilisticsamplerprocessor (14 bits decide).
"""

import base64
from collections.abc import Sequence
from typing import Any, Final

import numpy as np

from collector.model import KIND_BYTES, AttributeColumn
from collector.model.arrays import U32, U64
from collector.wire.hash import fnv1a_32

__all__ = ["BUCKET_BITS", "hash_attribute", "hash_ids", "hash_values", "randomness"]

BUCKET_BITS: Final = 14
_BUCKETS: Final = 1 << BUCKET_BITS
_OFFSET: Final = 0x811C9DC5
_PRIME: Final = 0x01000193
_MASK: Final = 0xFFFFFFFF


def _seeded(seed: int) -> int:
    state = _OFFSET
    for byte in seed.to_bytes(4, "little"):
        state = ((state ^ byte) * _PRIME) & _MASK
    return state


def hash_ids(ids: U64, seed: int) -> U32:
    """uint32[n] of trace ids (uint64[n, 2]), their sixteen bytes behind the seed's four."""
    state = np.full(len(ids), _seeded(seed), np.uint32)
    for half in (0, 1):
        octets = np.ascontiguousarray(ids[:, half]).astype(">u8").view(np.uint8).reshape(-1, 8)
        for place in range(8):
            state = (state ^ octets[:, place]) * np.uint32(_PRIME)
    return state


def hash_values(values: Sequence[bytes], seed: int) -> U32:
    """uint32[n] of values of any length."""
    lengths = np.fromiter(map(len, values), np.int32, len(values))
    starts = (np.cumsum(lengths, dtype=np.int64) - lengths).astype(np.int32)
    return fnv1a_32(b"".join(values), starts, lengths, _seeded(seed))


def hash_attribute(column: AttributeColumn, seed: int) -> U32:
    """uint32[n] of an attribute: bytes as they are, everything else as text; 0 where absent."""
    text = column.as_text()
    codes = text.codes
    hashes: Any = np.append(hash_values(text.distinct_bytes, seed), np.uint32(0))[codes]
    is_bytes = column.kind == KIND_BYTES
    if is_bytes.any():
        used = np.unique(codes[is_bytes])
        raw = np.zeros(text.distinct_count + 1, np.uint32)
        raw[used] = hash_values([base64.b64decode(text.distinct_bytes[code]) for code in used.tolist()], seed)
        hashes = np.where(is_bytes, raw[codes], hashes)
    return np.asarray(hashes, np.uint32)


def randomness(hashes: U32) -> U64:
    """uint64[n], 56 bits: a hash below the accepted share of the buckets is a randomness at or above the threshold."""
    wide = hashes.astype(np.uint64)
    bucket = wide & np.uint64(_BUCKETS - 1)
    unused = wide >> np.uint64(32 - BUCKET_BITS)
    mixed = unused ^ (unused << np.uint64(10))
    result: U64 = ((np.uint64(_BUCKETS - 1) - bucket) << np.uint64(42)) | (mixed << np.uint64(BUCKET_BITS)) | bucket
    return result
