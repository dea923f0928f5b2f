"""Pydantic's error details to findings: at their place in the document, in plain words and without secrets."""

import difflib
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeAlias, get_args

from pydantic import BaseModel
from pydantic_core import ErrorDetails, core_schema

from config.annotations import allowed_keys, child_annotations, is_secret, looks_secret
from config.blocks.values import duration_text
from config.errors import ConfigError
from config.yaml import ListNode, MapNode, Node, Position, ScalarNode, resolve_scalar

__all__ = ["Loc", "Spot", "closest", "describe", "explain", "listing", "locate", "strip_credentials"]

Loc: TypeAlias = tuple[str | int, ...]
"""Pydantic's location of an error: keys, indices, and names of union members and validators."""

_MAX_SHOWN_CHARS = 80
_MIN_HIDDEN_CHARS = 4
"""Values of variables that are shorter are not replaced in other texts: they would match by accident."""
_USERINFO = re.compile(r"(://)[^/@\s]+@")
_REDACTED = "[REDACTED]"

_EXPECTED = (
    dict.fromkeys(("int_type", "int_parsing", "int_parsing_size", "int_from_float"), "a whole number")
    | dict.fromkeys(("float_type", "float_parsing", "decimal_type", "decimal_parsing"), "a number")
    | {"finite_number": "a finite number"}
    | dict.fromkeys(("bool_type", "bool_parsing"), "true or false")
    | dict.fromkeys(("string_type", "string_sub_type", "string_unicode", "bytes_type"), "text")
    | dict.fromkeys(("model_type", "model_attributes_type", "dataclass_type", "dict_type", "mapping_type"), "a mapping")
    | dict.fromkeys(("list_type", "tuple_type", "set_type", "frozen_set_type", "iterable_type"), "a list")
    | {"none_required": "null"}
    | dict.fromkeys(("date_type", "date_parsing", "date_from_datetime_parsing"), "a date such as 2026-01-31")
    | dict.fromkeys(("time_type", "time_parsing"), "a time such as 13:30:00")
    | dict.fromkeys(
        ("datetime_type", "datetime_parsing", "datetime_from_date_parsing"), "a time such as 2026-01-31T13:30:00Z"
    )
    | dict.fromkeys(("url_type", "url_parsing", "url_scheme"), "a URL")
    | dict.fromkeys(("uuid_type", "uuid_parsing"), "a UUID")
    | {"string_not_ascii": "text with ASCII characters only", "bytes_invalid_encoding": "validly encoded bytes"}
)
"""What a value should have been, by pydantic's type of error."""
_UNQUOTED: dict[str, tuple[type, ...]] = {
    "a whole number": (int,),
    "a number": (int, float),
    "true or false": (bool,),
}
"""The types that text in quotes may have without them, by what was expected."""

_BOUNDS = {
    "greater_than": ("gt", "greater than"),
    "greater_than_equal": ("ge", "at least"),
    "less_than": ("lt", "less than"),
    "less_than_equal": ("le", "at most"),
    "multiple_of": ("multiple_of", "a multiple of"),
}
_LENGTHS = {
    "too_short": ("min_length", "at least", "entry", "entries"),
    "too_long": ("max_length", "at most", "entry", "entries"),
    "string_too_short": ("min_length", "at least", "character", "characters"),
    "string_too_long": ("max_length", "at most", "character", "characters"),
    "bytes_too_short": ("min_length", "at least", "byte", "bytes"),
    "bytes_too_long": ("max_length", "at most", "byte", "bytes"),
}
_PYDANTIC_TYPES = frozenset(get_args(core_schema.ErrorType))


@dataclass(frozen=True, slots=True)
class Spot:
    """The place in the document that a location of pydantic's points to."""

    node: Node
    key_position: Position
    steps: Loc
    """The location without what is not in the document, such as the names of union members."""
    parent_annotations: tuple[Any, ...]
    """The annotations of the mapping or list that holds the node."""
    is_secret: bool
    last_step: str
    """The last step of pydantic's location, which need not be in the document: a missing key."""


def locate(root: Node, key_position: Position, loc: Loc, annotations: Sequence[Any]) -> Spot:
    """The spot of ``loc`` below ``root``, which is written under the key at ``key_position``."""
    node, steps, secret = root, [], False
    here = parent = list(annotations)
    for step in loc:
        if isinstance(node, MapNode) and isinstance(step, str) and step in node.entries:
            entry = node.entries[step]
            node, key_position = entry.node, entry.key_position
            secret = secret or looks_secret(step) or step == "headers"
        elif isinstance(node, ListNode) and isinstance(step, int) and step < len(node.items):
            node = node.items[step]
            key_position = node.position
        else:  # the name of a union's member, a validator, or a key that is missing
            continue
        steps.append(step)
        parent, here = here, child_annotations(here, step)
        secret = secret or is_secret(here)
    return Spot(node, key_position, tuple(steps), tuple(parent), secret, str(loc[-1]) if loc else "")


