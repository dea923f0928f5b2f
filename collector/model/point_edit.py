"""Changes to the values of points and to the temporality of metrics, which ``Edit`` has no fields for.

Fields are named by their numbers in opentelemetry-proto's ``metrics.proto``, which depend on the type of the metric.
Nothing is written before ``apply``; the new batch is indexed again when it is read.
"""

from functools import partial
from typing import Final

import numpy as np

from collector.model.arrays import Array, Indices, Mask, starts_of
from collector.model.index import Index, Lazy, resolve
from collector.model.metrics import Metrics
from collector.model.patches import Patches
from collector.wire.protobuf import FIXED64, LENGTH_DELIMITED, VARINT, field_tag
from collector.wire.scan.index import find_field
from collector.wire.splice.values import encode_length_delimited, encode_varints

__all__ = ["PointEdit"]

_TEMPORALITY: Final = 2  # in Sum, Histogram and ExponentialHistogram
_PACKED: Final = (6, 7)  # bucket_counts and explicit_bounds of histograms: no row of the index has what is in them
_EIGHT: Final = np.arange(-8, 0)


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
        # What is as long as what it replaces is written over it: no message changes its length then.
        self._overwritten: list[tuple[Array, Array]] = []
        self._columns: list[tuple[str, str, Array, Array]] = []
        self._has_columns = True

    def set_fixed64(
        self, number: int, values: Array, rows: Indices, table: str = "points", *, column: str = ""
    ) -> None:
        """Sets a field of 8 bytes (fixed64, sfixed64, double) of the points ``rows`` to ``values``, of 8 bytes each.

        Args:
            number: The field.
            values: One for each row.
            rows: Which points.
            table: May also be ``exemplars``.
            column: The field's column in the rows of the table. If every change names one, and every field is there
                already, the new batch need not be indexed again.
        """
        if not len(rows):
            return
        tag = field_tag(number, FIXED64)
        width = len(tag) + 8
        octets = np.ascontiguousarray(values).view(np.uint8).reshape(-1, 8)
        starts, ends = self._find(number, rows, table)
        is_there = ends - starts == width
        if is_there.all():
            self._overwritten.append((ends[:, None] + _EIGHT, octets))
            self._has_columns &= bool(column)
            self._columns.append((table, column, rows, values))
            return
        encoded = np.empty((len(rows), width), np.uint8)
        encoded[:, : len(tag)] = np.frombuffer(tag, np.uint8)
        encoded[:, len(tag) :] = octets
        sources = np.arange(len(rows), dtype=np.int64) * width
        self._replace(number, rows, encoded.tobytes(), sources, np.full(len(rows), width, np.int64), table)

    def set_varint(self, number: int, values: Array, rows: Indices) -> None:
        """Sets a varint field of the points to ``values`` (U64[n]; signed fields of sint types: zigzag)."""
        if len(rows):
            payload, sources, lengths = encode_varints(
                field_tag(number, VARINT), np.ascontiguousarray(values, np.uint64)
            )
            self._replace(number, rows, payload, sources, lengths)

    def set_bytes(self, number: int, content: bytes, offsets: Array, sizes: Array, rows: Indices) -> None:
        """Sets a length-delimited field (packed numbers, messages) of the points to slices of ``content``."""
        if not len(rows):
            return
        tag = field_tag(number, LENGTH_DELIMITED)
        starts, ends = self._find(number, rows, "points")
        payload, sources, lengths = encode_length_delimited(
            tag, content, offsets.astype(np.int32), sizes.astype(np.int32)
        )
        if number in _PACKED and (ends - starts == lengths).all():
            places = np.repeat(starts - starts_of(lengths), lengths) + np.arange(int(lengths.sum()))
            self._overwritten.append((places, np.frombuffer(payload, np.uint8)))
            return
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
        if (stops - starts == 2).all():  # the tag and one byte
            self._overwritten.append((stops - 1, np.full(len(rows), temporality, np.uint8)))
            self._columns.append(("metrics", "temporality", np.flatnonzero(metrics), np.array(temporality)))
            return
        tag = field_tag(_TEMPORALITY, VARINT)
        payload, sources, lengths = encode_varints(tag, np.full(len(rows), temporality, np.uint64))
        # Without the field, the new one goes to the end, behind the points, whose patches come first.
        self._patches.add(
            "metrics", np.where(is_present, starts, ends), np.where(is_present, stops, ends), payload, sources, lengths
        )
        self._patches.add_frames_around("metrics", metrics)

    def apply(self) -> Metrics:
        """The changed batch, or the original one if nothing changed."""
        batch = self._batch
        if self._overwritten:
            octets = np.frombuffer(batch.wire, np.uint8).copy()
            for places, values in self._overwritten:
                octets[places] = values
            batch = type(batch)(octets.tobytes(), batch.context, self._index(), batch.item_count)
        if not self._patches.count:
            return batch
        for table, rows in self._changed.items():
            if rows.any():
                self._patches.add_frames_around(table, rows)
        return self._batch.with_wire(self._patches.apply(batch.wire).wire)

    def _index(self) -> Index | None:
        """The index after fields were overwritten; None if it must be made again."""
        if self._patches.count or not self._has_columns:
            return None
        index, old = Index(), self._batch.index
        for table in self._batch.schema.path:
            rows = self._batch.table(table).rows
            changes = [change for change in self._columns if change[0] == table]
            if changes:
                rows = rows.copy()
            for _, column, places, values in changes:
                rows[column][places] = values
            index.add_rows(table, rows)
            attributes = old.lazy_attributes(table)
            if attributes is not None:
                index.add_attributes(table, Lazy(partial(resolve, attributes)))
        return index

    def _rows(self, table: str) -> Mask:
        """bool[n]: which rows of the table are changed; to be written to."""
        rows = self._changed.get(table)
        if rows is None:
            rows = self._changed[table] = np.zeros(self._batch.table(table).row_count, np.bool_)
        return rows

    def _find(self, number: int, rows: Indices, table: str) -> tuple[Array, Array]:
        found = self._batch.table(table).rows
        starts, ends = find_field(self._batch.wire, found["body"][rows], found["end"][rows], number)
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
