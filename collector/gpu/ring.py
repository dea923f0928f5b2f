"""The recent samples of one device, in columns, and their aggregates over many time windows at once.

The writer only ever writes after the rows it has published, and moves to a new array when one is full. A
:class:`RingView` is therefore consistent for as long as it is referenced, without a lock and without a copy.

A sample describes the time since the sample before it, its *cell*, because the driver's figures are averages over the
past. Rates are stored as integrals, so the mean over any window is the difference of two interpolated values. A cell
longer than ``gap_s`` is a gap: nothing was sampled there, and it counts as not covered. The newest sample is assumed to
hold for another ``hold_s`` (docs/reference/gpu.md, rules 2, 11 and 12).
"""

from functools import cached_property
from math import isnan, nan
from typing import Final

import numpy as np

from collector.gpu.backend import Reading
from collector.model.arrays import F64, I64, U64, Mask

__all__ = ["Ring", "RingView", "Windows"]


_RATES: Final = ("utilization", "power")
_VALUES: Final = ("utilization", "power", "memory_used")
_COLUMNS: Final = {
    name: row
    for row, name in enumerate(
        (
            "time",  # seconds since the ring's origin
            "covered",  # seconds
            *_VALUES,
            *(f"{name}.integral" for name in _RATES),
            *(f"{name}.covered" for name in _RATES),
            "energy",  # joules since the ring's origin; resets of the counter are taken out
            "energy.covered",
        )
    )
}


_ROUNDING_S: Final = 1e-6  # the rounding error of sums of seconds over a ring
_GRID_MOMENTS: Final = 1024  # for fewer moments, building the grid (150 µs at 6 000 samples) costs more than it saves
_GRID_SAMPLES: Final = 8  # the most samples in one bucket of the grid
_FLOOR_LOG2_BITS: Final = 10
_FLOOR_LOG2: Final = np.frexp(np.arange(1 << _FLOOR_LOG2_BITS))[1].astype(np.int64) - 1


class Ring:
    """A bounded history of samples. Written by one thread, read by any."""

    def __init__(
        self, capacity: int, *, gap_s: float, hold_s: float, origin_unix_nano: int, past: "RingView | None" = None
    ) -> None:
        self._capacity = capacity
        self._gap_s, self._hold_s = gap_s, hold_s
        self._origin = origin_unix_nano if past is None else past.origin_unix_nano
        self._rows: F64 = np.empty((len(_COLUMNS), 2 * capacity))
        self._low = self._high = 0
        self._energy_j = nan  # the counter at the newest sample
        if past is not None:
            self._high = min(len(past), capacity)
            self._rows[:, : self._high] = past.rows[:, len(past) - self._high :]
        self._publish()

    @property
    def view(self) -> "RingView":
        """The samples written so far. Safe to read from any thread."""
        return self._view

    def resize(self, capacity: int, *, gap_s: float, hold_s: float) -> None:
        """Change the capacity, keeping the newest samples that fit, and the limits that apply to later samples."""
        self._gap_s, self._hold_s = gap_s, hold_s
        if capacity != self._capacity:
            self._capacity = capacity
            self._move(keep=min(capacity, self._high - self._low))
        self._publish()

    def append(self, time_unix_nano: int, reading: Reading) -> bool:
        """Add a sample; returns whether a gap precedes it.

        A time that is not later than that of the newest sample means that the clock was set back. The samples at or
        after the new time are then removed, so that times keep increasing and spans with times of the new clock match
        samples with times of the new clock.
        """
        now = (time_unix_nano - self._origin) * 1e-9
        self._remove_from(now)
        if self._high == self._rows.shape[1]:
            self._move(keep=self._capacity - 1)
        self._low = max(self._low, self._high + 1 - self._capacity)
        rows, new = self._rows, self._high
        row = dict.fromkeys(_COLUMNS, 0.0)
        length, is_gap = 0.0, False
        if new > self._low:
            row = dict(zip(_COLUMNS, rows[:, new - 1].tolist(), strict=True))
            length = now - row["time"]
            is_gap = length > self._gap_s
            if is_gap:
                length = 0.0
        row["time"] = now
        row["covered"] += 0.0 if reading.is_lost else length
        row["utilization"], row["power"] = reading.utilization, reading.power_w
        row["memory_used"] = reading.memory_used_bytes
        for name in _RATES:
            if not isnan(row[name]):
                row[f"{name}.integral"] += row[name] * length
                row[f"{name}.covered"] += length
        before, self._energy_j = self._energy_j, reading.energy_j
        # A counter that fell was reset (driver reload), so its increase is unknown. Comparisons with NaN are false.
        if length and reading.energy_j >= before:
            row["energy"] += reading.energy_j - before
            row["energy.covered"] += length
        elif not isnan(row["power"]):  # no counter, or a reset: power over time instead
            row["energy"] += row["power"] * length
            row["energy.covered"] += length
        rows[:, new] = list(row.values())
        self._high += 1
        self._publish()
        return is_gap

    def _remove_from(self, now: float) -> None:
        times = self._rows[_COLUMNS["time"]]
        if self._high > self._low and now <= times[self._high - 1]:
            keep = int(np.searchsorted(times[self._low : self._high], now, side="left"))
            self._high = self._low + keep
            self._energy_j = nan
            self._move(keep=keep)  # published rows are never overwritten

    def _move(self, keep: int) -> None:
        """Continue in a new array that starts with the newest ``keep`` rows."""
        rows: F64 = np.empty((len(_COLUMNS), 2 * self._capacity))
        rows[:, :keep] = self._rows[:, self._high - keep : self._high]
        self._rows, self._low, self._high = rows, 0, keep

    def _publish(self) -> None:
        self._view = RingView(self._rows[:, self._low : self._high], self._origin, self._hold_s)


