"""Waits grow up to their limit, have jitter, respect the server's demand, and end with ``max_elapsed_time``."""

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from collector.delivery.retry import RetryPolicy
from collector.testing import FakeClock
from config.blocks import RetryConfig


def middle(low, high):
    return (low + high) / 2


def waits(config, demands=(None,) * 50, uniform=middle, limit=50):
    """The waits of a request of which every attempt fails; ``demands`` are the server's."""
    now, result = 0.0, []
    backoff = RetryPolicy(config, FakeClock(), uniform).backoff(now)
    for retry_after_s, _ in zip(demands, range(limit), strict=False):
        wait = backoff.next_wait_s(now, retry_after_s)
        if wait is None:
            break
        result.append(wait)
        now += wait
    return result


def test_they_grow_to_max_interval():
    assert waits(RetryConfig(max_elapsed_time="0s"), limit=7) == [5, 7.5, 11.25, 16.875, 25.3125, 30, 30]


def test_they_end_before_max_elapsed_time():
    assert sum(waits(RetryConfig())) <= 300
    assert sum(waits(RetryConfig())) + 30 > 300


def test_without_retry_there_are_none():
    assert waits(RetryConfig(enabled=False)) == []


def test_the_server_can_demand_longer_waits_but_not_shorter_ones():
    assert waits(RetryConfig(), demands=[60.0, 1.0, None]) == [60, 7.5, 11.25]


@given(st.floats(0, 1), st.floats(0, 1))
def test_the_jitter_is_within_the_randomization_factor(factor, share):
    config = RetryConfig(randomization_factor=factor)
    (wait,) = waits(config, uniform=lambda low, high: low + share * (high - low), limit=1)
    assert 5 * (1 - factor) - 1e-9 <= wait <= 5 * (1 + factor) + 1e-9


@pytest.mark.parametrize(("enabled", "reason"), [(True, "retries_exhausted"), (False, "retry_disabled")])
def test_the_reason_for_giving_up(enabled, reason):
    assert RetryPolicy(RetryConfig(enabled=enabled), FakeClock()).drop_reason == reason


async def test_draining_ends_the_current_wait_and_shortens_later_ones():
    clock = FakeClock()
    policy = RetryPolicy(RetryConfig(), clock)
    waiting = asyncio.ensure_future(policy.wait(30))
    await clock.advance(2)
    assert not waiting.done()
    policy.drain()
    await clock.advance(0)
    assert waiting.done()
    waiting = asyncio.ensure_future(policy.wait(30))
    await clock.advance(0.5)
    assert not waiting.done()
    await clock.advance(0.5)
    assert waiting.done()
