"""Windows over the ring agree with a slow and simple integral. The rules are those of docs/reference/gpu.md."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from collector.gpu import Reading, Ring

SECOND = 1_000_000_000
ORIGIN = 1_700_000_000 * SECOND
HOLD_S, GAP_S = 0.1, 1.0


def ring_of(samples, capacity=1000, **options):
    ring = Ring(capacity, gap_s=GAP_S, hold_s=HOLD_S, origin_unix_nano=ORIGIN, **options)
    for nano, reading in samples:
        ring.append(ORIGIN + nano, reading)
    return ring


def windows(ring, pairs):
    start = np.array([ORIGIN + a for a, _ in pairs], np.uint64)
    end = np.array([ORIGIN + b for _, b in pairs], np.uint64)
    return ring.view.windows(start, end)


def samples_every(step_s, count, **values):
    return [
        (
            round((n + 1) * step_s * SECOND),
            Reading(**{name: value(n) if callable(value) else value for name, value in values.items()}),
        )
        for n in range(count)
    ]


class Reference:
    """A slow reference that walks through the window cell by cell."""

    def __init__(self, samples, start, end):
        self.cells = []  # (seconds inside the window, reading, reading before)
        self.touched = []
        times = [t for t, _ in samples]
        for (before, previous), (now, reading) in itertools.pairwise(samples):
            overlap = max(0, min(end, now) - max(start, before)) / SECOND
            if (now - before) / SECOND <= GAP_S:
                self.cells.append((overlap, (now - before) / SECOND, reading, previous))
        held = max(0, min(end, times[-1] + round(HOLD_S * SECOND)) - max(start, times[-1])) / SECOND
        self.held = (held, samples[-1][1])
        low = next((n for n, t in enumerate(times) if t >= start), len(times) - 1)
        high = next((n for n, t in enumerate(times) if t >= end), len(times) - 1)
        self.touched = [reading for _, reading in samples[low : high + 1]]
        self.samples = sum(start <= t <= end for t in times)
        self.length = (end - start) / SECOND

    def mean(self, name):
        pairs = [(overlap, getattr(reading, name)) for overlap, _, reading, _ in self.cells]
        pairs.append((self.held[0], getattr(self.held[1], name)))
        pairs = [(seconds, value) for seconds, value in pairs if not math.isnan(value)]
        total = sum(seconds for seconds, _ in pairs)
        return sum(seconds * value for seconds, value in pairs) / total if total > 1e-9 else None

    def energy(self):
        joules, known = 0.0, 0.0
        for overlap, length, reading, previous in self.cells:
            if reading.energy_j >= previous.energy_j:
                joules += (reading.energy_j - previous.energy_j) * overlap / length
                known += overlap
            elif not math.isnan(reading.power_w):
                joules += reading.power_w * overlap
                known += overlap
        if not math.isnan(self.held[1].power_w):
            joules += self.held[0] * self.held[1].power_w
            known += self.held[0]
        missing = sum(overlap for overlap, *_ in self.cells) + self.held[0] - known
        return joules if known > 1e-9 and missing < 1e-9 else math.nan if missing > 1e-5 else None

    def coverage(self):
        return (sum(overlap for overlap, *_ in self.cells) + self.held[0]) / self.length

    def maximum(self, name):
        values = [getattr(reading, name) for reading in self.touched]
        values = [value for value in values if not math.isnan(value)]
        return max(values, default=math.nan)


STEPS_MS = st.sampled_from([10, 90, 100, 110, 500, 990, 1010, 4000])
LOADS = st.sampled_from([math.nan, 0.0, 0.25, 0.5, 0.875, 1.0])
POWERS = st.sampled_from([math.nan, 0.0, 75.0, 312.5, 700.0])
MEMORIES = st.integers(0, 1 << 36)
GROWTHS = st.sampled_from([None, 0.0, 0.5, 30.0, 100.0])  # of the energy counter; None: reset
CELLS = st.lists(st.tuples(STEPS_MS, LOADS, POWERS, MEMORIES, GROWTHS), min_size=1, max_size=25)
PLACES = st.tuples(st.integers(-1000, 1000), st.integers(1, 1000))


@st.composite
def histories(draw):
    """Samples, and windows that start and end anywhere around them."""
    samples, time, energy = [], 0, 1e6
    for step, load, power, memory, growth in draw(CELLS):
        time += step
        energy = 0.0 if growth is None else energy + growth
        samples.append(
            (time * SECOND // 1000, Reading(utilization=load, memory_used_bytes=memory, power_w=power, energy_j=energy))
        )
    pairs = []
    for place, length in draw(st.lists(PLACES, min_size=1, max_size=8)):
        start = time * place // 1000
        pairs.append((start * SECOND // 1000, (start + 1 + (time + 500) * length // 1000) * SECOND // 1000))
    return samples, pairs


@settings(max_examples=300)
@given(histories(), st.integers(25, 60))
def test_windows_equal_the_slow_integral(history, capacity):
    """All figures of a window are right for any history with gaps, resets and unknown values."""
    samples, pairs = history
    found = windows(ring_of(samples, capacity), pairs)
    columns = (
        found.energy(), found.mean("utilization"), found.mean("power"), found.coverage(), found.maximum("utilization"),
        found.maximum("memory_used"),
    )  # fmt: skip
    for row, (start, end) in enumerate(pairs):
        expected = Reference(samples, start, end)
        energy, utilization, power, coverage, peak, memory = (float(column[row]) for column in columns)
        if expected.energy() is not None:
            assert energy == pytest.approx(expected.energy(), rel=1e-6, abs=1e-4, nan_ok=True)
        if expected.mean("utilization") is not None:
            assert utilization == pytest.approx(expected.mean("utilization"), abs=1e-6)
        if expected.mean("power_w") is not None:
            assert power == pytest.approx(expected.mean("power_w"), rel=1e-6, abs=1e-6)
        assert coverage == pytest.approx(expected.coverage(), abs=1e-6)
        assert peak == pytest.approx(expected.maximum("utilization"), nan_ok=True)
        assert memory == expected.maximum("memory_used_bytes")
        assert found.samples[row] == expected.samples


def test_only_the_newest_samples_are_kept():
    """The ring drops the oldest samples, and a window before the remaining ones is reported as such."""
    ring = ring_of(samples_every(0.1, 50, utilization=0.5, memory_used_bytes=lambda n: n), capacity=10)
    assert len(ring.view) == 10
    assert ring.view.column("memory_used").tolist() == list(range(40, 50))
    found = windows(ring, [(0, SECOND), (4_500_000_000, 4_600_000_000)])
    assert found.is_before.tolist() == [True, False]
    assert found.coverage().tolist() == pytest.approx([0.0, 1.0])


def test_a_view_does_not_change_while_samples_are_added():
    """A view does not change, even after the ring has moved to a new array."""
    ring = ring_of(samples_every(0.1, 10, memory_used_bytes=lambda n: n), capacity=10)
    view = ring.view
    before = view.column("memory_used").copy()
    for nano, reading in samples_every(0.1, 100, memory_used_bytes=7):
        ring.append(ORIGIN + 2 * SECOND + nano, reading)
    assert view.column("memory_used").tolist() == before.tolist()


def test_an_energy_counter_that_falls_was_reset():
    """After a driver reload power over time is used, or the energy is absent, but never the counter (rule 11)."""
    counter = [100, 110, 120, 3, 13, 23]
    pairs = [(100_000_000, 600_000_000), (100_000_000, 300_000_000), (400_000_000, 600_000_000)]
    found = windows(ring_of(samples_every(0.1, 6, energy_j=lambda n: counter[n], power_w=100.0)), pairs)
    assert found.energy().tolist() == pytest.approx([50.0, 20.0, 20.0])
    found = windows(ring_of(samples_every(0.1, 6, energy_j=lambda n: counter[n], power_w=lambda n: math.nan)), pairs)
    assert found.energy().tolist() == pytest.approx([math.nan, 20.0, 20.0], nan_ok=True)


def test_without_an_energy_counter_power_is_integrated():
    """Without an energy counter, as on boards before Volta, power is integrated (rule 11)."""
    found = windows(ring_of(samples_every(0.1, 11, power_w=200.0)), [(100_000_000, 1_100_000_000)])
    assert found.energy()[0] == pytest.approx(200.0)


def test_what_is_never_reported_stays_unknown():
    """A quantity that is never reported is NaN, not 0 (rule 8)."""
    found = windows(ring_of(samples_every(0.1, 5, memory_used_bytes=1)), [(100_000_000, 400_000_000)])
    for column in (found.energy(), found.mean("utilization"), found.mean("power"), found.maximum("power")):
        assert math.isnan(column[0])


def test_the_newest_sample_is_held_for_one_interval():
    """A window that ends after the newest sample is covered for one more interval, not longer (rule 2)."""
    ring = ring_of(samples_every(0.1, 10, utilization=0.5, power_w=100.0, energy_j=lambda n: 10.0 * n))
    found = windows(ring, [(900_000_000, 1_050_000_000), (900_000_000, 1_300_000_000), (1_200_000_000, 1_300_000_000)])
    assert found.coverage().tolist() == pytest.approx([1.0, 0.5, 0.0])
    assert found.is_after.tolist() == [False, False, True]
    assert found.energy()[0] == pytest.approx(15.0)
    assert found.mean("utilization")[0] == pytest.approx(0.5)


def test_a_span_between_two_samples_holds_the_enclosing_one():
    """A window between two samples contains none but is covered, with the value of the enclosing sample (rule 23)."""
    ring = ring_of(samples_every(0.1, 10, utilization=lambda n: n / 10, memory_used_bytes=lambda n: n))
    found = windows(ring, [(520_000_000, 560_000_000), (550_000_000, 550_000_000)])
    assert found.samples.tolist() == [0, 0]
    assert found.coverage().tolist() == pytest.approx([1.0, 1.0])
    assert found.mean("utilization").tolist() == pytest.approx([0.5, 0.5])
    assert found.maximum("memory_used").tolist() == [5.0, 5.0]


def test_a_clock_set_back_forgets_what_was_later():
    """After the clock is set back times keep increasing, and windows of the new clock match its samples (rule 12)."""
    ring = ring_of(samples_every(0.1, 20, utilization=0.2))
    for nano, reading in samples_every(0.1, 5, utilization=0.9):
        ring.append(ORIGIN + SECOND + nano, reading)
    times = ring.view.column("time")
    assert (np.diff(times) > 0).all()
    assert times[-1] == pytest.approx(1.5)
    assert windows(ring, [(1_110_000_000, 1_500_000_000)]).mean("utilization")[0] == pytest.approx(0.9)


def test_hostile_times_are_answered():
    """Windows at 0, at the largest time and in between cause no error and have no coverage."""
    ring = ring_of(samples_every(0.1, 5, utilization=0.5))
    start = np.array([0, 0, 2**64 - 1, 1], np.uint64)
    end = np.array([0, 1, 2**64 - 1, 2**63], np.uint64)
    found = ring.view.windows(start, end)
    assert (found.coverage() < 1e-3).all()
    found.mean("utilization"), found.maximum("utilization"), found.energy()


def test_a_resized_ring_keeps_its_past():
    """A ring can grow without losing samples, and a new ring can take over the samples of another."""
    ring = ring_of(samples_every(0.1, 10, memory_used_bytes=lambda n: n), capacity=10)
    ring.resize(30, gap_s=GAP_S, hold_s=HOLD_S)
    assert len(ring.view) == 10
    heir = Ring(5, gap_s=GAP_S, hold_s=HOLD_S, origin_unix_nano=0, past=ring.view)
    assert heir.view.column("memory_used").tolist() == [5, 6, 7, 8, 9]
    heir.append(ORIGIN + 1_100_000_000, Reading(memory_used_bytes=10))
    assert heir.view.column("memory_used").tolist() == [6, 7, 8, 9, 10]


@given(
    st.lists(st.sampled_from([1, 2, 99, 100, 101, 5000]), min_size=2, max_size=300),
    st.lists(st.integers(-5000, 400_000), max_size=50),
    st.booleans(),
)
def test_the_grid_finds_what_a_binary_search_finds(steps, others, is_even):
    """The lookup for many windows finds the same samples as a binary search: at, between, before and after samples."""
    steps = [100] * len(steps) if is_even else steps
    times = (np.cumsum(steps) * (SECOND // 1000)).tolist()
    view = ring_of([(time, Reading(utilization=0.5)) for time in times]).view
    seconds = view.column("time")
    moments = np.concatenate(
        [seconds, np.nextafter(seconds, -np.inf), np.nextafter(seconds, np.inf), np.array(others) / 1000]
    )
    moments = np.resize(moments, max(2000, len(moments)))
    assert view.cells(moments).tolist() == np.searchsorted(seconds, moments).tolist()
    assert len(moments) >= 1024
