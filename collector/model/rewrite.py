"""Writes the changes of an edit: turns them into patches of the request, applies these, and carries the index over.

How each field is encoded is in ``schema.FIELDS``. New attributes are written after the last attribute of their row, or
first if it has none; new fields are written first. Rows that lack the nested message a field belongs to
(InstrumentationScope, Status) are given an empty one beforehand.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, TypeVar

import numpy as np

from collector.model.attributes import AttributeColumn, AttributeTable
from collector.model.changes import UNTOUCHED, FieldChange, TableChange
from collector.model.columns import StringColumn
from collector.model.index import Lazy
from collector.model.patches import Patches, Rewritten, RowUpdate
from collector.model.schema import ATTRIBUTE_NUMBER, FIELDS, POINT_ATTRIBUTE_NUMBER, POINT_FLAGS_NUMBER, FieldSpec
from collector.model.tables import Tables
from collector.wire.layout import KIND_STRING
from collector.wire.protobuf import FIXED32, FIXED64, LENGTH_DELIMITED, VARINT, field_tag
from collector.wire.scan.index import find_field
from collector.wire.splice.attributes import AttributePatches, attribute_patches
from collector.wire.splice.values import content_starts, encode_length_delimited, encode_texts, encode_varints

if TYPE_CHECKING:
    from collections.abc import Container, Mapping

    from collector.model.arrays import I32, I64, U8, Array, Mask


__all__ = ["apply_changes", "rebuilt", "remove_children"]

B = TypeVar("B", bound=Tables)

_STATUS: Final = 15
_INNER: Final = {"scopes": 1, "spans": _STATUS}
"""The field number of the nested message that inner fields belong to."""
_COUNT_COLUMN: Final = {
    "events": "event_count",
    "links": "link_count",
    "exemplars": "exemplar_count",
    "quantiles": "quantile_count",
}
"""The column of the parent's rows that counts the children."""


def apply_changes(batch: B, changes: dict[str, TableChange]) -> B:
    """The batch with the changes of each table; the same object if nothing had to change."""
    batch = _with_inner_messages(batch, changes)
    patches = Patches(batch)
    attributes: dict[str, tuple[int, AttributePatches]] = {}
    for table, change in changes.items():
        holders = _holders(patches, table, change) if change.fields else {}
        for field_change in change.fields.values():
            if (field_change.winner != UNTOUCHED).any():
                _add_field(patches, table, field_change, *holders[field_change.spec.inner])
        if change.log:
            log = change.attribute_log(batch.table(table).rows, batch.attributes(table))
            new_attributes = attribute_patches(log, _attribute_tags(batch, table))
            if new_attributes is not None:
                attributes[table] = _add_attributes(patches, table, new_attributes), new_attributes
    if not patches.count:
        return batch
    rewritten = patches.apply()
    result = rebuilt(batch, rewritten, attributes, {table: change.fields for table, change in changes.items()})
    for table, (first, new_attributes) in attributes.items():
        result.index.add_attributes(table, _relocated_attributes(new_attributes, rewritten, first))
    return result


def remove_children(batch: B, keep: Mask, table: str) -> B:
    """The batch without those rows of a table below the items that are not kept; the items stay."""
    parent = batch.schema.parents[table]
    rows = batch.table(table).rows
    removed = rows[~keep]
    removed_count = np.bincount(removed["parent"], minlength=batch.table(parent).row_count)
    patches = Patches(batch)
    patches.cut(removed["start"], removed["end"])
    patches.add_frames_around(parent, removed_count > 0)
    new_row = np.where(keep, np.cumsum(keep) - 1, -1).astype(np.int32)
    rewritten = patches.apply()
    relocate = rewritten.offset_map.relocate
    # A row that was cut has no place in the new request: only the rows that stay are relocated.
    result = rebuilt(batch, rewritten, {table})
    result.index.add_rows(table, relocate(rows[keep]))
    parents = relocate(batch.table(parent).rows)
    parents[_COUNT_COLUMN[table]] -= removed_count.astype(parents[_COUNT_COLUMN[table]].dtype)
    result.index.add_rows(parent, parents)
    attributes = batch.index.attributes(table, batch.wire)
    if attributes is not None:
        kept = attributes.rows[new_row[attributes.rows["owner"]] >= 0]
        kept["owner"] = new_row[kept["owner"]]
        result.index.add_attributes(table, AttributeTable(relocate(kept), rewritten.wire, attributes.keys))
    return result


