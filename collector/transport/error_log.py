"""A rate-limited log of errors that requests can provoke, so that clients cannot flood it."""

from typing import Any, Final

from collector.api import Clock

__all__ = ["ErrorLog"]

_INTERVAL_S: Final = 1.0


class ErrorLog:
    """Logs ``sentence`` with the current error, at most once per second. ``config``: path of the server's block."""

    def __init__(self, log: Any, clock: Clock, sentence: str, *, config: str) -> None:
        self._log, self._clock, self._sentence, self._config = log, clock, sentence, config
        self._next_s = float("-inf")

    def __call__(self, error: BaseException) -> None:
        """Log the error, unless one was logged within the last second."""
        now_s = self._clock.monotonic_s()
        if now_s >= self._next_s:
            self._next_s = now_s + _INTERVAL_S
            self._log.error(self._sentence, exc_info=error, config=self._config)
