"""Changes to the values of points and to the temporality of metrics, which ``Edit`` has no fields for.

Fields are named by their numbers in opentelemetry-proto's ``metrics.proto``, which depend on the type of the metric.
Nothing is written before ``apply``; the new batch is indexed again when it is read.
"""

import numpy as np

from collector.model.arrays import Array, Indices, Mask
from collector.model.metrics import Metrics
from collector.model.patches import Patches
from collector.wire.protobuf import FIXED64, LENGTH_DELIMITED, VARINT, field_tag
from collector.wire.scan.index import find_field
from collector.wire.splice.values import encode_length_delimited, encode_varints

__all__ = ["PointEdit"]

_TEMPORALITY = 2  # in Sum, Histogram and ExponentialHistogram


class PointEdit:
    """Changes to one batch of metrics.

    >>> import numpy as np
    >>> from collector.model import METRIC_SUM, MetricsBuilder
    >>> builder = MetricsBuilder()
    >>> scope = builder.scope(builder.resource())
    >>> builder.sum(scope, "a", temporality=2, monotonic=True, times=[10], values=[7])
    >>> edit = PointEdit(builder.build())
    >>> edit.set_fixed64(6, np.array([5]), np.array([0]))  # as_int
    >>> edit.set_temporality(1, np.array([True]))
    >>> edited = edit.apply()
    >>> edited.field("int_value").tolist(), edited.field("temporality", "metrics").tolist()
    ([5], [1])
    """

    def __init__(self, batch: Metrics) -> None:
        """``batch`` is not changed."""
        self._batch = batch
        self._patches = Patches(batch)
        self._changed: dict[str, Mask] = {}

    def set_fixed64(self, number: int, values: Array, rows: Indices, table: str = "points") -> None:
        """Sets a field of 8 bytes (fixed64, sfixed64, double) of the points ``rows`` to ``values``, of 8 bytes each.

        ``table`` may also be ``exemplars``.
        """
        count = len(rows)
        if not count:
            return
        tag = field_tag(number, FIXED64)
        width = len(tag) + 8
        encoded = np.empty((count, width), np.uint8)
        encoded[:, : len(tag)] = np.frombuffer(tag, np.uint8)
        encoded[:, len(tag) :] = np.ascontiguousarray(values).view(np.uint8).reshape(count, 8)
        sources = np.arange(count, dtype=np.int64) * width
        self._replace(number, rows, encoded.tobytes(), sources, np.full(count, width, np.int64), table)

    def set_varint(self, number: int, values: Array, rows: Indices) -> None:
        """Sets a varint field of the points to ``values`` (U64[n]; signed fields of sint types: zigzag)."""
        if len(rows):
            payload, sources, lengths = encode_varints(
                field_tag(number, VARINT), np.ascontiguousarray(values, np.uint64)
            )
            self._replace(number, rows, payload, sources, lengths)

    def set_bytes(self, number: int, content: bytes, offsets: Array, sizes: Array, rows: Indices) -> None:
        """Sets a length-delimited field (packed numbers, messages) of the points to slices of ``content``."""
        if len(rows):
            tag = field_tag(number, LENGTH_DELIMITED)
            payload, sources, lengths = encode_length_delimited(
                tag, content, offsets.astype(np.int32), sizes.astype(np.int32)
            )
            self._replace(number, rows, payload, sources, lengths)

    def insert_raw(self, content: bytes, offsets: Array, sizes: Array, rows: Indices) -> None:
        """Inserts encoded fields, slices of ``content``, into the points; a point may be there several times."""
        if len(rows):
            places = self._batch.table().rows["body"][rows]
            self._patches.add("points", places, places, content, offsets, sizes)
            self._rows("points")[rows] = True

    def remove(self, number: int, rows: Indices) -> None:
        """Removes a field of the points, where it is present."""
        if not len(rows):
            return
        starts, ends = self._find(number, rows, "points")
        is_present = starts >= 0
        self._patches.cut(starts[is_present], ends[is_present])
        self._rows("points")[rows[is_present]] = True

    def set_temporality(self, temporality: int, metrics: Mask) -> None:
        """Sets the temporality of the metrics of the mask: sums and histograms of both kinds."""
        rows = self._batch.table("metrics").rows[metrics]
        if not len(rows):
            return
        bodies, ends = rows["data_body"].copy(), rows["data_end"].copy()
        starts, stops = find_field(self._batch.wire, bodies, ends, _TEMPORALITY)
        is_present = starts >= 0
        tag = field_tag(_TEMPORALITY, VARINT)
        payload, sources, lengths = encode_varints(tag, np.full(len(rows), temporality, np.uint64))
        # Without the field, the new one goes to the end, behind the points, whose patches come first.
        self._patches.add(
            "metrics", np.where(is_present, starts, ends), np.where(is_present, stops, ends), payload, sources, lengths
        )
        self._patches.add_frames_around("metrics", metrics)

    def apply(self) -> Metrics:
        """The changed batch, or the original one if nothing changed."""
        if not self._patches.count:
            return self._batch
        for table, rows in self._changed.items():
            if rows.any():
                self._patches.add_frames_around(table, rows)
        return self._batch.with_wire(self._patches.apply().wire)

    def _rows(self, table: str) -> Mask:
        """bool[n]: which rows of the table are changed; to be written to."""
        rows = self._changed.get(table)
        if rows is None:
            rows = self._changed[table] = np.zeros(self._batch.table(table).row_count, np.bool_)
        return rows

    def _find(self, number: int, rows: Indices, table: str) -> tuple[Array, Array]:
        found = self._batch.table(table).rows[rows]
        starts, ends = find_field(self._batch.wire, found["body"].copy(), found["end"].copy(), number)
        return starts, ends

    def _replace(
        self, number: int, rows: Indices, payload: bytes, sources: Array, lengths: Array, table: str = "points"
    ) -> None:
        bodies = self._batch.table(table).rows["body"][rows]
        starts, ends = self._find(number, rows, table)
        is_present = starts >= 0
        self._patches.add(
            table,
            np.where(is_present, starts, bodies),
            np.where(is_present, ends, bodies),
            payload,
            sources,
            lengths,
        )
        self._rows(table)[rows] = True
