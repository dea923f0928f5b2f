"""Decides what becomes of all attributes of a table: key by key, and once per distinct value.

The outcomes are cached by value, separately for each *action*: what is done to a value apart from masking what is
blocked in it. An action is a number: -1 if the whole value is masked, else that of the key's *profile* (whether it
holds URLs, which databases' statements it may hold) and of the database system of the row.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final, TypeAlias

import numpy as np

from collector.model import KIND_STRING, AttributeTable, Batch, StringColumn
from collector.model.arrays import I32, Array, Mask
from collector.text.cache import TextCache
from processors.redaction.databases import Sanitizer
from processors.redaction.values import Fate, Policy

__all__ = ["AttributeChanges", "AttributeRules", "Systems"]

_SYSTEM_KEYS: Final = ("db.system.name", "db.system")
"""The attributes that name the kind of a database, the preferred one first."""

_UNKNOWN: Final = -1
_SAME: Final = 0
_ALLOWED: Final = 1
_KEY_BYTES: Final = 1024 * 1024
_VALUE_BYTES: Final = 4 * 1024 * 1024
_SANITIZED_BYTES: Final = 1024 * 1024

Outcome: TypeAlias = int | bytes
"""Of a value: 0, it stays; 1, it is an allowed one; or the new text."""
_Profile: TypeAlias = tuple[bool, tuple[int, ...]]
"""What else is done to the values of a key: whether they are URLs, and the sanitizers that it is configured for."""


@dataclass(frozen=True, slots=True)
class AttributeChanges:
    """What becomes of the m attributes of one table."""

    attributes: AttributeTable
    deleted: Mask
    """bool[m]: because of the key."""
    masked: Mask
    """bool[m]: the value was replaced."""
    allowed: Mask
    """bool[m]: the value is an allowed one."""
    ignored: Mask
    """bool[m]: because of the key."""
    texts: StringColumn
    """The new values, absent where they stay."""


class AttributeRules:
    """The rules for attributes of one configuration and one signal, with the caches of what they say."""

    def __init__(self, policy: Policy, *, checks_all_types: bool, needs_system: bool) -> None:
        """``needs_system``: statements are only sanitized where an attribute names the kind of the database."""
        self._policy = policy
        self._checks_all_types = checks_all_types
        self._needs_system = needs_system
        self._systems = Systems(policy.sanitizers)
        self._has_statements = any(sanitizer.attributes for sanitizer in policy.sanitizers)
        self._keys = TextCache[tuple[int, int]](max_bytes=_KEY_BYTES)
        self._profiles: list[_Profile] = [(False, ())]
        self._caches: dict[tuple[int, int], TextCache[Outcome]] = {}
        # A value that is not text counts as "", which patterns such as .* match.
        self._blocks_nothing = policy.without_blocked("") != "" or policy.is_allowed("")

    def changes(self, batch: Batch, table: str) -> AttributeChanges | None:
        """What becomes of the attributes of a table; None if they all stay and none of them is special."""
        attributes = batch.attributes(table)
        if not attributes.row_count:
            return None
        fate_of, profile_of = self._by_key(attributes)
        codes = attributes.rows["key_code"]
        fates = fate_of[codes]
        deleted, ignored = fates == Fate.DELETED, fates == Fate.IGNORED
        is_checked = fates >= Fate.MASKED
        texts = self._texts(attributes, is_checked, fates == Fate.MASKED)
        actions = self._actions(batch, table, attributes, fates, profile_of[codes])
        new, outcomes = self._outcomes(texts, actions)
        allowed = outcomes == _ALLOWED
        masked = new.codes >= 0
        if not (deleted.any() or masked.any() or ignored.any() or allowed.any()):
            return None
        return AttributeChanges(attributes, deleted, masked, allowed, ignored, new)

    def _by_key(self, attributes: AttributeTable) -> tuple[Array, Array]:
        """(The fate, the number of the profile) of each key code."""
        known = self._keys
        found: list[tuple[int, int]] = []
        for raw in attributes.keys:
            entry = known.get(raw, (-1, 0))
            if entry[0] < 0:
                key = raw.decode("utf-8", "replace")
                entry = int(self._policy.fate(key)), self._profile(key)
                known.put(raw, entry)
            found.append(entry)
        pairs = np.array(found, np.int32).reshape(-1, 2)
        return pairs[:, 0], pairs[:, 1]

    def _profile(self, key: str) -> int:
        sanitizers = self._policy.sanitizers
        used = tuple(place for place, sanitizer in enumerate(sanitizers) if key in sanitizer.attributes)
        profile = self._policy.has_url(key), used
        if profile not in self._profiles:  # as many as there are configured keys at most
            self._profiles.append(profile)
        return self._profiles.index(profile)

    def _texts(self, attributes: AttributeTable, is_checked: Mask, is_masked: Mask) -> StringColumn:
        """The text of each attribute that has to be checked, absent for all others."""
        if self._checks_all_types:
            return attributes.as_text().only(is_checked)
        rows = attributes.rows
        is_text = rows["kind"] == KIND_STRING
        starts = np.where(is_checked & is_text, rows["value"], np.int32(-1))
        texts = StringColumn.from_slices(attributes.source, starts, rows["value_len"])
        others = (is_checked if self._blocks_nothing else is_masked) & ~is_text
        if not others.any():
            return texts
        codes = np.where(others, np.int32(texts.distinct_count), texts.codes)
        return StringColumn.from_codes(codes, [*texts.distinct_bytes, b""])

    def _actions(self, batch: Batch, table: str, attributes: AttributeTable, fates: Array, profiles: Array) -> Array:
        """I32[m]: what is done to each value: 0, only blocked values are masked; -1, everything; else see ``_act``."""
        actions = np.where(fates == Fate.MASKED, np.int32(-1), profiles * np.int32(self._systems.count))
        if self._has_statements and (profiles > 0).any():
            systems = self._systems.rows(batch, table)[attributes.owner]
            actions += np.where((profiles > 0) & (fates != Fate.MASKED), systems, np.int32(0))
        return actions

    def _outcomes(self, texts: StringColumn, actions: Array) -> tuple[StringColumn, Array]:
        """(The new texts, U8[m]: whether the value stays, is an allowed one, or neither)."""
        codes = texts.codes
        values = texts.distinct_bytes
        outcomes = np.zeros(len(codes), np.uint8)
        new_codes = np.full(len(codes), -1, np.int32)
        new: list[bytes] = []
        checked = codes >= 0
        for action in np.unique(actions[checked]).tolist():
            rows = checked & (actions == action)
            used = range(len(values)) if rows.all() else np.unique(codes[rows]).tolist()
            known = self._cache(action)
            get = known.get
            # The usual value stays: everything below is for the few others.
            found = [(code, outcome) for code in used if (outcome := get(values[code], _UNKNOWN)) != _SAME]
            if not found:
                continue
            act = self._act(action)
            state = np.zeros(len(values), np.uint8)
            place = np.full(len(values), -1, np.int32)
            for code, known_outcome in found:
                outcome = known_outcome
                if outcome == _UNKNOWN:
                    outcome = act(values[code])
                    known.put(values[code], outcome)
                if isinstance(outcome, bytes):
                    place[code] = len(new)
                    new.append(outcome)
                elif outcome == _ALLOWED:
                    state[code] = _ALLOWED
            outcomes[rows] = state[codes[rows]]
            new_codes[rows] = place[codes[rows]]
        return StringColumn.from_codes(new_codes, new), outcomes

    def _cache(self, action: int) -> TextCache[Outcome]:
        key = divmod(action, self._systems.count)
        cache = self._caches.get(key)
        if cache is None:
            size = _VALUE_BYTES if action == 0 else _SANITIZED_BYTES
            cache = self._caches[key] = TextCache(max_bytes=size)
        return cache

    def _act(self, action: int) -> Callable[[bytes], Outcome]:
        """What decides the outcome of a value."""
        policy = self._policy
        number, system = divmod(action, self._systems.count)
        has_url, places = self._profiles[max(number, 0)]
        name = self._systems.name(system)
        used = self._used(places, system)

        def act(raw: bytes) -> Outcome:
            text = raw.decode("utf-8", "replace")
            if policy.is_allowed(text):
                return _ALLOWED
            if number < 0:
                return policy.masked(text).encode("utf-8", "replace")
            checked = policy.checked(text, has_url=has_url, used=used, system=name)
            return _SAME if checked == text else checked.encode("utf-8", "replace")

        return act

    def _used(self, places: tuple[int, ...], system: int) -> tuple[Sanitizer, ...]:
        """The sanitizers for a key's values in a system: the system's own one; without system all, or none."""
        sanitizers = tuple(self._policy.sanitizers[place] for place in places)
        if system == Systems.NONE:
            return () if self._needs_system else sanitizers
        return tuple(sanitizer for sanitizer in sanitizers if self._systems.name(system) in sanitizer.systems)


class Systems:
    """The kinds of databases for which statements are sanitized, by number."""

    NONE: Final = 0
    """No attribute names the kind of the database."""

    def __init__(self, sanitizers: Sequence[Sanitizer]) -> None:
        self._names = ["", *sorted(name for sanitizer in sanitizers for name in sanitizer.systems), ""]
        self._places = {name: place for place, name in enumerate(self._names) if name}
        self.count = len(self._names)
        """The number of systems, with NONE and one for all other kinds."""

    def name(self, system: int) -> str:
        """The name of a system; "" for NONE and for all other kinds."""
        return self._names[system]

    def rows(self, batch: Batch, table: str) -> I32:
        """I32[n]: the system of each row of a table."""
        systems = np.zeros(batch.table(table).row_count, np.int32)
        for key in reversed(_SYSTEM_KEYS):  # the preferred one overwrites the other
            column = batch.attribute(key, table).text
            if column.present.any():
                found = [self._places.get(text.lower(), self.count - 1) if text else 0 for text in column.distinct]
                codes = np.array([*found, 0], np.int32)[column.codes]
                systems = np.where(codes > 0, codes, systems)
        return systems
