"""The actions of the processors ``attributes`` and ``resource``, from insert and update to extract and convert.

Each works on whole columns, on the rows of a mask that the caller provides. Text is hashed, matched and parsed once per
distinct value.

Source: opentelemetry-collector-contrib internal/coreinternal/attraction (keys, the bytes that are hashed, the possible
conversions).
"""

import hashlib
import struct
from collections.abc import Callable, Sequence
from typing import Any, Final, Literal, Self

import numpy as np
from pydantic import field_validator, model_validator

from collector.model import (
    KIND_ABSENT,
    KIND_BOOL,
    KIND_DOUBLE,
    KIND_INT,
    KIND_STRING,
    AttributeColumn,
    Batch,
    Context,
    Edit,
    StringColumn,
)
from collector.model.arrays import Array, Mask
from collector.ottl.text import parse_double, parse_int
from collector.ottl.values import EvaluationError
from collector.text.cache import TextCache, cached_by_text
from collector.text.patterns import compile_pattern
from config.blocks import ComponentConfig

__all__ = ["ActionConfig", "AttributeActions"]


_SETTING: Final = ("insert", "update", "upsert")


class ActionConfig(ComponentConfig):
    """The configuration of one action."""

    action: Literal["insert", "update", "upsert", "delete", "hash", "extract", "convert"]
    """What to do with the attribute. May be written in upper or lower case."""
    key: str = ""
    """The key of the attribute."""
    value: Any = None
    """For insert, update and upsert: the value, of any type."""
    from_attribute: str = ""
    """For insert, update and upsert: the attribute to copy the value from."""
    from_context: str = ""
    """For insert, update and upsert: where to take the value from: ``metadata.<header>`` or ``auth.<claim>`` of the
    request.
    """
    default_value: Any = None
    """For insert, update and upsert: the value where ``from_attribute`` or ``from_context`` has none."""
    pattern: str = ""
    """For delete and hash: a regular expression that matches keys. For extract: one with named groups that matches the
    value.
    """
    converted_type: Literal["", "int", "double", "string"] = ""
    """For convert: the type to convert the value to."""

    @field_validator("action", mode="before")
    @classmethod
    def _any_case(cls, action: object) -> object:
        return action.lower() if isinstance(action, str) else action

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        action = self.action
        if action in {"delete", "hash"}:
            if not self.key and not self.pattern:
                raise ValueError(f"action {action!r} needs 'key', 'pattern' or both")
        elif not self.key:
            raise ValueError(f"action {action!r} needs 'key'")
        sources = [
            name for name in ("value", "from_attribute", "from_context") if getattr(self, name) not in (None, "")
        ]
        if self.value == "":
            sources.insert(0, "value")
        if action in _SETTING and (len(sources) > 1 or (not sources and self.default_value is None)):
            raise ValueError(
                f"action {action!r} needs exactly one of 'value', 'from_attribute' and 'from_context', "
                f"got {' and '.join(sources) or 'none'}"
            )
        if action not in _SETTING and sources:
            raise ValueError(f"action {action!r} does not use {sources[0]!r}")
        if self.pattern and action in {*_SETTING, "convert"}:
            raise ValueError(f"action {action!r} does not use 'pattern'")
        if bool(self.converted_type) != (action == "convert"):
            raise ValueError(
                f"action {action!r} "
                + (
                    "needs 'converted_type': int, double or string"
                    if action == "convert"
                    else "does not use 'converted_type'"
                )
            )
        if self.from_context == "client.address":
            raise ValueError("from_context: client.address is not available; use metadata.<header> or auth.<claim>")
        if self.pattern:
            compiled = compile_pattern(self.pattern)
            if action == "extract" and (not compiled.groups or compiled.groups != len(compiled.groupindex)):
                raise ValueError(
                    f"pattern {self.pattern!r} must have at least one group, and every group needs a name: (?P<name>…)"
                )
        elif action == "extract":
            raise ValueError("action 'extract' needs 'pattern'")
        for name, value in (("value", self.value), ("default_value", self.default_value)):
            if value is not None:
                try:
                    AttributeColumn.constant(value, 1)
                except (TypeError, ValueError, OverflowError) as exc:
                    raise ValueError(f"{name} {value!r} cannot be the value of an attribute: {exc}") from exc
        return self

    def missing_attributes(self, missing: frozenset[str]) -> frozenset[str]:
        """The keys that certainly do not exist after the action, if those of ``missing`` do not exist before it."""
        match self.action:
            case "delete":
                return missing | {self.key} - {""}
            case "insert" | "upsert" if self.from_attribute not in missing or self.default_value is not None:
                return missing - {self.key}
            case "extract" if self.key not in missing:
                return missing - set(compile_pattern(self.pattern).groupindex)
        return missing


