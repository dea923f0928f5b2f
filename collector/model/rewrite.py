"""Writes the changes of an edit: turns them into patches of the request's bytes, has them spliced in, and carries the index over.

What is encoded how: ``table.FIELDS``. New attributes stand behind the last of their row, or first where it has none;
new fields first. Rows that lack the message a field belongs into (InstrumentationScope, Status) get an empty one
beforehand.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, TypeVar

import numpy as np

from collector.model.attributes import AttributeColumn, AttributeTable
from collector.model.changes import UNTOUCHED, FieldChange, TableChange
from collector.model.columns import Array, StringColumn
from collector.model.index import Later
from collector.model.patches import Note, Patches, Spliced
from collector.model.table import ATTRIBUTE_NUMBER, FIELDS, POINT_ATTRIBUTE_NUMBER, POINT_FLAGS_NUMBER, Field
from collector.wire.layout import KIND_STRING
from collector.wire.scan.index import find_field
from collector.wire.splice.values import bodies, length_delimited, varints

if TYPE_CHECKING:
    from collections.abc import Container, Mapping

    from collector.model.batch import Batch
    from collector.wire.splice.attributes import AttributePatches

__all__ = ["without_children", "written"]

B = TypeVar("B", bound="Batch")

_LENGTH_DELIMITED: Final = 2
_STATUS: Final = 15
_INNER: Final = {"scopes": 1, "spans": _STATUS}
"""The field whose message the inner fields stand in."""


def written(batch: B, changes: dict[str, TableChange]) -> B:
    """The batch with the changes; the same object where there was nothing to change."""
    batch = _with_inner_messages(batch, changes)
    patches = Patches(batch)
    attributes: dict[str, tuple[int, AttributePatches]] = {}
    for table, change in changes.items():
        holders = _holders(patches, table, change) if change.fields else {}
        for by_field in change.fields.values():
            if (by_field.winner != UNTOUCHED).any():
                _put_field(patches, table, by_field, *holders[by_field.known.inner])
        if change.log:
            made = change.write_log(batch.table(table).rows, batch.attributes(table)).patches(
                _attribute_tags(batch, table)
            )
            if made is not None:
                attributes[table] = _put_attributes(patches, table, made), made
    if not patches.count:
        return batch
    spliced = patches.apply()
    result = _made(batch, spliced, attributes, {table: change.fields for table, change in changes.items()})
    for table, (first, made) in attributes.items():
        result.index.add_attributes(table, _carried(made, spliced, first))
    return result


def _carried(made: AttributePatches, spliced: Spliced, first: int) -> Later[tuple[Array, list[bytes]]]:
    shift, placed = spliced.shift, spliced.placed[first : first + made.patch_count]
    return Later(lambda: made.carried(shift, placed), made)


def _put_attributes(patches: Patches, table: str, made: AttributePatches) -> int:
    """Put the patches; returns the number of the first."""
    columns = made.columns()
    lengths = columns[3]
    first, last = patches.add(*columns)
    patches.around(table, made.touched)
    counts, inner = made.counts, made.inner_messages()

    def note(placed: Array, rows: Array) -> None:
        rows["attribute_count"] = counts
        if len(inner):
            which, start = inner[:, 0], placed[inner[:, 1]]
            rows["inner_start"][which], rows["inner_body"][which] = start, start + inner[:, 2]
            rows["inner_end"][which] = start + lengths[inner[:, 1]]

    patches.note(table, first, last, note)
    return first


def without_children(batch: B, keep: Array, table: str) -> B:
    """The batch without the rows of a table below the items that are not kept; the items stay."""
    parent = batch.schema.parents[table]
    rows = batch.table(table).rows
    gone = rows[~keep]
    dropped = np.bincount(gone["parent"], minlength=batch.table(parent).row_count)
    patches = Patches(batch)
    patches.cut(gone["start"], gone["end"])
    patches.around(parent, dropped > 0)
    new = np.where(keep, np.cumsum(keep) - 1, -1).astype(np.int32)
    spliced = patches.apply()
    relocate = spliced.shift.relocate
    # A row that was cut has no place in the new request: only those that stay are moved.
    result = _made(batch, spliced, {table})
    result.index.add_rows(table, relocate(rows[keep]))
    above = relocate(batch.table(parent).rows)
    above[_COUNT_OF[table]] -= dropped.astype(above[_COUNT_OF[table]].dtype)
    result.index.add_rows(parent, above)
    every = batch.index.attributes(table, batch.wire)
    if every is not None:
        stay = np.flatnonzero(new[every.rows["owner"]] >= 0)
        kept = every.rows[stay]
        kept["owner"] = new[kept["owner"]]
        result.index.add_attributes(table, AttributeTable(relocate(kept), spliced.wire, every.keys))
    return result


_COUNT_OF: Final = {
    "events": "event_count",
    "links": "link_count",
    "exemplars": "exemplar_count",
    "quantiles": "quantile_count",
}


def _made(
    batch: B, spliced: Spliced, without: Container[str], changed: Mapping[str, Container[str]] | None = None
) -> B:
    """A batch of new bytes with the items of ``batch``, what is known of it moved but for the attributes of the tables ``without``.

    ``changed``: the fields of each table whose columns are to be read anew; None = all.
    """
    made = batch.edited(spliced.wire)
    for table in batch.index.tables():
        made.index.add_rows(table, spliced.rows(table, batch.index.held_rows(table)))
    for table in batch.index.attributed_tables():
        held = batch.index.held_attributes(table)
        if table not in without and held is not None:
            made.index.add_attributes(table, spliced.attributes(held))
    if changed is not None:
        for (table, name), column in batch.index.columns.items():
            own = isinstance(column, np.ndarray) or (isinstance(column, StringColumn) and not column.is_sliced)
            if own and name in FIELDS.get(table, ()) and name not in changed.get(table, ()):
                made.index.columns[table, name] = column
    return made


def _with_inner_messages(batch: B, changes: dict[str, TableChange]) -> B:
    """The batch with an empty inner message where a field needs one that is not there."""
    patches = Patches(batch)
    for table, number in _INNER.items():
        if table not in changes or not any(by_field.known.inner for by_field in changes[table].fields.values()):
            continue
        rows = batch.table(table).rows
        needed = np.zeros(len(rows), np.bool_)
        for by_field in changes[table].fields.values():
            if by_field.known.inner:
                needed |= by_field.winner >= 0
        if table != "spans":
            needed &= rows["inner_start"] < 0
        elif needed.any():
            needed &= find_field(batch.wire, rows["body"].copy(), rows["end"].copy(), number)[0] < 0
        if needed.any():
            at = rows["body"][needed]
            patches.around(table, needed)
            empty = _tag(number, _LENGTH_DELIMITED) + b"\0"
            patches.put(
                table, at, at, empty, np.zeros(len(at), np.int64), np.full(len(at), 2), _inner_note(table, needed)
            )
    if not patches.count:
        return batch
    return _made(batch, patches.apply(), ())


def _inner_note(table: str, needed: Array) -> Note | None:
    def note(placed: Array, rows: Array) -> None:
        rows["inner_start"][needed] = placed
        rows["inner_body"][needed] = rows["inner_end"][needed] = placed + 2

    return None if table == "spans" else note


def _holders(patches: Patches, table: str, change: TableChange) -> dict[bool, tuple[Array, Array]]:
    """(body, end) of the message that holds each row's own fields (False) and its inner ones (True)."""
    rows = patches.batch.table(table).rows
    own = rows["body"].copy(), rows["end"].copy()
    if "inner_start" in (rows.dtype.names or ()):
        return {False: own, True: (rows["inner_body"].copy(), rows["inner_end"].copy())}
    if not any(by_field.known.inner for by_field in change.fields.values()):
        return {False: own}
    touched = np.zeros(len(rows), np.bool_)
    for by_field in change.fields.values():
        touched |= by_field.known.inner & (by_field.winner >= 0)
    starts, ends = find_field(patches.batch.wire, *own, _STATUS)
    contents = bodies(patches.batch.wire, starts, ends)
    patches.frame(starts[touched], contents[touched], ends[touched])
    return {False: own, True: (contents, ends)}


