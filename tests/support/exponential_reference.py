"""Exponential histograms of streams that share a series, added up slowly: one point after the other, in dictionaries."""

import dataclasses

__all__ = ["Merger", "Value"]

WIDTH_MAX = 320
MIN_SCALE = -4
COUNT_MAX = (1 << 62) - 1


def capped(count):
    """The kernel's counts stay within 64 bits."""
    return max(-COUNT_MAX, min(count, COUNT_MAX))


@dataclasses.dataclass
class Value:
    """One histogram. A side is (index of its first bucket, counts)."""

    scale: int
    count: int
    zero_count: int
    sum: float
    zero_threshold: float
    sides: tuple

    @classmethod
    def of(cls, point):
        """That of a data point of the protocol; None if it has too many buckets for the lowest scale."""
        sides = tuple(
            (side.offset if side.bucket_counts else 0, [min(count, COUNT_MAX) for count in side.bucket_counts])
            for side in (point.positive, point.negative)
        )
        value = cls(
            point.scale, min(point.count, COUNT_MAX), min(point.zero_count, COUNT_MAX), point.sum,
            point.zero_threshold, sides,
        )  # fmt: skip
        while any(len(counts) > WIDTH_MAX for _, counts in value.sides):
            if value.scale <= MIN_SCALE:
                return None
            value = value.at(value.scale - 1)
        return value

    def at(self, scale):
        """The same at a scale that is not higher."""
        down = min(self.scale - scale, 62)
        sides = []
        for offset, counts in self.sides:
            merged = {}
            for i, count in enumerate(counts):
                index = (offset + i) >> down
                merged[index] = min(merged.get(index, 0) + count, COUNT_MAX)
            sides.append((min(merged, default=0), [merged[index] for index in sorted(merged)]))
        return dataclasses.replace(self, scale=scale, sides=tuple(sides))

    def plus(self, other, sign=1):
        """The sum, or with sign -1 the difference; None if the buckets are too far apart."""
        scale = min(self.scale, other.scale)
        while any(self._width(other, side, scale) > WIDTH_MAX for side in range(2)):
            if scale <= MIN_SCALE:
                return None
            scale -= 1
        sides = []
        for side in range(2):
            merged = {}
            for value, factor in ((self, 1), (other, sign)):
                offset, counts = value.sides[side]
                for i, count in enumerate(counts):
                    index = (offset + i) >> min(value.scale - scale, 62)
                    merged[index] = capped(merged.get(index, 0) + factor * count)
            sides.append((min(merged, default=0), max(merged, default=-1), merged))
        return Value(
            scale,
            capped(self.count + sign * other.count),
            capped(self.zero_count + sign * other.zero_count),
            self.sum + sign * other.sum,
            max(self.zero_threshold, other.zero_threshold),
            tuple((first, [merged.get(i, 0) for i in range(first, last + 1)]) for first, last, merged in sides),
        )

    def _width(self, other, side, scale):
        """The number of buckets of both together."""
        ends = [
            index >> min(value.scale - scale, 62)
            for value in (self, other)
            for offset, counts in [value.sides[side]]
            if counts
            for index in (offset, offset + len(counts) - 1)
        ]
        return max(ends) - min(ends) + 1 if ends else 0

    def is_negative(self):
        return self.count < 0 or self.zero_count < 0 or any(count < 0 for _, counts in self.sides for count in counts)


class Merger:
    """Keeps the last value of each stream and the sum of each series."""

    def __init__(self):
        self.streams = {}
        self.sums = {}
        self.last_times = {}

    def merge(self, points):
        """``points`` are (stream, series, is_baseline, emitted_ms, point), by series and time.

        Returns, for each, None if it is lost, False if it is part of a later one, or the sum that is sent.
        """
        results = []
        for stream, series, is_baseline, _, point in points:
            value = Value.of(point)
            if value is None:
                results.append(None)
                continue
            before, gain = self.streams.get(stream), value
            if before is None and is_baseline:
                gain = None
                self.sums.setdefault(series, value)
            elif before is not None and not 0 < self.last_times.get(stream, 0) <= point.start_time_unix_nano:
                difference = value.plus(before, -1)
                gain = value if difference is None or difference.is_negative() else difference
            self.streams[stream], self.last_times[stream] = value, point.time_unix_nano
            if gain is not None:
                total = self.sums[series].plus(gain) if series in self.sums else gain
                if total is None:
                    results.append(None)
                    continue
                self.sums[series] = total
            results.append(self.sums[series])
        return [self._sent(points, results, i) for i in range(len(points))]

    @staticmethod
    def _sent(points, results, i):
        def run(j):
            return points[j][1], points[j][4].time_unix_nano // 10**6

        if results[i] is None:
            return None
        last = max(j for j in range(len(points)) if run(j) == run(i) and results[j] is not None)
        return results[i] if i == last and run(i)[1] > points[i][3] else False
