"""The last value of every series, and the page made of them.

A table, not a history: a scrape sees what was last received, until it is older than the expiration. Numbers are a
column of the series table; histograms and summaries have a row in the store of their set of bounds.
"""

import itertools
from collections import defaultdict

import numpy as np
import numpy.typing as npt

from collector.model import (
    METRIC_EXPONENTIAL_HISTOGRAM,
    METRIC_GAUGE,
    METRIC_HISTOGRAM,
    METRIC_SUM,
    METRIC_SUMMARY,
    PRESENT_SUM,
    Metrics,
)
from collector.model.arrays import F64, I32
from collector.otlp.semantics import NO_RECORDED_VALUE
from collector.prometheus import Encodable, LabelSettings, SeriesCache, SeriesLabels, TranslationStrategy
from exporters.prometheus._render import Page

__all__ = ["SeriesStore"]

_TARGETS_MAX = 100_000


def _escape(text: str) -> str:
    return text.replace("\\", "\\\\").replace("\n", "\\n")


def encode_label(name: str, value: str) -> bytes:
    """A label as text with its comma; a metric's name as it is."""
    if name == "__name__":
        return value.encode()
    escaped = _escape(value).replace('"', '\\"')
    return f'{name}="{escaped}",'.encode()


class _Distributions:
    """Values, sum and count of the series that share one set of bounds or quantiles."""

    def __init__(self, label_count: int) -> None:
        self.values = np.zeros((16, label_count))
        self.sums = np.zeros(16)
        self.counts = np.zeros(16)
        self.has_sum = np.zeros(16, np.uint8)
        self.used = 0

    def allocate(self, count: int) -> I32:
        """Rows for ``count`` new series."""
        rows = np.arange(self.used, self.used + count, dtype=np.int32)
        self.used += count
        while self.used > len(self.sums):
            self.values = np.concatenate((self.values, np.zeros_like(self.values)))
            self.sums = np.concatenate((self.sums, np.zeros_like(self.sums)))
            self.counts = np.concatenate((self.counts, np.zeros_like(self.counts)))
            self.has_sum = np.concatenate((self.has_sum, np.zeros_like(self.has_sum)))
        return rows


