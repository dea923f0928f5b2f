"""Conditions on a batch: which rows match, and for which rows the evaluation failed."""

from collections.abc import Iterable, Sequence
from typing import Final, Literal, TypeAlias

import numpy as np

from collector.model import Batch, Signal
from collector.model.arrays import some
from collector.ottl.compiler import compile_condition
from collector.ottl.contexts import CONTEXTS, SIGNALS, SYMBOLS, TABLES, Context
from collector.ottl.direct import direct_condition
from collector.ottl.functions import FUNCTIONS
from collector.ottl.getters import Part, Predicate
from collector.ottl.parser import parse
from collector.ottl.syntax import Enum, FunctionCall, Node, OttlError, Path, walk
from collector.ottl.values import Array
from collector.ottl.view import View

__all__ = ["MAX_CONDITIONS", "Conditions", "ErrorMode", "compile_conditions", "infer_context"]

MAX_CONDITIONS: Final = 1_000
_SHOWN_CHARS: Final = 200
ErrorMode: TypeAlias = Literal["ignore", "silent", "propagate"]
"""What an evaluation error does: no match, with a log line; no match, without one; or the batch is refused."""

# If a condition uses two contexts, the one further left can read both. "log" cannot be combined with the others.
_PRIORITY: Final[tuple[Context, ...]] = ("log", "datapoint", "metric", "spanevent", "span", "scope", "resource")


class Conditions:
    """One or more conditions of one context. A row matches if any of them holds."""

    def __init__(self, texts: Sequence[str], context: Context, *, prefixed: bool = False) -> None:
        """Call ``compile_conditions`` instead."""
        self.context: Context = context
        self.table = TABLES[context]
        """The table of the batch for whose rows the conditions are evaluated."""
        self.parts: list[Part] = []
        """The calls in the conditions, to explain why one failed."""
        self.read: list[tuple[str, str, object]] = []
        """The tables, first names and first keys of the paths in them."""
        trees = [_parsed(text) for text in texts]
        self._predicates = [
            _compiled(text, tree, context, self.parts, self.read, prefixed=prefixed)
            for text, tree in zip(texts, trees, strict=True)
        ]
        self._direct = direct_condition(trees, context)

    def mask(self, batch: Batch) -> tuple[Array, Array]:
        """(matched, failed), bool[n] each; ``failed``: a condition before the first match could not be evaluated.

        Conditions are evaluated in order and, as in the Collector, not after the first that matches. A condition that
        fails counts as no match, so a row can be both matched and failed.

        Raises:
            KeyError: the batch is of a signal without this context.
        """
        if self._direct is not None and (found := self._direct.mask(batch)) is not None:
            return found[0], np.zeros(len(found[0]), np.bool_)
        return self._mask_by_columns(View(batch, self.context))

    def mask_of(self, view: View) -> tuple[Array, Array]:
        """Like ``mask``, for a view of this context."""
        if self._direct is not None and (found := view.direct(self._direct)) is not None:
            return found[0], view.nothing()
        return self._mask_by_columns(view)

    def _mask_by_columns(self, view: View) -> tuple[Array, Array]:
        matched = np.zeros(view.row_count, np.bool_)
        failed = np.zeros(view.row_count, np.bool_)
        if not view.row_count:
            return matched, failed
        for predicate in self._predicates:
            holds, condition_failed = predicate(view)
            if some(condition_failed):
                failed |= condition_failed & ~matched
            matched |= holds
        return matched, failed


def _parsed(text: str) -> Node:
    try:
        return parse(text)
    except OttlError as exc:
        raise exc.within(shown(text)) from None


def _compiled(
    text: str, tree: Node, context: Context, parts: list[Part], read: list[tuple[str, str, object]], *, prefixed: bool
) -> Predicate:
    try:
        return compile_condition(text, tree, context, parts, read, prefixed=prefixed)
    except OttlError as exc:
        raise exc.within(shown(text)) from None


def shown(text: str) -> str:
    """A condition or statement as messages show it."""
    return text if len(text) <= _SHOWN_CHARS else f"{text[:_SHOWN_CHARS]}…"


def compile_conditions(texts: Sequence[str], context: Context, *, prefixed: bool = False) -> Conditions:
    """The compiled conditions. ``prefixed``: every path must start with its context (``span.name``, not ``name``).

    Raises:
        OttlError: a text is not a condition of this context; the message has the text, the column and the fault.
    """
    if not texts:
        raise OttlError("the list of conditions is empty")
    if len(texts) > MAX_CONDITIONS:
        raise OttlError(f"there are {len(texts)} conditions, but at most {MAX_CONDITIONS} are allowed")
    return Conditions(texts, context, prefixed=prefixed)


def infer_context(text: str, signal: Signal) -> Context:
    """The context of a condition, inferred from the prefixes of its paths, its converters and its symbols.

    Raises:
        OttlError: it is not a condition, names no context, or names one of another signal.
    """
    return context_of(walk(parse(text)), signal)


def context_of(nodes: Sequence[Node], signal: Signal, more: Iterable[Context] = ()) -> Context:
    """The context that has all these paths, converters and symbols, and is one of ``more`` or below it.

    Raises:
        OttlError: no path names a context, or one of another signal.
    """
    named = {_named_context(node) for node in nodes if isinstance(node, Path)} - {None}
    if not named:
        raise OttlError(
            "the context cannot be inferred; start a path with it, for example "
            + {Signal.TRACES: "span.name", Signal.METRICS: "metric.name", Signal.LOGS: "log.body"}[signal]
        )
    found = next(context for context in _PRIORITY if context in named or context in more)
    if signal not in SIGNALS[found]:
        raise OttlError(f"{found!r} is not a context of {signal.value}")
    if _supports(found, nodes):
        return found
    for context in _PRIORITY:  # a path of the resource with a converter of spans, for example: the context is span
        if signal in SIGNALS[context] and context != found and found in CONTEXTS[context] and _supports(context, nodes):
            return context
    return found  # compiling reports what is unknown


def _named_context(path: Path) -> Context | None:
    name = path.fields[0].name
    if len(path.fields) < 2 or path.fields[0].keys:
        return None
    name = "scope" if name == "instrumentation_scope" else name
    return next((context for context in _PRIORITY if context == name), None)


def _supports(context: Context, nodes: Sequence[Node]) -> bool:
    """Whether the context has all converters and symbols of a condition."""
    for node in nodes:
        if isinstance(node, Enum) and node.name not in SYMBOLS[context]:
            return False
        if isinstance(node, FunctionCall):
            function = FUNCTIONS.get(node.name)
            if function is None or (function.contexts is not None and context not in function.contexts):
                return False
    return True
