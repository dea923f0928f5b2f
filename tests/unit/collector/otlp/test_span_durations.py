"""Which times of a span make a duration."""

import numpy as np
import pytest

from collector.otlp.span_durations import span_durations

DAY = 24 * 3600 * 1_000_000_000
NOW = 20_000 * DAY


@pytest.mark.parametrize(
    ("start", "end", "duration", "is_invalid"),
    [
        (NOW, NOW + 5, 5, False),
        (NOW, NOW, 0, False),
        (NOW, NOW + 30 * DAY, 30 * DAY, False),
        (NOW, NOW + 30 * DAY + 1, 0, True),
        (NOW, NOW - 1, 0, True),
        (0, NOW, 0, True),
        (0, 5, 0, True),
        (NOW, 0, 0, True),
        (0, 0, 0, True),
        (1_700_000_000, NOW, 0, True),  # seconds instead of nanoseconds
    ],
)
def test_span_durations(start, end, duration, is_invalid):
    """A time that is missing or absurd makes a duration of 0, which is marked."""
    durations, invalid = span_durations(np.array([start], np.uint64), np.array([end], np.uint64))
    assert (durations.tolist(), invalid.tolist()) == ([duration], [is_invalid])
