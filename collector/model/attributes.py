"""Attributes as columns: one key over one table (``AttributeColumn``), or all attributes of one (``AttributeTable``).

Ints, doubles, bools and text have columns of their own; arrays, maps and bytes stay encoded. Of a key that is repeated
on a row the last occurrence counts. Rows are ``layout.ATTRIBUTE`` records whose slices point into a *source*: the
request's bytes, or bytes made here.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Self

import numpy as np

from collector.model.arrays import F64, I32, I64, U8, Array, Mask, starts_of
from collector.model.cached import cached
from collector.model.columns import StringColumn, read_only
from collector.model.values import AttributeValue, any_value_text, double_text
from collector.wire.encode import encode_value
from collector.wire.layout import (
    ATTRIBUTE,
    KIND_ABSENT,
    KIND_ARRAY,
    KIND_BOOL,
    KIND_BYTES,
    KIND_DOUBLE,
    KIND_EMPTY,
    KIND_INT,
    KIND_MAP,
    KIND_STRING,
)
from collector.wire.splice.values import (
    compact_values,
    decimal_texts,
    encode_length_delimited,
    encode_varints,
    gather_rows,
    overlay_rows,
    read_values,
)

if TYPE_CHECKING:
    import builtins
    from collections.abc import Sequence

__all__ = ["AttributeColumn", "AttributeTable", "as_column", "merge_columns"]

_STRING_TAG = b"\x0a"  # AnyValue.string_value
_FIXED_TEXT = ("", "false", "true")
_ENCODED_KINDS = (KIND_ARRAY, KIND_MAP, KIND_BYTES)


class _AttributeRows:
    """Attribute rows over a source, by kind: what a column and a table of attributes have in common."""

    def __init__(self, rows: Array, source: bytes) -> None:
        self.rows = read_only(rows)
        """The record array (``layout.ATTRIBUTE``), for the kernels."""
        self.source = source
        """The bytes that the rows' slices point into."""

    def __len__(self) -> builtins.int:
        return len(self.rows)

    @cached
    def kind(self) -> U8:
        """U8[n]: KIND_*; KIND_ABSENT where there is no value."""
        return read_only(self.rows["kind"].astype(np.uint8))

    @cached
    def text(self) -> StringColumn:
        """The text values; absent on all other rows."""
        starts = np.where(self.rows["kind"] == KIND_STRING, self.rows["value"], np.int32(-1))
        return StringColumn.from_slices(self.source, starts, self.rows["value_len"])

    @cached
    def int(self) -> I64:
        """I64[n]: the integer values, 0 elsewhere."""
        return read_only(np.where(self.kind == KIND_INT, self.rows["int_value"], 0))

    @cached
    def double(self) -> F64:
        """F64[n]: the double values, 0 elsewhere."""
        return read_only(np.where(self.kind == KIND_DOUBLE, self.rows["double_value"], 0.0))

    @cached
    def bool(self) -> Mask:
        """bool[n]: the bool values, False elsewhere."""
        return read_only((self.kind == KIND_BOOL) & (self.rows["int_value"] != 0))

    def as_text(self) -> StringColumn:
        """Values of every kind as text.

        Bools are ``true`` or ``false``, the double 1.0 is ``1``, arrays and maps are JSON, bytes are base64, and an
        empty value is ``""``.

        >>> traces.attribute("http.status").as_text().to_list()
        ['200', None, '503']

        Source: OpenTelemetry specification, common/README "AttributeValue to string".
        """
        return self._as_text

    @cached
    def _as_text(self) -> StringColumn:
        kind = self.kind
        used = set(np.flatnonzero(np.bincount(kind, minlength=256)).tolist()) - {KIND_ABSENT}
        if used <= {KIND_STRING}:
            return self.text
        parts: list[tuple[Mask, StringColumn]] = []
        if KIND_STRING in used:
            parts.append((kind == KIND_STRING, self.text))
        if used & {KIND_BOOL, KIND_EMPTY}:
            codes = np.where(kind == KIND_BOOL, self.bool.astype(np.int32) + 1, np.int32(0))
            parts.append(((kind == KIND_BOOL) | (kind == KIND_EMPTY), StringColumn.from_codes(codes, _FIXED_TEXT)))
        if KIND_INT in used:
            parts.append((kind == KIND_INT, StringColumn.from_slices(*decimal_texts(np.ascontiguousarray(self.int)))))
        if KIND_DOUBLE in used:
            distinct, codes = np.unique(self.double.view(np.int64), return_inverse=True)
            parts.append(
                (
                    kind == KIND_DOUBLE,
                    StringColumn.from_codes(
                        codes, [double_text(value) for value in distinct.view(np.float64).tolist()]
                    ),
                )
            )
        if used & set(_ENCODED_KINDS):
            encoded = np.isin(kind, _ENCODED_KINDS)
            values = StringColumn.from_slices(
                self.source, np.where(encoded, self.rows["any"], np.int32(-1)), self.rows["any_len"]
            )
            parts.append(
                (
                    encoded,
                    StringColumn.from_codes(values.codes, [any_value_text(value) for value in values.distinct_bytes]),
                )
            )
        return _merge_texts(len(kind), parts)

    @property
    def memory_bytes(self) -> builtins.int:
        """The approximate size of the columns made so far, without the source."""
        made = (value for name, value in vars(self).items() if name not in {"rows", "source"})
        return self.rows.nbytes + sum(
            value.nbytes if isinstance(value, np.ndarray) else value.memory_bytes
            for value in made
            if isinstance(value, np.ndarray | StringColumn)
        )


