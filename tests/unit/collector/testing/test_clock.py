"""The fake clock wakes sleepers at their deadlines and nobody else."""

import asyncio

import pytest

from collector.testing import FakeClock, eventually


async def test_advance_wakes_in_order_and_also_those_that_sleep_again():
    """A ticker of 2 s beside one sleeper of 3 s, seen at the times they woke."""
    clock, seen = FakeClock(), []

    async def ticker():
        while True:
            await clock.sleep(2)
            seen.append(("tick", clock.monotonic_s()))

    async def once():
        await clock.sleep(3)
        seen.append(("once", clock.monotonic_s()))

    tasks = [asyncio.ensure_future(ticker()), asyncio.ensure_future(once())]
    await clock.advance(1.9)
    assert seen == []
    await clock.advance(4.2)
    assert seen == [("tick", 2.0), ("once", 3.0), ("tick", 4.0), ("tick", 6.0)]
    assert clock.time_unix_nano() == 1_700_000_000_000_000_000 + 6_100_000_000
    assert clock.sleeper_count == 1
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    await clock.advance(10)  # a cancelled sleeper is skipped
    assert clock.sleeper_count == 0


async def test_eventually_gives_up():
    """A condition that never holds ends with TimeoutError."""
    with pytest.raises(TimeoutError):
        await eventually(lambda: False, timeout_s=0.01)
