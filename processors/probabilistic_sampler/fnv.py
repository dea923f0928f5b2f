"""FNV-1a of 32 bits over columns, and the randomness that the Collector derives from it.

Source: draft-eastlake-fnv; opentelemetry-collector-contrib probabilisticsamplerprocessor (14 bits of the hash decide).
"""

import base64
from collections.abc import Sequence
from typing import Any, Final

import numpy as np

from collector.model import KIND_BYTES, AttributeColumn
from collector.model.arrays import U32, U64, starts_of
from collector.wire.hash import fnv1a_32

__all__ = ["BUCKET_BITS", "hash_attribute", "hash_ids", "hash_values", "randomness_of"]

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
    """U32[n]: the hashes of the 4 bytes of the seed and the 16 bytes of each trace id (U64[n, 2])."""
    state = np.full(len(ids), _seeded(seed), np.uint32)
    for half in (0, 1):
        octets = np.ascontiguousarray(ids[:, half]).astype(">u8").view(np.uint8).reshape(-1, 8)
        for place in range(8):
            state = (state ^ octets[:, place]) * np.uint32(_PRIME)
    return state


def hash_values(values: Sequence[bytes], seed: int) -> U32:
    """U32[n]: the hashes of the seed and values of any length."""
    lengths = np.fromiter(map(len, values), np.int32, len(values))
    return fnv1a_32(b"".join(values), starts_of(lengths).astype(np.int32), lengths, _seeded(seed))


def hash_attribute(column: AttributeColumn, seed: int) -> U32:
    """U32[n]: the hashes of the seed and an attribute (bytes as they are, else as text); 0 where it is absent."""
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


def randomness_of(hashes: U32) -> U64:
    """U64[n] of 56 bits: a hash in the accepted share of the buckets becomes randomness at or above the threshold."""
    wide = hashes.astype(np.uint64)
    bucket = wide & np.uint64(_BUCKETS - 1)
    unused = wide >> np.uint64(32 - BUCKET_BITS)
    mixed = unused ^ (unused << np.uint64(10))
    result: U64 = ((np.uint64(_BUCKETS - 1) - bucket) << np.uint64(42)) | (mixed << np.uint64(BUCKET_BITS)) | bucket
    return result
