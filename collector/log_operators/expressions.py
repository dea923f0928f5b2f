"""The expression language of ``if``, ``expr`` and ``EXPR(...)``: parsed once, evaluated with the fields of an entry.

It is the part of expr-lang that configurations of logs use: fields, literals, comparisons, ``matches``, ``contains``,
``startsWith``, ``endsWith``, ``in``, ``and``, ``or``, ``not``, ``??``, ``? :``, arithmetic, and some functions.
Source: expr-lang.org/docs/language-definition, github.com/expr-lang/expr v1.17 vm.
"""

import os
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from collector.text.patterns import compile_pattern

__all__ = ["Expression", "ExpressionError", "parse_expression"]

_MAX_CHARS: Final = 4096
_MAX_DEPTH: Final = 40
_TOKEN: Final = re.compile(
    r"""\s*(?:
      (?P<number>0[xX][0-9a-fA-F_]+|(?:\d[\d_]*)?\.\d[\d_]*(?:[eE][+-]?\d+)?|\d[\d_]*(?:[eE][+-]?\d+)?)
    | (?P<text>"(?:[^"\\]|\\.)*"|'(?:[^'\\]|\\.)*'|`[^`]*`)
    | (?P<name>[A-Za-z_$][A-Za-z0-9_$]*)
    | (?P<sign>\?\?|\?\.|\|\||&&|==|!=|<=|>=|\*\*|[-+*/%^<>!?:.,()\[\]{}|])
    )""",
    re.VERBOSE | re.DOTALL,
)
_BINARY: Final = {
    "or": 10, "||": 10, "and": 15, "&&": 15, "==": 20, "!=": 20, "<": 20, ">": 20, "<=": 20, ">=": 20, "in": 20,
    "matches": 20, "contains": 20, "startsWith": 20, "endsWith": 20, "+": 30, "-": 30, "*": 60, "/": 60, "%": 60,
    "**": 100, "^": 100, "??": 500,
}  # fmt: skip
_UNARY: Final = {"not": 50, "!": 50, "-": 90, "+": 90}
_NEGATABLE: Final = frozenset({"in", "matches", "contains", "startsWith", "endsWith"})
_ROOTS: Final = frozenset({"body", "$", "attributes", "resource"})
_ESCAPES: Final = {"n": "\n", "t": "\t", "r": "\r", "a": "\a", "b": "\b", "f": "\f", "v": "\v", "0": "\0"}
_TRUE, _FALSE = True, False

Environment = Mapping[tuple[str, ...], Any]
"""The values of the fields that an expression refers to, by their paths; Ellipsis: the body has no fields at all."""
Evaluate = Callable[[Environment], Any]


class ExpressionError(Exception):
    """An expression cannot be evaluated with the values of an entry, such as ``len(nil)``."""


@dataclass(frozen=True, slots=True)
class Expression:
    """A parsed expression: one operation and what it is applied to.

    ``kind``: ``field``, ``constant``, the sign of an operation, or ``other``. ``fields`` are the paths of all fields it
    refers to, as ``("attributes", "user", "id")``.
    """

    kind: str
    evaluate: Evaluate
    fields: tuple[tuple[str, ...], ...] = ()
    operands: tuple["Expression", ...] = ()
    value: Any = None


def parse_expression(text: str) -> Expression:
    """The parsed expression.

    Raises:
        ValueError: It is not valid; the message says where.
    """
    if len(text) > _MAX_CHARS:
        raise ValueError(f"an expression must have at most {_MAX_CHARS} characters, but this has {len(text)}")
    parser = _Parser(text)
    made = parser.expression(0)
    parser.expect_end()
    return made


