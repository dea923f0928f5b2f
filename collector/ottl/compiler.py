"""Compiles the tree of a condition to a function over the columns of a batch, looking up all names once."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from difflib import get_close_matches
from typing import Any, Final, NoReturn, TypeAlias

import numpy as np

from collector.ottl.contexts import CONTEXTS, SYMBOLS, Context
from collector.ottl.functions import FUNCTIONS, Function, Parameter
from collector.ottl.operations import apply, compare, compute, negate
from collector.ottl.paths import Key, View, descend, path_reader
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
    Signed,
)
from collector.ottl.values import Array, Kind, Scalar, Values

__all__ = ["Evaluation", "Predicate", "compile_condition"]

Evaluation: TypeAlias = tuple[Array, Array]
"""(holds, failed): bool arrays of one row, which stands for all, or of all rows."""
Predicate: TypeAlias = Callable[[View], Evaluation]
"""A compiled condition."""
_Getter: TypeAlias = Callable[[View], Values]

_NEVER: Final = np.zeros(1, np.bool_)
_ALWAYS: Final = np.ones(1, np.bool_)


def compile_condition(text: str, tree: Node, context: Context, *, prefixed: bool = False) -> Predicate:
    """The condition as a function of a view. ``prefixed``: every path must start with its context.

    Raises:
        OttlError: a name is unknown in this context, or there is a value where a condition is required.
    """
    predicate = _Compiler(text, context, prefixed=prefixed).predicate(tree)
    if isinstance(predicate, bool):
        constant = (_ALWAYS if predicate else _NEVER, _NEVER)
        return lambda _: constant
    return predicate


class _Constant:
    """A getter of a literal: the same value on every row."""

    def __init__(self, value: Scalar) -> None:
        self.value = value
        self._column = Values.constant(value)

    def __call__(self, view: View) -> Values:  # noqa: ARG002 - a getter's signature
        return self._column


class _Compiler:
    def __init__(self, text: str, context: Context, *, prefixed: bool) -> None:
        self._source = text
        self._context = context
        self._prefixed = prefixed

    def _fail(self, reason: str, node: Node) -> NoReturn:
        raise OttlError(reason, node.at, self._source)

    # Predicates. One that the text alone decides is a plain bool, so that, as in Go, the other operands are not
    # evaluated and cannot fail.

    def predicate(self, node: Node) -> Predicate | bool:
        match node:
            case Parenthesized():
                return self.predicate(node.inner)
            case Not():
                inner = self.predicate(node.operand)
                if isinstance(inner, bool):
                    return not inner
                return lambda view: _inverted(inner(view))
            case Logic():
                return self._logic(node)
            case Compare():
                return self._comparison(node)
            case Literal() if isinstance(node.value, bool):
                return node.value
            case FunctionCall():
                return self._call_predicate(node)
            case _:
                return self._fail("a value by itself is not a condition; compare it, for example with == or !=", node)

    def _logic(self, node: Logic) -> Predicate | bool:
        deciding_value = node.operator == "or"  # the value of an operand that ends the evaluation
        predicates: list[Predicate] = []
        is_decided = False
        for operand in node.operands:
            predicate = self.predicate(operand)
            if not isinstance(predicate, bool):
                predicates.append(predicate)
            elif predicate is deciding_value:
                is_decided = True
        if is_decided:
            return deciding_value
        if not predicates:
            return not deciding_value
        if len(predicates) == 1:
            return predicates[0]

        def evaluate_all(view: View) -> Evaluation:
            holds, failed = predicates[0](view)
            for predicate in predicates[1:]:
                is_open = ~failed & (holds != deciding_value)
                if not is_open.any():
                    break
                next_holds, next_failed = predicate(view)
                failed = failed | (is_open & next_failed)
                holds = np.where(is_open, next_holds, holds)
            return holds & ~failed, failed

        return evaluate_all

    def _comparison(self, node: Compare) -> Predicate | bool:
        left, right = self.value(node.left), self.value(node.right)
        operator = node.operator
        if isinstance(left, _Constant) and isinstance(right, _Constant):
            return bool(compare(operator, left(_NO_VIEW), right(_NO_VIEW))[0])

        def evaluate(view: View) -> Evaluation:
            left_values, right_values = left(view), right(view)
            failed = left_values.failed | right_values.failed
            return compare(operator, left_values, right_values) & ~failed, failed

        return evaluate

    def _call_predicate(self, node: FunctionCall) -> Predicate:
        get = self._call(node)

        def evaluate(view: View) -> Evaluation:
            values = get(view)
            failed = values.kind != Kind.BOOL
            return (values.number != 0) & ~failed, failed

        return evaluate

    # Values.

    def value(self, node: Node) -> _Getter:
        match node:
            case Literal():
                return _Constant(node.value)
            case Enum():
                return _Constant(self._symbol(node))
            case Path():
                return self._path(node)
            case FunctionCall():
                return self._call(node)
            case ListOf():
                return self._collection(list(map(self.value, node.items)), lambda *items: list(items))
            case MapOf():
                keys = [key for key, _ in node.items]
                return self._collection(
                    [self.value(item) for _, item in node.items], lambda *items: dict(zip(keys, items, strict=True))
                )
            case Signed() | Chain() | Parenthesized():
                return self._number(node)
            case _:
                return self._fail("expected a value, got a condition", node)

    def _collection(self, items: list[_Getter], make: Callable[..., Scalar]) -> _Getter:
        if all(isinstance(item, _Constant) for item in items):
            return _Constant(make(*(item.value for item in items if isinstance(item, _Constant))))
        return lambda view: apply(make, [item(view) for item in items])

    def _number(self, node: Node) -> _Getter:
        """An operand of a sum or product: a number, path or converter; other literals are refused."""
        match node:
            case Parenthesized():
                return self._number(node.inner)
            case Signed():
                operand = self._number(node.operand)
                if node.operator == "+":
                    return operand
                if isinstance(operand, _Constant):
                    return _Constant(-operand.value)
                return lambda view: negate(operand(view))
            case Chain():
                first = self._number(node.first)
                operands = [(operator, self._number(operand)) for operator, operand in node.operands]
                return lambda view: _computed(
                    first(view), [(operator, operand(view)) for operator, operand in operands]
                )
            case Path() | FunctionCall():
                return self.value(node)
            case Literal() if type(node.value) in {int, float}:
                return _Constant(node.value)
            case _:
                return self._fail(
                    "only numbers, paths and converters are allowed in arithmetic and in parentheses around values",
                    node,
                )

    def _symbol(self, node: Enum) -> int:
        symbols = SYMBOLS[self._context]
        if node.name not in symbols:
            if not symbols:
                self._fail(f"the context {self._context!r} does not define symbols such as {node.name}", node)
            near = get_close_matches(node.name, symbols, 1)
            self._fail(
                f"unknown symbol {node.name} in the context {self._context!r}"
                + (f"; did you mean {near[0]}?" if near else ""),
                node,
            )
        return symbols[node.name]

    def _path(self, node: Path) -> _Getter:
        fields = list(node.fields)
        owner: str = self._context
        if len(fields) > 1 and not fields[0].keys and fields[0].name in CONTEXTS[self._context]:
            owner = fields.pop(0).name
        elif self._prefixed:
            self._fail(
                f"the path {fields[0].name!r} must start with its context: write {self._context}.{fields[0].name}", node
            )
        elif len(fields) > 1 and not fields[0].keys and any(fields[0].name in names for names in CONTEXTS.values()):
            self._fail(
                f"{fields[0].name!r} cannot be read in the context {self._context!r}, "
                f"only {', '.join(CONTEXTS[self._context])}",
                node,
            )
        if any(field.keys for field in fields[:-1]):
            self._fail("keys are only allowed after the last name of a path", node)
        try:
            return path_reader(owner, [field.name for field in fields], self._keys(fields[-1].keys))
        except LookupError as exc:
            self._fail(str(exc.args[0]), node)

    def _keys(self, nodes: Sequence[Node]) -> list[Key]:
        keys: list[Key] = []
        for node in nodes:
            if not isinstance(node, Literal) or type(node.value) not in {str, int}:
                self._fail("a key must be a string or integer literal", node)
            keys.append(node.value)  # type: ignore[arg-type]
        return keys

    def _call(self, node: FunctionCall) -> _Getter:
        function = FUNCTIONS.get(node.name)
        if function is None or (function.contexts is not None and self._context not in function.contexts):
            if function is not None:
                self._fail(f"{node.name} cannot be called in the context {self._context!r}", node)
            near = get_close_matches(node.name, FUNCTIONS, 1, cutoff=0.0)
            self._fail(f"unknown function {node.name}; did you mean {near[0]}?", node)
        arguments, literals = self._arguments(node, function)
        if function.check is not None:
            try:
                function.check(literals)
            except ValueError as exc:
                self._fail(f"{node.name}: {exc}", node)
        evaluate = function.evaluate()
        keys = self._keys(node.keys)

        def get(view: View) -> Values:
            return evaluate(view, [argument(view) for argument in arguments])

        if not keys:
            return get
        return lambda view: apply(lambda value: descend(value, keys, missing_is_nil=False), [get(view)])

    def _arguments(
        self, node: FunctionCall, function: Function
    ) -> tuple[list[Callable[[View], Any]], Mapping[int, Scalar]]:
        """A getter of each parameter, and the literals among the arguments by position."""
        given = self._arguments_by_position(node, function.parameters)
        getters: list[Callable[[View], Any]] = []
        literals: dict[int, Scalar] = {}
        for place, parameter in enumerate(function.parameters):
            argument = given.get(place)
            if argument is None:
                getters.append(lambda _: None)
                continue
            form = parameter.form
            if form.startswith("literal"):
                expected: type = str if form == "literal text" else bool
                if not isinstance(argument, Literal) or type(argument.value) is not expected:
                    self._fail(f"{node.name}: {parameter.name} must be a {form}", argument)
                literals[place] = argument.value
                getters.append(lambda _, value=argument.value: value)  # type: ignore[misc]
            elif form in {"list", "texts"}:
                if not isinstance(argument, ListOf):
                    self._fail(f"{node.name}: {parameter.name} must be a list in brackets", argument)
                items = [
                    self._checked(node, parameter.name, item, "text" if form == "texts" else "any")
                    for item in argument.items
                ]
                if all(isinstance(item, _Constant) for item in items):
                    literals[place] = [item.value for item in items if isinstance(item, _Constant)]
                getters.append(lambda view, items=items: [item(view) for item in items])  # type: ignore[misc]
            else:
                getter = self._checked(node, parameter.name, argument, form)
                if isinstance(getter, _Constant):
                    literals[place] = getter.value
                getters.append(getter)
        return getters, literals

    def _checked(self, node: FunctionCall, name: str, argument: Node, form: str) -> _Getter:
        getter = self.value(argument)
        expected = {"text": str, "int": int}.get(form)
        if expected is not None and isinstance(getter, _Constant) and type(getter.value) is not expected:
            self._fail(f"{node.name}: {name} must be {'a string' if form == 'text' else 'an integer'}", argument)
        return getter

    def _arguments_by_position(self, node: FunctionCall, parameters: Sequence[Parameter]) -> dict[int, Node]:
        given: dict[int, Node] = {}
        names = [parameter.name for parameter in parameters]
        seen_name = False
        for place, (name, argument) in enumerate(node.arguments):
            if name and name not in names:
                near = get_close_matches(name, names, 1, cutoff=0.0)
                self._fail(
                    f"{node.name} does not have a parameter {name!r}"
                    + (f"; did you mean {near[0]!r}?" if near else ""),
                    argument,
                )
            if seen_name and not name:
                self._fail("a positional argument follows a named argument", argument)
            seen_name = seen_name or bool(name)
            position = names.index(name) if name else place
            if position >= len(names) or position in given:
                self._fail(f"{node.name} takes {_signature(parameters)}", node)
            given[position] = argument
        if any(place not in given and not parameter.optional for place, parameter in enumerate(parameters)):
            self._fail(f"{node.name} takes {_signature(parameters)}", node)
        return given


_NO_VIEW: Any = None  # constants do not use it


def _signature(parameters: Sequence[Parameter]) -> str:
    names = ", ".join(f"[{parameter.name}]" if parameter.optional else parameter.name for parameter in parameters)
    return f"({names})" if names else "no arguments"


def _inverted(evaluation: Evaluation) -> Evaluation:
    holds, failed = evaluation
    return ~holds & ~failed, failed


def _computed(values: Values, operands: Sequence[tuple[str, Values]]) -> Values:
    for operator, operand in operands:
        values = compute(operator, values, operand)
    return values
