"""What statements can change: attributes and their elements, bodies, fields, the cache.

A target is read and written for all rows at once. Maps are edited through ``edit_map``, one distinct map after the
other; the attributes of a table have faster ways of their own (``attribute_target``).

Source: opentelemetry-collector-contrib pkg/ottl/contexts/internal (setters, v0.156).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from collector.model import StringColumn
from collector.model.arrays import every, some
from collector.ottl.operations import apply
from collector.ottl.stored import is_storable, storable
from collector.ottl.values import EvaluationError, Kind, Values
from collector.ottl.view import failing, spread

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from collector.model.arrays import Array, Mask
    from collector.ottl.paths import Key
    from collector.ottl.values import Scalar
    from collector.ottl.view import View

__all__ = ["BodyTarget", "CacheTarget", "ElementTarget", "FieldTarget", "MapTarget", "Target", "with_element"]

_MAX_INDEX: Final = 10_000
_STRINGS: Final = frozenset({Kind.STRING})


class Target(ABC):
    """A path that can be written."""

    table: str = ""
    """The table that is written; "" for the cache."""
    location: tuple[str, ...] = ()
    """What is written: the path's first name, and the key of an attribute."""

    @abstractmethod
    def read(self, view: View) -> Values:
        """The value of each row."""

    @abstractmethod
    def write(self, view: View, values: Values, rows: Mask) -> Mask:
        """Write the values of the rows and return those that failed, bool[n]. Nil and failed values are not written."""

    def read_map(self, view: View) -> Values:
        """The value of each row as a map; it fails where it is not one."""
        values = self.read(view)
        return values.with_failures(values.kind != Kind.MAP)

    def edit_map(
        self, view: View, rows: Mask, function: Callable[..., dict[str, Scalar]], arguments: Sequence[Values] = ()
    ) -> Mask:
        """Replace the map of each row by ``function(map, *arguments)``, which must not change its arguments."""
        edited = apply(function, [self.read_map(view), *arguments])
        edited = spread(edited, view.row_count)
        failed = failing(edited, rows)
        return failed | self.write(view, edited, rows & ~failed)


def with_element(container: Scalar, keys: Sequence[Key], value: Scalar) -> Scalar:
    """A copy of a container with the element under the keys set. What is missing on the way is made.

    Raises:
        EvaluationError: a value on the way does not have such keys.
    """
    if not keys:
        return value
    key, rest = keys[0], keys[1:]
    if container is None:
        if isinstance(key, str):
            return {key: with_element(None, rest, value)}
        if not 0 <= key <= _MAX_INDEX:
            raise EvaluationError
        return [*([None] * key), with_element(None, rest, value)]
    if type(container) is dict and isinstance(key, str):
        return {**container, key: with_element(container.get(key), rest, value)}
    if type(container) is list and isinstance(key, int) and 0 <= key < len(container):
        changed = container.copy()
        changed[key] = with_element(container[key], rest, value)
        return changed
    raise EvaluationError


class ElementTarget(Target):
    """An element of a map or list that is itself a target: ``attributes["a"]["b"]``, ``body[0]``."""

    def __init__(
        self, base: Target, keys: Sequence[Callable[[View], Values]], read: Callable[[View], Values], *, made: bool
    ) -> None:
        """``read`` reads the element. ``made``: a missing container is made; else writing to it fails."""
        self._base, self._keys, self._read, self._made = base, keys, read, made
        self.table, self.location = base.table, base.location

    def read(self, view: View) -> Values:
        """The element of each row."""
        return self._read(view)

    def write(self, view: View, values: Values, rows: Mask) -> Mask:
        """Write the element, and with it the container."""
        made = self._made

        def changed(container: Scalar, value: Scalar, *keys: Scalar) -> Scalar:
            if container is None and not made:
                raise EvaluationError
            if not all(type(key) in {str, int} for key in keys):
                raise EvaluationError
            return container if value is None else with_element(container, keys, value)

        fit = values.with_failures(~is_storable(values))
        result = spread(apply(changed, [self._base.read(view), fit, *(key(view) for key in self._keys)]), len(rows))
        failed = failing(result, rows)
        return failed | self._base.write(view, result, rows & ~failed)


