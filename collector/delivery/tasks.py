"""Tasks of one exporter: started in one place, cancelled in one place."""

import asyncio
from collections.abc import Coroutine
from typing import Any

__all__ = ["TaskSet", "wait_for_first"]


class TaskSet:
    """Running background tasks. Unlike ``asyncio.TaskGroup`` it needs no ``async with`` around their lifetime."""

    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[None]] = set()

    def spawn(self, work: Coroutine[Any, Any, None]) -> None:
        """Run the coroutine in a task, which is referenced until it ends."""
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def cancel_all(self) -> None:
        """Cancel the tasks that still run and wait until they have ended."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)


async def wait_for_first(*coroutines: Coroutine[Any, Any, Any]) -> None:
    """Return when one of the coroutines has ended; the others are cancelled."""
    tasks = [asyncio.ensure_future(coroutine) for coroutine in coroutines]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
