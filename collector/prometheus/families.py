"""The metric families of an exporter: their Prometheus names and types, once per distinct OTLP metric.

What senders choose is bounded: the longest name has 4096 characters, and the series cache that owns the table bounds
its size as a whole.
"""

import sys
from typing import Final

import numpy as np

from collector.model import METRIC_SUM, Metrics, groups
from collector.model.arrays import I32, I64, U8, Indices
from collector.prometheus.attributes import LabelEncoder
from collector.prometheus.encodable import Family
from collector.prometheus.growing import GrowingRows
from collector.prometheus.merge import additive_kind
from collector.prometheus.naming import UP_DOWN_COUNTER, TranslationStrategy, metric_name, prometheus_type

__all__ = ["FAMILY_REASONS", "METADATA_TYPES", "VARIANTS", "Families"]

VARIANTS: Final = ("", "_bucket", "_sum", "_count")
"""What follows the name of a family in those of its samples."""
METADATA_TYPES: Final = {"counter": 1, "gauge": 2, "histogram": 3, "summary": 5}
"""The numbers of the types in the metadata of remote write, in both versions of the protocol."""

_ENTRY_BYTES: Final = 900  # estimate for a name in the dictionary and the lists
_NO_TYPE, _NO_NAME, _LONG_NAME = -1, -2, -3
FAMILY_REASONS: Final = {_NO_TYPE: "temporality", _NO_NAME: "metric_name", _LONG_NAME: "label_size"}
"""Why a metric has no family, by the number that it gets instead."""
_NAME_MAX_CHARS: Final = 4096  # of the name and the unit of a metric; senders choose them
_DESCRIPTION_MAX_CHARS: Final = 1024  # longer ones are cut; Mimir's limit

_Key = tuple[str, str, int, int, int]


class Families:
    """Numbers for the families; a number stays valid as long as the table."""

    def __init__(
        self,
        encode_label: LabelEncoder,
        strategy: TranslationStrategy,
        namespace: str,
        sampled_types: tuple[int, ...],
    ) -> None:
        """``sampled_types``: those whose samples have names with the ``VARIANTS``."""
        self._encode_label = encode_label
        self._strategy = strategy
        self._namespace = namespace
        self._sampled_types = sampled_types
        self._numbers: dict[_Key, int] = {}
        self._keys: list[_Key] = []
        self._list: list[Family] = []
        self._slices = GrowingRows(np.int32, len(VARIANTS), 2)
        self._metadata = GrowingRows(np.int64, 5)
        self._kinds = GrowingRows(np.uint8)
        self.names = bytearray(b"\0")
        """The name labels of all families, encoded, and of their samples."""
        self._texts = bytearray(b"\0")
        self._snapshot: tuple[I64, U8] | None = None
        self.family_names: set[str] = set()
        self.sample_names: dict[str, str] = {}
        """Names of the samples of histograms and summaries, with that of their family."""
        self._key_bytes = 0

    def __len__(self) -> int:
        return len(self._list)

    def __getitem__(self, number: int) -> Family:
        return self._list[number]

    @property
    def memory_bytes(self) -> int:
        """The size of the table, estimated where Python's objects are concerned."""
        arrays = self._slices.memory_bytes + self._metadata.memory_bytes
        return len(self.names) + len(self._texts) + self._key_bytes + len(self._numbers) * _ENTRY_BYTES + arrays

    def slices(self) -> I32:
        """(families, 4, 2): start and size of each family's name labels in ``names``."""
        return self._slices.rows()

    def kinds(self) -> U8:
        """(families,) how streams that share a series are added up, see :func:`additive_kind`."""
        return self._kinds.rows()

    def metadata(self) -> tuple[I64, U8]:
        """(families, 5): type, start and size of the help, start and size of the unit; and the texts.

        Nothing that happens later changes these arrays.
        """
        if self._snapshot is None:
            self._snapshot = self._metadata.rows().copy(), np.frombuffer(bytes(self._texts), np.uint8)
        return self._snapshot

    def numbers_of(self, batch: Metrics) -> I32:
        """(metrics,) number of the family of each metric; negative if it cannot be sent."""
        names, units = batch.field("name", "metrics"), batch.field("unit", "metrics")
        rows = batch.table("metrics").rows
        found = groups(names.codes, units.codes, rows["type"], rows["temporality"], rows["monotonic"])
        numbers = np.empty(found.count, np.int32)
        descriptions = batch.field("description", "metrics")
        first = found.first
        columns = zip(
            names.codes[first].tolist(), units.codes[first].tolist(), descriptions.codes[first].tolist(),
            rows["type"][first].tolist(), rows["temporality"][first].tolist(), rows["monotonic"][first].tolist(),
            strict=True,
        )  # fmt: skip
        for group, (name, unit, description, metric_type, temporality, monotonic) in enumerate(columns):
            key = (
                names.distinct[name] if name >= 0 else "",
                units.distinct[unit] if unit >= 0 else "",
                metric_type, temporality, monotonic,
            )  # fmt: skip
            number = self._numbers.get(key)
            if number is None:
                number = self._add(key)
            numbers[group] = number
            if number >= 0 and description >= 0 and not self._list[number].description:
                self._describe(number, descriptions.distinct[description][:_DESCRIPTION_MAX_CHARS], key[1])
        return numbers[found.codes]

    def only(self, numbers: Indices) -> "Families":
        """A table of some of the families alone, numbered in their order."""
        kept = Families(self._encode_label, self._strategy, self._namespace, self._sampled_types)
        for number in numbers.tolist():
            new = kept._add(self._keys[number])
            family = self._list[number]
            if family.description:
                kept._describe(new, family.description, family.unit)
        return kept

    def _add(self, key: _Key) -> int:
        name, unit, metric_type, temporality, monotonic = key
        if len(name) + len(unit) > _NAME_MAX_CHARS:
            return _LONG_NAME
        kind = prometheus_type(metric_type, temporality, monotonic)
        suffixes = UP_DOWN_COUNTER if metric_type == METRIC_SUM and kind == "gauge" else kind
        text = metric_name(name, unit, suffixes, self._strategy, self._namespace) if kind else ""
        if not kind or not text:
            number = _NO_TYPE if not kind else _NO_NAME
        else:
            number = len(self._list)
            slices = np.empty((len(VARIANTS), 2), np.int32)
            for i, variant in enumerate(VARIANTS):
                encoded = self._encode_label("__name__", text + variant)
                slices[i] = len(self.names), len(encoded)
                self.names += encoded
            self._slices.append(slices)
            self._metadata.append((METADATA_TYPES[kind], 0, 0, 0, 0))
            self._kinds.append(additive_kind(metric_type, kind))
            self._list.append(Family(text, kind))
            self._snapshot = None
            if unit:
                self._describe(number, "", unit)
            self._keys.append(key)
            self.family_names.add(text)
            if metric_type in self._sampled_types:
                self.sample_names.update({text + variant: text for variant in VARIANTS if variant})
        self._numbers[key] = number
        self._key_bytes += sum(map(sys.getsizeof, (name, unit, *(text + variant for variant in VARIANTS))))
        return number

    def _describe(self, number: int, description: str, unit: str) -> None:
        family = self._list[number]
        family.description, family.unit = description, unit
        self._key_bytes += sys.getsizeof(description)
        begin, encoded, unit_encoded = len(self._texts), description.encode(), unit.encode()
        self._texts += encoded + unit_encoded
        self._snapshot = None
        self._metadata.rows()[number, 1:] = begin, len(encoded), begin + len(encoded), len(unit_encoded)
