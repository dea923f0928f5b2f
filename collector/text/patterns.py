"""Regular expressions in configurations: RE2, with the syntax and semantics of the Collector.

The time to match is linear in the text for any pattern, so neither a user's pattern nor a hostile text can stall a
pipeline. As in Go, look-around and back references are therefore not available.
Source: RE2's syntax page.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Final, Protocol

import re2

__all__ = ["Match", "Pattern", "compile_pattern", "span_finder"]

_MAX_CHARS: Final = 10_000
_OPTIONS: Final = re2.Options()
_OPTIONS.log_errors = False  # the error is raised and need not be written to stderr as well
_Compiled: Final[Any] = type(re2.compile(""))  # re2.compile itself keeps the last 128 patterns


class Match(Protocol):
    """The part of ``re.Match`` that is used."""

    def groups(self, default: str = ...) -> tuple[str, ...]:
        """The texts of all groups; ``default`` for those that did not take part in the match."""
        ...

    def group(self, number: int = 0) -> str | None:
        """The text of a group; 0 is the whole match."""
        ...

    def span(self, number: int = 0) -> tuple[int, int]:
        """Where a group starts and ends; 0 is the whole match."""
        ...


class Pattern(Protocol):
    """The part of ``re.Pattern`` that is used."""

    @property
    def groups(self) -> int:
        """The number of groups."""
        ...

    @property
    def groupindex(self) -> Mapping[str, int]:
        """The number of each named group."""
        ...

    def search(self, text: str) -> Match | None:
        """The first match anywhere in the text."""
        ...

    def fullmatch(self, text: str) -> Match | None:
        """A match of the whole text."""
        ...

    def finditer(self, text: str) -> Iterator[Match]:
        """The matches from left to right."""
        ...


def compile_pattern(pattern: str, *, max_chars: int = _MAX_CHARS) -> Pattern:
    """The compiled pattern. It is not cached: some patterns come from data, and a compiled one may take megabytes.

    Raises:
        ValueError: the pattern is not valid; the message says why.
    """
    if len(pattern) > max_chars:
        raise ValueError(f"invalid pattern: it has {len(pattern)} characters, but at most {max_chars} are allowed")
    try:
        compiled: Pattern = _Compiled(pattern, _OPTIONS)
    except re2.error as exc:
        reason = exc.args[0].decode("utf-8", "replace") if exc.args and isinstance(exc.args[0], bytes) else str(exc)
        hint = (
            " (RE2, as in Go: no look-around, no back references)"
            if "perl operator" in reason or "escape" in reason
            else ""
        )
        raise ValueError(f"invalid pattern {pattern!r}: {reason}{hint}") from exc
    return compiled


def span_finder(pattern: str, *, is_multiline: bool = False) -> "Callable[[bytes], Sequence[tuple[int, int]] | None]":
    """A function from UTF-8 to the places of the first match and of its groups in it, or None if there is no match.

    It is several times as fast as :meth:`Pattern.search`, because no text is decoded and no match object made. A group
    that did not take part is at (-1, -1). ``is_multiline``: ``^`` and ``$`` match at line breaks.

    Raises:
        ValueError: The pattern is not valid.
    """
    compile_pattern(pattern)
    search = _Compiled(f"(?m:{pattern})" if is_multiline else pattern, _OPTIONS)._regexp.Match  # noqa: SLF001
    anywhere = re2._Anchor.UNANCHORED  # noqa: SLF001 - the public search decodes each text and counts its characters

    def find(text: bytes) -> Sequence[tuple[int, int]] | None:
        spans: Sequence[tuple[int, int]] = search(anywhere, text, 0, len(text))
        return spans if spans[0][0] >= 0 else None

    return find
