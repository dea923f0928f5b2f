"""Waits grow to their bound, spread evenly, honour the server, and end with max_elapsed_time."""

from hypothesis import given
from hypothesis import strategies as st

from collector.delivery.retry import Backoff
from config.blocks import RetryConfig


def middle(low, high):
    return (low + high) / 2


def waits(config, asked=(None,) * 50, uniform=middle, limit=50):
    now, found = 0.0, []
    backoff = Backoff(config, now, uniform)
    for wish, _ in zip(asked, range(limit), strict=False):
        wait = backoff.next_wait_s(now, wish)
        if wait is None:
            break
        found.append(wait)
        now += wait
    return found


def test_they_grow_to_max_interval():
    assert waits(RetryConfig(max_elapsed_time="0s"), limit=7) == [5, 7.5, 11.25, 16.875, 25.3125, 30, 30]


def test_they_end_before_max_elapsed_time():
    assert sum(waits(RetryConfig())) <= 300
    assert sum(waits(RetryConfig())) + 30 > 300


def test_disabled_there_is_none():
    assert waits(RetryConfig(enabled=False)) == []


def test_the_server_can_ask_for_more_but_not_for_less():
    assert waits(RetryConfig(), asked=[60.0, 1.0, None]) == [60, 7.5, 11.25]


@given(st.floats(0, 1), st.floats(0, 1))
def test_the_spread_is_the_randomization_factor(factor, share):
    config = RetryConfig(randomization_factor=factor)
    (wait,) = waits(config, uniform=lambda low, high: low + share * (high - low), limit=1)
    assert 5 * (1 - factor) - 1e-9 <= wait <= 5 * (1 + factor) + 1e-9
