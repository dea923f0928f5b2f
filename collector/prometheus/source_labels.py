"""The label bytes of the sources of a batch that are new, written by a kernel.

Names are translated once per distinct attribute key, what a resource and scope add once per scope, and the kernel joins
them with the values of each point. Points that the kernel leaves (several attributes of one label name, very many
attributes) are written here; both ways give the same bytes.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from collector.model import METRIC_SUMMARY, Metrics, groups
from collector.model.arrays import I32, I64, U8, U64, Indices, offsets_of
from collector.prometheus import _labels as kernel
from collector.prometheus.attributes import LabelFormat, ParentAttributes
from collector.prometheus.families import Families
from collector.prometheus.labels import SeriesLabels

__all__ = ["SourceLabels", "WrittenLabels"]


@dataclass(slots=True)
class WrittenLabels:
    """The labels of some points."""

    encoded: bytes
    pieces: I64
    """(n, 4): start in ``encoded``; sizes of the labels before ``__name__``, up to ``le`` or ``quantile``, after."""
    identities: U64
    """(n, 2): the key of the series, made of labels and name."""

    def labels(self, row: int) -> U8:
        """The encoded labels of a row."""
        start, *sizes = self.pieces[row].tolist()
        return np.frombuffer(self.encoded, np.uint8)[start : start + sum(sizes)]


class SourceLabels:
    """Writes them in one format."""

    def __init__(self, labels: SeriesLabels, label_format: LabelFormat, sampled_types: tuple[int, ...]) -> None:
        """``sampled_types``: those whose samples have a label ``le`` or ``quantile`` that the encoder adds."""
        self._labels = labels
        self._format = label_format
        self._sampled_types = sampled_types

    def write(self, batch: Metrics, rows: Indices, family: I32, types: I32, families: Families) -> WrittenLabels:
        """The labels of the points in ``rows``. ``family`` and ``types`` are per point."""
        attributes = batch.attributes("points")
        keys, texts = attributes.key, attributes.as_text()
        first = np.searchsorted(attributes.owner, rows).astype(np.int64)
        last = np.searchsorted(attributes.owner, rows, side="right").astype(np.int64)
        names: dict[str, int] = {"__name__": 0, "le": 1, "quantile": 2}
        key_names = np.empty(len(keys.distinct), np.int32)
        for code, key in enumerate(keys.distinct):
            name = self._labels.name(key)
            key_names[code] = names.setdefault(name, len(names)) if name and name != "__name__" else -1
        text_codes, values = _used_texts(texts.codes, texts.distinct, first, last)
        scopes = groups(batch.ancestor("scopes", "points")[rows])
        parent_first, inherited = self._parents(batch, rows[scopes.first], names, values)
        ordered = sorted(names, key=str.encode)
        rank = np.empty(len(names) + 1, np.int32)
        rank[[names[name] for name in ordered]] = np.arange(len(ordered))
        rank[-1] = -1
        parent_labels = _by_parent_and_name(parent_first, inherited, rank)
        encoded_names = [self._format.encode_name(name) for name in ordered]
        row_types = types[rows]
        encoded, pieces, identities, states = kernel.write_labels(
            first, last, keys.codes, text_codes, rank[key_names],
            scopes.codes.astype(np.int32), parent_first, parent_labels,
            _joined(encoded_names), offsets_of(np.fromiter(map(len, encoded_names), np.int64, len(encoded_names))),
            _joined(values), offsets_of(np.fromiter(map(len, values), np.int64, len(values))),
            int(rank[0]), np.where(row_types == METRIC_SUMMARY, rank[2], rank[1]).astype(np.int32),
            np.isin(row_types, self._sampled_types).astype(np.uint8),
            np.ascontiguousarray(family[rows]), np.frombuffer(families.names, np.uint8), families.slices(),
            self._format.is_text,
        )  # fmt: skip
        written = WrittenLabels(encoded, pieces, identities)
        left = np.flatnonzero(states == kernel.LEFT)
        if len(left):
            self._write_left(batch, rows, left, family, types, families, written)
        return written

    def _parents(
        self, batch: Metrics, points: Indices, names: dict[str, int], values: list[bytes]
    ) -> tuple[I32, list[tuple[int, int, bool]]]:
        """(points + 1,) where the labels of each point's resource and scope begin in the list that follows.

        It has the name, the value and whether it overrides. New names and values are added to ``names``, ``values``.
        """
        scopes, resources = ParentAttributes(batch, "scopes"), ParentAttributes(batch, "resources")
        first, labels = [0], list[tuple[int, int, bool]]()
        scope_rows = batch.ancestor("scopes", "points")[points].tolist()
        resource_rows = batch.ancestor("resources", "points")[points].tolist()
        for scope_row, resource_row in zip(scope_rows, resource_rows, strict=True):
            inherited = self._labels.inherited(resources.attributes(resource_row), scopes.scope(scope_row))
            for name, (value, overrides) in inherited.items():
                if not name or name == "__name__":
                    continue
                labels.append((names.setdefault(name, len(names)), len(values), overrides))
                values.append(value.encode())
            first.append(len(labels))
        return np.array(first, np.int32), labels

    def _write_left(
        self,
        batch: Metrics,
        rows: Indices,
        left: Indices,
        family: I32,
        types: I32,
        families: Families,
        written: WrittenLabels,
    ) -> None:
        """Write the labels of the positions ``left`` of ``rows``."""
        attributes = batch.attributes("points")
        keys, texts = attributes.key, attributes.as_text()
        scopes, resources = ParentAttributes(batch, "scopes"), ParentAttributes(batch, "resources")
        scope_rows = batch.ancestor("scopes", "points")[rows[left]].tolist()
        resource_rows = batch.ancestor("resources", "points")[rows[left]].tolist()
        firsts = np.searchsorted(attributes.owner, rows[left]).tolist()
        lasts = np.searchsorted(attributes.owner, rows[left], side="right").tolist()
        encode_label = self._format.encode_label
        added: list[bytes] = []
        end = len(written.encoded)
        for i, position in enumerate(left.tolist()):
            pairs = [
                (keys.distinct[keys.codes[j]], texts.distinct[texts.codes[j]] if texts.codes[j] >= 0 else "")
                for j in range(firsts[i], lasts[i])
            ]
            labels = self._labels.series(pairs, resources.attributes(resource_rows[i]), scopes.scope(scope_rows[i]))
            metric_type = int(types[rows[position]])
            split = "quantile" if metric_type == METRIC_SUMMARY else "le"
            is_sampled = metric_type in self._sampled_types
            pieces: list[list[bytes]] = [[], [], []]
            for name, value in labels:
                if not (is_sampled and name == split):
                    pieces[0 if name < "__name__" else 1 if name < split else 2].append(encode_label(name, value))
            whole = b"".join(label for piece in pieces for label in piece)
            written.pieces[position] = end, *(sum(map(len, piece)) for piece in pieces)
            name_start, name_size = families.slices()[family[rows[position]], 0].tolist()
            written.identities[position] = kernel.identity(
                np.frombuffer(whole, np.uint8), bytes(families.names[name_start : name_start + name_size])
            )
            added.append(whole)
            end += len(whole)
        written.encoded += b"".join(added)


def _joined(pieces: list[bytes]) -> U8:
    return np.frombuffer(b"".join(pieces) or b"\0", np.uint8)


def _used_texts(codes: I32, distinct: Sequence[str], first: I64, last: I64) -> tuple[I32, list[bytes]]:
    """(attributes,) the codes of the texts that the ranges of attributes use, counted anew, and those texts."""
    lengths = last - first
    if int(lengths.sum()) == len(codes):
        return codes, [text.encode() for text in distinct]
    starts = offsets_of(lengths)
    used = np.repeat(first - starts[:-1], lengths) + np.arange(starts[-1])
    wanted = np.unique(codes[used])
    wanted = wanted[wanted >= 0]
    # One more place than texts: -1, for an empty text, is the last one.
    new_codes = np.full(len(distinct) + 1, -1, np.int32)
    new_codes[wanted] = np.arange(len(wanted))
    return new_codes[codes], [distinct[code].encode() for code in wanted.tolist()]


def _by_parent_and_name(first: I32, labels: list[tuple[int, int, bool]], rank: I32) -> I32:
    """(labels, 3): the labels of each parent by their names' ranks."""
    if not labels:
        return np.zeros((0, 3), np.int32)
    array = np.array(labels, np.int32)
    array[:, 0] = rank[array[:, 0]]
    parent = np.repeat(np.arange(len(first) - 1), np.diff(first))
    return np.ascontiguousarray(array[np.lexsort((array[:, 0], parent))])
