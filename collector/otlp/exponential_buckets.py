"""Reads and writes the buckets of exponential histograms in OTLP, and finds the bucket of a zero threshold."""

from typing import Final

import numpy as np

from collector.model.arrays import F64, I32, I64, U64, offsets_of, starts_of
from collector.model.runs import rank_in_run, run_starts
from collector.wire.splice.values import encode_varints

__all__ = ["SIDES", "bucket_messages", "first_index_above", "read_varints", "zigzag"]

SIDES: Final = (("positive", 8), ("negative", 9))
"""The sides of a histogram, and their field numbers in ExponentialHistogramDataPoint."""
_OFFSET_TAG, _COUNTS_TAG = b"\x08", b"\x12"  # fields of Buckets


def first_index_above(threshold: F64, scale: I64) -> I64:
    """The first bucket that is completely above the threshold.

    Rounded, so that a threshold that is the bound of a bucket gives the index of that bound again.
    """
    exact = np.log2(threshold) * np.exp2(scale.astype(np.float64))
    nearest = np.rint(exact)
    # The relative precision of a bound is 2^-40 at best; at the highest scale a bucket is 2^-20 wide.
    is_bound = np.abs(exact - nearest) < 1e-6 * np.maximum(1.0, np.abs(exact) * 1e-6)
    index: I64 = np.where(is_bound, nearest, np.ceil(exact)).astype(np.int64)
    return index


def read_varints(wire: bytes, starts: I32, lengths: I32) -> tuple[U64, I64, I64]:
    """Packed varints of n slices: the values U64[m], the slice of each, and its number within the slice.

    Of varints that are longer than 64 bits, the low bits are returned.
    """
    lengths = np.where(starts >= 0, lengths, 0).astype(np.int64)
    total = int(lengths.sum())
    if not total:
        return np.zeros(0, np.uint64), np.zeros(0, np.int64), np.zeros(0, np.int64)
    slice_of = np.repeat(np.arange(len(lengths)), lengths)
    octets = np.frombuffer(wire, np.uint8)[np.arange(total) + (starts - starts_of(lengths))[slice_of]]
    ends = octets < 0x80
    begins = np.concatenate(([True], ends[:-1]))
    shift = np.minimum(7 * rank_in_run(begins), 63).astype(np.uint64)
    first = np.flatnonzero(begins)
    values = np.add.reduceat((octets & 0x7F).astype(np.uint64) << shift, first)
    owner = slice_of[first].astype(np.int64)
    return values, owner, rank_in_run(run_starts(owner))


def zigzag(values: I64) -> U64:
    """Signed numbers as protobuf's sint types encode them."""
    return ((values << 1) ^ (values >> 63)).view(np.uint64)


def bucket_messages(lowest: I64, owner: I64, index: I64, counts: U64) -> tuple[bytes, I64, I64]:
    """One side of n histograms as protobuf messages: the messages joined, their starts I64[n] and sizes I64[n].

    Args:
        lowest: I64[n]: the index of the first bucket of each.
        owner: I64[k]: the histogram of each bucket, in any order.
        index: I64[k]: the number of each bucket, not below ``lowest``. Equal ones are added up.
        counts: U64[k].
    """
    widths = np.zeros(len(lowest), np.int64)
    np.maximum.at(widths, owner, index - lowest[owner] + 1)
    offsets = offsets_of(widths)
    totals = np.zeros(int(offsets[-1]), np.uint64)
    np.add.at(totals, offsets[:-1][owner] + index - lowest[owner], counts)
    packed, starts, _ = encode_varints(b"", totals)
    ends = np.append(starts, len(packed))
    sizes = ends[offsets[1:]] - ends[offsets[:-1]]
    heads, head_starts, head_sizes = encode_varints(_OFFSET_TAG, zigzag(lowest))
    frames, frame_starts, frame_sizes = encode_varints(_COUNTS_TAG, sizes.view(np.uint64))
    piece_starts = np.stack((head_starts, frame_starts + len(heads), ends[offsets[:-1]] + len(heads) + len(frames)), 1)
    piece_sizes = np.stack((head_sizes, frame_sizes, sizes), 1)
    content = _joined(heads + frames + packed, piece_starts.reshape(-1), piece_sizes.reshape(-1))
    message_sizes: I64 = piece_sizes.sum(axis=1)
    return content, starts_of(message_sizes), message_sizes


def _joined(source: bytes, starts: I64, sizes: I64) -> bytes:
    """Slices of the source, one after the other."""
    places = np.repeat(starts - starts_of(sizes), sizes) + np.arange(int(sizes.sum()))
    return np.frombuffer(source, np.uint8)[places].tobytes()