class RingView:
    """A read-only view of the samples of a ring at one moment."""

    def __init__(self, rows: F64, origin_unix_nano: int, hold_s: float) -> None:
        self.rows = rows
        self.origin_unix_nano = origin_unix_nano
        self._hold_s = hold_s
        self._maxima: dict[str, F64] = {}

    def __len__(self) -> int:
        return int(self.rows.shape[1])

    def column(self, name: str) -> F64:
        """The samples' values, oldest first: time (seconds since the origin), utilization, power or memory_used."""
        column: F64 = self.rows[_COLUMNS[name]]
        return column

    def windows(self, start_unix_nano: U64, end_unix_nano: U64) -> "Windows":
        """The windows [start, end], (n,) each, start ≤ end, on this view, which must have at least one sample."""
        return Windows(self, self._seconds(start_unix_nano), self._seconds(end_unix_nano), self._hold_s)

    def cells(self, moments: F64) -> I64:
        """For each moment the first sample at or after it, ``len(self)`` if there is none: ``np.searchsorted``."""
        grid = self._grid if len(moments) >= _GRID_MOMENTS else None
        if grid is None:
            return np.searchsorted(self.column("time"), moments, side="left")
        times, first, per_s = grid
        bucket = ((moments - times[0]) * per_s).clip(0, len(first) - 1).astype(np.int64)
        cells: I64 = first.take(bucket)
        is_before = times.take(cells) < moments
        while is_before.any():
            cells += is_before
            is_before = times.take(cells) < moments
        return cells

    def maxima(self, name: str, level: int) -> F64:
        """(level + 1, len): element i of row k is the maximum of the ``2**k`` samples from i on; NaN if all are NaN."""
        table = self._maxima.get(name)
        if table is None or len(table) <= level:
            rows = [self.column(name)]
            for number in range(level):
                row, step = rows[-1].copy(), 1 << number
                np.fmax(row[:-step], rows[-1][step:], out=row[:-step])
                rows.append(row)
            table = self._maxima[name] = np.stack(rows)
        return table

    def _seconds(self, times: U64) -> F64:
        # The difference modulo 2^64, read as signed, is right for every time within 292 years of the origin.
        elapsed: I64 = (times - np.uint64(self.origin_unix_nano)).view(np.int64)
        return np.multiply(elapsed, 1e-9, dtype=np.float64)

    @cached_property
    def _grid(self) -> tuple[F64, I64, float] | None:
        """The times and infinity, the first sample of each of many equal buckets of time, and the buckets per second.

        A lookup in the buckets replaces most of a binary search. None if the samples are too uneven for that.
        """
        times = self.column("time")
        length = times[-1] - times[0]
        if length <= 0:
            return None
        count = 2 * len(times)
        # Slightly early, so that rounding never puts a moment into a bucket that starts after it.
        starts = times[0] + (np.arange(count) - 1e-3) * (length / count)
        first: I64 = np.searchsorted(times, starts, side="left")
        if np.diff(first).max() > _GRID_SAMPLES:
            return None
        return np.append(times, np.inf), first, float(count / length)


