"""The thread in which the admin port is served, so that a busy event loop does not delay an answer for longer than set.

Only HTTP is spoken there. What is answered is computed on the event loop of the service, where all state belongs.
"""

import asyncio
import threading
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, Final, TypeVar

from aiohttp import web

__all__ = ["AdminThread"]

Result = TypeVar("Result")
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
_NAME: Final = "admin"


class AdminThread:
    """An event loop in a thread of its own, and the way from it to the loop on which this object was made."""

    def __init__(self) -> None:
        self._service_loop = asyncio.get_running_loop()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run, name=_NAME, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        self._loop.run_forever()
        self._loop.run_until_complete(self._loop.shutdown_asyncgens())
        self._loop.close()

    async def run(self, work: Coroutine[Any, Any, Result]) -> Result:
        """Await ``work`` in the thread; called on the service's loop."""
        return await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(work, self._loop))

    async def stop(self) -> None:
        """End the thread, after ``run`` has cleaned up what it was for."""
        self._loop.call_soon_threadsafe(self._loop.stop)
        await asyncio.to_thread(self._thread.join)

    def on_service_loop(self, handler: Handler) -> Handler:
        """A handler for the thread that awaits ``handler`` on the service's loop."""

        async def forwarded(request: web.Request) -> web.StreamResponse:
            return await self.computed(handler(request))

        return forwarded

    def computed(self, work: Awaitable[Result]) -> "asyncio.Future[Result]":
        """What ``work`` returns on the service's loop; called in the thread."""

        async def awaited() -> Result:
            return await work

        return asyncio.wrap_future(asyncio.run_coroutine_threadsafe(awaited(), self._service_loop))
