"""How long to wait before the next attempt, and when to give up. Source: the Collector's retry_sender.go and configretry."""

import random
from collections.abc import Callable

from config.blocks import RetryConfig

__all__ = ["Backoff"]


class Backoff:
    """The waits of one request: exponential with jitter, at least what the server asks, none beyond ``max_elapsed_time``."""

    def __init__(
        self, config: RetryConfig, now_s: float, uniform: Callable[[float, float], float] = random.uniform
    ) -> None:
        self._config = config
        self._uniform = uniform
        self._interval_s = config.initial_interval
        self._give_up_s = now_s + config.max_elapsed_time if config.max_elapsed_time else float("inf")

    def next_s(self, now_s: float, asked_s: float | None = None) -> float | None:
        """Seconds to wait from ``now_s``; None: give up, the next attempt would come too late."""
        if not self._config.enabled:
            return None
        spread = self._interval_s * self._config.randomization_factor
        wait_s = self._uniform(self._interval_s - spread, self._interval_s + spread)
        self._interval_s = min(self._interval_s * self._config.multiplier, self._config.max_interval)
        wait_s = max(wait_s, asked_s or 0.0)
        return None if now_s + wait_s > self._give_up_s else wait_s
