"""The log of faults that requests can provoke: whoever knocks must not be able to write it full."""

from typing import Any, Final

from collector.api import Clock

__all__ = ["ErrorLog"]

_EVERY_S: Final = 1.0


class ErrorLog:
    """One sentence, at most once a second, with the error of the moment. ``config``: the path of the server's configuration."""

    def __init__(self, log: Any, clock: Clock, sentence: str, *, config: str) -> None:
        self._log, self._clock, self._sentence, self._config = log, clock, sentence, config
        self._next_s = float("-inf")

    def __call__(self, error: BaseException) -> None:
        """Log it, or not."""
        now_s = self._clock.monotonic_s()
        if now_s >= self._next_s:
            self._next_s = now_s + _EVERY_S
            self._log.error(self._sentence, exc_info=error, config=self._config)
