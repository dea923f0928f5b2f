"""YAML text to nodes with file, line and column, read as go-yaml v3 reads it.

ruamel.yaml parses (YAML 1.2 syntax, as events); the type of a plain scalar is decided here, by go-yaml's rules, so
that a Collector user's file means the same: ``yes``, ``off`` and ``12:30:45`` are strings, ``010`` and ``0o10`` are 8,
``1_000`` is a thousand, a key given twice is an error. Dates stay strings. Mapping keys are always strings.

Not here: substitution and merging of files (``config.resolve``), meaning of keys (``config.model``).

Source: go.yaml.in/yaml/v3 resolve.go and decode.go; tests/data has cases with go-yaml's own results.
"""

import base64
import binascii
import math
import re
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any, TypeAlias

from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError, YAMLError, YAMLStreamError
from ruamel.yaml.events import (
    AliasEvent,
    DocumentStartEvent,
    Event,
    MappingEndEvent,
    MappingStartEvent,
    ScalarEvent,
    SequenceEndEvent,
    SequenceStartEvent,
)

__all__ = [
    "Entry",
    "ListNode",
    "MapNode",
    "Node",
    "Position",
    "ScalarNode",
    "ScalarValue",
    "YAMLSyntaxError",
    "parse",
    "plain",
    "replant",
    "resolve_scalar",
]

MAX_CHARS = 2 * 1024 * 1024
"""A Kubernetes ConfigMap holds at most 1 MiB."""
MAX_DEPTH = 100
MAX_NODES = 200_000
"""Counting an alias every time it is used: ten lines of nested aliases can stand for billions of nodes."""

ScalarValue: TypeAlias = str | int | float | bool | None


@dataclass(frozen=True, slots=True, order=True)
class Position:
    """Where something was written; ``line`` and ``column`` count from 1. Line 0: no place in a file (``--set``)."""

    file: str
    line: int = 0
    column: int = 0

    def __str__(self) -> str:
        return f"{self.file}:{self.line}:{self.column}" if self.line else self.file


@dataclass(frozen=True, slots=True)
class ScalarNode:
    """A scalar."""

    value: ScalarValue
    position: Position
    text: str | None = None
    """If it is the content of a reference: its original text, for targets that are strings."""
    reference: str = ""
    """If it is the content of a reference: what is written in the file (``${env:X}``)."""
    size: int = 1


@dataclass(frozen=True, slots=True)
class Entry:
    """One entry of a mapping."""

    key_position: Position
    node: "Node"


@dataclass(frozen=True, slots=True)
class MapNode:
    """A mapping; its keys are strings, in the order of the file. ``size`` counts all nodes, with aliases expanded."""

    entries: dict[str, Entry]
    position: Position
    size: int = 1
    text: str | None = None
    """As in ScalarNode: an environment variable may hold text that happens to be a mapping in YAML."""
    reference: str = ""


@dataclass(frozen=True, slots=True)
class ListNode:
    """A sequence."""

    items: tuple["Node", ...]
    position: Position
    size: int = 1
    text: str | None = None
    """As in MapNode."""
    reference: str = ""


Node: TypeAlias = ScalarNode | MapNode | ListNode


class YAMLSyntaxError(ValueError):
    """The text is not valid YAML, or it is refused; ``position`` says where."""

    def __init__(self, message: str, position: Position) -> None:
        super().__init__(message)
        self.message = message
        self.position = position


def parse(text: str, file: str) -> Node:
    """The document in ``text``; a null scalar if it is empty.

    Raises:
        YAMLSyntaxError: invalid YAML, a duplicate key, an unknown anchor, more than one document, or over the limits.
    """
    if len(text) > MAX_CHARS:
        raise YAMLSyntaxError(f"the YAML text is larger than {MAX_CHARS} characters", Position(file, 1, 1))
    builder = _Builder(file)
    try:
        return builder.document(iter(YAML(typ="safe", pure=True).parse(text.removeprefix("\ufeff"))))
    except MarkedYAMLError as exc:
        mark = exc.problem_mark or exc.context_mark
        position = Position(file, mark.line + 1, mark.column + 1) if mark is not None else Position(file, 1, 1)
        parts = [part for part in (exc.context, exc.problem) if part]
        raise YAMLSyntaxError("invalid YAML: " + (", ".join(parts) or "it cannot be parsed"), position) from exc
    except (YAMLError, YAMLStreamError) as exc:
        raise YAMLSyntaxError(f"invalid YAML: {_reader_message(exc)}", _reader_position(exc, text, file)) from exc


