"""Parses the text of a condition or statement into its tree: the grammar, literals and limits.

The parser does not know what names mean. Its grammar is a superset of OTTL's with a single hierarchy of expressions;
``compiler`` checks where a condition and where a value is allowed.
Source: opentelemetry-collector-contrib pkg/ottl (LANGUAGE.md; lexer and rules of v0.156).
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Any, Final

from lark import Lark, Token, Tree
from lark.exceptions import UnexpectedCharacters, UnexpectedInput, UnexpectedToken

from collector.ottl.syntax import (
    Chain,
    Compare,
    Enum,
    FunctionCall,
    ListOf,
    Literal,
    Logic,
    MapOf,
    Node,
    Not,
    OttlError,
    Parenthesized,
    Path,
    PathField,
    Signed,
    Statement,
)

__all__ = ["parse", "parse_statement"]

_MAX_CHARS: Final = 16_384
_MAX_DEPTH: Final = 64
_INT64_MAX: Final = 2**63 - 1

_GRAMMAR: Final = r"""
start: or_expr
statement: editor ["where" or_expr]
editor: LOWER "(" [argument ("," argument)*] ")"
?or_expr: and_expr ("or" and_expr)*
?and_expr: not_expr ("and" not_expr)*
?not_expr: comparison
         | NOT comparison -> negation
?comparison: sum
           | sum COMPARISON sum -> compare
?sum: product (SIGN product)*
?product: unary (FACTOR unary)*
?unary: primary
      | SIGN primary -> signed
?primary: STRING -> string
        | FLOAT -> float
        | INT -> int
        | BYTES -> bytes
        | "nil" -> nil
        | "true" -> true
        | "false" -> false
        | UPPER -> enum
        | UPPER "(" [argument ("," argument)*] ")" key* -> call
        | field ("." field)* -> path
        | "(" or_expr ")" -> group
        | "[" [or_expr ("," or_expr)*] "]" -> list
        | "{" (item ","?)* "}" -> map
field: LOWER key*
key: "[" or_expr "]"
argument: or_expr
        | LOWER "=" or_expr -> named
item: STRING ":" or_expr

