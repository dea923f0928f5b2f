"""The attribute rules: which points they change, and the batch afterwards. Work is done once per distinct value.

The result for each value is cached in a table, so that a value seen before costs array work only. A value that is kept
under a ``template`` or ``collapse`` rule and is silent for ``window`` makes room for another.
"""

from typing import Final

import numpy as np

from collector.model import Metrics, StringColumn, combine_keys, groups, hash_text
from collector.model.arrays import I32, U64, Mask
from processors.cardinality.allowed_values import NOT_ALLOWED, AllowedValues
from processors.cardinality.config import AttributeRule, CardinalityConfig
from processors.cardinality.template import Templater

__all__ = ["MERGE_REASONS", "OVERFLOW", "AttributeRewriter"]

MERGE_REASONS: Final = ("drop", "template", "collapse", "overflow")
"""Why a point is merged into another series: the action of an attribute rule, or a limit."""
OVERFLOW: Final = MERGE_REASONS.index("overflow")


class AttributeRewriter:
    """Applies the rules."""

    def __init__(self, config: CardinalityConfig, allowed: AllowedValues) -> None:
        self._config = config
        self._template = Templater(config.template)
        self._allowed = allowed
        keys = [key for rule in config.attributes for key in rule.keys]
        self._key_hashes = {key: hash_text(StringColumn.constant(key, 1))[0] for key in keys}

    def apply(self, batch: Metrics, now_s: float) -> tuple[Metrics, I32]:
        """The batch after the rules, and for each point the first rule that changed it.

        The rule is an index of ``MERGE_REASONS``; -1: none.
        """
        merge_reason = np.full(batch.item_count, -1, np.int32)
        if not self._config.attributes:
            return batch, merge_reason
        edit = batch.edit()
        names = batch.field("name", "metrics")
        name_hashes = hash_text(names)
        metric = batch.table("points").parent
        for rule in self._config.attributes:
            for key in rule.keys:
                if batch.attributes("points").code_of(key) < 0:
                    continue
                column = batch.attribute(key, "points")
                if not column.present.any():
                    continue
                if rule.action == "drop":
                    merge_reason[column.present & (merge_reason < 0)] = MERGE_REASONS.index("drop")
                    edit.delete(key, table="points")
                    continue
                values, is_changed = self._apply_to_values(
                    rule, key, column.as_text(), names, name_hashes, metric, now_s
                )
                if is_changed.any():
                    merge_reason[is_changed & (merge_reason < 0)] = MERGE_REASONS.index(rule.action)
                    edit.set(key, values, is_changed, table="points")
        result = edit.apply()
        assert isinstance(result, Metrics)
        return result, merge_reason

    def _apply_to_values(
        self,
        rule: AttributeRule,
        key: str,
        values: StringColumn,
        names: StringColumn,
        name_hashes: U64,
        metric: I32,
        now_s: float,
    ) -> tuple[StringColumn, Mask]:
        """(points,) the values after the rule, and whether they have changed."""
        allowed, results = self._allowed, self._allowed.results
        rows = np.flatnonzero(values.codes >= 0)
        pairs = groups(names.codes[metric[rows]], values.codes[rows])
        first = rows[pairs.first]
        key_hash = np.broadcast_to(self._key_hashes[key], (len(first), 2))
        keys = combine_keys(name_hashes[metric[first]], key_hash, hash_text(values)[first])
        allowed.make_room_for_results(len(keys))
        slots, is_new = results.insert(keys)
        for i in np.flatnonzero(is_new).tolist():
            value = values.distinct[values.codes[first[i]]]
            name_code = names.codes[metric[first[i]]]
            text, number = self._result(rule, names.distinct[name_code] if name_code >= 0 else "", key, value, now_s)
            slot = slots[i]
            results.column("text")[slot], results.column("allowed")[slot] = allowed.text_code(text), number
            results.column("is_changed")[slot] = text != value
        results.column("seen")[slots] = now_s
        numbers = results.column("allowed")[slots]
        allowed.seen[numbers[numbers != NOT_ALLOWED]] = now_s
        used, compact = np.unique(results.column("text")[slots], return_inverse=True)
        texts = [allowed.texts[code] for code in used.tolist()]
        codes = np.full(len(values.codes), -1, np.int32)
        codes[rows] = compact[pairs.codes]
        is_changed = np.zeros(len(values.codes), bool)
        is_changed[rows] = results.column("is_changed")[slots][pairs.codes]
        # Until now the batch needed them.
        allowed.make_room_for_results(0)
        return StringColumn.from_codes(codes, texts), is_changed

    def _result(self, rule: AttributeRule, metric: str, key: str, value: str, now_s: float) -> tuple[str, int]:
        """What a value becomes, and its number in ``AllowedValues``: ``other`` if the metric has no room for it."""
        text = self._template(value) if rule.action == "template" else value
        values_max = None if key in self._config.never_collapse else rule.max_values
        number = self._allowed.allow(metric, key, text, now_s, values_max=values_max)
        return (rule.other if number == NOT_ALLOWED else text), number
