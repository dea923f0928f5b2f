"""The builder of Metrics."""

from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from collector.model.builders.attributes import AttributeRows
from collector.model.builders.base import Builder, message_bytes, text_bytes
from collector.model.builders.children import Exemplars
from collector.model.builders.fields import (
    attributes_field,
    double_field,
    fixed64_field,
    number_value_fields,
    numbers_field,
    packed_field,
    raw_field,
    unsigned,
)
from collector.model.metrics import Metrics
from collector.wire import encode
from collector.wire.encode import MessageField, Pool, encode_rows

__all__ = ["MetricsBuilder"]


class MetricsBuilder(Builder):
    """Builds Metrics. Each call adds one metric with ``len(times)`` points, even if the name was used before.

    >>> from collector.model import MetricsBuilder
    >>> builder = MetricsBuilder()
    >>> scope = builder.scope(builder.resource({"service.name": "shop"}))
    >>> builder.gauge(scope, "queue.size", times=[10, 20], values=[3, 5], unit="{item}")
    >>> builder.histogram(
    ...     scope, "latency", temporality=2, times=[10], counts=[3], bucket_counts=[[1, 2]], bounds=[0.5], sums=[1.5]
    ... )
    >>> batch = builder.build()
    >>> batch.field("name", "metrics").to_list(), batch.field("value")[:2].tolist()
    (['queue.size', 'latency'], [3.0, 5.0])
    """

    def gauge(
        self,
        scope: int,
        name: str,
        *,
        times: ArrayLike,
        values: ArrayLike,
        attributes: AttributeRows = None,
        unit: str = "",
        description: str = "",
        start_times: ArrayLike | None = None,
        flags: ArrayLike | None = None,
        exemplars: Exemplars | None = None,
    ) -> None:
        """Adds a gauge. Integers stay integers.

        Raises:
            ValueError: The columns differ in length, or a time is negative.
            IndexError: There is no such scope.
        """
        self._metric(
            scope, 5, name, unit, description, _number_points(times, values, attributes, start_times, flags, exemplars)
        )

    def sum(
        self,
        scope: int,
        name: str,
        *,
        temporality: int,
        monotonic: bool,
        times: ArrayLike,
        values: ArrayLike,
        attributes: AttributeRows = None,
        unit: str = "",
        description: str = "",
        start_times: ArrayLike | None = None,
        flags: ArrayLike | None = None,
        exemplars: Exemplars | None = None,
    ) -> None:
        """Adds a sum. Integers stay integers. Raises the same errors as ``gauge``."""
        points = _number_points(times, values, attributes, start_times, flags, exemplars)
        self._metric(
            scope, 7, name, unit, description, points, _temporality(temporality), b"\x18\x01" if monotonic else b""
        )

    def histogram(
        self,
        scope: int,
        name: str,
        *,
        temporality: int,
        times: ArrayLike,
        counts: ArrayLike,
        bucket_counts: ArrayLike,
        bounds: ArrayLike,
        sums: ArrayLike | None = None,
        mins: ArrayLike | None = None,
        maxs: ArrayLike | None = None,
        attributes: AttributeRows = None,
        unit: str = "",
        description: str = "",
        start_times: ArrayLike | None = None,
        flags: ArrayLike | None = None,
        exemplars: Exemplars | None = None,
    ) -> None:
        """Adds a histogram whose points share their bounds.

        ``bounds`` is F64[b] and ``bucket_counts`` U64[n,b+1], or U64[n,0] without bounds.

        Raises:
            ValueError: The columns differ in length, a time or count is negative, or buckets do not match bounds.
            IndexError: There is no such scope.
        """
        count = np.size(times)
        limits = np.asarray(bounds, np.float64)
        buckets = unsigned(bucket_counts, "bucket_counts")
        if (
            buckets.ndim != 2
            or len(buckets) != count
            or (buckets.shape[1] != len(limits) + 1 and (buckets.shape[1] or len(limits)))
        ):
            raise ValueError(f"expected bucket_counts of shape {(count, len(limits) + 1)}, got {buckets.shape}")
        packed_bounds = Pool(np.zeros(count, np.int32), limits.tobytes(), np.array([0, limits.nbytes]))
        fields = [
            *_point_head(times, start_times, counts, count),
            double_field(5, sums, count),
            packed_field(encode.PACKED64, 6, buckets),
            MessageField(encode.TEXT, 7, packed_bounds),
            _exemplars(8, exemplars, count),
            attributes_field(9, attributes, count),
            numbers_field(encode.NUMBER, 10, flags, count, np.uint32),
            double_field(11, mins, count),
            double_field(12, maxs, count),
        ]
        self._metric(scope, 9, name, unit, description, encode_rows(1, count, fields), _temporality(temporality))

    def exponential_histogram(
        self,
        scope: int,
        name: str,
        *,
        temporality: int,
        times: ArrayLike,
        counts: ArrayLike,
        scales: ArrayLike,
        zero_counts: ArrayLike | None = None,
        zero_thresholds: ArrayLike | None = None,
        positive: tuple[ArrayLike, Any] | None = None,
        negative: tuple[ArrayLike, Any] | None = None,
        sums: ArrayLike | None = None,
        mins: ArrayLike | None = None,
        maxs: ArrayLike | None = None,
        attributes: AttributeRows = None,
        unit: str = "",
        description: str = "",
        start_times: ArrayLike | None = None,
        flags: ArrayLike | None = None,
        exemplars: Exemplars | None = None,
    ) -> None:
        """Adds an exponential histogram.

        ``positive`` and ``negative`` are ``(offsets I32[n], counts)``. The counts are U64[n,k] or, if the points differ
        in their number of buckets, ``(U64[m], splits I64[n+1])``.

        Raises:
            ValueError: The columns differ in length, or a time or count is negative.
            IndexError: There is no such scope.
        """
        count = np.size(times)
        fields = [
            *_point_head(times, start_times, counts, count),
            double_field(5, sums, count),
            numbers_field(encode.ZIGZAG, 6, scales, count, np.int32),
            fixed64_field(7, zero_counts, count, "zero_counts"),
            _buckets(8, positive, count),
            _buckets(9, negative, count),
            numbers_field(encode.NUMBER, 10, flags, count, np.uint32),
            _exemplars(11, exemplars, count),
            double_field(12, mins, count),
            double_field(13, maxs, count),
            numbers_field(encode.FIXED64, 14, zero_thresholds, count, np.float64),
            attributes_field(1, attributes, count),
        ]
        self._metric(scope, 10, name, unit, description, encode_rows(1, count, fields), _temporality(temporality))

    def summary(
        self,
        scope: int,
        name: str,
        *,
        times: ArrayLike,
        counts: ArrayLike,
        sums: ArrayLike,
        quantiles: ArrayLike,
        quantile_values: ArrayLike,
        attributes: AttributeRows = None,
        unit: str = "",
        description: str = "",
        start_times: ArrayLike | None = None,
        flags: ArrayLike | None = None,
    ) -> None:
        """Adds a summary whose points share their ``quantiles`` F64[q]; ``quantile_values`` is F64[n,q].

        Raises:
            ValueError: The columns differ in length, or a time or count is negative.
            IndexError: There is no such scope.
        """
        count = np.size(times)
        levels = np.asarray(quantiles, np.float64)
        values = np.asarray(quantile_values, np.float64)
        if values.shape != (count, len(levels)):
            raise ValueError(f"expected quantile_values of shape {(count, len(levels))}, got {values.shape}")
        pairs = [
            MessageField(encode.FIXED64, 1, np.tile(levels, count)),
            MessageField(encode.FIXED64, 2, values.ravel()),
        ]
        flat = encode_rows(6, values.size, pairs)
        rows = np.arange(count, dtype=np.int32)
        fields = [
            *_point_head(times, start_times, counts, count),
            numbers_field(encode.FIXED64, 5, sums, count, np.float64),
            raw_field(Pool(rows, flat.blob, flat.offsets[np.arange(count + 1) * len(levels)])),
            attributes_field(7, attributes, count),
            numbers_field(encode.NUMBER, 8, flags, count, np.uint32),
        ]
        self._metric(scope, 11, name, unit, description, encode_rows(1, count, fields))

    def build(self) -> Metrics:
        """The batch of everything that was added."""
        return Metrics(self.build_wire(), self._context)

    def _metric(
        self, scope: int, number: int, name: str, unit: str, description: str, points: Pool, *data_fields: bytes
    ) -> None:
        if not name:
            raise ValueError("the name of a metric must not be empty")
        if points.blob:
            head = (text_bytes(1, name), text_bytes(2, description), text_bytes(3, unit))
            self._add_items(scope, message_bytes(2, *head, message_bytes(number, points.blob, *data_fields)))


