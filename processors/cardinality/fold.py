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
    combine_keys,
)
from collector.model.arrays import F64, I32, I64, U8, U64, Array, Indices, Mask, take_records
from collector.model.checkpoint import CheckpointError, Part, Parts, nested, within
from collector.model.runs import rank_in_run, run_starts
from processors.cardinality._updates import add_numbers, other_starts, take_updates
from processors.cardinality.exemplars import ExemplarPool
from processors.cardinality.exponential import ExponentialHistograms
from processors.cardinality.histograms import Histograms
from processors.cardinality.latest_values import LatestValues, SourceValues
from processors.cardinality.records import (
    ACCUMULATOR,
    ADDS,
    COUNTS,
    DROP_REASONS,
    ENDED,
    FOLDS,
    FREED,
    LIVE,
    NEW,
    PROCESSES_MAX,
    PROCESSES_SHIFT,
    RESTARTED,
    SOURCE,
)

__all__ = ["MERGEABLE_TYPES", "Fold"]

MERGEABLE_TYPES: Final = (METRIC_GAUGE, METRIC_SUM, METRIC_HISTOGRAM, METRIC_EXPONENTIAL_HISTOGRAM)
_EXPONENTIAL: Final = DROP_REASONS.index("exponential")
_OVERLAP: Final = DROP_REASONS.index("overlap")
_NS: Final = 1_000_000_000
_AHEAD_MAX_NS: Final = 300 * _NS  # how far ahead of our clock the time of a point is believed (rule 10)
_U64_MAX: Final = np.uint64(2**64 - 1)
_NAMED_SHARE: Final = 0.5  # the share of the state limit that may be used for named series
_ACCUMULATOR_BYTES: Final = 2000  # about what the objects take that describe a written series, without their texts


