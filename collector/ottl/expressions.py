"""Compiles the tree of a condition or value to a function over the columns of a batch, looking up all names once.

A condition that its text alone decides is a plain bool, so that, as in Go, the other operands are not evaluated and
cannot fail.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any, Final, NoReturn

import numpy as np

from collector.model.arrays import some
from collector.ottl.contexts import CONTEXTS, SYMBOLS, TABLES, Context
from collector.ottl.functions import FUNCTIONS, Function, Parameter
from collector.ottl.getters import NEVER, NO_VIEW, Constant, Evaluation, Getter, Part, Predicate, is_constant, left_out
from collector.ottl.operations import apply, compare, compute, negate
from collector.ottl.paths import Key, descend
from collector.ottl.resolve import reader
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
from collector.ottl.values import Kind, Scalar, Values

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from collector.ottl.view import View

__all__ = ["ExpressionCompiler"]

_BOOLS: Final = frozenset({Kind.BOOL})


class ExpressionCompiler(ABC):
    """Compiles the expressions of one condition or statement."""

    def __init__(self, text: str, context: Context, *, prefixed: bool) -> None:
        self._source = text
        self.context = context
        self._prefixed = prefixed
        self.parts: list[Part] = []
        self.read: list[tuple[str, str, object]] = []

    @abstractmethod
    def arguments(self, node: FunctionCall, parameters: Sequence[Parameter]) -> tuple[list[Any], Mapping[int, Scalar]]:
        """What each parameter is given, mostly a getter, and the literals among the arguments by position."""

    def fail(self, reason: str, node: Node) -> NoReturn:
        """Refuse a node.

        Raises:
            OttlError: always.
        """
        raise OttlError(reason, node.at, self._source)

    # Predicates. One that the text alone decides is a plain bool, so that, as in Go, the other operands are not
    # evaluated and cannot fail.

    def predicate(self, node: Node) -> Predicate | bool:
        """A condition."""
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
                return self.fail("a value by itself is not a condition; compare it, for example with == or !=", node)

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
                if not some(is_open):
                    break
                next_holds, next_failed = predicate(view)
                failed = failed | (is_open & next_failed)
                holds = np.where(is_open, next_holds, holds)
            return holds & ~failed, failed

        return evaluate_all

    def _comparison(self, node: Compare) -> Predicate | bool:
        left, right = self.value(node.left), self.value(node.right)
        operator = node.operator
        if isinstance(left, Constant) and isinstance(right, Constant):
            return bool(compare(operator, left(NO_VIEW), right(NO_VIEW))[0])

        def evaluate(view: View) -> Evaluation:
            left_values, right_values = left(view), right(view)
            if Kind.FAILED not in left_values.kinds and Kind.FAILED not in right_values.kinds:
                return compare(operator, left_values, right_values), NEVER
            failed = left_values.failed | right_values.failed
            return compare(operator, left_values, right_values) & ~failed, failed

        return evaluate

    def _call_predicate(self, node: FunctionCall) -> Predicate:
        get = self._call(node)

        def evaluate(view: View) -> Evaluation:
            values = get(view)
            if values.kinds == _BOOLS:
                return values.number != 0, NEVER
            failed = values.kind != Kind.BOOL
            return (values.number != 0) & ~failed, failed

        return evaluate

    # Values.

    def value(self, node: Node) -> Getter:
        """A value."""
        match node:
            case Literal():
                return Constant(node.value)
            case Enum():
                return Constant(self._symbol(node))
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
                return self.fail("expected a value, got a condition", node)

    def _collection(self, items: list[Getter], make: Callable[..., Scalar]) -> Getter:
        if all(isinstance(item, Constant) for item in items):
            return Constant(make(*(item.value for item in items if isinstance(item, Constant))))
        return lambda view: apply(make, [item(view) for item in items])

    def _number(self, node: Node) -> Getter:
        """An operand of a sum or product: a number, path or converter; other literals are refused."""
        match node:
            case Parenthesized():
                return self._number(node.inner)
            case Signed():
                operand = self._number(node.operand)
                if node.operator == "+":
                    return operand
                if isinstance(operand, Constant):
                    return Constant(-operand.value)
                return self.explained("-", node, lambda view: negate(operand(view)), [operand])
            case Chain():
                first = self._number(node.first)
                operands = [(operator, self._number(operand)) for operator, operand in node.operands]
                return self.explained(
                    " ".join(dict.fromkeys(operator for operator, _ in operands)),
                    node,
                    lambda view: _computed(first(view), [(operator, operand(view)) for operator, operand in operands]),
                    [first, *(operand for _, operand in operands)],
                )
            case Path() | FunctionCall():
                return self.value(node)
            case Literal() if type(node.value) in {int, float}:
                return Constant(node.value)
            case _:
                return self.fail(
                    "only numbers, paths and converters are allowed in arithmetic and in parentheses around values",
                    node,
                )

    def explained(self, name: str, node: Node, get: Getter, arguments: Sequence[Getter]) -> Getter:
        """The getter, which is kept to explain why it failed."""
        self.parts.append(Part(name, node.at, get, arguments))
        return get

    def _symbol(self, node: Enum) -> int:
        symbols = SYMBOLS[self.context]
        if node.name not in symbols:
            if not symbols:
                self.fail(f"the context {self.context!r} does not define symbols such as {node.name}", node)
            near = get_close_matches(node.name, symbols, 1)
            self.fail(
                f"unknown symbol {node.name} in the context {self.context!r}"
                + (f"; did you mean {near[0]}?" if near else ""),
                node,
            )
        return symbols[node.name]

    def _path(self, node: Path) -> Getter:
        owner, names, keys, is_own = self.resolved(node)
        try:
            get = reader(owner, names, keys, is_own=is_own)
        except LookupError as exc:
            self.fail(str(exc.args[0]), node)
        if not keys:
            return get
        return self.explained(f"the keys of {'.'.join(names)} do not fit its value", node, get, [])

    def resolved(self, node: Path) -> tuple[str, list[str], list[Key | Getter], bool]:
        """The context that a path is of, its names, its keys, and whether it is of the context of the statement."""
        fields = list(node.fields)
        owner: str = self.context
        if len(fields) > 1 and not fields[0].keys and fields[0].name in CONTEXTS[self.context]:
            owner = fields.pop(0).name
        elif self._prefixed:
            self.fail(
                f"the path {fields[0].name!r} must start with its context: write {self.context}.{fields[0].name}", node
            )
        elif len(fields) > 1 and not fields[0].keys and any(fields[0].name in names for names in CONTEXTS.values()):
            self.fail(
                f"{fields[0].name!r} cannot be read in the context {self.context!r}, "
                f"only {', '.join(CONTEXTS[self.context])}",
                node,
            )
        if any(field.keys for field in fields[:-1]):
            self.fail("keys are only allowed after the last name of a path", node)
        keys = [self._key(key) for key in fields[-1].keys]
        names = [field.name for field in fields]
        is_own = TABLES[owner] == TABLES[self.context]
        self.read.append((TABLES[owner] if names[0] != "cache" else "", names[0], keys[0] if keys else None))
        return owner, names, keys, is_own

    def _key(self, node: Node) -> Key | Getter:
        """A key: a string or integer literal, or a getter of the key of each row."""
        if isinstance(node, Literal) and type(node.value) in {str, int}:
            return node.value  # type: ignore[return-value]
        getter = self.value(node)
        if isinstance(getter, Constant):
            if type(getter.value) not in {str, int}:
                self.fail("a key must be a string or an integer", node)
            return getter.value  # type: ignore[no-any-return]
        return getter

    def _call(self, node: FunctionCall) -> Getter:
        function = self.find_function(node.name, node)
        arguments, literals = self.arguments(node, function.parameters)
        if function.check is not None:
            try:
                function.check(literals)
            except ValueError as exc:
                self.fail(f"{node.name}: {exc}", node)
        evaluate = function.evaluate()
        arguments = [argument or left_out for argument in arguments]
        keys = [self._key(key) for key in node.keys]

        def get(view: View) -> Values:
            return evaluate(view, [argument(view) for argument in arguments])

        if function.is_pure and not keys and all(is_constant(argument) for argument in arguments):
            values = evaluate(NO_VIEW, [argument(NO_VIEW) for argument in arguments])
            if len(values) == 1 and values.kind[0] != Kind.FAILED:
                return lambda _: values
            if function.converts_literals:
                self.fail(f"{node.name} cannot convert this value", node)
        self.parts.append(Part(node.name, node.at, get, arguments))
        if not keys:
            return get
        key_getters = [_as_getter(key) for key in keys]
        return lambda view: apply(_element, [get(view), *(key(view) for key in key_getters)])

    def find_function(self, name: str, node: Node) -> Function:
        """The converter with a name that the context has."""
        function = FUNCTIONS.get(name)
        if function is None:
            near = get_close_matches(name, FUNCTIONS, 1, cutoff=0.0)
            self.fail(f"unknown function {name}; did you mean {near[0]}?", node)
        if function.contexts is not None and self.context not in function.contexts:
            self.fail(f"{name} cannot be called in the context {self.context!r}", node)
        return function


def _as_getter(key: Key | Getter) -> Getter:
    return key if callable(key) else Constant(key)


def _element(value: Scalar, *keys: Scalar) -> Scalar:
    return descend(value, keys, missing_is_nil=False)


def _inverted(evaluation: Evaluation) -> Evaluation:
    holds, failed = evaluation
    return ~holds & ~failed, failed


def _computed(values: Values, operands: Sequence[tuple[str, Values]]) -> Values:
    for operator, operand in operands:
        values = compute(operator, values, operand)
    return values
