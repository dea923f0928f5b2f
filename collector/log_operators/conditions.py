"""Expressions over blocks of entries: conditions as masks, values once per distinct combination of fields.

``and``, ``or`` and ``not`` are masks, and the usual tests of a text against a constant are compiled. Everything else is
evaluated in Python, once per distinct combination of the fields it refers to.
"""

from collections.abc import Callable, Sequence
from typing import Any, Final, TypeAlias

import numpy as np
from numpy.typing import NDArray

from collector.log_operators.entries import Entries, Path
from collector.log_operators.expressions import Expression, ExpressionError, parse_expression
from collector.log_operators.fields import ATTRIBUTES, BODY, RESOURCE
from collector.log_operators.prefixes import prefix_masks
from collector.text.patterns import span_finder

__all__ = ["Condition", "Rows", "Template", "Value"]

Rows: TypeAlias = NDArray[np.int32]
"""Numbers of rows of a block of entries."""
_Flags: TypeAlias = NDArray[np.uint8]
"""0: false, 1: true, 2: the expression cannot be evaluated for the row."""
_Evaluate: TypeAlias = Callable[[Entries, Rows], _Flags]

_FALSE: Final = 0
_TRUE: Final = 1
_ERROR: Final = 2
_TESTS: Final = {"==": 0, "startsWith": 1, "endsWith": 2, "contains": 3}
_ROOTS: Final = {"body": BODY, "attributes": ATTRIBUTES, "resource": RESOURCE}
_DISTINCT_MAX: Final = 4096  # of combinations that are kept within a block
_MISSING: Final[Any] = object()


class Condition:
    """A condition on entries.

    >>> from collector.log_operators.conditions import Condition
    >>> Condition('body matches "^ERROR" and attributes.stream == "stderr"').text[:12]
    'body matches'
    """

    def __init__(self, text: str) -> None:
        """Compile it.

        Raises:
            ValueError: It is not a valid expression.
        """
        self.text = text
        self._evaluate = _compiled(parse_expression(text))

    def test(self, entries: Entries, rows: Rows) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
        """``(holds, failed)``, both bool[n]: the rows for which it holds, and those for which it has no value."""
        flags = self._evaluate(entries, rows)
        return flags == _TRUE, flags == _ERROR


class Value:
    """An expression whose values are written to entries."""

    def __init__(self, text: str) -> None:
        """Compile it.

        Raises:
            ValueError: It is not a valid expression.
        """
        self._expression = parse_expression(text)
        self._get = _per_distinct(self._expression)

    def of(self, entries: Entries, rows: Rows) -> list[Any]:
        """The value for each row; Ellipsis where it has none."""
        return self._get(entries, rows)


class Template:
    """A text with expressions in it, such as ``host-EXPR(attributes.host)``."""

    def __init__(self, text: str) -> None:
        """Compile it.

        Raises:
            ValueError: An expression in it is not valid.
        """
        self._parts: list[str | Value] = []
        at = 0
        while (start := text.find("EXPR(", at)) >= 0:
            following = text.find("EXPR(", start + 5)
            end = text.rfind(")", start, following if following >= 0 else len(text))
            if end < 0:
                break
            self._parts += [text[at:start], Value(text[start + 5 : end])]
            at = end + 1
        self._parts.append(text[at:])

    @property
    def constant(self) -> str | None:
        """The text if there is no expression in it."""
        return self._parts[0] if len(self._parts) == 1 and isinstance(self._parts[0], str) else None

    def of(self, entries: Entries, rows: Rows) -> list[Any]:
        """The text for each row; Ellipsis where an expression has no value or one that is not a text."""
        columns = [[part] * len(rows) if isinstance(part, str) else part.of(entries, rows) for part in self._parts]
        return [
            "".join(parts) if all(isinstance(part, str) for part in parts) else ...
            for parts in zip(*columns, strict=True)
        ]


def _path(path: Sequence[str]) -> Path:
    return Path(_ROOTS[path[0]], tuple(path[1:]), ".".join(path))


