"""One metric of one resource and scope that the processor writes, with the series of its accumulators."""

import sys
from dataclasses import dataclass, field
from typing import Any, Final

from collector.model import Context
from collector.model.builders import Attributes

__all__ = ["WrittenMetric", "series_bytes"]

_TIMES_HELD: Final = 3  # an attribute set is held as a dict and encoded, for points with their own field number too


def series_bytes(attributes: Attributes) -> int:
    """The approximate size of the texts of one series."""
    return _TIMES_HELD * attributes.size_bytes


@dataclass(slots=True, eq=False)
class WrittenMetric:
    """What identifies the metric, and its series: three lists of equal length."""

    context: Context
    resource: Attributes
    scope: tuple[str, str, Attributes]
    name: str
    unit: str
    description: str
    type: int
    temporality: int
    monotonic: bool
    slots: list[int] = field(default_factory=list)
    """The accumulator of each series."""
    values: list[dict[str, Any]] = field(default_factory=list)
    """The attributes of each series."""
    attributes: list[Attributes] = field(default_factory=list)
    """The same, encoded."""

    @property
    def text_bytes(self) -> int:
        """The approximate size of the texts that identify the metric."""
        scope_name, scope_version, scope_attributes = self.scope
        texts = (self.name, self.unit, self.description, scope_name, scope_version)
        return sum(map(sys.getsizeof, texts)) + series_bytes(self.resource) + series_bytes(scope_attributes)

    @property
    def key(self) -> tuple[Any, ...]:
        """Equal for series that belong to one metric; descriptions may differ."""
        return (
            self.context,
            self.resource,
            self.scope,
            self.name,
            self.unit,
            self.type,
            self.temporality,
            self.monotonic,
        )