class AttributeActions:
    """The actions of one processor, for one table of each batch."""

    def __init__(self, actions: Sequence[ActionConfig], table: str) -> None:
        self._actions = [_ACTIONS[action.action](action, table) for action in actions]

    def apply(self, batch: Batch, where: Mask | None = None) -> Batch:
        """The batch after all actions, in order, on the rows of ``where``; None means all rows."""
        if where is not None and not where.any():
            return batch
        edit = batch.edit()
        keys_set: set[str] = set()  # the keys that earlier actions set, because patterns must see them too
        for action in self._actions:
            keys_set.update(action(batch, edit, where, keys_set))
        return edit.apply()


_Action = Callable[[Batch, "Edit[Any]", Mask | None, set[str]], Sequence[str]]


def _setting(config: ActionConfig, table: str) -> _Action:
    mode: Any = config.action
    made = (config.key,)

    def set_value(batch: Batch, edit: Edit[Any], where: Mask | None, keys_set: set[str]) -> Sequence[str]:
        del keys_set
        if config.from_attribute:
            column = edit.attribute(config.from_attribute, table)
            if config.default_value is not None:
                column = column.fill(AttributeColumn.constant(config.default_value, len(column)))
            edit.set(config.key, column, where, table=table, mode=mode)
            return made
        value = config.value
        if value is None and config.from_context:
            value = context_value(batch.context, config.from_context)
        if value is None:
            value = config.default_value
        if value is None:
            return ()
        edit.set(config.key, value, where, table=table, mode=mode)
        return made

    return set_value


def context_value(context: Context, name: str) -> str | None:
    """The value that ``from_context`` names, None if there is none; several values are joined with ``;``."""
    if name.startswith("auth."):
        claim = name.removeprefix("auth.")
        claims = dict(context.claims)
        return claims.get(claim, claims.get(claim.removeprefix("claims.")))
    values = dict(context.metadata).get(name.removeprefix("metadata.").lower())
    return ";".join(values) if values else None


def _by_key(config: ActionConfig, table: str, change: Callable[["Edit[Any]", str, Mask | None], None]) -> _Action:
    """An action that applies ``change`` to ``key`` and then to every key that ``pattern`` matches."""
    matches = cached_by_text(_is_found(config.pattern)) if config.pattern else None

    def by_key(batch: Batch, edit: Edit[Any], where: Mask | None, keys_set: set[str]) -> Sequence[str]:
        if config.key:
            change(edit, config.key, where)
        if matches is not None:
            keys = dict.fromkeys([*batch.attributes(table).key.distinct, *sorted(keys_set)])
            for key in keys:
                if matches(key):
                    change(edit, key, where)
        return ()

    return by_key


def _is_found(pattern: str) -> Callable[[str], bool]:
    search = compile_pattern(pattern).search
    return lambda text: search(text) is not None


def _deleting(config: ActionConfig, table: str) -> _Action:
    def delete(edit: Edit[Any], key: str, where: Mask | None) -> None:
        edit.delete(key, where, table=table)

    return _by_key(config, table, delete)


def _hashing(config: ActionConfig, table: str) -> _Action:
    def hash_values(edit: Edit[Any], key: str, where: Mask | None) -> None:
        column = edit.attribute(key, table)
        if column.present.any():
            edit.set(key, _hashed(column), where, table=table)

    return _by_key(config, table, hash_values)


def _hashed(column: AttributeColumn) -> StringColumn:
    """SHA-256 of the values in hexadecimal; "" for values of other types, as in the Collector.

    Texts are hashed as UTF-8, bools as one byte, numbers as 8 bytes in little-endian order.
    """
    codes = np.where(column.present, np.int32(0), np.int32(-1))
    texts = [""]

    def add(mask: Mask, values: Array, to_bytes: Callable[[Any], bytes]) -> None:
        if mask.any():
            distinct, inverse = np.unique(values[mask], return_inverse=True)
            codes[mask] = inverse + len(texts)
            texts.extend(hashlib.sha256(to_bytes(value)).hexdigest() for value in distinct.tolist())

    kind = column.kind
    text = kind == KIND_STRING
    if text.any():
        codes[text] = column.text.codes[text] + len(texts)
        texts.extend(hashlib.sha256(value).hexdigest() for value in column.text.distinct_bytes)
    add(kind == KIND_BOOL, column.bool, lambda value: b"\x01" if value else b"\x00")
    add(kind == KIND_INT, column.int, lambda value: struct.pack("<q", value))
    add(kind == KIND_DOUBLE, column.double.view(np.int64), lambda bits: struct.pack("<q", bits))
    return StringColumn.from_codes(codes, texts)


