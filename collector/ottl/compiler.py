"""Compiles conditions and statements to functions over the columns of a batch, and the arguments of calls in them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from collector.ottl.all_editors import EDITORS
from collector.ottl.direct import DirectCondition, direct_condition
from collector.ottl.expressions import ExpressionCompiler
from collector.ottl.getters import (
    ALWAYS,
    NEVER,
    NO_VIEW,
    Argument,
    Constant,
    Evaluation,
    Getter,
    Items,
    Part,
    Predicate,
)
from collector.ottl.resolve import target
from collector.ottl.syntax import Enum, FunctionCall, ListOf, Literal, Node, Path, Statement
from collector.ottl.targets import Target
from collector.ottl.values import Array, Duration, Scalar, Time, Values
from collector.ottl.view import View

if TYPE_CHECKING:
    from collector.ottl.contexts import Context
    from collector.ottl.functions import Parameter

__all__ = ["CompiledStatement", "compile_condition", "compile_statement"]

Run: TypeAlias = Callable[[View, Array], Array]
"""Changes the rows of a mask and returns those that failed."""


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
        constant = (NEVER, NEVER)
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
        constant = (ALWAYS if predicate else NEVER, NEVER)
        return lambda _: constant
    return predicate


def _directly(direct: DirectCondition, by_columns: Predicate) -> Predicate:
    """Evaluates row by row if that is possible for a batch."""

    def evaluate(view: View) -> Evaluation:
        found = view.direct(direct)
        return by_columns(view) if found is None else (found[0], NEVER)

    return evaluate


class _Compiler(ExpressionCompiler):
    def __init__(self, text: str, context: Context, *, prefixed: bool) -> None:
        super().__init__(text, context, prefixed=prefixed)
        self.written: list[tuple[str, tuple[str, ...]]] = []
        self.commutes = False

    def statement(self, tree: Statement) -> tuple[Predicate | bool, Run]:
        """The condition and the editor of a statement."""
        node = tree.editor
        editor = EDITORS.get(node.name)
        if editor is None:
            near = get_close_matches(node.name, EDITORS, 1, cutoff=0.0)
            self.fail(f"unknown editor {node.name}; did you mean {near[0]}?", node)
        if editor.contexts is not None and self.context not in editor.contexts:
            self.fail(f"{node.name} cannot be called in the context {self.context!r}", node)
        arguments, literals = self.arguments(node, editor.parameters)
        commutes = editor.commutes and len(literals) == len(arguments) - 1
        if node.name == "set" or commutes:
            self.read.pop(0)  # what the target was does not matter, or not when it is changed
        try:
            run = editor.make(arguments, literals)
        except ValueError as exc:
            self.fail(f"{node.name}: {exc}", node)
        getters = [argument for argument in arguments if not isinstance(argument, Target)]
        targets = [argument.read for argument in arguments if isinstance(argument, Target)]
        self.commutes = commutes
        predicate = True if tree.condition is None else self.predicate(tree.condition)
        self.parts.append(Part(node.name, node.at, None, [*targets, *getters]))  # last: what it is made of comes first
        return predicate, run

    def _target(self, node: Node) -> Target:
        if not isinstance(node, Path):
            self.fail("expected a path, which the editor can change", node)
        owner, names, keys, is_own = self.resolved(node)
        try:
            found = target(owner, names, keys, is_own=is_own)
        except LookupError as exc:
            self.fail(str(exc.args[0]), node)
        self.written.append((found.table, found.location))
        return found

    def arguments(self, node: FunctionCall, parameters: Sequence[Parameter]) -> tuple[list[Any], Mapping[int, Scalar]]:
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
                made.append(Argument(value))
            elif form in {"list", "texts"}:
                if not isinstance(argument, ListOf):
                    self.fail(f"{node.name}: {parameter.name} must be a list in brackets", argument)
                items = [
                    self._checked(node, parameter.name, item, "text" if form == "texts" else "any")
                    for item in argument.items
                ]
                if all(isinstance(item, Constant) for item in items):
                    literals[place] = [item.value for item in items if isinstance(item, Constant)]
                made.append(Items(items))
            else:
                getter = self._checked(node, parameter.name, argument, form)
                if isinstance(getter, Constant):
                    literals[place] = getter.value
                made.append(getter)
        return made, literals

    def _literal(self, node: FunctionCall, parameter: Parameter, argument: Node) -> Scalar:
        form = parameter.form
        getter = self.value(argument) if not isinstance(argument, Path) else None
        value = getter.value if isinstance(getter, Constant) else ...
        if form in {"literal texts", "literal floats"}:
            item_type: type = str if form == "literal texts" else float
            name = "string" if item_type is str else "float"
            if type(value) is not list or not all(type(item) is item_type for item in value):
                self.fail(f"{node.name}: {parameter.name} must be a list of {name} literals", argument)
            return value
        expected = {"literal text": str, "literal bool": bool, "literal int": int, "literal float": float}[form]
        if type(value) is int and expected is float and isinstance(argument, Literal):
            self.fail(f"{node.name}: {parameter.name} must be a {form}: write {value}.0", argument)
        if type(value) is not expected:
            self.fail(f"{node.name}: {parameter.name} must be a {form}", argument)
        return value

    def _function(self, node: FunctionCall, argument: Node) -> Callable[[str], Scalar]:
        """A converter of one argument, given by its name, as a function of a text."""
        if not isinstance(argument, Enum):
            self.fail(f"{node.name}: function must be the name of a converter, for example SHA256", argument)
        function = self.find_function(argument.name, argument)
        if len(function.parameters) != 1:
            self.fail(f"{node.name}: {argument.name} cannot be used here, because it takes other arguments", argument)
        evaluate = function.evaluate()

        def call(text: str) -> Scalar:
            codes, values = evaluate(NO_VIEW, [Values.constant(text)]).scalars()
            return values[codes[0]]

        return call

    def _checked(self, node: FunctionCall, name: str, argument: Node, form: str) -> Getter:
        getter = self.value(argument)
        expected = _LITERAL_TYPES.get(form)
        if expected is not None and isinstance(getter, Constant) and type(getter.value) is not expected[0]:
            self.fail(f"{node.name}: {name} must be {expected[1]}", argument)
        return getter

    def _arguments_by_position(self, node: FunctionCall, parameters: Sequence[Parameter]) -> dict[int, Node]:
        given: dict[int, Node] = {}
        names = [parameter.name for parameter in parameters]
        seen_name = False
        for place, (name, argument) in enumerate(node.arguments):
            if name and name not in names:
                near = get_close_matches(name, names, 1, cutoff=0.0)
                self.fail(
                    f"{node.name} does not have a parameter {name!r}"
                    + (f"; did you mean {near[0]!r}?" if near else ""),
                    argument,
                )
            if seen_name and not name:
                self.fail("a positional argument follows a named argument", argument)
            seen_name = seen_name or bool(name)
            position = names.index(name) if name else place
            if position >= len(names) or position in given:
                self.fail(f"{node.name} takes {_signature(parameters)}", node)
            given[position] = argument
        if any(place not in given and not parameter.optional for place, parameter in enumerate(parameters)):
            self.fail(f"{node.name} takes {_signature(parameters)}", node)
        return given


_LITERAL_TYPES: Final[Mapping[str, tuple[type, str]]] = {
    "text": (str, "a string"),
    "int": (int, "an integer"),
    "map": (dict, "a map"),
    "slice": (list, "a list"),
    "time": (Time, "a time"),
    "duration": (Duration, "a duration"),
}


def _signature(parameters: Sequence[Parameter]) -> str:
    names = ", ".join(f"[{parameter.name}]" if parameter.optional else parameter.name for parameter in parameters)
    return f"({names})" if names else "no arguments"
