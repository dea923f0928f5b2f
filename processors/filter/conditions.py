"""Drops rows by conditions: one group after the other, and in each from resources down to items and their events."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Protocol, TypeAlias

import numpy as np

from collector.api import PermanentError
from collector.model import Batch, Signal
from collector.model.arrays import Mask, some
from collector.ottl import Conditions, Context, ErrorMode, compile_conditions

__all__ = ["ConditionFilter", "Group", "Groups"]

_LEVELS: Final[Mapping[Signal, Mapping[str, Context]]] = {
    Signal.TRACES: {"resources": "resource", "scopes": "scope", "spans": "span", "events": "spanevent"},
    Signal.METRICS: {"resources": "resource", "scopes": "scope", "metrics": "metric", "points": "datapoint"},
    Signal.LOGS: {"resources": "resource", "scopes": "scope", "records": "log"},
}


@dataclass(frozen=True, slots=True)
class Group:
    """Conditions by context that are evaluated in one pass down a batch."""

    texts: Mapping[Context, tuple[str, ...]]
    error_mode: ErrorMode
    prefixed: bool = False
    """Whether paths start with their context, because it was inferred from them."""


Groups: TypeAlias = tuple[Group, ...]


class FailureSink(Protocol):
    """Called with the number of rows for which a condition could not be evaluated."""

    def __call__(self, context: Context, row_count: int, *, silent: bool) -> None: ...


class ConditionFilter:
    """The groups of conditions of one signal."""

    def __init__(self, groups: Groups, signal: Signal, failures: FailureSink) -> None:
        self._groups = [(_compiled(group), group.error_mode) for group in groups]
        self._levels = _LEVELS[signal]
        self._signal = signal
        self._failures = failures

    def apply(self, batch: Batch) -> Batch:
        """The batch without the matching rows; it may be empty.

        Raises:
            PermanentError: a condition could not be evaluated for a row, and ``error_mode`` is ``propagate``.
        """
        for conditions, error_mode in self._groups:
            if not batch.item_count:
                break
            batch = self._apply_group(batch, conditions, error_mode)
        return batch

    def _apply_group(self, batch: Batch, conditions: Mapping[Context, Conditions], error_mode: ErrorMode) -> Batch:
        item_table = batch.table_name("item")
        kept: Mask | None = None  # of the rows of a table; None: all of them
        items_kept: Mask | None = None
        for table, context in self._levels.items():
            level_conditions = conditions.get(context)
            if table == "events" and level_conditions is None:
                break
            if kept is not None:
                kept = kept[batch.table(table).parent]
            if level_conditions is not None and (kept is None or some(kept)):
                kept = self._kept(batch, level_conditions, kept, error_mode)
            if table == item_table:
                items_kept = kept
        remaining = batch if items_kept is None else batch.select(items_kept)
        if "spanevent" not in conditions or kept is None or not remaining.item_count:
            return remaining
        if items_kept is not None:
            kept = kept[items_kept[batch.table("events").parent]]
        return remaining.select(kept, "events")

    def _kept(self, batch: Batch, conditions: Conditions, kept: Mask | None, error_mode: ErrorMode) -> Mask | None:
        """``kept`` without the rows for which the conditions hold."""
        matched, failed = conditions.mask(batch)
        if some(failed):
            failed_count = int(np.count_nonzero(failed if kept is None else failed & kept))
            if failed_count:
                self._fail(conditions.context, failed_count, error_mode)
        if not some(matched):
            return kept
        return ~matched if kept is None else kept & ~matched

    def _fail(self, context: Context, row_count: int, error_mode: ErrorMode) -> None:
        if error_mode == "propagate":
            raise PermanentError(
                f"a condition of the context {context!r} could not be evaluated for {row_count} rows "
                "(error_mode: propagate)"
            )
        self._failures(context, row_count, silent=error_mode == "silent")


def _compiled(group: Group) -> dict[Context, Conditions]:
    return {
        context: compile_conditions(texts, context, prefixed=group.prefixed) for context, texts in group.texts.items()
    }
