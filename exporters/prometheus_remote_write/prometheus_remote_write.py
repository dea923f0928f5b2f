"""Sends metrics to a Prometheus remote-write 1.0 receiver: Prometheus, Mimir, Thanos, VictoriaMetrics.

Each batch becomes requests of at most ``max_batch_size_bytes``, or less if the receiver refuses requests of that size,
spread over shards by the final label bytes. Different shards are sent at the same time; batches, and the requests of
one shard, are sent one after the other, so a series is never reordered. What Prometheus cannot represent (delta and
unspecified temporality, names that have no valid character) is dropped and counted; the rest of the batch is sent.

Source: Prometheus remote-write specification 1.0; OpenTelemetry's Prometheus compatibility page.
"""

import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np

from collector.api import Host, PermanentError, QueueStorage, Settings
from collector.delivery import ExporterConfig, Part, QueuedExporter, with_rows
from collector.delivery.log import printable
from collector.model import METRIC_EXPONENTIAL_HISTOGRAM, Batch, Metrics
from collector.model.arrays import I32, I64, U8, Array, Mask
from collector.otlp.semantics import NO_RECORDED_VALUE
from collector.prometheus import (
    FUTURE_MAX_NS,
    Encodable,
    LabelSettings,
    LossReport,
    SeriesCache,
    SeriesLabels,
)
from collector.storage import FileStorage, FileStorageSettings
from collector.transport.http.client import HTTPClient
from collector.transport.user_agent import user_agent
from config.blocks import QueueConfig
from exporters.prometheus_remote_write._encode import Encoder, bucket_counts
from exporters.prometheus_remote_write.config import PrometheusRemoteWriteConfig
from exporters.prometheus_remote_write.extras import ExtraContents
from exporters.prometheus_remote_write.messages import (
    cut_by_time,
    encode_label,
    series_names,
)
from exporters.prometheus_remote_write.staleness import STALENESS_COLUMNS, Staleness

__all__ = ["PrometheusRemoteWriteExporter"]

_HEADERS: Final = {"X-Prometheus-Remote-Write-Version": "0.1.0"}
_POINTS_PER_SHARD: Final = 2000
_MIN_SCALE: Final = -4  # the coarsest that native histograms have
_NAMES_MAX: Final = 3
# A point this far ahead is wrong whatever the receiver takes. Nearer ones are sent until the receiver refuses one.
_ABSURD_FUTURE_NS: Final = 86_400_000_000_000
# Samples of a kind that the receiver refused are dropped before sending for this long; then they are tried again.
_LEARNED_S: Final = 600.0
_DISORDER: Final = re.compile(
    r"out of order|out-of-order|duplicate sample|sample-duplicate-timestamp|more recent timestamp", re.IGNORECASE
)
_OUT_OF_BOUNDS: Final = re.compile(r"out of bounds|too far in (the )?future|sample-timestamp-too-new", re.IGNORECASE)
_NO_SERIES: Final = np.zeros(0, np.int32)
_RETRYABLE_STATUSES: Final = frozenset({429, *range(500, 600)})


@dataclass(frozen=True, slots=True)
class WriteRequest:
    """The body of a request, and where it may be cut."""

    body: bytes
    cuts: I64
    """(k, 2): where the samples of each series end (the series of a histogram count as one), the points up to there."""
    series: I32
    """(k,) their slots in the cache; empty for a request without points."""
    newest: I64
    """(k, 2): time in milliseconds and fingerprint of their last samples; 0 if the fingerprint is unknown."""
    generation: int
    """That of the cache which the slots belong to."""


