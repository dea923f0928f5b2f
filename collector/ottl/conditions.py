"""Conditions over a batch: which rows match, and which could not be evaluated."""

from collections.abc import Sequence
from typing import Final, Literal, TypeAlias

import numpy as np

from collector.model import Batch, Signal
from collector.ottl.compiler import Test, compile_truth
from collector.ottl.functions import FUNCTIONS
from collector.ottl.paths import CONTEXTS, SIGNALS, SYMBOLS, TABLES, Context, View
from collector.ottl.syntax import Call, Enum, Node, OttlError, Path, parse, walk
from collector.ottl.values import Array

__all__ = ["MAX_CONDITIONS", "Conditions", "ErrorMode", "compile_conditions", "infer_context"]

MAX_CONDITIONS: Final = 1_000
_SHOWN_CHARS: Final = 200
ErrorMode: TypeAlias = Literal["ignore", "silent", "propagate"]
"""What an evaluation error does: counted as no match and reported, only counted as no match, or the batch is refused."""

# Of two contexts in one condition the one that stands further left reads both. "log" does not meet the others.
_PRIORITY: Final[tuple[Context, ...]] = ("log", "datapoint", "metric", "spanevent", "span", "scope", "resource")


class Conditions:
    """One or more conditions of one context; a row matches if one of them holds."""

    def __init__(self, texts: Sequence[str], context: Context, *, prefixed: bool = False) -> None:
        """Use ``compile_conditions``."""
        self.texts = tuple(texts)
        self.context: Context = context
        self.table = TABLES[context]
        """The table of the batch whose rows are asked."""
        self._tests = [_compiled(text, context, prefixed=prefixed) for text in texts]

    def mask(self, batch: Batch) -> tuple[Array, Array]:
        """(matched, failed), bool[n] each: failed = a condition had no answer for the row before one matched.

        Conditions are asked in order and, as in the Collector, none after the first that matches. A failed one counts
        as no match, so that a row may be both.

        Raises:
            KeyError: the batch is of a signal without this context.
        """
        view = View(batch, self.context)
        matched = np.zeros(view.row_count, np.bool_)
        failed = np.zeros(view.row_count, np.bool_)
        if not view.row_count:
            return matched, failed
        for test in self._tests:
            holds, unanswered = test(view)
            failed |= unanswered & ~matched
            matched |= holds
        return matched, failed


def _compiled(text: str, context: Context, *, prefixed: bool) -> Test:
    try:
        return compile_truth(text, parse(text), context, prefixed=prefixed)
    except OttlError as exc:
        shown = text if len(text) <= _SHOWN_CHARS else f"{text[:_SHOWN_CHARS]}…"
        raise exc.within(shown) from None


def compile_conditions(texts: Sequence[str], context: Context, *, prefixed: bool = False) -> Conditions:
    """Conditions ready to be asked. ``prefixed``: every path must say whose it is (``span.name``, not ``name``).

    Raises:
        OttlError: a text is no condition of this context; the message has the text, the column and what was expected.
    """
    if not texts:
        raise OttlError("no condition is given")
    if len(texts) > MAX_CONDITIONS:
        raise OttlError(f"{len(texts)} conditions: at most {MAX_CONDITIONS}")
    return Conditions(texts, context, prefixed=prefixed)


def infer_context(text: str, signal: Signal) -> Context:
    """The context whose rows a condition asks, from the prefixes of its paths, its converters and its symbols.

    Raises:
        OttlError: it is no condition, names no context, or one of another signal.
    """
    nodes = walk(parse(text))
    named = {_context_name(node) for node in nodes if isinstance(node, Path)} - {None}
    if not named:
        raise OttlError(
            "no path says which context the condition is for: write for example "
            + {Signal.TRACES: "span.name", Signal.METRICS: "metric.name", Signal.LOGS: "log.body"}[signal]
        )
    found = next(context for context in _PRIORITY if context in named)
    if signal not in SIGNALS[found]:
        raise OttlError(f"{found} is no context of {signal.value}")
    if _offers(found, nodes):
        return found
    for context in _PRIORITY:  # a resource's path beside a converter of spans: the condition is one of spans
        if signal in SIGNALS[context] and context != found and found in CONTEXTS[context] and _offers(context, nodes):
            return context
    return found  # its compiler says what is not known


def _context_name(path: Path) -> Context | None:
    name = path.fields[0].name
    if len(path.fields) < 2 or path.fields[0].keys:
        return None
    name = "scope" if name == "instrumentation_scope" else name
    return next((context for context in _PRIORITY if context == name), None)


def _offers(context: Context, nodes: Sequence[Node]) -> bool:
    """Whether all converters and symbols of a condition are known in the context."""
    for node in nodes:
        if isinstance(node, Enum) and node.name not in SYMBOLS[context]:
            return False
        if isinstance(node, Call):
            function = FUNCTIONS.get(node.name)
            if function is None or (function.contexts is not None and context not in function.contexts):
                return False
    return True
