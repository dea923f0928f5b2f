"""The attributes of a table as targets: one of them, or all.

What editors of maps do to all attributes of a table is done here per key, not per row: the keys of a table are few.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import numpy as np

from collector.model import StringColumn
from collector.model.arrays import every, some, starts_of
from collector.ottl.map_edits import limited, merged, with_changed_texts, with_renamed_keys
from collector.ottl.paths import attribute_maps
from collector.ottl.stored import STORED, encoded, is_storable, storable
from collector.ottl.targets import Target, columns_of_maps, key_count
from collector.ottl.values import EvaluationError, Kind, Values
from collector.ottl.view import spread
from collector.wire.splice.values import find_texts

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from collector.model import AttributeTable
    from collector.model.arrays import Mask
    from collector.ottl.values import Scalar
    from collector.ottl.view import View

__all__ = ["AttributeTarget", "AttributesTarget"]


class AttributeTarget(Target):
    """One attribute: ``attributes["k"]``."""

    def __init__(self, table: str, key: str) -> None:
        self.table, self._key = table, key
        self.location = ("attributes", key)

    def read(self, view: View) -> Values:
        """The value, nil if it is absent or empty."""
        key, table = self._key, self.table
        return view.column(
            (table, "attributes", repr(key)), table, lambda batch: Values.of_attributes(batch.attribute(key, table))
        )

    def write(self, view: View, values: Values, rows: Mask) -> Mask:
        """Set the attribute."""
        kinds = values.kinds
        if len(kinds) == 1 and kinds <= STORED:
            if Kind.NIL in kinds:
                return view.nothing()
            failed = view.nothing()
        else:
            rows = rows & (values.kind != Kind.NIL)
            failed = rows & ~is_storable(values)
            rows = rows & ~failed
        table_values, table_rows = view.lowered(self.table, values, rows)
        unwritten = _unwritten(view, self.table, self._key, table_values, table_rows)
        if unwritten is not None:
            failed |= rows & (
                unwritten if self.table == view.table else unwritten[view.batch.ancestor(self.table, view.table)]
            )
        return failed


def _put(view: View, table: str, key: str, values: Values, rows: Mask) -> bool:
    """Set an attribute on rows of its table, nil as an empty value; False if a value could not be written."""
    return _unwritten(view, table, key, values, rows) is None


def _unwritten(view: View, table: str, key: str, values: Values, rows: Mask) -> Mask | None:
    """Set an attribute on rows of its table.

    Returns those whose value could not be written, bool[n]; None if there are none.
    """
    stored, stored_rows = storable(values, rows)
    if some(stored_rows):
        try:
            view.draft.set(key, stored, stored_rows, table)
        except EvaluationError:
            return rows
        view.forget(table, key)
    if stored_rows is rows:
        return None
    unwritten: Mask = rows & ~stored_rows
    return unwritten if some(unwritten) else None


_MAX_BYTES: Final = 2**31 - 1
_NOTHING: Final = Values.constant(None)
_COLUMNS_MAX_CELLS: Final = 4_000_000
"""Above so many rows times keys, attributes are changed row by row: a column for each of many keys would be larger than
the attributes themselves. Senders decide how many keys there are.
"""


class AttributesTarget(Target):
    """All attributes of each row of a table."""

    location = ("attributes",)

    def __init__(self, table: str) -> None:
        self.table = table

    def read(self, view: View) -> Values:
        """The attributes of each row as a map."""
        return view.column((self.table, "attributes"), self.table, lambda batch: attribute_maps(batch, self.table))

    def write(self, view: View, values: Values, rows: Mask) -> Mask:
        """Replace all attributes of a row by a map. What stays the same object is not written."""
        failed: Mask = rows & (values.kind != Kind.MAP) & (values.kind != Kind.NIL)
        rows = rows & (values.kind == Kind.MAP)
        old = self.read(view)
        values, rows_below = view.lowered(self.table, values, rows)
        if self.table != view.table:
            old = attribute_maps(view.draft, self.table)
        if not some(rows_below):
            return failed
        new_codes, new_maps = spread(values, len(rows_below)).objects
        old_codes, old_maps = old.objects
        removed: dict[str, list[int]] = {}
        written: dict[str, tuple[list[int], list[Any]]] = {}
        is_reordered = False
        for row in np.flatnonzero(rows_below).tolist():
            new, before = new_maps[new_codes[row]], old_maps[old_codes[row]]
            is_reordered |= view.keeps_order and list(new) != list(before)
            for key in before:
                if key not in new:
                    removed.setdefault(key, []).append(row)
            for key, value in new.items():
                if key not in before or before[key] is not value:
                    places, scalars = written.setdefault(key, ([], []))
                    places.append(row)
                    scalars.append(value)
        draft, count = view.draft, len(rows_below)
        if is_reordered or (len(removed) + len(written)) * count > _COLUMNS_MAX_CELLS:
            chosen = {row: new_maps[new_codes[row]] for row in np.flatnonzero(rows_below).tolist()}
            return failed if self._edit_messages(view, chosen) else failed | rows
        for key, places in removed.items():
            draft.delete([key], _mask(places, count), self.table)
        is_written = True
        for key, (places, scalars) in written.items():
            is_written &= _put(view, self.table, key, _scattered(scalars, places, count), _mask(places, count))
        view.forget(self.table)
        return failed if is_written else failed | rows

    def delete(self, view: View, keys: Iterable[str], rows: Mask) -> None:
        """Delete these attributes."""
        keys = list(keys)
        if len(keys) * len(rows) > _COLUMNS_MAX_CELLS:
            unwanted = set(keys)
            self.edit_map(view, rows, lambda entries: {k: v for k, v in entries.items() if k not in unwanted})
            return
        rows = view.lowered(self.table, _NOTHING, rows)[1]
        if keys and some(rows):
            view.draft.delete(keys, rows, self.table)
            view.forget(self.table)

    def keys(self, view: View) -> list[str]:
        """The keys that any row has; some may be unused."""
        draft = view.draft
        keys = [key.decode("utf-8", "replace") for key in draft.attributes_before(self.table).keys]
        return list(dict.fromkeys([*keys, *draft.unwritten_keys(self.table)]))

    def change_texts(
        self, view: View, rows: Mask, function: Callable[[str], str | None], *, min_bytes: int = 0
    ) -> bool:
        """Replace each text by ``function(text)``; None leaves it. False if the batch would grow too much.

        Texts of fewer than ``min_bytes`` bytes stay as they are.
        """
        rows = view.lowered(self.table, _NOTHING, rows)[1]
        draft = view.draft
        unwritten = draft.unwritten_keys(self.table)
        attributes = draft.attributes_before(self.table)
        records = attributes.rows
        places = find_texts(records, min(min_bytes, _MAX_BYTES))
        is_written = True
        changed_keys = []
        for key, longest in unwritten.items():
            of_key = records["key_code"][places] == attributes.code_of(key) if len(places) else places
            if longest >= min_bytes or some(of_key):
                changed_keys.append(key)
            if len(places):
                places = places[~of_key]
        for key in changed_keys:
            column = draft.attribute(key, self.table).text
            changed = column.map(function)
            is_written &= _put(view, self.table, key, Values.of_text(changed), rows & changed.present)
        if len(places) and not every(rows):
            places = places[rows[records["owner"][places]]]
        if len(places):
            if len(np.unique(records["key_code"][places])) * len(rows) > _COLUMNS_MAX_CELLS:
                maps = self.read(view) if self.table == view.table else attribute_maps(draft, self.table)
                codes, entries = maps.objects
                chosen_rows = np.unique(records["owner"][places]).tolist()
                changed_maps = {row: with_changed_texts(entries[codes[row]], function) for row in chosen_rows}
                return self._edit_messages(view, changed_maps) and is_written
            is_written &= self._change_records(view, attributes, places, function)
        return is_written

    def _edit_messages(self, view: View, maps: Mapping[int, dict[str, Scalar]]) -> bool:
        """Replace the attributes of these rows of the table in protobuf messages; False if the batch grew too much."""
        draft = view.draft
        inner = {"resources": "resource", "scopes": "scope"}.get(self.table)
        messages = draft.messages(self.table)
        growth = 0
        for row, entries in maps.items():
            attributes = (getattr(messages[row], inner) if inner else messages[row]).attributes
            old = {entry.key: entry.value.SerializeToString() for entry in attributes}
            new = {key: encoded(value) for key, value in entries.items()}
            growth += sum(len(key) + len(content or b"") for key, content in new.items())
            growth -= sum(len(key) + len(content) for key, content in old.items())
            del attributes[:]
            for key, content in new.items():
                attributes.add(key=key).value.ParseFromString(old.get(key, b"") if content is None else content)
        view.forget(self.table)
        try:
            draft.changed(max(growth, 0))
        except EvaluationError:
            return False
        return True

    def _change_records(
        self, view: View, attributes: AttributeTable, places: Any, function: Callable[[str], str | None]
    ) -> bool:
        """Replace the texts of these attributes."""
        records = attributes.rows[places]
        texts = StringColumn.from_slices(attributes.source, records["value"], records["value_len"])
        changed = {code: new for code, text in enumerate(texts.distinct) if (new := function(text)) is not None}
        if not changed:
            return True
        lookup = np.full(texts.distinct_count, -1, np.int32)
        lookup[list(changed)] = np.arange(len(changed), dtype=np.int32)
        new_codes = lookup[texts.codes]
        is_changed = new_codes >= 0
        owner, key_code, new_codes = (
            records["owner"][is_changed],
            records["key_code"][is_changed],
            new_codes[is_changed],
        )
        row_count = view.draft.table(self.table).row_count
        is_written = True
        for key in np.unique(key_code).tolist():
            of_key = key_code == key
            codes = np.full(row_count, -1, np.int32)
            codes[owner[of_key]] = new_codes[of_key]
            column = StringColumn.from_codes(codes, list(changed.values()))
            is_written &= _put(view, self.table, attributes.key.distinct[key], Values.of_text(column), codes >= 0)
        return is_written

    def rename(self, view: View, rows: Mask, names: dict[str, str]) -> bool:
        """Rename attributes, in the order in which the rows have them; False if the batch would grow too much."""
        if view.keeps_order or len(names) * len(rows) > _COLUMNS_MAX_CELLS:
            return not some(self.edit_map(view, rows, lambda entries: with_renamed_keys(entries, names.get)))
        rows = view.lowered(self.table, _NOTHING, rows)[1]
        draft = view.draft
        columns = {key: draft.attribute(key, self.table) for key in names}
        self.delete_below(view, names, rows)
        is_written = True
        for key, name in names.items():
            column = columns[key]
            has = rows & column.present
            is_written &= _put(view, self.table, name, Values.of_attributes(column), has)
        return is_written

    def delete_below(self, view: View, keys: Iterable[str], rows: Mask) -> None:
        """Delete attributes of rows of the table itself."""
        view.draft.delete(list(keys), rows, self.table)
        view.forget(self.table)

    def merge(self, view: View, maps: Values, rows: Mask, strategy: str) -> Mask:
        """Put the entries of maps into the attributes: all, only new ones (insert), or only existing ones (update)."""
        failed: Mask = rows & (maps.kind != Kind.MAP)
        if view.keeps_order or key_count(maps) * len(rows) > _COLUMNS_MAX_CELLS:
            known = maps.with_failures(maps.kind != Kind.MAP)
            return self.edit_map(view, rows, lambda entries, more: merged(entries, more, strategy), [known])
        maps, rows_below = view.lowered(self.table, maps, rows & ~failed)
        draft = view.draft
        is_written = True
        for key, (values, has) in columns_of_maps(maps, rows_below).items() if some(rows_below) else ():
            if strategy != "upsert":
                present = draft.attribute(key, self.table).present
                chosen = has & (present if strategy == "update" else ~present)
            else:
                chosen = has
            is_written &= _put(view, self.table, key, values, chosen)
        return failed if is_written else failed | rows

    def limit(self, view: View, rows: Mask, limit: int, priority: list[str]) -> None:
        """Keep the attributes with these keys and as many of the others, in order, as the limit leaves."""
        if len(self.keys(view)) * len(rows) > _COLUMNS_MAX_CELLS:
            self.edit_map(view, rows, lambda entries: limited(entries, limit, priority))
            return
        rows = view.lowered(self.table, _NOTHING, rows)[1]
        attributes = view.draft.attributes(self.table)
        if not attributes.row_count:
            return
        owner, key = attributes.owner, attributes.key
        counts = np.bincount(owner, minlength=len(rows))
        is_kept = key.isin(priority)
        kept_counts = np.bincount(owner[is_kept], minlength=len(rows))
        order = np.argsort(owner, kind="stable")
        others = np.cumsum(~is_kept[order])
        before = np.concatenate([[0], others])[starts_of(counts)][owner[order]]
        rank = np.empty(len(owner), np.int64)
        rank[order] = others - before
        is_removed = ~is_kept & (rank > limit - kept_counts[owner]) & (counts[owner] > limit) & rows[owner]
        for code in np.unique(key.codes[is_removed]).tolist():
            places = np.zeros(len(rows), np.bool_)
            places[owner[is_removed & (key.codes == code)]] = True
            view.draft.delete([key.distinct[code]], places, self.table)
        view.forget(self.table)


def _mask(places: list[int], count: int) -> Mask:
    mask = np.zeros(count, np.bool_)
    mask[places] = True
    return mask


def _scattered(scalars: list[Scalar], places: list[int], count: int) -> Values:
    """A column of ``count`` rows with these scalars at these places."""
    rows = np.zeros(count, np.int64)
    rows[places] = np.arange(len(places))
    return Values.of(scalars).take(rows)
