"""A node of the document to a typed configuration, or to findings.

Types are as strict as the Collector's: ``"5"`` is not a number, ``"true"`` is not a boolean, 5 is not text. Two
leniencies are the Collector's as well: a bare key (null) means the defaults, and the value of a variable is taken as
text where text is wanted, also if it is a mapping or a list in YAML.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from config.annotations import accepts_none, accepts_text, child_annotations, is_duration, models_among
from config.blocks import ComponentConfig
from config.blocks.base import InvalidSettings, OutdatedKey
from config.errors import ConfigError, Findings
from config.explain import Loc, describe, explain, locate
from config.yaml import ListNode, MapNode, Node, Position, ScalarNode

__all__ = ["expect_mapping", "numeric_durations", "parse_model", "settings_with_warnings", "warn_outdated_keys"]

ModelT = TypeVar("ModelT", bound=BaseModel)

_WEAK_CAST_TYPES = frozenset(
    {"int_type", "bool_type", "float_type", "string_type", "int_from_float", "bytes_type", "model_type", "dict_type"}
)
_TEXT_TYPES = frozenset({"string_type", "literal_error", "enum", "value_error", "bytes_type"})


def expect_mapping(node: Node | None, path: tuple[str, ...], findings: Findings) -> MapNode | None:
    """The node as a mapping; None if it is null, or something else, which is reported."""
    if node is None or (isinstance(node, ScalarNode) and node.value is None):
        return None
    if not isinstance(node, MapNode):
        findings.error(node.position, path, f"expected a mapping, got {describe(node)}")
        return None
    return node


def parse_model(
    model: type[ModelT], node: Node, key_position: Position, path: tuple[str, ...]
) -> tuple[ModelT | None, list[ConfigError]]:
    """The configuration written in ``node`` under the key at ``key_position``, or None and every finding."""
    if isinstance(node, ScalarNode) and node.value is None:
        node = MapNode({}, node.position)
    if not isinstance(node, MapNode):
        return None, [ConfigError(key_position, path, f"expected a mapping, got {describe(node)}")]
    as_text: set[Loc] = set()
    while True:
        data = _plain_map(node, [model], (), as_text)
        try:
            result, details = _validate(model, data)
        except Exception as exc:  # noqa: BLE001 - a plug-in's validator may raise anything; its text may hold secrets
            message = f"the validation of this component failed with {type(exc).__name__}"
            return None, [ConfigError(key_position, path, message, hint="this is a defect of the component")]
        if result is not None:
            return result, []
        details = _split(details)
        spots = [locate(node, key_position, detail["loc"], [model]) for detail in details]
        retry_as_text = {
            spot.steps
            for spot, detail in zip(spots, details, strict=True)
            if detail["type"] in _TEXT_TYPES and _differs_as_text(spot.node)
        } - as_text
        if not retry_as_text:
            break
        as_text |= retry_as_text
    return None, explain(details, spots, node, model, path)


def numeric_durations(node: Node, model: type[BaseModel]) -> Iterator[tuple[ScalarNode, tuple[str, ...]]]:
    """The numbers below ``node`` that stand for durations, except 0, with their keys: they lack a unit."""
    return _numeric_durations(node, [model], ())


def _numeric_durations(
    node: Node, annotations: Sequence[Any], keys: tuple[str, ...]
) -> Iterator[tuple[ScalarNode, tuple[str, ...]]]:
    children: Iterator[tuple[str | int, Node]] = iter(())
    if isinstance(node, ListNode):
        children = enumerate(node.items)
    elif isinstance(node, MapNode):
        children = ((key, entry.node) for key, entry in node.entries.items())
    for step, value in children:
        path = (*keys, str(step))
        if isinstance(value, ScalarNode):
            if isinstance(value.value, int | float) and value.value and is_duration(annotations, step):
                yield value, path
        else:
            yield from _numeric_durations(value, child_annotations(annotations, step), path)


def settings_with_warnings(config: Any, keys: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], str]]:
    """What the blocks of a configuration warn about: pairs of the path of a key and a sentence."""
    if isinstance(config, ComponentConfig):
        for key, sentence in config.warnings():
            yield (*keys, key), sentence
        for name, field in type(config).model_fields.items():
            yield from settings_with_warnings(getattr(config, name), (*keys, field.alias or name))
    elif isinstance(config, Mapping):
        for key, value in config.items():
            yield from settings_with_warnings(value, (*keys, str(key)))
    elif isinstance(config, list | tuple):
        for index, value in enumerate(config):
            yield from settings_with_warnings(value, (*keys, str(index)))


def warn_outdated_keys(node: Node, model: type[BaseModel], path: tuple[str, ...], findings: Findings) -> None:
    """Add a warning for each key of an older version that is written below ``node``, which is at ``path``."""
    for position, keys, outdated in _outdated_keys(node, [model], ()):
        if outdated.write:
            findings.warning(position, (*path, *keys), "this key is outdated", hint=f"write {outdated.write}")
        else:
            findings.warning(position, (*path, *keys), "this key is outdated and has no effect", hint="remove it")


def _outdated_keys(
    node: Node, annotations: Sequence[Any], keys: tuple[str, ...]
) -> Iterator[tuple[Position, tuple[str, ...], OutdatedKey]]:
    if isinstance(node, ListNode):
        for index, item in enumerate(node.items):
            yield from _outdated_keys(item, child_annotations(annotations, index), (*keys, str(index)))
    if not isinstance(node, MapNode):
        return
    outdated: dict[str, OutdatedKey] = {}
    for block in models_among(annotations):
        outdated |= getattr(block, "outdated_keys", {})
    for key, entry in node.entries.items():
        if key in outdated:
            yield entry.key_position, (*keys, key), outdated[key]
        yield from _outdated_keys(entry.node, child_annotations(annotations, key), (*keys, key))


def _validate(model: type[ModelT], data: Any) -> tuple[ModelT | None, list[ErrorDetails]]:
    """The model, or what pydantic reports: strict about scalars, lenient about the types of containers and enums.

    Strictness goes through JSON, where lists stand for tuples and texts for enums. What is refused for other reasons
    than a weak cast is tried again without it.
    """
    try:
        return model.model_validate_json(json.dumps(data), strict=True), []
    except ValidationError as exc:
        strict = exc.errors(include_url=False)
    try:
        result = model.model_validate(data)
    except ValidationError as exc:
        lax = exc.errors(include_url=False)
        seen = {detail["loc"] for detail in lax}
        return None, lax + [detail for detail in _weak_casts(strict) if detail["loc"] not in seen]
    weak = _weak_casts(strict)
    return (None, weak) if weak else (result, [])


def _split(details: list[ErrorDetails]) -> list[ErrorDetails]:
    """``details`` with one for each key that a validator found wrong."""
    result: list[ErrorDetails] = []
    for detail in details:
        error = detail.get("ctx", {}).get("error")
        if isinstance(error, InvalidSettings):
            for keys, message in error.findings:
                loc, context = (*detail["loc"], *keys), {"error": ValueError(message)}
                result.append({**detail, "loc": loc, "ctx": context})
        else:
            result.append(detail)
    return result


def _weak_casts(details: list[ErrorDetails]) -> list[ErrorDetails]:
    return [detail for detail in details if detail["type"] in _WEAK_CAST_TYPES and _is_scalar(detail["input"])]


def _is_scalar(value: object) -> bool:
    return isinstance(value, str | int | float | bool)


def _differs_as_text(node: Node) -> bool:
    """Whether the node came from a reference and has another meaning as text."""
    return node.text is not None and not (isinstance(node, ScalarNode) and isinstance(node.value, str))


def _plain_map(node: MapNode, annotations: Sequence[Any], loc: Loc, as_text: set[Loc]) -> dict[str, Any]:
    result: dict[str, Any] = {}
    known_models = models_among(annotations)
    for key, entry in node.entries.items():
        below, value = child_annotations(annotations, key), entry.node
        if isinstance(value, ScalarNode) and value.value is None:
            below_models = models_among(below)
            if value.text is not None and accepts_text(below):
                result[key] = value.text  # a variable that is not set, or empty
            elif below_models and all(getattr(block, "null_means_default", True) for block in below_models):
                result[key] = {}
            elif accepts_none(below) or not below or not known_models:
                result[key] = None
            continue  # otherwise the default holds, as in the Collector
        result[key] = _plain(value, below, (*loc, key), as_text)
    return result


def _plain(node: Node, annotations: Sequence[Any], loc: Loc, as_text: set[Loc]) -> Any:
    if node.text is not None and loc in as_text:
        return node.text
    if isinstance(node, ScalarNode):
        return node.value
    if isinstance(node, ListNode):
        return [
            _plain(item, child_annotations(annotations, index), (*loc, index), as_text)
            for index, item in enumerate(node.items)
        ]
    return _plain_map(node, annotations, loc, as_text)
