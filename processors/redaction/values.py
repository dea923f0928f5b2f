"""What becomes of one value: which keys are deleted, masked or left alone, and how texts are masked.

Everything here is called once per distinct key or value. Texts are never part of an error or a log.
"""

import hashlib
import hmac
import re
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from enum import IntEnum
from typing import Any, Final

from collector.text.patterns import Pattern, compile_pattern
from collector.text.simple_patterns import search_pattern
from collector.text.substitute import replace_matches
from processors.redaction.config import RedactionConfig
from processors.redaction.databases import Sanitizer, sanitizers
from processors.redaction.urls import sanitize_url

__all__ = ["Fate", "Policy"]

_MASK: Final = "****"
_SUMMARY_KEYS: Final = frozenset(
    f"redaction.{name}" for name in ("redacted.keys", "redacted.count", "masked.keys", "masked.count", "ignored.count")
)
"""What another redaction processor wrote stays."""


class Fate(IntEnum):
    """What happens to an attribute because of its key."""

    IGNORED = 0
    """It stays as it is."""
    DELETED = 1
    MASKED = 2
    """Its whole value is masked, unless the value is an allowed one."""
    CHECKED = 3
    """What is blocked in its value is masked."""


class Policy:
    """The rules of one configuration."""

    def __init__(self, config: RedactionConfig) -> None:
        self._allows_all = config.allow_all_keys
        self._allowed_keys = frozenset(config.allowed_keys) | _SUMMARY_KEYS
        self._ignored_keys = frozenset(config.ignored_keys)
        self._is_ignored_key = _any_search(config.ignored_key_patterns)
        self._is_blocked_key = _any_search(config.blocked_key_patterns)
        self._is_allowed_value = _any_search(config.allowed_values)
        self._is_blocked_value = _any_search(config.blocked_values)
        self._suspicious = _Searches((*config.allowed_values, *config.blocked_values))
        self._blocked = [(search_pattern(pattern), compile_pattern(pattern)) for pattern in config.blocked_values]
        self._mask_of = _hashing(config)
        self.constant_mask = None if config.hash_function or config.allowed_values else _MASK.encode()
        """What replaces any line of a value that is masked as a whole; None if that depends on the value."""
        self._url_attributes = frozenset(config.url_sanitizer.attributes if config.url_sanitizer.enabled else ())
        self._sanitizes_urls = config.url_sanitizer.enabled
        self.sanitizers = sanitizers(config.db_sanitizer)
        """The enabled sanitizers of database statements."""

    def fate(self, key: str) -> Fate:
        """What happens to attributes with this key."""
        if key in self._ignored_keys or self._is_ignored_key(key):
            return Fate.IGNORED
        if not self._allows_all and key not in self._allowed_keys:
            return Fate.DELETED
        return Fate.MASKED if self._is_blocked_key(key) else Fate.CHECKED

    def is_allowed(self, text: str) -> bool:
        """Whether the value may pass whatever it is."""
        return self._is_allowed_value(text)

    def suspicious(self, texts: Sequence[bytes]) -> list[int]:
        """The places of those texts in which a blocked or an allowed value may be; nothing happens to the others."""
        return self._suspicious.found(texts)

    def masked(self, text: str) -> str:
        """The text with every line masked."""
        return "\n".join([self._mask_of(line) for line in text.split("\n")])

    def without_blocked(self, text: str) -> str:
        """The text with all matches of blocked values masked."""
        if not self._is_blocked_value(text):
            return text
        for search, pattern in self._blocked:
            if search.search(text) is not None:
                text = replace_matches(pattern, text, self._mask_of_match)
        return text

    def checked(self, text: str, *, has_url: bool, used: Iterable[Sanitizer], system: str) -> str:
        """The value of an attribute without what is blocked, as a URL or as a statement of a database if it is one."""
        text = self.without_blocked(text)
        if has_url and text:
            text = sanitize_url(text)
        for sanitizer in used:
            text = sanitizer.statement(text, system)
        return text

    def checked_body(self, text: str) -> str:
        """A value within a log body, of which nobody knows whether it is a URL or a statement."""
        text = self.without_blocked(text)
        if self._sanitizes_urls:
            text = sanitize_url(text)
        for sanitizer in self.sanitizers:
            text = sanitizer.text(text, "")
        return text

    @property
    def checks_all_bodies(self) -> bool:
        """Whether something may happen to values within log bodies that are not suspicious."""
        return self._sanitizes_urls or bool(self.sanitizers)

    def has_url(self, key: str) -> bool:
        """Whether attributes with this key hold URLs."""
        return key in self._url_attributes

    def _mask_of_match(self, match: Any) -> str:
        return self._mask_of(match.group(0) or "")


