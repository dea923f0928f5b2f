"""Regular expressions of configurations: Go's syntax as far as Python has it."""

import re
from functools import lru_cache

__all__ = ["compile_pattern"]


@lru_cache(maxsize=1024)
def compile_pattern(pattern: str) -> re.Pattern[str]:
    r"""The compiled pattern. Go's ``(?<name>…)``, ``\z`` and POSIX-free Perl classes are understood.

    Raises:
        ValueError: it is not valid; the message says where.
    """
    text = re.sub(r"(?<!\\)((?:\\\\)*)\(\?<(?![=!])", r"\1(?P<", pattern)
    text = re.sub(r"(?<!\\)((?:\\\\)*)\\z", r"\1\\Z", text)
    try:
        return re.compile(text)
    except (re.error, OverflowError, RecursionError) as exc:
        raise ValueError(f"invalid pattern {pattern!r}: {exc}") from exc
