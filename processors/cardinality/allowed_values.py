"""The attribute values that each metric may keep, and the results of the attribute rules for values seen before."""

import sys
from collections import defaultdict
from typing import Any, Final

import numpy as np

from collector.model import KeyTable

__all__ = ["NOT_ALLOWED", "VALUES_MAX", "AllowedValues"]

NOT_ALLOWED: Final = -1
VALUES_MAX: Final = 100_000  # allowed values of all metrics together
_VALUE_MAX_CHARS: Final = 1024  # longer values are not allowed
_ATTRIBUTES_MAX: Final = 100_000  # attributes of metrics; the values of further ones are not allowed
_VALUES_MAX_BYTES: Final = 64 * 1024 * 1024  # all allowed values, with their metrics and attributes
_VALUE_BYTES: Final = 300  # what an allowed value takes besides its text
_RESULTS_MAX: Final = 200_000  # results that are cached before all of them are computed again
_TEXTS_MAX_BYTES: Final = 32 * 1024 * 1024  # texts of cached results, before all of them are computed again


class AllowedValues:
    """Allowed values, numbered, and cached results. A reload hands it over."""

    def __init__(self) -> None:
        self.results = KeyTable(
            {"text": np.int32, "allowed": np.int32, "seen": np.float32, "is_changed": np.bool_}, capacity=256
        )
        """By (metric, attribute, value): an index of ``texts``, and the number of the allowed value behind it."""
        self.texts: list[str] = []
        self._texts_bytes = self._values_bytes = 0
        self.seen = np.zeros(64, np.float64)
        """When each allowed value was seen last, by number."""
        self._text_codes: dict[str, int] = {}
        self._numbers: dict[tuple[str, str], dict[str, int]] = defaultdict(dict)
        """(metric, attribute) → value → number."""
        self._values: list[tuple[str, str, str] | None] = []
        """Number → (metric, attribute, value)."""
        self._free_numbers: list[int] = []

    def text_code(self, text: str) -> int:
        """The index of a text in ``texts``."""
        code = self._text_codes.get(text)
        if code is None:
            code = self._text_codes[text] = len(self.texts)
            self.texts.append(text)
            self._texts_bytes += sys.getsizeof(text)
        return code

    def make_room_for_results(self, count: int) -> None:
        """Forget all results if there would be too many with ``count`` more; allowed values stay."""
        if (
            len(self.results) + count > _RESULTS_MAX
            or len(self.texts) > 2 * VALUES_MAX
            or self._texts_bytes > _TEXTS_MAX_BYTES
        ):
            self.forget_results()

    def forget_results(self) -> None:
        """Forget all results; allowed values stay."""
        self.results.remove(self.results.live())
        self.texts.clear()
        self._text_codes.clear()
        self._texts_bytes = 0

    def allow(self, metric: str, key: str, value: str, now_s: float, *, values_max: int | None) -> int:
        """The number of a value, ``NOT_ALLOWED`` if there is no room.

        ``values_max``: how many values of the attribute the metric may have; None: any number.
        """
        numbers = self._numbers.get((metric, key))
        if numbers is None:
            if len(self._numbers) >= _ATTRIBUTES_MAX or len(metric) + len(key) > _VALUE_MAX_CHARS:
                return NOT_ALLOWED
            numbers = self._numbers[metric, key]
        number = numbers.get(value)
        if number is None:
            size_bytes = _size_bytes(metric, key, value)
            is_full = (
                len(self._values) - len(self._free_numbers) >= VALUES_MAX
                or self._values_bytes + size_bytes > _VALUES_MAX_BYTES
            )
            if is_full or len(value) > _VALUE_MAX_CHARS or (values_max is not None and len(numbers) >= values_max):
                return NOT_ALLOWED
            number = numbers[value] = self._new_number(metric, key, value)
            self.seen[number] = now_s
            self._values_bytes += size_bytes
        return number

    def _new_number(self, metric: str, key: str, value: str) -> int:
        if self._free_numbers:
            number = self._free_numbers.pop()
            self._values[number] = metric, key, value
            return number
        self._values.append((metric, key, value))
        if len(self._values) > len(self.seen):
            self.seen = np.concatenate((self.seen, np.zeros(len(self.seen))))
        return len(self._values) - 1

    def parts(self) -> list[Any]:
        """The allowed values and when they were seen, for a checkpoint."""
        return [[*value, float(self.seen[number])] for number, value in enumerate(self._values) if value is not None]

    def restore(self, parts: list[Any], elapsed_s: float) -> None:
        """Allow what ``parts`` has; ``elapsed_s`` is added to the times.

        Raises:
            TypeError, ValueError: They are not those of such an object.
        """
        for metric, key, value, seen_s in parts:
            self.allow(str(metric), str(key), str(value), float(seen_s) + elapsed_s, values_max=None)

    def expire(self, before_s: float) -> None:
        """Values that were not seen since ``before_s`` make room for others."""
        for number in np.flatnonzero(self.seen[: len(self._values)] < before_s).tolist():
            value_of = self._values[number]
            if value_of is None:
                continue
            metric, key, value = value_of
            numbers = self._numbers[metric, key]
            del numbers[value]
            self._values_bytes -= _size_bytes(metric, key, value)
            if not numbers:
                del self._numbers[metric, key]
            self._values[number] = None
            self._free_numbers.append(number)
        # Now there may be room for values that became ``other``, so their results are computed again; so are those of
        # the values that are gone.
        live = self.results.live()
        is_gone = np.array([value is None for value in self._values] + [True])  # the last one is for NOT_ALLOWED
        is_old = (self.results.column("seen")[live] < before_s) | is_gone[self.results.column("allowed")[live]]
        self.results.remove(live[is_old])


def _size_bytes(metric: str, key: str, value: str) -> int:
    return _VALUE_BYTES + sys.getsizeof(metric) + sys.getsizeof(key) + sys.getsizeof(value)