def _number_points(
    times: ArrayLike,
    values: ArrayLike,
    attributes: AttributeRows,
    start_times: ArrayLike | None,
    flags: ArrayLike | None,
    exemplars: Exemplars | None,
) -> Pool:
    count = np.size(times)
    fields = [
        fixed64_field(2, start_times, count, "start_times"),
        fixed64_field(3, times, count, "times"),
        *number_value_fields(values, count, double_number=4),
        _exemplars(5, exemplars, count),
        attributes_field(7, attributes, count),
        numbers_field(encode.NUMBER, 8, flags, count, np.uint32),
    ]
    return encode_rows(1, count, fields)


def _point_head(
    times: ArrayLike, start_times: ArrayLike | None, counts: ArrayLike, count: int
) -> list[MessageField | None]:
    return [
        fixed64_field(2, start_times, count, "start_times"),
        fixed64_field(3, times, count, "times"),
        fixed64_field(4, counts, count, "counts"),
    ]


def _exemplars(number: int, exemplars: Exemplars | None, count: int) -> MessageField | None:
    return None if exemplars is None else raw_field(exemplars.pool(number, count))


def _buckets(number: int, buckets: tuple[ArrayLike, Any] | None, count: int) -> MessageField | None:
    if buckets is None:
        return None
    offsets, counts = buckets
    if isinstance(counts, tuple):
        flat, splits = counts
        counts_field = MessageField(encode.PACKED_NUMBER, 2, unsigned(flat, "bucket counts"), splits)
    else:
        counts_field = packed_field(encode.PACKED_NUMBER, 2, unsigned(counts, "bucket counts").reshape(count, -1))
    return raw_field(
        encode_rows(
            number, count, [numbers_field(encode.ZIGZAG, 1, offsets, count, np.int32), counts_field], skip_empty=True
        )
    )


def _temporality(temporality: int) -> bytes:
    if temporality not in range(3):
        raise ValueError(f"expected temporality 0 (unspecified), 1 (delta) or 2 (cumulative), got {temporality}")
    return bytes((0x10, temporality)) if temporality else b""
