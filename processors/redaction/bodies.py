"""Decides what becomes of log bodies: texts, and maps and lists with everything in them; once per distinct body."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np

from collector.model import KIND_ABSENT, KIND_STRING, AttributeColumn, Batch, StringColumn
from collector.model.arrays import I64, Array, Mask
from collector.model.values import any_value
from collector.ottl.containers import as_text
from collector.text.cache import TextCache
from collector.wire.encode import encode_value
from processors.redaction.values import Fate, Policy

__all__ = ["BodyChanges", "BodyRules"]

_TEXT_BYTES: Final = 4 * 1024 * 1024
_OTHER_BYTES: Final = 1024 * 1024
_KEY_BYTES: Final = 256 * 1024
_BODY: Final = "body"
# No UTF-8, and no AnyValue.
_SAME: Final = b"\xff"
_NEW: Final = b"\xfe"


@dataclass(slots=True)
class _Found:
    """What was changed in one body, each with the path of its keys."""

    redacted: list[str] = field(default_factory=list)
    masked: list[str] = field(default_factory=list)
    allowed: list[str] = field(default_factory=list)
    ignored: list[str] = field(default_factory=list)

    def joined(self) -> tuple[tuple[str, int], ...]:
        """The sorted paths, separated by commas, and their number, of each list."""
        lists = (self.redacted, self.masked, self.allowed, self.ignored)
        return tuple((",".join(sorted(paths)), len(paths)) for paths in lists)


@dataclass(frozen=True, slots=True)
class BodyChanges:
    """What becomes of the bodies of n records."""

    values: AttributeColumn
    """The new bodies, absent where they stay."""
    summary: Sequence[tuple[StringColumn, I64]]
    """For redacted, masked, allowed and ignored: the paths, separated by commas, and their number per record."""


class BodyRules:
    """The rules for log bodies of one configuration, with the caches of what they say."""

    def __init__(self, policy: Policy) -> None:
        self._policy = policy
        self._texts = TextCache[bytes](max_bytes=_TEXT_BYTES)
        self._others = TextCache[tuple[bytes, tuple[tuple[str, int], ...]]](max_bytes=_OTHER_BYTES)
        self._fates = TextCache[Fate](max_bytes=_KEY_BYTES)

    def changes(self, batch: Batch) -> BodyChanges | None:
        """What becomes of the bodies; None if they all stay and there is nothing to say about them."""
        bodies: AttributeColumn = batch.field("body")
        kind = bodies.kind
        contents: list[bytes | None] = [None]
        summaries: list[tuple[tuple[str, int], ...]] = [_NOTHING]
        places = np.zeros(len(kind), np.int32)
        if (kind == KIND_STRING).any():
            self._add_texts(bodies.text, places, contents, summaries)
        other = (kind != KIND_STRING) & (kind != KIND_ABSENT)
        if other.any():
            self._add_others(bodies, other, places, contents, summaries)
        if not places.any():
            return None
        return BodyChanges(
            AttributeColumn.of_encodings(contents).take(places),
            [_summary(places, [summary[number] for summary in summaries]) for number in range(len(_NOTHING))],
        )

    def _add_texts(
        self,
        texts: StringColumn,
        places: Array,
        contents: list[bytes | None],
        summaries: list[tuple[tuple[str, int], ...]],
    ) -> None:
        get, values = self._texts.get, texts.distinct_bytes
        found = np.zeros(len(values) + 1, np.int32)
        for code in range(len(values)) if self._policy.checks_all_bodies else self._policy.suspicious(values):
            raw = values[code]
            new = get(raw, _NEW)
            if new is _NEW:
                new = self._text(raw)
                self._texts.put(raw, new)
            if new != _SAME:
                found[code] = len(contents)
                contents.append(encode_value(new.decode("utf-8", "replace")))
                summaries.append((("", 0), (_BODY, 1), ("", 0), ("", 0)))
        places += found[texts.codes]

    def _text(self, raw: bytes) -> bytes:
        text = raw.decode("utf-8", "replace")
        if self._policy.is_allowed(text):
            return _SAME
        checked = self._policy.checked_body(text)
        return _SAME if checked == text else checked.encode("utf-8", "replace")

    def _add_others(
        self,
        bodies: AttributeColumn,
        other: Mask,
        places: Array,
        contents: list[bytes | None],
        summaries: list[tuple[tuple[str, int], ...]],
    ) -> None:
        rows = bodies.rows
        starts = np.where(other, np.maximum(rows["any"], 0), np.int32(-1))
        encoded = StringColumn.from_slices(bodies.source, starts, np.where(rows["any"] < 0, 0, rows["any_len"]))
        found = np.zeros(encoded.distinct_count + 1, np.int32)
        for code, raw in enumerate(encoded.distinct_bytes):
            outcome = self._others.get(raw, _UNKNOWN)
            if outcome is _UNKNOWN:
                outcome = self._value(raw)
                self._others.put(raw, outcome)
            content, summary = outcome
            if content != _SAME or summary != _NOTHING:
                found[code] = len(contents)
                contents.append(None if content == _SAME else content)
                summaries.append(summary)
        places += found[encoded.codes]

    def _value(self, raw: bytes) -> tuple[bytes, tuple[tuple[str, int], ...]]:
        value, found = any_value(raw), _Found()
        if isinstance(value, dict):
            new: Any = self._map(value, "", found)
        elif isinstance(value, list):
            new = [self._nested(item, f"[{place}]", found) for place, item in enumerate(value)]
        else:
            text = as_text(value)
            new = value
            if not self._policy.is_allowed(text):
                checked = self._policy.checked_body(text)
                if checked != text:
                    new = checked
                    found.masked.append(_BODY)
        is_same = not found.redacted and not found.masked
        return _SAME if is_same else encode_value(new), found.joined()

    def _map(self, entries: dict[str, Any], path: str, found: _Found) -> dict[str, Any]:
        kept: dict[str, Any] = {}
        for key, value in entries.items():
            name = f"{path}.{key}" if path else key
            match self._fate(key):
                case Fate.IGNORED:
                    found.ignored.append(name)
                    kept[key] = value
                case Fate.DELETED:
                    found.redacted.append(name)
                case Fate.MASKED:
                    found.masked.append(name)
                    kept[key] = self._policy.masked(value if isinstance(value, str) else "")
                case _:
                    kept[key] = self._nested(value, name, found)
        return kept

    def _nested(self, value: Any, path: str, found: _Found) -> Any:
        if isinstance(value, dict):
            return self._map(value, path, found)
        if isinstance(value, list):
            return [self._nested(item, f"{path}.[{place}]", found) for place, item in enumerate(value)]
        text = as_text(value)
        if self._policy.is_allowed(text):
            found.allowed.append(path)
            return value
        checked = self._policy.checked_body(text)
        if checked == text:
            return value
        found.masked.append(path)
        return checked

    def _fate(self, key: str) -> Fate:
        fate = self._fates.get(key, _NO_FATE)
        if fate is _NO_FATE:
            fate = self._policy.fate(key)
            self._fates.put(key, fate)
        return fate


_NO_FATE: Final[Any] = object()
_NOTHING: Final = (("", 0), ("", 0), ("", 0), ("", 0))
_UNKNOWN: Final = (b"", ())


def _summary(places: Array, entries: Sequence[tuple[str, int]]) -> tuple[StringColumn, I64]:
    counts = np.array([count for _, count in entries], np.int64)[places]
    codes = np.where(counts > 0, places, np.int32(-1))
    return StringColumn.from_codes(codes, [text for text, _ in entries]), counts