def explain(
    details: Sequence[ErrorDetails], spots: Sequence[Spot], root: Node, model: type[BaseModel], path: tuple[str, ...]
) -> list[ConfigError]:
    """One finding for each value that pydantic refused; ``root`` is the node that was validated, at ``path``."""
    hidden = _hidden_texts(root, [model])
    findings: dict[tuple[object, ...], ConfigError] = {}
    for detail, spot in zip(details, spots, strict=True):
        finding = _explain(detail, spot, path, hidden)
        # Every member of a union complains about the same value; several keys may be wrong at the same place.
        concerned_key = spot.last_step if detail["type"] in ("extra_forbidden", "missing") else None
        place = (finding.position, finding.path, concerned_key)
        earlier = findings.get(place)
        findings[place] = finding if earlier is None else _merged(earlier, finding)
    return [*findings.values()]


def closest(word: str, candidates: Iterable[str]) -> str:
    """The candidate that ``word`` was probably meant to be, or an empty string."""
    pool = list(candidates)
    near = difflib.get_close_matches(word, pool, n=1, cutoff=0.6) or difflib.get_close_matches(
        word.lower(), pool, n=1, cutoff=0.6
    )
    return near[0] if near else ""


def strip_credentials(text: str) -> str:
    """The text with ``user:password@`` taken out of URLs."""
    return _USERINFO.sub(rf"\1{_REDACTED}@", text)


def describe(node: Node, *, secret: bool = False) -> str:
    """The node's value as a message may show it: short, and never a secret or the value of a variable."""
    if isinstance(node, MapNode):
        return "a mapping"
    if isinstance(node, ListNode):
        return "a list"
    if secret:
        return _REDACTED
    if node.reference:
        return f"the value of {node.reference}"
    if node.value is None:
        return "null"
    if isinstance(node.value, str):
        text = strip_credentials(node.value)
        return repr(text if len(text) <= _MAX_SHOWN_CHARS else text[:_MAX_SHOWN_CHARS] + "…")
    return str(node.value).lower() if isinstance(node.value, bool) else str(node.value)


def _explain(
    detail: ErrorDetails, spot: Spot, prefix: tuple[str, ...], hidden: Sequence[tuple[str, str]]
) -> ConfigError:
    path = (*prefix, *map(str, spot.steps))
    kind, context = detail["type"], detail.get("ctx", {})
    shown = describe(spot.node, secret=spot.is_secret)
    position = spot.node.position if spot.steps else spot.key_position
    suggestion = hint = ""
    if kind in _EXPECTED:
        message = f"expected {_EXPECTED[kind]}, got {shown}"
        hint = _quoting_hint(_EXPECTED[kind], spot)
    elif kind in _BOUNDS:
        name, relation = _BOUNDS[kind]
        message = f"the value must be {relation} {_bound_text(context.get(name), spot.node)}, got {shown}"
    elif kind in _LENGTHS:
        message = _length_message(kind, context, spot)
    else:
        match kind:
            case "extra_forbidden":
                key, path, position = path[-1], path[:-1], spot.key_position
                allowed = allowed_keys(spot.parent_annotations)
                suggestion = closest(key, allowed)
                message, hint = f"unknown key {key!r}", listing("allowed key", allowed, none="no keys are allowed here")
            case "missing":
                position = spot.key_position
                message = f"the required key {spot.last_step!r} is missing"
            case "literal_error" | "enum":
                allowed = _quoted_words(str(context.get("expected", "")))
                if isinstance(spot.node, ScalarNode) and not spot.is_secret:
                    suggestion = closest(str(spot.node.value), allowed)
                message, hint = f"{shown} is not an allowed value", listing("allowed value", allowed)
            case "union_tag_invalid":
                tag, allowed = str(context.get("tag")), _quoted_words(str(context.get("expected_tags", "")))
                suggestion = closest(tag, allowed)
                message = f"{_without(repr(tag), hidden)} is not an allowed value of {context.get('discriminator')}"
                hint = listing("allowed value", allowed)
            case "union_tag_not_found":
                discriminator = str(context.get("discriminator"))  # a quoted key, or a function
                is_key = discriminator.startswith("'") and isinstance(spot.node, MapNode)
                message = f"the required key {discriminator} is missing" if is_key else f"{shown} is not allowed here"
            case "string_pattern_mismatch":
                message = f"{shown} does not match the pattern {context.get('pattern')}"
            case "value_error" | "assertion_error":
                message = _without(str(context.get("error", detail["msg"])), hidden)
                if not isinstance(spot.node, ScalarNode):
                    position = spot.key_position
            case _:
                message = _without(detail["msg"], hidden)
                if kind in _PYDANTIC_TYPES:  # a component's own error type has a text for users
                    message = f"{shown} is not a valid value ({message[:1].lower() + message[1:]})"
    return ConfigError(position, path, message, suggestion, hint)


