"""The series of one target, from page to page.

A page has nearly always the same series as the one before. So what has to be known about a series is worked out once,
when it is new; a page with the same series in the same order is its values, written into the same ``Layout``.
"""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

import numpy as np

from collector.exposition.families import BOUND_LABELS, Family, Metadata, family_of, role_of, trim_suffixes, ucum_unit
from collector.exposition.text import NO_TIMESTAMP, TextPage, series_labels
from collector.exposition.write import EXPONENTIAL_HISTOGRAM, ROLE_VALUE, SUM, Exemplars, Layout, Natives
from collector.model import Attributes, KeyTable
from collector.model.arrays import F64, I32, I64, U64
from collector.model.builders.base import message_bytes, text_bytes

__all__ = ["Converted", "Identity", "Page", "SeriesTable"]

_DROPPED: Final = -1
_NO_POINT: Final = -2  # its labels belong to the resource or the scope, or it has no bound
_YIELD_AFTER: Final = 2_000  # new series, so that a large page does not stop everything else
_SPARE: Final = 1_024
_REPORT_KEY: Final = 0x7461696C72616365  # first word of the keys of series that no page has
_ATTRIBUTES_FIELD: Final = {SUM: 7, 5: 7, 9: 9, EXPONENTIAL_HISTOGRAM: 1, 11: 7}
_CUMULATIVE: Final = b"\x10\x02"
_MONOTONIC: Final = b"\x18\x01"
_TARGET_INFO: Final = "target_info"
_SCOPE_INFO: Final = "otel_scope_info"
_SCOPE_PREFIX: Final = "otel_scope_"
_SCOPE_KEYS: Final = ("otel_scope_name", "otel_scope_version", "otel_scope_schema_url")
_NOT_ATTRIBUTES: Final = frozenset({"__name__", "job", "instance"})


class Identity(NamedTuple):
    """What tells resources apart."""

    job: str
    instance: str


@dataclass(frozen=True, slots=True, eq=False)
class Page:
    """Samples of series: what a ``TextPage`` has, or another format was made into."""

    keys: U64
    """U64[n,2], a hash of each series."""
    values: F64
    timestamps: I64
    """Milliseconds, or NO_TIMESTAMP."""
    labels: Callable[[int], tuple[str, Sequence[tuple[str, str]]]]
    """The name and the labels of the series in a row."""
    metadata_key: object
    metadata: Callable[[], Metadata]
    exemplars: Exemplars | None = None
    native_numbers: I32 | None = None
    """The entry of ``natives`` of each sample that is a native histogram; -1: it is none."""
    natives: list[bytes] | None = None

    @classmethod
    def of(cls, page: TextPage, *, timestamps: bool = True) -> "Page":
        """The samples of a page of text; ``timestamps``: whether to believe those on it."""
        samples = page.samples
        starts, ends = samples["start"], samples["end"]
        return cls(
            keys=np.ascontiguousarray(samples["key"]),
            values=np.ascontiguousarray(samples["value"]),
            timestamps=np.ascontiguousarray(samples["timestamp"])
            if timestamps
            else np.full(len(samples), NO_TIMESTAMP, np.int64),
            labels=lambda row: series_labels(page.body, int(starts[row]), int(ends[row])),
            metadata_key=page.metadata_key,
            metadata=page.metadata,
            exemplars=Exemplars(samples["exemplar"], page.exemplars, page.body) if len(page.exemplars) else None,
        )

    def __len__(self) -> int:
        return len(self.keys)


@dataclass(slots=True)
class Converted:
    """What a page has become."""

    wire: bytes = b""
    """An OTLP metrics request."""
    stale: bytes = b""
    """Another one: the points that the page has no longer."""
    point_count: int = 0
    kept_count: int = 0
    """Samples that relabelling kept."""
    added_count: int = 0
    """Series that the page before did not have."""
    losses: Mapping[str, int] | None = None
    """Points or samples that could not be written, by reason."""


