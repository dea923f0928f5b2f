"""Background tasks: referenced while they run, gone when they are cancelled."""

import asyncio

from collector.delivery.tasks import TaskSet, wait_for_first


async def test_cancelling_all_ends_what_still_runs():
    """``cancel_all`` returns once the cancelled tasks have ended."""
    ended = []

    async def work(name, turns):
        try:
            for _ in range(turns):
                await asyncio.sleep(0)
        finally:
            ended.append(name)

    tasks = TaskSet()
    tasks.spawn(work("short", 1))
    tasks.spawn(work("long", 10**9))
    for _ in range(5):
        await asyncio.sleep(0)
    assert ended == ["short"]
    await tasks.cancel_all()
    assert ended == ["short", "long"]
    await tasks.cancel_all()


async def test_the_first_to_end_cancels_the_others():
    """The others are cancelled as well if the caller itself is cancelled."""
    ended = []

    async def wait(event, name):
        try:
            await event.wait()
        finally:
            ended.append(name)

    now, never = asyncio.Event(), asyncio.Event()
    now.set()
    await wait_for_first(wait(now, "now"), wait(never, "never"))
    assert ended == ["now", "never"]
    waiting = asyncio.ensure_future(wait_for_first(wait(never, "a"), wait(never, "b")))
    for _ in range(3):
        await asyncio.sleep(0)
    waiting.cancel()
    await asyncio.gather(waiting, return_exceptions=True)
    assert ended == ["now", "never", "a", "b"]
