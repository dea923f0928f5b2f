"""Statements on a batch: groups of them, in order, each on all rows of its context at once.

The Collector runs all statements of a group on one row, then on the next. Statement by statement is the same unless
rows see each other's changes, because a statement changes something above its rows (a resource, from log records) that
another one reads. Then the rows are taken in waves that have no two rows below the same resource, scope, metric or
span.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, Protocol, get_args

import numpy as np

from collector.model import Signal
from collector.model.arrays import some
from collector.ottl.all_editors import EDITORS
from collector.ottl.compiler import CompiledStatement, compile_statement
from collector.ottl.conditions import ErrorMode, compile_conditions, context_of, shown
from collector.ottl.contexts import CONTEXTS, SIGNALS, TABLES, Context
from collector.ottl.parser import parse, parse_statement
from collector.ottl.syntax import Node, OttlError, Statement, walk
from collector.ottl.values import KINDS, EvaluationError, Kind, Values
from collector.ottl.view import View

if TYPE_CHECKING:
    from collections.abc import Sequence

    from collector.model.arrays import Mask
    from collector.ottl.conditions import Conditions
    from collector.ottl.draft import Draft
    from collector.ottl.getters import Part

__all__ = ["FailureSink", "StatementError", "StatementGroup", "compile_group"]

MAX_STATEMENTS: Final = 1_000
_MAX_PASSES: Final = 16
"""Passes over metrics that statements have added: ``copy_metric`` without a condition would not end."""


class StatementError(ValueError):
    """A statement could not be evaluated for a row, and the error mode is ``propagate``."""


class FailureSink(Protocol):
    """Called with a statement that failed on some rows.

    ``reason`` makes the text for a log: where in the statement and with values of which types, never the values.
    """

    def __call__(self, statement: str, row_count: int, reason: Any, *, silent: bool) -> None:
        """Count and log it."""
        ...


@dataclass(frozen=True, slots=True)
class _Ready:
    text: str
    source: str
    compiled: CompiledStatement
    keeps_order: bool
    """Whether a later statement needs the order of attributes."""


@dataclass
class StatementGroup:
    """Statements of one context with their conditions and error mode. Made by ``compile_group``."""

    context: Context
    statements: Sequence[_Ready]
    conditions: Conditions | None
    error_mode: ErrorMode
    adds_metrics: bool = False
    needs_order: bool = False
    """Whether the result of a statement depends on the order of attributes."""
    shared_table: str | None = field(default=None)
    """The topmost table that rows share and that makes waves necessary."""

    def apply(self, draft: Draft, failures: FailureSink) -> None:
        """Run the statements.

        Raises:
            StatementError: a statement failed, and the error mode is ``propagate``.
        """
        view = View(draft, self.context)
        if not view.row_count:
            return
        if not self.adds_metrics:
            self._run_all(view, np.ones(view.row_count, np.bool_), failures)
            return
        done: list[int] = []
        for _ in range(_MAX_PASSES):
            rows = self._new_rows(draft, done)
            if not some(rows):
                return
            done = [len(scope.metrics) for scope in draft.messages("scopes")]
            self._run_all(View(draft, self.context), rows, failures)
            draft.write_added()
        rows = self._new_rows(draft, done)
        if some(rows):
            failures(self.statements[0].text, int(np.count_nonzero(rows)), _too_many, silent=False)

    def _new_rows(self, draft: Draft, done: Sequence[int]) -> Mask:
        """bool[n]: the rows below metrics that were added since the pass that found ``done`` metrics in each scope."""
        scopes = draft.messages("scopes")
        is_new: list[bool] = []
        for place, scope in enumerate(scopes):
            old = done[place] if done else 0
            is_new.extend(index >= old for index in range(len(scope.metrics)))
        metrics = np.array(is_new, np.bool_)
        if self.context == "metric":
            return metrics
        return metrics[draft.ancestor("metrics", "points")]

    def _run_all(self, view: View, rows: Mask, failures: FailureSink) -> None:
        if self.shared_table is None:
            self._run(view, rows, failures)
            return
        parents = view.batch.ancestor(self.shared_table, view.table)
        chosen = np.flatnonzero(rows)
        _, first, counts = np.unique(parents[chosen], return_index=True, return_counts=True)
        rank = np.arange(len(chosen)) - np.repeat(first, counts)
        for wave in range(int(counts.max(initial=0))):
            mask = np.zeros(len(rows), np.bool_)
            mask[chosen[rank == wave]] = True
            self._run(view, mask, failures)
            view.draft.finished()  # else the changes of all waves would be merged anew in each wave

    def _run(self, view: View, rows: Mask, failures: FailureSink) -> None:
        if self.conditions is not None:
            matched, undecided = self.conditions.mask_of(view)
            if some(undecided & rows):
                self._fail("conditions", self.conditions.parts, "", view, undecided & rows, failures)
            rows = rows & matched
        for statement in self.statements:
            compiled = statement.compiled
            selected = rows
            view.keeps_order = statement.keeps_order
            failed: Mask | None = None
            if compiled.predicate is not None:
                holds, undecided = compiled.predicate(view)
                selected = rows & holds
                if some(undecided):
                    failed = rows & undecided
                    selected &= ~failed
            if some(selected):
                try:
                    editor_failed = compiled.run(view, selected)
                except EvaluationError:
                    editor_failed = selected
                failed = editor_failed if failed is None else failed | editor_failed
            if failed is not None and some(failed):
                self._fail(statement.text, compiled.parts, statement.source, view, failed, failures)

    def _fail(
        self, text: str, parts: Sequence[Part], source: str, view: View, failed: Mask, failures: FailureSink
    ) -> None:
        row = int(np.flatnonzero(failed)[0])

        def reason() -> str:
            return explained(parts, source, view, row)

        count = int(np.count_nonzero(failed))
        if self.error_mode == "propagate":
            raise StatementError(f"{shown(text)!r} failed for {count} rows: {reason()} (error_mode: propagate)")
        failures(text, count, reason, silent=self.error_mode == "silent")


def _too_many() -> str:
    return f"statements added metrics {_MAX_PASSES} times in a row; the last ones are not processed"


_TYPE_NAMES: Final = {
    Kind.NIL: "nil",
    Kind.STRING: "a string",
    Kind.BOOL: "a bool",
    Kind.INT: "an int",
    Kind.DOUBLE: "a double",
    Kind.LIST: "a list",
    Kind.MAP: "a map",
    Kind.BYTES: "bytes",
    Kind.DURATION: "a duration",
    Kind.TIME: "a time",
    Kind.TRACE_ID: "a trace id",
    Kind.SPAN_ID: "a span id",
    Kind.ITEMS: "a list",
    Kind.FAILED: "an error",
}


def explained(parts: Sequence[Part], source: str, view: View, row: int) -> str:
    """Where a statement failed on a row, with the types of the values there. It evaluates calls again."""
    for part in parts:
        if part.get is not None and _kind_at(part.get, view, row) != Kind.FAILED:
            continue
        kinds = [kind for argument in part.arguments for kind in _kinds_at(argument, view, row)]
        if part.get is not None and Kind.FAILED in kinds:
            continue
        types = ", ".join(_TYPE_NAMES[kind] for kind in kinds)
        reason = f"{part.name} failed, called with ({types})" if kinds else part.name
        return str(OttlError(reason, part.at, source))
    return "an expression could not be evaluated"


def _kind_at(get: Any, view: View, row: int) -> int:
    try:
        values = get(view)
    except EvaluationError:
        return Kind.FAILED
    return int(values.kind[0 if len(values) == 1 else row])


def _kinds_at(argument: Any, view: View, row: int) -> list[int]:
    if argument is None or not callable(argument):
        return []
    try:
        values = argument(view)
    except (EvaluationError, AttributeError, TypeError):
        return []
    columns = values if isinstance(values, list) else [values]
    return [
        int(column.kind[0 if len(column) == 1 else row]) if isinstance(column, Values) else KINDS[type(column)]
        for column in columns
        if isinstance(column, Values) or type(column) in KINDS
    ]


def compile_group(
    texts: Sequence[str],
    signal: Signal,
    *,
    context: Context | None = None,
    conditions: Sequence[str] = (),
    error_mode: ErrorMode = "ignore",
    order_matters: bool = False,
) -> StatementGroup:
    """The compiled statements. Without a context it is inferred from all paths, which must then start with one.

    ``order_matters``: a group that is applied after it needs the order of attributes.

    Raises:
        OttlError: a text is not a statement of this context; the message has the text, the column and the fault.
    """
    if not texts:
        raise OttlError("the list of statements is empty")
    if len(texts) > MAX_STATEMENTS:
        raise OttlError(f"there are {len(texts)} statements, but at most {MAX_STATEMENTS} are allowed")
    trees = [_parsed(text) for text in texts]
    prefixed = context is None
    if context is None:
        nodes = [node for tree in trees for node in walk(tree)]
        nodes += [node for text in conditions for node in walk(_parsed_condition(text))]
        context = _inferred(nodes, trees, texts, signal)
    elif context not in get_args(Context) or signal not in SIGNALS[context]:
        allowed = [name for name in CONTEXTS if signal in SIGNALS[name]]
        raise OttlError(f"{context!r} is not a context of {signal.value}; expected one of {', '.join(allowed)}")
    statements: list[_Ready] = []
    for text, tree in zip(texts, trees, strict=True):
        try:
            compiled = compile_statement(text, tree, context, prefixed=prefixed)
        except OttlError as exc:
            raise exc.within(shown(text)) from None
        later = trees[len(statements) + 1 :]
        keeps_order = order_matters or any(EDITORS[each.editor.name].needs_order for each in later)
        statements.append(_Ready(text, text, compiled, keeps_order))
    compiled_conditions = compile_conditions(conditions, context, prefixed=prefixed) if conditions else None
    read = [] if compiled_conditions is None else compiled_conditions.read
    return StatementGroup(
        context,
        statements,
        compiled_conditions,
        error_mode,
        any(EDITORS[tree.editor.name].adds_metrics for tree in trees),
        any(EDITORS[tree.editor.name].needs_order for tree in trees),
        _shared_table([statement.compiled for statement in statements], read, context, signal),
    )


def _parsed(text: str) -> Statement:
    try:
        return parse_statement(text)
    except OttlError as exc:
        raise exc.within(shown(text)) from None


def _parsed_condition(text: str) -> Node:
    try:
        return parse(text)
    except OttlError as exc:
        raise exc.within(shown(text)) from None


def _inferred(nodes: Sequence[Node], trees: Sequence[Statement], texts: Sequence[str], signal: Signal) -> Context:
    named = {
        context
        for tree in trees
        if EDITORS.get(tree.editor.name)
        for context in EDITORS[tree.editor.name].contexts or ()
    }
    try:
        return context_of(nodes, signal, named)
    except OttlError as exc:
        raise exc.within(shown(texts[0])) from None


def _shared_table(
    statements: Sequence[CompiledStatement],
    read_by_conditions: Sequence[tuple[str, str, object]],
    context: Context,
    signal: Signal,
) -> str | None:
    """The topmost table above the rows that must not be shared by two rows of a wave."""
    own = TABLES[context]
    changes = [
        (place, statement.commutes)
        for statement in statements
        for place in statement.written
        if place[0] not in {own, ""}
    ]
    written = [place for place, _ in changes]
    if not written:
        return None
    read = [*read_by_conditions, *(place for statement in statements for place in statement.read)]
    is_safe = all(
        (
            (commutes and all(also for other, also in changes if _overlap(place, other)))
            or sum(_overlap(place, other) for other in written) == 1
        )
        and not any(_is_read(place, other) for other in read)
        for place, commutes in changes
    )
    if is_safe:
        return None
    order = {
        Signal.TRACES: ("resources", "scopes", "spans"),
        Signal.METRICS: ("resources", "scopes", "metrics"),
        Signal.LOGS: ("resources", "scopes"),
    }[signal]
    return next(table for table in order if any(place[0] == table for place in written))


def _overlap(place: tuple[str, tuple[str, ...]], other: tuple[str, tuple[str, ...]]) -> bool:
    (table, location), (other_table, other_location) = place, other
    length = min(len(location), len(other_location))
    return table == other_table and location[:length] == other_location[:length]


def _is_read(place: tuple[str, tuple[str, ...]], read: tuple[str, str, object]) -> bool:
    (table, location), (read_table, name, key) = place, read
    if table != read_table:
        return False
    if location[0] == "attributes" or name == "attributes":
        return location[0] == name and (len(location) == 1 or key is None or callable(key) or key == location[1])
    return True
