"""The attribute rules: which points they touch, and the batch as it looks afterwards. Work is done once for each distinct value.

What a value becomes is remembered in a key table, so that a value seen before costs array work; a value that keeps its
name (``granted``) and is silent for ``window`` makes room for another.
"""

from collections import defaultdict
from typing import Final

import numpy as np

from collector.model import KeyTable, Metrics, StringColumn, combine_keys, groups, hash_text
from collector.model.arrays import I32, U64, Mask
from processors.cardinality.config import AttributeRule, CardinalityConfig
from processors.cardinality.template import Templater

__all__ = ["OVERFLOW", "RUNGS", "AttributeRewriter", "Granted"]

RUNGS: Final = ("drop", "template", "collapse", "overflow")
OVERFLOW: Final = RUNGS.index("overflow")
_VALUES_MAX: Final = 200_000  # raw values remembered; then they are looked at again
_TEXTS_MAX: Final = 100_000  # granted values of all metrics together
_TEXT_MAX: Final = 1024  # characters; a longer value is no name
_PAIRS_MAX: Final = 100_000  # (metric, key): further ones become ``other``


class Granted:
    """The values each metric has been granted, and what raw values become. Outlives a reload."""

    def __init__(self) -> None:
        self.values = KeyTable(
            {"code": np.int32, "grant": np.int32, "seen": np.float32, "changed": np.uint8}, capacity=256
        )
        self.grants: dict[tuple[str, str], dict[str, int]] = defaultdict(dict)
        """(metric, key) → value that keeps its name → its number."""
        self.owner: list[tuple[str, str, str] | None] = []
        """Number of a grant → (metric, key, value)."""
        self.seen = np.zeros(64, np.float64)
        self.free: list[int] = []
        self.texts: list[str] = []
        self.codes: dict[str, int] = {}

    def code(self, text: str) -> int:
        """The number of a text."""
        known = self.codes.get(text)
        if known is None:
            known = self.codes[text] = len(self.texts)
            self.texts.append(text)
        return known

    def forget_values(self) -> None:
        """Look at every value again; grants stay."""
        self.values.remove(self.values.live())
        self.texts.clear()
        self.codes.clear()

    def number(self, metric: str, key: str, value: str, now_s: float) -> int:
        """A new grant."""
        if self.free:
            number = self.free.pop()
            self.owner[number] = metric, key, value
        else:
            number = len(self.owner)
            self.owner.append((metric, key, value))
            if number >= len(self.seen):
                self.seen = np.concatenate((self.seen, np.zeros(len(self.seen))))
        self.seen[number] = now_s
        self.grants[metric, key][value] = number
        return number

    def expire(self, before_s: float) -> None:
        """Values that were not seen since ``before_s`` make room."""
        for number in np.flatnonzero(self.seen[: len(self.owner)] < before_s).tolist():
            owner = self.owner[number]
            if owner is None:
                continue
            metric, key, value = owner
            values = self.grants[metric, key]
            del values[value]
            if not values:
                del self.grants[metric, key]
            self.owner[number] = None
            self.free.append(number)
        live = self.values.live()
        # With a grant gone, what its values become is open again; so is what would have become ``other``.
        self.values.remove(live[(self.values.column("seen")[live] < before_s) | self._lost(live)])

    def _lost(self, live: I32) -> Mask:
        grant = self.values.column("grant")[live]
        gone = np.array([owner is None for owner in self.owner] + [True])  # -1: ``other``
        lost: Mask = gone[grant]
        return lost


class AttributeRewriter:
    """Applies the rules."""

    def __init__(self, config: CardinalityConfig, granted: Granted) -> None:
        self._config = config
        self._template = Templater(config.template)
        self._granted = granted
        self._key_hash = {
            key: hash_text(StringColumn.constant(key, 1))[0] for rule in config.attributes for key in rule.keys
        }  # fmt: skip

    def apply(self, batch: Metrics, now_s: float) -> tuple[Metrics, I32]:
        """The batch after the rules, and for each point the rung (index of ``RUNGS``) that touched it, -1 for none."""
        rung = np.full(batch.item_count, -1, np.int32)
        if not self._config.attributes:
            return batch, rung
        edit = batch.edit()
        names = batch.field("name", "metrics")
        name_hash = hash_text(names)
        metric = batch.table("points").parent
        for rule in self._config.attributes:
            for key in rule.keys:
                if batch.attributes("points").code_of(key) < 0:
                    continue
                column = batch.attribute(key, "points")
                if not column.present.any():
                    continue
                if rule.action == "drop":
                    rung[column.present & (rung < 0)] = 0
                    edit.delete(key, table="points")
                    continue
                new, changed = self._renamed(rule, key, column.as_text(), names, name_hash, metric, now_s)
                if changed.any():
                    rung[changed & (rung < 0)] = RUNGS.index(rule.action)
                    edit.set(key, new, changed, table="points")
        result = edit.apply()
        assert isinstance(result, Metrics)
        return result, rung

    def _renamed(
        self, rule: AttributeRule, key: str, texts: StringColumn, names: StringColumn, name_hash: U64, metric: I32,
        now_s: float,
    ) -> tuple[StringColumn, Mask]:  # fmt: skip
        """(points,) the value after the rule, and whether it is another."""
        granted = self._granted
        rows = np.flatnonzero(texts.codes >= 0)
        pairs = groups(names.codes[metric[rows]], texts.codes[rows])
        first = rows[pairs.first]
        keys = combine_keys(
            name_hash[metric[first]], np.broadcast_to(self._key_hash[key], (len(first), 2)), hash_text(texts)[first]
        )
        if len(granted.values) + len(keys) > _VALUES_MAX or len(granted.texts) > 2 * _TEXTS_MAX:
            granted.forget_values()
        slots, is_new = granted.values.insert(keys)
        column = granted.values.column
        for i in np.flatnonzero(is_new).tolist():
            row = first[i]
            value = texts.distinct[texts.codes[row]]
            shape = self._template(value) if rule.action == "template" else value
            code = names.codes[metric[row]]
            text, grant = self._grant(rule, names.distinct[code] if code >= 0 else "", key, shape, now_s)
            column("code")[slots[i]], column("grant")[slots[i]], column("changed")[slots[i]] = (
                granted.code(text),
                grant,
                text != value,
            )
        column("seen")[slots] = now_s
        grants = column("grant")[slots]
        granted.seen[grants[grants >= 0]] = now_s
        used, compact = np.unique(column("code")[slots], return_inverse=True)
        codes = np.full(len(texts.codes), -1, np.int32)
        codes[rows] = compact[pairs.codes]
        changed = np.zeros(len(texts.codes), bool)
        changed[rows] = column("changed")[slots][pairs.codes] != 0
        return StringColumn.from_codes(codes, [granted.texts[code] for code in used.tolist()]), changed

    def _grant(self, rule: AttributeRule, metric: str, key: str, value: str, now_s: float) -> tuple[str, int]:
        """The value while the metric has room for it, else ``other``; and the number of its grant."""
        granted = self._granted
        values = granted.grants.get((metric, key))
        if values is None:
            if len(granted.grants) >= _PAIRS_MAX:
                return rule.other, -1
            values = granted.grants[metric, key]
        number = values.get(value)
        if number is None:
            full = len(granted.owner) - len(granted.free) >= _TEXTS_MAX or len(value) > _TEXT_MAX
            if full or (len(values) >= rule.max_values and key not in self._config.never_collapse):
                return rule.other, -1
            number = granted.number(metric, key, value, now_s)
        return value, number