class Windows:
    """Many windows over one view. Every result is (n,), with NaN where nothing is known."""

    def __init__(self, view: RingView, start: F64, end: F64, hold_s: float) -> None:
        times = view.column("time")
        last = len(times) - 1
        self._view, self._duration = view, end - start
        first_cell, last_cell = view.cells(start), view.cells(end)
        self._low, self._high = np.minimum(first_cell, last), np.minimum(last_cell, last)
        is_at_sample = (times.take(self._high) == end) & (last_cell <= last)
        self.samples: I64 = last_cell - first_cell + is_at_sample
        """Samples taken within the window."""
        self.is_before: Mask = end < times[0]
        """The window ended before the oldest sample."""
        self.is_after: Mask = start > times[last] + hold_s
        """The window starts after the newest sample and its hold."""
        self._from = _Position(times, first_cell, self._low, start)
        self._to = _Position(times, last_cell, self._high, end)
        # The seconds of each window for which the newest sample is held.
        self._held: F64 | None = None
        if end.max(initial=-np.inf) > times[last]:
            self._held = np.clip(end - times[last], 0.0, hold_s) - np.clip(start - times[last], 0.0, hold_s)

    def coverage(self) -> F64:
        """The share of the window that was sampled, 0 to 1; of a window of no length, whether its moment was."""
        seconds = self._covered_s if self._held is None else self._covered_s + self._held
        instant = (~self.is_before & ~self.is_after).astype(np.float64)
        np.divide(seconds, self._duration, out=instant, where=self._duration > 0)
        return np.clip(instant, 0.0, 1.0, out=instant)

    def mean(self, name: str) -> F64:
        """Time-weighted mean of ``utilization`` or ``power`` over the covered part, else of the enclosing sample."""
        value = self._view.column(name)
        seconds, integral = self._known_s(name), self._increase(f"{name}.integral")
        if self._held is not None and not isnan(value[-1]):
            seconds, integral = seconds + self._held, integral + self._held * value[-1]
        result: F64 = value.take(self._high)
        np.divide(integral, seconds, out=result, where=seconds > 0)
        return result

    def maximum(self, name: str) -> F64:
        """The largest value of the samples whose cells the window touches."""
        level, begin, end = self._blocks
        table = self._view.maxima(name, level).reshape(-1)
        if not level:
            return table.take(begin)
        return np.fmax(table.take(begin), table.take(end))

    def energy(self) -> F64:
        """Joules used within the covered part, from the energy counter or, where there is none, from power over time.

        NaN if neither is known for some of that part: an incomplete sum would be wrong, not merely smaller.
        """
        known, joules, covered = self._known_s("energy"), self._increase("energy"), self._covered_s
        if self._held is not None:
            power = self._view.column("power")[-1]
            covered = covered + self._held
            if not isnan(power):
                known, joules = known + self._held, joules + self._held * power
        return np.where((known > 0) & (known >= covered - _ROUNDING_S), joules, nan)

    @cached_property
    def _covered_s(self) -> F64:
        return self._increase("covered")

    @cached_property
    def _blocks(self) -> tuple[int, I64, I64]:
        """The highest level of ``RingView.maxima`` needed, and two flat indices into it per window.

        The two runs of samples that they stand for, each a power of two long, together cover the window's samples.
        """
        width = self._high - self._low + 1
        largest = int(width.max(initial=1)).bit_length() - 1
        if not largest:
            return 0, self._low, self._low
        power = _FLOOR_LOG2.take(width) if largest < _FLOOR_LOG2_BITS else np.frexp(width)[1].astype(np.int64) - 1
        offset = power * len(self._view)
        return largest, offset + self._low, offset + self._high + 1 - (1 << power)

    def _known_s(self, name: str) -> F64:
        """Seconds of the window in which ``name`` was known."""
        known, covered = self._view.column(f"{name}.covered"), self._view.column("covered")
        # Neither ever falls, and "known" only grows together with "covered": if their growth over the whole view is
        # equal, it is equal in every cell.
        if known[-1] - known[0] == covered[-1] - covered[0]:
            return self._covered_s
        return self._increase(f"{name}.covered")

    def _increase(self, column: str) -> F64:
        values = self._view.column(column)
        increase = self._to.interpolate(values)
        increase -= self._from.interpolate(values)
        return increase


class _Position:
    """The positions of moments between samples: found once, used for every column."""

    def __init__(self, times: F64, cell: I64, right: I64, moment: F64) -> None:
        self._right = right
        self._left = np.maximum(cell - 1, 0)
        left = times.take(self._left)
        length = times.take(right) - left
        self._share = np.divide(moment - left, length, out=np.zeros_like(moment), where=length > 0)

    def interpolate(self, values: F64) -> F64:
        left = values.take(self._left)
        value = values.take(self._right)
        value -= left
        value *= self._share
        value += left
        return value
