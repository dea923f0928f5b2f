"""Work that is repeated in the background."""

import asyncio

from collector.api import PeriodicTask
from collector.testing import FakeClock, RecordingLog


async def test_it_calls_once_per_interval_until_it_is_stopped():
    """The first call comes one interval after the start, the last one before the stop."""
    clock, calls = FakeClock(), []

    async def work():
        calls.append(clock.monotonic_s())

    task = PeriodicTask(work, 10.0, clock)
    task.start()
    await clock.advance(9)
    assert calls == []
    await clock.advance(21)
    assert calls == [10, 20, 30]
    assert await task.stop()
    await clock.advance(100)
    assert calls == [10, 20, 30]


async def test_a_stop_waits_for_the_call_in_progress():
    """What is being flushed is flushed completely."""
    clock, gate, done = FakeClock(), asyncio.Event(), []

    async def work():
        await gate.wait()
        done.append(True)

    task = PeriodicTask(work, 1.0, clock)
    task.start()
    await clock.advance(1)
    stopping = asyncio.ensure_future(task.stop())
    await asyncio.sleep(0)
    assert not stopping.done()
    gate.set()
    assert await stopping
    assert done == [True]


async def test_a_task_that_does_not_run_has_nothing_to_stop():
    """Never started, and stopped twice."""
    task = PeriodicTask(asyncio.Event().wait, 1.0, FakeClock())
    assert not await task.stop()
    task.start()
    assert await task.stop()
    assert not await task.stop()


async def test_a_call_that_fails_is_logged_and_the_next_one_comes():
    """A fault in one flush must not end all later ones."""
    clock, log, calls = FakeClock(), RecordingLog(), []

    async def work():
        calls.append(clock.monotonic_s())
        raise RuntimeError("a bug")

    task = PeriodicTask(work, 1.0, clock, log=log)
    task.start()
    await clock.advance(2)
    assert calls == [1, 2]
    assert [event.event for event in log.of_level("error")] == ["a periodic task failed; it will run again"] * 2
    await task.stop()


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


async def test_a_second_start_does_nothing():
    """There is never a repetition that nobody can stop."""
    clock, calls = FakeClock(), []

    async def work():
        calls.append(clock.monotonic_s())

    task = PeriodicTask(work, 1.0, clock)
    task.start()
    task.start()
    await clock.advance(1)
    assert calls == [1]
    await task.stop()
    await clock.advance(5)
    assert calls == [1]


async def test_a_stop_that_is_cut_short_ends_the_call_in_progress():
    """When the time to shut down is over, nothing goes on in the background."""
    clock, gate, calls = FakeClock(), asyncio.Event(), []

    async def work():
        calls.append("begun")
        await gate.wait()
        calls.append("ended")

    task = PeriodicTask(work, 1.0, clock)
    task.start()
    await clock.advance(1)
    stopping = asyncio.ensure_future(task.stop())
    await asyncio.sleep(0)
    stopping.cancel()
    await asyncio.gather(stopping, return_exceptions=True)
    gate.set()
    await clock.advance(10)
    assert calls == ["begun"]


async def test_the_work_can_stop_its_own_repetition():
    """It does not wait for itself, and no call follows."""
    clock, calls = FakeClock(), []

    async def work():
        calls.append(await task.stop())

    task = PeriodicTask(work, 1.0, clock)
    task.start()
    await clock.advance(5)
    assert calls == [True]
    assert not await task.stop()
