"""Counts what is in each batch, as delta sums. Source: the Collector's countconnector, counter.go."""

from typing import Any, Final

import numpy as np

from collector.api import Connector, Settings
from collector.delivery.log import RateLimitedLog
from collector.model import (
    KIND_ABSENT,
    KIND_BOOL,
    KIND_DOUBLE,
    KIND_INT,
    TEMPORALITY_DELTA,
    AttributeColumn,
    Batch,
    MetricsBuilder,
    Signal,
    groups,
)
from collector.model.arrays import Array
from collector.ottl import Conditions, compile_conditions
from connectors.count.config import CONTEXTS, CountConfig, MetricConfig

__all__ = ["CountConnector"]

_SCOPE: Final = "github.com/open-telemetry/opentelemetry-collector-contrib/connector/countconnector"
_SECTIONS: Final = {
    Signal.TRACES: (("spans", "spans"), ("spanevents", "events")),
    Signal.METRICS: (("metrics", "metrics"), ("datapoints", "points")),
    Signal.LOGS: (("logs", "records"),),
}
"""For each signal: the sections of the configuration, and the table that each counts."""


class _Metric:
    """One metric of the configuration."""

    def __init__(self, name: str, config: MetricConfig, section: str) -> None:
        self.name, self.config = name, config
        self.conditions: Conditions | None = None
        if config.conditions:
            self.conditions = compile_conditions(config.conditions, CONTEXTS[section])


class CountConnector(Connector):
    """Emits the counts of each batch at once; it holds nothing."""

    def __init__(self, settings: Settings, config: CountConfig) -> None:
        self._telemetry, self._clock = settings.telemetry, settings.clock
        self._output = settings.outputs[Signal.METRICS]
        self._version = settings.version
        self._log = RateLimitedLog(settings.telemetry.log, settings.clock)
        self._metrics = {
            section: [_Metric(name, metric, section) for name, metric in metrics.items()]
            for section, metrics in config.sections().items()
        }

    async def consume(self, batch: Batch) -> None:
        """Emit the counts of the batch, for each of its resources."""
        self._telemetry.folded(batch.signal, batch.item_count)
        counts = [
            (metric, *counted)
            for section, table in _SECTIONS[batch.signal]
            for metric in self._metrics[section]
            if batch.table(table).row_count and len((counted := self._count(batch, table, metric))[0])
        ]
        if not counts:
            return
        builder = MetricsBuilder(batch.context)
        now = self._clock.time_unix_nano()
        for resource in range(batch.table("resources").row_count):
            scope = -1
            for metric, resources, numbers, attributes in counts:
                rows = np.flatnonzero(resources == resource)
                if not len(rows):
                    continue
                if scope < 0:
                    scope = builder.scope(builder.copy_resource(batch, resource), _SCOPE, self._version)
                builder.sum(
                    scope,
                    metric.name,
                    description=metric.config.description,
                    temporality=TEMPORALITY_DELTA,
                    monotonic=True,
                    times=np.full(len(rows), now, np.uint64),
                    values=numbers[rows],
                    attributes=[attributes[row] for row in rows.tolist()],
                )
        metrics = builder.build()
        self._telemetry.created(Signal.METRICS, metrics.item_count)
        await self._output.consume(metrics)

    def _count(self, batch: Batch, table: str, metric: _Metric) -> tuple[Array, Array, list[dict[str, Any]]]:
        """(resource, number, attributes) of each count; one for each resource and set of values."""
        mask = np.ones(batch.table(table).row_count, np.bool_)
        if metric.conditions is not None:
            mask, failed = metric.conditions.mask(batch)
            if failed.any():
                self._log.warning(
                    "a condition could not be evaluated; the rows are not counted",
                    metric=metric.name,
                    rows=int(np.count_nonzero(failed)),
                )
        columns = [_column(batch, table, attribute.key) for attribute in metric.config.attributes]
        for column, attribute in zip(columns, metric.config.attributes, strict=True):
            if attribute.default_value is None:
                mask = mask & column.present
        rows = np.flatnonzero(mask)
        resources = batch.ancestor("resources", table)[rows]
        parts: list[Array] = [resources]
        taken = [column.take(rows) for column in columns]
        for column in taken:
            parts += [column.kind, column.as_text().codes]
        found = groups(*parts)
        first = found.first.tolist()
        attributes: list[dict[str, Any]] = [{} for _ in first]
        for column, attribute in zip(taken, metric.config.attributes, strict=True):
            for place, value in enumerate(_values(column, first, attribute.default_value)):
                attributes[place][attribute.key] = value
        return resources[found.first], found.counts, attributes


def _column(batch: Batch, table: str, key: str) -> AttributeColumn:
    """The attribute of the row, or else of its scope or its resource."""
    column = batch.attribute(key, table)
    for name in ("scopes", "resources"):
        column = column.fill(batch.attribute(key, name).take(batch.ancestor(name, table)))
    return column


def _values(column: AttributeColumn, rows: list[int], default: object) -> list[Any]:
    """The values of some rows, with their types; arrays and maps as text."""
    kinds = column.kind[rows].tolist()
    texts = column.as_text().take(np.array(rows, np.int64)).to_list()
    ints, doubles, bools = (getattr(column, name)[rows].tolist() for name in ("int", "double", "bool"))
    by_kind = {KIND_INT: ints, KIND_DOUBLE: doubles, KIND_BOOL: bools}
    return [default if kind == KIND_ABSENT else by_kind.get(kind, texts)[i] for i, kind in enumerate(kinds)]
