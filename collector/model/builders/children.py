"""Events and links of spans, and exemplars of points: rows that belong to the rows of one call of a builder."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike

from collector.model.arrays import U64
from collector.model.builders.attributes import AttributeRows
from collector.model.builders.fields import (
    TextRows,
    attributes_field,
    fixed64_field,
    grouped_by_owner,
    number_value_fields,
    numbers_field,
    texts_field,
    trace_ids_field,
)
from collector.wire import encode
from collector.wire.encode import Pool, encode_rows

__all__ = ["Events", "Exemplars", "Links"]


@dataclass(frozen=True, slots=True, eq=False)
class Events:
    """Events of the spans of one call; each belongs to the span ``owner``.

    >>> import numpy as np
    >>> from collector.model import Events, TracesBuilder
    >>> builder = TracesBuilder()
    >>> builder.spans(
    ...     builder.scope(builder.resource()),
    ...     names=["GET", "SELECT"],
    ...     trace_ids=np.array([[0, 1], [0, 1]], np.uint64),
    ...     span_ids=[1, 2],
    ...     start_times=[10, 12],
    ...     end_times=[20, 15],
    ...     events=Events(owner=[1, 1], times=[13, 14], names=["retry", "exception"]),
    ... )
    >>> builder.build().field("name", "events").to_list()
    ['retry', 'exception']
    """

    owner: ArrayLike
    times: ArrayLike
    names: TextRows
    attributes: AttributeRows = None

    def pool(self, number: int, row_count: int) -> Pool:
        """The events as the field ``number`` of the spans."""
        count = np.size(self.owner)
        fields = [
            fixed64_field(1, self.times, count, "event times"),
            texts_field(2, self.names, count),
            attributes_field(3, self.attributes, count),
        ]
        return grouped_by_owner(encode_rows(number, count, fields), self.owner, row_count, "events")

    @classmethod
    def of(cls, rows: Sequence[Sequence[Mapping[str, Any]]]) -> Self:
        """Events given per span, as mappings with ``name``, ``time_unix_nano`` and ``attributes``."""
        flat = [event for events in rows for event in events]
        return cls(
            owner=np.repeat(np.arange(len(rows), dtype=np.int32), [len(events) for events in rows]),
            times=np.array([event.get("time_unix_nano", 0) for event in flat], np.uint64),
            names=[event.get("name", "") for event in flat],
            attributes=[event.get("attributes") for event in flat],
        )


@dataclass(frozen=True, slots=True, eq=False)
class Links:
    """Links of the spans of one call; each belongs to the span ``owner``.

    >>> import numpy as np
    >>> from collector.model import Links, TracesBuilder
    >>> builder = TracesBuilder()
    >>> builder.spans(
    ...     builder.scope(builder.resource()),
    ...     names=["GET", "SELECT"],
    ...     trace_ids=np.array([[0, 1], [0, 1]], np.uint64),
    ...     span_ids=[1, 2],
    ...     start_times=[10, 12],
    ...     end_times=[20, 15],
    ...     links=Links(owner=[0], trace_ids=np.array([[7, 7]], np.uint64), span_ids=[9]),
    ... )
    >>> builder.build().field("trace_id", "links").tolist()
    [[7, 7]]
    """

    owner: ArrayLike
    trace_ids: U64
    span_ids: ArrayLike
    trace_states: TextRows = None
    attributes: AttributeRows = None
    flags: ArrayLike | None = None

    def pool(self, number: int, row_count: int) -> Pool:
        """The links as the field ``number`` of the spans."""
        count = np.size(self.owner)
        fields = [
            trace_ids_field(1, self.trace_ids),
            numbers_field(encode.ID8, 2, self.span_ids, count, np.uint64),
            texts_field(3, self.trace_states, count),
            attributes_field(4, self.attributes, count),
            numbers_field(encode.FIXED32, 6, self.flags, count, np.uint32),
        ]
        return grouped_by_owner(encode_rows(number, count, fields), self.owner, row_count, "links")


@dataclass(frozen=True, slots=True, eq=False)
class Exemplars:
    """Exemplars of the points of one call; each belongs to the point ``owner``.

    >>> import numpy as np
    >>> from collector.model import Exemplars, MetricsBuilder
    >>> builder = MetricsBuilder()
    >>> scope = builder.scope(builder.resource())
    >>> trace_ids = np.array([[0, 1]], np.uint64)
    >>> exemplars = Exemplars(owner=[1], times=[19], values=[0.7], trace_ids=trace_ids, span_ids=[2])
    >>> builder.gauge(scope, "load", times=[10, 20], values=[0.5, 0.6], exemplars=exemplars)
    >>> builder.build().table("exemplars").parent.tolist()
    [1]
    """

    owner: ArrayLike
    times: ArrayLike
    values: ArrayLike
    trace_ids: U64 | None = None
    span_ids: ArrayLike | None = None
    attributes: AttributeRows = None

    def pool(self, number: int, row_count: int) -> Pool:
        """The exemplars as the field ``number`` of the points."""
        count = np.size(self.owner)
        fields = [
            fixed64_field(2, self.times, count, "exemplar times"),
            *number_value_fields(self.values, count, double_number=3),
            numbers_field(encode.ID8, 4, self.span_ids, count, np.uint64),
            trace_ids_field(5, self.trace_ids),
            attributes_field(7, self.attributes, count),
        ]
        return grouped_by_owner(encode_rows(number, count, fields), self.owner, row_count, "exemplars")
