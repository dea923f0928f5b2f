"""Small integers for names of services and values of labels: each text is kept once, however many spans carry it.

Code 0 is "no text". The hash of a text stays the same when ``compact`` changes its code; what has to outlive that is
identified by the hash.
"""

from typing import Any, Final

import numpy as np

from collector.model import StringColumn, hash_text
from collector.model.arrays import I32, U64, Array

__all__ = ["TextCodes"]


_LENGTH_MAX_CHARS: Final = 1024
"""Longer texts are cut: a label is a name, and the memory of waiting spans has to be bounded."""
_SPARE_CODES: Final = 1024


class TextCodes:
    """The texts in use and their codes."""

    def __init__(self) -> None:
        self._codes: dict[str, int] = {}
        self._texts: list[str | None] = [None]
        self._hashes = np.zeros((_SPARE_CODES, 2), np.uint64)
        self._count_after_compact = 1

    def __len__(self) -> int:
        return len(self._texts) - 1

    def __getitem__(self, code: int) -> str | None:
        return self._texts[code]

    @property
    def is_crowded(self) -> bool:
        """Whether many texts were added since ``compact``, so that most of them may be out of use."""
        return len(self._texts) > 2 * self._count_after_compact + _SPARE_CODES

    def code(self, text: str) -> int:
        """The code of one text."""
        return self._codes_of([text])[0]

    def codes(self, column: StringColumn, rows: Array, *, keep_empty: bool = False) -> I32:
        """The codes of the texts at ``rows`` (indices) of the column.

        Without ``keep_empty``, the empty text counts as no text. Work is done once per distinct text.
        """
        column_codes = column.codes[rows]
        used = np.flatnonzero(np.bincount(column_codes + 1, minlength=column.distinct_count + 1)[1:])
        code_of = np.zeros(column.distinct_count + 1, np.int32)  # the last one is for the column's code -1, "absent"
        if len(used):
            distinct = column.distinct
            texts = [distinct[code] for code in used.tolist()]
            code_of[used] = [
                code if text or keep_empty else 0 for code, text in zip(self._codes_of(texts), texts, strict=True)
            ]
        codes: I32 = code_of[column_codes]
        return codes

    def hashes(self, codes: I32) -> U64:
        """U64[n,2]: the hash of each text; (0, 0) for code 0."""
        hashes: U64 = self._hashes[codes]
        return hashes

    def parts(self) -> list[str | None]:
        """The texts by code, for a checkpoint."""
        return list(self._texts)

    def restore(self, parts: list[Any]) -> None:
        """Continue from ``parts``; there are no texts yet.

        Raises:
            TypeError, ValueError: They are not those of such an object.
        """
        texts = [str(text) for text in parts[1:]]
        if self._codes_of(texts) != list(range(1, len(texts) + 1)):
            raise ValueError("a text has two codes")

    def compact(self, used: I32) -> I32:
        """Forget every text whose code is not in ``used``; returns the new code of each old one, 0 if it is gone."""
        kept = np.unique(used[used > 0])
        new_codes = np.zeros(len(self._texts), np.int32)
        new_codes[kept] = np.arange(1, len(kept) + 1)
        self._texts = [None, *(self._texts[code] for code in kept.tolist())]
        self._codes = {text: code for code, text in enumerate(self._texts) if text is not None}
        hashes = np.zeros((len(self._texts) + _SPARE_CODES, 2), np.uint64)
        hashes[1 : len(self._texts)] = self._hashes[kept]
        self._hashes = hashes
        self._count_after_compact = len(self._texts)
        return new_codes

    def _codes_of(self, texts: list[str]) -> list[int]:
        """The codes of texts, new ones included."""
        codes = []
        added: list[str] = []
        for text in texts:
            cut = text[:_LENGTH_MAX_CHARS]
            code = self._codes.get(cut)
            if code is None:
                code = self._codes[cut] = len(self._texts)
                self._texts.append(cut)
                added.append(cut)
            codes.append(code)
        if added:
            begin, end = len(self._texts) - len(added), len(self._texts)
            if end > len(self._hashes):
                self._hashes = np.concatenate([self._hashes, np.zeros((end + _SPARE_CODES, 2), np.uint64)])
            self._hashes[begin:end] = hash_text(StringColumn.of(added))
        return codes