class PrometheusRemoteWriteExporter(QueuedExporter[WriteRequest]):
    """See the module."""

    queue_key = "remote_write_queue"
    isolated_reasons = frozenset({"http_400", "http_409"})  # 409: Thanos, for samples out of order
    enforces_timeout = True  # as that of the HTTP client, which knows whether a 2xx status has arrived by then

    def __init__(self, settings: Settings, config: PrometheusRemoteWriteConfig) -> None:
        queue = config.remote_write_queue
        super().__init__(
            settings,
            ExporterConfig.model_construct(
                timeout=config.timeout,
                retry_on_failure=config.retry_on_failure,
                # Sending one batch at a time keeps the order; the shards within a batch are sent in parallel.
                sending_queue=QueueConfig(
                    **queue.model_dump(exclude_unset=True, exclude={"num_consumers", "queue_size", "storage"}),
                    num_consumers=1,
                    queue_size=queue.queue_size,
                    storage=queue.storage if config.wal is None else "wal",
                ),
                circuit_breaker=config.circuit_breaker,
                adaptive_concurrency=config.adaptive_concurrency,
                dead_letter=config.dead_letter,
            ),
            max_concurrent_requests=config.shard_count,
        )
        self._config = config
        self._wal: FileStorage | None = None
        if config.wal is not None and queue.enabled:
            files = FileStorageSettings(Path(config.wal.directory))
            self._wal = FileStorage(files, str(settings.id), settings.clock, settings.telemetry)
        self.max_request_bytes = config.max_batch_size_bytes
        self._client = HTTPClient(
            config.http,
            key=f"exporters::{settings.id}",
            clock=settings.clock,
            user_agent=user_agent(settings),
            retryable=_RETRYABLE_STATUSES,
            fixed_headers=_HEADERS,
        )
        self._labels = SeriesLabels(
            LabelSettings(
                strategy=config.strategy,
                external_labels=config.external_labels,
                scope_info=not config.disable_scope_info,
                promote_all_resource_attributes=config.resource_to_telemetry_conversion.enabled,
                exclude_service_attributes=config.resource_to_telemetry_conversion.exclude_service_attributes,
                resource_attributes=config.resource_constant_labels.included,
                excluded_resource_attributes=config.resource_constant_labels.excluded,
                sanitize_leading_underscore=config.sanitize_leading_underscore,
                preserve_multiple_underscores=config.preserve_multiple_underscores,
            )
        )
        self._cache = SeriesCache(
            self._labels, encode_label, config.strategy, config.namespace,
            {"sent_ms": np.int64, "sent_value": np.int64, **(STALENESS_COLUMNS if config.stale_after else {})},
        )  # fmt: skip
        self._staleness = Staleness(self._cache, config.stale_after) if config.stale_after else None
        self._report = LossReport(settings.telemetry, self._log)
        self._refuses_disorder_until_s = 0.0
        self._refuses_future_until_s = 0.0
        self._encoder = Encoder()
        self._extra = ExtraContents(
            self._labels,
            self._cache,
            settings.clock,
            target_info=config.target_info.enabled,
            metadata=config.send_metadata,
        )
        settings.telemetry.gauge(
            "tailrace_exporter_series_cache_bytes",
            "Memory used by the cached label sets, in bytes",
            read=lambda: float(self._cache.memory_bytes),
        )

    async def open(self, host: Host) -> None:
        """See :class:`QueuedExporter`."""
        await self._client.open(host)

    async def close(self) -> None:
        """See :class:`QueuedExporter`."""
        await self._client.close()
        if self._wal is not None:
            await self._wal.close()

    async def open_storage(self, host: Host, name: str) -> QueueStorage:
        """See :class:`QueuedExporter`."""
        if self._wal is None:
            return await super().open_storage(host, name)
        try:
            await self._wal.open()
        except OSError as error:
            raise OSError(f"exporters::{self.settings.id}::wal::directory: {error.strerror or error}") from error
        return await self._wal.queue(name)

    def sole_use(self) -> Collection[str]:
        """See :class:`collector.api.Component`."""
        wal = self._config.wal
        return super().sole_use() if wal is None else (str(Path(wal.directory).absolute()),)

    async def send(self, payload: WriteRequest) -> None:
        """See :class:`QueuedExporter`."""
        try:
            await self._client.post(self._config.http.endpoint, payload.body, content_type="application/x-protobuf")
        except PermanentError as exc:
            self._learn(str(exc))
            raise
        if not len(payload.series) or payload.generation != self._cache.generation:
            return
        column = self._cache.series.column
        is_newer = payload.newest[:, 0] >= column("sent_ms")[payload.series]
        series = payload.series[is_newer]
        column("sent_ms")[series] = payload.newest[is_newer, 0]
        column("sent_value")[series] = payload.newest[is_newer, 1]

    def cut(self, part: Part[WriteRequest]) -> Sequence[Part[WriteRequest]]:
        """See :class:`QueuedExporter`."""
        request = part.payload
        body, cuts = request.body, request.cuts
        if len(cuts) < 2:
            return [part]
        count = min(max(int(np.searchsorted(cuts[:, 0], len(body) // 2, side="right")), 1), len(cuts) - 1)
        middle = cuts[count - 1]
        series, newest, generation = request.series, request.newest, request.generation
        return [
            _part(
                WriteRequest(body[: middle[0]], cuts[:count], series[:count], newest[:count], generation), part.shard
            ),
            _part(
                WriteRequest(body[middle[0] :], cuts[count:] - middle, series[count:], newest[count:], generation),
                part.shard,
            ),
        ]

    def cut_refused(self, part: Part[WriteRequest]) -> Sequence[Part[WriteRequest]]:
        """See :class:`QueuedExporter`. The samples of a single series are cut by time."""
        request = part.payload
        if len(request.cuts) != 1 or part.item_count < 2 or (found := cut_by_time(request.body)) is None:
            return self.cut(part)
        first, second, count, time_ms = found
        if not count < part.item_count:
            return [part]
        rest = part.item_count - count
        earlier = np.array([[time_ms, 0]])
        return [
            _part(
                WriteRequest(body, np.array([[len(body), points]]), request.series, newest, request.generation),
                part.shard,
            )
            for body, points, newest in ((first, count, earlier), (second, rest, request.newest))
        ]

    def describe(self, payload: WriteRequest) -> str:
        """See :class:`QueuedExporter`."""
        return printable("; ".join(series_names(payload.body, _NAMES_MAX)))

    def encode(self, batch: Batch) -> Sequence[Part[WriteRequest]]:
        """The requests that carry the batch. What Prometheus cannot take is dropped and counted here."""
        assert isinstance(batch, Metrics)
        now_unix_nano = self.settings.clock.time_unix_nano()
        found = self._cache.prepare(batch, now_unix_nano, self._unusable(batch, now_unix_nano))
        order, run_of = found.order, found.run_of
        if self._sorts_by_time():
            is_usable = self._in_order(found)
            order, run_of = order[is_usable], run_of[is_usable]
        self._report.record(batch, found)
        markers = self._stale_markers(found, order, now_unix_nano)
        if not len(order):
            return markers
        extras = self._extras(batch, found, now_unix_nano)
        shard_count = min(self._config.shard_count, 1 + len(order) // _POINTS_PER_SHARD)
        shard_of = (found.shard_key[order] % np.uint64(shard_count)).astype(np.int32)
        parts: list[Part[WriteRequest]] = []
        for shard in range(shard_count):
            chosen = shard_of == shard
            if chosen.any():
                rows = None if found.folded_count else order[chosen]  # a sample may stand for several points
                parts += with_rows(self._encode_runs(found, order[chosen], run_of[chosen], shard), rows)
        # Whatever becomes of them must not affect the points, so they are requests of their own, after the points.
        return parts + extras + markers

    def _unusable(self, batch: Metrics, now_unix_nano: int) -> dict[str, Mask]:
        """The points that no receiver takes, by reason."""
        points = batch.table("points").rows
        is_learned = self.settings.clock.monotonic_s() < self._refuses_future_until_s
        newest = now_unix_nano + (FUTURE_MAX_NS if is_learned else _ABSURD_FUTURE_NS)
        found = {
            "no_timestamp": points["time"] < np.uint64(1_000_000),
            "future_timestamp": points["time"] > np.uint64(newest),
        }
        is_exponential = batch.table("metrics").rows["type"][points["parent"]] == METRIC_EXPONENTIAL_HISTOGRAM
        if is_exponential.any():
            found["exponential_scale"] = is_exponential & (points["scale"] < _MIN_SCALE)
            rows = np.flatnonzero(is_exponential & (points["flags"] & NO_RECORDED_VALUE == 0))
            totals = bucket_counts(batch.wire, _as_bytes(points), rows)
            # Observations of NaN are in no bucket.
            is_wrong = np.where(
                np.isnan(points["sum"][rows]), totals > points["count"][rows], totals != points["count"][rows]
            )
            found["histogram_count"] = np.zeros(len(points), bool)
            found["histogram_count"][rows[is_wrong]] = True
        return found

    def _sorts_by_time(self) -> bool:
        """Whether samples out of order are sorted out at present."""
        return self.settings.clock.monotonic_s() < self._refuses_disorder_until_s

    def _in_order(self, found: Encodable) -> Mask:
        """Whether each point of ``found.order`` is newer than what was sent for its series, or repeats it exactly."""
        series = self._cache.sources.column("series")[found.slot[found.order]]
        times_ms = (found.points["time"][found.order] // np.uint64(1_000_000)).astype(np.int64)
        sent_ms = self._cache.series.column("sent_ms")[series]
        is_older = times_ms < sent_ms
        sent_value = self._cache.series.column("sent_value")[series]
        is_other = (times_ms == sent_ms) & (_fingerprints(found.points[found.order]) != sent_value) & (sent_value != 0)
        for reason, mask in (("out_of_order", is_older), ("duplicate_timestamp", is_other)):
            if mask.any():
                rows = found.order[mask]
                found.dropped[reason] = np.concatenate((found.dropped.get(reason, rows[:0]), rows))
        is_usable: Mask = ~(is_older | is_other)
        return is_usable

    def _learn(self, answer: str) -> None:
        """For some time, drop samples of the kind that the receiver has refused before they are sent."""
        until_s = self.settings.clock.monotonic_s() + _LEARNED_S
        if _DISORDER.search(answer):
            self._refuses_disorder_until_s = until_s
        elif _OUT_OF_BOUNDS.search(answer):
            self._refuses_future_until_s = until_s

    def _encode_runs(self, found: Encodable, order: I32, run_of: I32, shard: int) -> list[Part[WriteRequest]]:
        """The requests that carry the chosen points."""
        starts = np.flatnonzero(np.concatenate(([True], run_of[1:] != run_of[:-1]))).astype(np.int32)
        runs = np.append(starts, len(order)).astype(np.int32)
        first_rows = order[starts]
        slot = found.slot[first_rows]
        column = self._cache.sources.column
        pieces = np.empty((len(slot), 4), np.int64)
        for i, name in enumerate(("start", "a", "b", "c")):
            pieces[:, i] = column(name)[slot]
        requests = self._encoder.encode(
            found.wire,
            _as_bytes(found.points),
            found.types,
            np.ascontiguousarray(order),
            runs,
            np.frombuffer(self._cache.arena or b"\0", np.uint8),
            pieces,
            np.frombuffer(self._cache.names, np.uint8),
            self._cache.name_slices(),
            np.ascontiguousarray(column("family")[slot]),
            np.frombuffer(self._cache.extras, np.uint8),
            self._cache.extra_slices(),
            self._cache.extra_first(),
            np.ascontiguousarray(found.extra_set[first_rows]),
            _as_bytes(found.exemplars),
            found.exemplar_first,
            found.exemplar_arena,
            found.exemplar_slices,
            _as_bytes(found.quantiles),
            found.quantile_first,
            self.max_request_bytes,
        )
        series = column("series")[slot]
        last = order[runs[1:] - 1]
        newest = np.zeros((len(last), 2), np.int64)
        newest[:, 0] = found.points["time"][last] // np.uint64(1_000_000)
        if self._sorts_by_time():
            newest[:, 1] = _fingerprints(found.points[last])
        parts, begin = [], 0
        for body, cuts in requests:
            end = begin + len(cuts)
            request = WriteRequest(body, cuts, series[begin:end], newest[begin:end], self._cache.generation)
            parts.append(_part(request, shard))
            begin = end
        return parts

    def _stale_markers(self, found: Encodable, order: I32, now_unix_nano: int) -> list[Part[WriteRequest]]:
        """The requests that end series of vanished sources; none of them is in the batch. They carry no points."""
        if self._staleness is None:
            return []
        now_s = self.settings.clock.monotonic_s()
        self._staleness.note(found, order, now_s)
        markers = self._staleness.due(now_s, now_unix_nano)
        if markers is None:
            return []
        parts = self._encode_runs(markers, markers.order, markers.run_of, 0)
        for part in parts:
            part.payload.cuts[:, 1] = 0
        return [_part(part.payload, part.shard) for part in parts]

    def _extras(self, batch: Metrics, found: Encodable, now_unix_nano: int) -> list[Part[WriteRequest]]:
        """The requests that carry ``target_info`` and metadata."""
        parts: list[Part[WriteRequest]] = []
        contents: list[bytes] = []
        size = 0
        for content in self._extra.contents(batch, found, now_unix_nano):
            if contents and self.max_request_bytes and size + len(content) > self.max_request_bytes:
                parts.append(_extra_part(contents))
                contents, size = [], 0
            contents.append(content)
            size += len(content)
        return [*parts, _extra_part(contents)] if contents else parts


def _part(request: WriteRequest, shard: int) -> Part[WriteRequest]:
    return Part(request, int(request.cuts[-1, 1]), shard, len(request.body))


def _extra_part(contents: list[bytes]) -> Part[WriteRequest]:
    """A request without points, which may be cut after each of the contents."""
    ends = np.cumsum([len(content) for content in contents], dtype=np.int64)
    cuts = np.stack((ends, np.zeros_like(ends)), axis=1)
    return _part(WriteRequest(b"".join(contents), cuts, _NO_SERIES, np.zeros((0, 2), np.int64), 0), 0)


def _fingerprints(points: Array) -> I64:
    """A number per point that tells whether a sample of the same time is the same."""
    values = np.where(points["value_kind"] == 1, points["int_value"].astype(np.float64), points["double_value"])
    mixed = (values + 0.0).view(np.int64) ^ np.ascontiguousarray(points["sum"]).view(np.int64)
    fingerprints: I64 = mixed ^ (points["count"].astype(np.int64) << 1) ^ points["flags"].astype(np.int64)
    return fingerprints


def _as_bytes(records: Array) -> U8:
    """Structured records as the bytes that the kernel reads."""
    return np.ascontiguousarray(records).view(np.uint8).reshape(-1)
