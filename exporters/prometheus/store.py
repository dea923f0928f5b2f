"""The last value of every series, and the page that shows them.

This is a table and not a history: a scrape sees what was received last, until that is older than the expiration.
Numbers are a column of the series table; a histogram or summary has a row in the table of its set of bounds or
quantiles.
"""

import itertools
from collections import defaultdict

import numpy as np

from collector.model import (
    METRIC_EXPONENTIAL_HISTOGRAM,
    METRIC_GAUGE,
    METRIC_HISTOGRAM,
    METRIC_SUM,
    METRIC_SUMMARY,
    PRESENT_SUM,
    Metrics,
)
from collector.model.arrays import F64, I32, Mask, Records
from collector.otlp.semantics import NO_RECORDED_VALUE
from collector.prometheus import (
    FUTURE_MAX_NS,
    Encodable,
    LabelFormat,
    LabelSettings,
    SeriesCache,
    SeriesLabels,
    TranslationStrategy,
)
from exporters.prometheus._render import Page
from exporters.prometheus.distributions import DistributionTable
from exporters.prometheus.escaping import is_legacy_label, is_legacy_name
from exporters.prometheus.exemplars import ExemplarStore, latest, values_of

__all__ = ["SeriesStore"]

_TARGETS_MAX_BYTES = 64 * 1024 * 1024
_TARGET_BYTES = 1000  # a resource in the dictionary, without its texts
_NO_EXEMPLARS = np.zeros(0, np.int32)
_NO_BUCKET_EXEMPLARS = np.zeros((0, 0), np.int32)
_HISTOGRAMS = (METRIC_HISTOGRAM, METRIC_EXPONENTIAL_HISTOGRAM)
_SAMPLES = {
    "counter": ("",),
    "gauge": ("",),
    "histogram": ("_bucket", "_sum", "_count"),
    "summary": ("", "_sum", "_count"),
}


def _escape(text: str) -> str:
    return text.replace("\\", "\\\\").replace("\n", "\\n")


def _escape_quoted(text: str) -> str:
    return _escape(text).replace('"', '\\"')


def encode_label(name: str, value: str) -> bytes:
    """A label as text, followed by a comma; a metric's name as it is. Other than legacy names are quoted."""
    if name == "__name__":
        return value.encode()
    written = name if is_legacy_label(name) else f'"{_escape_quoted(name)}"'
    return f'{written}="{_escape_quoted(value)}",'.encode()


def _encode_name(name: str) -> bytes:
    return encode_label(name, "")[:-2]  # without the closing quote and the comma


LABEL_FORMAT = LabelFormat(encode_label, _encode_name, is_text=True)


def _target_bytes(labels: tuple[tuple[str, str], ...]) -> int:
    return _TARGET_BYTES + sum(4 * (len(name) + len(value)) for name, value in labels)  # characters of up to 4 bytes


def _bounds(found: Encodable, point: int, count: int) -> F64:
    """The bounds of a histogram point."""
    begin = int(found.points["bounds"][point]) if count else 0
    return np.frombuffer(found.wire[begin : begin + 8 * count], "<f8")