class _Parser:
    def __init__(self, text: str) -> None:
        self._text = text
        self._tokens: list[tuple[str, str, int]] = []
        self._at = 0
        self._depth = 0
        place = 0
        while text[place:].strip():
            match = _TOKEN.match(text, place)
            if match is None:
                raise self._error(f"{text[place:].strip()[:10]!r} is not expected", place)
            self._tokens.append((str(match.lastgroup), match.group(str(match.lastgroup)), match.end()))
            place = match.end()
        self._tokens.append(("end", "", len(text)))

    def _error(self, message: str, place: int | None = None) -> ValueError:
        at = self._tokens[self._at][2] if place is None else place
        return ValueError(f"invalid expression {self._text!r}: {message} (at character {at})")

    @property
    def _sign(self) -> str:
        return self._tokens[self._at][1] if self._tokens[self._at][0] in {"sign", "name"} else ""

    def _take(self, *wanted: str) -> bool:
        if self._sign in wanted and self._sign:
            self._at += 1
            return True
        return False

    def _expect(self, sign: str) -> None:
        if not self._take(sign):
            raise self._error(f"{sign!r} is expected")

    def expect_end(self) -> None:
        if self._tokens[self._at][0] != "end":
            raise self._error(f"{self._tokens[self._at][1]!r} is not expected")

    def expression(self, precedence: int) -> Expression:
        self._depth += 1
        if self._depth > _MAX_DEPTH:
            raise self._error("it nests too deep")
        left = self._unary()
        while True:
            operator = self._sign
            is_negated = operator == "not" and self._tokens[self._at + 1][1] in _NEGATABLE
            if is_negated:
                operator = self._tokens[self._at + 1][1]
            if operator not in _BINARY or _BINARY[operator] < precedence:
                break
            self._at += 2 if is_negated else 1
            right = self.expression(_BINARY[operator] + (operator not in {"**", "^"}))
            left = _binary(operator, left, right, self._error)
            if is_negated:
                left = _negated(left)
        if precedence == 0:
            left = self._conditional(left)
        self._depth -= 1
        return left

    def _conditional(self, condition: Expression) -> Expression:
        if not self._take("?"):
            return condition
        if self._take(":"):
            yes = condition
        else:
            yes = self.expression(0)
            self._expect(":")
        no = self.expression(0)
        test, first, second = condition.evaluate, yes.evaluate, no.evaluate

        def evaluate(environment: Environment) -> Any:
            return first(environment) if _boolean(test(environment)) else second(environment)

        return _made(evaluate, condition, yes, no)

    def _unary(self) -> Expression:
        operator = self._sign
        if operator not in _UNARY:
            return self._postfix(self._primary())
        self._at += 1
        operand = self.expression(_UNARY[operator])
        if operator in {"not", "!"}:
            return _negated(operand)
        inner = operand.evaluate
        sign = -1 if operator == "-" else 1
        return _made(lambda environment: sign * _number(inner(environment)), operand)

    def _primary(self) -> Expression:
        kind, token, _ = self._tokens[self._at]
        if kind == "number":
            self._at += 1
            digits = token.replace("_", "")
            if digits[:2].lower() == "0x":
                return _constant(int(digits, 16))
            return _constant(float(digits) if re.search(r"[.eE]", digits) else int(digits))
        if kind == "text":
            self._at += 1
            return _constant(_unquoted(token))
        if kind == "name":
            return self._name(token)
        if self._take("("):
            inner = self.expression(0)
            self._expect(")")
            return inner
        if self._take("["):
            items = self._list("]")
            getters = [item.evaluate for item in items]
            if all(item.kind == "constant" for item in items):
                return _constant([item.value for item in items])
            return _made(lambda environment: [get(environment) for get in getters], *items)
        if self._take("{"):
            return self._map()
        raise self._error(f"{token!r} is not expected" if token else "it ends too early")

    def _map(self) -> Expression:
        pairs: list[tuple[str, Expression]] = []
        while not self._take("}"):
            kind, token, _ = self._tokens[self._at]
            if kind not in {"text", "name"}:
                raise self._error("a key is expected")
            self._at += 1
            self._expect(":")
            pairs.append((_unquoted(token) if kind == "text" else token, self.expression(0)))
            if not self._take(","):
                self._expect("}")
                break
        if all(item.kind == "constant" for _, item in pairs):
            return _constant({key: item.value for key, item in pairs})
        return _made(
            lambda environment: {key: item.evaluate(environment) for key, item in pairs}, *(item for _, item in pairs)
        )

    def _list(self, closing: str) -> list[Expression]:
        items: list[Expression] = []
        while not self._take(closing):
            items.append(self.expression(0))
            if not self._take(","):
                self._expect(closing)
                break
        return items

    def _name(self, name: str) -> Expression:
        self._at += 1
        if name in {"true", "false"}:
            return _constant(name == "true")
        if name == "nil":
            return _constant(None)
        if self._take("("):
            return self._call(name, self._list(")"))
        if name in _ROOTS:
            return _field(("body",) if name == "$" else (name,))
        if name == "timestamp":
            raise self._error("timestamp is not available; compare the field that the time was read from")
        if name in _BINARY or name in _UNARY:
            raise self._error(f"{name!r} is not expected")
        return _constant(None)  # as in the Collector, unknown variables are nil

    def _call(self, name: str, arguments: list[Expression]) -> Expression:
        if name == "env":
            if len(arguments) != 1 or not isinstance(arguments[0].value, str):
                raise self._error('env needs the name of a variable, as in env("HOME")')
            return _constant(os.environ.get(arguments[0].value, ""))
        function = _FUNCTIONS.get(name)
        if function is None:
            raise self._error(f"there is no function {name!r}; there are {', '.join(sorted({'env', *_FUNCTIONS}))}")
        getters = [argument.evaluate for argument in arguments]

        def evaluate(environment: Environment) -> Any:
            try:
                return function(*(get(environment) for get in getters))
            except (TypeError, ValueError, AttributeError, OverflowError) as error:
                raise ExpressionError(str(error)) from error

        return _made(evaluate, *arguments)

    def _postfix(self, inner: Expression) -> Expression:
        while True:
            is_optional = self._sign == "?."
            if self._take(".", "?."):
                kind, name, _ = self._tokens[self._at]
                if kind != "name":
                    if is_optional and self._sign == "[":
                        continue
                    raise self._error("a name is expected behind the dot")
                self._at += 1
                inner = _member(inner, _constant(name), is_optional=is_optional)
            elif self._take("["):
                if self._take(":"):
                    start: Expression = _constant(0)
                else:
                    start = self.expression(0)
                    if self._take("]"):
                        inner = _member(inner, start, is_optional=False)
                        continue
                    self._expect(":")
                end = _constant(None) if self._sign == "]" else self.expression(0)
                self._expect("]")
                inner = _slice(inner, start, end)
            elif self._take("|"):
                kind, name, _ = self._tokens[self._at]
                if kind != "name":
                    raise self._error("a function is expected behind '|'")
                self._at += 1
                self._expect("(")
                inner = self._call(name, [inner, *self._list(")")])
            else:
                return inner