NOT: "not"
COMPARISON.5: "==" | "!=" | ">=" | "<=" | ">" | "<"
SIGN: "+" | "-"
FACTOR: "*" | "/"
BYTES.4: /0x[a-fA-F0-9]+/
FLOAT.3: /(\d+\.\d*|\d*\.\d+)([eE][-+]?\d+)?/
INT.2: /\d+/
STRING: /"(\\.|[^\\"])*"/s
UPPER: /[A-Z][A-Za-z0-9_]*/
LOWER: /[a-z][a-z0-9_]*/
%ignore /\s+/
"""


@lru_cache(maxsize=1)
def _parser() -> Lark:
    return Lark(
        _GRAMMAR, parser="lalr", start=["start", "statement"], propagate_positions=True, maybe_placeholders=False
    )


def parse(text: str) -> Node:
    """The tree of a condition.

    Raises:
        OttlError: the text is too long, nested too deeply, or not a condition.
    """
    tree: Any = _tree(text, "start", "condition")
    return _Builder(text).node(tree.children[0])


def parse_statement(text: str) -> Statement:
    """The tree of a statement.

    Raises:
        OttlError: the text is too long, nested too deeply, or not a statement.
    """
    tree: Any = _tree(text, "statement", "statement")
    builder = _Builder(text)
    call = tree.children[0]
    editor = builder.call(call, call.meta.start_pos)
    return Statement(editor, builder.node(tree.children[1]) if len(tree.children) > 1 else None)


def _tree(text: str, start: str, what: str) -> Tree[Token]:
    if len(text) > _MAX_CHARS:
        raise OttlError(f"the {what} has {len(text)} characters, but at most {_MAX_CHARS} are allowed")
    if not text.strip():
        raise OttlError(f"the {what} is empty")
    _check_depth(text, what)
    try:
        return _parser().parse(text, start=start)
    except UnexpectedInput as exc:
        raise _explained(exc, text, what) from None


def _check_depth(text: str, what: str) -> None:
    """Limit the depth before the tree is built, because the tree is processed recursively."""
    depth = 0
    for match in re.finditer(r'"(?:\\.|[^\\"])*"|[\[({]|[\])}]', text, re.DOTALL):
        depth += {"(": 1, "[": 1, "{": 1, ")": -1, "]": -1, "}": -1}.get(match.group(), 0)
        if depth > _MAX_DEPTH:
            raise OttlError(f"the {what} is nested deeper than {_MAX_DEPTH} levels", match.start(), text)


def _explained(error: UnexpectedInput, text: str, what: str) -> OttlError:
    if isinstance(error, UnexpectedCharacters):
        at = error.pos_in_stream or 0
        character = text[at]
        reason = "the string is not closed" if character == '"' else f"unexpected character {character!r}"
        return OttlError(reason, at, text)
    if isinstance(error, UnexpectedToken) and error.token.type != "$END":
        reason = f"unexpected {str(error.token)!r}"
        if error.token.value == "(" and re.search(
            r"(?<![A-Za-z0-9_])[a-z][a-z0-9_]*\s*$", text[: error.token.start_pos]
        ):
            reason += "; only converters can be called in an expression, and their names start with a capital letter"
        elif what == "statement" and re.match(r"\s*[A-Z]", text):
            reason += "; a statement starts with an editor, whose name is in lower case, for example set or delete_key"
        return OttlError(reason, error.token.start_pos or 0, text)
    return OttlError(f"unexpected end of the {what}", len(text), text)


class _Builder:
    """Converts lark's tree to the nodes of ``syntax``."""

    def __init__(self, text: str) -> None:
        self._text = text

    def node(self, tree: Tree[Token]) -> Node:
        children: list[Any] = tree.children
        at = tree.meta.start_pos
        match tree.data:
            case "or_expr" | "and_expr":
                return Logic(tree.data.partition("_")[0], tuple(map(self.node, children)), at)
            case "negation":
                return Not(self.node(children[1]), at)
            case "compare":
                return Compare(str(children[1]), self.node(children[0]), self.node(children[2]), at)
            case "sum" | "product":
                operands = tuple(zip(map(str, children[1::2]), map(self.node, children[2::2]), strict=True))
                return Chain(self.node(children[0]), operands, at)
            case "signed":
                return Signed(str(children[0]), self.node(children[1]), at)
            case "group":
                return Parenthesized(self.node(children[0]), at)
            case "path":
                return Path(
                    tuple(PathField(str(field.children[0]), self._keys(field.children[1:])) for field in children), at
                )
            case "call":
                return self.call(tree, at)
            case "list":
                return ListOf(tuple(map(self.node, children)), at)
            case "map":
                return MapOf(
                    tuple((self._unquoted(item.children[0]), self.node(item.children[1])) for item in children),
                    at if children else 0,
                )
            case "enum":
                return Enum(str(children[0]), at)
            case _:
                return Literal(
                    self._literal(str(tree.data), children[0] if children else None), at if at is not None else 0
                )

    def call(self, tree: Tree[Token], at: int) -> FunctionCall:
        """The call of a converter or editor."""
        children: list[Any] = tree.children
        return FunctionCall(
            str(children[0]),
            tuple(self._argument(child) for child in children[1:] if child.data != "key"),
            self._keys([child for child in children[1:] if child.data == "key"]),
            at,
        )

    def _keys(self, trees: list[Any]) -> tuple[Node, ...]:
        return tuple(self.node(tree.children[0]) for tree in trees)

    def _argument(self, tree: Tree[Token]) -> tuple[str, Node]:
        children: list[Any] = tree.children
        return (str(children[0]), self.node(children[1])) if tree.data == "named" else ("", self.node(children[0]))

    def _literal(self, form: str, token: Token | None) -> str | bool | int | float | bytes | None:
        if token is None:
            return {"nil": None, "true": True, "false": False}[form]
        if form == "string":
            return self._unquoted(token)
        if form == "bytes":
            if len(token) % 2:
                raise OttlError(
                    f"{str(token)!r} has an odd number of digits; bytes need an even number",
                    token.start_pos or 0,
                    self._text,
                )
            return bytes.fromhex(token[2:])
        if form == "int":
            if len(token) > 19 or int(token) > _INT64_MAX:
                raise OttlError(
                    f"{str(token)!r} does not fit into a signed 64-bit integer", token.start_pos or 0, self._text
                )
            return int(token)
        value = float(token)
        if value == float("inf"):
            raise OttlError(f"{str(token)!r} is too large for a double", token.start_pos or 0, self._text)
        return value

    def _unquoted(self, token: Token) -> str:
        """The value of a string literal. Source: the Go specification, string literals."""
        start = token.start_pos or 0
        content = token[1:-1]
        if "\n" in content:
            raise OttlError("the string contains a line break; write \\n instead", start, self._text)
        raw = bytearray()
        at = 0
        for match in _ESCAPE.finditer(content):
            raw += content[at : match.start()].encode("utf-8", "replace")
            raw += self._escaped(match, start)
            at = match.end()
        raw += content[at:].encode("utf-8", "replace")
        try:
            return raw.decode()
        except UnicodeDecodeError:
            raise OttlError("the string is not valid UTF-8", start, self._text) from None

    def _escaped(self, match: re.Match[str], start: int) -> bytes:
        simple, octal, byte, short, long = match.groups()
        if simple is not None:
            return _SIMPLE[simple]
        code = int(octal, 8) if octal else int(byte or short or long or "110000", 16)
        if octal or byte:
            if code < 256:
                return bytes([code])
        elif code < 0x110000 and not 0xD800 <= code < 0xE000:
            return chr(code).encode()
        raise OttlError(
            f"{match.group()!r} is not a valid escape sequence; write \\\\ for a backslash",
            start + 1 + match.start(),
            self._text,
        )


_SIMPLE: Final = {
    "a": b"\a",
    "b": b"\b",
    "f": b"\f",
    "n": b"\n",
    "r": b"\r",
    "t": b"\t",
    "v": b"\v",
    "\\": b"\\",
    '"': b'"',
}
_ESCAPE: Final = re.compile(
    r'\\(?:([abfnrtv\\"])|([0-7]{3})|x([0-9a-fA-F]{2})|u([0-9a-fA-F]{4})|U([0-9a-fA-F]{8})|.)', re.DOTALL
)