def _put_field(patches: Patches, table: str, change: FieldChange, holder_bodies: Array, holder_ends: Array) -> None:
    form, columns = change.known.form, change.known.columns
    records = patches.batch.table(table).rows
    for index, column in enumerate(change.columns):
        for number, mask in _numbers(patches.batch, table, change.known, change.winner == index):
            rows = np.flatnonzero(mask)
            starts = ends = holder_bodies[rows]
            found = np.zeros(len(rows), np.bool_)
            # of texts the index says whether they are there
            if form != "text" or (records[columns[0]][rows] >= 0).any():
                at = find_field(patches.batch.wire, starts, holder_ends[rows], number)
                found = at[0] >= 0
                starts, ends = np.where(found, at[0], starts), np.where(found, at[1], ends)
            if isinstance(column, StringColumn | AttributeColumn):
                payload, sources, lengths, contents = _delimited(column, rows, number)
                note = (
                    _text_note(columns, rows, lengths, contents)
                    if isinstance(column, StringColumn)
                    else _body_note(rows, lengths, column.rows[rows])
                )
                patches.put(table, starts, ends, payload, sources, lengths, note)
                patches.around(table, mask)
                continue
            values = column[rows]
            unset = (values == 0).all(axis=1) if form == "trace_id" else values == 0
            patches.cut(starts[unset & found], ends[unset & found])
            payload, sources, lengths = _number(form, number, values[~unset])
            patches.put(
                table, starts[~unset], ends[~unset], payload, sources, lengths, _number_note(columns, rows, values)
            )
            patches.around(table, mask)