def _compiled(expression: Expression) -> _Evaluate:
    if expression.kind == "constant":
        flag = _flag(expression.value)
        return lambda _, rows: np.full(len(rows), flag, np.uint8)
    if expression.kind in {"and", "or"}:
        return _junction(expression)
    if expression.kind == "not":
        inner = _compiled(expression.operands[0])
        table = np.array([_TRUE, _FALSE, _ERROR], np.uint8)
        return lambda entries, rows: table[inner(entries, rows)]
    compiled = _compiled_test(expression)
    if compiled is not None:
        return compiled
    get = _per_distinct(expression, _flag)

    def evaluate(entries: Entries, rows: Rows) -> _Flags:
        return np.array([_ERROR if flag is ... else flag for flag in get(entries, rows)], np.uint8)

    return evaluate


def _junction(expression: Expression) -> _Evaluate:
    """``and`` and ``or``: the second operand is only evaluated where the first does not decide."""
    left, right = map(_compiled, expression.operands)
    undecided = _TRUE if expression.kind == "and" else _FALSE

    def evaluate(entries: Entries, rows: Rows) -> _Flags:
        flags = left(entries, rows).copy()
        rest = flags == undecided
        if rest.any():
            flags[rest] = right(entries, np.ascontiguousarray(rows[rest]))
        return flags

    return evaluate


def _compiled_test(expression: Expression) -> _Evaluate | None:
    """A test of a field against a constant; None if the expression is something else."""
    if len(expression.operands) != 2:
        return None
    field, constant = expression.operands
    if field.kind == "constant" and expression.kind in {"==", "!="}:
        field, constant = constant, field
    if field.kind != "field" or constant.kind != "constant":
        return None
    path = _path(field.value)
    if expression.kind in {"==", "!="} and constant.value is None:
        table = np.array([0, 1, 0, 2] if expression.kind == "==" else [1, 0, 0, 2], np.uint8)
        return lambda entries, rows: table[entries.is_nil(rows, path)]
    if expression.kind == "matches":
        match, masks = span_finder(constant.value), prefix_masks(constant.value)
        table = np.array([0, 1, 2, 2], np.uint8)
        return lambda entries, rows: table[entries.match_texts(rows, path, match, masks)]
    kind = "==" if expression.kind == "!=" else expression.kind
    if kind not in _TESTS or not isinstance(constant.value, str):
        return None
    wanted, number = constant.value.encode("utf-8", "replace"), _TESTS[kind]
    table = np.array({"==": [0, 1, 0, 2], "!=": [1, 0, 1, 2]}.get(expression.kind, [0, 1, 2, 2]), np.uint8)
    return lambda entries, rows: table[entries.test_text(rows, path, number, wanted)]


def _flag(value: Any) -> int:
    return (_TRUE if value else _FALSE) if isinstance(value, bool) else _ERROR


def _same(value: Any) -> Any:
    return value


def _per_distinct(
    expression: Expression, convert: Callable[[Any], Any] = _same
) -> Callable[[Entries, Rows], list[Any]]:
    """A function that returns the value for each row, evaluated once per distinct combination of fields."""
    fields = expression.fields
    paths = [_path(field) for field in fields]
    if expression.kind == "constant":
        return lambda _, rows: [convert(expression.value)] * len(rows)

    def evaluate(entries: Entries, rows: Rows) -> list[Any]:
        known: dict[Any, Any] = {}
        made = []
        columns = [entries.values(rows, path) for path in paths] or [[None] * len(rows)]
        for values in zip(*columns, strict=True):
            key: Any = tuple((type(value), value) for value in values)
            try:
                result = known.get(key, _MISSING)
            except TypeError:  # a map or a list, which is not hashable
                result = _MISSING
                key = None
            if result is _MISSING:
                try:
                    result = convert(expression.evaluate(dict(zip(fields, values, strict=False))))
                except ExpressionError:
                    result = ...
                if key is not None and len(known) < _DISTINCT_MAX:
                    known[key] = result
            made.append(result)
        return made

    return evaluate