def rebuilt(
    batch: B, rewritten: Rewritten, without: Container[str], changed: Mapping[str, Container[str]] | None = None
) -> B:
    """A batch of the new bytes with the same items and the index relocated.

    Args:
        batch: The batch before.
        rewritten: The new bytes.
        without: Tables whose attributes are left out of the index.
        changed: The changed fields of each table; their cached columns are left out. None leaves out all columns.
    """
    result = batch.with_wire(rewritten.wire)
    for table in batch.index.tables():
        result.index.add_rows(table, rewritten.rows(table, batch.index.lazy_rows(table)))
    for table in batch.index.attributed_tables():
        attributes = batch.index.lazy_attributes(table)
        if table not in without and attributes is not None:
            result.index.add_attributes(table, rewritten.attributes(attributes))
    if changed is not None:
        for (table, name), column in batch.index.columns.items():
            # Other columns keep the old request's bytes alive.
            is_detached = isinstance(column, np.ndarray) or (isinstance(column, StringColumn) and not column.is_sliced)
            if is_detached and name in FIELDS.get(table, ()) and name not in changed.get(table, ()):
                result.index.columns[table, name] = column
    return result


def _add_attributes(patches: Patches, table: str, new_attributes: AttributePatches) -> int:
    """Adds the patches of a table's attributes; returns the number of the first."""
    columns = new_attributes.columns()
    lengths = columns[3]
    first, last = patches.extend(*columns)
    patches.add_frames_around(table, new_attributes.touched)
    counts, inner = new_attributes.counts, new_attributes.inner_messages()

    def update(placed: I32, rows: Array) -> None:
        rows["attribute_count"] = counts
        if len(inner):
            which, start = inner[:, 0], placed[inner[:, 1]]
            rows["inner_start"][which], rows["inner_body"][which] = start, start + inner[:, 2]
            rows["inner_end"][which] = start + lengths[inner[:, 1]]

    patches.add_update(table, first, last, update)
    return first


def _relocated_attributes(
    new_attributes: AttributePatches, rewritten: Rewritten, first: int
) -> Lazy[tuple[Array, list[bytes]]]:
    offset_map, placed = rewritten.offset_map, rewritten.placed[first : first + new_attributes.patch_count]
    return Lazy(lambda: new_attributes.relocated(offset_map, placed), new_attributes)


def _attribute_tags(batch: Tables, table: str) -> int | U8:
    """The tag of the attribute field: one for all rows, or U8[n]."""
    if table != "points":
        return ATTRIBUTE_NUMBER[table] << 3 | LENGTH_DELIMITED
    types = batch.table("metrics").rows["type"][batch.table(table).rows["parent"]]
    tags: U8 = POINT_ATTRIBUTE_NUMBER[types] << 3 | LENGTH_DELIMITED
    return tags


def _with_inner_messages(batch: B, changes: dict[str, TableChange]) -> B:
    """The batch with an empty nested message wherever a changed field needs one that is missing."""
    patches = Patches(batch)
    for table, number in _INNER.items():
        if table not in changes or not any(change.spec.inner for change in changes[table].fields.values()):
            continue
        rows = batch.table(table).rows
        needed = _inner_rows(changes[table], len(rows))
        if table != "spans":
            needed &= rows["inner_start"] < 0
        elif needed.any():
            needed &= find_field(batch.wire, rows["body"].copy(), rows["end"].copy(), number)[0] < 0
        if needed.any():
            at = rows["body"][needed]
            patches.add_frames_around(table, needed)
            empty = field_tag(number, LENGTH_DELIMITED) + b"\0"
            update = None if table == "spans" else _inner_update(needed)
            patches.add(table, at, at, empty, np.zeros(len(at), np.int64), np.full(len(at), 2), update)
    if not patches.count:
        return batch
    return rebuilt(batch, patches.apply(), ())


