"""The rules that take attributes out of a span's name. Text is worked on once per distinct name.

Source: the Collector's spanprocessor, processToAttributes.
"""

from typing import Any, Final, NamedTuple

from collector.text.cache import TextCache
from collector.text.patterns import compile_pattern

__all__ = ["Extraction", "ExtractionRule"]


class Extraction(NamedTuple):
    """What a rule makes of a name that it matches."""

    name: str
    """The name with the texts of the groups replaced by their keys."""
    values: tuple[str | None, ...]
    """The text of each named group, in the order of ``ExtractionRule.keys``; None for one that matched nothing."""


class ExtractionRule:
    """One regular expression."""

    def __init__(self, pattern: str) -> None:
        self._pattern: Any = compile_pattern(pattern)
        by_number = {number: key for key, number in self._pattern.groupindex.items()}
        self._groups: Final = [(number, by_number[number]) for number in sorted(by_number)]
        self.keys = tuple(key for _, key in self._groups)
        """The keys of the attributes, in the order of the groups."""
        self._cache = TextCache[Extraction | None]()

    def extract(self, name: str) -> Extraction | None:
        """What the rule makes of the name, or None if it does not match."""
        known = self._cache.get(name, _UNKNOWN)
        if known is not _UNKNOWN:
            return known
        extraction = self._extract(name)
        self._cache.put(name, extraction)
        return extraction

    def _extract(self, name: str) -> Extraction | None:
        match = self._pattern.search(name)
        if match is None:
            return None
        parts: list[str] = []
        values: list[str | None] = []
        done = 0
        for number, key in self._groups:
            start, end = match.span(number)
            values.append(name[start:end] if start >= 0 else None)
            if start >= done:  # not a group inside another one, and not one that matched nothing
                parts += [name[done:start], f"{{{key}}}"]
                done = end
        return Extraction("".join((*parts, name[done:])), tuple(values))


_UNKNOWN: Final = Extraction("", ())
