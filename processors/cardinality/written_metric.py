"""One metric of one resource and scope that the processor writes, with the series of its accumulators."""

from dataclasses import dataclass, field
from typing import Any

from collector.model import Context
from collector.model.builders import Attributes

__all__ = ["WrittenMetric"]


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
