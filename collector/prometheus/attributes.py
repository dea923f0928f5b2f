"""Reads the attributes of a batch as texts, and as the labels of its exemplars."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from collector.model import Metrics, groups
from collector.model.arrays import I32, U8, Records, offsets_of, starts_of
from collector.prometheus.labels import SeriesLabels

__all__ = ["LabelEncoder", "LabelFormat", "ParentAttributes", "exemplar_labels"]

LabelEncoder = Callable[[str, str], bytes]
"""Encodes a label name and a value; the name of the metric is passed as ``("__name__", name)``."""


@dataclass(frozen=True, slots=True)
class LabelFormat:
    """How labels are encoded: as protobuf, or as text for the exposition format."""

    encode_label: LabelEncoder
    encode_name: Callable[[str], bytes]
    """What is the same for all values of a label: in protobuf the fields of a ``Label`` up to the length of its value,
    in text everything up to the opening quote.
    """
    is_text: bool


def exemplar_labels(
    batch: Metrics, exemplars: Records, labels: SeriesLabels, encode_label: LabelEncoder
) -> tuple[U8, I32]:
    """The filtered attributes of each exemplar as label bytes, and (exemplars, 3): start, size, characters.

    Each label name occurs once: the first attribute of a name stands, and the ids of the exemplar itself take
    precedence. Prometheus stores no exemplar with a repeated label.
    """
    slices = np.zeros((len(exemplars), 3), np.int32)
    if not len(exemplars):
        return np.zeros(1, np.uint8), slices
    attributes = batch.attributes("exemplars")
    if not attributes.row_count:
        return np.zeros(1, np.uint8), slices
    keys, texts = attributes.key, attributes.as_text()
    pairs = groups(keys.codes, texts.codes)
    encoded, characters = [], np.empty(pairs.count, np.int32)
    names = np.empty(pairs.count, np.int32)
    numbers: dict[str, int] = {"trace_id": 0, "span_id": 1}
    for pair, row in enumerate(pairs.first.tolist()):
        name = labels.name(keys.distinct[keys.codes[row]])
        value = texts.distinct[texts.codes[row]] if texts.codes[row] >= 0 else ""
        encoded.append(encode_label(name, value) if name and value else b"")
        characters[pair] = len(name) + len(value)
        # An attribute that becomes no label hides no other.
        names[pair] = numbers.setdefault(name, len(numbers)) if name and value else -1 - pair
    owner, name_of = attributes.owner, names[pairs.codes]
    is_kept = np.zeros(len(owner), bool)
    is_kept[groups(owner, name_of).first] = True
    has_trace = (exemplars["trace_id_hi"][owner] | exemplars["trace_id_lo"][owner]) != 0
    is_kept &= ~((name_of == 0) & has_trace) & ~((name_of == 1) & (exemplars["span_id"][owner] != 0))
    owner, codes = owner[is_kept], pairs.codes[is_kept]
    sizes = np.array([len(piece) for piece in encoded], np.int64)
    starts = starts_of(sizes)
    row_sizes = sizes[codes]
    row_starts = offsets_of(row_sizes)
    gather = np.repeat(starts[codes] - row_starts[:-1], row_sizes) + np.arange(row_starts[-1])
    arena = np.frombuffer(b"".join(encoded) or b"\0", np.uint8)[gather] if len(gather) else np.zeros(1, np.uint8)
    first = np.searchsorted(owner, np.arange(len(exemplars) + 1))
    slices[:, 0] = row_starts[first[:-1]]
    slices[:, 1] = row_starts[first[1:]] - row_starts[first[:-1]]
    totals = offsets_of(np.where(sizes > 0, characters, 0)[codes])
    slices[:, 2] = totals[first[1:]] - totals[first[:-1]]
    return np.ascontiguousarray(arena), slices


class ParentAttributes:
    """The attributes of the resources or scopes of a batch as text; each row is read at most once, on demand.

    Where the attributes of each row begin is found for all rows at once: a batch of new series has many parents.
    """

    def __init__(self, batch: Metrics, table: str) -> None:
        self._batch = batch
        self._table = table
        self._attributes = batch.attributes(table)
        self._texts = self._attributes.as_text()
        self._first = np.searchsorted(self._attributes.owner, np.arange(batch.table(table).row_count + 1)).tolist()
        self._known: dict[int, list[tuple[str, str]]] = {}
        self._known_scopes: dict[int, tuple[str, str, str, list[tuple[str, str]]]] = {}

    def attributes(self, row: int) -> list[tuple[str, str]]:
        """(key, text) of the attributes of a row."""
        if row not in self._known:
            keys, texts = self._attributes.key, self._texts
            self._known[row] = [
                (keys.distinct[keys.codes[j]], texts.distinct[texts.codes[j]] if texts.codes[j] >= 0 else "")
                for j in range(self._first[row], self._first[row + 1])
            ]
        return self._known[row]

    def scope(self, row: int) -> tuple[str, str, str, list[tuple[str, str]]]:
        """Name, version, schema URL, attributes."""
        if row not in self._known_scopes:
            texts = []
            for name in ("name", "version", "schema_url"):
                column = self._batch.field(name, self._table)
                texts.append(column.distinct[column.codes[row]] if column.codes[row] >= 0 else "")
            self._known_scopes[row] = (texts[0], texts[1], texts[2], self.attributes(row))
        return self._known_scopes[row]
