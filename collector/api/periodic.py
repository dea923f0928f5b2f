"""Work that a component repeats in the background: flushes, expiry, decisions that fall due."""

import asyncio
from collections.abc import Awaitable, Callable
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
        """Begin; the first call comes one interval later."""
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
        """End after the call in progress, if there is one. False: it was not running, so there is nothing to flush."""
        if self._task is None:
            return False
        task, self._task = self._task, None
        async with self.lock:
            tasks = [task, *self._extra_calls]
            for each in tasks:
                each.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
        self._extra_call_waits = False
        return True

    async def _repeat(self) -> None:
        while True:
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
