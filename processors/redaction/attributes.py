"""Decides what becomes of all attributes of a table.

The key decides first, by an *action*, which is a number. Most keys have the action CHECK: what is blocked in their
values is masked. A kernel leaves out those whose value has passed before (``_passed``). Of the others each distinct
value is examined once: all new ones together, to see whether any pattern matches at all, and then the few of which that
is true one by one. What became of those is kept in a cache.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final, TypeAlias

import numpy as np

from collector.model import KIND_STRING, AttributeTable, Batch, StringColumn
from collector.model.arrays import I32, Array, Mask
from collector.text.cache import TextCache, cached_by_text
from processors.redaction._passed import PassedValues
from processors.redaction.databases import Sanitizer
from processors.redaction.values import Fate, Policy

__all__ = ["AttributeChanges", "AttributeRules", "Systems"]

_SYSTEM_KEYS: Final = ("db.system.name", "db.system")
"""The attributes that name the kind of a database, the preferred one first."""

# Actions. From _FIRST_PROFILE on: the values are URLs or statements, see ``AttributeRules._profiles``.
_CHECK: Final = 0
_SKIP: Final = 1
_DELETE: Final = 2
_IGNORE: Final = 3  # like _SKIP, and the summary says so
_MASK: Final = 4
_FIRST_PROFILE: Final = 5

_SAME: Final = 0
_ALLOWED: Final = 1

_PASSED_MAX_COUNT: Final = 64 * 1024  # in each of two generations: 4 MiB
_KEY_BYTES: Final = 1024 * 1024
_VALUE_BYTES: Final = 2 * 1024 * 1024

_Outcome: TypeAlias = int | bytes
"""Of a value: 0, it stays; 1, it is an allowed one; or the new text."""
_Profile: TypeAlias = tuple[bool, tuple[int, ...]]
"""What else is done to the values of a key: whether they are URLs, and the sanitizers that it is configured for."""


@dataclass(frozen=True, slots=True)
class AttributeChanges:
    """What becomes of those k attributes of a table that were looked at; all others stay."""

    attributes: AttributeTable
    which: I32
    """I32[k]: their places in ``batch.attributes(table)``."""
    deleted: Mask
    """bool[k]: because of the key."""
    masked: Mask
    """bool[k]: the value was replaced."""
    allowed: Mask
    """bool[k]: the value is an allowed one."""
    ignored: Mask
    """bool[k]: because of the key."""
    texts: StringColumn
    """The new values, absent where they stay."""


class AttributeRules:
    """The rules for attributes of one configuration and one signal, with what they said of earlier values."""

    def __init__(self, policy: Policy, *, checks_all_types: bool, needs_system: bool, is_noted: bool) -> None:
        """Makes empty caches.

        Args:
            policy: The rules for single keys and values.
            checks_all_types: Whether values that are not text are checked, as text.
            needs_system: Whether statements are only sanitized where an attribute names the kind of the database.
            is_noted: Whether anybody wants to know which attributes were ignored or have an allowed value.
        """
        self._policy = policy
        self._checks_all_types = checks_all_types
        self._needs_system = needs_system
        self._is_noted = is_noted
        self._systems = Systems(policy.sanitizers)
        self._profiles: list[_Profile] = []
        self._actions = TextCache[bytes](max_bytes=_KEY_BYTES, max_entry_bytes=_KEY_BYTES // 8)
        self._passed = PassedValues(_PASSED_MAX_COUNT)
        self._known: dict[int, Callable[[bytes], _Outcome]] = {}
        # A value that is not text counts as "", which patterns such as .* match.
        self._checks_all_kinds = checks_all_types or policy.without_blocked("") != "" or policy.is_allowed("")

    def changes(self, batch: Batch, table: str) -> AttributeChanges | None:
        """What becomes of the attributes of a table; None if they all stay and there is nothing to say about them."""
        attributes = batch.attributes(table)
        if not attributes.row_count:
            return None
        keys = tuple(attributes.keys)
        encoded = self._actions.get(keys, b"")
        if not encoded:
            encoded = np.array([self._action(key.decode("utf-8", "replace")) for key in keys], np.uint16).tobytes()
            self._actions.put(keys, encoded)
        which = self._passed.to_check(attributes.rows, attributes.source, encoded, self._checks_all_kinds)
        if not len(which):
            return None
        part = attributes.take(which)
        actions = np.frombuffer(encoded, np.uint16)[part.rows["key_code"]]
        return self._examined(batch, table, part, which, actions)

    def _action(self, key: str) -> int:
        fate = self._policy.fate(key)
        if fate is Fate.IGNORED:
            return _IGNORE if self._is_noted else _SKIP
        if fate is not Fate.CHECKED:
            return _DELETE if fate is Fate.DELETED else _MASK
        sanitizers = self._policy.sanitizers
        used = tuple(place for place, sanitizer in enumerate(sanitizers) if key in sanitizer.attributes)
        profile = self._policy.has_url(key), used
        if profile == (False, ()):
            return _CHECK
        if profile not in self._profiles:  # at most as many as there are configured keys
            self._profiles.append(profile)
        return _FIRST_PROFILE + self._profiles.index(profile)

    def _examined(
        self, batch: Batch, table: str, part: AttributeTable, which: I32, actions: Array
    ) -> AttributeChanges | None:
        deleted, ignored = actions == _DELETE, actions == _IGNORE
        checked = ~(deleted | ignored)
        allowed = np.zeros(len(which), np.bool_)
        new_codes = np.full(len(which), -1, np.int32)
        new: dict[bytes, int] = {}
        if checked.any():
            texts = self._texts(part, checked)
            groups = self._groups(batch, table, part, actions)
            for group in np.unique(groups[checked]).tolist():
                rows = checked & (groups == group)
                places, is_allowed = self._outcomes(texts, rows, group, new)
                new_codes[rows] = places
                allowed[rows] = is_allowed
                if group == _CHECK:
                    passed = rows & (new_codes < 0)
                    if self._is_noted:
                        passed &= ~allowed
                    self._passed.add(part.rows.take(np.flatnonzero(passed)), part.source)
        masked = new_codes >= 0
        if not (deleted.any() or masked.any() or (self._is_noted and (ignored.any() or allowed.any()))):
            return None
        return AttributeChanges(
            part, which, deleted, masked, allowed, ignored, StringColumn.from_codes(new_codes, list(new))
        )

    def _texts(self, part: AttributeTable, checked: Mask) -> StringColumn:
        """The text of each attribute that has to be checked, absent for all others."""
        if self._checks_all_types:
            return part.as_text().only(checked)
        rows = part.rows
        is_text = rows["kind"] == KIND_STRING
        texts = StringColumn.from_slices(
            part.source, np.where(checked & is_text, rows["value"], np.int32(-1)), rows["value_len"]
        )
        others = checked & ~is_text
        if not others.any():
            return texts
        codes = np.where(others, np.int32(texts.distinct_count), texts.codes)
        return StringColumn.from_codes(codes, [*texts.distinct_bytes, b""])

    def _groups(self, batch: Batch, table: str, part: AttributeTable, actions: Array) -> Array:
        """I32[k]: the action together with the kind of the database, for those actions that depend on it."""
        groups = actions.astype(np.int32)
        is_special = groups >= _FIRST_PROFILE
        if self._systems.count > _NO_SYSTEMS and is_special.any():
            systems = self._systems.rows(batch, table)[part.owner]
            groups += np.where(is_special, systems << _SYSTEM_SHIFT, np.int32(0))
        return groups

    def _outcomes(self, texts: StringColumn, rows: Mask, group: int, new: dict[bytes, int]) -> tuple[Array, Mask]:
        """(The place in ``new`` of each row's new value, or -1; whether the value is an allowed one) for ``rows``."""
        values = texts.distinct_bytes
        codes = texts.codes[rows]
        used = np.unique(codes).tolist()
        places = np.full(len(values), -1, np.int32)
        allowed = np.zeros(len(values), np.bool_)
        if group == _CHECK:
            used = [used[place] for place in self._policy.suspicious([values[code] for code in used])]
        elif group & _ACTION_BITS == _MASK and self._policy.constant_mask is not None:
            mask = self._policy.constant_mask  # of each line
            places[used] = new.setdefault(mask, len(new))
            used = [code for code in used if b"\n" in values[code]]
        if used:
            outcome_of = self._outcome_of(group)
            for code in used:
                outcome = outcome_of(values[code])
                if isinstance(outcome, bytes):
                    places[code] = new.setdefault(outcome, len(new))
                else:
                    allowed[code] = outcome == _ALLOWED
        return places[codes], allowed[codes]

    def _outcome_of(self, group: int) -> Callable[[bytes], _Outcome]:
        """What decides the outcome of a value, with a cache."""
        known = self._known.get(group)
        if known is None:  # at most as many as there are configured keys and systems
            known = self._known[group] = cached_by_text(self._act(group), max_bytes=_VALUE_BYTES)
        return known

    def _act(self, group: int) -> Callable[[bytes], _Outcome]:
        """What decides the outcome of a value."""
        policy = self._policy
        system, action = group >> _SYSTEM_SHIFT, group & _ACTION_BITS
        has_url, places = self._profiles[action - _FIRST_PROFILE] if action >= _FIRST_PROFILE else (False, ())
        used = self._used(places, system)
        name = self._systems.name(system)

        def act(raw: bytes) -> _Outcome:
            text = raw.decode("utf-8", "replace")
            if policy.is_allowed(text):
                return _ALLOWED
            if action == _MASK:
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


_NO_SYSTEMS: Final = 2
_SYSTEM_SHIFT: Final = 16
_ACTION_BITS: Final = (1 << _SYSTEM_SHIFT) - 1