def _inner_rows(change: TableChange, row_count: int) -> Mask:
    """The rows in which a field of the nested message is set."""
    rows = np.zeros(row_count, np.bool_)
    for field_change in change.fields.values():
        if field_change.spec.inner:
            rows |= field_change.winner >= 0
    return rows


def _inner_update(needed: Mask) -> RowUpdate:
    def update(placed: I32, rows: Array) -> None:
        rows["inner_start"][needed] = placed
        rows["inner_body"][needed] = rows["inner_end"][needed] = placed + 2

    return update


def _holders(patches: Patches, table: str, change: TableChange) -> dict[bool, tuple[Array, Array]]:
    """(body, end) of the message that holds each row's own fields (False) and its inner fields (True)."""
    rows = patches.batch.table(table).rows
    own = rows["body"].copy(), rows["end"].copy()
    if "inner_start" in (rows.dtype.names or ()):
        return {False: own, True: (rows["inner_body"].copy(), rows["inner_end"].copy())}
    if not any(field_change.spec.inner for field_change in change.fields.values()):
        return {False: own}
    touched = _inner_rows(change, len(rows))
    starts, ends = find_field(patches.batch.wire, *own, _STATUS)
    bodies = content_starts(patches.batch.wire, starts, ends)
    patches.add_frames(starts[touched], bodies[touched], ends[touched])
    return {False: own, True: (bodies, ends)}


def _add_field(patches: Patches, table: str, change: FieldChange, holder_bodies: Array, holder_ends: Array) -> None:
    """Adds the patches of one field, whose messages have their content from ``holder_bodies`` to ``holder_ends``."""
    form, columns = change.spec.form, change.spec.columns
    records = patches.batch.table(table).rows
    for index, column in enumerate(change.columns):
        for number, mask in _field_numbers(patches.batch, table, change.spec, change.winner == index):
            rows = np.flatnonzero(mask)
            starts = ends = holder_bodies[rows]
            is_present = np.zeros(len(rows), np.bool_)
            # The index of a text field already says that it is absent.
            if form != "text" or (records[columns[0]][rows] >= 0).any():
                old_starts, old_ends = find_field(patches.batch.wire, starts, holder_ends[rows], number)
                is_present = old_starts >= 0
                starts, ends = np.where(is_present, old_starts, starts), np.where(is_present, old_ends, ends)
            patches.add_frames_around(table, mask)
            if isinstance(column, StringColumn) and form == "any":
                payload, sources, lengths, sizes = _encode_texts(column, rows, number, as_value=True)
                update = _text_body_update(rows, lengths, sizes)
                patches.add(table, starts, ends, payload, sources, lengths, update)
            elif isinstance(column, StringColumn):
                payload, sources, lengths, sizes = _encode_texts(column, rows, number)
                patches.add(table, starts, ends, payload, sources, lengths, _text_update(columns, rows, lengths, sizes))
            elif isinstance(column, AttributeColumn):
                payload, sources, lengths = _encode_values(column, rows, number)
                update = _body_update(rows, lengths, column.rows[rows])
                patches.add(table, starts, ends, payload, sources, lengths, update)
            else:
                values = column[rows]
                is_unset = (values == 0).all(axis=1) if form == "trace_id" else values == 0
                patches.cut(starts[is_unset & is_present], ends[is_unset & is_present])
                payload, sources, lengths = _encode_numbers(form, number, values[~is_unset])
                update = _number_update(columns, rows, values)
                patches.add(table, starts[~is_unset], ends[~is_unset], payload, sources, lengths, update)


def _field_numbers(batch: Tables, table: str, spec: FieldSpec, mask: Mask) -> list[tuple[int, Mask]]:
    """The field's numbers with the rows that use each: the flags of points depend on the type of the metric."""
    if spec.form != "flags":
        return [(spec.number, mask)] if mask.any() else []
    by_row = POINT_FLAGS_NUMBER[batch.table("metrics").rows["type"][batch.table(table).rows["parent"]]]
    return [(number, mask & (by_row == number)) for number in np.unique(by_row[mask]).tolist()]


