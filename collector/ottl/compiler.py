"""Compiles the tree of a condition to a function over the columns of a batch, looking up all names once."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any, Final, NoReturn, TypeAlias

import numpy as np

from collector.model.arrays import some
from collector.ottl.all_editors import EDITORS
from collector.ottl.contexts import CONTEXTS, SYMBOLS, TABLES, Context
from collector.ottl.direct import DirectCondition, direct_condition
from collector.ottl.functions import FUNCTIONS, Function, Parameter
from collector.ottl.operations import apply, compare, compute, negate
from collector.ottl.paths import Key, descend
from collector.ottl.resolve import reader, target
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
    Statement,
)
from collector.ottl.targets import Target
from collector.ottl.values import Array, Duration, Kind, Scalar, Time, Values
from collector.ottl.view import View

__all__ = ["CompiledStatement", "Evaluation", "Part", "Predicate", "compile_condition", "compile_statement"]

Evaluation: TypeAlias = tuple[Array, Array]
"""(holds, failed): bool arrays of one row, which stands for all, or of all rows."""
Predicate: TypeAlias = Callable[[View], Evaluation]
"""A compiled condition."""
_Getter: TypeAlias = Callable[[View], Values]

Run: TypeAlias = Callable[[View, Array], Array]
"""Changes the rows of a mask and returns those that failed."""

_BOOLS: Final = frozenset({Kind.BOOL})
_NEVER: Final = np.zeros(1, np.bool_)
_ALWAYS: Final = np.ones(1, np.bool_)


@dataclass(frozen=True, slots=True)
class CompiledStatement:
    """A statement over columns."""

    predicate: Predicate | None
    """None: it applies to all rows."""
    run: Run
    parts: Sequence[Part]
    written: Sequence[tuple[str, tuple[str, ...]]]
    """The tables and locations that it changes."""
    commutes: bool
    """Whether it does the same when it is repeated, and before or after others that do."""
    read: Sequence[tuple[str, str, object]]
    """The tables, first names and first keys of all its paths, targets included."""


def compile_statement(text: str, tree: Statement, context: Context, *, prefixed: bool = False) -> CompiledStatement:
    """The statement over columns. ``prefixed``: every path must start with its context.

    Raises:
        OttlError: a name is unknown in this context, or an argument is not valid.
    """
    compiler = _Compiler(text, context, prefixed=prefixed)
    predicate, run = compiler.statement(tree)
    if predicate is False:
        constant = (_NEVER, _NEVER)
        predicate = lambda _: constant  # noqa: E731
    elif tree.condition is not None and predicate is not True:
        direct = direct_condition([tree.condition], context)
        predicate = predicate if direct is None else _directly(direct, predicate)
    return CompiledStatement(
        None if predicate is True else predicate,
        run,
        compiler.parts,
        compiler.written,
        compiler.commutes,
        compiler.read,
    )


def compile_condition(
    text: str,
    tree: Node,
    context: Context,
    parts: list[Part] | None = None,
    read: list[tuple[str, str, object]] | None = None,
    *,
    prefixed: bool = False,
) -> Predicate:
    """The condition as a function of a view. ``prefixed``: every path must start with its context.

    ``parts`` receives the calls in it, ``read`` the tables, first names and first keys of its paths.

    Raises:
        OttlError: a name is unknown in this context, or there is a value where a condition is required.
    """
    compiler = _Compiler(text, context, prefixed=prefixed)
    predicate = compiler.predicate(tree)
    if parts is not None:
        parts.extend(compiler.parts)
    if read is not None:
        read.extend(compiler.read)
    if isinstance(predicate, bool):
        constant = (_ALWAYS if predicate else _NEVER, _NEVER)
        return lambda _: constant
    return predicate


def _directly(direct: DirectCondition, by_columns: Predicate) -> Predicate:
    """Evaluates row by row if that is possible for a batch."""

    def evaluate(view: View) -> Evaluation:
        found = view.direct(direct)
        return by_columns(view) if found is None else (found[0], _NEVER)

    return evaluate


class _Constant:
    """A getter of a literal: the same value on every row."""

    def __init__(self, value: Scalar) -> None:
        self.value = value
        self._column = Values.constant(value)

    def __call__(self, view: View) -> Values:  # noqa: ARG002 - a getter's signature
        return self._column


class _Argument:
    """A literal argument, which is passed as it is."""

    def __init__(self, value: Scalar) -> None:
        self.value = value

    def __call__(self, view: View) -> Scalar:  # noqa: ARG002 - a getter's signature
        return self.value


def _is_constant(argument: Any) -> bool:
    if isinstance(argument, _Items):
        return all(isinstance(item, _Constant) for item in argument.items)
    return argument is _left_out or isinstance(argument, _Constant | _Argument)


class _Items:
    """The getters of the items of a list argument, and itself the getter of their columns."""

    def __init__(self, items: Sequence[_Getter]) -> None:
        self.items = items

    def __call__(self, view: View) -> list[Values]:
        return [item(view) for item in self.items]


@dataclass(frozen=True, slots=True)
class Part:
    """A call, sum, product or path in a statement or condition, to explain why it failed."""

    name: str
    """What failed, as the subject of "failed, called with (types)" or as a whole sentence without arguments."""
    at: int
    get: _Getter | None
    """None for an editor, which has no value."""
    arguments: Sequence[Any]


class _Compiler:
    def __init__(self, text: str, context: Context, *, prefixed: bool) -> None:
        self._source = text
        self._context = context
        self._prefixed = prefixed
        self.parts: list[Part] = []
        self.written: list[tuple[str, tuple[str, ...]]] = []
        self.commutes = False
        self.read: list[tuple[str, str, object]] = []

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
        if isinstance(left, _Constant) and isinstance(right, _Constant):
            return bool(compare(operator, left(_NO_VIEW), right(_NO_VIEW))[0])

        def evaluate(view: View) -> Evaluation:
            left_values, right_values = left(view), right(view)
            if Kind.FAILED not in left_values.kinds and Kind.FAILED not in right_values.kinds:
                return compare(operator, left_values, right_values), _NEVER
            failed = left_values.failed | right_values.failed
            return compare(operator, left_values, right_values) & ~failed, failed

        return evaluate

    def _call_predicate(self, node: FunctionCall) -> Predicate:
        get = self._call(node)

        def evaluate(view: View) -> Evaluation:
            values = get(view)
            if values.kinds == _BOOLS:
                return values.number != 0, _NEVER
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
                return self._explained("-", node, lambda view: negate(operand(view)), [operand])
            case Chain():
                first = self._number(node.first)
                operands = [(operator, self._number(operand)) for operator, operand in node.operands]
                return self._explained(
                    " ".join(dict.fromkeys(operator for operator, _ in operands)),
                    node,
                    lambda view: _computed(first(view), [(operator, operand(view)) for operator, operand in operands]),
                    [first, *(operand for _, operand in operands)],
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

    def _explained(self, name: str, node: Node, get: _Getter, arguments: Sequence[_Getter]) -> _Getter:
        self.parts.append(Part(name, node.at, get, arguments))
        return get

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
        owner, names, keys, is_own = self._resolved(node)
        try:
            get = reader(owner, names, keys, is_own=is_own)
        except LookupError as exc:
            self._fail(str(exc.args[0]), node)
        if not keys:
            return get
        return self._explained(f"the keys of {'.'.join(names)} do not fit its value", node, get, [])

    def _target(self, node: Node) -> Target:
        if not isinstance(node, Path):
            self._fail("expected a path, which the editor can change", node)
        owner, names, keys, is_own = self._resolved(node)
        try:
            found = target(owner, names, keys, is_own=is_own)
        except LookupError as exc:
            self._fail(str(exc.args[0]), node)
        self.written.append((found.table, found.location))
        return found

    def _resolved(self, node: Path) -> tuple[str, list[str], list[Key | _Getter], bool]:
        """The context that a path is of, its names, its keys, and whether it is of the context of the statement."""
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
        keys = [self._key(key) for key in fields[-1].keys]
        names = [field.name for field in fields]
        is_own = TABLES[owner] == TABLES[self._context]
        self.read.append((TABLES[owner] if names[0] != "cache" else "", names[0], keys[0] if keys else None))
        return owner, names, keys, is_own

    def _key(self, node: Node) -> Key | _Getter:
        """A key: a string or integer literal, or a getter of the key of each row."""
        if isinstance(node, Literal) and type(node.value) in {str, int}:
            return node.value  # type: ignore[return-value]
        getter = self.value(node)
        if isinstance(getter, _Constant):
            if type(getter.value) not in {str, int}:
                self._fail("a key must be a string or an integer", node)
            return getter.value  # type: ignore[no-any-return]
        return getter

    def _call(self, node: FunctionCall) -> _Getter:
        function = self._find(node.name, node)
        arguments, literals = self._arguments(node, function.parameters)
        if function.check is not None:
            try:
                function.check(literals)
            except ValueError as exc:
                self._fail(f"{node.name}: {exc}", node)
        evaluate = function.evaluate()
        arguments = [argument or _left_out for argument in arguments]
        keys = [self._key(key) for key in node.keys]

        def get(view: View) -> Values:
            return evaluate(view, [argument(view) for argument in arguments])

        if function.is_pure and not keys and all(_is_constant(argument) for argument in arguments):
            values = evaluate(_NO_VIEW, [argument(_NO_VIEW) for argument in arguments])
            if len(values) == 1 and values.kind[0] != Kind.FAILED:
                return lambda _: values
            if function.converts_literals:
                self._fail(f"{node.name} cannot convert this value", node)
        self.parts.append(Part(node.name, node.at, get, arguments))
        if not keys:
            return get
        key_getters = [_as_getter(key) for key in keys]
        return lambda view: apply(_element, [get(view), *(key(view) for key in key_getters)])

    def _arguments(self, node: FunctionCall, parameters: Sequence[Parameter]) -> tuple[list[Any], Mapping[int, Scalar]]:
        """What each parameter is given, mostly a getter, and the literals among the arguments by position."""
        given = self._arguments_by_position(node, parameters)
        made: list[Any] = []
        literals: dict[int, Scalar] = {}
        for place, parameter in enumerate(parameters):
            argument = given.get(place)
            form = parameter.form
            if argument is None:
                made.append(None)
            elif form == "target":
                made.append(self._target(argument))
            elif form == "function":
                made.append(self._function(node, argument))
            elif form.startswith("literal"):
                value = self._literal(node, parameter, argument)
                literals[place] = value
                made.append(_Argument(value))
            elif form in {"list", "texts"}:
                if not isinstance(argument, ListOf):
                    self._fail(f"{node.name}: {parameter.name} must be a list in brackets", argument)
                items = [
                    self._checked(node, parameter.name, item, "text" if form == "texts" else "any")
                    for item in argument.items
                ]
                if all(isinstance(item, _Constant) for item in items):
                    literals[place] = [item.value for item in items if isinstance(item, _Constant)]
                made.append(_Items(items))
            else:
                getter = self._checked(node, parameter.name, argument, form)
                if isinstance(getter, _Constant):
                    literals[place] = getter.value
                made.append(getter)
        return made, literals

    def _literal(self, node: FunctionCall, parameter: Parameter, argument: Node) -> Scalar:
        form = parameter.form
        getter = self.value(argument) if not isinstance(argument, Path) else None
        value = getter.value if isinstance(getter, _Constant) else ...
        if form in {"literal texts", "literal floats"}:
            item_type: type = str if form == "literal texts" else float
            name = "string" if item_type is str else "float"
            if type(value) is not list or not all(type(item) is item_type for item in value):
                self._fail(f"{node.name}: {parameter.name} must be a list of {name} literals", argument)
            return value
        expected = {"literal text": str, "literal bool": bool, "literal int": int, "literal float": float}[form]
        if type(value) is int and expected is float and isinstance(argument, Literal):
            self._fail(f"{node.name}: {parameter.name} must be a {form}: write {value}.0", argument)
        if type(value) is not expected:
            self._fail(f"{node.name}: {parameter.name} must be a {form}", argument)
        return value

    def _function(self, node: FunctionCall, argument: Node) -> Callable[[str], Scalar]:
        """A converter of one argument, given by its name, as a function of a text."""
        if not isinstance(argument, Enum):
            self._fail(f"{node.name}: function must be the name of a converter, for example SHA256", argument)
        function = self._find(argument.name, argument)
        if len(function.parameters) != 1:
            self._fail(f"{node.name}: {argument.name} cannot be used here, because it takes other arguments", argument)
        evaluate = function.evaluate()

        def call(text: str) -> Scalar:
            codes, values = evaluate(_NO_VIEW, [Values.constant(text)]).scalars()
            return values[codes[0]]

        return call

    def _find(self, name: str, node: Node) -> Function:
        function = FUNCTIONS.get(name)
        if function is None:
            near = get_close_matches(name, FUNCTIONS, 1, cutoff=0.0)
            self._fail(f"unknown function {name}; did you mean {near[0]}?", node)
        if function.contexts is not None and self._context not in function.contexts:
            self._fail(f"{name} cannot be called in the context {self._context!r}", node)
        return function

    # Statements.

    def statement(self, tree: Statement) -> tuple[Predicate | bool, Run]:
        """The condition and the editor of a statement."""
        node = tree.editor
        editor = EDITORS.get(node.name)
        if editor is None:
            near = get_close_matches(node.name, EDITORS, 1, cutoff=0.0)
            self._fail(f"unknown editor {node.name}; did you mean {near[0]}?", node)
        if editor.contexts is not None and self._context not in editor.contexts:
            self._fail(f"{node.name} cannot be called in the context {self._context!r}", node)
        arguments, literals = self._arguments(node, editor.parameters)
        commutes = editor.commutes and len(literals) == len(arguments) - 1
        if node.name == "set" or commutes:
            self.read.pop(0)  # what the target was does not matter, or not when it is changed
        try:
            run = editor.make(arguments, literals)
        except ValueError as exc:
            self._fail(f"{node.name}: {exc}", node)
        getters = [argument for argument in arguments if not isinstance(argument, Target)]
        targets = [argument.read for argument in arguments if isinstance(argument, Target)]
        self.commutes = commutes
        predicate = True if tree.condition is None else self.predicate(tree.condition)
        self.parts.append(Part(node.name, node.at, None, [*targets, *getters]))  # last: what it is made of comes first
        return predicate, run

    def _checked(self, node: FunctionCall, name: str, argument: Node, form: str) -> _Getter:
        getter = self.value(argument)
        expected = _LITERAL_TYPES.get(form)
        if expected is not None and isinstance(getter, _Constant) and type(getter.value) is not expected[0]:
            self._fail(f"{node.name}: {name} must be {expected[1]}", argument)
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
_LITERAL_TYPES: Final[Mapping[str, tuple[type, str]]] = {
    "text": (str, "a string"),
    "int": (int, "an integer"),
    "map": (dict, "a map"),
    "slice": (list, "a list"),
    "time": (Time, "a time"),
    "duration": (Duration, "a duration"),
}


def _left_out(_: View) -> None:
    """An argument that was not given."""


def _as_getter(key: Key | _Getter) -> _Getter:
    return key if callable(key) else _Constant(key)


def _element(value: Scalar, *keys: Scalar) -> Scalar:
    return descend(value, keys, missing_is_nil=False)


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
