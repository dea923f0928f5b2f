"""When a failed attempt is repeated: how long to wait, when to give up, and what a shutdown changes.

Source: the Collector's exporterhelper retry_sender.go and configretry.
"""

import asyncio
import random
from collections.abc import Awaitable, Callable
from typing import Final

from collector.api import Clock
from collector.delivery.tasks import wait_for_first
from config.blocks import RetryConfig

__all__ = ["Backoff", "RetryPolicy"]

_DRAIN_WAIT_S: Final = 1.0
# A server that demands a longer wait than this (Retry-After, RetryInfo) is most likely wrong.
_MAX_DEMAND_S: Final = 3600.0


class RetryPolicy:
    """The retry rules of one exporter. ``uniform(low, high)`` provides the jitter."""

    def __init__(
        self, config: RetryConfig, clock: Clock, uniform: Callable[[float, float], float] = random.uniform
    ) -> None:
        self._config = config
        self._clock = clock
        self._uniform = uniform
        self._draining = asyncio.Event()
        self.drop_reason = "retries_exhausted" if config.enabled else "retry_disabled"
        """Why data is dropped once it is not retried any more."""

    def backoff(self, started_s: float) -> "Backoff":
        """The waits of a request whose first attempt started at ``started_s``."""
        return Backoff(self._config, started_s, self._uniform)

    def probe_backoff(self, max_interval_s: float) -> "Backoff":
        """The waits between the probes of a backend that is down; they never end. A server may demand longer ones."""
        config = self._config.model_copy(
            update={
                "enabled": True,
                "initial_interval": min(self._config.initial_interval, max_interval_s),
                "max_interval": min(self._config.max_interval, max_interval_s),
                "max_elapsed_time": 0.0,
            }
        )
        return Backoff(config, 0.0, self._uniform, max_demand_s=self._config.max_interval)

    async def wait(self, wait_s: float, until: Callable[[], Awaitable[None]] | None = None) -> None:
        """Sleep before the next attempt, at most as long as ``until`` takes.

        Draining ends this wait, and shortens later ones to one second at most.
        """
        if self._draining.is_set():
            await self._clock.sleep(min(wait_s, _DRAIN_WAIT_S))
        else:
            others = () if until is None else (until(),)
            await wait_for_first(self._clock.sleep(wait_s), self._draining.wait(), *others)

    def drain(self) -> None:
        """Retry promptly from now on: the exporter shuts down and has little time left."""
        self._draining.set()


class Backoff:
    """The waits of one request: exponential with jitter, as long as the server demands, ending in time.

    A server may demand waits of up to ``max_demand_s``.
    """

    def __init__(
        self,
        config: RetryConfig,
        started_s: float,
        uniform: Callable[[float, float], float],
        max_demand_s: float = _MAX_DEMAND_S,
    ) -> None:
        self._config = config
        self._uniform = uniform
        self._interval_s = config.initial_interval
        self._max_demand_s = max_demand_s
        self.give_up_s = started_s
        """When the request is given up (monotonic); infinity: never."""
        if config.enabled:
            self.give_up_s = started_s + config.max_elapsed_time if config.max_elapsed_time else float("inf")

    def next_wait_s(self, now_s: float, retry_after_s: float | None = None) -> float | None:
        """Seconds to wait from ``now_s``; None if the next attempt would come too late: the request is given up.

        A server that demands to wait longer than that gets one last attempt at the end of the time.
        """
        if not self._config.enabled:
            return None
        spread = self._interval_s * self._config.randomization_factor
        wait_s = self._uniform(self._interval_s - spread, self._interval_s + spread)
        self._interval_s = min(self._interval_s * self._config.multiplier, self._config.max_interval)
        remaining_s = self.give_up_s - now_s
        if wait_s > remaining_s:
            return None
        return min(max(wait_s, min(retry_after_s or 0.0, self._max_demand_s)), remaining_s)
