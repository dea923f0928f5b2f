"""Deletes attributes and replaces their values row by row of ``Batch.attributes``, whatever their keys are.

An ``Edit`` works key by key, and its cost grows with the number of keys times the number of rows. Here the cost is that
of the attributes that change, so it suits rules over all attributes, whose keys senders choose.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, TypeVar

import numpy as np

from collector.model.arrays import starts_of
from collector.model.patches import Patches
from collector.model.rewrite import rebuilt
from collector.wire.protobuf import LENGTH_DELIMITED, field_tag
from collector.wire.scan.index import find_field
from collector.wire.splice.values import content_starts, encode_length_delimited

if TYPE_CHECKING:
    from collections.abc import Mapping

    from collector.model.arrays import I32, Array, Mask
    from collector.model.columns import StringColumn
    from collector.model.tables import Tables

__all__ = ["change_attributes"]

B = TypeVar("B", bound="Tables")

_STRING: Final = field_tag(1, LENGTH_DELIMITED)  # AnyValue.string_value
_VALUE: Final = field_tag(2, LENGTH_DELIMITED)  # KeyValue.value


def change_attributes(batch: B, changes: Mapping[str, tuple[I32, Mask, StringColumn]]) -> B:
    """The batch with attributes deleted and with new texts as values; the same object if nothing changes.

    ``changes`` has for each table k rows of ``batch.attributes(table)`` (I32[k], ascending), which of them to delete
    (bool[k]) and their new values, absent where the value stays.

    >>> from collector.model import StringColumn
    >>> rows, deleted = np.array([0, 1], np.int32), np.array([True, False])
    >>> changed = change_attributes(traces, {"spans": (rows, deleted, StringColumn.of([None, "db"]))})
    >>> changed.attribute("http.status").int.tolist(), changed.attribute("db.system").text.to_list()
    ([0, 0, 503], [None, 'db', None])

    Raises:
        ValueError: The columns of a table differ in length.
    """
    patches = Patches(batch)
    touched: list[str] = []
    for table, (which, deleted, texts) in changes.items():
        if not len(which) == len(deleted) == len(texts):
            raise ValueError(f"expected columns of {len(which)} attributes, got {len(deleted)} and {len(texts)}")
        rows = batch.attributes(table).take(which).rows
        replaced = np.flatnonzero((texts.codes >= 0) & ~deleted)
        removed = rows.take(np.flatnonzero(deleted))
        if not len(replaced) and not len(removed):
            continue
        touched.append(table)
        _delete(patches, table, removed)
        if len(replaced):
            _replace(patches, rows.take(replaced), texts.take(replaced))
        owners = np.zeros(batch.table(table).row_count, np.bool_)
        owners[removed["owner"]] = True
        owners[rows["owner"][replaced]] = True
        patches.add_frames_around(table, owners)
    return rebuilt(batch, patches.apply(), touched, {}) if touched else batch


def _delete(patches: Patches, table: str, removed: Array) -> None:
    counts = np.bincount(removed["owner"], minlength=patches.batch.table(table).row_count)

    def update(_placed: I32, records: Array) -> None:
        records["attribute_count"] -= counts.astype(np.int32)

    patches.cut(removed["start"], removed["end"])
    patches.add_update(table, patches.count, patches.count, update)


def _replace(patches: Patches, rows: Array, texts: StringColumn) -> None:
    wire = patches.batch.wire
    starts, ends = rows["start"].copy(), rows["end"].copy()
    bodies = content_starts(wire, starts, ends)
    patches.add_frames(starts, bodies, ends)
    at, until = find_field(wire, bodies, ends, 2)
    is_absent = at < 0
    at, until = np.where(is_absent, bodies, at), np.where(is_absent, bodies, until)
    values = texts.distinct_bytes
    sizes = np.fromiter(map(len, values), np.int32, len(values))
    source, offsets, lengths = encode_length_delimited(
        _STRING, b"".join(values), starts_of(sizes).astype(np.int32), sizes
    )
    payload, sources, widths = encode_length_delimited(
        _VALUE, source, offsets.astype(np.int32), lengths.astype(np.int32)
    )
    patches.extend(
        at.astype(np.int64), (until - at).astype(np.int64), sources[texts.codes], widths[texts.codes], payload
    )