def _constant(value: Any) -> Expression:
    return Expression("constant", lambda _: value, value=value)


def _field(path: tuple[str, ...]) -> Expression:
    def evaluate(environment: Environment) -> Any:
        found = environment[path]
        if found is ...:
            raise ExpressionError(f"{path[0]} has no fields")
        return found

    return Expression("field", evaluate, (path,), value=path)


def _made(evaluate: Evaluate, *operands: Expression, kind: str = "other", value: Any = None) -> Expression:
    fields = tuple(dict.fromkeys(path for operand in operands for path in operand.fields))
    if kind == "other" and not fields:
        try:
            return _constant(evaluate({}))
        except ExpressionError:
            pass
    return Expression(kind, evaluate, fields, operands, value)


def _member(inner: Expression, key: Expression, *, is_optional: bool) -> Expression:
    if inner.kind == "field" and isinstance(key.value, str) and (len(inner.value) == 1 or is_optional):
        return _field((*inner.value, key.value))
    get, get_key = inner.evaluate, key.evaluate

    def evaluate(environment: Environment) -> Any:
        holder, wanted = get(environment), get_key(environment)
        if holder is None and is_optional:
            return None
        if isinstance(holder, dict) and isinstance(wanted, str):
            return holder.get(wanted)
        if isinstance(holder, (list, str)) and type(wanted) is int and -len(holder) <= wanted < len(holder):
            return holder[wanted]
        raise ExpressionError(f"there is no member {wanted!r}")

    return _made(evaluate, inner, key)


