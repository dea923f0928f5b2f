"""From a path of a statement to what reads it and what changes it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from collector.otlp.semantics import SPAN_KINDS
from collector.ottl.attribute_target import AttributesTarget, AttributeTarget
from collector.ottl.contexts import TABLES
from collector.ottl.converters import span_id, trace_id
from collector.ottl.message_paths import MESSAGE_PATHS, MessageTarget, read_message
from collector.ottl.operations import apply
from collector.ottl.paths import descend, has_path, path_reader
from collector.ottl.targets import BodyTarget, CacheTarget, ElementTarget, FieldTarget, MapTarget, Target
from collector.ottl.trace_state import with_entry
from collector.ottl.values import EvaluationError, Kind, Values

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from collector.ottl.paths import Key, Reader
    from collector.ottl.values import Scalar
    from collector.ottl.view import View

__all__ = ["KeyGetter", "reader", "target"]

KeyGetter = "Key | Callable[[View], Values]"
"""A key of a path: a literal, or a function of a view."""


def reader(owner: str, names: Sequence[str], keys: Sequence[Any], *, is_own: bool) -> Reader:
    """What reads a path. ``is_own``: the path is of the context of the statement, not of one above it.

    Raises:
        LookupError: there is no such path; the message says what there is.
    """
    path = ".".join(names)
    if path == "cache":
        if not is_own:
            raise LookupError(f"the cache of {owner!r} can only be used in the context {owner!r}")
        return _cache_reader(keys)
    if not has_path(owner, path) and path in MESSAGE_PATHS.get(owner, {}):
        message_path = MESSAGE_PATHS[owner][path]
        name = (TABLES[owner], path)
        return _with_keys(lambda view: read_message(view, name, message_path), keys, missing_is_nil=True)
    first = keys[:1]
    if first and callable(first[0]):
        return _with_keys(path_reader(owner, names, ()), keys, missing_is_nil=True)
    literal = [key for key in keys if not callable(key)]
    if len(literal) == len(keys):
        return path_reader(owner, names, literal)
    return _with_keys(path_reader(owner, names, first), keys[1:], missing_is_nil=True)


def _with_keys(read: Reader, keys: Sequence[Any], *, missing_is_nil: bool) -> Reader:
    if not keys:
        return read
    getters = _getters(keys)

    def element(value: Scalar, *found: Scalar) -> Scalar:
        if value is None and missing_is_nil:
            return None
        if not all(type(key) in {str, int} for key in found):
            raise EvaluationError
        return descend(value, found, missing_is_nil=missing_is_nil)

    return lambda view: apply(element, [read(view), *(getter(view) for getter in getters)])


def _getters(keys: Sequence[Any]) -> list[Callable[[View], Values]]:
    return [key if callable(key) else _constant(key) for key in keys]


def _constant(key: Key) -> Callable[[View], Values]:
    column = Values.constant(key)
    return lambda _: column


def _cache_reader(keys: Sequence[Any]) -> Reader:
    if not keys:
        return MapTarget().read
    if callable(keys[0]):
        return _with_keys(MapTarget().read, keys, missing_is_nil=True)
    if not isinstance(keys[0], str):
        reason = f"a key of the cache must be a string, got {keys[0]}"
        raise LookupError(reason)  # noqa: TRY004 - one error for all invalid paths
    return _with_keys(CacheTarget(keys[0]).read, keys[1:], missing_is_nil=True)


def target(owner: str, names: Sequence[str], keys: Sequence[Any], *, is_own: bool) -> Target:
    """What reads and changes a path.

    Raises:
        LookupError: there is no such path, or it cannot be changed; the message says so.
    """
    path = ".".join(names)
    read = reader(owner, names, keys, is_own=is_own)
    table = TABLES[owner]
    if path in {"cache", "attributes"}:
        whole: Target = MapTarget() if path == "cache" else AttributesTarget(table)
        if not keys:
            return whole
        if callable(keys[0]):
            return ElementTarget(whole, _getters(keys), read, made=True)
        one: Target = CacheTarget(keys[0]) if path == "cache" else AttributeTarget(table, keys[0])
        return one if len(keys) == 1 else ElementTarget(one, _getters(keys[1:]), read, made=True)
    if path in {"body", "body.string"}:
        body = BodyTarget(table, path_reader(owner, names, ()), text_only=path == "body.string")
        return ElementTarget(body, _getters(keys), read, made=False) if keys else body
    if path == "trace_state" and keys:
        return _TraceStateTarget(table, read, path_reader(owner, names, ()), str(keys[0]))
    if path in MESSAGE_PATHS.get(owner, {}):
        message = MessageTarget(owner, path)
        return ElementTarget(message, _getters(keys), read, made=False) if keys else message
    form = _FIELDS.get(path)
    if form is None or (path == "name" and owner == "resource"):
        raise LookupError(f"{path!r} of {owner!r} cannot be changed")
    field, takes, convert, stores = form
    return FieldTarget(table, field, takes, read, convert, stores)


class _TraceStateTarget(FieldTarget):
    """An entry of a trace state: ``trace_state["k"]``."""

    def __init__(self, table: str, read: Reader, whole: Reader, key: str) -> None:
        super().__init__(table, "trace_state", Kind.STRING, read)
        self._whole, self._key = whole, key

    def write(self, view: View, values: Values, rows: Any) -> Any:
        """Set the entry; an invalid trace state, key or value leaves it as it is, as in the Collector."""

        def changed(state: Scalar, value: Scalar) -> Scalar:
            if type(value) is not str:
                raise EvaluationError
            return with_entry(state, self._key, value)

        rows = rows & (values.kind != Kind.NIL)
        return super().write(view, apply(changed, [self._whole(view), values]), rows)


def _kind_number(names: Sequence[str]) -> Callable[[Scalar], int]:
    numbers = {name: number for number, name in enumerate(names)}

    def number(value: Scalar) -> int:
        if value not in numbers:
            raise EvaluationError
        return numbers[value]

    return number


def _id_of(parse: Callable[[Scalar], bytes], digits: int) -> Callable[[Scalar], bytes]:
    def made(value: Scalar) -> bytes:
        if len(value) != digits:
            raise EvaluationError
        return parse(value)

    return made


_Form = tuple[str, int, "Callable[[Scalar], Scalar] | None", "int | None"]


def _id_forms(field: str, kind: int, parse: Callable[[Scalar], bytes], digits: int) -> dict[str, _Form]:
    return {field: (field, kind, None, None), f"{field}.string": (field, Kind.STRING, _id_of(parse, digits), kind)}


def _time_forms(*names: str) -> dict[str, _Form]:
    forms: dict[str, _Form] = {}
    for name in names:
        forms[f"{name}_unix_nano"] = (f"{name}_unix_nano", Kind.INT, None, None)
        forms[name] = (f"{name}_unix_nano", Kind.TIME, None, None)
    return forms


_FIELDS: Final[Mapping[str, _Form]] = {
    **{
        name: (name.replace(".", "_"), Kind.STRING, None, None)
        for name in (
            "name",
            "version",
            "schema_url",
            "description",
            "unit",
            "trace_state",
            "status.message",
            "severity_text",
            "event_name",
        )
    },
    **{
        name: (name.replace(".", "_"), Kind.INT, None, None)
        for name in ("kind", "status.code", "flags", "severity_number")
    },
    "kind.string": ("kind", Kind.STRING, _kind_number([name.capitalize() for name in SPAN_KINDS]), Kind.INT),
    "kind.deprecated_string": ("kind", Kind.STRING, _kind_number([f"SPAN_KIND_{n}" for n in SPAN_KINDS]), Kind.INT),
    **_time_forms("start_time", "end_time", "time", "observed_time"),
    **_id_forms("trace_id", Kind.TRACE_ID, trace_id, 32),
    **_id_forms("span_id", Kind.SPAN_ID, span_id, 16),
    **_id_forms("parent_span_id", Kind.SPAN_ID, span_id, 16),
}
"""Of each path: the field, the kind of values it takes, what converts them, and the kind that is stored."""