def plain(node: Node) -> Any:
    """The node as dict, list and scalars."""
    if isinstance(node, ScalarNode):
        return node.value
    if isinstance(node, ListNode):
        return [plain(item) for item in node.items]
    return {key: plain(entry.node) for key, entry in node.entries.items()}


def replant(node: Node, position: Position) -> Node:
    """The node with every position in it set to ``position``."""
    if isinstance(node, ScalarNode):
        return replace(node, position=position)
    if isinstance(node, ListNode):
        return replace(node, position=position, items=tuple(replant(item, position) for item in node.items))
    entries = {key: Entry(position, replant(entry.node, position)) for key, entry in node.entries.items()}
    return replace(node, position=position, entries=entries)


def _reader_message(exc: Exception) -> str:
    code = getattr(exc, "character", None)
    if isinstance(code, int):
        return f"the character U+{code:04X} is not allowed in YAML"
    return str(exc).splitlines()[0] if str(exc) else type(exc).__name__


def _reader_position(exc: Exception, text: str, file: str) -> Position:
    offset = getattr(exc, "position", None)
    if not isinstance(offset, int):
        return Position(file, 1, 1)
    before = text[:offset]
    return Position(file, before.count("\n") + 1, offset - (before.rfind("\n") + 1) + 1)


@dataclass(slots=True)
class _Builder:
    """Builds nodes from parser events, within the limits on depth and count."""

    file: str
    anchors: dict[str, Node] = field(default_factory=dict)
    open_anchors: set[str] = field(default_factory=set)
    nodes_left: int = MAX_NODES

    def document(self, events: Iterator[Event]) -> Node:
        root: Node | None = None
        for event in events:
            if isinstance(event, DocumentStartEvent):
                continue
            if isinstance(event, ScalarEvent | AliasEvent | MappingStartEvent | SequenceStartEvent):
                node = self._node(event, events, 1)
                if root is None:
                    root = node
                elif not (isinstance(node, ScalarNode) and node.value is None):
                    raise YAMLSyntaxError(
                        "the file contains a second YAML document; put each document in a file of its own",
                        node.position,
                    )
        return root if root is not None else ScalarNode(None, Position(self.file, 1, 1))

    def _position(self, event: Event) -> Position:
        mark = event.start_mark
        return Position(self.file, mark.line + 1, mark.column + 1)

    def _node(self, event: Event, events: Iterator[Event], depth: int) -> Node:
        position = self._position(event)
        if depth > MAX_DEPTH:
            raise YAMLSyntaxError(f"the YAML is nested deeper than {MAX_DEPTH} levels", position)
        if isinstance(event, AliasEvent):
            return self._alias(event.anchor, position)
        self._spend(1, position)
        assert isinstance(event, ScalarEvent | MappingStartEvent | SequenceStartEvent)
        anchor = event.anchor
        if anchor:
            self.open_anchors.add(anchor)
        node: Node
        if isinstance(event, MappingStartEvent):
            node = self._mapping(events, position, depth)
        elif isinstance(event, SequenceStartEvent):
            node = self._sequence(events, position, depth)
        else:
            node = _scalar(event, position)
        if anchor:
            self.open_anchors.discard(anchor)
            self.anchors[anchor] = node
        return node

    def _spend(self, count: int, position: Position) -> None:
        self.nodes_left -= count
        if self.nodes_left < 0:
            raise YAMLSyntaxError(
                f"the YAML has more than {MAX_NODES} nodes, counting aliases each time they are used", position
            )

    def _alias(self, anchor: str, position: Position) -> Node:
        if anchor in self.open_anchors:
            raise YAMLSyntaxError(f"the anchor {anchor!r} contains itself", position)
        node = self.anchors.get(anchor)
        if node is None:
            raise YAMLSyntaxError(f"unknown anchor {anchor!r}; define &{anchor} before using it", position)
        self._spend(node.size, position)
        # Errors inside the aliased node are shown where it was written; the node itself is where the alias is.
        return replace(node, position=position)

    def _sequence(self, events: Iterator[Event], position: Position, depth: int) -> ListNode:
        items: list[Node] = []
        for event in events:
            if isinstance(event, SequenceEndEvent):
                break
            items.append(self._node(event, events, depth + 1))
        return ListNode(tuple(items), position, 1 + sum(item.size for item in items))

    def _mapping(self, events: Iterator[Event], position: Position, depth: int) -> MapNode:
        entries: dict[str, Entry] = {}
        seen: dict[str, Position] = {}
        merged: list[MapNode] = []
        for event in events:
            if isinstance(event, MappingEndEvent):
                break
            key_position = self._position(event)
            if isinstance(event, ScalarEvent) and event.value == "<<" and event.style is None:
                merged += self._merge_sources(self._node(next(events), events, depth + 1))
                continue
            key_node = self._node(event, events, depth + 1)
            if not isinstance(key_node, ScalarNode):
                raise YAMLSyntaxError("a mapping key must be a scalar", key_position)
            written = event.value if isinstance(event, ScalarEvent) else str(key_node.value)
            if written in seen:
                raise YAMLSyntaxError(
                    f"the key {written!r} is already defined at line {seen[written].line}", key_position
                )
            seen[written] = key_position
            entries[_key_text(key_node.value)] = Entry(key_position, self._node(next(events), events, depth + 1))
        for source in merged:
            for key, entry in source.entries.items():
                entries.setdefault(key, entry)
        return MapNode(entries, position, 1 + sum(1 + entry.node.size for entry in entries.values()))

    def _merge_sources(self, node: Node) -> list[MapNode]:
        sources = node.items if isinstance(node, ListNode) else (node,)
        if not all(isinstance(source, MapNode) for source in sources):
            raise YAMLSyntaxError("a merge key (<<) requires a mapping or a list of mappings", node.position)
        return [source for source in sources if isinstance(source, MapNode)]


