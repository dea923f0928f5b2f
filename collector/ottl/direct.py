"""Conditions that a kernel evaluates row by row, without columns: ``row_conditions`` says which these are.

They are comparisons of fields and attributes with constants, ``IsMatch`` with a literal pattern, durations between two
times, and what ``and``, ``or`` and ``not`` make of them. None of these can fail on a row.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from collector.model import Signal
from collector.model.schema import ATTRIBUTE_NUMBER, FIELDS, SCHEMAS
from collector.ottl.contexts import CONTEXTS, SIGNALS, SYMBOLS, TABLES
from collector.ottl.row_conditions import RowCondition
from collector.ottl.syntax import Chain, Compare, Enum, FunctionCall, Literal, Logic, Node, Not, Parenthesized, Path
from collector.ottl.text import duration
from collector.ottl.values import EvaluationError
from collector.text.cache import cached_by_text
from collector.text.simple_patterns import literal_pattern, search_pattern

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from collector.model import Batch
    from collector.model.arrays import Mask
    from collector.ottl.contexts import Context

__all__ = ["DirectCondition", "direct_condition"]

_TEXTS: Final = frozenset(
    {"name", "version", "schema_url", "description", "unit", "trace_state", "status.message", "severity_text"}
    | {"event_name"}
)
_NUMBERS: Final = frozenset({"kind", "status.code", "flags", "severity_number", "type"})
_TIMES: Final = frozenset({"start_time", "end_time", "time", "observed_time"})
_SWAPPED: Final = {"<": ">", "<=": ">=", ">": "<", ">=": "<=", "==": "==", "!=": "!="}
_INT64: Final = 2**63
_OWN: Final = ("attribute", 0)
_READ_KEYS_MAX: Final = 2
"""Finding so many keys in the bytes costs less than indexing all attributes. An index that is there is used."""
_TAGS: Final = {table: ATTRIBUTE_NUMBER[table] << 3 | 2 for table in ("spans", "events", "records")}
"""The tags of attributes that are directly in the messages of the rows."""


class DirectCondition:
    """A condition of one context that is evaluated row by row."""

    def __init__(
        self, nodes: list[tuple[Any, ...]], tables: Sequence[str], read: Sequence[tuple[str, str, str]]
    ) -> None:
        """Called by ``direct_condition``."""
        self._rows = RowCondition(nodes)
        self._tables = [(tables[level], level in self._rows.attributed) for level in range(self._rows.level_count)]
        own = {node[1] for node in nodes if len(node) > 1 and isinstance(node[1], tuple) and node[1][:2] == _OWN}
        self._tag = _TAGS.get(tables[0], 0) if len(own) <= _READ_KEYS_MAX else 0
        self.read = read
        """What it reads: tables, fields ("" for attributes) and keys of attributes ("" for fields)."""

    def mask(self, batch: Batch) -> tuple[Mask, int] | None:
        """(bool[n]: for which rows it holds, their number); None if the batch has to be evaluated by columns."""
        tables: list[Any] = []
        for table, has_attributes in self._tables:
            rows = batch.table(table).rows
            if has_attributes and not tables and self._tag and batch.index.lazy_attributes(table) is None:
                tables.append((rows, None, self._tag))
            elif has_attributes:
                attributes = batch.attributes(table)
                tables.append((rows, attributes.rows, attributes.keys))
            else:
                tables.append((rows, None, None))
        return self._rows.mask(batch.wire, tables)


def direct_condition(trees: Sequence[Node], context: Context) -> DirectCondition | None:
    """The condition that holds where one of ``trees`` does; None if it cannot be evaluated row by row.

    The trees are known to be valid conditions of the context.
    """
    translation = _Translation(context)
    try:
        translation.add("or", list(trees))
        return DirectCondition(translation.nodes, translation.tables, translation.read)
    except _NotDirectError:
        return None


class _NotDirectError(Exception):
    """The kernel cannot evaluate it."""


class _Translation:
    def __init__(self, context: Context) -> None:
        self.nodes: list[Any] = []
        self.read: list[tuple[str, str, str]] = []
        self._context = context
        own = TABLES[context]
        # Resources and scopes are in all signals, and look the same in all of them.
        self._schema = SCHEMAS[min(SIGNALS[context], key=list(Signal).index)]
        self.tables = [own]
        while parent := self._schema.parents[self.tables[-1]]:
            self.tables.append(parent)

    def add(self, name: str, operands: Sequence[Node]) -> int:
        """Adds a node with operands; returns its number."""
        number = len(self.nodes)
        self.nodes.append(None)
        self.nodes[number] = (name, [self._add(operand) for operand in operands])
        return number

    def _add(self, node: Node) -> int:
        match node:
            case Parenthesized():
                return self._add(node.inner)
            case Not():
                return self.add("not", [node.operand])
            case Logic():
                return self.add(node.operator, node.operands)
            case Literal() if isinstance(node.value, bool):
                return self._leaf("constant", node.value)
            case Compare():
                return self._comparison(node)
            case FunctionCall() if node.name == "IsMatch" and not node.keys:
                return self._match(node)
        raise _NotDirectError

    def _leaf(self, *leaf: Any) -> int:
        self.nodes.append(leaf)
        return len(self.nodes) - 1

    def _comparison(self, node: Compare) -> int:
        symbol, left, right = node.operator, _inner(node.left), _inner(node.right)
        constant = self._constant(right)
        if constant is None:
            symbol, left, constant = _SWAPPED[symbol], right, self._constant(left)
        if constant is None:
            raise _NotDirectError
        kind, value = constant
        takes, source = self._source(left)
        if takes == "time" or (takes == "duration") != (kind == "duration"):
            raise _NotDirectError
        return self._leaf("compare", source, symbol, value)

    def _constant(self, node: Node) -> tuple[str, Any] | None:
        """(what it is, the value as the kernel takes it) of a constant; None for other nodes."""
        match node:
            case Enum():
                return "", SYMBOLS[self._context][node.name]
            case Literal() if node.value is None or type(node.value) in {bool, float}:
                return "", node.value
            case Literal() if type(node.value) is int and -_INT64 <= node.value < _INT64:
                return "", node.value
            case Literal() if type(node.value) is str:
                return "", _utf8(node.value)
            case FunctionCall(name="Duration", arguments=((_, Literal(value=str(text))),), keys=()):
                try:
                    return "duration", int(duration(text))
                except EvaluationError:
                    return None
        return None

    def _match(self, node: FunctionCall) -> int:
        (first_name, target), (second_name, pattern) = node.arguments
        if first_name or second_name or not isinstance(pattern, Literal) or not isinstance(pattern.value, str):
            raise _NotDirectError
        takes, source = self._source(_inner(target))
        if takes not in {"text", "any"}:
            raise _NotDirectError
        literal = literal_pattern(pattern.value)
        if literal is not None:
            form, text = literal
            return self._leaf(form, source, _utf8(text))
        return self._leaf("call", source, _search(pattern.value))

    def _source(self, node: Node) -> tuple[str, tuple[Any, ...]]:
        """(text, int, time, duration or any; the source as the kernel takes it) of a value."""
        match node:
            case Path():
                return self._path(node)
            case Chain(first=Path() as first, operands=(("-", Path() as second),)):
                (left, start), (right, end) = self._path(first), self._path(second)
                if left == right == "time" and start[1] == end[1]:
                    return "duration", ("difference", start[1], start[2], end[2])
        raise _NotDirectError

    def _path(self, path: Path) -> tuple[str, tuple[Any, ...]]:
        fields = list(path.fields)
        owner: str = self._context
        if len(fields) > 1 and not fields[0].keys and fields[0].name in CONTEXTS[self._context]:
            owner = fields.pop(0).name
        table = TABLES[owner]
        name = ".".join(field.name for field in fields)
        keys = fields[-1].keys
        level = self.tables.index(table)
        if name == "attributes" and len(keys) == 1:
            key = keys[0]
            if not isinstance(key, Literal) or not isinstance(key.value, str):
                raise _NotDirectError
            self.read.append((table, "", key.value))
            return "any", ("attribute", level, _utf8(key.value))
        if keys or table not in FIELDS:
            raise _NotDirectError
        if name == "body":
            self.read.append((table, "body", ""))
            return "any", ("body", level, self._place(table, "body_kind"), self._place(table, "text"))
        takes = "time" if name in _TIMES else "text" if name in _TEXTS else "int"
        field = f"{name}_unix_nano" if takes == "time" else name.replace(".", "_")
        known = name in _TEXTS or name in _NUMBERS or field.removesuffix("_unix_nano") in _TIMES
        if not known or field not in FIELDS[table]:
            raise _NotDirectError
        column = FIELDS[table][field].columns[0]
        self.read.append((table, field, ""))
        if takes == "text":
            return takes, ("text", level, self._place(table, column))
        return takes, ("number", level, self._place(table, column), self._format(table, column))

    def _place(self, table: str, column: str) -> int:
        fields = self._schema.rows[table].fields
        assert fields is not None
        return fields[column][1]

    def _format(self, table: str, column: str) -> str:
        fields = self._schema.rows[table].fields
        assert fields is not None
        return fields[column][0].str[1:]


def _inner(node: Node) -> Node:
    while isinstance(node, Parenthesized):
        node = node.inner
    return node


def _utf8(text: str) -> bytes:
    try:
        return text.encode()
    except UnicodeEncodeError:
        raise _NotDirectError from None


def _search(pattern: str) -> Callable[[bytes], bool]:
    """Whether the pattern is found in a text; the outcomes are kept."""
    search = search_pattern(pattern).search
    return cached_by_text(lambda raw: search(raw.decode("utf-8", "replace")) is not None)
