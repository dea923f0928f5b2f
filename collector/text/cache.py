"""A cache keyed by text from outside, bounded in bytes: senders decide how many texts there are, and how long."""

import sys
from typing import Final, Generic, TypeVar

__all__ = ["TextCache"]

Value = TypeVar("Value")
_ENTRY_BYTES: Final = 200  # the place in the dict and a small value


class TextCache(Generic[Value]):
    """Maps texts to values that can be computed again. Too large entries are not kept; a full cache is emptied.

    >>> from collector.text.cache import TextCache
    >>> cache = TextCache[int]()
    >>> cache.put("GET", 1)
    >>> cache.get("GET", 0), cache.get("POST", 0)
    (1, 0)
    """

    __slots__ = ("_max_bytes", "_max_entry_bytes", "_values", "memory_bytes")

    def __init__(self, *, max_bytes: int = 4 * 1024 * 1024, max_entry_bytes: int = 4096) -> None:
        self._max_bytes = max_bytes
        self._max_entry_bytes = max_entry_bytes
        self._values: dict[str, Value] = {}
        self.memory_bytes = 0
        """The approximate size of all entries; never more than ``max_bytes``."""

    def __len__(self) -> int:
        return len(self._values)

    def get(self, text: str, default: Value) -> Value:
        """The value of the text; ``default`` if it is not in the cache."""
        return self._values.get(text, default)

    def put(self, text: str, value: Value) -> None:
        """Keep the value, whose own size counts but not that of objects in it, unless the entry is too large."""
        size_bytes = _ENTRY_BYTES + sys.getsizeof(text) + sys.getsizeof(value)
        if size_bytes > self._max_entry_bytes or text in self._values:
            return
        if self.memory_bytes + size_bytes > self._max_bytes:
            self._values.clear()
            self.memory_bytes = 0
        self._values[text] = value
        self.memory_bytes += size_bytes
