"""Puts consecutive entries together, across blocks, for each source."""

from collections.abc import Hashable
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from collector.log_operators.conditions import Condition, Rows
from collector.log_operators.config import RecombineConfig
from collector.log_operators.entries import Entries
from collector.log_operators.fields import parse_field
from collector.log_operators.operators import Report, Transformer

__all__ = ["Recombine"]

_NO_TEXT: Final = "the entry has no text in combine_field"
_CONDITION_FAILED: Final = "the condition of a group cannot be evaluated"
_SIZE_MAX: Final = 64 * 1024 * 1024
_HELD_MAX_BYTES: Final = 64 * 1024 * 1024  # of the open groups of all sources
_ENTRY_BYTES: Final = 500


@dataclass(slots=True)
class _Open:
    """A group that is not complete, of which the entries are in earlier blocks."""

    base: Any
    text: list[bytes]
    count: int
    size_bytes: int
    is_matched: bool
    first_observed_ns: int
    tokens: set[Hashable] = field(default_factory=set)


class Recombine(Transformer):
    """The operator ``recombine``."""

    def __init__(self, operator_id: str, config: RecombineConfig, report: Report) -> None:
        super().__init__(operator_id, config, report, None)
        self._is_first = config.is_first_entry is not None
        self._match = Condition(config.is_first_entry or config.is_last_entry or "true")
        self._field = parse_field(config.combine_field)
        self._separator = config.combine_with.encode("utf-8", "replace")
        self._source = parse_field(config.source_identifier)
        self._count_max = config.max_batch_size or np.iinfo(np.int64).max
        self._unmatched_max = min(config.max_unmatched_batch_size or self._count_max, self._count_max)
        self._size_max = config.max_log_size or _SIZE_MAX
        self._takes_newest = config.overwrite_with == "newest"
        self._period_ns = int(config.force_flush_period * 1e9)
        self._sources_max = config.max_sources
        self._open: dict[str, _Open] = {}
        self._open_bytes = 0
        self.token: Hashable = None
        """The token of the block at work."""

    # What is held.

    def held_items(self) -> int:
        """How many entries are in groups that are not complete."""
        return sum(group.count for group in self._open.values())

    def held_bytes(self) -> int:
        """The approximate size of the groups that are not complete."""
        return self._open_bytes + _ENTRY_BYTES * len(self._open)

    def held_tokens(self) -> set[Hashable]:
        """The tokens of the blocks with entries in groups that are not complete."""
        return set().union(*(group.tokens for group in self._open.values()))

    def next_flush_ns(self) -> int | None:
        """When :meth:`flush` has something to return, in nanoseconds since 1970; None: never."""
        if not self._open:
            return None
        return min(group.first_observed_ns for group in self._open.values()) + self._period_ns

    def flush(self, entries: Entries, now_ns: int | None) -> Rows:
        """Completes the groups that are older than ``force_flush_period``; all if there is no time."""
        due = [
            source
            for source, group in self._open.items()
            if now_ns is None or group.first_observed_ns + self._period_ns <= now_ns
        ]
        nothing = np.zeros(0, np.int32)
        return np.array([self._closed(entries, self._taken(source), nothing) for source in due], np.int32)

    # Entries.

    def run(self, entries: Entries, rows: Rows) -> Rows:
        """Put the rows together. See :class:`Operator`."""
        selected, bad = self.select(entries, rows)
        if not len(selected):
            return rows if not len(bad) else rows[~np.isin(rows, bad)]
        matches, failed = self._match.test(entries, selected)
        if failed.any():
            self.report.failed(self.id, _CONDITION_FAILED, int(failed.sum()), is_logged=self._is_logged)
            if self._drops:
                self.report.dropped("error", int(failed.sum()))
                bad = np.concatenate((bad, selected[failed]))
            selected, matches = np.ascontiguousarray(selected[~failed]), matches[~failed]
        others = rows[~np.isin(rows, selected) & ~np.isin(rows, bad)] if len(selected) < len(rows) else rows[:0]
        made = [others]
        for source, mask in self._by_source(entries, selected):
            if mask is None:
                made += self._of_source(entries, source, selected, matches)
            else:
                made += self._of_source(entries, source, np.ascontiguousarray(selected[mask]), matches[mask])
        return np.concatenate(made)

    def _by_source(self, entries: Entries, rows: Rows) -> list[tuple[str, NDArray[np.bool_] | None]]:
        if not len(rows):
            return []
        texts = [text if isinstance(text, str) else "" for text in entries.values(rows, self._source)]
        distinct = dict.fromkeys(texts)
        if len(distinct) == 1:
            return [(texts[0], None)]
        return [(name, np.fromiter((text == name for text in texts), np.bool_, len(rows))) for name in distinct]

    def _of_source(self, entries: Entries, source: str, rows: Rows, matches: NDArray[np.bool_]) -> list[Rows]:
        """The completed groups of one source; the last one may stay open."""
        sizes = entries.text_sizes(rows, self._field)
        if (sizes < 0).any():
            self.report.failed(self.id, _NO_TEXT, int((sizes < 0).sum()), is_logged=self._is_logged)
        starts = np.flatnonzero(matches) if self._is_first else np.flatnonzero(matches[:-1]) + 1
        bounds = np.unique(np.concatenate((np.zeros(1, np.int64), starts, np.array([len(rows)], np.int64)))).tolist()
        made: list[Rows] = []
        group = self._taken(source)
        if group is not None and self._is_first and matches[0]:
            made.append(_rows(self._closed(entries, group, rows[:0])))
            group = None
        last = len(bounds) - 2
        stays_open = self._is_first or not matches[-1]
        passes_from = 0  # groups of one row are passed on as they are, many at a time
        for number in [0, *(np.flatnonzero(np.diff(bounds[1:-1]) > 1) + 1).tolist(), *([last] if last else [])]:
            begin, end = bounds[number], bounds[number + 1]
            made.append(rows[bounds[passes_from] : begin])
            passes_from = number + 1
            group, rest = self._limited(entries, group, rows[begin:end], sizes[begin:end], matches[begin:end], made)
            if number == last and stays_open:
                self._hold(entries, source, group, rest, matches[end - len(rest) : end], made)
            elif group is not None or len(rest):
                made.append(_rows(self._closed(entries, group, rest)))
            group = None
        return made

    def _limited(
        self,
        entries: Entries,
        group: _Open | None,
        rows: Rows,
        sizes: NDArray[np.int64],
        matches: NDArray[np.bool_],
        made: list[Rows],
    ) -> tuple[_Open | None, Rows]:
        """Completes a group wherever it reaches a limit, and returns what is left of it."""
        count, size, is_matched = (
            (group.count, group.size_bytes, group.is_matched) if group is not None else (0, 0, False)
        )
        room = self._size_max - size - len(self._separator) * len(rows)
        if count + len(rows) < self._unmatched_max and int(np.maximum(sizes, 0).sum()) <= room:
            return group, rows
        begin = 0
        for place, (added, matched) in enumerate(zip(sizes.tolist(), matches.tolist(), strict=True)):
            count += 1
            is_matched = is_matched or matched
            if added < 0:
                continue
            size += added + (len(self._separator) if size else 0)
            limit = self._count_max if is_matched else self._unmatched_max
            if size > self._size_max or count >= limit:
                made.append(_rows(self._closed(entries, group, rows[begin : place + 1])))
                group, begin, count, size, is_matched = None, place + 1, 0, 0, False
        return group, rows[begin:]

    def _closed(self, entries: Entries, group: _Open | None, rows: Rows) -> int:
        """The row of a completed group: what is held of it, and further rows."""
        if group is None and len(rows) == 1:
            return int(rows[0])
        if len(rows) and (group is None or self._takes_newest):
            number = int(rows[-1] if self._takes_newest else rows[0])
        else:
            assert group is not None
            number = entries.import_row(group.base)
        held = group.text if group is not None else []
        text = entries.join_texts(rows, self._field, self._separator, any(held))
        entries.set_text(number, self._field, b"".join([*held, text]))
        return number

    def _hold(
        self,
        entries: Entries,
        source: str,
        group: _Open | None,
        rows: Rows,
        matches: NDArray[np.bool_],
        made: list[Rows],
    ) -> None:
        text = entries.join_texts(rows, self._field, self._separator, group is not None and any(group.text))
        if group is None and not len(rows):
            return
        if len(self._open) >= self._sources_max or self._open_bytes + len(text) > _HELD_MAX_BYTES:
            made += [_rows(self._closed(entries, self._taken(other), rows[:0])) for other in list(self._open)]
        if group is None:
            base = entries.export_row(int(rows[-1] if self._takes_newest else rows[0]))
            first = int(entries.observed_times(rows[:1])[0])
            group = _Open(base, [], 0, 0, is_matched=False, first_observed_ns=first)
        elif self._takes_newest and len(rows):
            group.base = entries.export_row(int(rows[-1]))
        group.text.append(text)
        group.count += len(rows)
        group.size_bytes += len(text)
        group.is_matched = group.is_matched or bool(matches.any())
        if len(rows):
            group.tokens.add(self.token)
        self._open[source] = group
        self._open_bytes += group.size_bytes

    def _taken(self, source: str) -> _Open | None:
        """The open group of a source, which is then no longer held; None if there is none."""
        group = self._open.pop(source, None)
        if group is not None:
            self._open_bytes -= group.size_bytes
        return group


def _rows(number: int) -> Rows:
    return np.array([number], np.int32)
