"""Caches keyed by text from outside, bounded in bytes: senders decide how many texts there are, and how long they are.

Every cache whose keys senders choose is a :class:`TextCache`, or a function that :func:`cached_by_text` wraps. A cache
that bounds only the number of its entries can hold any number of bytes.
"""

import sys
from collections.abc import Callable, Iterable
from typing import Any, Final, Generic, TypeAlias, TypeVar
from weakref import WeakSet

__all__ = ["TextCache", "TextKey", "cached_by_text", "cached_text_bytes"]

Value = TypeVar("Value")
Key = TypeVar("Key", bound="TextKey")
TextKey: TypeAlias = "str | bytes | int | float | tuple[TextKey, ...] | None"
"""What a cache can be keyed by: texts, and tuples of them."""

_ENTRY_BYTES: Final = 200  # the place in the dict and a small value
_MISSING: Final[Any] = object()
_CACHES: Final[WeakSet["TextCache[Any]"]] = WeakSet()


class TextCache(Generic[Value]):
    """Maps texts to values that can be computed again. Too large entries are not kept; old ones make room for new ones.

    Entries are in two generations. When the recent one has reached half of the size, it becomes the older one, and what
    was in the older one and has not been used since then is gone. So texts in use stay, and each eviction costs little.

    >>> from collector.text.cache import TextCache
    >>> cache = TextCache[int]()
    >>> cache.put("GET", 1)
    >>> cache.get("GET", 0), cache.get("POST", 0)
    (1, 0)
    """

    __slots__ = ("__weakref__", "_max_entry_bytes", "_older", "_older_bytes", "_recent", "_recent_bytes", "_recent_max")

    def __init__(self, *, max_bytes: int = 4 * 1024 * 1024, max_entry_bytes: int = 4096) -> None:
        self._recent_max = max_bytes // 2
        self._max_entry_bytes = min(max_entry_bytes, self._recent_max)
        self._recent: dict[TextKey, Value] = {}
        self._older: dict[TextKey, Value] = {}
        self._recent_bytes = self._older_bytes = 0
        _CACHES.add(self)

    def __len__(self) -> int:
        """The number of entries; one that is in both generations counts twice."""
        return len(self._recent) + len(self._older)

    @property
    def memory_bytes(self) -> int:
        """The approximate size of all entries; never more than ``max_bytes``."""
        return self._recent_bytes + self._older_bytes

    def get(self, text: TextKey, default: Value) -> Value:
        """The value of the text; ``default`` if it is not in the cache."""
        value: Value = self._recent.get(text, _MISSING)
        if value is not _MISSING:
            return value
        value = self._older.get(text, _MISSING)
        if value is _MISSING:
            return default
        self.put(text, value)
        return value

    def put(self, text: TextKey, value: Value) -> None:
        """Keep the value unless the entry is too large.

        The size of the value counts, and that of the members of a tuple; other objects to which it refers do not count.
        """
        size_bytes = _ENTRY_BYTES + _size_of(text) + _size_of(value)
        if size_bytes > self._max_entry_bytes or text in self._recent:
            return
        if self._recent_bytes + size_bytes > self._recent_max:
            self._older, self._older_bytes = self._recent, self._recent_bytes
            self._recent, self._recent_bytes = {}, 0
        self._recent[text] = value
        self._recent_bytes += size_bytes

    def map(self, texts: Iterable[TextKey], function: Callable[[Any], Value]) -> list[Value]:
        """The value of each text: what is in the cache, else the result of ``function``, which is then kept.

        >>> TextCache[int]().map(["a", "bc", "a"], len)
        [1, 2, 1]
        """
        values: list[Value] = []
        for text in texts:
            value: Value = self._recent.get(text, _MISSING)
            if value is _MISSING:
                value = self.get(text, _MISSING)
                if value is _MISSING:
                    value = function(text)
                    self.put(text, value)
            values.append(value)
        return values

    def clear(self) -> None:
        """Forget everything."""
        self._recent, self._older = {}, {}
        self._recent_bytes = self._older_bytes = 0


def cached_by_text(
    function: Callable[[Key], Value], *, max_bytes: int = 4 * 1024 * 1024, max_entry_bytes: int = 4096
) -> Callable[[Key], Value]:
    """A function of a text that caches the results of ``function`` in a :class:`TextCache` of this size.

    >>> from collector.text.cache import cached_by_text
    >>> cached_by_text(str.upper)("get")
    'GET'
    """
    cache = TextCache[Value](max_bytes=max_bytes, max_entry_bytes=max_entry_bytes)

    def cached(text: Key) -> Value:
        value = cache.get(text, _MISSING)
        if value is _MISSING:
            value = function(text)
            cache.put(text, value)
        return value

    return cached


def cached_text_bytes() -> int:
    """The approximate size of all text caches of the process."""
    return sum(cache.memory_bytes for cache in _CACHES)


def _size_of(value: object) -> int:
    if isinstance(value, tuple):
        return sys.getsizeof(value) + sum(map(_size_of, value))
    return sys.getsizeof(value)
