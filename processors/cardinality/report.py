"""The attributes with the most distinct values, for ``GET /cardinality``; in bounded memory."""

import os
from collections import defaultdict
from hashlib import blake2b
from typing import Any, Final

import numpy as np

from collector.model import Metrics, groups, hash_text
from collector.model.arrays import Indices
from processors.cardinality.config import TopConfig
from processors.cardinality.sketch import Sketches

__all__ = ["Report"]

_PAIRS_MAX: Final = 2_000  # attributes of metrics that are counted: 8 MiB of sketches
_BITS: Final = 11
_TEXT_MAX: Final = 200
_NAMES_MAX_CHARS: Final = 1024  # of a metric and its attribute; longer ones are not counted
_SALT: Final = os.urandom(16)  # so that users cannot be found by hashing all their ids


class Report:
    """Estimates the number of distinct values of each attribute, from series that are seen for the first time."""

    def __init__(self, config: TopConfig) -> None:
        self._config = config
        self._rows: dict[tuple[str, str], int] = {}
        self._sketches = Sketches(bits=_BITS, rows_max=_PAIRS_MAX)
        self._samples: dict[tuple[str, str], list[str]] = defaultdict(list)

    def configure(self, config: TopConfig) -> None:
        """Apply other settings. Samples are taken again, because they are stored as they are shown."""
        if config != self._config:
            self._config = config
            self._samples.clear()

    @property
    def memory_bytes(self) -> int:
        """Memory of the sketches."""
        return self._sketches.memory_bytes

    def shown(self, key: str, value: str) -> str:
        """A value as the report shows it: as a hash if its key is in ``hash``."""
        if key in self._config.hash:
            return "#" + blake2b(value.encode(), digest_size=6, key=_SALT).hexdigest()
        return value[:_TEXT_MAX]

    def note(self, batch: Metrics, rows: Indices) -> None:
        """Count the attribute values of points (ascending ``rows``) whose series are new."""
        attributes = batch.attributes("points")
        if not attributes.row_count or not len(rows):
            return
        is_noted = np.zeros(batch.item_count, bool)
        is_noted[rows] = True
        at = np.flatnonzero(is_noted[attributes.owner])
        texts = attributes.as_text()
        names = batch.field("name", "metrics")
        metric = names.codes[batch.table("points").parent[attributes.owner[at]]]
        has_text = (texts.codes[at] >= 0) & (metric >= 0)
        at, metric = at[has_text], metric[has_text]
        if not len(at):
            return
        pairs = groups(metric, attributes.key.codes[at])
        sketch = np.empty(pairs.count, np.int32)
        for number, first in enumerate(pairs.first.tolist()):
            pair = names.distinct[metric[first]], attributes.key.distinct[attributes.key.codes[at[first]]]
            row = self._rows.get(pair)
            if row is None:
                row = -1 if len(pair[0]) + len(pair[1]) > _NAMES_MAX_CHARS else self._sketches.allocate()
                if row >= 0:
                    self._rows[pair] = row
            sketch[number] = row
            if row >= 0 and len(self._samples[pair]) < self._config.sample_values:
                self._sample(
                    pair, [texts.distinct[code] for code in texts.codes[at[pairs.codes == number]][:100].tolist()]
                )
        self._sketches.add(sketch[pairs.codes], hash_text(texts)[at])

    def _sample(self, pair: tuple[str, str], values: list[str]) -> None:
        samples = self._samples[pair]
        for value in values:
            shown = self.shown(pair[1], value)
            if len(samples) >= self._config.sample_values:
                return
            if shown not in samples:
                samples.append(shown)

    def largest(self) -> list[dict[str, Any]]:
        """The attributes with the most distinct values."""
        pairs = list(self._rows)
        estimates = self._sketches.estimate(np.array([self._rows[pair] for pair in pairs], np.int32))
        sample_counts = [len(self._samples[pair]) for pair in pairs]  # so many there are certainly
        counts = np.maximum(np.rint(estimates).astype(np.int64), sample_counts)
        order = np.argsort(-counts, kind="stable")[: self._config.n].tolist()
        return [
            {
                "metric": pairs[i][0],
                "attribute": pairs[i][1],
                "values": int(counts[i]),
                "samples": list(self._samples[pairs[i]]),
            }
            for i in order
        ]

    def counts(self) -> dict[tuple[str, ...], float]:
        """(metric, attribute) → distinct values, of the attributes with the most: for the own metric."""
        return {(entry["metric"], entry["attribute"]): float(entry["values"]) for entry in self.largest()}

    def rotate(self) -> None:
        """Begin a new window; attributes that were not seen in two windows are forgotten."""
        self._sketches.rotate()
        pairs = list(self._rows)
        counts = self._sketches.estimate(np.array([self._rows[pair] for pair in pairs], np.int32))
        for pair, count in zip(pairs, counts.tolist(), strict=True):
            if not count:
                self._sketches.release(self._rows.pop(pair))
                self._samples.pop(pair, None)
