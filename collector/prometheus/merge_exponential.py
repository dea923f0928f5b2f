"""Sums of exponential histograms, for streams that share a series.

Two histograms are brought to the lower scale, and further down until a side has at most 320 buckets. This is done in
Python, point by point: it is for streams that should have been kept apart.
"""

from dataclasses import dataclass
from typing import Final

import numpy as np

from collector.model.arrays import I64, Records
from collector.wire.protobuf import read_varint, varint

__all__ = ["BYTES_MAX", "Exponential"]

_WIDTH_MAX: Final = 320
_MIN_SCALE: Final = -4  # the coarsest that native histograms have
BYTES_MAX: Final = 2 * _WIDTH_MAX * 8 + 400
"""Estimate of the memory of one histogram."""


@dataclass(frozen=True, slots=True)
class _Side:
    """The counts of adjacent buckets from ``offset`` on."""

    offset: int
    counts: I64

    def scaled(self, down: int) -> "_Side":
        if not len(self.counts) or not down:
            return self
        indexes = (self.offset + np.arange(len(self.counts))) >> down
        counts = np.zeros(int(indexes[-1] - indexes[0]) + 1, np.int64)
        np.add.at(counts, indexes - indexes[0], self.counts)
        return _Side(int(indexes[0]), counts)

    def span(self, other: "_Side") -> tuple[int, int]:
        sides = [side for side in (self, other) if len(side.counts)]
        if not sides:
            return 0, 0
        return min(side.offset for side in sides), max(side.offset + len(side.counts) for side in sides)

    def plus(self, other: "_Side", sign: int) -> "_Side":
        begin, end = self.span(other)
        counts = np.zeros(end - begin, np.int64)
        for side, factor in ((self, 1), (other, sign)):
            if len(side.counts):
                counts[side.offset - begin : side.offset - begin + len(side.counts)] += factor * side.counts
        return _Side(begin, counts)


@dataclass(frozen=True, slots=True)
class Exponential:
    """One exponential histogram."""

    scale: int
    count: int
    sum: float
    zero_count: int
    zero_threshold: float
    positive: _Side
    negative: _Side

    @classmethod
    def read(cls, point: Records, wire: bytes) -> "Exponential | None":
        """The histogram of a point; None if it has more buckets than we keep."""
        sides = []
        for name in ("positive", "negative"):
            counts: list[int] = []
            at = int(point[name])
            end = at + int(point[name + "_len"])
            while at < end and len(counts) <= _WIDTH_MAX:
                value, at = read_varint(wire, at)
                counts.append(min(value, 1 << 62))
            if at < end:
                return None
            sides.append(_Side(int(point[name + "_offset"]), np.array(counts, np.int64)))
        return cls(
            int(point["scale"]), min(int(point["count"]), 1 << 62), float(point["sum"]),
            min(int(point["zero_count"]), 1 << 62), float(point["zero_threshold"]), *sides,
        )  # fmt: skip

    def plus(self, other: "Exponential", sign: int = 1) -> "Exponential | None":
        """The sum, or with ``sign`` -1 the difference; None if their buckets are too far apart."""
        scale = min(self.scale, other.scale)
        while True:
            first, second = self.scaled_to(scale), other.scaled_to(scale)
            spans = (first.positive.span(second.positive), first.negative.span(second.negative))
            if all(end - begin <= _WIDTH_MAX for begin, end in spans):
                break
            if scale <= _MIN_SCALE:
                return None
            scale -= 1
        return Exponential(
            scale,
            self.count + sign * other.count,
            self.sum + sign * other.sum,
            self.zero_count + sign * other.zero_count,
            max(self.zero_threshold, other.zero_threshold),
            first.positive.plus(second.positive, sign),
            first.negative.plus(second.negative, sign),
        )

    def has_negative_counts(self) -> bool:
        """Whether this is a difference to a histogram that counted more: there was a reset between them."""
        return (
            self.count < 0
            or self.zero_count < 0
            or any(bool(np.any(side.counts < 0)) for side in (self.positive, self.negative))
        )

    def write(self, point: Records, end: int) -> bytes:
        """Set the fields of a point. Returns its bucket counts, which it refers to as if they were at ``end``."""
        written = b""
        for name, side in (("positive", self.positive), ("negative", self.negative)):
            content = b"".join(map(varint, side.counts.tolist()))
            point[name + "_offset"] = side.offset
            point[name] = end + len(written)
            point[name + "_len"] = len(content)
            written += content
        for name in ("scale", "count", "sum", "zero_count", "zero_threshold"):
            point[name] = getattr(self, name)
        return written

    def scaled_to(self, scale: int) -> "Exponential":
        """The histogram at a scale that is not higher."""
        down = min(self.scale - scale, 62)
        return Exponential(
            scale, self.count, self.sum, self.zero_count, self.zero_threshold, self.positive.scaled(down),
            self.negative.scaled(down),
        )  # fmt: skip