def _numbers(batch: Batch, table: str, known: Field, mask: Array) -> list[tuple[int, Array]]:
    """The field's number, with the rows that have it there: of points it depends on the metric's type."""
    if known.form != "flags":
        return [(known.number, mask)] if mask.any() else []
    by_row = POINT_FLAGS_NUMBER[batch.table("metrics").rows["type"][batch.table(table).rows["parent"]]]
    return [(number, mask & (by_row == number)) for number in np.unique(by_row[mask]).tolist()]


def _tag(number: int, form: int) -> bytes:
    tag = number << 3 | form
    return bytes((tag,)) if tag < 0x80 else bytes((tag & 0x7F | 0x80, tag >> 7))


def _delimited(column: StringColumn | AttributeColumn, rows: Array, number: int) -> tuple[bytes, Array, Array, Array]:
    """Fields with the column's texts or AnyValues: (bytes, starts, lengths, lengths of the contents)."""
    if isinstance(column, StringColumn):
        values = column.distinct_bytes  # each is written once, however many rows have it
        sizes = np.fromiter(map(len, values), np.int32, len(values))
        offsets = (np.cumsum(sizes, dtype=np.int64) - sizes).astype(np.int32)
        payload, starts, lengths = length_delimited(_tag(number, _LENGTH_DELIMITED), b"".join(values), offsets, sizes)
        codes = column.codes[rows]
        return payload, starts[codes], lengths[codes], sizes[codes]
    held = column.rows[rows]
    absent = held["any"] < 0  # a value without any field: an empty message
    offsets, lengths = (
        np.where(absent, 0, held["any"]).astype(np.int32),
        np.where(absent, 0, held["any_len"]).astype(np.int32),
    )
    return *length_delimited(_tag(number, _LENGTH_DELIMITED), column.source, offsets, lengths), lengths


def _number(form: str, number: int, values: Array) -> tuple[bytes, Array, Array]:
    """Fields with these numbers: (bytes, starts, lengths)."""
    if not len(values):
        return b"", np.empty(0, np.int64), np.empty(0, np.int64)
    if form in {"varint", "flags"}:
        return varints(_tag(number, 0), np.ascontiguousarray(values).astype(np.int64).view(np.uint64))
    tag, content = {
        "fixed64": (_tag(number, 1), values.astype("<u8")),
        "fixed32": (_tag(number, 5), values.astype("<u4")),
        "span_id": (_tag(number, _LENGTH_DELIMITED) + b"\x08", values.astype(">u8")),
        "trace_id": (_tag(number, _LENGTH_DELIMITED) + b"\x10", values.astype(">u8")),
    }[form]
    content = np.ascontiguousarray(content).reshape(len(values), -1).view(np.uint8)
    encoded = np.concatenate(
        [np.broadcast_to(np.frombuffer(tag, np.uint8), (len(values), len(tag))), content.reshape(len(values), -1)],
        axis=1,
    )
    width = encoded.shape[1]
    return encoded.tobytes(), np.arange(len(values), dtype=np.int64) * width, np.full(len(values), width, np.int64)


def _text_note(columns: tuple[str, ...], rows: Array, lengths: Array, contents: Array) -> Note:
    def note(placed: Array, records: Array) -> None:
        records[columns[0]][rows] = placed + lengths - contents
        records[columns[1]][rows] = contents

    return note


def _body_note(rows: Array, lengths: Array, held: Array) -> Note:
    def note(placed: Array, records: Array) -> None:
        size = np.where(held["any"] < 0, 0, held["any_len"])
        content = placed + lengths - size
        text = held["kind"] == KIND_STRING
        records["any"][rows], records["any_len"][rows], records["body_kind"][rows] = content, size, held["kind"]
        records["text"][rows] = np.where(text, content + held["value"] - held["any"], -1)
        records["text_len"][rows] = np.where(text, held["value_len"], 0)

    return note


def _number_note(columns: tuple[str, ...], rows: Array, values: Array) -> Note:
    def note(_placed: Array, records: Array) -> None:
        for i, column in enumerate(columns):
            records[column][rows] = values[:, i] if values.ndim > 1 else values

    return note


def _attribute_tags(batch: Batch, table: str) -> int | Array:
    """The tag of each row's attributes: one for all, or uint8[n]."""
    if table != "points":
        return ATTRIBUTE_NUMBER[table] << 3 | _LENGTH_DELIMITED
    tags: Array = (
        POINT_ATTRIBUTE_NUMBER[batch.table("metrics").rows["type"][batch.table(table).rows["parent"]]] << 3
        | _LENGTH_DELIMITED
    )
    return tags