def listing(noun: str, words: Sequence[str], *, none: str = "") -> str:
    """The words as a hint: ``the allowed keys are a, b``; ``none`` if there are no words."""
    if not words:
        return none
    texts = [word or "'' (empty)" for word in words]
    return f"the {noun}s are {', '.join(texts)}" if len(texts) > 1 else f"the only {noun} is {texts[0]}"


def _quoting_hint(expected: str, spot: Spot) -> str:
    """That quotes are missing around text, or are wrong around a number or a boolean; else empty."""
    node = spot.node
    if not isinstance(node, ScalarNode) or node.value is None or node.reference:
        return ""
    if expected == "text":
        return "write it in quotes" + ("" if spot.is_secret else f": '{describe(node)}'")
    if isinstance(node.value, str) and type(resolve_scalar(node.value)) in _UNQUOTED.get(expected, ()):
        return "write it without quotes"
    return ""


def _bound_text(bound: Any, node: Node) -> str:
    """The bound as the user would write it: as a duration if the value is one."""
    if not isinstance(bound, int | float):
        return str(bound)
    if isinstance(node, ScalarNode) and isinstance(node.value, str) and node.value.strip()[-1:] in {"s", "m", "h"}:
        return duration_text(float(bound)) if bound else "0"
    return str(int(bound)) if bound == int(bound) else str(bound)


def _length_message(kind: str, context: dict[str, Any], spot: Spot) -> str:
    key, relation, singular, plural = _LENGTHS[kind]
    bound = context.get(key)
    if isinstance(spot.node, ScalarNode):  # text, also where pydantic speaks of items: a secret
        got, noun = describe(spot.node, secret=spot.is_secret), "text"
        singular, plural = ("character", "characters") if singular == "entry" else (singular, plural)
    else:
        got, noun = str(context.get("actual_length")), "mapping" if isinstance(spot.node, MapNode) else "list"
    if bound == 1 and relation == "at least":
        return f"the {noun} must not be empty"
    return f"expected {relation} {bound} {singular if bound == 1 else plural}, got {got}"


def _quoted_words(text: str) -> list[str]:
    """The words that pydantic lists as ``'a', 'b' or 'c'``."""
    return re.findall(r"'((?:[^'\\]|\\.)*)'", text) or [text]


def _merged(first: ConfigError, second: ConfigError) -> ConfigError:
    """One finding about a value that several members of a union refuse."""
    if second.message in first.message:
        return first
    expected, separator, got = first.message.rpartition(", got ")
    other_expected, _, other_got = second.message.rpartition(", got ")
    if separator and got == other_got and expected.startswith("expected ") and other_expected.startswith("expected "):
        message = f"{expected} or {other_expected.removeprefix('expected ')}, got {got}"
    else:
        message = f"{first.message}, or: {second.message}"
    return replace(
        first, message=message, suggestion=first.suggestion or second.suggestion, hint=first.hint or second.hint
    )


def _hidden_texts(node: Node, annotations: Sequence[Any]) -> list[tuple[str, str]]:
    """Texts that no message may show, with what to show instead; long ones first."""
    found: dict[str, str] = {}
    for scalar, secret in _scalars(node, annotations, secret=False):
        text = scalar.text if scalar.text is not None else str(scalar.value)
        if secret and text:
            found[text] = _REDACTED
        elif scalar.reference and len(text) >= _MIN_HIDDEN_CHARS:
            found.setdefault(text, scalar.reference)
    escaped = {repr(text)[1:-1]: replacement for text, replacement in found.items()}
    return sorted((escaped | found).items(), key=lambda pair: -len(pair[0]))


def _scalars(node: Node, annotations: Sequence[Any], *, secret: bool) -> Iterator[tuple[ScalarNode, bool]]:
    if isinstance(node, ScalarNode):
        if node.value is not None:
            yield node, secret or is_secret(annotations)
    elif isinstance(node, ListNode):
        for index, item in enumerate(node.items):
            yield from _scalars(item, child_annotations(annotations, index), secret=secret)
    else:
        for key, entry in node.entries.items():
            yield from _scalars(
                entry.node, child_annotations(annotations, key), secret=secret or looks_secret(key) or key == "headers"
            )


def _without(message: str, hidden: Sequence[tuple[str, str]]) -> str:
    for text, replacement in hidden:
        message = message.replace(text, replacement)
    return strip_credentials(message)