class AttributeColumn(_AttributeRows):
    """One attribute key over one table, with one row per row of the table.

    >>> status = traces.attribute("http.status")
    >>> status.present.tolist(), status.int.tolist()
    ([True, False, True], [200, 0, 503])
    >>> AttributeColumn.of(["a", 1, None]).as_text().to_list()
    ['a', '1', None]
    """

    @cached
    def present(self) -> Mask:
        """bool[n]: the row has the attribute."""
        return read_only(self.rows["kind"] != KIND_ABSENT)

    def numeric(self) -> F64:
        """F64[n]: integer and double values, NaN elsewhere. Text is not parsed."""
        return np.where(
            self.kind == KIND_INT, self.int.astype(np.float64), np.where(self.kind == KIND_DOUBLE, self.double, np.nan)
        )

    def take(self, rows: Array) -> AttributeColumn:
        """The rows selected by a mask or by indices."""
        return AttributeColumn(self.rows[rows], self.source)

    def fill(self, other: AttributeColumn) -> AttributeColumn:
        """The column with the values of ``other`` on the rows without a value."""
        if not other.present.any() or self.present.all():
            return self
        if other.source is not self.source:
            return merge_columns(len(self), [(self.present, self), (~self.present & other.present, other)])
        return AttributeColumn(overlay_rows(self.rows, other.rows, np.arange(len(self), dtype=np.int32)), self.source)

    @classmethod
    def of(cls, values: Sequence[AttributeValue | None]) -> Self:
        """A column of these values; None = absent."""
        return cls.of_encodings([None if value is None else encode_value(value) for value in values])

    @classmethod
    def of_encodings(cls, contents: Sequence[bytes | None]) -> Self:
        """A column of values given as the contents of AnyValues; ``b""`` is an empty value, None = absent."""
        lengths = np.fromiter((len(content or b"") for content in contents), np.int32, len(contents))
        starts = starts_of(lengths).astype(np.int32)
        starts[np.fromiter((content is None for content in contents), np.bool_, len(contents))] = -1
        source = b"".join([content or b"" for content in contents])
        return cls(read_values(source, starts, lengths), source)

    @classmethod
    def constant(cls, value: AttributeValue, row_count: builtins.int) -> Self:
        """The same value on every row."""
        return cls.of_encoded(encode_value(value), row_count)

    @classmethod
    def of_encoded(cls, source: bytes, row_count: builtins.int) -> Self:
        """The same value, given as the content of an AnyValue, on every row."""
        row = read_values(source, np.zeros(1, np.int32), np.array([len(source)], np.int32))
        return cls(gather_rows(row, np.zeros(row_count, np.int32)), source)

    @classmethod
    def of_text(cls, column: StringColumn) -> Self:
        """The texts of a column as attribute values."""
        texts = column.distinct_bytes
        joined = b"".join(texts)
        try:
            joined.decode()
        except UnicodeDecodeError:
            texts = [value.decode("utf-8", "replace").encode() for value in texts]
            joined = b"".join(texts)
        sizes = np.fromiter(map(len, texts), np.int32, len(texts))
        source, places, widths = encode_length_delimited(_STRING_TAG, joined, starts_of(sizes).astype(np.int32), sizes)
        starts, lengths = places.astype(np.int32), widths.astype(np.int32)
        codes = column.codes
        return cls(
            read_values(source, np.append(starts, np.int32(-1))[codes], np.append(lengths, np.int32(0))[codes]), source
        )

    @classmethod
    def of_numbers(cls, values: Array) -> Self:
        """A column of ints, doubles or bools.

        Raises:
            TypeError: The array has another dtype.
            ValueError: An integer does not fit into 64 bits with a sign.
        """
        if values.dtype.kind not in "biuf":
            raise TypeError(f"expected an array of integers, floats or bools, got dtype {values.dtype}")
        values = np.ascontiguousarray(values)
        if values.dtype.kind == "f":
            table = np.empty(len(values), np.dtype([("tag", "u1"), ("value", "<f8")]))
            table["tag"], table["value"] = 0x21, values
            return cls._fixed(table.tobytes(), len(values), 9)
        if values.dtype.kind == "b":
            table = np.empty(len(values), np.dtype([("tag", "u1"), ("value", "u1")]))
            table["tag"], table["value"] = 0x10, values
            return cls._fixed(table.tobytes(), len(values), 2)
        if values.dtype == np.uint64 and len(values) and values.max() > np.iinfo(np.int64).max:
            raise ValueError(f"integer attributes are signed 64-bit: {values.max()} is out of range")
        source, starts, lengths = encode_varints(b"\x18", values.astype(np.int64).view(np.uint64))
        return cls(read_values(source, starts.astype(np.int32), lengths.astype(np.int32)), source)

    @classmethod
    def _fixed(cls, source: bytes, count: builtins.int, width: builtins.int) -> Self:
        starts = np.arange(0, count * width, width, dtype=np.int32)
        return cls(read_values(source, starts, np.full(count, width, np.int32)), source)

    def __repr__(self) -> str:
        return f"AttributeColumn({len(self)} rows, {np.count_nonzero(self.present)} present)"


