"""Gate: what an attempt passes before it is made. It applies the circuit breaker and the limit of concurrent requests.

While the backend accepts what it is sent, the gate costs two comparisons. Otherwise attempts wait in order of arrival.
The gate never gives a request up: one that may not wait any longer passes, so each is attempted at least once.
"""

import asyncio
import math
from collections import deque

from collector.api import Clock, ConsumeError, PermanentError, RetryableError
from collector.delivery.breaker import CircuitBreaker, CircuitState
from collector.delivery.concurrency import ConcurrencyLimit, is_overload
from collector.delivery.tasks import wait_for_first

__all__ = ["Gate"]


class Gate:
    """The gate of one signal of one exporter; ``limit`` None: concurrent requests are not limited.

    Every :meth:`enter` and every successful :meth:`try_enter` is followed by exactly one of :meth:`succeed`,
    :meth:`fail` and :meth:`abort`.
    """

    def __init__(self, breaker: CircuitBreaker, limit: ConcurrencyLimit | None, clock: Clock) -> None:
        self._breaker = breaker
        self._limit = limit
        self._clock = clock
        self._waiters: deque[asyncio.Event] = deque()
        self._recovered = asyncio.Event()
        self._is_draining = self._is_paused = False
        self._idle = asyncio.Event()
        self.in_flight = 0
        self.is_calm = True
        """Everything may enter, and a success changes nothing but ``in_flight``: callers may then count it themselves
        instead of calling :meth:`try_enter` and :meth:`succeed`, for every batch passes here."""
        self._note_calm()

    @property
    def circuit_state(self) -> CircuitState:
        """Whether attempts are made, wait for a probe, or are a probe."""
        return self._breaker.state

    @property
    def limit(self) -> int | None:
        """Requests that may be in flight at once; None: as many as there are."""
        return self._limit.limit if self._limit is not None else None

    def describe(self) -> str:
        """What holds requests back at present, for ``/health``; empty if nothing does."""
        now_s = self._clock.monotonic_s()
        if self._breaker.state is CircuitState.CLOSED:
            return f"limited to {self.limit} concurrent requests" if self._is_limiting else ""
        probe = "a probe is being sent"
        if self._breaker.state is CircuitState.OPEN:
            due_s = self._breaker.probe_at_s - now_s
            probe = f"the next probe is due in {due_s:.0f} s" if due_s > 0 else "a probe is due"
        return f"circuit open for {now_s - self._breaker.opened_at_s:.0f} s, {probe}"

    def try_enter(self) -> bool:
        """Enter if that is possible at once."""
        if self.is_calm:
            self.in_flight += 1
            return True
        if self._waiters or not self._has_room():
            return False
        self._enter()
        return True

    async def enter(self, until_s: float) -> None:
        """Enter as soon as possible, but at ``until_s`` (monotonic) in any case."""
        if self.try_enter():
            return
        turn = asyncio.Event()
        self._waiters.append(turn)
        try:
            while not self._is_draining and not (self._waiters[0] is turn and self._has_room()):
                if self._is_paused:
                    turn.clear()
                    await turn.wait()
                    continue
                now_s = self._clock.monotonic_s()
                if now_s >= until_s:
                    break
                turn.clear()
                probe_at_s = self._breaker.probe_at_s
                wake_s = min(until_s, probe_at_s) if probe_at_s > now_s else until_s
                await self._wait(turn, wake_s - now_s)
            self._enter()
        finally:
            self._waiters.remove(turn)
            self._wake()

    def succeed(self, started_s: float) -> None:
        """The backend accepted an attempt that began at ``started_s`` (monotonic)."""
        self.in_flight -= 1
        if self.is_calm:
            return
        self._close_circuit()
        if self._limit is not None:
            self._limit.succeed(started_s, self._clock.monotonic_s())
        self._after_outcome()

    def fail(self, error: ConsumeError, started_s: float) -> None:
        """The attempt that began at ``started_s`` failed. A backend that refuses the data has answered."""
        self.in_flight -= 1
        now_s = self._clock.monotonic_s()
        opens = False
        if isinstance(error, RetryableError):
            opens = self._breaker.fail(now_s, error.retry_after_s)
        elif isinstance(error, PermanentError):
            self._close_circuit()
        if self._limit is not None:
            if opens:
                self._limit.restart(now_s)
            elif is_overload(error):
                self._limit.overload(started_s, now_s)
        self._after_outcome()

    def abort(self) -> None:
        """The attempt ended without an outcome, for example because it was cancelled."""
        self.in_flight -= 1
        self._breaker.abort(self._clock.monotonic_s())
        self._after_outcome()

    async def wait_recovered(self) -> None:
        """Return when the circuit closes; never if it is closed."""
        await self._recovered.wait()

    async def pause(self) -> None:
        """Let nothing enter until :meth:`resume`, and return when what has entered is over."""
        self._is_paused = True
        self._note_calm()
        while self.in_flight:
            self._idle.clear()
            await self._idle.wait()

    def resume(self) -> None:
        """End :meth:`pause`."""
        self._is_paused = False
        self._wake()

    def drain(self) -> None:
        """Let everything pass from now on: the exporter shuts down and has little time left."""
        self._is_draining = True
        for turn in self._waiters:
            turn.set()

    @property
    def _is_limiting(self) -> bool:
        return self._limit is not None and self._limit.is_limiting

    def _has_room(self) -> bool:
        if self._is_paused:
            return False
        if self._breaker.state is not CircuitState.CLOSED:
            return self._is_draining or self._breaker.allows(self._clock.monotonic_s())
        return self._limit is None or self._is_draining or self.in_flight < self._limit.limit

    def _enter(self) -> None:
        self._breaker.begin(self._clock.monotonic_s())
        self.is_calm = False
        self.in_flight += 1

    def _close_circuit(self) -> None:
        if self._breaker.succeed():
            recovered, self._recovered = self._recovered, asyncio.Event()
            recovered.set()

    def _after_outcome(self) -> None:
        if not self.in_flight:
            self._idle.set()
        self._note_calm()
        self._wake()

    def _note_calm(self) -> None:
        observes_latency = self._limit is not None and self._limit.observes_latency
        is_free = not self._waiters and not self._is_paused
        self.is_calm = is_free and self._breaker.is_calm and not self._is_limiting and not observes_latency

    def _wake(self) -> None:
        """Let the first that waits look again; it wakes the next one when it has entered."""
        if self._waiters:
            self._waiters[0].set()
        else:
            self._note_calm()

    async def _wait(self, turn: asyncio.Event, wait_s: float) -> None:
        """Return when it may be the caller's turn, after ``wait_s`` at the latest."""
        if wait_s == math.inf:
            await turn.wait()
        else:
            await wait_for_first(turn.wait(), self._clock.sleep(wait_s))