def _slice(inner: Expression, start: Expression, end: Expression) -> Expression:
    get, get_start, get_end = inner.evaluate, start.evaluate, end.evaluate

    def evaluate(environment: Environment) -> Any:
        holder = get(environment)
        if not isinstance(holder, (list, str)):
            raise ExpressionError("only lists and texts have slices")
        return holder[get_start(environment) : get_end(environment)]

    return _made(evaluate, inner, start, end)


def _negated(inner: Expression) -> Expression:
    get = inner.evaluate
    return _made(lambda environment: not _boolean(get(environment)), inner, kind="not" if inner.fields else "other")


def _binary(operator: str, left: Expression, right: Expression, error: Callable[[str], ValueError]) -> Expression:
    first, second = left.evaluate, right.evaluate
    operator = {"||": "or", "&&": "and", "^": "**"}.get(operator, operator)
    evaluate: Evaluate
    if operator == "or":
        evaluate = lambda env: _boolean(first(env)) or _boolean(second(env))  # noqa: E731
    elif operator == "and":
        evaluate = lambda env: _boolean(first(env)) and _boolean(second(env))  # noqa: E731
    elif operator == "??":

        def evaluate(env: Environment) -> Any:
            found = first(env)
            return second(env) if found is None else found

    elif operator == "matches":
        evaluate = _matching(left, right, error)
    else:
        function = _OPERATIONS[operator]
        evaluate = lambda env: function(first(env), second(env))  # noqa: E731
    kind = operator if left.fields or right.fields else "other"
    return _made(evaluate, left, right, kind=kind)


def _matching(left: Expression, right: Expression, error: Callable[[str], ValueError]) -> Evaluate:
    get = left.evaluate
    if right.kind != "constant" or not isinstance(right.value, str):
        raise error("the pattern of matches must be a text in quotes")
    try:
        search = compile_pattern(right.value).search
    except ValueError as exc:
        raise error(str(exc)) from exc

    def evaluate(environment: Environment) -> bool:
        value = get(environment)
        if value is None:
            return False
        if not isinstance(value, str):
            raise ExpressionError("only a text can match a pattern")
        return search(value) is not None

    return evaluate


def _boolean(value: Any) -> bool:
    if value is _TRUE or value is _FALSE:
        return bool(value)
    raise ExpressionError("true or false is expected")


def _number(value: Any) -> int | float:
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return value
    raise ExpressionError("a number is expected")


def _equal(left: Any, right: Any) -> bool:
    if isinstance(left, bool) or isinstance(right, bool):
        return left is right
    if isinstance(left, list) and isinstance(right, list):
        return len(left) == len(right) and all(map(_equal, left, right))
    return bool(left == right)


def _ordered(compare: Callable[[Any, Any], bool]) -> Callable[[Any, Any], bool]:
    def evaluate(left: Any, right: Any) -> bool:
        if isinstance(left, str) and isinstance(right, str):
            return compare(left, right)
        return compare(_number(left), _number(right))

    return evaluate


def _of_texts(compare: Callable[[str, str], bool]) -> Callable[[Any, Any], bool]:
    def evaluate(left: Any, right: Any) -> bool:
        if left is None or right is None:
            return False
        if not isinstance(left, str) or not isinstance(right, str):
            raise ExpressionError("a text is expected")
        return compare(left, right)

    return evaluate


def _within(item: Any, holder: Any) -> bool:
    if holder is None:
        return False
    if isinstance(holder, list):
        return any(_equal(item, member) for member in holder)
    if isinstance(holder, dict):
        return isinstance(item, str) and item in holder
    raise ExpressionError("only a list or a map can contain a value")


def _sum(left: Any, right: Any) -> Any:
    if isinstance(left, str) and isinstance(right, str):
        return left + right
    return _number(left) + _number(right)


