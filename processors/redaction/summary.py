"""Writes what was redacted into attributes of the rows themselves: the keys, and how many they are.

Source: opentelemetry-collector-contrib processor/redactionprocessor (names, what is added to what an earlier processor
wrote).
"""

from typing import Any, Final

import numpy as np

from collector.model import Batch, Edit, StringColumn
from collector.model.arrays import I64, Array, Mask
from processors.redaction.attributes import AttributeChanges
from processors.redaction.bodies import BodyChanges

__all__ = ["Summary"]

_NAMES: Final = ("redacted", "masked", "allowed", "ignored")
_COUNTED_ONLY: Final = "ignored"


class Summary:
    """Adds summaries to an edit."""

    def __init__(self, level: str) -> None:
        """``level``: debug or info; anything else means that nothing is written."""
        self.is_written = level in {"debug", "info"}
        """Whether anything is written."""
        self._names_keys = level == "debug"

    def add_attributes(self, edit: Edit[Any], batch: Batch, table: str, changes: AttributeChanges) -> None:
        """Describe what became of the attributes of a table."""
        if not self.is_written:
            return
        row_count = batch.table(table).row_count
        owner, keys = changes.attributes.owner, changes.attributes.key
        for name, rows in zip(_NAMES, (changes.deleted, changes.masked, changes.allowed, changes.ignored), strict=True):
            if not rows.any():
                continue
            counts = np.bincount(owner[rows], minlength=row_count)
            texts = None
            if self._names_keys and name != _COUNTED_ONLY:
                texts = _joined_keys(keys, owner, rows, counts)
            self._add(edit, batch, table, f"redaction.{name}", texts, counts)

    def add_bodies(self, edit: Edit[Any], batch: Batch, table: str, changes: BodyChanges) -> None:
        """Describe what became of log bodies."""
        if not self.is_written:
            return
        for name, (texts, counts) in zip(_NAMES, changes.summary, strict=True):
            if counts.any():
                wanted = texts if self._names_keys and name != _COUNTED_ONLY else None
                self._add(edit, batch, table, f"redaction.body.{name}", wanted, counts)

    def _add(
        self, edit: Edit[Any], batch: Batch, table: str, prefix: str, texts: StringColumn | None, counts: I64
    ) -> None:
        """Set the keys and the counts on the rows that have any, together with what is already there."""
        known = frozenset(batch.attributes(table).key.distinct)
        where = counts > 0
        if texts is not None:
            name = f"{prefix}.keys"
            if name in known:
                texts = _merged(texts, batch.attribute(name, table).text, where)
            edit.set(name, texts, where, table=table)
        name = f"{prefix}.count"
        if name in known:
            counts = counts + batch.attribute(name, table).int
        edit.set(name, counts, where, table=table)


def _joined_keys(keys: StringColumn, owner: Array, rows: Mask, counts: I64) -> StringColumn:
    """Of each row of the table the sorted keys of its attributes in ``rows``; put together once per distinct set."""
    names = keys.distinct
    order = sorted(range(len(names)), key=names.__getitem__)
    rank = np.empty(len(names), np.int32)
    rank[order] = np.arange(len(names), dtype=np.int32)
    ranks = rank[keys.codes[rows]]
    in_order = np.lexsort((ranks, owner[rows]))
    source = ranks[in_order].tobytes()
    sizes = counts * ranks.itemsize
    starts = np.where(counts > 0, np.cumsum(sizes) - sizes, -1)
    sets = StringColumn.from_slices(source, starts.astype(np.int32), sizes.astype(np.int32))
    texts = [
        ",".join([names[order[place]] for place in np.frombuffer(one, np.int32).tolist()])
        for one in sets.distinct_bytes
    ]
    return StringColumn.from_codes(sets.codes, texts)


def _merged(texts: StringColumn, existing: StringColumn, where: Mask) -> StringColumn:
    """The keys together with those that are already there."""
    both = where & existing.present
    if not both.any():
        return texts
    pairs = texts.codes.astype(np.int64) * existing.distinct_count + existing.codes
    distinct, places = np.unique(pairs[both], return_inverse=True)
    new, old = texts.distinct, existing.distinct
    merged = [
        ",".join(sorted([*new[number].split(","), *filter(None, old[earlier].split(","))]))
        for number, earlier in (divmod(pair, existing.distinct_count) for pair in distinct.tolist())
    ]
    codes = texts.codes.copy()
    codes[both] = places + texts.distinct_count
    return StringColumn.from_codes(codes, [*new, *merged])
