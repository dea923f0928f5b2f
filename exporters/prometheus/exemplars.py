"""The latest exemplar of each counter and of each bucket of a histogram, for OpenMetrics pages.

An exemplar is a fixed record; its labels beyond the ids are finished text in an arena, which is compacted when most of
it is no longer used.

Source: OpenMetrics 1.0, "Exemplars".
"""

from collections.abc import Sequence
from typing import Final

import numpy as np

from collector.model.arrays import F64, I32, I64, U8, U64, Indices, Mask, Records, offsets_of
from collector.prometheus import Encodable

__all__ = ["RECORD", "ExemplarStore", "latest", "values_of"]

RECORD: Final = np.dtype(
    [
        ("value", "<f8"), ("time_ms", "<i8"), ("trace_id_hi", "<u8"), ("trace_id_lo", "<u8"), ("span_id", "<u8"),
        ("labels", "<i8"), ("labels_len", "<i8"),
    ]
)  # fmt: skip
"""``labels`` and ``labels_len`` are a slice of the arena. The kernel reads the same layout."""

_LABELS_MAX_CHARS: Final = 128  # of an exemplar; Prometheus stores none with more
_TRACE_ID_CHARS: Final = 8 + 32
_SPAN_ID_CHARS: Final = 7 + 16
_COMPACT_FROM_BYTES: Final = 1024 * 1024


class ExemplarStore:
    """Records of exemplars. Number 0 stands for none."""

    def __init__(self) -> None:
        self.records = np.zeros(16, RECORD)
        self.arena = bytearray()
        self._used = 1
        self._live_bytes = 0

    @property
    def memory_bytes(self) -> int:
        """The size of the records and their labels."""
        return self.records.nbytes + len(self.arena)

    def put(self, numbers: I32, at: Indices, found: Encodable, rows: Indices, values: F64, times: U64) -> None:
        """Keep exemplars in the places ``at`` of ``numbers``, where those of a later time stay.

        ``rows`` are those in ``found.exemplars``, with their values and times in nanoseconds. Places occur once.
        """
        slots = numbers[at]
        new = np.flatnonzero(slots == 0)
        slots[new] = self._allocate(len(new))
        numbers[at] = slots
        times_ms = (times // np.uint64(1_000_000)).astype(np.int64)
        is_newer = times_ms >= self.records["time_ms"][slots]
        slots, rows = slots[is_newer], rows[is_newer]
        exemplars = found.exemplars[rows]
        records = np.zeros(len(rows), RECORD)
        records["value"], records["time_ms"] = values[is_newer], times_ms[is_newer]
        for name in ("trace_id_hi", "trace_id_lo", "span_id"):
            records[name] = exemplars[name]
        starts, sizes, characters = found.exemplar_slices[rows].astype(np.int64).T
        characters = characters + _TRACE_ID_CHARS * ((exemplars["trace_id_hi"] | exemplars["trace_id_lo"]) != 0)
        characters += _SPAN_ID_CHARS * (exemplars["span_id"] != 0)
        sizes = np.where(characters <= _LABELS_MAX_CHARS, sizes, 0)
        records["labels"] = len(self.arena) + offsets_of(sizes)[:-1]
        records["labels_len"] = sizes
        self._live_bytes += int(sizes.sum() - self.records["labels_len"][slots].sum())
        self.arena += _gathered(found.exemplar_arena, starts, sizes)
        self.records[slots] = records
        if len(self.arena) > max(_COMPACT_FROM_BYTES, 2 * self._live_bytes):
            self._compact()

    def keep_only(self, numbers: Sequence[I32]) -> I32 | None:
        """Leave out the exemplars that are not among the numbers; returns (old numbers,) the new one of each.

        None if most of them are used: nothing was done.
        """
        used = np.unique(np.concatenate(numbers))
        used = used[used > 0]
        if 2 * len(used) >= self._used:
            return None
        records = np.zeros(max(16, len(used) + 1), RECORD)
        records[1 : len(used) + 1] = self.records[used]
        moved = np.zeros(self._used, np.int32)
        moved[used] = np.arange(1, len(used) + 1)
        self.records, self._used = records, len(used) + 1
        self._live_bytes = int(records["labels_len"].sum())
        self._compact()
        return moved

    def _allocate(self, count: int) -> I32:
        slots = np.arange(self._used, self._used + count, dtype=np.int32)
        self._used += count
        while self._used > len(self.records):
            self.records = np.concatenate((self.records, np.zeros_like(self.records)))
        return slots

    def _compact(self) -> None:
        """Leave out what no exemplar refers to any more."""
        sizes = self.records["labels_len"].copy()
        arena = np.frombuffer(bytes(self.arena) or b"\0", np.uint8)
        self.arena = bytearray(_gathered(arena, self.records["labels"], sizes))
        self.records["labels"] = offsets_of(sizes)[:-1]


def latest(keys: I64, times: U64) -> Indices:
    """The position of the latest of each key; of equal times the last."""
    order = np.lexsort((np.arange(len(keys)), times, keys))
    is_last: Mask = np.ones(len(keys), bool)
    is_last[:-1] = keys[order][1:] != keys[order][:-1]
    return order[is_last]


def values_of(exemplars: Records) -> F64:
    """The value of each exemplar."""
    values: F64 = np.where(exemplars["value_kind"] == 1, exemplars["int_value"], exemplars["double_value"])
    return values


def _gathered(arena: U8, starts: I64, sizes: I64) -> bytes:
    """The slices one after the other."""
    offsets = offsets_of(sizes)
    if not offsets[-1]:
        return b""
    return bytes(arena[np.repeat(starts - offsets[:-1], sizes) + np.arange(offsets[-1])])
