"""The arguments that have a value per row, as fields of the message that is written for each row."""

from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import ArrayLike

from collector.model.arrays import I32, U64, Array, Mask, offsets_of
from collector.model.builders.attributes import AttributeRows, Attributes, attribute_set
from collector.model.columns import StringColumn
from collector.wire import encode
from collector.wire.encode import MessageField, Pool

__all__ = [
    "TextRows",
    "attributes_field",
    "bodies_field",
    "double_field",
    "fixed64_field",
    "grouped_by_owner",
    "number_value_fields",
    "numbers_field",
    "packed_field",
    "raw_field",
    "texts_field",
    "trace_ids_field",
    "unsigned",
    "utf8",
]

TextRows: TypeAlias = str | Sequence[str | None] | StringColumn | None
"""The texts of rows, in the forms described in the package."""


def texts_field(number: int, texts: TextRows, count: int) -> MessageField | None:
    """Texts; empty ones are left out."""
    if texts is None:
        return None
    if isinstance(texts, str):
        return MessageField(encode.TEXT, number, _pool(np.zeros(count, np.int32), [utf8(texts)]))
    if isinstance(texts, StringColumn):
        return MessageField(encode.TEXT, number, _pool(texts.codes, texts.distinct_bytes))
    codes, distinct = _coded(texts)
    return MessageField(encode.TEXT, number, _pool(codes, [utf8(text) for text in distinct]))


def bodies_field(number: int, bodies: StringColumn | str | Sequence[Any] | None, count: int) -> MessageField | None:
    """The bodies of log records as AnyValue messages."""
    if bodies is None:
        return None
    if isinstance(bodies, str):
        return MessageField(encode.TEXT, number, _pool(np.zeros(count, np.int32), [encode.encode_value(bodies)]))
    if isinstance(bodies, StringColumn):
        return MessageField(
            encode.TEXT, number, _pool(bodies.codes, [encode.encode_value(text) for text in bodies.distinct])
        )
    encoded = [None if body is None else encode.encode_value(body) for body in bodies]
    codes, distinct = _coded(encoded)
    return MessageField(encode.TEXT, number, _pool(codes, distinct))


def attributes_field(number: int, attributes: AttributeRows, count: int) -> MessageField | None:
    """Attribute sets as the repeated field ``number``."""
    if attributes is None:
        return None
    if isinstance(attributes, (Attributes, Mapping)):
        return MessageField(encode.RAW, 1, _pool(np.zeros(count, np.int32), [attribute_set(attributes).tagged(number)]))
    if isinstance(attributes, tuple) and len(attributes) == 2 and isinstance(attributes[0], np.ndarray):
        codes, sets = attributes
        return MessageField(encode.RAW, 1, _pool(codes, [attribute_set(values).tagged(number) for values in sets]))
    encoded = [None if values is None else attribute_set(values).tagged(number) for values in attributes]
    codes, distinct = _coded(encoded)
    return MessageField(encode.RAW, 1, _pool(codes, distinct))


def fixed64_field(number: int, values: ArrayLike | None, count: int, name: str) -> MessageField | None:
    """Non-negative integers as fixed64; zeros are left out. ``name`` is for errors."""
    return (
        None
        if values is None
        else MessageField(encode.FIXED64, number, _rows(unsigned(values, name), count, np.uint64))
    )


def numbers_field(kind: int, number: int, values: ArrayLike | None, count: int, dtype: Any) -> MessageField | None:
    """Numbers of a kind of ``wire.encode``; zeros are left out."""
    return None if values is None else MessageField(kind, number, _rows(values, count, dtype))


