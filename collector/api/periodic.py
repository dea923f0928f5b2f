"""Work that a component repeats in the background: flushes, expiry, decisions that fall due."""

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from typing import Any

import structlog

from collector.api.host import Clock

__all__ = ["PeriodicTask"]


class PeriodicTask:
    """Calls ``work`` every ``interval_s`` seconds, one call at a time, from :meth:`start` to :meth:`stop`.

    A call that raises is logged, and the next one comes after the usual interval.

    Share ``lock`` with other code that must not run during a call (``async with task.lock``).

    Example::

        self._flushing = PeriodicTask(self._flush, 15.0, settings.clock)

        async def start(self, host): self._flushing.start()

        async def shutdown(self):
            if await self._flushing.stop():
                await self._flush()
    """

    def __init__(
        self,
        work: Callable[[], Awaitable[None]],
        interval_s: float,
        clock: Clock,
        *,
        lock: asyncio.Lock | None = None,
        log: Any = None,
    ) -> None:
        """``log`` is the component's log (``settings.telemetry.log``)."""
        self._work, self._interval_s, self._clock = work, interval_s, clock
        self._log = log or structlog.get_logger()
        self.lock = lock or asyncio.Lock()
        self._task: asyncio.Task[None] | None = None
        self._extra_calls: set[asyncio.Task[None]] = set()
        self._extra_call_waits = False

    def start(self) -> None:
        """Begin; the first call comes one interval later. Does nothing if it has begun already."""
        if self._task is None:
            self._task = asyncio.ensure_future(self._repeat())

    def run_soon(self) -> None:
        """Make one extra call as soon as none is in progress. Does nothing before ``start`` and after ``stop``."""
        if self._task is None or self._extra_call_waits:
            return
        self._extra_call_waits = True
        call = asyncio.ensure_future(self._call_once())
        self._extra_calls.add(call)
        call.add_done_callback(self._extra_calls.discard)

    async def stop(self) -> bool:
        """End after the call in progress, if there is one. False: it was not running, so there is nothing to flush.

        A stop that is itself cancelled, because the time to shut down is over, ends the call in progress as well.
        """
        if self._task is None:
            return False
        tasks = [self._task, *self._extra_calls]
        self._task = None
        current = asyncio.current_task()
        if current in tasks:  # ``work`` stops the repetition; it ends when the work returns
            tasks.remove(current)
            self._cancel(tasks)
            return True
        try:
            async with self.lock:
                self._cancel(tasks)
                await asyncio.gather(*tasks, return_exceptions=True)
        finally:
            self._cancel(tasks)
        return True

    def _cancel(self, tasks: Iterable[asyncio.Task[None]]) -> None:
        for task in tasks:
            task.cancel()
        self._extra_call_waits = False

    async def _repeat(self) -> None:
        own_task = asyncio.current_task()
        while self._task is own_task:
            await self._clock.sleep(self._interval_s)
            async with self.lock:
                await self._call()

    async def _call_once(self) -> None:
        async with self.lock:
            self._extra_call_waits = False
            await self._call()

    async def _call(self) -> None:
        try:
            await self._work()
        except Exception as error:  # noqa: BLE001 - one failure must not end the repetition
            self._log.error("a periodic task failed; it will run again", exc_info=error, interval_s=self._interval_s)
