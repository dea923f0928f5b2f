"""Names of services and values of labels as small integers, each text kept once however many spans carry it.

Code 0 is "no text". The hash of a text does not change when codes do: what outlives a ``compact`` is known by its hash.
"""

from typing import Final

import numpy as np

from collector.model import StringColumn, hash_text
from collector.model.arrays import I32, U64, Array

__all__ = ["Texts"]


LENGTH_MAX_CHARS: Final = 1024
"""Longer ones are cut: a label is a name, and what waits in the store must have a bound in bytes too."""
_ROOM: Final = 1024


class Texts:
    """The texts in use."""

    def __init__(self) -> None:
        self._codes: dict[str, int] = {}
        self._values: list[str | None] = [None]
        self._hashes = np.zeros((_ROOM, 2), np.uint64)
        self._count_after_compact = 1

    def __len__(self) -> int:
        return len(self._values) - 1

    def __getitem__(self, code: int) -> str | None:
        return self._values[code]

    @property
    def is_crowded(self) -> bool:
        """Many texts have come since ``compact``: most may be out of use."""
        return len(self._values) > 2 * self._count_after_compact + _ROOM

    def code(self, text: str) -> int:
        """The code of one text."""
        return self._add([text])[0]

    def codes(self, column: StringColumn, rows: Array, *, keep_empty: bool = False) -> I32:
        """The codes of the column's texts at ``rows`` (indices): work is done once a distinct text. Empty ones are none, or kept."""
        taken = column.codes[rows]
        used = np.flatnonzero(np.bincount(taken + 1, minlength=column.distinct_count + 1)[1:])
        lookup = np.zeros(column.distinct_count + 1, np.int32)  # the last is what code -1 takes
        if len(used):
            distinct = column.distinct
            texts = [distinct[code] for code in used.tolist()]
            lookup[used] = [
                code if text or keep_empty else 0 for code, text in zip(self._add(texts), texts, strict=True)
            ]
        found: I32 = lookup[taken]
        return found

    def hashes(self, codes: I32) -> U64:
        """U64[n,2]; (0, 0) for code 0."""
        found: U64 = self._hashes[codes]
        return found

    def compact(self, used: I32) -> I32:
        """Forgets every text but ``used``; returns the new code of each old one, 0 for those that are gone."""
        kept = np.unique(used[used > 0])
        moved = np.zeros(len(self._values), np.int32)
        moved[kept] = np.arange(1, len(kept) + 1)
        self._values = [None, *(self._values[code] for code in kept.tolist())]
        self._codes = {text: code for code, text in enumerate(self._values) if text is not None}
        hashes = np.zeros((len(self._values) + _ROOM, 2), np.uint64)
        hashes[1 : len(self._values)] = self._hashes[kept]
        self._hashes = hashes
        self._count_after_compact = len(self._values)
        return moved

    def _add(self, texts: list[str]) -> list[int]:
        known = self._codes
        codes = []
        new: list[str] = []
        for text in texts:
            cut = text[:LENGTH_MAX_CHARS]
            code = known.get(cut)
            if code is None:
                code = known[cut] = len(self._values)
                self._values.append(cut)
                new.append(cut)
            codes.append(code)
        if new:
            start, end = len(self._values) - len(new), len(self._values)
            if end > len(self._hashes):
                self._hashes = np.concatenate([self._hashes, np.zeros((end + _ROOM, 2), np.uint64)])
            self._hashes[start:end] = hash_text(StringColumn.of(new))
        return codes
