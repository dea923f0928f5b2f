"""A log that an outage cannot flood."""

from typing import Any, Final

from collector.api import Clock

__all__ = ["RateLimitedLog"]

_INTERVAL_S: Final = 10.0


class RateLimitedLog:
    """Logs each sentence at most once every ten seconds; further lines with the same sentence are left out."""

    def __init__(self, log: Any, clock: Clock) -> None:
        self._log = log
        self._clock = clock
        self._logged_at_s: dict[str, float] = {}

    def warning(self, sentence: str, **values: Any) -> None:
        """Log at level warning, unless the sentence was logged a moment ago."""
        if self._is_due(sentence):
            self._log.warning(sentence, **values)

    def error(self, sentence: str, **values: Any) -> None:
        """Log at level error, unless the sentence was logged a moment ago."""
        if self._is_due(sentence):
            self._log.error(sentence, **values)

    def _is_due(self, sentence: str) -> bool:
        now_s = self._clock.monotonic_s()
        if now_s - self._logged_at_s.get(sentence, -_INTERVAL_S) < _INTERVAL_S:
            return False
        self._logged_at_s[sentence] = now_s
        return True