class Fold:
    """Sources and accumulators."""

    def __init__(
        self,
        *,
        start_time_unix_nano: int,
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
        self._forgotten = KeyTable(
            {"time": np.uint64, "is_merged": np.bool_}, capacity=64, max_bytes=max(state_max_bytes // 16, 65_536)
        )
        """Series whose last value is not known any more: what they counted until ``time`` must not count again.
        ``is_merged``: it counted in a series that the processor writes, or had lost its name."""
        self._forgotten_before = 0
        """Until when a source that started earlier may have been forgotten without a row in ``_forgotten``."""
        self._has_processes = False
        self.new_accumulators: dict[int, int] = {}
        """When the accumulators began that add up and were not written yet; a zero is written first for these."""
        self.histograms = Histograms(self.sources, self.accumulators)
        self.exponential = ExponentialHistograms(self.sources, self.accumulators)
        self._slot_bytes = self.sources.memory_bytes // len(self.sources.records)
        self.other_bytes = 0
        """Memory of the rest of the state: first points of named series and sketches."""
        self.configure(initial=initial, state_max_bytes=state_max_bytes)

    def configure(self, *, initial: str, state_max_bytes: int) -> None:
        """Apply other settings to the same state (after a reload)."""
        self._initial, self._state_max_bytes = initial, state_max_bytes

    @property
    def state_bytes(self) -> int:
        """Memory of sources, accumulators, their buckets and exemplars, and of what belongs to the state otherwise."""
        tables = self.sources.memory_bytes + self.accumulators.memory_bytes + self._forgotten.memory_bytes
        buckets = self.histograms.size_bytes + self.exponential.size_bytes
        accumulators = self.exemplars.memory_bytes + _ACCUMULATOR_BYTES * len(self.accumulators)
        return tables + buckets + accumulators + self.other_bytes

    @property
    def is_full(self) -> bool:
        """Whether there is no room for new sources."""
        return len(self.sources) >= self._source_limit()

    def room_for_named(self) -> int:
        """How many bytes of values of more named series may be stored; negative if there are too many."""
        sources = len(self.sources) * self._slot_bytes
        used = sources + self.histograms.size_bytes + self.exponential.size_bytes + self.other_bytes
        return int(_NAMED_SHARE * self._state_max_bytes) - used

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

    def were_merged(self, keys: U64, start_times: U64) -> Mask:
        """(n,) series that were forgotten after they had been merged, and that still have the start time of then.

        Under their own names they would show once more what the series into which they were merged shows already.
        """
        if not len(self._forgotten):
            return np.zeros(len(keys), np.bool_)
        slots = self._forgotten.find(keys)
        column = self._forgotten.column
        were: Mask = (slots >= 0) & column("is_merged")[slots] & (start_times <= column("time")[slots])
        return were

    def new_accumulator(self, slot: int, *, kind: int, fold: int, now_unix_nano: int) -> None:
        """Initialise the accumulator in ``slot``. ``kind``: METRIC type; ``fold``: an index of ``FOLDS``."""
        if fold == ADDS:
            self.new_accumulators[slot] = now_unix_nano
        column = self.accumulators.column
        column("set")[slot] = -1
        column("kind")[slot], column("fold")[slot] = kind, fold
        column("start")[slot] = self.accumulators_start
        column("min")[slot], column("max")[slot] = np.inf, -np.inf

    def bounds_of(self, accumulator: int) -> F64:
        """The bounds of a histogram; none for other types."""
        set_ = int(self.accumulators.column("set")[accumulator])
        is_histogram = self.accumulators.column("kind")[accumulator] == METRIC_HISTOGRAM
        return self.histograms.bounds[set_] if is_histogram and set_ >= 0 else np.zeros(0)

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
            ended = keys[~is_known]
            lost_name = np.full(len(ended), status == FREED)
            self._remember(ended, np.full(len(ended), now_unix_nano, np.uint64), lost_name)

    def _remember(self, keys: U64, times: U64, are_merged: Mask) -> None:
        """Remember that the last values of series at ``times`` are forgotten; the oldest such rows make room."""
        slots, _ = self._forgotten.insert(keys)
        if (slots < 0).any():
            live = self._forgotten.live()
            oldest = live[np.argsort(self._forgotten.column("time")[live], kind="stable")][: (len(live) + 1) // 2]
            self._forgotten_before = max(
                self._forgotten_before, int(self._forgotten.column("time")[oldest].max(initial=0))
            )
            self._forgotten.remove(oldest)
            slots, _ = self._forgotten.insert(keys)
            if (missing := slots < 0).any():
                self._forgotten_before = max(self._forgotten_before, int(times[missing].max()))
        is_kept = slots >= 0
        self._forgotten.column("time")[slots[is_kept]] = times[is_kept]
        self._forgotten.column("is_merged")[slots[is_kept]] |= are_merged[is_kept]

    def expire(self, now_s: float, now_unix_nano: int, *, ttl_s: float, window_s: float) -> I32:
        """Forget sources that were silent for ``ttl_s``, but not that they existed.

        Returns:
            Accumulators without new points for ``window_s`` and without sources, for the caller to remove.
        """
        live = self.sources.live()
        expired = live[now_s - self.sources.column("seen")[live] > ttl_s]
        kinds = self.sources.column("kind")[expired]
        self.histograms.release_sources(expired[kinds == METRIC_HISTOGRAM])
        self.exponential.release_sources(expired[kinds == METRIC_EXPONENTIAL_HISTOGRAM])
        counted = expired[self.sources.column("flags")[expired] & COUNTS != 0]
        if len(counted):
            times = np.minimum(self.sources.column("time")[counted], np.uint64(now_unix_nano))
            self._remember(self.sources.keys(counted), times, self.placement_of(counted)[1])
        self.sources.remove(expired)
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
        for slot in slots.tolist():
            self.new_accumulators.pop(slot, None)
        self.accumulators.remove(slots)
        self.exemplars.drop(slots)
        self.histograms.release_sets()

    # Checkpoints.

    def parts(self) -> dict[str, Part]:
        """Sources and accumulators, for a checkpoint; exemplars begin anew."""
        return {
            "start": self.start_time_unix_nano,
            "accumulators_start": self.accumulators_start,
            "last_flush": self.last_flush,
            "forgotten_before": self._forgotten_before,
            "has_processes": self._has_processes,
            "new_accumulators": list(self.new_accumulators.items()),
            **nested("sources", self.sources.snapshot()),
            **nested("accumulators", self.accumulators.snapshot()),
            **nested("forgotten", self._forgotten.snapshot()),
            **nested("histograms", self.histograms.parts()),
            **nested("exponential", self.exponential.parts()),
        }

    def restore(self, parts: Parts, elapsed_s: float) -> None:
        """Continue from ``parts``; ``elapsed_s`` is added to monotonic times.

        Raises:
            CheckpointError, KeyError, TypeError, ValueError: They are not those of such an object.
        """
        self.start_time_unix_nano, self.last_flush = int(parts["start"]), int(parts["last_flush"])
        self.accumulators_start, self._forgotten_before = (
            int(parts["accumulators_start"]),
            int(parts["forgotten_before"]),
        )
        self._has_processes = bool(parts["has_processes"])
        self.new_accumulators = {int(slot): int(began) for slot, began in parts["new_accumulators"]}
        self.sources.restore(within("sources", parts))
        self.accumulators.restore(within("accumulators", parts))
        self._forgotten.restore(within("forgotten", parts))
        self.histograms.restore(within("histograms", parts))
        self.exponential.restore(within("exponential", parts))
        live, accumulators = self.sources.live(), self.accumulators.live()
        targets = self.sources.column("accumulator")[live]
        if not np.isin(targets[targets >= 0], accumulators).all():
            raise CheckpointError("a source has an accumulator that is not known")
        self.sources.column("seen")[live] += np.float32(elapsed_s)
        self.accumulators.column("seen")[accumulators] += elapsed_s

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
        at = other_starts(points, metrics, rows, slots, self.sources.records, reasons)
        ended = None
        if len(unknown) and (forgotten := self._forgotten_at(keys[rows[unknown]])) is not None:
            ended = np.zeros(len(rows), np.uint64)
            ended[unknown] = forgotten
        if self._has_processes and len(new):
            self._adopt(points["start_time"][rows], keys[rows], slots, unknown[is_new])
            at = other_starts(points, metrics, rows, slots, self.sources.records, reasons)
        if len(at):
            started, ended = self._separate_processes(
                points, rows, keys[rows], slots, targets, at, reasons, ended, now_s
            )
            new = np.concatenate((new, started))
        updates, baseline_count, forgotten_count, overlap_count = take_updates(
            points,
            metrics,
            rows,
            slots,
            targets,
            own_name.view(np.uint8),
            self.sources.records,
            self.accumulators.records,
            reasons,
            full_from=0 if self._initial == "full" else max(self.start_time_unix_nano, self._forgotten_before + 1),
            began=self.start_time_unix_nano,
            never_full=self._initial == "zero",
            ended=ended,
            believed_until=now_unix_nano + _AHEAD_MAX_NS,
            now_s=now_s,
        )
        self.sources.remove(new[self.sources.column("status")[new] == NEW])  # those of which no point was used
        inexact = {"baseline": baseline_count, "forgotten": forgotten_count, "overlap": overlap_count}
        if len(updates):
            if self.new_accumulators and (overwrites := updates["overwrites"]).any():
                # The backend has a value of this name already, and a zero would look like a reset.
                for slot in np.unique(updates["accumulator"][overwrites]).tolist():
                    self.new_accumulators.pop(slot, None)
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

    def _forgotten_at(self, keys: U64) -> U64 | None:
        """(n,) until when each series has been counted if its last value is not known, else 0; None: 0 for all."""
        if not len(self._forgotten):
            return None
        slots = self._forgotten.find(keys)
        return np.where(slots >= 0, self._forgotten.column("time")[slots], 0).astype(np.uint64)

    # Several processes with one identity (rule 13).

    def _separate_processes(
        self,
        points: Array,
        rows: Indices,
        keys: U64,
        slots: I32,
        targets: I32,
        at: I64,
        reasons: U8,
        ended: U64 | None,
        now_s: float,
    ) -> tuple[I32, U64]:
        """Give points of further processes with the identity of a source a source of their own.

        A point whose start time is not before the last point of its source is a restart, and keeps the source; of
        several such start times in one batch, the earliest one does. Any other start time belongs to another process,
        whose source has a key of series and start time.

        Args:
            points: POINT records of the batch.
            rows: (n,) rows of the points.
            keys: (n, 2) their series.
            slots: (n,) their sources; changed.
            targets: (n,) accumulators for sources that have none; changed.
            at: The indices of ``other_starts``.
            reasons: (n,) why a row is not used; changed.
            ended: (n,) of ``_forgotten_at``.
            now_s: Monotonic clock.

        Returns:
            The new sources, and ``ended`` for all rows.
        """
        column = self.sources.column
        start_times = points["start_time"][rows[at]]
        first_slots, owner = np.unique(slots[at], return_inverse=True)
        newest = column("time")[first_slots].copy()
        is_own = np.isin(slots, first_slots) & (reasons == 0)
        is_own[at] = False
        own = np.flatnonzero(is_own)
        np.maximum.at(newest, np.searchsorted(first_slots, slots[own]), points["time"][rows[own]])
        follows = start_times >= newest[owner]
        successor = np.full(len(first_slots), _U64_MAX)
        np.minimum.at(successor, owner[follows], start_times[follows])
        restarts = start_times == successor[owner]
        flags = column("flags")[first_slots]
        had_restarted = flags & RESTARTED != 0
        restarted = np.unique(owner[restarts])
        column("flags")[first_slots[restarted]] = flags[restarted] & COUNTS | RESTARTED
        ended = np.zeros(len(rows), np.uint64) if ended is None else ended
        at, owner, start_times = at[~restarts], owner[~restarts], start_times[~restarts]
        if not len(at):
            return np.zeros(0, np.int32), ended
        self._has_processes = True
        first_starts, first_accumulators = column("start")[first_slots], column("accumulator")[first_slots]
        first_status = column("status")[first_slots]
        first_accumulators = np.where(first_status == NEW, -1, first_accumulators)
        adds_up = (first_accumulators < 0) | (self.accumulators.column("fold")[first_accumulators] == ADDS)
        column("seen")[first_slots[adds_up]] = now_s  # what is known of the series lives as long as one of its sources
        process_keys = combine_keys(keys[at], start_times)
        found, is_new = self.sources.insert(process_keys, limit=max(self._source_limit(), 1))
        new, new_owner = found[is_new], owner[is_new]
        order = np.argsort(new_owner, kind="stable")
        flags = column("flags")[first_slots]
        count = np.empty(len(new), np.int64)
        count[order] = rank_in_run(run_starts(new_owner[order])) + (flags[new_owner[order]] >> PROCESSES_SHIFT)
        refused = new[count >= PROCESSES_MAX]
        if len(refused):
            reasons[at[np.isin(found, refused)]] = _OVERLAP
            self.sources.remove(refused)
        added = np.bincount(new_owner[count < PROCESSES_MAX], minlength=len(first_slots))
        column("flags")[first_slots] += (added << PROCESSES_SHIFT).astype(np.uint8)
        slots[at] = found
        into = first_accumulators[owner]
        targets[at] = np.where(into >= 0, into, targets[at])
        is_kept = found >= 0
        freed = found[is_kept & (first_status[owner] == FREED) & ~np.isin(found, new)]
        column("status")[freed[column("accumulator")[freed] < 0]] = FREED
        forgotten = self._forgotten_at(process_keys)
        if forgotten is not None:
            ended[at] = np.maximum(ended[at], forgotten)
        # After a restart it is not known whether a process that started earlier has been counted before.
        is_unsure = had_restarted[owner] & (start_times < first_starts[owner]) & np.isin(found, new)
        ended[at[is_unsure]] = _U64_MAX
        return new[count < PROCESSES_MAX], ended

    def _adopt(self, start_times: U64, keys: U64, slots: I32, at: Indices) -> None:
        """Where the first source of a series was forgotten, the source of another of its processes takes its place."""
        processes = self.sources.find(combine_keys(keys[at], start_times[at]))
        is_known = processes >= 0
        if is_known.any():
            self.sources.records[slots[at[is_known]]] = self.sources.records[processes[is_known]]
            self.sources.remove(processes[is_known])

    # Values to write.

    def latest(self, now_unix_nano: int, now_s: float, stale_after_s: float) -> LatestValues:
        """Rule 6: the values of accumulators that combine the latest values of live sources."""
        fold = self.accumulators.column("fold")
        found = LatestValues(len(fold))
        column, live = self.sources.column, self.sources.live()
        target = column("accumulator")[live]
        is_live = (column("status")[live] == LIVE) & (column("seen")[live] >= now_s - stale_after_s)
        live = live[is_live & (target >= 0) & (fold[target] > ADDS)]
        # A time that is far ahead is not believed: the point is as new as it was when it arrived (rule 10).
        silence = (np.maximum(now_s - column("seen")[live].astype(np.float64), 0) * _NS).astype(np.uint64)
        arrived, times = np.uint64(now_unix_nano) - silence, column("time")[live]
        times = np.where(times > arrived + np.uint64(_AHEAD_MAX_NS), arrived, times)
        sources = SourceValues(
            column("accumulator")[live], column("value")[live], column("is_double")[live] != 0, times
        )
        fold_of_source = fold[sources.accumulator]
        for number, name in enumerate(FOLDS):
            if number != ADDS and (has_fold := fold_of_source == number).any():
                found.combine(name, sources.take(has_fold))
        return found
