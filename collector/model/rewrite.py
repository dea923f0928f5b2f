"""Writes the changes of an edit: turns them into patches of the request's bytes, has them spliced in, and carries the index over.

What is encoded how: ``table.FIELDS``. New attributes stand behind the last of their row, or first where it has none; new fields first.
Rows that lack the message a change belongs into (Resource, InstrumentationScope, Status) get an empty one beforehand.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, TypeVar

import numpy as np

import collector.wire.scan as scan  # noqa: PLR0402 - the module, not the function of the same name in its stub
from collector.model.attributes import AttributeColumn, AttributeTable, as_column
from collector.model.columns import Array, StringColumn, read_only
from collector.model.patches import Note, Patches
from collector.model.table import ATTRIBUTE_NUMBER, POINT_ATTRIBUTE_NUMBER, POINT_FLAGS_NUMBER, Field
from collector.wire.layout import KIND_STRING
from collector.wire.splice_values import bodies, find_key, gather, has_duplicates, key_values, length_delimited, locate, mark_key, varints

if TYPE_CHECKING:
    from collections.abc import Callable

    from collector.model.batch import Batch
    from collector.model.values import AttributeValue

__all__ = ["DELETED", "UNTOUCHED", "FieldChange", "KeyChange", "TableChange", "without_children", "written"]

B = TypeVar("B", bound="Batch")

UNTOUCHED: Final = -1
DELETED: Final = -2

_LENGTH_DELIMITED: Final = 2
_STATUS: Final = 15
_INNER: Final = {"resources": 1, "scopes": 1, "spans": _STATUS}
"""The field whose message the inner fields and attributes stand in."""
_DTYPES: Final = {
    "varint": np.int64,
    "fixed64": np.uint64,
    "fixed32": np.uint32,
    "flags": np.uint32,
    "span_id": np.uint64,
    "trace_id": np.uint64,
}


@dataclass(slots=True)
class KeyChange:
    """Changes of one attribute key."""

    winner: Array
    """int32[n]: the column each row takes its value from, UNTOUCHED or DELETED."""
    columns: list[AttributeColumn] = field(default_factory=list)


@dataclass(slots=True)
class FieldChange:
    """Changes of one field."""

    known: Field
    winner: Array
    columns: list[StringColumn | AttributeColumn | Array] = field(default_factory=list)

    def column(self, values: AttributeValue | AttributeColumn | StringColumn | Array, count: int) -> StringColumn | AttributeColumn | Array:
        """The values as this field's column of ``count`` rows."""
        form = self.known.form
        if form == "any":
            return as_column(values, count)
        if form == "text":
            column = StringColumn.constant(values, count) if isinstance(values, str) else values
            if not isinstance(column, StringColumn):
                raise TypeError(f"{type(values).__name__} is no text")
            if len(column) != count:
                raise ValueError(f"a column of {len(column)} values for {count} rows")
            return column
        if isinstance(values, str | StringColumn | AttributeColumn):
            raise TypeError(f"{type(values).__name__} is no number")
        shape = (count, 2) if form == "trace_id" else (count,)
        return np.ascontiguousarray(np.broadcast_to(np.asarray(values).astype(_DTYPES[form]), shape))


@dataclass(slots=True)
class TableChange:
    """All changes of one table."""

    keys: dict[str, KeyChange] = field(default_factory=dict)
    fields: dict[str, FieldChange] = field(default_factory=dict)
    row_winner: Array | None = None
    """int32[m] over the table's attributes: as ``KeyChange.winner``; changes by key go before them."""
    row_columns: list[AttributeColumn] = field(default_factory=list)

    def changes(self) -> bool:
        """Whether anything is to be done."""
        winners = [change.winner for change in self.keys.values()] + [change.winner for change in self.fields.values()]
        if self.row_winner is not None:
            winners.append(self.row_winner)
        return any(bool((winner != UNTOUCHED).any()) for winner in winners)


def written(batch: B, changes: dict[str, TableChange]) -> B:
    """The batch with the changes; the same object where there was nothing to change."""
    batch = _with_inner_messages(batch, changes)
    patches = Patches(batch)
    counts: dict[str, Array] = {}
    for table, change in changes.items():
        holders = _holders(patches, table, change) if change.fields else {}
        for by_field in change.fields.values():
            _put_field(patches, table, by_field, *holders[by_field.known.inner])
        if change.keys or change.row_winner is not None:
            before = patches.count
            count = _put_attributes(patches, table, change)
            if patches.count > before:
                counts[table] = count
    if not patches.count:
        return batch
    wire, rows, relocate = patches.apply()
    for table, count in counts.items():
        rows[table]["attribute_count"] = count
    return _made(batch, wire, rows, relocate, set(counts))


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
    # A row that was cut has no place in the new request: only those that stay are moved.
    wire, moved, relocate = patches.apply(without=table)
    moved[table] = relocate(rows[keep])
    moved[parent][_COUNT_OF[table]] -= dropped.astype(moved[parent][_COUNT_OF[table]].dtype)
    result = _made(batch, wire, moved, relocate, {table})
    every = batch.index.attributes.get(table)
    if every is not None:
        stay = np.flatnonzero(new[every.rows["owner"]] >= 0)
        kept = every.rows[stay]
        kept["owner"] = new[kept["owner"]]
        result.index.attributes[table] = AttributeTable(relocate(kept), wire, every.keys)
    return result


