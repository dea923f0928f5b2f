"""The ``le`` labels of histograms and the ``quantile`` labels of summaries, once per distinct set of values."""

from typing import Final

import numpy as np

from collector.model.arrays import I32
from collector.prometheus.attributes import LabelEncoder
from collector.prometheus.growing import GrowingRows

__all__ = ["LabelSets", "format_bound"]

_ENTRY_BYTES: Final = 400  # estimate for a set in the dictionary


def format_bound(value: float) -> str:
    """A bound as Go formats it: the shortest decimal without an exponent."""
    if np.isposinf(value):
        return "+Inf"
    if np.isneginf(value):
        return "-Inf"
    return "NaN" if np.isnan(value) else np.format_float_positional(value, trim="-")


class LabelSets:
    """Numbers for the sets; a number stays valid as long as the table."""

    def __init__(self, encode_label: LabelEncoder) -> None:
        self._encode_label = encode_label
        self._numbers: dict[tuple[str, bytes], int] = {}
        self._slices = GrowingRows(np.int32, 2)
        self._first = GrowingRows(np.int32)
        self._first.append(0)
        self.encoded = bytearray(b"\0")
        """The labels of all sets."""
        self._key_bytes = 0

    @property
    def memory_bytes(self) -> int:
        """The size of the table, estimated where Python's objects are concerned."""
        arrays = self._slices.memory_bytes + self._first.memory_bytes
        return len(self.encoded) + self._key_bytes + len(self._numbers) * _ENTRY_BYTES + arrays

    def slices(self) -> I32:
        """(labels, 2): start and size in ``encoded``."""
        return self._slices.rows()

    def first(self) -> I32:
        """(sets + 1,): first row of ``slices`` of each set."""
        return self._first.rows()

    def number(self, label: str, values: bytes) -> int:
        """The number of a set of ``le`` or ``quantile`` labels; ``values`` are little-endian doubles."""
        number = self._numbers.get((label, values))
        if number is not None:
            return number
        number = self._numbers[label, values] = len(self._first) - 1
        self._key_bytes += len(values)
        texts = [format_bound(value) for value in np.frombuffer(values, "<f8")]
        if label == "le":
            # The count is the last bucket; an explicit bound must not repeat it.
            texts = [*(text for text in texts if text != "+Inf"), "+Inf"]
        for text in texts:
            encoded = self._encode_label(label, text)
            self._slices.append((len(self.encoded), len(encoded)))
            self.encoded += encoded
        self._first.append(len(self._slices))
        return number
