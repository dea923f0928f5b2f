"""A node to a typed configuration, and pydantic's complaints to findings with a place, in plain words and without secrets.

Types are as strict as the Collector's: ``"5"`` is no number, ``"true"`` no boolean, 5 no text. Two leniencies are the
Collector's too: a bare key (null) stands for the defaults, and a value from a variable is taken as text where text is
wanted.
"""

import difflib
import json
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from config.errors import ConfigError
from config.fields import accepts_none, accepts_text, allowed_keys, child, is_secret, looks_secret, models
from config.yaml import ListNode, MapNode, Node, Position, ScalarNode

__all__ = ["closest", "parse_model", "strip_credentials"]

ModelT = TypeVar("ModelT", bound=BaseModel)
_MAX_SHOWN_CHARS = 80
_WEAK_CAST_TYPES = frozenset(
    {"int_type", "bool_type", "float_type", "string_type", "int_from_float", "bytes_type", "model_type", "dict_type"}
)
_TEXT_TYPES = frozenset({"string_type", "literal_error", "enum", "value_error", "bytes_type"})
_BOUNDS = {
    "greater_than": ("gt", "more than"),
    "greater_than_equal": ("ge", "at least"),
    "less_than": ("lt", "less than"),
    "less_than_equal": ("le", "at most"),
}
_USERINFO = re.compile(r"(://)[^/@\s]+@")

Loc = tuple[str | int, ...]


def parse_model(model: type[ModelT], node: Node, path: tuple[str, ...]) -> tuple[ModelT | None, list[ConfigError]]:
    """The configuration written in ``node`` at ``path``, or None and every finding."""
    if isinstance(node, ScalarNode) and node.value is None:
        node = MapNode({}, node.position)
    if not isinstance(node, MapNode):
        return None, [ConfigError(node.position, path, f"expected a mapping, got {_shown(node, secret=False)}")]
    as_text: set[Loc] = set()
    while True:
        data = _plain_map(node, [model], (), as_text)
        try:
            result, details = _validate(model, data)
        except Exception as exc:  # noqa: BLE001 - a plug-in's validator may raise anything; its text may hold secrets
            message = f"the component's own validation failed with {type(exc).__name__}: this is a defect of it"
            return None, [ConfigError(node.position, path, message)]
        if result is not None:
            return result, []
        spots = [_locate(node, detail["loc"], [model]) for detail in details]
        flips = {
            spot.steps
            for spot, detail in zip(spots, details, strict=True)
            if detail["type"] in _TEXT_TYPES and _has_other_text(spot.node)
        } - as_text
        if not flips:
            break
        as_text |= flips
    hide = _hidden_texts(node, [model])
    return None, _merged([_explain(detail, spot, path, hide) for spot, detail in zip(spots, details, strict=True)])


def closest(word: str, candidates: Iterable[str]) -> str:
    """The candidate ``word`` was probably meant to be, or an empty string."""
    pool = list(candidates)
    near = difflib.get_close_matches(word, pool, n=1, cutoff=0.6) or difflib.get_close_matches(
        word.lower(), pool, n=1, cutoff=0.6
    )
    return near[0] if near else ""


def strip_credentials(text: str) -> str:
    """The text with ``user:password@`` taken out of URLs."""
    return _USERINFO.sub(r"\1[REDACTED]@", text)


def _validate(model: type[ModelT], data: Any) -> tuple[ModelT | None, list[ErrorDetails]]:
    """Strictly (through JSON: lists are tuples there, texts are enums); what only JSON's strictness about containers refuses is let in."""
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


def _weak_casts(details: list[ErrorDetails]) -> list[ErrorDetails]:
    return [detail for detail in details if detail["type"] in _WEAK_CAST_TYPES and _is_scalar(detail["input"])]


def _has_other_text(node: Node) -> bool:
    """Whether the node came from a reference and means something else as text."""
    return isinstance(node, ScalarNode) and node.text is not None and not isinstance(node.value, str)


def _is_scalar(value: object) -> bool:
    return isinstance(value, str | int | float | bool)


