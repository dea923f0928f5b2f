"""Thresholds, randomness and trace states, with the values of the specification and of the Collector's README."""

import pytest

from collector.otlp.consistent_sampling import (
    parse_randomness,
    parse_threshold,
    read_trace_state,
    threshold_digits,
    threshold_of,
    threshold_with_precision,
    with_values,
)

WHOLE = 1 << 56


@pytest.mark.parametrize(
    ("ratio", "digits", "text"),
    [
        (1.0, 4, "0"),
        (0.5, 4, "8"),
        (0.25, 4, "c"),
        (0.1, 4, "e666"),
        (0.01, 4, "fd70a"),
        (1 / 3, 3, "aab"),
        (2 / 3, 3, "555"),
        (0.99, 4, "028f6"),
        (2.0**-56, 4, "ffffffffffffff"),
    ],
)
def test_precision(ratio, digits, text):
    """Leading digits f and 0 do not count towards the precision."""
    assert threshold_digits(threshold_with_precision(ratio, digits)) == text


@pytest.mark.parametrize("digits", [1, 4, 14])
def test_precision_never_makes_nothing_of_something(digits):
    """Only a ratio that is too small for 56 bits keeps nothing."""
    ratios = [1 - 2.0**-n for n in range(1, 53)] + [2.0**-n for n in range(57)]
    thresholds = [threshold_with_precision(ratio, digits) for ratio in ratios]
    assert all(0 <= threshold < WHOLE for threshold in thresholds)
    assert threshold_with_precision(0.0, digits) == threshold_with_precision(2.0**-57, digits) == WHOLE


@pytest.mark.parametrize(
    ("text", "state"),
    [
        ("", (None, None, True)),
        ("vendor=1", (None, None, True)),
        ("ot=th:8", (1 << 55, None, True)),
        (" vendor=1 , ot=rv:00000000000001;th:0;x:y", (0, 1, True)),
        ("ot=x:y", (None, None, True)),
        ("ot=th:", (None, None, False)),
        ("ot=th:G", (None, None, False)),
        ("ot=th:8;rv:1", (1 << 55, None, False)),
        ("ot=" + "th:8;" * 3, (1 << 55, None, True)),
    ],
)
def test_reading(text, state):
    """An absent member is valid, a malformed one is reported."""
    assert read_trace_state(text) == state


@pytest.mark.parametrize(
    ("text", "threshold", "randomness", "result"),
    [
        ("", 0, None, "ot=th:0"),
        ("a=1", 1 << 55, 1, "ot=th:8;rv:00000000000001,a=1"),
        ("a=1,ot=x:y;rv:ffffffffffffff;th:c", None, None, "ot=x:y;rv:ffffffffffffff,a=1"),
        ("a=1,ot=th:c", None, None, "a=1"),
        ("ot=th:c", None, None, ""),
    ],
)
def test_writing(text, threshold, randomness, result):
    """Other fields and members are kept."""
    assert with_values(text, threshold, randomness) == result


@pytest.mark.parametrize("text", ["", "8\n", "-1", "0x1", "\uff11", "f" * 15])
def test_values_alone(text):
    """A malformed threshold or randomness is refused."""
    assert parse_threshold(text) is None
    assert parse_randomness(text) is None


def test_thresholds():
    """Thresholds are those of the specification's examples, and an existing member is replaced."""
    assert f"{threshold_of(0.01):014x}".rstrip("0") == "fd70a4"
    assert threshold_of(0.5) == 1 << 55
    assert threshold_of(1.0) == 0
    assert threshold_of(0.0) == 1 << 56
    assert with_values("ot=rv:9b8233f7e3a151;th:4,x=y", 1 << 55) == "ot=th:8;rv:9b8233f7e3a151,x=y"
    assert read_trace_state("x=y,ot=th:8;rv:9b8233f7e3a151")[:2] == (1 << 55, 0x9B8233F7E3A151)
    assert read_trace_state("ot=th:xyz")[:2] == (None, None)
