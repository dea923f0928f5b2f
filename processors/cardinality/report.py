"""Who makes the series: demand, and the worst attributes, for ``GET /cardinality``. Bounded itself."""

from collections import defaultdict
from hashlib import blake2b
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from collector.model import Metrics, groups, hash_text
from processors.cardinality.config import TopConfig

__all__ = ["Report"]

_VALUES_MAX: Final = 100_000  # distinct values remembered for one attribute of one metric
_TOTAL_MAX: Final = 500_000  # and for all of them: some 40 MiB
_PAIRS_MAX: Final = 2_000  # attributes of metrics watched


class Report:
    """Counts distinct values of attributes; asked only about series seen for the first time."""

    def __init__(self, config: TopConfig) -> None:
        self._config = config
        self._value_count = 0
        self._values: dict[tuple[str, str], set[int]] = {}
        self._samples: dict[tuple[str, str], list[str]] = defaultdict(list)

    def note(self, batch: Metrics, rows: npt.NDArray[np.intp]) -> None:
        """Look at the attributes of points (ascending ``rows``) whose series are new."""
        attributes = batch.attributes("points")
        if not attributes.row_count or not len(rows):
            return
        wanted = np.zeros(batch.item_count, bool)
        wanted[rows] = True
        at = np.flatnonzero(wanted[attributes.owner])
        names = batch.field("name", "metrics")
        keys, texts = attributes.key, attributes.as_text()
        metric = names.codes[batch.table("points").parent[attributes.owner[at]]]
        found = groups(metric, keys.codes[at], texts.codes[at])
        hashes = hash_text(texts)[:, 0]
        for first in found.first.tolist():
            row = at[first]
            if texts.codes[row] < 0 or metric[first] < 0:
                continue
            pair = names.distinct[metric[first]], keys.distinct[keys.codes[row]]
            values = self._values.get(pair)
            if values is None:
                if len(self._values) >= _PAIRS_MAX:
                    continue
                values = self._values[pair] = set()
            value_hash = int(hashes[row])
            if len(values) < _VALUES_MAX and self._value_count < _TOTAL_MAX and value_hash not in values:
                values.add(value_hash)
                self._value_count += 1
            samples = self._samples[pair]
            if len(samples) < self._config.sample_values:
                value = texts.distinct[texts.codes[row]]
                shown = "#" + blake2b(value.encode(), digest_size=6).hexdigest() if pair[1] in self._config.hash else value[:200]
                if shown not in samples:
                    samples.append(shown)

    def worst(self) -> list[dict[str, Any]]:
        """The attributes with most distinct values."""
        order = sorted(self._values.items(), key=lambda item: -len(item[1]))[: self._config.n]
        return [
            {"metric": metric, "attribute": key, "values": len(values), "samples": self._samples[metric, key]}
            for (metric, key), values in order
        ]

    def counts(self) -> dict[tuple[str, ...], float]:
        """(metric, attribute) → distinct values, the worst alone: for the own metric."""
        return {(entry["metric"], entry["attribute"]): float(entry["values"]) for entry in self.worst()}
