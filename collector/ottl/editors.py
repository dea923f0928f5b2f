"""The editors of statements: their parameters, and how each changes all rows at once.

Source: opentelemetry-collector-contrib pkg/ottl/ottlfuncs (README, v0.156).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from collector.model.arrays import some
from collector.ottl.attribute_target import AttributesTarget
from collector.ottl.functions import Parameter
from collector.ottl.map_edits import (
    flattened,
    joined,
    limited,
    merged,
    stringified,
    truncate,
    without_range,
)
from collector.ottl.operations import apply
from collector.ottl.text_editors import (
    pattern_of,
    replace_all_matches,
    replace_all_patterns,
    replace_match,
    replace_pattern,
    text_argument,
    texts_editor,
)
from collector.ottl.values import Kind, Values
from collector.ottl.view import failing, spread
from collector.text.patterns import compile_pattern

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from collector.model.arrays import Mask
    from collector.ottl.contexts import Context
    from collector.ottl.targets import Target
    from collector.ottl.values import Scalar
    from collector.ottl.view import View

__all__ = ["EDITORS", "Editor", "Run"]

Run = "Callable[[View, Mask], Mask]"
"""Changes the rows of a mask, and returns those that failed."""


@dataclass(frozen=True, slots=True)
class Editor:
    """An editor."""

    parameters: tuple[Parameter, ...]
    make: Callable[[Sequence[Any], Mapping[int, Scalar]], Callable[[View, Mask], Mask]]
    """Called once for each statement with the arguments (targets, getters, literals, None) and the literal values by
    position. It raises ValueError if a literal is not valid.
    """
    contexts: frozenset[Context] | None = None
    """The contexts that have it; None means all."""
    vectorised: bool = True
    """Whether it works on columns; else it works map by map or message by message."""
    commutes: bool = False
    """Whether it only removes something, so that, with literal arguments, neither order nor repetition matter."""
    needs_order: bool = False
    """Whether its result depends on the order of the attributes of a row."""
    adds_metrics: bool = False
    """Whether it adds metrics, which the statements of its group then process too."""


def _set(arguments: Sequence[Any], literals: Mapping[int, Scalar]) -> Callable[[View, Mask], Mask]:
    del literals
    target: Target = arguments[0]
    value = arguments[1]

    def run(view: View, rows: Mask) -> Mask:
        values: Values = value(view)
        if Kind.FAILED in values.kinds and some(failed := failing(values, rows)):
            return failed | target.write(view, values, rows & ~failed)
        return target.write(view, values, rows)

    return run


def _delete_key(arguments: Sequence[Any], literals: Mapping[int, Scalar]) -> Callable[[View, Mask], Mask]:
    target: Target = arguments[0]
    key = arguments[1]
    if isinstance(target, AttributesTarget) and 1 in literals:
        wanted = [literals[1]]

        def run(view: View, rows: Mask) -> Mask:
            target.delete(view, wanted, rows)
            return view.nothing()

        return run

    def without(entries: dict[str, Scalar], name: Scalar) -> dict[str, Scalar]:
        unwanted = text_argument(name)
        return {key: value for key, value in entries.items() if key != unwanted}

    return lambda view, rows: target.edit_map(view, rows, without, [key(view)])


def _by_keys(
    target: Target,
    keep: Callable[..., Callable[[str], bool]],
    arguments: Sequence[Callable[[View], Values]],
    literals: Sequence[Scalar] | None,
) -> Callable[[View, Mask], Mask]:
    """Keeps the entries whose keys ``keep(*arguments)`` accepts."""
    if isinstance(target, AttributesTarget) and literals is not None:
        is_kept = keep(*literals)

        def run(view: View, rows: Mask) -> Mask:
            target.delete(view, [key for key in target.keys(view) if not is_kept(key)], rows)
            return view.nothing()

        return run

    def kept(entries: dict[str, Scalar], *values: Scalar) -> dict[str, Scalar]:
        accepts = keep(*values)
        return {key: value for key, value in entries.items() if accepts(key)}

    return lambda view, rows: target.edit_map(view, rows, kept, [argument(view) for argument in arguments])


def _matching(*, kept: bool) -> Callable[[Sequence[Any], Mapping[int, Scalar]], Callable[[View, Mask], Mask]]:
    def make(arguments: Sequence[Any], literals: Mapping[int, Scalar]) -> Callable[[View, Mask], Mask]:
        if 1 in literals:
            compile_pattern(literals[1])

        def keep(pattern: Scalar) -> Callable[[str], bool]:
            compiled = pattern_of(pattern)
            return lambda key: (compiled.search(key) is not None) == kept

        return _by_keys(arguments[0], keep, arguments[1:], [literals[1]] if 1 in literals else None)

    return make


def _keep_keys(arguments: Sequence[Any], literals: Mapping[int, Scalar]) -> Callable[[View, Mask], Mask]:
    getters = arguments[1].items

    def keep(*keys: Scalar) -> Callable[[str], bool]:
        return set(map(text_argument, keys)).__contains__

    return _by_keys(arguments[0], keep, getters, literals.get(1))


def _merge_maps(arguments: Sequence[Any], literals: Mapping[int, Scalar]) -> Callable[[View, Mask], Mask]:
    target: Target = arguments[0]
    source, strategy = arguments[1], literals[2]
    if strategy not in {"insert", "update", "upsert"}:
        raise ValueError(f"strategy must be 'insert', 'update' or 'upsert', got {strategy!r}")

    def run(view: View, rows: Mask) -> Mask:
        maps: Values = source(view)
        if isinstance(target, AttributesTarget):
            return target.merge(view, maps, rows, strategy)
        maps = maps.with_failures(maps.kind != Kind.MAP)
        return target.edit_map(view, rows, lambda entries, more: merged(entries, more, strategy), [maps])

    return run


def _limit(arguments: Sequence[Any], literals: Mapping[int, Scalar]) -> Callable[[View, Mask], Mask]:
    target: Target = arguments[0]
    count, priority = literals[1], literals[2]
    if count < 0:
        raise ValueError(f"limit must not be negative, got {count}")
    if count < len(priority):
        raise ValueError(f"limit {count} is less than the number of priority keys, {len(priority)}")

    def run(view: View, rows: Mask) -> Mask:
        if isinstance(target, AttributesTarget):
            target.limit(view, rows, count, priority)
            return view.nothing()
        return target.edit_map(view, rows, lambda entries: limited(entries, count, priority))

    return run


def _truncate_all(arguments: Sequence[Any], literals: Mapping[int, Scalar]) -> Callable[[View, Mask], Mask]:
    target: Target = arguments[0]
    count, safe = literals[1], literals.get(2) is not False
    if count < 0:
        raise ValueError(f"limit must not be negative, got {count}")
    return texts_editor(target, lambda text: truncate(text, count, utf8_safe=safe), min_bytes=count + 1)


def _flatten(arguments: Sequence[Any], literals: Mapping[int, Scalar]) -> Callable[[View, Mask], Mask]:
    target: Target = arguments[0]
    prefix, depth, resolve = literals.get(1) or "", literals.get(2), bool(literals.get(3))
    if depth is not None and depth < 1:
        raise ValueError(f"depth must be at least 1, got {depth}")
    return lambda view, rows: target.edit_map(
        view, rows, lambda entries: flattened(entries, prefix, depth, resolve_conflicts=resolve)
    )


def _stringify_all(arguments: Sequence[Any], literals: Mapping[int, Scalar]) -> Callable[[View, Mask], Mask]:
    del literals
    target: Target = arguments[0]
    return lambda view, rows: target.edit_map(view, rows, stringified)


def _append(arguments: Sequence[Any], literals: Mapping[int, Scalar]) -> Callable[[View, Mask], Mask]:
    del literals
    target: Target = arguments[0]
    more = [*([arguments[1]] if arguments[1] is not None else []), *(arguments[2].items if arguments[2] else [])]
    if arguments[1] is None and arguments[2] is None:
        raise ValueError("'value' or 'values' is required")

    def run(view: View, rows: Mask) -> Mask:
        results = spread(apply(joined, [target.read(view), *(getter(view) for getter in more)]), view.row_count)
        failed = failing(results, rows)
        return failed | target.write(view, results, rows & ~failed)

    return run


def _delete_index(arguments: Sequence[Any], literals: Mapping[int, Scalar]) -> Callable[[View, Mask], Mask]:
    del literals
    target: Target = arguments[0]
    getters = [getter for getter in arguments[1:] if getter is not None]

    def run(view: View, rows: Mask) -> Mask:
        results = apply(without_range, [target.read(view), *(getter(view) for getter in getters)])
        results = spread(results, view.row_count)
        failed = failing(results, rows)
        return failed | target.write(view, results, rows & ~failed)

    return run


_TARGET: Final = Parameter("target", "target")
_MAP: Final = Parameter("target", "target")
_FUNCTION: Final = (
    Parameter("function", "function", optional=True),
    Parameter("replacement_format", "text", optional=True),
)

EDITORS: Final[dict[str, Editor]] = {
    "append": Editor(
        (_TARGET, Parameter("value", "any", optional=True), Parameter("values", "list", optional=True)),
        _append,
        vectorised=False,
    ),
    "delete_index": Editor(
        (_TARGET, Parameter("start_index", "int"), Parameter("end_index", "int", optional=True)),
        _delete_index,
        vectorised=False,
    ),
    "delete_key": Editor((_MAP, Parameter("key")), _delete_key, commutes=True),
    "delete_matching_keys": Editor((_MAP, Parameter("pattern")), _matching(kept=False), commutes=True),
    "flatten": Editor(
        (
            _MAP,
            Parameter("prefix", "literal text", optional=True),
            Parameter("depth", "literal int", optional=True),
            Parameter("resolve_conflicts", "literal bool", optional=True),
        ),
        _flatten,
        vectorised=False,
    ),
    "keep_keys": Editor((_MAP, Parameter("keys", "texts")), _keep_keys, commutes=True),
    "keep_matching_keys": Editor((_MAP, Parameter("pattern")), _matching(kept=True), commutes=True),
    "limit": Editor(
        (_MAP, Parameter("limit", "literal int"), Parameter("priority_keys", "literal texts")), _limit, needs_order=True
    ),
    "merge_maps": Editor((_MAP, Parameter("source", "map"), Parameter("strategy", "literal text")), _merge_maps),
    "replace_all_matches": Editor(
        (_MAP, Parameter("pattern"), Parameter("replacement"), *_FUNCTION), replace_all_matches
    ),
    "replace_all_patterns": Editor(
        (
            _MAP,
            Parameter("mode", "literal text"),
            Parameter("regex_pattern"),
            Parameter("replacement"),
            *_FUNCTION,
        ),
        replace_all_patterns,
        needs_order=True,
    ),
    "replace_match": Editor((_TARGET, Parameter("pattern"), Parameter("replacement"), *_FUNCTION), replace_match),
    "replace_pattern": Editor(
        (_TARGET, Parameter("regex_pattern"), Parameter("replacement"), *_FUNCTION), replace_pattern
    ),
    "set": Editor((_TARGET, Parameter("value", "any")), _set),
    "stringify_all": Editor((_MAP,), _stringify_all, vectorised=False),
    "truncate_all": Editor(
        (_MAP, Parameter("limit", "literal int"), Parameter("utf8_safe", "literal bool", optional=True)), _truncate_all
    ),
}
