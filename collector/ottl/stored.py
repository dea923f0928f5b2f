"""Columns of OTTL values as what a batch stores: attribute values, texts and numbers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import numpy as np

from collector.model import AttributeColumn
from collector.ottl.values import Kind, Values, is_of
from collector.wire.encode import encode_value

if TYPE_CHECKING:
    from collector.model.arrays import Mask

__all__ = ["STORED", "encoded", "is_storable", "storable"]

_STORED: Final = (Kind.STRING, Kind.BOOL, Kind.INT, Kind.DOUBLE, Kind.LIST, Kind.MAP, Kind.BYTES, Kind.NIL)
STORED: Final = frozenset(_STORED)
"""The kinds of values that attributes can have."""


def is_storable(values: Values) -> Mask:
    """bool[n]: the value can be the value of an attribute; times, durations and ids cannot, as in the Collector."""
    return is_of(values.kind, *_STORED)


def storable(values: Values, rows: Mask) -> tuple[Any, Mask]:
    """(values as ``Edit.set`` takes them, the rows on which they can be stored).

    A nil becomes an empty value.
    """
    if len(values) == 1:
        if "stored" not in vars(values):
            vars(values)["stored"] = _stored_constant(values)
        constant = vars(values)["stored"]
        if constant is None:
            return "", np.zeros_like(rows)
        if values.kinds == _NIL:
            return AttributeColumn.of_encoded(b"", len(rows)), rows
        return constant, rows
    kinds = values.kinds
    if len(kinds) > 1:
        kinds = frozenset(np.bincount(values.kind[rows], minlength=1).nonzero()[0].tolist())
    if kinds <= _STRING:
        return values.text, rows
    if kinds == _INT:
        return values.number, rows
    if kinds == _DOUBLE:
        return values.double, rows
    if kinds == _BOOL:
        return values.number != 0, rows
    codes, distinct = values.scalars()
    used = np.zeros(len(distinct) + 1, np.bool_)
    used[codes[rows]] = True
    storable_rows = np.zeros(len(distinct), np.bool_)
    contents: list[bytes] = []
    for code, value in enumerate(distinct):
        content = encoded(value) if used[code] else None
        contents.append(content or b"")
        storable_rows[code] = content is not None
    column = AttributeColumn.of_encodings(contents)
    return column.take(codes), rows & storable_rows[codes]


_NIL, _STRING, _BOOL, _INT, _DOUBLE = (
    frozenset({kind}) for kind in (Kind.NIL, Kind.STRING, Kind.BOOL, Kind.INT, Kind.DOUBLE)
)


def _stored_constant(values: Values) -> Any:
    """The single value of a column as ``Edit.set`` takes it; None if it cannot be stored."""
    codes, distinct = values.scalars()
    value = distinct[codes[0]]
    if encoded(value) is None:
        return None
    return "" if value is None else value


def encoded(value: Any) -> bytes | None:
    """The content of an AnyValue; None if the value cannot be stored: its type, or it is nested too deeply."""
    if value is None:
        return b""
    if type(value) not in {str, bool, int, float, bytes, list, dict}:
        return None
    try:
        return encode_value(_plain(value) if type(value) in {list, dict} else value)
    except (TypeError, ValueError, RecursionError):
        return None


def _plain(value: Any) -> Any:
    """A list or map without times, durations and ids: in a list they are empty values, in a map they are errors.

    Raises:
        TypeError: a map has such a value.
    """
    if type(value) is dict:
        return {key: _plain(item) for key, item in value.items()}
    if type(value) is list:
        return [_plain(item) if type(item) in _PLAIN else None for item in value]
    if type(value) not in _PLAIN:
        raise TypeError(type(value))
    return value


_PLAIN: Final = frozenset({type(None), str, bool, int, float, bytes, list, dict})