def _key_text(value: ScalarValue) -> str:
    """A key as Go's ``%v`` prints it: the Collector turns every key into a string."""
    if value is None:
        return "<nil>"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float) and math.isfinite(value) and value == int(value) and abs(value) < 1e21:
        return str(int(value))
    return str(value)


_LITERALS: dict[str, ScalarValue] = (
    dict.fromkeys(("", "~", "null", "Null", "NULL"))
    | dict.fromkeys(("true", "True", "TRUE"), True)
    | dict.fromkeys(("false", "False", "FALSE"), False)
    | dict.fromkeys((".nan", ".NaN", ".NAN"), math.nan)
    | dict.fromkeys((".inf", ".Inf", ".INF", "+.inf", "+.Inf", "+.INF"), math.inf)
    | dict.fromkeys(("-.inf", "-.Inf", "-.INF"), -math.inf)
)
_FLOAT = re.compile(r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?")
_POINT_FLOAT = re.compile(r"\.[0-9]+(?:_[0-9]+)*(?:[eE][-+]?[0-9]+)?")
_INT = re.compile(r"([-+]?)(?:0[xX]([0-9a-fA-F]+)|0[bB]([01]+)|0[oO]?([0-7]+)|(0|[1-9][0-9]*))")
_BASES = (16, 2, 8, 10)
_MAX_INT_CHARS = 80  # longer ones exceed every integer of Go's, and int() of very long text is quadratic


def resolve_scalar(text: str) -> ScalarValue:
    """What a plain (unquoted, untagged) scalar means to go-yaml v3."""
    if text in _LITERALS:
        return _LITERALS[text]
    if text[0] == ".":
        return _float(text) if _POINT_FLOAT.fullmatch(text) else text
    if text[0] not in "+-0123456789":
        return text
    bare = text.replace("_", "")
    if match := _INT.fullmatch(bare):
        number = 1 << 64
        if len(bare) <= _MAX_INT_CHARS:
            number = next(int(digits, base) for digits, base in zip(match.groups()[1:], _BASES, strict=True) if digits)
        signed = -number if match[1] == "-" else number
        if -(1 << 63) <= signed < (1 << 63) or (not match[1] and signed < (1 << 64)):
            return signed
    if _FLOAT.fullmatch(bare):
        value = _float(bare)
        return text if isinstance(value, str) else value
    return text


def _float(text: str) -> float | str:
    value = float(text)
    return text if math.isinf(value) else value  # strconv.ParseFloat reports a range error: stays a string


def _scalar(event: ScalarEvent, position: Position) -> ScalarNode:
    text, tag = event.value, event.tag
    if tag is None or tag == "!":
        return ScalarNode(text if event.style is not None else resolve_scalar(text), position)
    short = str(tag).replace("tag:yaml.org,2002:", "!!")
    value: ScalarValue
    if short == "!!binary":
        try:
            value = base64.b64decode("".join(text.split()), validate=True).decode("utf-8", "surrogateescape")
        except (binascii.Error, ValueError) as exc:
            raise YAMLSyntaxError("the !!binary value is not valid base64", position) from exc
        return ScalarNode(value, position)
    value = resolve_scalar(text)
    if short == "!!float" and type(value) is int:
        value = float(value)
    expected = {"!!int": int, "!!float": float, "!!bool": bool, "!!null": type(None)}.get(short)
    if expected is None:
        return ScalarNode(text, position)  # !!str, !!timestamp and custom tags: the text
    if type(value) is not expected:
        raise YAMLSyntaxError(f"{text[:80]!r} is not a valid {short} value", position)
    return ScalarNode(value, position)
