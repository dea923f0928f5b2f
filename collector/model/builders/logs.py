"""The builder of Logs."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from collector.model.arrays import U64
from collector.model.builders.attributes import AttributeRows
from collector.model.builders.base import Builder
from collector.model.builders.fields import (
    TextRows,
    attributes_field,
    bodies_field,
    fixed64_field,
    numbers_field,
    texts_field,
    trace_ids_field,
)
from collector.model.columns import StringColumn
from collector.model.logs import Logs
from collector.wire import encode
from collector.wire.encode import encode_rows

__all__ = ["LogsBuilder"]


class LogsBuilder(Builder):
    """Builds Logs.

    >>> from collector.model import LogsBuilder
    >>> builder = LogsBuilder()
    >>> scope = builder.scope(builder.resource({"service.name": "shop"}))
    >>> builder.records(scope, times=[10, 20], bodies=["started", {"port": 80}], severity_texts="INFO")
    >>> builder.build().field("body").as_text().to_list()
    ['started', '{"port":80}']
    """

    def records(
        self,
        scope: int,
        *,
        times: ArrayLike,
        bodies: StringColumn | str | Sequence[Any] | None = None,
        severity_numbers: ArrayLike | None = None,
        severity_texts: TextRows = None,
        attributes: AttributeRows = None,
        trace_ids: U64 | None = None,
        span_ids: ArrayLike | None = None,
        observed_times: ArrayLike | None = None,
        flags: ArrayLike | None = None,
        event_names: TextRows = None,
    ) -> None:
        """Adds ``len(times)`` records to a scope.

        ``bodies`` is one text for all records, a ``StringColumn``, or one attribute value per record (None = no body).

        Raises:
            ValueError: The columns differ in length, or a time is negative.
            IndexError: There is no such scope.
        """
        count = np.size(times)
        fields = [
            fixed64_field(1, times, count, "times"),
            numbers_field(encode.NUMBER, 2, severity_numbers, count, np.int32),
            texts_field(3, severity_texts, count),
            bodies_field(5, bodies, count),
            attributes_field(6, attributes, count),
            numbers_field(encode.FIXED32, 8, flags, count, np.uint32),
            trace_ids_field(9, trace_ids),
            numbers_field(encode.ID8, 10, span_ids, count, np.uint64),
            fixed64_field(11, observed_times, count, "observed_times"),
            texts_field(12, event_names, count),
        ]
        self._add_items(scope, encode_rows(2, count, fields).blob)

    def build(self) -> Logs:
        """The batch of everything that was added."""
        return Logs(self.build_wire(), self._context)
