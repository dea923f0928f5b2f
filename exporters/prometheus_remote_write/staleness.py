"""Ends series whose sources have vanished, with the stale markers that Prometheus itself writes for scraped ones.

A source that pushes cannot say that it is gone. Without a marker, queries see the last value for five minutes more.
"""

from typing import Final

import numpy as np

from collector.model.arrays import I32, U8
from collector.otlp.semantics import NO_RECORDED_VALUE
from collector.prometheus import Encodable, SeriesCache
from collector.wire.layout import EXEMPLAR, POINT, QUANTILE

__all__ = ["STALENESS_COLUMNS", "Staleness"]

STALENESS_COLUMNS: Final = {
    "source": np.int32, "type": np.int32, "set": np.int32, "last_ms": np.int64, "seen_s": np.float64, "live": np.uint8,
}  # fmt: skip
"""Columns that the series table of the cache must have."""

_CHECKS_PER_PERIOD: Final = 10


class Staleness:
    """Notes when each series was last seen. The notes are in the series table and go when its cache is cleared."""

    def __init__(self, cache: SeriesCache, after_s: float) -> None:
        self._cache = cache
        self._after_s = after_s
        self._checked_s = float("-inf")

    def note(self, found: Encodable, order: I32, now_s: float) -> None:
        """The points in ``order``, which are by series and time, are sent now."""
        series = self._cache.sources.column("series")[found.slot[order]]
        is_last = np.ones(len(order), bool)
        is_last[:-1] = series[1:] != series[:-1]
        rows, series = order[is_last], series[is_last]
        points, column = found.points[rows], self._cache.series.column
        column("source")[series] = found.slot[rows]
        column("type")[series] = found.types[rows]
        column("set")[series] = found.extra_set[rows]
        column("last_ms")[series] = points["time"] // np.uint64(1_000_000)
        column("seen_s")[series] = now_s
        column("live")[series] = points["flags"] & NO_RECORDED_VALUE == 0

    def has_due(self, now_s: float) -> bool:
        """Whether a series has not been seen for long enough."""
        return bool(len(self._ended(now_s)))

    def due(self, now_s: float, now_unix_nano: int) -> Encodable | None:
        """A stale marker for each series that has not been seen for long enough; None if there is none, or mostly.

        The table is looked through a few times per period only, so a marker may be later by a tenth of it.
        """
        if now_s < self._checked_s + self._after_s / _CHECKS_PER_PERIOD:
            return None
        self._checked_s = now_s
        series = self._ended(now_s)
        if not len(series):
            return None
        self._cache.series.column("live")[series] = 0
        return self._markers(series, now_unix_nano)

    def _ended(self, now_s: float) -> I32:
        series, column = self._cache.series.live(), self._cache.series.column
        ended: I32 = series[(column("live")[series] != 0) & (column("seen_s")[series] + self._after_s <= now_s)]
        return ended

    def _markers(self, series: I32, now_unix_nano: int) -> Encodable:
        column, count = self._cache.series.column, len(series)
        points = np.zeros(count, POINT)
        points["flags"] = NO_RECORDED_VALUE
        # After the last sample also if that was ahead of our clock.
        points["time"] = np.maximum(now_unix_nano // 1_000_000, column("last_ms")[series] + 1) * 1_000_000
        order = np.arange(count, dtype=np.int32)
        none = np.zeros(count + 1, np.int32)
        nothing: U8 = np.zeros(1, np.uint8)
        return Encodable(
            b"", points, column("type")[series], order, order, column("source")[series], column("set")[series],
            np.zeros(count, np.uint64), np.empty(0, EXEMPLAR), none, nothing, np.zeros((0, 3), np.int32),
            np.empty(0, QUANTILE), none,
        )  # fmt: skip