_COUNT_OF: Final = {"events": "event_count", "links": "link_count", "exemplars": "exemplar_count", "quantiles": "quantile_count"}


def _made(batch: B, wire: bytes, rows: dict[str, Array], relocate: Callable[[Array], Array], without: set[str]) -> B:
    """A batch of new bytes; the attributes of the tables ``without`` are to be found anew."""
    made = batch.of(wire)
    made.index.rows.update((name, read_only(table)) for name, table in rows.items())
    for table, every in batch.index.attributes.items():
        if table not in without:
            made.index.attributes[table] = AttributeTable(relocate(every.rows), wire, every.keys)
    return made


def _with_inner_messages(batch: B, changes: dict[str, TableChange]) -> B:
    """The batch with an empty inner message where a change needs one that is not there."""
    patches = Patches(batch)
    for table, number in _INNER.items():
        if table not in changes:
            continue
        rows = batch.table(table).rows
        needed = np.zeros(len(rows), np.bool_)
        for by_field in changes[table].fields.values():
            if by_field.known.inner:
                needed |= by_field.winner >= 0
        if table != "spans":
            for by_key in changes[table].keys.values():
                needed |= by_key.winner >= 0
            needed &= rows["inner_start"] < 0
        elif needed.any():
            needed &= scan.find_field(batch.wire, rows["body"].copy(), rows["end"].copy(), number)[0] < 0
        if needed.any():
            at = rows["body"][needed]
            patches.around(table, needed)
            patches.put(
                at,
                at,
                _tag(number, _LENGTH_DELIMITED) + b"\0",
                np.zeros(len(at), np.int64),
                np.full(len(at), 2),
                _inner_note(table, needed),
            )
    if not patches.count:
        return batch
    return _made(batch, *patches.apply(), set())


def _inner_note(table: str, needed: Array) -> Note | None:
    def note(placed: Array, rows: dict[str, Array]) -> None:
        rows[table]["inner_start"][needed] = placed
        rows[table]["inner_body"][needed] = rows[table]["inner_end"][needed] = placed + 2

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
    starts, ends = scan.find_field(patches.batch.wire, *own, _STATUS)
    contents = bodies(patches.batch.wire, starts, ends)
    patches.frame(starts[touched], contents[touched], ends[touched])
    return {False: own, True: (contents, ends)}


def _put_field(patches: Patches, table: str, change: FieldChange, holder_bodies: Array, holder_ends: Array) -> None:
    wire, form, columns = patches.batch.wire, change.known.form, change.known.columns
    for index, column in enumerate(change.columns):
        for number, mask in _numbers(patches.batch, table, change.known, change.winner == index):
            rows = np.flatnonzero(mask)
            starts, ends = scan.find_field(wire, holder_bodies[rows], holder_ends[rows], number)
            found = starts >= 0
            starts, ends = np.where(found, starts, holder_bodies[rows]), np.where(found, ends, holder_bodies[rows])
            if isinstance(column, StringColumn | AttributeColumn):
                payload, sources, lengths, contents = _delimited(column, rows, number)
                note = (
                    _text_note(table, columns, rows, lengths, contents)
                    if isinstance(column, StringColumn)
                    else _body_note(table, rows, lengths, column.rows[rows])
                )
                patches.put(starts, ends, payload, sources, lengths, note)
                patches.around(table, mask)
                continue
            values = column[rows]
            unset = (values == 0).all(axis=1) if form == "trace_id" else values == 0
            patches.cut(starts[unset & found], ends[unset & found])
            payload, sources, lengths = _number(form, number, values[~unset])
            patches.put(starts[~unset], ends[~unset], payload, sources, lengths, _number_note(table, columns, rows, values))
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
        values = column.distinct_bytes
        sizes = np.fromiter(map(len, values), np.int32, len(values))
        codes = column.codes[rows]
        offsets, lengths = (np.cumsum(sizes, dtype=np.int64) - sizes).astype(np.int32)[codes], sizes[codes]
        return *length_delimited(_tag(number, _LENGTH_DELIMITED), b"".join(values), offsets, lengths), lengths
    held = column.rows[rows]
    absent = held["any"] < 0  # a value without any field: an empty message
    offsets, lengths = np.where(absent, 0, held["any"]).astype(np.int32), np.where(absent, 0, held["any_len"]).astype(np.int32)
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
        [np.broadcast_to(np.frombuffer(tag, np.uint8), (len(values), len(tag))), content.reshape(len(values), -1)], axis=1
    )
    width = encoded.shape[1]
    return encoded.tobytes(), np.arange(len(values), dtype=np.int64) * width, np.full(len(values), width, np.int64)