class CacheTarget(Target):
    """An entry of the cache of a row: ``cache["k"]``."""

    def __init__(self, key: str) -> None:
        self._key = key
        self.location = ("cache", key)

    def read(self, view: View) -> Values:
        """The entry, nil if there is none."""
        entry = view.cache.get(self._key)
        return Values.constant(None) if entry is None else entry[0]

    def write(self, view: View, values: Values, rows: Mask) -> Mask:
        """Write the entry."""
        fit = is_storable(values) & (values.kind != Kind.NIL)
        write_cache(view, self._key, values, rows & fit)
        return rows & ~is_storable(values)


def write_cache(view: View, key: str, values: Values, rows: Mask) -> None:
    """Set an entry of the cache on some rows, nil included."""
    if not some(rows):
        return
    entry = view.cache.get(key)
    old, present = entry if entry is not None else (Values.constant(None), view.nothing())
    view.cache[key] = chosen(rows, values, old), present | rows


def chosen(rows: Mask, new: Values, old: Values) -> Values:
    """``new`` on these rows and ``old`` on the others."""
    if every(rows) and len(new) == len(rows):
        return new
    new, old = spread(new, len(rows)), spread(old, len(rows))

    def text() -> StringColumn:
        codes, texts = _joined(
            rows, (new.text.codes, new.text.distinct_bytes), (old.text.codes, old.text.distinct_bytes)
        )
        return StringColumn.from_codes(codes, texts)

    return Values(
        np.where(rows, new.kind, old.kind),
        number=lambda: np.where(rows, new.number, old.number),
        double=lambda: np.where(rows, new.double, old.double),
        text=text,
        objects=lambda: _joined(rows, new.objects, old.objects),
        ids=lambda: np.where(rows[:, None], new.ids, old.ids),
    )


def _joined(rows: Mask, new: tuple[Array, Sequence[Any]], old: tuple[Array, Sequence[Any]]) -> tuple[Array, list[Any]]:
    """Codes and values of ``new`` on these rows and of ``old`` on the others; only values that are used.

    The new values may have been made from the old ones, and would double them each time.
    """
    codes = np.full(len(rows), -1, np.int32)
    values: list[Any] = []
    for mask, (known_codes, known) in ((rows, new), (~rows, old)):
        chosen_rows = mask & (known_codes >= 0)
        used, places = np.unique(known_codes[chosen_rows], return_inverse=True)
        codes[chosen_rows] = places + len(values)
        values += [known[code] for code in used.tolist()]
    return codes, values


class MapTarget(Target):
    """The whole cache as a map; the attributes of a table are in ``attribute_target``."""

    location = ("cache",)

    def read(self, view: View) -> Values:
        """The cache of each row as a map."""
        maps: list[dict[str, Scalar]] = [{} for _ in range(view.row_count)]
        for key, (values, present) in view.cache.items():
            codes, distinct = spread(values, view.row_count).scalars()
            for row in np.flatnonzero(present).tolist():
                maps[row][key] = distinct[codes[row]]
        return Values.of(maps)

    def write(self, view: View, values: Values, rows: Mask) -> Mask:
        """Replace the whole cache."""
        failed: Mask = rows & (values.kind != Kind.MAP) & (values.kind != Kind.NIL)
        rows = rows & (values.kind == Kind.MAP)
        if key_count(values) * len(rows) > _CACHE_MAX_CELLS:
            return failed | rows
        for key, (old, present) in list(view.cache.items()):
            view.cache[key] = chosen(rows, Values.constant(None), old), present & ~rows
        for key, (new, has) in columns_of_maps(values, rows).items():
            write_cache(view, key, new, has)
        return failed