def _quotient(left: Any, right: Any) -> float:
    divisor = _number(right)
    if divisor == 0:
        raise ExpressionError("division by zero")
    return _number(left) / divisor


def _remainder(left: Any, right: Any) -> int:
    if type(left) is not int or type(right) is not int or right == 0:
        raise ExpressionError("% needs two integers, the second of which is not zero")
    return abs(left) % abs(right) * (-1 if left < 0 else 1)


def _power(left: Any, right: Any) -> float:
    try:
        return float(float(_number(left)) ** float(_number(right)))
    except (OverflowError, ZeroDivisionError, ValueError) as error:
        raise ExpressionError(str(error)) from error


_OPERATIONS: Final[Mapping[str, Callable[[Any, Any], Any]]] = {
    "==": _equal,
    "!=": lambda left, right: not _equal(left, right),
    "<": _ordered(lambda left, right: left < right),
    ">": _ordered(lambda left, right: left > right),
    "<=": _ordered(lambda left, right: left <= right),
    ">=": _ordered(lambda left, right: left >= right),
    "in": _within,
    "contains": _of_texts(lambda text, part: part in text),
    "startsWith": _of_texts(str.startswith),
    "endsWith": _of_texts(str.endswith),
    "+": _sum,
    "-": lambda left, right: _number(left) - _number(right),
    "*": lambda left, right: _number(left) * _number(right),
    "/": _quotient,
    "%": _remainder,
    "**": _power,
}


def _text_of(value: Any) -> str:
    if value is None:
        return "<nil>"
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value)


def _length(value: Any) -> int:
    if isinstance(value, (str, list, dict)):
        return len(value)
    raise TypeError("len needs a text, a list or a map")


def _is_text(*values: Any) -> None:
    if not all(isinstance(value, str) for value in values):
        raise TypeError("a text is expected")


def _trimmed(value: str, characters: str | None = None) -> str:
    _is_text(value)
    return value.strip(characters)


def _lower(value: str) -> str:
    _is_text(value)
    return value.lower()


def _upper(value: str) -> str:
    _is_text(value)
    return value.upper()


def _split(value: str, separator: str) -> list[str]:
    _is_text(value, separator)
    return value.split(separator) if separator else list(value)


def _join(values: Sequence[str], separator: str = "") -> str:
    _is_text(*values)
    return separator.join(values)


def _integer(value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, (str, int, float)):
        raise TypeError("int needs a number or a text")
    return int(value)


def _real(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, (str, int, float)):
        raise TypeError("float needs a number or a text")
    return float(value)


def _replaced(value: str, old: str, new: str) -> str:
    _is_text(value, old, new)
    return value.replace(old, new)


_FUNCTIONS: Final[Mapping[str, Callable[..., Any]]] = {
    "len": _length,
    "lower": _lower,
    "upper": _upper,
    "trim": _trimmed,
    "trimPrefix": lambda value, prefix: value.removeprefix(prefix),
    "trimSuffix": lambda value, suffix: value.removesuffix(suffix),
    "split": _split,
    "join": _join,
    "replace": _replaced,
    "indexOf": lambda value, part: value.find(part),
    "hasPrefix": lambda value, prefix: value.startswith(prefix),
    "hasSuffix": lambda value, suffix: value.endswith(suffix),
    "int": _integer,
    "float": _real,
    "string": _text_of,
    "keys": lambda value: list(value.keys()),
    "abs": lambda value: abs(_number(value)),
    "max": lambda *values: max(map(_number, values)),
    "min": lambda *values: min(map(_number, values)),
}


def _unquoted(token: str) -> str:
    if token[0] == "`":
        return token[1:-1]

    def plain(match: re.Match[str]) -> str:
        found = match.group(1)
        if found[0] in "xuU":
            return chr(int(found[1:], 16))
        return _ESCAPES.get(found, found)

    return re.sub(r"\\(x[0-9a-fA-F]{2}|u[0-9a-fA-F]{4}|U000[0-9a-fA-F]{5}|.)", plain, token[1:-1], flags=re.DOTALL)