def number_value_fields(values: ArrayLike, count: int, *, double_number: int) -> list[MessageField]:
    """``as_int`` (field 6 in points and exemplars) or ``as_double``; masked rows have neither."""
    array = values if isinstance(values, np.ndarray) else np.asarray(values)
    if array.dtype.kind in "iu":
        if array.dtype == np.uint64 and array.size and array.max() > np.iinfo(np.int64).max:
            raise ValueError(f"integer values are signed 64-bit: {array.max()} is out of range")
        return [MessageField(encode.VALUE64, 6, _rows(array, count, np.int64), _presence(array, count))]
    if array.dtype.kind != "f":
        raise ValueError(f"expected integer or float values, got dtype {array.dtype}")
    return [MessageField(encode.VALUE64, double_number, _rows(array, count, np.float64), _presence(array, count))]


def double_field(number: int, values: ArrayLike | None, count: int) -> MessageField | None:
    """A double that is written even if it is zero."""
    return (
        None
        if values is None
        else MessageField(encode.VALUE64, number, _rows(values, count, np.float64), _presence(values, count))
    )


def trace_ids_field(number: int, values: U64 | None) -> MessageField | None:
    """Trace ids; zeros are left out."""
    return None if values is None else MessageField(encode.ID16, number, values)


def raw_field(pool: Pool | None) -> MessageField | None:
    """Encoded fields, one value of the pool per row."""
    return None if pool is None else MessageField(encode.RAW, 1, pool)


def packed_field(kind: int, number: int, rows: U64) -> MessageField:
    """The values of each row as a packed field."""
    return MessageField(kind, number, rows.ravel(), np.arange(len(rows) + 1) * rows.shape[1])


def grouped_by_owner(items: Pool, owner: ArrayLike, row_count: int, name: str) -> Pool:
    """The items of a pool joined per owner row, in their order."""
    owners = np.asarray(owner, np.int64)
    if len(owners) and (owners.min() < 0 or owners.max() >= row_count):
        raise ValueError(f"the owners of {name} must be rows from 0 to {row_count - 1}")
    rows = np.arange(row_count, dtype=np.int32)
    order = np.argsort(owners, kind="stable")
    blob, offsets = items.blob, items.offsets
    if (order[1:] < order[:-1]).any():
        blob = b"".join([items.bytes_of(value) for value in order.tolist()])
        offsets = offsets_of(np.diff(items.offsets)[order])
    return Pool(rows, blob, offsets[np.searchsorted(owners[order], np.arange(row_count + 1))])


def unsigned(values: ArrayLike, name: str) -> U64:
    """Non-negative integers as U64.

    Raises:
        ValueError: A value is negative or not an integer.
    """
    array = np.asarray(values)
    if array.size and (array.dtype.kind not in "iu" or array.min() < 0):
        raise ValueError(f"{name} must be non-negative integers")
    return array.astype(np.uint64, copy=False)


def utf8(text: str) -> bytes:
    """The text as UTF-8, with U+FFFD for lone surrogates, as the door repairs invalid UTF-8."""
    try:
        return text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace").encode()


def _rows(values: ArrayLike, count: int, dtype: Any) -> Array:
    """One value per row; a single value stands for all rows."""
    array = np.asarray(values).astype(dtype, copy=False)
    if array.ndim and array.shape != (count,):
        raise ValueError(f"expected a column of {count} values, got an array of shape {array.shape}")
    return np.broadcast_to(array, (count,))


def _presence(values: ArrayLike, count: int) -> Mask | None:
    if not isinstance(values, np.ma.MaskedArray):
        return None
    return np.broadcast_to(~np.ma.getmaskarray(values), (count,))


def _pool(codes: I32, values: Sequence[bytes]) -> Pool:
    lengths = np.fromiter((len(value) for value in values), np.int64, len(values))
    return Pool(codes, b"".join(values), offsets_of(lengths))


def _coded(values: Sequence[Any]) -> tuple[I32, list[Any]]:
    """The distinct values, and the code of each row's value; -1 for None."""
    seen: dict[Any, int] = {}
    codes = [-1 if value is None else seen.setdefault(value, len(seen)) for value in values]
    return np.array(codes, np.int32), list(seen)
