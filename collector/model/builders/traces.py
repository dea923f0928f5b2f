"""The builder of Traces."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from collector.model.arrays import U64
from collector.model.builders.attributes import AttributeRows
from collector.model.builders.base import Builder
from collector.model.builders.children import Events, Links
from collector.model.builders.fields import (
    TextRows,
    attributes_field,
    fixed64_field,
    numbers_field,
    raw_field,
    texts_field,
    trace_ids_field,
)
from collector.model.traces import Traces
from collector.wire import encode
from collector.wire.encode import encode_rows

__all__ = ["TracesBuilder"]


class TracesBuilder(Builder):
    """Builds Traces.

    >>> import numpy as np
    >>> from collector.model import TracesBuilder
    >>> builder = TracesBuilder()
    >>> scope = builder.scope(builder.resource({"service.name": "shop"}))
    >>> builder.spans(
    ...     scope,
    ...     names=["GET /users", "SELECT users"],
    ...     trace_ids=np.array([[0, 1], [0, 1]], np.uint64),
    ...     span_ids=[1, 2],
    ...     start_times=[10, 20],
    ...     end_times=[19, 25],
    ...     kinds=2,
    ...     attributes={"tenant": "a"},
    ... )
    >>> batch = builder.build()
    >>> batch.attribute("tenant").text.to_list(), batch.field("kind").tolist()
    (['a', 'a'], [2, 2])
    """

    def spans(
        self,
        scope: int,
        *,
        names: TextRows,
        trace_ids: U64,
        span_ids: ArrayLike,
        start_times: ArrayLike,
        end_times: ArrayLike,
        parent_span_ids: ArrayLike | None = None,
        kinds: ArrayLike | None = None,
        status_codes: ArrayLike | None = None,
        status_messages: TextRows = None,
        attributes: AttributeRows = None,
        trace_states: TextRows = None,
        flags: ArrayLike | None = None,
        events: Events | Sequence[Sequence[Mapping[str, Any]]] | None = None,
        links: Links | None = None,
    ) -> None:
        """Adds ``len(trace_ids)`` spans to a scope. Times are nanoseconds since 1970.

        Raises:
            ValueError: The columns differ in length, or a time is negative.
            IndexError: There is no such scope.
        """
        count = len(trace_ids)
        if events is not None and not isinstance(events, Events):
            events = Events.of(events)
        status = [
            texts_field(2, status_messages, count),
            numbers_field(encode.NUMBER, 3, status_codes, count, np.int32),
        ]
        fields = [
            trace_ids_field(1, trace_ids),
            numbers_field(encode.ID8, 2, span_ids, count, np.uint64),
            texts_field(3, trace_states, count),
            numbers_field(encode.ID8, 4, parent_span_ids, count, np.uint64),
            texts_field(5, names, count),
            numbers_field(encode.NUMBER, 6, kinds, count, np.int32),
            fixed64_field(7, start_times, count, "start_times"),
            fixed64_field(8, end_times, count, "end_times"),
            attributes_field(9, attributes, count),
            raw_field(events.pool(11, count) if events is not None else None),
            raw_field(links.pool(13, count) if links is not None else None),
            raw_field(encode_rows(15, count, status, skip_empty=True)) if any(status) else None,
            numbers_field(encode.FIXED32, 16, flags, count, np.uint32),
        ]
        self._add_items(scope, encode_rows(2, count, fields).blob)

    def build(self) -> Traces:
        """The batch of everything that was added."""
        return Traces(self.build_wire(), self._context)
