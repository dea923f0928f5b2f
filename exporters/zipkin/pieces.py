"""JSON text from pieces: distinct bytes, and for each place of the text which of them stands there.

What is worked on in Python is one piece per distinct text; order and repetition are arrays.
"""

from collections.abc import Iterable, Sequence

import numpy as np
import orjson

from collector.model.arrays import Array
from collector.wire.splice.values import decimal_texts, slice_bytes

__all__ = ["Pieces", "json_text"]


def json_text(text: str) -> bytes:
    """The text as a JSON string, with its quotes. Lone surrogates cannot occur: texts are valid UTF-8."""
    return orjson.dumps(text)


class Pieces:
    """The pieces of one document. The order is by row, then by the place in the row, then by the place in that."""

    def __init__(self) -> None:
        self._pool: list[bytes] = []
        self._known: dict[bytes, int] = {}
        self._parts: list[tuple[Array, Array, Array, Array]] = []

    def piece(self, content: bytes) -> int:
        """The number of a piece that may be used often."""
        number = self._known.get(content)
        if number is None:
            number = self._known[content] = len(self._pool)
            self._pool.append(content)
        return number

    def pieces(self, contents: Iterable[bytes]) -> Array:
        """The numbers of new pieces, I64[k]."""
        first = len(self._pool)
        self._pool.extend(contents)
        return np.arange(first, len(self._pool), dtype=np.int64)

    def decimals(self, values: Array) -> Array:
        """The numbers of pieces with the decimal text of each value."""
        return self.pieces(slice_bytes(*decimal_texts(np.ascontiguousarray(values, np.int64))))

    def hexadecimals(self, values: Array, *, short: bool = False) -> Array:
        """The numbers of pieces with the hexadecimal text of ids, U64[n] or U64[n,2].

        ``short``: 128-bit ids whose first half is 0 are written with 16 digits.
        """
        text = np.ascontiguousarray(values).astype(">u8").tobytes().hex().encode()
        width = 32 if values.ndim == 2 else 16
        starts = np.arange(len(values), dtype=np.int32) * width
        lengths = np.full(len(values), width, np.int32)
        if short and values.ndim == 2:
            is_short = values[:, 0] == 0
            starts[is_short] += 16
            lengths[is_short] = 16
        return self.pieces(slice_bytes(text, starts, lengths))

    def put(self, rows: Array, place: Array | int, within: Array | int, numbers: Array | int) -> None:
        """Put pieces into rows, at ``(place, within)``."""
        places, withins, pieces = (
            np.broadcast_to(np.asarray(each, np.int64), (len(rows),)) for each in (place, within, numbers)
        )
        self._parts.append((np.asarray(rows, np.int64), places, withins, pieces))

    def join(self) -> bytes:
        """All pieces in order."""
        rows, places, within, numbers = (np.concatenate([part[column] for part in self._parts]) for column in range(4))
        order = np.lexsort((within, places, rows))
        wanted: Sequence[int] = numbers[order].tolist()
        return b"".join(map(self._pool.__getitem__, wanted))
