"""A log that an outage cannot flood."""

from typing import Any, Final

from collector.api import Clock

__all__ = ["RateLimitedLog", "printable"]

_INTERVAL_S: Final = 10.0
_TEXT_MAX_CHARS: Final = 200
_MAX_SENTENCES: Final = 1024
_FIRST_FEW: Final = 5


def printable(text: str) -> str:
    """The beginning of a text from outside, in one line."""
    return " ".join("".join(char if char.isprintable() else " " for char in text[:_TEXT_MAX_CHARS]).split())


class RateLimitedLog:
    """Logs each sentence at most once every ten seconds; further lines with the same sentence are left out.

    So are lines of new topics when 1 024 different ones were logged within ten seconds.

    A caller for which the values are costly asks :meth:`is_due` first and then logs by itself.
    """

    def __init__(self, log: Any, clock: Clock) -> None:
        self._log = log
        self._clock = clock
        self._logged_at_s: dict[int, float] = {}
        """By the hash of sentence and topic: a topic can be a text from outside."""

    def warning(self, sentence: str, **values: Any) -> None:
        """Log at level warning, unless the sentence was logged a moment ago."""
        if self.is_due(sentence):
            self._log.warning(sentence, **values)

    def error(self, sentence: str, **values: Any) -> None:
        """Log at level error, unless the sentence was logged a moment ago."""
        if self.is_due(sentence):
            self._log.error(sentence, **values)

    def first_errors(self, sentence: str, **values: Any) -> None:
        """Log at level error, but only the first five lines with the sentence within ten seconds.

        For losses that come one by one, each with its own name, as when a refused batch is halved.
        """
        for number in range(_FIRST_FEW):
            if self.is_due(sentence, f"line {number}"):
                if number == _FIRST_FEW - 1:
                    values["further"] = "counted, and not logged for ten seconds"
                self._log.error(sentence, **values)
                return

    def is_due(self, sentence: str, topic: str = "") -> bool:
        """Whether a line with the sentence would be logged now; if so, the caller must log it."""
        key = hash((sentence, topic))
        now_s = self._clock.monotonic_s()
        if now_s - self._logged_at_s.get(key, -_INTERVAL_S) < _INTERVAL_S:
            return False
        if len(self._logged_at_s) >= _MAX_SENTENCES:
            self._logged_at_s = {
                key: logged_at_s for key, logged_at_s in self._logged_at_s.items() if now_s - logged_at_s < _INTERVAL_S
            }
            if topic and len(self._logged_at_s) >= _MAX_SENTENCES:
                return False
        self._logged_at_s[key] = now_s
        return True