def key_count(maps: Values) -> int:
    """How many keys the maps have together."""
    if Kind.MAP not in maps.kinds:
        return 0
    return len({key for entries in maps.objects[1] if type(entries) is dict for key in entries})


_CACHE_MAX_CELLS: Final = 4_000_000
"""Rows times keys of a cache: what is above it fails."""


def columns_of_maps(maps: Values, rows: Mask) -> dict[str, tuple[Values, Mask]]:
    """A column of each key of the maps on these rows, and the rows that have it."""
    codes, distinct = spread(maps, len(rows)).objects
    used = np.unique(codes[rows]).tolist()
    found: dict[str, tuple[Values, Mask]] = {}
    for key in dict.fromkeys(key for code in used for key in distinct[code]):
        has = np.zeros(len(distinct) + 1, np.bool_)
        values: list[Scalar] = [None] * (len(distinct) + 1)
        for code in used:
            if key in distinct[code]:
                has[code], values[code] = True, distinct[code][key]
        found[key] = (
            (Values.of(values).take(codes) if len(used) > 1 else Values.constant(values[used[0]])),
            (has[codes] & rows),
        )
    return found


class BodyTarget(Target):
    """The body of a log record."""

    def __init__(self, table: str, read: Callable[[View], Values], *, text_only: bool = False) -> None:
        self.table, self._read, self._text_only = table, read, text_only
        self.location = ("body",)

    def read(self, view: View) -> Values:
        """The body, or its text."""
        return self._read(view)

    def write(self, view: View, values: Values, rows: Mask) -> Mask:
        """Write the body."""
        if values.kinds == _STRINGS:
            stored, stored_rows = storable(values, rows)
            view.draft.set_field("body", stored, stored_rows, self.table)
            view.forget(self.table)
            return view.nothing()
        fit = values.kind == Kind.STRING if self._text_only else is_storable(values)
        failed: Mask = rows & ~fit & (values.kind != Kind.NIL)
        rows = rows & fit & (values.kind != Kind.NIL)
        stored, stored_rows = storable(values, rows)
        if some(stored_rows):
            view.draft.set_field("body", stored, stored_rows, self.table)
            view.forget(self.table)
        return failed | (rows & ~stored_rows)


class FieldTarget(Target):
    """A field of a fixed type."""

    def __init__(
        self,
        table: str,
        field: str,
        takes: int,
        read: Callable[[View], Values],
        convert: Callable[[Scalar], Scalar] | None = None,
        stores: int | None = None,
    ) -> None:
        """``takes``: the kind of the values; ``convert`` makes values of the kind ``stores`` of them."""
        self.table, self._field, self._takes, self._read = table, field, takes, read
        self._convert, self._stores = convert, takes if stores is None else stores
        self.location = (field,)

    def read(self, view: View) -> Values:
        """The field."""
        return self._read(view)

    def write(self, view: View, values: Values, rows: Mask) -> Mask:
        """Write the field."""
        if self._convert is None and values.kinds == {self._takes}:
            failed = view.nothing()
        else:
            rows = rows & (values.kind != Kind.NIL)
            values = values.with_failures(values.kind != self._takes)
            if self._convert is not None:
                values = apply(self._convert, [values])
            failed = failing(values, rows)
            rows = rows & ~failed
        values, rows = view.lowered(self.table, values, rows)
        if some(rows):
            view.draft.set_field(self._field, self._stored(values, len(rows)), rows, self.table)
            view.forget(self.table)
        return failed

    def _stored(self, values: Values, row_count: int) -> Any:
        values = spread(values, row_count)
        match self._stores:
            case Kind.STRING:
                return values.text
            case Kind.TRACE_ID:
                return values.ids
            case Kind.SPAN_ID:
                return np.ascontiguousarray(values.ids[:, 1])
            case _:
                return values.number