def _encode_texts(
    column: StringColumn, rows: Array, number: int, *, as_value: bool = False
) -> tuple[bytes, I64, I64, I32]:
    """Text fields: (bytes, starts, lengths, lengths of the texts). Each distinct text is encoded once.

    ``as_value``: the field is an AnyValue with the text.
    """
    inner_tag = field_tag(1, LENGTH_DELIMITED) if as_value else b""
    return encode_texts(field_tag(number, LENGTH_DELIMITED), inner_tag, list(column.distinct_bytes), column.codes[rows])


def _encode_values(column: AttributeColumn, rows: Array, number: int) -> tuple[bytes, I64, I64]:
    """AnyValue fields: (bytes, starts, lengths)."""
    records = column.rows[rows]
    is_empty = records["any"] < 0  # a value without any field is an empty message
    offsets = np.where(is_empty, 0, records["any"]).astype(np.int32)
    sizes = np.where(is_empty, 0, records["any_len"]).astype(np.int32)
    return encode_length_delimited(field_tag(number, LENGTH_DELIMITED), column.source, offsets, sizes)


def _encode_numbers(form: str, number: int, values: Array) -> tuple[bytes, I64, I64]:
    """Number and id fields: (bytes, starts, lengths)."""
    if not len(values):
        return b"", np.empty(0, np.int64), np.empty(0, np.int64)
    if form in {"varint", "flags"}:
        return encode_varints(field_tag(number, VARINT), np.ascontiguousarray(values).astype(np.int64).view(np.uint64))
    tag, content = {
        "fixed64": (field_tag(number, FIXED64), values.astype("<u8")),
        "fixed32": (field_tag(number, FIXED32), values.astype("<u4")),
        "span_id": (field_tag(number, LENGTH_DELIMITED) + b"\x08", values.astype(">u8")),
        "trace_id": (field_tag(number, LENGTH_DELIMITED) + b"\x10", values.astype(">u8")),
    }[form]
    content = np.ascontiguousarray(content).reshape(len(values), -1).view(np.uint8)
    tags = np.broadcast_to(np.frombuffer(tag, np.uint8), (len(values), len(tag)))
    encoded = np.concatenate([tags, content.reshape(len(values), -1)], axis=1)
    width = encoded.shape[1]
    return encoded.tobytes(), np.arange(len(values), dtype=np.int64) * width, np.full(len(values), width, np.int64)


def _text_update(columns: tuple[str, ...], rows: Array, lengths: I64, sizes: I32) -> RowUpdate:
    def update(placed: I32, records: Array) -> None:
        records[columns[0]][rows] = placed + lengths - sizes
        records[columns[1]][rows] = sizes

    return update


def _body_update(rows: Array, lengths: I64, values: Array) -> RowUpdate:
    def update(placed: I32, records: Array) -> None:
        size = np.where(values["any"] < 0, 0, values["any_len"])
        content = placed + lengths - size
        is_text = values["kind"] == KIND_STRING
        records["any"][rows], records["any_len"][rows], records["body_kind"][rows] = content, size, values["kind"]
        records["text"][rows] = np.where(is_text, content + values["value"] - values["any"], -1)
        records["text_len"][rows] = np.where(is_text, values["value_len"], 0)

    return update


def _text_body_update(rows: Array, lengths: I64, sizes: I32) -> RowUpdate:
    def update(placed: I32, records: Array) -> None:
        ends = placed + lengths
        content = sizes + 1 + _varint_sizes(sizes)
        records["any"][rows], records["any_len"][rows], records["body_kind"][rows] = (
            ends - content,
            content,
            KIND_STRING,
        )
        records["text"][rows], records["text_len"][rows] = ends - sizes, sizes

    return update


def _varint_sizes(numbers: I32) -> I32:
    """How many bytes each number takes as a varint."""
    sizes = np.ones(len(numbers), np.int32)
    for bits in (7, 14, 21, 28):
        sizes += numbers >> bits > 0
    return sizes


def _number_update(columns: tuple[str, ...], rows: Array, values: Array) -> RowUpdate:
    def update(_placed: I32, records: Array) -> None:
        for i, column in enumerate(columns):
            records[column][rows] = values[:, i] if values.ndim > 1 else values

    return update
