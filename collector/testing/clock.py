"""A clock that stands still until a test moves it, and waiting for a condition. Not for production code."""

import asyncio
import heapq
import itertools
from collections.abc import Callable

__all__ = ["FakeClock", "eventually"]

_TURNS_PER_STEP = 20  # event-loop turns after each step, so that a chain of woken tasks settles
_POLL_S = 0.001


class FakeClock:
    """An :class:`collector.api.Clock`: ``sleep`` returns when ``advance`` has passed its deadline."""

    def __init__(self, start_unix_nano: int = 1_700_000_000_000_000_000) -> None:
        self._unix_nano = start_unix_nano
        self._monotonic_nano = 0
        self._sleepers: list[tuple[int, int, asyncio.Future[None]]] = []
        self._order = itertools.count()

    def time_unix_nano(self) -> int:
        """The wall clock; starts at the constructor's value."""
        return self._unix_nano

    def monotonic_s(self) -> float:
        """The monotonic clock; starts at 0."""
        return self._monotonic_nano / 1e9

    @property
    def sleeper_count(self) -> int:
        """Tasks asleep at present."""
        return sum(not future.done() for _, _, future in self._sleepers)

    async def sleep(self, seconds: float) -> None:
        """Suspend until the clock was advanced by ``seconds``."""
        if seconds <= 0:
            await asyncio.sleep(0)
            return
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        heapq.heappush(self._sleepers, (self._monotonic_nano + round(seconds * 1e9), next(self._order), future))
        await future

    def move(self, seconds: float) -> None:
        """Change the time without waking any sleeper, for synchronous code."""
        self._unix_nano += round(seconds * 1e9)
        self._monotonic_nano += round(seconds * 1e9)

    async def advance(self, seconds: float) -> None:
        """Let ``seconds`` pass.

        Every sleeper wakes at its own deadline, in order, even if it sleeps several times meanwhile.
        """
        await _settle()
        end = self._monotonic_nano + round(seconds * 1e9)
        while self._sleepers and self._sleepers[0][0] <= end:
            deadline, _, future = heapq.heappop(self._sleepers)
            if future.done():
                continue
            self.move(max(0, deadline - self._monotonic_nano) / 1e9)
            future.set_result(None)
            await _settle()
        self.move((end - self._monotonic_nano) / 1e9)
        await _settle()


async def _settle() -> None:
    for _ in range(_TURNS_PER_STEP):
        await asyncio.sleep(0)


async def eventually(condition: Callable[[], bool], timeout_s: float = 5.0) -> None:
    """Return once ``condition()`` holds.

    Raises:
        TimeoutError: the condition did not hold within ``timeout_s`` of real time.
    """
    async with asyncio.timeout(timeout_s):
        while not condition():  # noqa: ASYNC110 - the condition is the test's own and has no event to wait on
            await asyncio.sleep(_POLL_S)
