"""The attribute rules: which points they touch, and the batch as it looks afterwards. Work is done once for each distinct value."""

import numpy as np
import numpy.typing as npt

from collector.model import Metrics, StringColumn, groups
from processors.cardinality.config import AttributeRule, CardinalityConfig
from processors.cardinality.template import Templater

__all__ = ["RUNGS", "AttributeRewriter"]

RUNGS = ("drop", "template", "collapse", "overflow")
_CACHE_MAX = 100_000


class AttributeRewriter:
    """Applies the rules; remembers the values each metric has been granted."""

    def __init__(self, config: CardinalityConfig, granted: dict[tuple[str, str], set[str]]) -> None:
        self._config = config
        self._template = Templater(config.template)
        self._shapes: dict[str, str] = {}
        self._granted = granted
        """(metric, key) → values that keep their name."""

    def apply(self, batch: Metrics) -> tuple[Metrics, npt.NDArray[np.int32]]:
        """The batch after the rules, and for each point the rung (index of ``RUNGS``) that touched it, -1 for none."""
        rung = np.full(batch.item_count, -1, np.int32)
        if not self._config.attributes:
            return batch, rung
        edit = batch.edit()
        names = batch.field("name", "metrics")
        name_codes = names.codes[batch.table("points").parent]
        for rule in self._config.attributes:
            for key in rule.keys:
                column = batch.attribute(key, "points")
                if not column.present.any():
                    continue
                if rule.action == "drop":
                    rung[column.present & (rung < 0)] = 0
                    edit.delete(key, table="points")
                    continue
                texts = column.as_text()
                new = self._renamed(rule, key, texts, names, name_codes)
                changed = (new.codes >= 0) & _differ(texts, new)
                if changed.any():
                    rung[changed & (rung < 0)] = RUNGS.index(rule.action)
                    edit.set(key, new, changed, table="points")
        result = edit.apply()
        assert isinstance(result, Metrics)
        return result, rung

    def _renamed(
        self, rule: AttributeRule, key: str, texts: StringColumn, names: StringColumn, name_codes: npt.NDArray[np.int32]
    ) -> StringColumn:
        """(points,) the value after the rule."""
        pairs = groups(name_codes, texts.codes)
        values: list[str] = []
        present = np.ones(pairs.count, bool)
        for pair, row in enumerate(pairs.first.tolist()):
            if texts.codes[row] < 0:
                present[pair] = False
                values.append("")
                continue
            value = texts.distinct[texts.codes[row]]
            if rule.action == "template":
                value = self._shape(value)
            values.append(self._grant(rule, names.distinct[name_codes[row]] if name_codes[row] >= 0 else "", key, value))
        codes = np.where(present[pairs.codes], pairs.codes, -1).astype(np.int32)
        return StringColumn.from_codes(codes, values)

    def _shape(self, value: str) -> str:
        shape = self._shapes.get(value)
        if shape is None:
            if len(self._shapes) >= _CACHE_MAX:
                self._shapes.clear()
            shape = self._shapes[value] = self._template(value)
        return shape

    def _grant(self, rule: AttributeRule, metric: str, key: str, value: str) -> str:
        """The value while the metric has room for it, else ``other``."""
        if (metric, key) not in self._granted and len(self._granted) >= _CACHE_MAX:
            return rule.other
        granted = self._granted[metric, key]
        if value in granted:
            return value
        if len(granted) >= rule.max_values and key not in self._config.never_collapse:
            return rule.other
        granted.add(value)
        return value


def _differ(a: StringColumn, b: StringColumn) -> npt.NDArray[np.bool_]:
    """Rows whose texts are not the same."""
    pairs = groups(a.codes, b.codes)
    different = np.array(
        [
            (a.distinct[a.codes[row]] if a.codes[row] >= 0 else None) != (b.distinct[b.codes[row]] if b.codes[row] >= 0 else None)
            for row in pairs.first.tolist()
        ],
        bool,
    )
    return different[pairs.codes]
