"""Regular expressions of configurations: RE2, the Collector's own syntax and semantics.

Its time is linear in the text whatever the pattern, so neither a user's pattern nor a hostile text can stall a
pipeline. What that costs is what Go does not have either: look-around and back references. Source: RE2's syntax page.
"""

from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Any, Final, Protocol, cast

import re2

__all__ = ["Match", "Pattern", "compile_pattern"]

_MAX_CHARS: Final = 10_000
_OPTIONS: Final = re2.Options()
_OPTIONS.log_errors = False  # the error is raised; it need not also go to stderr


class Match(Protocol):
    """Where a pattern matched, as ``re.Match``."""

    def group(self, *groups: int | str) -> Any:
        """The text of a group; None where it took no part."""
        ...

    def groups(self, default: str = ...) -> tuple[str, ...]:
        """The texts of all groups; ``default`` for those that took no part."""
        ...

    def groupdict(self) -> dict[str, str | None]:
        """The named groups."""
        ...

    def start(self, group: int | str = 0) -> int:
        """Where the group begins."""
        ...

    def end(self, group: int | str = 0) -> int:
        """Where the group ends."""
        ...


class Pattern(Protocol):
    """A compiled pattern, as ``re.Pattern``."""

    @property
    def pattern(self) -> str:
        """What was written."""
        ...

    @property
    def groups(self) -> int:
        """The number of groups."""
        ...

    @property
    def groupindex(self) -> Mapping[str, int]:
        """Name of a group to its number."""
        ...

    def search(self, text: str) -> Match | None:
        """The first match anywhere."""
        ...

    def match(self, text: str) -> Match | None:
        """A match at the start."""
        ...

    def fullmatch(self, text: str) -> Match | None:
        """A match of the whole text."""
        ...

    def sub(self, repl: str | Callable[[Match], str], text: str, count: int = 0) -> str:
        """The text with the matches replaced."""
        ...


@lru_cache(maxsize=1024)
def compile_pattern(pattern: str) -> Pattern:
    r"""The compiled pattern.

    Raises:
        ValueError: it is not valid; the message says why.
    """
    if len(pattern) > _MAX_CHARS:
        raise ValueError(f"invalid pattern of {len(pattern)} characters: the longest allowed has {_MAX_CHARS}")
    try:
        return cast("Pattern", re2.compile(pattern, _OPTIONS))
    except re2.error as exc:
        reason = exc.args[0].decode("utf-8", "replace") if exc.args and isinstance(exc.args[0], bytes) else str(exc)
        hint = (
            " (RE2, as in Go: no look-around, no back references)"
            if "perl operator" in reason or "escape" in reason
            else ""
        )
        raise ValueError(f"invalid pattern {pattern!r}: {reason}{hint}") from exc
