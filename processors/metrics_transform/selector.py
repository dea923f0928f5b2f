"""Which metrics and points a transformation is about, and the names that metrics get."""

from functools import partial
from typing import TYPE_CHECKING

from collector.model import StringColumn
from collector.model.arrays import Mask
from collector.text.cache import cached_by_text
from collector.text.patterns import Pattern, compile_pattern
from collector.text.substitute import Template
from processors.metrics_transform.config import TransformConfig
from processors.metrics_transform.working import Working

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["Selector"]


class Selector:
    """The names and labels of one transformation."""

    def __init__(self, config: TransformConfig) -> None:
        self.pattern: Pattern | None = None
        self._include, self._new_name = config.include, config.new_name
        self._labels: dict[str, Callable[[str], bool]] = {
            key: text.__eq__ for key, text in config.experimental_match_labels.items()
        }
        if config.is_regexp:
            self.pattern = pattern = compile_pattern(config.include)
            self._is_named = cached_by_text(partial(_is_found, pattern))
            self._template = Template(pattern, config.new_name)
            self._renamed = cached_by_text(self._rename)
            self._labels = {
                key: cached_by_text(partial(_is_found, compile_pattern(text)))
                for key, text in config.experimental_match_labels.items()
            }

    def named(self, names: StringColumn) -> Mask:
        """bool[m]: the name matches."""
        return names.equals(self._include) if self.pattern is None else names.where(self._is_named)

    def points(self, working: Working) -> Mask | None:
        """bool[n]: the labels match, as they are now; None: no labels are given."""
        found: Mask | None = None
        for key, matches in self._labels.items():
            mask = working.label(key).text.fill("").where(matches)
            found = mask if found is None else found & mask
        return found

    def renamed(self, names: StringColumn) -> StringColumn:
        """The new name of each metric."""
        if self.pattern is None:
            return StringColumn.constant(self._new_name, len(names))
        return names.map(self._renamed)

    def _rename(self, name: str) -> str:
        """As in the Collector, the name is taken as it is written if nothing follows from the references in it."""
        assert self.pattern is not None
        match = self.pattern.search(name)
        return (self._template.expand(match) if match else "") or self._new_name


def _is_found(pattern: Pattern, text: str) -> bool:
    return pattern.search(text) is not None