class AttributeTable(_AttributeRows):
    """All m attributes of one table, in document order.

    >>> attributes = traces.attributes()
    >>> attributes.owner.tolist(), attributes.key.to_list()
    ([0, 1, 2], ['http.status', 'db.system', 'http.status'])
    """

    def __init__(self, rows: Array, source: bytes, keys: list[bytes]) -> None:
        """``keys``: the keys that the rows' key codes stand for."""
        super().__init__(rows, source)
        self.keys = keys
        """The keys as UTF-8, by code; some may be unused."""

    @property
    def row_count(self) -> builtins.int:
        """How many attributes there are."""
        return len(self.rows)

    @cached
    def owner(self) -> I32:
        """I32[m]: the row of the table that has the attribute."""
        return read_only(np.ascontiguousarray(self.rows["owner"]))

    @cached
    def key(self) -> StringColumn:
        """The key of each attribute; ``distinct`` has the keys in the order of their codes."""
        return StringColumn.from_codes(self.rows["key_code"], self.keys)

    def take(self, which: I32) -> AttributeTable:
        """The attributes at these places.

        >>> traces.attributes().take(np.array([1], np.int32)).key.to_list()
        ['db.system']
        """
        # Many times as fast as an index for records of this size.
        return AttributeTable(self.rows.take(which), self.source, self.keys)

    def code_of(self, key: str) -> builtins.int:
        """The code of a key; -1 if no row has it."""
        try:
            return self.keys.index(key.encode("utf-8", "replace"))
        except ValueError:
            return -1


def as_column(values: AttributeColumn | StringColumn | Array | AttributeValue, row_count: int) -> AttributeColumn:
    """Anything that attributes can be set to, as a column of ``row_count`` rows.

    Raises:
        TypeError: The values cannot be attribute values.
        ValueError: The column has another length.
    """
    if isinstance(values, AttributeColumn):
        column = values
    elif isinstance(values, StringColumn):
        column = AttributeColumn.of_text(values)
    elif isinstance(values, np.ndarray):
        column = AttributeColumn.of_numbers(values)
    elif isinstance(values, np.generic):
        return AttributeColumn.constant(values.item(), row_count)
    else:
        return AttributeColumn.constant(values, row_count)
    if len(column) != row_count:
        raise ValueError(f"expected a column of {row_count} values, got {len(column)}")
    return column


def merge_columns(row_count: int, parts: Sequence[tuple[Mask, AttributeColumn]]) -> AttributeColumn:
    """Merges columns: each part's rows (bool[n], disjoint) are taken from its column; other rows are absent."""
    rows = gather_rows(np.empty(0, ATTRIBUTE), np.full(row_count, -1, np.int32))
    sources: list[bytes] = []
    size = 0
    for mask, column in parts:
        source, moved = compact_values(column.rows[mask], column.source, size)
        rows[mask] = moved
        sources.append(source)
        size += len(source)
    return AttributeColumn(rows, b"".join(sources))


def _merge_texts(row_count: int, parts: Sequence[tuple[Mask, StringColumn]]) -> StringColumn:
    """Merges text columns, each of which has its own rows; equal texts get the same code."""
    if len(parts) == 1:
        ((rows, only),) = parts
        return only.only(rows)
    index: dict[bytes, int] = {}
    codes = np.full(row_count, -1, np.int32)
    for mask, column in parts:
        lookup = np.fromiter(
            (index.setdefault(value, len(index)) for value in column.distinct_bytes), np.int32, column.distinct_count
        )
        codes[mask] = lookup[column.codes[mask]]
    return StringColumn.from_codes(codes, list(index))
