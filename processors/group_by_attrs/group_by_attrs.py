"""Moves attributes to the resource. Source: the Collector's groupbyattrsprocessor, processor.go."""

from typing import TYPE_CHECKING, Final

import numpy as np

from collector.api import Settings, Transform
from collector.model import Batch, Signal, groups
from collector.model.regroup import regroup
from collector.model.series import attribute_identity
from processors.group_by_attrs.config import GroupByAttrsConfig

if TYPE_CHECKING:
    from collector.model.arrays import Array

__all__ = ["GroupByAttrsProcessor"]

_NAMES: Final = {Signal.TRACES: "span", Signal.METRICS: "metric", Signal.LOGS: "log"}
_GROUP_BUCKETS: Final = (1, 2, 5, 10, 25, 50, 100, 250, 500, 1000)


class GroupByAttrsProcessor(Transform):
    """The processor of one pipeline."""

    def __init__(self, settings: Settings, config: GroupByAttrsConfig) -> None:
        (signal,) = settings.signals
        name, telemetry = _NAMES[signal], settings.telemetry
        self._keys = tuple(dict.fromkeys(config.keys))
        prefix = "otelcol_processor_groupbyattrs"
        self._grouped = telemetry.counter(
            f"{prefix}_num_grouped_{name}s", f"Number of {name}s that had attributes grouped"
        )
        self._non_grouped = telemetry.counter(
            f"{prefix}_num_non_grouped_{name}s", f"Number of {name}s that did not have attributes grouped"
        )
        self._groups = telemetry.histogram(
            f"{prefix}_{name}_groups", f"Distribution of groups extracted for {name}s", _GROUP_BUCKETS
        )

    def transform(self, batch: Batch) -> Batch:
        """The batch with one resource for each distinct resource and values of the keys."""
        if not batch.item_count:
            return batch
        columns = {key: batch.attribute(key) for key in self._keys}
        moved = {key: column for key, column in columns.items() if column.present.any()}
        is_grouped = np.zeros(batch.item_count, np.bool_)
        for column in moved.values():
            is_grouped |= column.present
        grouped_count = int(np.count_nonzero(is_grouped))
        self._grouped.add(grouped_count)
        self._non_grouped.add(batch.item_count - grouped_count)
        resource_of_item = batch.ancestor("resources")
        # What an item does not have itself, it has from its resource: equal values must become one resource.
        moved = {
            key: column.fill(batch.attribute(key, "resources").take(resource_of_item)) for key, column in moved.items()
        }
        others = batch.edit().delete(moved, table="resources").apply() if moved else batch
        resource = groups(attribute_identity(others, "resources"), batch.field("schema_url", "resources")).codes
        parts: list[Array] = [resource[resource_of_item]]
        for column in moved.values():
            parts += [column.kind, column.as_text().codes]  # the int 1 and the text "1" are different values
        found = groups(*parts)
        self._groups.observe(found.count)
        if not moved and found.count == batch.table("resources").row_count:
            return batch
        edit = batch.edit()
        for key in moved:
            edit.delete(key)
        grouped = regroup(edit.apply(), found.codes)
        edit = grouped.edit()
        for key, column in moved.items():
            edit.set(key, column.take(found.first), table="resources")
        return edit.apply()