def _plain_map(node: MapNode, annotations: Sequence[Any], loc: Loc, as_text: set[Loc]) -> dict[str, Any]:
    result: dict[str, Any] = {}
    known_models = models(annotations)
    for key, entry in node.entries.items():
        below, value = child(annotations, key), entry.node
        if isinstance(value, ScalarNode) and value.value is None:
            below_models = models(below)
            if value.text is not None and accepts_text(below):
                result[key] = value.text  # a variable that is not set, or empty
            elif below_models and all(getattr(each, "null_means_default", True) for each in below_models):
                result[key] = {}
            elif accepts_none(below) or not below or not known_models:
                result[key] = None
            continue  # else: the default, as in the Collector
        result[key] = _plain(value, below, (*loc, key), as_text)
    return result


def _plain(node: Node, annotations: Sequence[Any], loc: Loc, as_text: set[Loc]) -> Any:
    if isinstance(node, ScalarNode):
        return node.text if loc in as_text else node.value
    if isinstance(node, ListNode):
        return [
            _plain(item, child(annotations, index), (*loc, index), as_text) for index, item in enumerate(node.items)
        ]
    return _plain_map(node, annotations, loc, as_text)


@dataclass(frozen=True, slots=True)
class _Spot:
    """Where pydantic's location stands in the document."""

    node: Node
    key_position: Position
    steps: Loc
    above: tuple[Any, ...]
    """What the model says about the mapping or list that holds the node."""
    secret: bool
    last: str
    """The location's last step, which need not exist (a missing key)."""


def _locate(root: Node, loc: Loc, annotations: Sequence[Any]) -> _Spot:
    node, key_position, steps, secret = root, root.position, [], False
    here = above = list(annotations)
    for step in loc:
        if isinstance(node, MapNode) and isinstance(step, str) and step in node.entries:
            entry = node.entries[step]
            node, key_position = entry.node, entry.key_position
            secret = secret or looks_secret(step) or step == "headers"
        elif isinstance(node, ListNode) and isinstance(step, int) and step < len(node.items):
            node = node.items[step]
            key_position = node.position
        else:  # the name of a union's alternative, a validator, or a key that is missing
            continue
        steps.append(step)
        above, here = here, child(here, step)
        secret = secret or is_secret(here)
    return _Spot(node, key_position, tuple(steps), tuple(above), secret, str(loc[-1]) if loc else "")


def _explain(
    detail: ErrorDetails, spot: _Spot, prefix: tuple[str, ...], hide: Sequence[tuple[str, str]]
) -> ConfigError:
    path = (*prefix, *map(str, spot.steps))
    kind, context = detail["type"], detail.get("ctx", {})
    shown = _shown(spot.node, secret=spot.secret)
    value = shown if isinstance(spot.node, ScalarNode) else ""
    suggestion = ""
    position = spot.node.position
    match kind:
        case "extra_forbidden":
            key, path, position, value = path[-1], path[:-1], spot.key_position, ""
            allowed = allowed_keys(spot.above)
            suggestion = closest(key, allowed)
            message = f'unknown key "{key}"' + (
                f"; allowed: {', '.join(allowed)}" if allowed else "; no keys are allowed here"
            )
        case "missing":
            position, value = spot.key_position, ""
            message = f'"{spot.last}" is required'
        case "int_type" | "int_parsing" | "int_from_float":
            message = f"expected a whole number, got {shown}"
        case "float_type" | "float_parsing" | "finite_number":
            message = f"expected a number, got {shown}"
        case "bool_type" | "bool_parsing":
            message = f"expected true or false, got {shown}"
        case "string_type":
            message = f"expected text, got {shown}"
            if isinstance(spot.node, ScalarNode) and spot.node.value is not None and not spot.node.reference:
                message += "; write it in quotes" + ("" if spot.secret else f': "{shown}"')
        case "model_type" | "dict_type" | "model_attributes_type" | "mapping_type":
            message = f"expected a mapping, got {shown}"
        case "list_type" | "tuple_type" | "set_type" | "frozen_set_type" | "iterable_type":
            message = f"expected a list, got {shown}"
        case "literal_error" | "enum":
            allowed = re.findall(r"'((?:[^'\\]|\\.)*)'", str(context.get("expected", ""))) or [
                str(context.get("expected", ""))
            ]
            if isinstance(spot.node, ScalarNode) and not spot.secret:
                suggestion = closest(str(spot.node.value), allowed)
            message = f"{shown} is not allowed; allowed: {', '.join(each or '(empty)' for each in allowed)}"
        case "greater_than" | "greater_than_equal" | "less_than" | "less_than_equal":
            name, word = _BOUNDS[kind]
            message = f"must be {word} {context.get(name)}, got {shown}"
        case "value_error" | "assertion_error":
            message = _without(str(context.get("error", detail["msg"])), hide)
            if not isinstance(spot.node, ScalarNode):
                position = spot.key_position
        case "too_short":
            message = f"needs at least {context.get('min_length')} entries, has {context.get('actual_length')}"
        case "string_pattern_mismatch":
            message = f"{shown} does not match {context.get('pattern')}"
        case "string_too_short":
            message = f"must not be shorter than {context.get('min_length')} characters, got {shown}"
        case _:
            message = _without(detail["msg"][:1].lower() + detail["msg"][1:], hide)
    return ConfigError(position, path, message, value=value, suggestion=suggestion)


