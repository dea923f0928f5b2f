"""The batch while transformations change it: changes are collected, and written when one needs the result."""

import numpy as np

from collector.model import AttributeColumn, Edit, Metrics, StringColumn
from collector.model.arrays import Mask
from collector.model.point_edit import PointEdit

__all__ = ["Working"]


class Working:
    """A batch of metrics, and which of them the current transformation changes."""

    def __init__(self, batch: Metrics) -> None:
        self._batch = batch
        self._edit: Edit[Metrics] | None = None
        nothing = np.zeros(batch.table("metrics").row_count, np.bool_)
        self.matched: Mask = nothing
        """bool[m]: metrics that the current transformation changes."""
        self.whole: Mask = nothing
        """bool[m]: those of them all of whose points match its labels."""
        self.created = self.folded = self.other_labels = 0
        """Points that were copied, merged into others, and lost because metrics were moved without them."""

    @property
    def written(self) -> Metrics:
        """The batch with all changes so far. Its rows are those of ``tables``."""
        if self._edit is not None:
            self._batch, self._edit = self._edit.apply(), None
        return self._batch

    @property
    def tables(self) -> Metrics:
        """The batch for reading what ``edit`` does not change: types, times, parents."""
        return self._batch

    @property
    def edit(self) -> Edit[Metrics]:
        """Collects changes of names and labels."""
        if self._edit is None:
            self._edit = self._batch.edit()
        return self._edit

    def names(self) -> StringColumn:
        """The name of each metric."""
        source: Edit[Metrics] | Metrics = self._edit or self._batch
        names: StringColumn = source.field("name", "metrics")
        return names

    def label(self, key: str) -> AttributeColumn:
        """A label of each point."""
        return (self._edit or self._batch).attribute(key)

    def points_of(self, metrics: Mask) -> Mask:
        """bool[n]: the point is in one of these metrics."""
        points: Mask = metrics[self._batch.table().parent]
        return points

    def replace(self, batch: Metrics) -> None:
        """Continue with another batch that has the same metrics."""
        self._batch = batch

    def replace_all(self, batch: Metrics, matched: Mask) -> None:
        """Continue with another batch, of which these metrics are changed."""
        self._batch = batch
        self.matched = self.whole = matched

    def change_points(self, edit: PointEdit) -> None:
        """Write changes of values; ``edit`` was made of ``written``."""
        self._batch = edit.apply()

    def keep(self, points: Mask) -> int:
        """Drop the points outside the mask, and metrics that have none left; returns how many points are dropped."""
        batch = self.written
        dropped = len(points) - int(np.count_nonzero(points))
        if dropped:
            has_points = np.zeros(len(self.matched), np.bool_)
            has_points[batch.table().parent[points]] = True
            self._batch = batch.select(points)
            self.matched, self.whole = self.matched[has_points], self.whole[has_points]
        return dropped