def _extracting(config: ActionConfig, table: str) -> _Action:
    pattern = compile_pattern(config.pattern)
    names = sorted(pattern.groupindex, key=pattern.groupindex.__getitem__)
    known = TextCache[tuple[str, ...] | None]()

    def groups_of(text: str) -> tuple[str, ...] | None:
        match = pattern.search(text)
        return None if match is None else match.groups("")  # a group without a match is "", as in Go

    def extract(batch: Batch, edit: Edit[Any], where: Mask | None, keys_set: set[str]) -> Sequence[str]:
        del batch, keys_set
        column = edit.attribute(config.key, table).text
        if not column.present.any():
            return ()
        used = np.bincount(column.codes[column.present]).nonzero()[0].tolist()
        results = known.map([column.distinct[code] for code in used], groups_of)
        found = {code: groups for code, groups in zip(used, results, strict=True) if groups is not None}
        if not found:
            return ()
        lookup = np.full(column.distinct_count + 1, -1, np.int32)
        lookup[list(found)] = np.arange(len(found), dtype=np.int32)
        codes = lookup[column.codes]
        for position, name in enumerate(names):
            values = StringColumn.from_codes(codes, [groups[position] for groups in found.values()])
            edit.set(name, values, where, table=table)
        return names

    return extract


def _converting(config: ActionConfig, table: str) -> _Action:
    key = config.key

    def to_text(column: AttributeColumn, edit: Edit[Any], where: Mask | None) -> None:
        other = (column.kind != KIND_STRING) & (column.kind != KIND_ABSENT)
        if other.any():
            edit.set(key, column.as_text(), _both(other, where), table=table)

    def to_int(column: AttributeColumn, edit: Edit[Any], where: Mask | None) -> None:
        kind, double = column.kind, column.double
        # A double that does not fit is not changed. -2^63 is exact as a double; 2^63 is the first that does not fit.
        fits = (kind == KIND_DOUBLE) & (double >= -(2.0**63)) & (double < 2.0**63)
        values = np.where(fits, double, 0.0).astype(np.int64)
        values = np.where(kind == KIND_BOOL, column.bool.astype(np.int64), values)
        done = fits | (kind == KIND_BOOL)
        parsed, numbers = _parsed(column.text, parse_int, np.int64)
        edit.set(key, np.where(parsed, numbers, values), _both(done | parsed, where), table=table)

    def to_double(column: AttributeColumn, edit: Edit[Any], where: Mask | None) -> None:
        kind = column.kind
        values = np.where(kind == KIND_INT, column.int.astype(np.float64), column.bool.astype(np.float64))
        done = (kind == KIND_INT) | (kind == KIND_BOOL)
        parsed, numbers = _parsed(column.text, parse_double, np.float64)
        edit.set(key, np.where(parsed, numbers, values), _both(done | parsed, where), table=table)

    change = {"string": to_text, "int": to_int, "double": to_double}[config.converted_type]

    def convert(batch: Batch, edit: Edit[Any], where: Mask | None, keys_set: set[str]) -> Sequence[str]:
        del batch, keys_set
        column = edit.attribute(key, table)
        if column.present.any():
            change(column, edit, where)
        return ()

    return convert


def _parsed(column: StringColumn, parse: Callable[[str], Any], dtype: Any) -> tuple[Mask, Array]:
    """(bool[n]: whether the text is a number, the numbers)."""
    numbers = [_parsed_or_none(parse, value) for value in column.distinct] if column.present.any() else []
    table = np.array([0 if number is None else number for number in numbers] + [0], dtype)
    is_number = np.array([number is not None for number in numbers] + [False], np.bool_)
    return is_number[column.codes], table[column.codes]  # code -1, absent, is the last element


def _parsed_or_none(parse: Callable[[str], Any], text: str) -> Any:
    try:
        return parse(text)
    except EvaluationError:
        return None


def _both(mask: Mask, where: Mask | None) -> Mask:
    return mask if where is None else mask & where


_ACTIONS: Final[dict[str, Callable[[ActionConfig, str], _Action]]] = {
    "insert": _setting,
    "update": _setting,
    "upsert": _setting,
    "delete": _deleting,
    "hash": _hashing,
    "extract": _extracting,
    "convert": _converting,
}
