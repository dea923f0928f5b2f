"""The metric families of an exporter: their Prometheus names and types, once per distinct OTLP metric.

What senders choose is bounded: the longest name has 4096 characters, and the series cache that owns the table bounds
its size as a whole.
"""

from typing import Final

import numpy as np

from collector.model import METRIC_SUM, KeyTable, Metrics, combine_keys, hash_text
from collector.model.arrays import I32, I64, U8, U64, Indices
from collector.prometheus._labels import identity
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

_KINDS: Final = {number: kind for kind, number in METADATA_TYPES.items()}
_NO_TYPE, _NO_NAME, _LONG_NAME = -1, -2, -3
FAMILY_REASONS: Final = {_NO_TYPE: "temporality", _NO_NAME: "metric_name", _LONG_NAME: "label_size"}
"""Why a metric has no family, by the number that it gets instead."""
_NAME_MAX_CHARS: Final = 4096  # of the name and the unit of a metric; senders choose them
_DESCRIPTION_MAX_CHARS: Final = 1024  # longer ones are cut; Mimir's limit
_TEXTS: Final = {"help": 1, "unit": 3, "name": 5}
"""The column with the start of each text; its size is in the next one."""
_NO_TEXT: Final = np.zeros(0, np.uint8)


class Families:
    """Numbers for the families; a number stays valid as long as the table.

    There is no Python object for a family: senders can make very many, and a few that remain would keep the memory of
    all of them.
    """

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
        self._numbers = KeyTable({"number": np.int32}, capacity=64)
        self._names = KeyTable(capacity=64)
        self._sample_names = KeyTable({"family": np.int32}, capacity=64)
        self._slices = GrowingRows(np.int32, len(VARIANTS), 2)
        self._metadata = GrowingRows(np.int64, 7)
        self._kinds = GrowingRows(np.uint8)
        self._keys = GrowingRows(np.uint64, 2)
        self.names = bytearray(b"\0")
        """The name labels of all families, encoded, and of their samples."""
        self._texts = bytearray(b"\0")
        self._snapshot: tuple[I64, U8] | None = None
        self.has_conflicts = False
        """Whether a family has the name of a sample of another one."""

    def __len__(self) -> int:
        return len(self._kinds)

    def __getitem__(self, number: int) -> Family:
        name, description, unit = (self._text(number, what) for what in ("name", "help", "unit"))
        return Family(name, _KINDS[int(self._metadata.rows()[number, 0])], description, unit)

    @property
    def memory_bytes(self) -> int:
        """The size of the table."""
        tables = self._numbers.memory_bytes + self._names.memory_bytes + self._sample_names.memory_bytes
        rows = (self._slices, self._metadata, self._kinds, self._keys)
        return len(self.names) + len(self._texts) + tables + sum(table.memory_bytes for table in rows)

    @property
    def known_count(self) -> int:
        """How many metrics are remembered, also those without a family."""
        return len(self._numbers)

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
            rows = np.ascontiguousarray(self._metadata.rows()[:, :5])
            self._snapshot = rows, np.frombuffer(bytes(self._texts), np.uint8)
        return self._snapshot

    def has(self, name: str) -> bool:
        """Whether a family has the name."""
        return bool(self._names.find(_key(name))[0] >= 0)

    def owner_of(self, sample_name: str) -> str:
        """The name of the family that has samples of this name; empty if there is none."""
        slot = self._sample_names.find(_key(sample_name))[0]
        return self._text(int(self._sample_names.column("family")[slot]), "name") if slot >= 0 else ""

    def numbers_of(self, batch: Metrics) -> I32:
        """(metrics,) number of the family of each metric; negative if it cannot be sent."""
        names, units = batch.field("name", "metrics"), batch.field("unit", "metrics")
        descriptions = batch.field("description", "metrics")
        rows = batch.table("metrics").rows
        keys = combine_keys(hash_text(names), hash_text(units), rows["type"], rows["temporality"], rows["monotonic"])
        slots, is_new = self._numbers.insert(keys)
        for row in np.flatnonzero(is_new).tolist():
            name, unit = (
                column.distinct[column.codes[row]] if column.codes[row] >= 0 else "" for column in (names, units)
            )
            self._numbers.column("number")[slots[row]] = self._add(
                keys[row], name, unit, int(rows["type"][row]), int(rows["temporality"][row]),
                int(rows["monotonic"][row]),
            )  # fmt: skip
        numbers: I32 = self._numbers.column("number")[slots]
        undescribed = np.flatnonzero((descriptions.codes >= 0) & (numbers >= 0))
        undescribed = undescribed[self._metadata.rows()[numbers[undescribed], 2] == 0]
        for row in undescribed.tolist():
            number = int(numbers[row])
            if not self._metadata.rows()[number, 2]:
                description = descriptions.distinct[descriptions.codes[row]][:_DESCRIPTION_MAX_CHARS]
                self._set_text(number, "help", description)
        return numbers

    def only(self, numbers: Indices) -> "Families":
        """A table of some of the families alone, numbered in their order."""
        kept = Families(self._encode_label, self._strategy, self._namespace, self._sampled_types)
        for number in numbers.tolist():
            new = len(kept)
            slots, _ = kept._numbers.insert(self._keys.rows()[number][None, :])
            kept._numbers.column("number")[slots] = new
            family = self[number]
            samples = self._names_of_samples(number, family.name)
            kept._append(self._keys.rows()[number], family.name, family.kind, int(self.kinds()[number]), samples)
            kept._set_text(new, "unit", family.unit)
            kept._set_text(new, "help", family.description)
        return kept

    def _names_of_samples(self, number: int, name: str) -> list[str]:
        """Those of a family that has any beside its own name."""
        return [name + variant for variant in VARIANTS[1:]] if self.slices()[number, 1, 1] else []

    def _add(self, key: U64, name: str, unit: str, metric_type: int, temporality: int, monotonic: int) -> int:
        if len(name) + len(unit) > _NAME_MAX_CHARS:
            return _LONG_NAME
        kind = prometheus_type(metric_type, temporality, monotonic)
        if not kind:
            return _NO_TYPE
        suffixes = UP_DOWN_COUNTER if metric_type == METRIC_SUM and kind == "gauge" else kind
        text = metric_name(name, unit, suffixes, self._strategy, self._namespace)
        if not text:
            return _NO_NAME
        number = len(self)
        samples = [text + variant for variant in VARIANTS[1:]] if metric_type in self._sampled_types else []
        self._append(key, text, kind, additive_kind(metric_type, kind), samples)
        self._set_text(number, "unit", unit)
        return number

    def _append(self, key: U64, name: str, kind: str, additive: int, samples: list[str]) -> None:
        number = len(self)
        slices = np.zeros((len(VARIANTS), 2), np.int32)
        for i, text in enumerate((name, *samples)):
            encoded = self._encode_label("__name__", text)
            slices[i] = len(self.names), len(encoded)
            self.names += encoded
        self._slices.append(slices)
        self._metadata.append((METADATA_TYPES[kind], 0, 0, 0, 0, 0, 0))
        self._kinds.append(additive)
        self._keys.append(key)
        self._set_text(number, "name", name)
        self._names.insert(_key(name))
        for sample in samples:
            slots, _ = self._sample_names.insert(_key(sample))
            self._sample_names.column("family")[slots] = number
        self.has_conflicts |= bool(self.owner_of(name)) or any(self.has(sample) for sample in samples)

    def _text(self, number: int, what: str) -> str:
        start, size = self._metadata.rows()[number, _TEXTS[what] : _TEXTS[what] + 2].tolist()
        return self._texts[start : start + size].decode()

    def _set_text(self, number: int, what: str, text: str) -> None:
        encoded = text.encode()
        self._metadata.rows()[number, _TEXTS[what] : _TEXTS[what] + 2] = len(self._texts), len(encoded)
        self._texts += encoded
        self._snapshot = None


def _key(name: str) -> U64:
    return identity(_NO_TEXT, name.encode())[None, :]
