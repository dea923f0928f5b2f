"""Work that is repeated in the background."""

import asyncio

from collector.api import PeriodicTask
from collector.testing import FakeClock


async def test_work_is_repeated_until_stop():
    """The first call comes one interval after the start; none comes after the stop."""
    clock, calls = FakeClock(), []

    async def work():
        calls.append(clock.monotonic_s())

    task = PeriodicTask(work, 5.0, clock)
    assert not await task.stop()
    task.start()
    await clock.advance(12)
    assert await task.stop()
    assert not await task.stop()
    await clock.advance(12)
    assert calls == [5, 10]


async def test_stop_waits_for_the_call_in_progress_and_makes_no_other():
    """An extra call that waits for the one in progress is not made."""
    clock, calls, may_end = FakeClock(), [], asyncio.Event()

    async def work():
        calls.append("begun")
        await may_end.wait()
        calls.append("ended")

    task = PeriodicTask(work, 5.0, clock)
    task.start()
    await clock.advance(5)
    task.run_soon()
    stopping = asyncio.ensure_future(task.stop())
    await asyncio.sleep(0)
    assert not stopping.done()
    may_end.set()
    assert await stopping
    assert calls[:2] == ["begun", "ended"]
    assert calls.count("begun") == calls.count("ended")


async def test_run_soon_makes_one_extra_call():
    """Requests for a call are joined until it begins; before the start and after the stop there are no calls."""
    clock, calls = FakeClock(), []

    async def work():
        calls.append(clock.monotonic_s())

    task = PeriodicTask(work, 5.0, clock)
    task.run_soon()
    await clock.advance(1)
    assert calls == []
    task.start()
    async with task.lock:
        task.run_soon()
        task.run_soon()
        await clock.advance(1)
        assert calls == []
    await clock.advance(1)
    assert calls == [2]
    await task.stop()
    task.run_soon()
    await clock.advance(10)
    assert calls == [2]
