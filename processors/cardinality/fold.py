"""Merges many sources into one series: what each source gained since its last point is added to an accumulator.

``Fold`` knows sources (by the 128-bit key of their series) and accumulators (series that the processor writes), but no
limits and no attribute rules. All state is in columns, so a point costs compiled or array work only. The arithmetic of
each type is in ``_updates``, ``_histograms`` and ``exponential``; ``writer`` writes the accumulators.

Rules are those of docs/reference/cardinality.md.
"""

from typing import Final

import numpy as np

from collector.model import (
    METRIC_EXPONENTIAL_HISTOGRAM,
    METRIC_GAUGE,
    METRIC_HISTOGRAM,
    METRIC_SUM,
    KeyTable,
    Metrics,
)
from collector.model.arrays import I32, U8, U64, Indices, Mask
from processors.cardinality._updates import add_numbers, take_updates
from processors.cardinality.exemplars import ExemplarPool
from processors.cardinality.exponential import ExponentialHistograms
from processors.cardinality.histograms import Histograms
from processors.cardinality.latest_values import LatestValues, SourceValues
from processors.cardinality.records import (
    ACCUMULATOR,
    ADDS,
    DROP_REASONS,
    ENDED,
    FOLDS,
    FREED,
    LIVE,
    NEW,
    SOURCE,
    take_records,
)

__all__ = ["MERGEABLE_TYPES", "Fold"]

MERGEABLE_TYPES: Final = (METRIC_GAUGE, METRIC_SUM, METRIC_HISTOGRAM, METRIC_EXPONENTIAL_HISTOGRAM)
_EXPONENTIAL: Final = DROP_REASONS.index("exponential")
_NS: Final = 1_000_000_000
_NAMED_SHARE: Final = 0.5  # the share of the state limit that may be used for named series
_ACCUMULATOR_BYTES: Final = 600  # about what the objects take that describe a written series