class SeriesStore:
    """Takes batches, gives pages."""

    def __init__(
        self, settings: LabelSettings, strategy: TranslationStrategy, namespace: str, expiration_s: float
    ) -> None:
        self._labels = SeriesLabels(settings)
        self._expiration_s = expiration_s
        self._cache = SeriesCache(
            self._labels, encode_label, strategy, namespace,
            {"source": np.int32, "type": np.int32, "time": np.uint64, "seen": np.float64, "live": np.uint8, "value": np.float64,
             "set": np.int32, "row": np.int32},
        )  # fmt: skip
        self._generation = self._cache.generation
        self._stores: dict[int, _Distributions] = {}
        self._targets: dict[tuple[tuple[str, str], ...], float] = {}

    def update(self, batch: Metrics, now_s: float) -> dict[str, int]:
        """Take the batch's points; returns how many could not be taken, by reason."""
        found = self._cache.prepare(batch)
        if self._cache.generation != self._generation:
            self._generation = self._cache.generation
            self._stores = {}
        dropped = found.dropped
        rows = found.order
        native = found.types[rows] == METRIC_EXPONENTIAL_HISTOGRAM
        if native.any():
            dropped["exponential_histogram"] = int(np.count_nonzero(native))  # the text format has no form for them
            rows = rows[~native]
        self._remember_targets(batch, now_s)
        if not len(rows):
            return dropped
        series = self._cache.sources.column("series")[found.slot[rows]]
        last = np.ones(len(rows), bool)
        last[:-1] = series[1:] != series[:-1]
        rows, series = rows[last], series[last]
        column = self._cache.series.column
        newer = (column("live")[series] == 0) | (found.points["time"][rows] >= column("time")[series])
        rows, series = rows[newer], series[newer]
        points = found.points[rows]
        column("source")[series] = found.slot[rows]
        column("time")[series] = points["time"]
        column("seen")[series] = now_s
        column("live")[series] = points["flags"] & NO_RECORDED_VALUE == 0
        types = found.types[rows]
        is_number = (types == METRIC_GAUGE) | (types == METRIC_SUM)
        values = np.where(points["value_kind"] == 1, points["int_value"].astype(np.float64), points["double_value"])
        column("value")[series[is_number]] = values[is_number]
        column("set")[series[is_number]] = -1
        sets = found.extra_set[rows]
        for set_ in np.unique(sets[~is_number]).tolist():
            chosen = ~is_number & (sets == set_)
            self._update_set(batch, found, set_, rows[chosen], series[chosen])
        column("type")[series] = types
        return dropped

    def _update_set(self, batch: Metrics, found: Encodable, set_: int, rows: I32, series: I32) -> None:
        """Store the distributions of one set of bounds or quantiles."""
        first, last = self._cache.extra_first()[set_ : set_ + 2].tolist()
        label_count = last - first
        store = self._stores.setdefault(set_, _Distributions(label_count))
        column = self._cache.series.column
        stored = (column("set")[series] == set_) & (column("type")[series] == found.types[rows])
        fresh = np.flatnonzero(~stored)
        column("row")[series[fresh]] = store.allocate(len(fresh))
        column("set")[series] = set_
        at = column("row")[series]
        points = found.points[rows]
        if found.types[rows[0]] == METRIC_HISTOGRAM:
            store.values[at] = self._cumulative(batch.wire, points, label_count)
        elif label_count:
            store.values[at] = found.quantiles["value"][found.quantile_first[rows][:, None] + np.arange(label_count)]
        store.sums[at] = points["sum"]
        store.counts[at] = points["count"]
        store.has_sum[at] = (found.types[rows] == METRIC_SUMMARY) | (points["present"] & PRESENT_SUM != 0)

    @staticmethod
    def _cumulative(wire: bytes, points: npt.NDArray[np.void], label_count: int) -> F64:
        """(n, labels) counts up to each bound; the last is the point's count."""
        values = np.empty((len(points), label_count))
        values[:, -1] = points["count"]
        if label_count > 1:
            width = (label_count - 1) * 8
            bytes_at = np.frombuffer(wire, np.uint8)[points["buckets"][:, None] + np.arange(width)]
            values[:, :-1] = np.cumsum(np.ascontiguousarray(bytes_at).view("<u8"), axis=1)
        return values

    def _remember_targets(self, batch: Metrics, now_s: float) -> None:
        """The resources seen, for ``target_info``."""
        attributes = batch.attributes("resources")
        texts, keys = attributes.as_text(), attributes.key
        bounds = np.searchsorted(attributes.owner, np.arange(batch.table("resources").row_count + 1)).tolist()
        for begin, end in itertools.pairwise(bounds):
            pairs = [
                (keys.distinct[keys.codes[j]], texts.distinct[texts.codes[j]] if texts.codes[j] >= 0 else "")
                for j in range(begin, end)
            ]
            labels = self._labels.target_info(pairs)
            if labels:
                self._targets[tuple(labels)] = now_s
        if len(self._targets) > _TARGETS_MAX:  # more than a page can hold, or nobody scrapes
            self._forget_targets(now_s)
            if len(self._targets) > _TARGETS_MAX:
                self._targets.clear()

    def _forget_targets(self, now_s: float) -> None:
        """Resources that have been silent as long as a series may."""
        self._targets = {labels: seen for labels, seen in self._targets.items() if seen >= now_s - self._expiration_s}

    def series_count(self) -> int:
        """Series a scrape would see if none had expired."""
        return int(np.count_nonzero(self._cache.series.column("live")[self._cache.series.live()]))

    def page(
        self, now_s: float, *, send_timestamps: bool, target_info: bool, openmetrics: bool = False
    ) -> tuple[bytes, int]:
        """The exposition, and how many series were left out because their family's name has another type already."""
        column = self._cache.series.column
        series = self._cache.series.live()
        series = series[(column("live")[series] != 0) & (column("seen")[series] >= now_s - self._expiration_s)]
        source = column("source")[series]
        family = self._cache.sources.column("family")[source]
        page = Page()
        conflicts = 0
        by_name: dict[str, list[int]] = defaultdict(list)
        for number in np.unique(family).tolist():
            by_name[self._cache.families[number].name].append(number)
        if target_info:
            self._page_targets(page, now_s)
        for name in sorted(by_name):
            numbers = by_name[name]
            kind = self._cache.families[numbers[0]].kind
            usable = [number for number in numbers if self._cache.families[number].kind == kind]
            chosen = np.isin(family, numbers)
            taken = np.isin(family, usable)
            conflicts += int(np.count_nonzero(chosen & ~taken))
            self._page_family(
                page,
                name,
                kind,
                self._cache.families[numbers[0]].description,
                series[taken],
                send_timestamps,
                openmetrics,
            )
        if openmetrics:
            page.text(b"# EOF\n")
        return page.getvalue(), conflicts

    def _page_targets(self, page: Page, now_s: float) -> None:
        self._forget_targets(now_s)
        if self._targets:
            page.text(b"# HELP target_info Target metadata\n# TYPE target_info gauge\n")
            for labels in sorted(self._targets):
                page.text(b"target_info{" + b"".join(encode_label(*label) for label in labels)[:-1] + b"} 1\n")

    def _page_family(
        self, page: Page, name: str, kind: str, description: str, series: I32, send_timestamps: bool, openmetrics: bool
    ) -> None:
        """Header and lines of one family."""
        title = name.removesuffix("_total") if openmetrics and kind == "counter" else name
        page.text(f"# HELP {title} {_escape(description)}\n# TYPE {title} {kind}\n".encode())
        column = self._cache.series.column
        sources = self._cache.sources.column
        arena = np.frombuffer(self._cache.arena, np.uint8)
        source = column("source")[series]
        labels = np.empty((len(series), 2), np.int64)
        labels[:, 0] = sources("start")[source]
        labels[:, 1] = sources("a")[source] + sources("b")[source] + sources("c")[source]
        order = np.argsort(labels[:, 0], kind="stable")
        series, labels = series[order], labels[order]
        times = (
            (column("time")[series] // np.uint64(1_000_000)).astype(np.int64)
            if send_timestamps
            else np.full(len(series), -1, np.int64)
        )
        if kind in ("counter", "gauge"):
            page.numbers(
                name.encode(), arena, np.ascontiguousarray(labels), column("value")[series], times, openmetrics
            )
            return
        sets = column("set")[series]
        extras = np.frombuffer(self._cache.extras, np.uint8)
        for set_ in np.unique(sets).tolist():
            chosen = sets == set_
            store = self._stores[set_]
            rows = column("row")[series[chosen]]
            first, last = self._cache.extra_first()[set_ : set_ + 2].tolist()
            slices = np.ascontiguousarray(self._cache.extra_slices()[first:last])
            page.buckets(
                name.encode(), kind == "summary", arena, np.ascontiguousarray(labels[chosen]), extras, slices, store.values[rows],
                store.sums[rows], store.has_sum[rows], store.counts[rows], times[chosen], openmetrics,
            )  # fmt: skip
