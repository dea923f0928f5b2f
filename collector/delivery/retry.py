"""When a failed attempt is repeated: how long to wait, when to give up, and what a shutdown changes.

Source: the Collector's exporterhelper retry_sender.go and configretry.
"""

import asyncio
import random
from collections.abc import Callable
from typing import Final

from collector.api import Clock
from collector.delivery.tasks import wait_for_first
from config.blocks import RetryConfig

__all__ = ["Backoff", "RetryPolicy"]

_DRAIN_WAIT_S: Final = 1.0


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

    async def wait(self, wait_s: float) -> None:
        """Sleep before the next attempt. Draining ends this wait, and shortens later ones to one second at most."""
        if self._draining.is_set():
            await self._clock.sleep(min(wait_s, _DRAIN_WAIT_S))
        else:
            await wait_for_first(self._clock.sleep(wait_s), self._draining.wait())

    def drain(self) -> None:
        """Retry promptly from now on: the exporter shuts down and has little time left."""
        self._draining.set()


class Backoff:
    """The waits of one request: exponential with jitter, as long as the server demands, ending in time."""

    def __init__(self, config: RetryConfig, started_s: float, uniform: Callable[[float, float], float]) -> None:
        self._config = config
        self._uniform = uniform
        self._interval_s = config.initial_interval
        self._give_up_s = started_s + config.max_elapsed_time if config.max_elapsed_time else float("inf")

    def next_wait_s(self, now_s: float, retry_after_s: float | None = None) -> float | None:
        """Seconds to wait from ``now_s``; None if the next attempt would come too late: the request is given up."""
        if not self._config.enabled:
            return None
        spread = self._interval_s * self._config.randomization_factor
        wait_s = self._uniform(self._interval_s - spread, self._interval_s + spread)
        self._interval_s = min(self._interval_s * self._config.multiplier, self._config.max_interval)
        wait_s = max(wait_s, retry_after_s or 0.0)
        return None if now_s + wait_s > self._give_up_s else wait_s
