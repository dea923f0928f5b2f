"""From the tree of a condition to a function over a batch's columns. Paths, symbols and converters are looked up here, once."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from difflib import get_close_matches
from typing import Any, Final, NoReturn, TypeAlias

import numpy as np

from collector.ottl.functions import FUNCTIONS, Function, Parameter
from collector.ottl.paths import CONTEXTS, SYMBOLS, Context, Key, View, index, known_context, path_reader
from collector.ottl.syntax import (
    Call,
    Chain,
    Compare,
    Enum,
    Group,
    ListOf,
    Literal,
    Logic,
    MapOf,
    Node,
    Not,
    OttlError,
    Path,
    Signed,
)
from collector.ottl.values import Array, Kind, Scalar, Values, apply, compare, compute, negate

__all__ = ["Test", "Truth", "compile_truth"]

Truth: TypeAlias = tuple[Array, Array]
"""(holds, failed), bool of one row or of all."""
Test: TypeAlias = Callable[[View], Truth]
"""A condition, ready to be asked of a batch."""
_Get: TypeAlias = Callable[[View], Values]

_NEVER: Final = np.zeros(1, np.bool_)
_ALWAYS: Final = np.ones(1, np.bool_)


def compile_truth(text: str, tree: Node, context: Context, *, prefixed: bool = False) -> Test:
    """The test a condition is. ``prefixed``: every path must name its context.

    Raises:
        OttlError: a name is not known in this context, or a value stands where a truth must.
    """
    test = _Compiler(text, context, prefixed=prefixed).truth(tree)
    if isinstance(test, bool):
        decided = (_ALWAYS if test else _NEVER, _NEVER)
        return lambda _: decided
    return test


class _Constant:
    """A value that is written out: as a getter it is the same on every row."""

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

    # Truths. What is decided by the text alone is a plain bool, so that an operand that would fail is not asked beside
    # it, as in Go.

    def truth(self, node: Node) -> Test | bool:
        match node:
            case Group():
                return self.truth(node.inner)
            case Not():
                inner = self.truth(node.operand)
                if isinstance(inner, bool):
                    return not inner
                return lambda view: _inverted(inner(view))
            case Logic():
                return self._logic(node)
            case Compare():
                return self._comparison(node)
            case Literal() if isinstance(node.value, bool):
                return node.value
            case Call():
                return self._call_truth(node)
            case _:
                return self._fail("a value alone is no condition: compare it, for example with == or !=", node)

    def _logic(self, node: Logic) -> Test | bool:
        decides = node.operator == "or"  # the operand value that ends the evaluation
        tests: list[Test] = []
        decided = False
        for operand in node.operands:
            test = self.truth(operand)
            if not isinstance(test, bool):
                tests.append(test)
            elif test is decides:
                decided = True
        if decided:
            return decides
        if not tests:
            return not decides
        if len(tests) == 1:
            return tests[0]

        def test_all(view: View) -> Truth:
            holds, failed = tests[0](view)
            for test in tests[1:]:
                open_rows = ~failed & (holds != decides)
                if not open_rows.any():
                    break
                next_holds, next_failed = test(view)
                failed = failed | (open_rows & next_failed)
                holds = np.where(open_rows, next_holds, holds)
            return holds & ~failed, failed

        return test_all

    def _comparison(self, node: Compare) -> Test | bool:
        left, right = self.value(node.left), self.value(node.right)
        operator = node.operator
        if isinstance(left, _Constant) and isinstance(right, _Constant):
            return bool(compare(operator, left(_NO_VIEW), right(_NO_VIEW))[0])

        def test(view: View) -> Truth:
            ours, theirs = left(view), right(view)
            failed = ours.failed | theirs.failed
            return compare(operator, ours, theirs) & ~failed, failed

        return test

    def _call_truth(self, node: Call) -> Test:
        get = self._call(node)

        def test(view: View) -> Truth:
            values = get(view)
            failed = values.kind != Kind.BOOL
            return (values.number != 0) & ~failed, failed

        return test

    # Values.

    def value(self, node: Node) -> _Get:
        match node:
            case Literal():
                return _Constant(node.value)
            case Enum():
                return _Constant(self._symbol(node))
            case Path():
                return self._path(node)
            case Call():
                return self._call(node)
            case ListOf():
                return self._collection(list(map(self.value, node.items)), lambda *items: list(items))
            case MapOf():
                keys = [key for key, _ in node.items]
                return self._collection(
                    [self.value(item) for _, item in node.items], lambda *items: dict(zip(keys, items, strict=True))
                )
            case Signed() | Chain() | Group():
                return self._number(node)
            case _:
                return self._fail("a condition cannot stand where a value must", node)

    def _collection(self, items: list[_Get], make: Callable[..., Scalar]) -> _Get:
        if all(isinstance(item, _Constant) for item in items):
            return _Constant(make(*(item.value for item in items if isinstance(item, _Constant))))
        return lambda view: apply(make, [item(view) for item in items])

    def _number(self, node: Node) -> _Get:
        """An operand of a sum or product: numbers, paths and converters; other literals are refused."""
        match node:
            case Group():
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
                rest = [(operator, self._number(operand)) for operator, operand in node.rest]
                return lambda view: _computed(first(view), [(operator, operand(view)) for operator, operand in rest])
            case Path() | Call():
                return self.value(node)
            case Literal() if type(node.value) in {int, float}:
                return _Constant(node.value)
            case _:
                return self._fail(
                    "only numbers, paths and converters can stand in parentheses or be computed with", node
                )

    def _symbol(self, node: Enum) -> int:
        symbols = SYMBOLS[self._context]
        if node.name not in symbols:
            if not symbols:
                self._fail(f"the {self._context} context has no symbols such as {node.name}", node)
            near = get_close_matches(node.name, symbols, 1)
            self._fail(
                f"unknown symbol {node.name}"
                + (f": did you mean {near[0]}?" if near else f" in the {self._context} context"),
                node,
            )
        return symbols[node.name]

    def _path(self, node: Path) -> _Get:
        fields = list(node.fields)
        owner: str = self._context
        if len(fields) > 1 and not fields[0].keys and known_context(fields[0].name, self._context):
            owner = fields.pop(0).name
        elif self._prefixed:
            self._fail(f"{fields[0].name!r} does not say whose it is: write {self._context}.{fields[0].name}", node)
        elif len(fields) > 1 and not fields[0].keys and any(fields[0].name in names for names in CONTEXTS.values()):
            self._fail(
                f"{fields[0].name!r} cannot be read in the {self._context} context: {', '.join(CONTEXTS[self._context])} can",
                node,
            )
        if any(field.keys for field in fields[:-1]):
            self._fail("keys stand behind the last name of a path", node)
        try:
            return path_reader(owner, [field.name for field in fields], self._keys(fields[-1].keys))
        except LookupError as exc:
            self._fail(str(exc.args[0]), node)

    def _keys(self, nodes: Sequence[Node]) -> list[Key]:
        keys: list[Key] = []
        for node in nodes:
            if not isinstance(node, Literal) or type(node.value) not in {str, int}:
                self._fail("a key is a text or a whole number written out", node)
            keys.append(node.value)  # type: ignore[arg-type]
        return keys

    def _call(self, node: Call) -> _Get:
        function = FUNCTIONS.get(node.name)
        if function is None or (function.contexts is not None and self._context not in function.contexts):
            if function is not None:
                self._fail(f"{node.name} cannot be called in the {self._context} context", node)
            near = get_close_matches(node.name, FUNCTIONS, 1, cutoff=0.0)
            self._fail(f"unknown function {node.name}: did you mean {near[0]}?", node)
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
        return lambda view: apply(lambda value: index(value, keys, missing_is_nil=False), [get(view)])

    def _arguments(self, node: Call, function: Function) -> tuple[list[Callable[[View], Any]], Mapping[int, Scalar]]:
        """How each parameter is had, and the literals among them by position."""
        given = self._placed(node, function.parameters)
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
                    self._fail(f"{node.name}: {parameter.name} is a {form}", argument)
                literals[place] = argument.value
                getters.append(lambda _, value=argument.value: value)  # type: ignore[misc]
            elif form in {"list", "texts"}:
                if not isinstance(argument, ListOf):
                    self._fail(f"{node.name}: {parameter.name} is a list in brackets", argument)
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

    def _checked(self, node: Call, name: str, argument: Node, form: str) -> _Get:
        getter = self.value(argument)
        expected = {"text": str, "int": int}.get(form)
        if expected is not None and isinstance(getter, _Constant) and type(getter.value) is not expected:
            self._fail(f"{node.name}: {name} is {'a text' if form == 'text' else 'a whole number'}", argument)
        return getter

    def _placed(self, node: Call, parameters: Sequence[Parameter]) -> dict[int, Node]:
        given: dict[int, Node] = {}
        names = [parameter.name for parameter in parameters]
        named = False
        for place, (name, argument) in enumerate(node.arguments):
            if name and name not in names:
                near = get_close_matches(name, names, 1, cutoff=0.0)
                self._fail(
                    f"{node.name} has no parameter {name!r}" + (f": did you mean {near[0]!r}?" if near else ""),
                    argument,
                )
            if named and not name:
                self._fail("an argument without a name behind one with a name", argument)
            named = named or bool(name)
            at = names.index(name) if name else place
            if at >= len(names) or at in given:
                self._fail(f"{node.name} takes {_count(parameters)}", node)
            given[at] = argument
        if any(place not in given and not parameter.optional for place, parameter in enumerate(parameters)):
            self._fail(f"{node.name} takes {_count(parameters)}", node)
        return given


_NO_VIEW: Any = None  # constants do not look at it


def _count(parameters: Sequence[Parameter]) -> str:
    names = ", ".join(f"[{parameter.name}]" if parameter.optional else parameter.name for parameter in parameters)
    return f"({names})" if names else "no arguments"


def _inverted(truth: Truth) -> Truth:
    holds, failed = truth
    return ~holds & ~failed, failed


def _computed(values: Values, rest: Sequence[tuple[str, Values]]) -> Values:
    for operator, operand in rest:
        values = compute(operator, values, operand)
    return values
