"""Exponential histograms in columns, compared with a loop over values in exact arithmetic."""

import math
from collections import Counter, defaultdict
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from collector.model import KeyTable
from collector.otlp.exponential_histogram import (
    SCALE_MAX,
    ExponentialHistogramColumns,
    finest_index,
    shifts_to_fit,
)

SLOTS = 3
VALUES = st.one_of(st.just(0.0), st.integers(-30, 30).map(lambda power: 2.0**power), st.floats(1e-9, 1e9))
BATCHES = st.lists(st.lists(st.tuples(st.integers(0, SLOTS - 1), VALUES, st.integers(1, 5)), max_size=8), max_size=4)


def expected_of(values, size):
    """(scale, buckets by index) from the indices at the finest scale."""
    finest = {value: int(finest_index(np.array([value]))[0]) for value in values if value > 0}
    shift = 0
    while finest and (max(finest.values()) >> shift) - (min(finest.values()) >> shift) >= size:
        shift += 1
    buckets = Counter()
    for value, weight in values.items():
        if value > 0:
            buckets[finest[value] >> shift] += weight
    return SCALE_MAX - shift, buckets


@pytest.mark.parametrize("count_type", [np.int64, np.float64])
@given(batches=BATCHES, size=st.sampled_from([1, 2, 5, 160]))
def test_agrees_with_a_loop_over_values(count_type, batches, size):
    """Whatever the order of values and their distribution over batches."""
    table = KeyTable(ExponentialHistogramColumns.columns("x_", size, count_type))
    histograms = ExponentialHistogramColumns(table, "x_", size)
    slots, _ = table.insert(np.array([[number, 1] for number in range(SLOTS)], np.uint64))
    truth = defaultdict(Counter)
    for batch in batches:
        histograms.add(
            slots[[number for number, _, _ in batch]],
            np.array([value for _, value, _ in batch], np.float64),
            np.array([weight for _, _, weight in batch], count_type),
        )
        for number, value, weight in batch:
            truth[number][value] += weight
    points = histograms.points(slots)
    for number in range(SLOTS):
        scale, buckets = expected_of(truth[number], max(size, 2))
        counts = points.bucket_counts[points.splits[number] : points.splits[number + 1]].tolist()
        assert points.scales[number] == scale
        assert {points.offsets[number] + i: count for i, count in enumerate(counts) if count} == buckets
        assert points.zero_counts[number] == truth[number][0.0]
        assert points.counts[number] == truth[number].total()
        assert histograms.is_empty(slots)[number] == (not truth[number].total())
    histograms.clear(slots)
    assert histograms.is_empty(slots).all()
    assert histograms.points(slots).scales.tolist() == [SCALE_MAX] * SLOTS


@pytest.mark.parametrize("power", [-1074, -20, 0, 1, 1023])
def test_a_power_of_two_is_the_upper_bound_of_its_bucket(power):
    """The next double above it is in the next bucket."""
    value = math.ldexp(1.0, power)
    index = finest_index(np.array([value, math.nextafter(value, math.inf)]))
    assert index[0] == (power << SCALE_MAX) - 1
    assert index[1] == index[0] + 1 or power == -1074  # twice the value


@given(st.floats(1e-300, 1e300))
def test_a_value_is_within_its_bucket(value):
    """At scale 2, where the bounds can be computed exactly enough."""
    index = int(finest_index(np.array([value]))[0]) >> (SCALE_MAX - 2)
    fourth = Fraction(value) ** 4
    assert Fraction(2) ** index < fourth <= Fraction(2) ** (index + 1)


def test_shifts_are_the_least_that_fit():
    """Of each row by itself; negative indices round down."""
    low, high = np.array([0, 0, -5, -1]), np.array([3, 4, 2, 0])
    assert shifts_to_fit(low, high, 4).tolist() == [0, 1, 2, 0]