class _Searches:
    """Searches many texts at once, because the call of a search costs more than the search of a short text."""

    def __init__(self, patterns: Sequence[str]) -> None:
        self._patterns = _joined(patterns)
        # Without anchors, what does not match within the joined texts does not match within any of them.
        self._joins = not any(_may_depend_on_surroundings(pattern) for pattern in patterns)

    def found(self, texts: Sequence[bytes]) -> list[int]:
        """The places of the texts that one of the patterns matches, in any order."""
        if not self._patterns:
            return []
        if not self._joins:
            return [place for place, text in enumerate(texts) if self._matches(text)]
        found: list[int] = []
        parts = [(0, len(texts))]
        while parts:
            start, end = parts.pop()
            if end - start > 1 and not self._matches(b"\n".join(texts[start:end])):
                continue
            if end - start <= _FEW:
                found += [place for place in range(start, end) if self._matches(texts[place])]
            else:
                step = -(-(end - start) // _PARTS)
                parts += [(at, min(at + step, end)) for at in range(start, end, step)]
        return found

    def _matches(self, text: Any) -> bool:
        return any(pattern.search(text) is not None for pattern in self._patterns)


def _joined(patterns: Sequence[str]) -> list[Pattern]:
    """One pattern that matches where any of them does, or all of them if they cannot be one."""
    if len(patterns) > 1 and not any(r"\Q" in pattern for pattern in patterns):  # \Q may quote what follows as well
        with suppress(ValueError):  # they may be too large together, or have groups of the same name
            return [compile_pattern("|".join(f"(?:{pattern})" for pattern in patterns))]
    return [compile_pattern(pattern) for pattern in patterns]


def _may_depend_on_surroundings(pattern: str) -> bool:
    """Whether a match may depend on what is before or after it: on the beginning or end of text, line or word."""
    plain = _ESCAPED_OR_CLASS.sub(lambda found: "$" if found.group() in _ASSERTIONS else "", pattern)
    return "^" in plain or "$" in plain


_FEW: Final = 8  # are searched one by one; more are divided
_PARTS: Final = 4
_ASSERTIONS: Final = frozenset({r"\A", r"\z", r"\Z", r"\b", r"\B", r"\Q", r"\E"})
_ESCAPED_OR_CLASS: Final = re.compile(r"\\.|\[\^?\]?(?:\\.|\[:\^?[a-z]+:\]|[^\]\\])*\]", re.DOTALL)


def _any_search(patterns: Iterable[str]) -> Callable[[str], bool]:
    """Whether any of the patterns matches; they are joined to one, so that the usual text is searched once."""
    patterns = tuple(patterns)
    if not patterns:
        return lambda _text: False
    searched = [search_pattern(patterns[0])] if len(patterns) == 1 else _joined(patterns)
    return lambda text: any(pattern.search(text) is not None for pattern in searched)


def _hashing(config: RedactionConfig) -> Callable[[str], str]:
    name = config.hash_function
    if not name:
        return lambda _text: _MASK
    if name.startswith("hmac-"):
        key, digest = config.hmac_key.get_secret_value().encode(), name.removeprefix("hmac-")
        return lambda text: hmac.new(key, _utf8(text), digest).hexdigest()
    algorithm = "sha3_256" if name == "sha3" else name
    return lambda text: hashlib.new(algorithm, _utf8(text), usedforsecurity=False).hexdigest()


def _utf8(text: str) -> bytes:
    return text.encode("utf-8", "replace")
