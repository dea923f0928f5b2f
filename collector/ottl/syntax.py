"""The tree of a condition or statement: its nodes, and the error for a text that is neither.

Source: opentelemetry-collector-contrib pkg/ottl (LANGUAGE.md).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

__all__ = [
    "Chain",
    "Compare",
    "Enum",
    "FunctionCall",
    "ListOf",
    "Literal",
    "Logic",
    "MapOf",
    "Node",
    "Not",
    "OttlError",
    "Parenthesized",
    "Path",
    "PathField",
    "Signed",
    "Statement",
    "walk",
]


class OttlError(ValueError):
    """A text is not a valid condition or statement. The message has the column and what was expected."""

    def __init__(self, reason: str, at: int = 0, text: str = "") -> None:
        """``at`` is the offset in ``text``."""
        line = text.count("\n", 0, at)
        column = at - (text.rfind("\n", 0, at) + 1) + 1
        where = f"line {line + 1}, column {column}" if line else f"column {column}"
        super().__init__(f"{where}: {reason}")
        self.reason = reason
        self.column = column

    def within(self, text: str) -> OttlError:
        """The same error with the text of the condition added to its message."""
        error = OttlError(self.reason)
        error.column = self.column
        error.args = (f"{self} (in {text!r})",)
        return error


@dataclass(frozen=True, slots=True)
class Literal:
    """A string, number, bool, bytes or nil (None)."""

    value: str | bool | int | float | bytes | None
    at: int


@dataclass(frozen=True, slots=True)
class Enum:
    """A symbol, such as ``SPAN_KIND_SERVER``."""

    name: str
    at: int


@dataclass(frozen=True, slots=True)
class PathField:
    """One name of a path and the keys after it."""

    name: str
    keys: tuple[Node, ...]


@dataclass(frozen=True, slots=True)
class Path:
    """``resource.attributes["k"]``."""

    fields: tuple[PathField, ...]
    at: int


@dataclass(frozen=True, slots=True)
class FunctionCall:
    """A call of a converter or editor. Each argument has its name, or "" if it is positional."""

    name: str
    arguments: tuple[tuple[str, Node], ...]
    keys: tuple[Node, ...]
    at: int


@dataclass(frozen=True, slots=True)
class ListOf:
    """``[1, "a"]``."""

    items: tuple[Node, ...]
    at: int


@dataclass(frozen=True, slots=True)
class MapOf:
    """``{"a": 1}``."""

    items: tuple[tuple[str, Node], ...]
    at: int


@dataclass(frozen=True, slots=True)
class Signed:
    """``-x`` or ``+x``."""

    operator: str
    operand: Node
    at: int


@dataclass(frozen=True, slots=True)
class Chain:
    """``a + b - c`` or ``a * b / c``, from left to right."""

    first: Node
    operands: tuple[tuple[str, Node], ...]
    at: int


@dataclass(frozen=True, slots=True)
class Compare:
    """One comparison."""

    operator: str
    left: Node
    right: Node
    at: int


@dataclass(frozen=True, slots=True)
class Logic:
    """Two or more conditions joined by ``and`` or by ``or``."""

    operator: str
    operands: tuple[Node, ...]
    at: int


@dataclass(frozen=True, slots=True)
class Not:
    """``not x``."""

    operand: Node
    at: int


@dataclass(frozen=True, slots=True)
class Parenthesized:
    """An expression in parentheses."""

    inner: Node
    at: int


@dataclass(frozen=True, slots=True)
class Statement:
    """``editor(…) where condition``; without a condition it applies to all rows."""

    editor: FunctionCall
    condition: Node | None
    at: int = 0


Node: TypeAlias = (
    Literal | Enum | Path | FunctionCall | ListOf | MapOf | Signed | Chain | Compare | Logic | Not | Parenthesized
)


def walk(node: Node | Statement) -> list[Node]:
    """The node and everything below it."""
    found: list[Node] = []
    pending: list[Node]
    if isinstance(node, Statement):
        pending = [node.editor] if node.condition is None else [node.editor, node.condition]
    else:
        pending = [node]
    while pending:
        node = pending.pop()
        found.append(node)
        pending.extend(_children(node))
    return found


def _children(node: Node) -> list[Node]:
    match node:
        case Path():
            return [key for field in node.fields for key in field.keys]
        case FunctionCall():
            return [*(argument for _, argument in node.arguments), *node.keys]
        case ListOf():
            return list(node.items)
        case MapOf():
            return [item for _, item in node.items]
        case Chain():
            return [node.first, *(operand for _, operand in node.operands)]
        case Compare():
            return [node.left, node.right]
        case Logic():
            return list(node.operands)
        case Signed() | Not():
            return [node.operand]
        case Parenthesized():
            return [node.inner]
        case _:
            return []