def _text_note(table: str, columns: tuple[str, ...], rows: Array, lengths: Array, contents: Array) -> Note:
    def note(placed: Array, tables: dict[str, Array]) -> None:
        tables[table][columns[0]][rows] = placed + lengths - contents
        tables[table][columns[1]][rows] = contents

    return note


def _body_note(table: str, rows: Array, lengths: Array, held: Array) -> Note:
    def note(placed: Array, tables: dict[str, Array]) -> None:
        records = tables[table]
        size = np.where(held["any"] < 0, 0, held["any_len"])
        content = placed + lengths - size
        text = held["kind"] == KIND_STRING
        records["any"][rows], records["any_len"][rows], records["body_kind"][rows] = content, size, held["kind"]
        records["text"][rows] = np.where(text, content + held["value"] - held["any"], -1)
        records["text_len"][rows] = np.where(text, held["value_len"], 0)

    return note


def _number_note(table: str, columns: tuple[str, ...], rows: Array, values: Array) -> Note:
    def note(_placed: Array, tables: dict[str, Array]) -> None:
        for i, column in enumerate(columns):
            tables[table][column][rows] = values[:, i] if values.ndim > 1 else values

    return note


def _put_attributes(patches: Patches, table: str, change: TableChange) -> Array:
    """Put the changes of a table's attributes; returns how many each row then has."""
    batch = patches.batch
    rows, every = batch.table(table).rows, batch.attributes(table)
    owner_count, attributes = len(rows), every.rows
    tags = _attribute_tags(batch, table)
    touched = np.zeros(owner_count, np.bool_)
    gone = np.zeros(len(attributes), np.uint8)
    by_row = np.empty(0, np.int32) if change.row_winner is None else change.row_winner.copy()
    if change.row_winner is not None:
        gone[by_row == DELETED] = 1
    if change.row_winner is not None and has_duplicates(attributes, len(every.keys)):
        for code in np.unique(attributes["key_code"][by_row != UNTOUCHED]).tolist():
            last = find_key(attributes, code, owner_count)
            shown = np.append(by_row, np.int32(UNTOUCHED))[last] != UNTOUCHED
            mark_key(attributes, code, last, shown.view(np.uint8), gone)
    counts = rows["attribute_count"].copy()
    inserted = np.zeros(owner_count, np.int32)
    for key, by_key in change.keys.items():
        code = every.code_of(key)
        deleted = np.flatnonzero(by_key.winner == DELETED)
        if len(deleted):
            locate(attributes, counts, deleted, code, gone, True)
        for index, column in enumerate(by_key.columns):
            which = np.flatnonzero(by_key.winner == index)
            if not len(which):
                continue
            same, last = locate(attributes, counts, which, code, gone, False)
            there = same >= 0
            gone[same[there]] = 0
            if change.row_winner is not None:
                by_row[same[there]] = UNTOUCHED
            payload, sources, lengths = key_values(tags, key.encode("utf-8", "replace"), column.rows, column.source, which)
            held = gather(attributes, np.where(there, same, last))
            end = np.where(last >= 0, held["end"], _bodies(rows)[which])
            patches.put(np.where(there, held["start"], end), end, payload, sources, lengths)
            inserted[which[~there]] += 1
            touched[which] = True
    if change.row_winner is not None:
        by_row[gone != 0] = UNTOUCHED
        _put_replaced(patches, every, change, by_row, tags)
        touched[attributes["owner"][by_row >= 0]] = True
    cut = np.flatnonzero(gone)
    if len(cut):
        patches.cut(attributes["start"][cut], attributes["end"][cut])
        touched[attributes["owner"][cut]] = True
        inserted -= np.bincount(attributes["owner"][cut], minlength=owner_count).astype(np.int32)
    patches.around(table, touched)
    return counts + inserted


def _put_replaced(patches: Patches, every: AttributeTable, change: TableChange, by_row: Array, tags: Array) -> None:
    for index, column in enumerate(change.row_columns):
        mine = by_row == index
        for code in np.unique(every.rows["key_code"][mine]).tolist():
            which = np.flatnonzero(mine & (every.rows["key_code"] == code))
            payload, sources, lengths = key_values(tags[every.rows["owner"]], every.keys[code], column.rows, column.source, which)
            patches.put(every.rows["start"][which], every.rows["end"][which], payload, sources, lengths)


def _attribute_tags(batch: Batch, table: str) -> Array:
    """uint8[n]: the tag of each row's attributes."""
    rows = batch.table(table).rows
    if table != "points":
        return np.full(len(rows), ATTRIBUTE_NUMBER[table] << 3 | _LENGTH_DELIMITED, np.uint8)
    tags: Array = POINT_ATTRIBUTE_NUMBER[batch.table("metrics").rows["type"][rows["parent"]]] << 3 | _LENGTH_DELIMITED
    return tags


def _bodies(rows: Array) -> Array:
    found: Array = rows["inner_body" if "inner_body" in (rows.dtype.names or ()) else "body"]
    return found