class Fold:
    """Sources and accumulators."""

    def __init__(
        self,
        *,
        start_time_unix_nano: int,
        state_ttl_s: float,
        initial: str,
        state_max_bytes: int,
        exemplars: ExemplarPool,
    ) -> None:
        self.start_time_unix_nano = start_time_unix_nano
        self.accumulators_start = start_time_unix_nano
        self.last_flush = start_time_unix_nano
        self.exemplars = exemplars
        self.sources = KeyTable(SOURCE)
        self.accumulators = KeyTable(ACCUMULATOR, capacity=64)
        self._ended_times = KeyTable({"time": np.uint64}, capacity=64, max_bytes=max(state_max_bytes // 16, 65_536))
        """When series ended whose last value is not known. What they counted until then has been counted."""
        self.histograms = Histograms(self.sources, self.accumulators)
        self.exponential = ExponentialHistograms(self.sources, self.accumulators)
        self._slot_bytes = self.sources.memory_bytes // len(self.sources.records)
        self.other_bytes = 0
        """Memory of the rest of the state: first points of named series and sketches."""
        self.configure(state_ttl_s=state_ttl_s, initial=initial, state_max_bytes=state_max_bytes)

    def configure(self, *, state_ttl_s: float, initial: str, state_max_bytes: int) -> None:
        """Apply other settings to the same state (after a reload)."""
        self._state_ttl_ns, self._initial, self._state_max_bytes = int(state_ttl_s * _NS), initial, state_max_bytes

    @property
    def state_bytes(self) -> int:
        """Memory of sources, accumulators, their buckets and exemplars, and of what belongs to the state otherwise."""
        tables = self.sources.memory_bytes + self.accumulators.memory_bytes + self._ended_times.memory_bytes
        buckets = self.histograms.size_bytes + self.exponential.size_bytes
        accumulators = self.exemplars.memory_bytes + _ACCUMULATOR_BYTES * len(self.accumulators)
        return tables + buckets + accumulators + self.other_bytes

    @property
    def is_full(self) -> bool:
        """Whether there is no room for new sources."""
        return len(self.sources) >= self._source_limit()

    def has_room_for_named(self) -> bool:
        """Whether the values of more named series may be stored."""
        sources = len(self.sources) * self._slot_bytes
        used = sources + self.histograms.size_bytes + self.exponential.size_bytes + self.other_bytes
        return used < _NAMED_SHARE * self._state_max_bytes

    @property
    def merged_source_count(self) -> int:
        """How many sources have an accumulator."""
        return int(np.count_nonzero(self.sources.column("accumulator")[self.sources.live()] >= 0))

    def _source_limit(self) -> int:
        """How many sources there may be: the table doubles as long as the state then has room for it."""
        capacity = len(self.sources.records)
        room = self._state_max_bytes - self.state_bytes
        if room <= 0:
            return len(self.sources)
        limit = capacity
        while (2 * limit - capacity) * self._slot_bytes <= room:
            limit *= 2
        return limit

    # State of sources and accumulators.

    def placement_of(self, sources: I32) -> tuple[Mask, Mask]:
        """For slots of sources (-1: unknown): which have an accumulator, and which of them or others may not be named.

        The second mask includes sources whose slot was freed: they stay merged (rule 8).
        """
        is_known = sources >= 0
        has_accumulator = is_known & (self.sources.column("accumulator")[sources] >= 0)
        return has_accumulator, has_accumulator | (is_known & (self.sources.column("status")[sources] == FREED))

    def new_accumulator(self, slot: int, *, kind: int, fold: int) -> None:
        """Initialise the accumulator in ``slot``. ``kind``: METRIC type; ``fold``: an index of ``FOLDS``."""
        column = self.accumulators.column
        column("set")[slot] = -1
        column("kind")[slot], column("fold")[slot] = kind, fold
        column("start")[slot] = self.accumulators_start
        column("min")[slot], column("max")[slot] = np.inf, -np.inf

    def end(self, keys: U64, sources: I32, now_unix_nano: int) -> None:
        """Rule 7: series that sent NO_RECORDED_VALUE. Their gains stay; sums of latest values lose them.

        Start and last value are kept, so that a source that comes back under its old start time adds only its gain.
        """
        self._set_status(keys, sources, now_unix_nano, ENDED)

    def free(self, keys: U64, now_unix_nano: int, now_s: float) -> None:
        """Rule 8: series that lost their name. What they gain from now on is merged."""
        sources = self.sources.find(keys)
        self._set_status(keys, sources, now_unix_nano, FREED)
        self.sources.column("seen")[sources[sources >= 0]] = now_s

    def move_to_overflow(self, accumulators: I32, now_s: float) -> None:
        """Rule 8 for series that the processor writes: remove them; their sources continue in overflow."""
        if not len(accumulators):
            return
        live = self.sources.live()
        moved = live[np.isin(self.sources.column("accumulator")[live], accumulators)]
        column = self.sources.column
        column("accumulator")[moved], column("status")[moved], column("seen")[moved] = -1, FREED, now_s
        self.remove_accumulators(accumulators)

    def _set_status(self, keys: U64, sources: I32, now_unix_nano: int, status: int) -> None:
        is_known = sources >= 0
        self.sources.column("status")[sources[is_known]] = status
        if not is_known.all():
            slots, _ = self._ended_times.insert(keys[~is_known])
            self._ended_times.column("time")[slots[slots >= 0]] = now_unix_nano

    def expire(self, now_s: float, now_unix_nano: int, *, ttl_s: float, window_s: float) -> I32:
        """Forget sources that were silent for ``ttl_s``.

        Returns:
            Accumulators without new points for ``window_s`` and without sources, for the caller to remove.
        """
        live = self.sources.live()
        expired = live[now_s - self.sources.column("seen")[live] > ttl_s]
        kinds = self.sources.column("kind")[expired]
        self.histograms.release_sources(expired[kinds == METRIC_HISTOGRAM])
        self.exponential.release_sources(expired[kinds == METRIC_EXPONENTIAL_HISTOGRAM])
        self.sources.remove(expired)
        ended = self._ended_times.live()
        ended_at = self._ended_times.column("time")[ended]
        self._ended_times.remove(ended[ended_at + np.uint64(self._state_ttl_ns) < now_unix_nano])
        target = self.sources.column("accumulator")[self.sources.live()]
        seen = self.accumulators.column("seen")
        has_sources = np.zeros(len(seen), bool)
        has_sources[target[target >= 0]] = True
        accumulators = self.accumulators.live()
        return accumulators[(now_s - seen[accumulators] > window_s) & ~has_sources[accumulators]]

    def remove_accumulators(self, slots: I32) -> None:
        """Forget accumulators that have no source."""
        # A series that is written again starts when the old one was written last, so it is never taken for the old one.
        self.accumulators_start = max(self.accumulators_start, self.last_flush)
        kinds = self.accumulators.column("kind")[slots]
        self.histograms.release_accumulators(slots[kinds == METRIC_HISTOGRAM])
        self.exponential.release_accumulators(slots[kinds == METRIC_EXPONENTIAL_HISTOGRAM])
        self.accumulators.remove(slots)
        self.exemplars.drop(slots)
        self.histograms.release_sets()

    # Points.

    def add(
        self,
        batch: Metrics,
        rows: Indices,
        keys: U64,
        slots: I32,
        targets: I32,
        own_name: Mask,
        now_unix_nano: int,
        now_s: float,
    ) -> tuple[U8, dict[str, int]]:
        """Merge points into their accumulators, or store the values of named series.

        Args:
            batch: The original points.
            rows: (n,) rows of its points, ascending.
            keys: (points, 2) the sources of all points of the batch.
            slots: (n,) the slots of the rows' sources, -1: unknown; replaced by the slots they get.
            targets: (n,) the accumulator for sources that have none; -1: the series is named, its value is only stored.
            own_name: (n,) the accumulator writes under the name that the source has had until now.
            now_unix_nano: Wall clock.
            now_s: Monotonic clock.

        Returns:
            (n,) why a row was not used (an index of ``DROP_REASONS``; without meaning for named series), and how many
            points were merged inexactly, by reason.
        """
        points, metrics = batch.table("points").rows, batch.table("metrics").rows
        reasons = np.zeros(len(rows), np.uint8)
        is_exponential = metrics["type"] == METRIC_EXPONENTIAL_HISTOGRAM
        if is_exponential.any():
            exponential = np.flatnonzero(is_exponential[points["parent"][rows]])
            is_valid = self.exponential.valid(batch.wire, take_records(points, rows[exponential]))
            reasons[exponential[~is_valid]] = _EXPONENTIAL
        unknown = np.flatnonzero(slots < 0)
        new = slots[unknown]
        if len(unknown):
            slots[unknown], is_new = self.sources.insert(keys[rows[unknown]], limit=max(self._source_limit(), 1))
            new = slots[unknown[is_new]]
        updates = take_updates(
            points,
            metrics,
            rows,
            slots,
            targets,
            own_name.view(np.uint8),
            self.sources.records,
            self.accumulators.records,
            reasons,
            full_from=self._full_from(now_unix_nano),
            never_full=self._initial == "zero",
            ended=self._ended_at(keys, rows),
            now_s=now_s,
        )
        self.sources.remove(new[self.sources.column("status")[new] == NEW])  # those of which no point was used
        inexact: dict[str, int] = {}
        if len(updates):
            inexact["integer_overflow"] = add_numbers(
                points, metrics, updates, self.sources.records, self.accumulators.records
            )
            kinds = updates["kind"]
            if (histograms := kinds == METRIC_HISTOGRAM).any():
                may_grow = self.state_bytes < self._state_max_bytes
                inexact["bounds"] = self.histograms.add(
                    batch.wire, points, take_records(updates, histograms), may_grow=may_grow
                )
            if (exponentials := kinds == METRIC_EXPONENTIAL_HISTOGRAM).any():
                self.exponential.add(batch.wire, points, take_records(updates, exponentials))
        return reasons, inexact

    def _full_from(self, now_unix_nano: int) -> int:
        """Rule 2: a source that is seen for the first time counts in full if it started then or later."""
        return 0 if self._initial == "full" else max(self.start_time_unix_nano, now_unix_nano - self._state_ttl_ns, 1)

    def _ended_at(self, keys: U64, rows: Indices) -> U64 | None:
        """(n,) when each source ended if its last value is not known, else 0; None: 0 for all."""
        if not len(self._ended_times):
            return None
        slots = self._ended_times.find(keys[rows])
        return np.where(slots >= 0, self._ended_times.column("time")[slots], 0).astype(np.uint64)

    # Values to write.

    def latest(self, now_s: float, stale_after_s: float) -> LatestValues:
        """Rule 6: the values of accumulators that combine the latest values of live sources."""
        fold = self.accumulators.column("fold")
        found = LatestValues(len(fold))
        column, live = self.sources.column, self.sources.live()
        target = column("accumulator")[live]
        is_live = (column("status")[live] == LIVE) & (column("seen")[live] >= now_s - stale_after_s)
        live = live[is_live & (target >= 0) & (fold[target] > ADDS)]
        sources = SourceValues(
            column("accumulator")[live], column("value")[live], column("is_double")[live] != 0, column("time")[live]
        )
        fold_of_source = fold[sources.accumulator]
        for number, name in enumerate(FOLDS):
            if number != ADDS and (has_fold := fold_of_source == number).any():
                found.combine(name, sources.take(has_fold))
        return found