class SeriesStore:
    """Keeps what batches say last about each series, and renders pages of it."""

    def __init__(
        self,
        settings: LabelSettings,
        strategy: TranslationStrategy,
        namespace: str,
        expiration_s: float,
        *,
        keeps_exemplars: bool = False,
        max_series: int = 0,
    ) -> None:
        """``keeps_exemplars``: whether there may be OpenMetrics pages, which show them."""
        self._labels = SeriesLabels(settings)
        self._expiration_s = expiration_s
        self._distributions: dict[int, DistributionTable] = {}
        self._keeps_exemplars = keeps_exemplars
        self._exemplars = ExemplarStore()
        self._cache = SeriesCache(
            self._labels, LABEL_FORMAT, strategy, namespace,
            {
                "source": np.int32, "type": np.int32, "time": np.uint64, "seen": np.float64, "live": np.uint8,
                "value": np.float64, "set": np.int32, "row": np.int32, "exemplar": np.int32,
            },
            self._held_bytes, _HISTOGRAMS, idle_s=2 * expiration_s, max_series=max_series,
        )  # fmt: skip
        self._generation = self._cache.generation
        self._targets: dict[tuple[tuple[str, str], ...], float] = {}
        self._targets_bytes = 0

    @property
    def memory_bytes(self) -> int:
        """The size of everything that is kept, in bytes."""
        return self._cache.memory_bytes + self._targets_bytes

    def _held_bytes(self) -> int:
        return sum(table.memory_bytes for table in self._distributions.values()) + self._exemplars.memory_bytes

    def update(self, batch: Metrics, now_s: float, now_unix_nano: int) -> Encodable:
        """Store the points of the batch. The result tells which of them cannot be shown."""
        found = self._cache.prepare(batch, now_s, now_unix_nano)
        self._follow_cache()
        rows = found.order
        # The text formats have no native histograms; as in the Collector, the count and the sum are shown.
        found.extra_set[found.types == METRIC_EXPONENTIAL_HISTOGRAM] = self._cache.no_bounds()
        self._remember_targets(batch, now_s)
        if not len(rows):
            return found
        all_rows = rows
        series = self._cache.sources.column("series")[found.slot[rows]]
        is_last = np.ones(len(rows), bool)  # of its series in the batch
        is_last[:-1] = series[1:] != series[:-1]
        rows, series = rows[is_last], series[is_last]
        column = self._cache.series.column
        # A time that is far ahead is not believed: it would hide all later points until the clock catches up.
        times = found.points["time"][rows]
        times = np.where(times > np.uint64(now_unix_nano + FUTURE_MAX_NS), np.uint64(now_unix_nano), times)
        is_newer = (column("live")[series] == 0) | (times >= column("time")[series])
        rows, series, times = rows[is_newer], series[is_newer], times[is_newer]
        points = found.points[rows]
        column("source")[series] = found.slot[rows]
        column("time")[series] = times
        column("seen")[series] = now_s
        column("live")[series] = points["flags"] & NO_RECORDED_VALUE == 0
        types = found.types[rows]
        is_number = (types == METRIC_GAUGE) | (types == METRIC_SUM)
        values = np.where(points["value_kind"] == 1, points["int_value"].astype(np.float64), points["double_value"])
        column("value")[series[is_number]] = values[is_number]
        column("set")[series[is_number]] = -1
        sets = found.extra_set[rows]
        for set_number in np.unique(sets[~is_number]).tolist():
            chosen = ~is_number & (sets == set_number)
            self._update_distributions(found, set_number, rows[chosen], series[chosen])
        column("type")[series] = types
        if self._keeps_exemplars and len(found.exemplars):
            monotonic = batch.table("metrics").rows["monotonic"][found.points["parent"]] != 0
            self._remember_exemplars(found, all_rows, monotonic, now_unix_nano)
        return found

    def expire(self, now_s: float) -> None:
        """Forget what has expired, and give back its memory."""
        if not self._cache.expire(now_s):
            return
        self._follow_cache()
        self._forget_targets(now_s)
        column, series = self._cache.series.column, self._cache.series.live()
        sets = column("set")[series]
        for number, table in list(self._distributions.items()):
            users = series[sets == number]
            if table.is_sparse(len(users)):
                column("row")[users] = table.keep_only(column("row")[users])
            if not len(users):
                del self._distributions[number]
        places = [table.exemplars.reshape(-1) for table in self._distributions.values()]
        numbers = column("exemplar")[series]
        moved = self._exemplars.keep_only([numbers, *places])
        if moved is not None:
            column("exemplar")[series] = moved[numbers]
            for place in places:
                place[:] = moved[place]

    def _follow_cache(self) -> None:
        """Forget the values after the cache has forgotten everything."""
        if self._cache.generation != self._generation:
            self._generation = self._cache.generation
            self._distributions = {}
            self._exemplars = ExemplarStore()

    def _remember_exemplars(self, found: Encodable, rows: I32, monotonic: Mask, now_unix_nano: int) -> None:
        """Keep the latest exemplar of each counter and each bucket among the points in ``rows``."""
        is_sum = (found.types == METRIC_SUM) & monotonic
        is_chosen = np.zeros(len(found.points), bool)
        is_chosen[rows] = is_sum[rows] | np.isin(found.types[rows], _HISTOGRAMS)
        chosen = np.flatnonzero(is_chosen[found.exemplars["parent"]])
        point = found.exemplars["parent"][chosen]
        values = values_of(found.exemplars[chosen])
        times = found.exemplars["time"][chosen]
        times = np.where(times == 0, found.points["time"][point], times)
        # Prometheus takes none that is older than the last one, so none may be from the future.
        times = np.where(times > np.uint64(now_unix_nano + FUTURE_MAX_NS), np.uint64(now_unix_nano), times)
        series = self._cache.sources.column("series")[found.slot[point]]
        column = self._cache.series.column
        sets = np.where(is_sum[point], -1, found.extra_set[point])
        is_current = (column("set")[series] == sets) & (column("type")[series] == found.types[point])
        for set_number in np.unique(sets[is_current]).tolist():
            at = np.flatnonzero(is_current & (sets == set_number))
            places = series[at].astype(np.int64)
            numbers = column("exemplar")
            if set_number >= 0:
                table = self._distributions[set_number]
                bounds = _bounds(found, int(point[at[0]]), table.values.shape[1] - 1)
                buckets = np.searchsorted(bounds, values[at])
                places = column("row")[series[at]].astype(np.int64) * table.values.shape[1] + buckets
                numbers = table.exemplar_numbers().reshape(-1)
            at, places = (array[latest(places, times[at])] for array in (at, places))
            self._exemplars.put(numbers, places, found, chosen[at], values[at], times[at])

    def _update_distributions(self, found: Encodable, set_number: int, rows: I32, series: I32) -> None:
        """Store the points whose distributions share one set of bounds or quantiles."""
        first, end = self._cache.label_sets.first()[set_number : set_number + 2].tolist()
        label_count = end - first
        table = self._distributions.setdefault(set_number, DistributionTable(label_count))
        column = self._cache.series.column
        has_row = (column("set")[series] == set_number) & (column("type")[series] == found.types[rows])
        new = np.flatnonzero(~has_row)
        column("row")[series[new]] = table.allocate(len(new))
        column("set")[series] = set_number
        at = column("row")[series]
        points = found.points[rows]
        if found.types[rows[0]] != METRIC_SUMMARY:
            table.values[at] = self._cumulative_counts(found.wire, points, label_count)
        elif label_count:
            table.values[at] = found.quantiles["value"][found.quantile_first[rows][:, None] + np.arange(label_count)]
        table.sums[at] = points["sum"]
        table.counts[at] = points["count"]
        table.has_sum[at] = (found.types[rows] == METRIC_SUMMARY) | (points["present"] & PRESENT_SUM != 0)

    @staticmethod
    def _cumulative_counts(wire: bytes, points: Records, label_count: int) -> F64:
        """(n, labels): the counts up to each bound; the last one is the count of the point."""
        values = np.empty((len(points), label_count))
        values[:, -1] = points["count"]
        if label_count > 1:
            width = (label_count - 1) * 8
            bytes_at = np.frombuffer(wire, np.uint8)[points["buckets"][:, None] + np.arange(width)]
            values[:, :-1] = np.cumsum(np.ascontiguousarray(bytes_at).view("<u8"), axis=1)
        return values

    def _remember_targets(self, batch: Metrics, now_s: float) -> None:
        """Remember the resources of the batch, for ``target_info``."""
        attributes = batch.attributes("resources")
        texts, keys = attributes.as_text(), attributes.key
        bounds = np.searchsorted(attributes.owner, np.arange(batch.table("resources").row_count + 1)).tolist()
        for begin, end in itertools.pairwise(bounds):
            pairs = [
                (keys.distinct[keys.codes[row]], texts.distinct[texts.codes[row]] if texts.codes[row] >= 0 else "")
                for row in range(begin, end)
            ]
            labels = self._labels.target_info(pairs)
            if labels:
                key = tuple(labels)
                if key not in self._targets:
                    self._targets_bytes += _target_bytes(key)
                self._targets[key] = now_s
        if self._targets_bytes > _TARGETS_MAX_BYTES:  # more than a page should hold, or nobody scrapes
            self._forget_targets(now_s)
            if self._targets_bytes > _TARGETS_MAX_BYTES:
                self._targets.clear()
                self._targets_bytes = 0

    def _forget_targets(self, now_s: float) -> None:
        """Forget resources that were not seen within the expiration."""
        self._targets = {
            labels: seen_s for labels, seen_s in self._targets.items() if seen_s >= now_s - self._expiration_s
        }
        self._targets_bytes = sum(map(_target_bytes, self._targets))

    def series_count(self) -> int:
        """The number of series that a scrape would see if none had expired."""
        return int(np.count_nonzero(self._cache.series.column("live")[self._cache.series.live()]))

    def page(
        self, now_s: float, *, send_timestamps: bool, target_info: bool, openmetrics: bool = False
    ) -> tuple[bytes, dict[str, int]]:
        """The page, and how many series were left out because another family has their name, by name.

        Names of labels and metrics that are not legacy names are quoted; see :mod:`exporters.prometheus.escaping`.
        """
        column = self._cache.series.column
        series = self._cache.series.live()
        series = series[(column("live")[series] != 0) & (column("seen")[series] >= now_s - self._expiration_s)]
        source = column("source")[series]
        family = self._cache.sources.column("family")[source]
        page = Page()
        if openmetrics and self._keeps_exemplars:
            page.set_exemplars(
                self._exemplars.records.view(np.uint8), np.frombuffer(bytes(self._exemplars.arena) or b"\0", np.uint8)
            )
        conflicts: dict[str, int] = {}
        by_name: dict[str, list[int]] = defaultdict(list)
        for number in np.unique(family).tolist():
            by_name[self._cache.families[number].name].append(number)
        claimed: set[str] = set()
        if target_info and self._write_targets(page, now_s):
            claimed.add("target_info")
        titles: set[str] = set()
        for name in sorted(by_name):
            numbers = by_name[name]
            kind = self._cache.families[numbers[0]].kind
            samples = {name + suffix for suffix in _SAMPLES[kind]}
            usable = [number for number in numbers if self._cache.families[number].kind == kind]
            if claimed & samples:  # a gauge "x_count" beside a histogram "x"
                usable = []
            is_shown = np.isin(family, usable)
            left_out_count = int(np.count_nonzero(np.isin(family, numbers) & ~is_shown))
            if left_out_count:
                conflicts[name] = left_out_count
            if not usable:
                continue
            claimed |= samples
            title, written_kind = name, kind
            if openmetrics and kind == "counter":
                title = name.removesuffix("_total")
                # A counter must end with "_total", and its title must not be that of another family.
                if title == name or title in titles or title in by_name:
                    title, written_kind = name, "unknown"
            titles.add(title)
            description = self._cache.families[numbers[0]].description
            written = title if is_legacy_name(title) else f'"{_escape_quoted(title)}"'
            page.text(f"# HELP {written} {_escape(description)}\n# TYPE {written} {written_kind}\n".encode())
            has_exemplars = openmetrics and self._keeps_exemplars and written_kind in ("counter", "histogram")
            self._write_family(page, name, kind, series[is_shown], send_timestamps, openmetrics, has_exemplars)
        if openmetrics:
            page.text(b"# EOF\n")
        return page.getvalue(), conflicts

    def _write_targets(self, page: Page, now_s: float) -> bool:
        self._forget_targets(now_s)
        if self._targets:
            page.text(b"# HELP target_info Target metadata\n# TYPE target_info gauge\n")
            for labels in sorted(self._targets):
                page.text(b"target_info{" + b"".join(encode_label(*label) for label in labels)[:-1] + b"} 1\n")
        return bool(self._targets)

    def _write_family(
        self,
        page: Page,
        name: str,
        kind: str,
        series: I32,
        send_timestamps: bool,
        openmetrics: bool,
        has_exemplars: bool,
    ) -> None:
        """Write the lines of one family."""
        is_quoted = not is_legacy_name(name)
        encoded = (_escape_quoted(name) if is_quoted else name).encode()
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
                encoded,
                is_quoted,
                arena,
                np.ascontiguousarray(labels),
                column("value")[series],
                times,
                column("exemplar")[series] if has_exemplars else _NO_EXEMPLARS,
                openmetrics,
            )
            return
        sets = column("set")[series]
        extras = np.frombuffer(self._cache.label_sets.encoded, np.uint8)
        for set_number in np.unique(sets).tolist():
            chosen = sets == set_number
            table = self._distributions[set_number]
            rows = column("row")[series[chosen]]
            first, end = self._cache.label_sets.first()[set_number : set_number + 2].tolist()
            page.buckets(
                encoded,
                is_quoted,
                kind == "summary",
                arena,
                np.ascontiguousarray(labels[chosen]),
                extras,
                np.ascontiguousarray(self._cache.label_sets.slices()[first:end]),
                table.values[rows],
                table.sums[rows],
                table.has_sum[rows],
                table.counts[rows],
                times[chosen],
                table.exemplar_numbers()[rows] if has_exemplars and len(table.exemplars) else _NO_BUCKET_EXEMPLARS,
                openmetrics,
            )
