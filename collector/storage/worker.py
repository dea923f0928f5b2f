"""A thread for blocking file operations, so that the event loop never waits for a disk."""

import asyncio
import contextlib
import queue
import threading
from collections.abc import Callable
from functools import partial
from typing import Any, Final, TypeVar

__all__ = ["Worker"]

T = TypeVar("T")

_END: Final = None


class Worker:
    """Does what it is given in one thread, in order, for one event loop.

    The thread starts with the first piece of work. It does not keep the process alive: a disk that hangs must not
    prevent its end. It mostly runs on another core, whose caches know nothing of the interpreter, so it executes as
    little Python as possible.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._work: queue.SimpleQueue[tuple[Callable[[], Any], Callable[[Any], None]] | None] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None
        self._loop: asyncio.AbstractEventLoop | None = None  # to look it up each time costs a system call (getpid)

    def submit(self, work: Callable[[], T], on_done: Callable[[T | Exception], None]) -> None:
        """Call ``work`` in the thread, then ``on_done`` on the running event loop with its result or exception."""
        if self._loop is None:
            self._loop = asyncio.get_running_loop()
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name=self._name, daemon=True)
            self._thread.start()
        self._work.put((work, on_done))

    async def run(self, work: Callable[[], T]) -> T:
        """The result of ``work``, called in the thread."""
        done: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        self.submit(work, partial(_settle, done))
        return await done

    async def close(self) -> None:
        """Return when everything submitted is done and the thread has ended."""
        if self._thread is None:
            return
        await self.run(_nothing)
        self._work.put(_END)
        self._thread = self._loop = None

    def _run(self) -> None:
        assert self._loop is not None  # the thread was started by `submit`
        get, report = self._work.get, self._loop.call_soon_threadsafe
        while (given := get()) is not _END:
            work, on_done = given
            try:
                outcome = work()
            except Exception as error:  # noqa: BLE001 - it is the outcome
                outcome = error
            with contextlib.suppress(RuntimeError):  # the loop was closed: nobody waits any more
                report(on_done, outcome)
            del given, work, on_done, outcome  # the thread may wait for a long time


def _settle(done: "asyncio.Future[T]", outcome: T | Exception) -> None:
    if done.done():  # the caller was cancelled
        return
    if isinstance(outcome, Exception):
        done.set_exception(outcome)
    else:
        done.set_result(outcome)


def _nothing() -> None:
    """What ``close`` waits for."""