def _merged(errors: list[ConfigError]) -> list[ConfigError]:
    """One finding for each value: the alternatives of a union each complain about it."""
    merged: dict[tuple[object, ...], ConfigError] = {}
    for error in errors:
        key: tuple[object, ...] = (error.position, error.path)
        if error.message.startswith(("unknown key", '"')):  # about a key: several may share the place
            key = (*key, error.message)
        first = merged.get(key)
        if first is None:
            merged[key] = error
        elif error.message not in first.message:
            merged[key] = replace(
                first, message=f"{first.message}, or: {error.message}", suggestion=first.suggestion or error.suggestion
            )
    return [*merged.values()]


def _shown(node: Node, *, secret: bool) -> str:
    if isinstance(node, MapNode):
        return "a mapping"
    if isinstance(node, ListNode):
        return "a list"
    if secret:
        return "[REDACTED]"
    if node.reference:
        return f"the value of {node.reference}"
    if node.value is None:
        return "null"
    if isinstance(node.value, str):
        text = strip_credentials(node.value)
        return json.dumps(text if len(text) <= _MAX_SHOWN_CHARS else text[:_MAX_SHOWN_CHARS] + "…", ensure_ascii=False)
    return str(node.value).lower() if isinstance(node.value, bool) else str(node.value)


def _hidden_texts(node: Node, annotations: Sequence[Any]) -> list[tuple[str, str]]:
    """Texts that no message may show, with what to show instead; long ones first."""
    found: dict[str, str] = {}
    for scalar, secret in _scalars(node, annotations, secret=False):
        text = scalar.text if scalar.text is not None else str(scalar.value)
        if secret and text:
            found[text] = "[REDACTED]"
        elif scalar.reference and len(text) >= 4:
            found.setdefault(text, scalar.reference)
    both = {**{repr(text)[1:-1]: instead for text, instead in found.items()}, **found}
    return sorted(both.items(), key=lambda pair: -len(pair[0]))


def _scalars(node: Node, annotations: Sequence[Any], *, secret: bool) -> Iterator[tuple[ScalarNode, bool]]:
    if isinstance(node, ScalarNode):
        if node.value is not None:
            yield node, secret or is_secret(annotations)
    elif isinstance(node, ListNode):
        for index, item in enumerate(node.items):
            yield from _scalars(item, child(annotations, index), secret=secret)
    else:
        for key, entry in node.entries.items():
            yield from _scalars(
                entry.node, child(annotations, key), secret=secret or looks_secret(key) or key == "headers"
            )


def _without(message: str, hide: Sequence[tuple[str, str]]) -> str:
    for text, instead in hide:
        message = message.replace(text, instead)
    return strip_credentials(message)