class SeriesTable:
    """What is known about the series of one target."""

    def __init__(
        self,
        relabel: Callable[[str, Sequence[tuple[str, str]]], dict[str, str] | None],
        identity: Callable[[Mapping[str, str]], Identity],
        resource: Callable[[Identity], Mapping[str, str]],
        scope: tuple[str, str],
        *,
        reports: Mapping[str, Mapping[str, str]] | None = None,
        trims_suffixes: bool = False,
        follows_timestamped: bool = False,
    ) -> None:
        """Makes an empty table.

        Args:
            relabel: The final labels of a series with a name and labels, among them ``__name__``; None: dropped. What
                it raises ends the conversion of the page.
            identity: The resource that a series with these labels belongs to.
            resource: The attributes of a resource.
            scope: The name and the version of the scope of series that name none.
            reports: The labels of the series that are added to each page, by their names.
            trims_suffixes: Whether to take suffixes for type and unit off the names of metrics.
            follows_timestamped: Whether series with timestamps of their own are marked when they disappear.
        """
        self._relabel, self._identity, self._resource, self._scope = relabel, identity, resource, scope
        self._trims_suffixes, self._follows_timestamped = trims_suffixes, follows_timestamped
        self._reports = {name: {**labels, "__name__": name} for name, labels in (reports or {}).items()}
        self._report_keys = np.array([(_REPORT_KEY, i) for i in range(len(self._reports))], np.uint64).reshape(-1, 2)
        self._metadata: Metadata = {}
        self._metadata_key: object = None
        self._clear()

    def _clear(self) -> None:
        self._table = KeyTable(
            {"point": np.int32, "metric": np.int32, "group": np.int32, "role": np.uint8, "bound": np.float64},
            capacity=64,
        )
        self._points: dict[tuple[int, bytes], int] = {}
        self._attributes: list[bytes] = []
        self._metrics: dict[tuple[int, Family, int], int] = {}
        self._metric_rows: list[tuple[int, bytes, bytes]] = []
        self._groups: dict[tuple[Identity, tuple[tuple[str, str], ...]], int] = {}
        self._resources: dict[Identity, int] = {}
        self._resource_of_group: list[int] = []
        self._info: dict[int, tuple[str, Identity, dict[str, str]]] = {}
        self._has_unknown = False
        self._keys: U64 = np.zeros((0, 2), np.uint64)
        self._slots: I32 = np.zeros(0, np.int32)
        self._followed: I32 = np.zeros(0, np.int32)
        """The slots of the latest page that are marked when they disappear."""
        self._layout: Layout | None = None
        self._kept_count = 0

    @property
    def memory_bytes(self) -> int:
        """The size of the table, about."""
        return self._table.memory_bytes + sum(map(len, self._attributes)) + 300 * len(self._attributes)

    async def convert(
        self,
        page: Page,
        now_ms: int,
        report: Callable[[int, int], Mapping[str, float]] | None = None,
        limit: Callable[[int], None] | None = None,
    ) -> Converted:
        """The page as OTLP.

        ``report`` gives the values of the series that are added, from the numbers of kept samples and of new series.
        ``limit`` is called with the number of kept samples, and raises if there are too many.

        Raises:
            Exception: Whatever ``relabel`` or ``limit`` raises; the table is then as before.
        """
        result = Converted()
        must_clear = self._take_metadata(page)
        keys = np.concatenate((page.keys, self._report_keys))
        if self._layout is None or must_clear or not np.array_equal(keys, self._keys):
            await self._arrange(keys, page, now_ms, result, limit, must_clear=must_clear)
        elif limit is not None:
            limit(self._kept_count)
        result.kept_count = self._kept_count
        layout = self._layout
        assert layout is not None
        reports = report(result.kept_count, result.added_count) if report is not None else {}
        extra = len(self._report_keys)
        numbers = np.concatenate((page.values, [reports[name] for name in self._reports] if extra else []))
        timestamps = np.concatenate((page.timestamps, np.full(extra, NO_TIMESTAMP, np.int64)))
        exemplars, natives = page.exemplars, None
        if exemplars is not None and extra:
            none = np.full(extra, -1, np.int32)
            exemplars = Exemplars(np.concatenate((exemplars.numbers, none)), exemplars.rows, exemplars.body)
        if page.native_numbers is not None:
            natives = Natives(np.concatenate((page.native_numbers, np.full(extra, -1, np.int32))), page.natives or [])
        result.wire, result.point_count, *losses = layout.write(numbers, timestamps, now_ms, exemplars, natives)
        result.losses = dict(zip(("incomplete", "invalid", "other_timestamp"), losses, strict=True))
        return result

    def end(self, now_ms: int) -> bytes:
        """The request that says of every point that it has no value any more; the table is empty afterwards."""
        layout = self._build(self._followed, self._slots)
        self._clear()
        return layout.write_stale(now_ms)[0]

    def _take_metadata(self, page: Page) -> bool:
        """Remember the metadata of the page; True if what is known about series does not hold any more."""
        if page.metadata_key == self._metadata_key:
            return False
        known, self._metadata = self._metadata, page.metadata() if len(page) else self._metadata
        if not len(page):
            return False
        self._metadata_key = page.metadata_key
        changed = any(name in known and known[name] != texts for name, texts in self._metadata.items())
        return changed or (self._has_unknown and any(name not in known for name in self._metadata))

    async def _arrange(
        self,
        keys: U64,
        page: Page,
        now_ms: int,
        result: Converted,
        limit: Callable[[int], None] | None,
        *,
        must_clear: bool,
    ) -> None:
        """Make the layout of a page with other series than the one before."""
        found = self._table.find(keys)
        gone = self._followed[~np.isin(self._followed, found)]
        points = self._table.column("point")
        gone = gone[~np.isin(points[gone], points[found[found >= 0]])]
        stale = self._build(gone, found).write_stale(now_ms)[0] if len(gone) else b""
        is_full = len(self._attributes) > 2 * len(self._table) + _SPARE
        added = found < 0
        if must_clear or is_full or len(self._metric_rows) > len(self._table) + _SPARE:
            self._clear()
        slots, is_new = self._table.insert(keys)
        rows = np.flatnonzero(is_new).tolist()
        try:
            for i, row in enumerate(rows):
                self._add(int(slots[row]), row, page)
                if i % _YIELD_AFTER == _YIELD_AFTER - 1:
                    await asyncio.sleep(0)
            kept = self._table.column("point")[slots[: len(page)]] != _DROPPED
            kept_count = int(np.count_nonzero(kept))
            if limit is not None:
                limit(kept_count)
        except BaseException:
            self._table.remove(slots[is_new])
            self._layout = None
            raise
        if len(page):  # a target that cannot be scraped for a moment comes back with the same series
            self._remove(np.setdiff1d(self._table.live(), slots).astype(np.int32))
        self._slots, self._keys, self._kept_count = slots, keys, kept_count
        result.stale, result.added_count = stale, int(np.count_nonzero(added[: len(page)] & kept))
        follows = np.ones(len(slots), bool)
        if not self._follows_timestamped:
            follows[: len(page)] = page.timestamps == NO_TIMESTAMP
        self._followed = np.unique(slots[follows])
        self._layout = self._build(slots, slots)

    def _remove(self, slots: I32) -> None:
        for slot in slots.tolist() if self._info else ():
            self._info.pop(slot, None)
        self._table.remove(slots)

    def _add(self, slot: int, row: int, page: Page) -> None:
        """Work out what a new series is."""
        table = self._table
        point = table.column("point")
        point[slot] = _DROPPED
        report = row - len(page)
        labels = list(self._reports.values())[report] if report >= 0 else self._relabel(*page.labels(row))
        if labels is None:
            return
        name = labels.get("__name__", "")
        if not name:
            return
        point[slot] = _NO_POINT
        identity = self._identity(labels)
        if name in {_TARGET_INFO, _SCOPE_INFO}:
            self._info[slot] = (name, identity, labels)
            return
        family = family_of(name, self._metadata)
        self._has_unknown = self._has_unknown or family.type == "unknown"
        is_native = page.native_numbers is not None and report < 0 and page.native_numbers[row] >= 0
        kind = EXPONENTIAL_HISTOGRAM if is_native else family.kind
        role = (ROLE_VALUE, 0.0) if is_native else role_of(name, labels, family)
        if role is None:
            return
        scope = tuple(sorted((key, value) for key, value in labels.items() if key.startswith(_SCOPE_PREFIX)))
        group = self._group(identity, scope)
        metric = self._metric(group, family, kind)
        bound_label = BOUND_LABELS.get(kind)
        attributes = Attributes(
            {
                key: labels[key]
                for key in sorted(labels)
                if key not in _NOT_ATTRIBUTES
                and key != bound_label
                and labels[key]
                and not key.startswith(_SCOPE_PREFIX)
            }
        ).tagged(_ATTRIBUTES_FIELD[kind])
        number = self._points.setdefault((metric, attributes), len(self._attributes))
        if number == len(self._attributes):
            self._attributes.append(attributes)
        point[slot] = number
        table.column("metric")[slot] = metric
        table.column("group")[slot] = group
        table.column("role")[slot], table.column("bound")[slot] = role

    def _group(self, identity: Identity, scope: tuple[tuple[str, str], ...]) -> int:
        number = self._groups.setdefault((identity, scope), len(self._groups))
        if number == len(self._resource_of_group):
            self._resource_of_group.append(self._resources.setdefault(identity, len(self._resources)))
        return number

    def _metric(self, group: int, family: Family, kind: int) -> int:
        number = self._metrics.setdefault((group, family, kind), len(self._metric_rows))
        if number == len(self._metric_rows):
            name = trim_suffixes(family.name, kind, family.unit) if self._trims_suffixes else family.name
            head = text_bytes(1, name) + text_bytes(2, family.help) + text_bytes(3, ucum_unit(family.unit))
            head += Attributes({"prometheus.type": family.type}).tagged(12)
            tail = _CUMULATIVE if kind in {SUM, 9, EXPONENTIAL_HISTOGRAM} else b""
            if kind == SUM and family.is_monotonic:
                tail += _MONOTONIC
            self._metric_rows.append((kind, head, tail))
        return number

    def _build(self, slots: I32, page_slots: I32) -> Layout:
        """The layout of samples in these slots; series in ``page_slots`` describe resources and scopes."""
        table = self._table
        rows = np.flatnonzero(table.column("point")[slots] >= 0)
        used = slots[rows]
        point, metric, group, role, bound = (
            table.column(name)[used] for name in ("point", "metric", "group", "role", "bound")
        )
        resource = np.array(self._resource_of_group, np.int32)[group] if len(group) else group
        order = np.lexsort((rows, bound, role, point, metric, group, resource))
        # Of samples of one series, the last one counts, as in the Collector.
        same = (
            (point[order][1:] == point[order][:-1])
            & (role[order][1:] == role[order][:-1])
            & (bound[order][1:] == bound[order][:-1])
        )
        order = order[np.append(~same, True)] if len(order) else order
        point, metric, group = point[order], metric[order], group[order]
        starts = np.flatnonzero(np.append(True, point[1:] != point[:-1])) if len(point) else np.zeros(0, np.int64)
        attributes = [self._attributes[number] for number in point[starts].tolist()]
        metrics, groups = [], []
        point_metric, point_group = metric[starts], group[starts]
        firsts = np.flatnonzero(np.append(True, point_metric[1:] != point_metric[:-1])) if len(starts) else starts
        counts = np.diff(np.append(firsts, len(starts)))
        for number, count in zip(point_metric[firsts].tolist(), counts.tolist(), strict=True):
            metrics.append((*self._metric_rows[number], count))
        metric_group = point_group[firsts]
        firsts = np.flatnonzero(np.append(True, metric_group[1:] != metric_group[:-1])) if len(firsts) else firsts
        counts = np.diff(np.append(firsts, len(metrics)))
        keys = list(self._groups)
        infos = [self._info[slot] for slot in page_slots.tolist() if slot in self._info] if self._info else []
        for number, count in zip(metric_group[firsts].tolist(), counts.tolist(), strict=True):
            identity, scope = keys[number]
            groups.append((*self._heads(identity, scope, infos), count))
        return Layout(
            groups, metrics, attributes, np.append(starts, len(point)), rows[order], role[order], bound[order]
        )

    def _heads(
        self,
        identity: Identity,
        scope: tuple[tuple[str, str], ...],
        infos: list[tuple[str, Identity, dict[str, str]]],
    ) -> tuple[bytes, bytes]:
        """The fields of a resource, and those of a ScopeMetrics without its metrics."""
        resource = dict(self._resource(identity))
        given = dict(scope)
        name, version, url = (given.pop(key, "") for key in _SCOPE_KEYS)
        attributes = {key.removeprefix(_SCOPE_PREFIX): value for key, value in given.items()}
        for info, owner, labels in infos:
            own = {key: labels[key] for key in sorted(labels) if key not in _NOT_ATTRIBUTES}
            if owner != identity:
                continue
            if info == _TARGET_INFO:
                resource.update(own)
            elif scope and tuple(own.pop(key, "") for key in _SCOPE_KEYS) == (name, version, url):
                attributes.update(own)
        if not scope:
            name, version = self._scope
        body = text_bytes(1, name) + text_bytes(2, version) + Attributes(attributes).tagged(3)
        return Attributes(resource).tagged(1), message_bytes(1, body) + text_bytes(3, url)
