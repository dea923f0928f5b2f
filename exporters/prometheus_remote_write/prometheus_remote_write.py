"""Sends metrics to a Prometheus remote-write receiver: Prometheus, Mimir, Thanos, VictoriaMetrics.

Each batch becomes requests of at most ``max_batch_size_bytes``, or less if the receiver refuses requests of that size,
spread over shards by the final label bytes. Different shards are sent at the same time; batches, and the requests of
one shard, are sent one after the other, so a series is never reordered. What Prometheus cannot represent (unspecified
temporality, names that have no valid character) is dropped and counted; the rest of the batch is sent.

Source: Prometheus remote-write specifications 1.0 and 2.0; OpenTelemetry's Prometheus compatibility page.
"""

import re
from collections.abc import Collection, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Final

import numpy as np

from collector.api import Host, PeriodicTask, PermanentError, QueueStorage, Settings
from collector.delivery import ExporterConfig, Part, QueuedExporter, with_rows
from collector.delivery.log import printable
from collector.model import METRIC_EXPONENTIAL_HISTOGRAM, METRIC_HISTOGRAM, Batch, Metrics
from collector.model.arrays import I32, I64, U8, Array, Mask
from collector.otlp.semantics import NO_RECORDED_VALUE
from collector.prometheus import (
    FUTURE_MAX_NS,
    METADATA_TYPES,
    DeltaTotals,
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
from exporters.prometheus_remote_write._encode import CUSTOM_BUCKETS, Encoder, bucket_counts
from exporters.prometheus_remote_write.config import MESSAGE_V2, PrometheusRemoteWriteConfig
from exporters.prometheus_remote_write.extras import ExtraContents
from exporters.prometheus_remote_write.messages import LABEL_FORMAT, series_names
from exporters.prometheus_remote_write.requests import (
    Details,
    WriteRequest,
    extra_part,
    halves,
    halves_by_time,
    part_of,
)
from exporters.prometheus_remote_write.staleness import STALENESS_COLUMNS, Staleness
from exporters.prometheus_remote_write.versions import V1_HEADERS, VersionChoice

__all__ = ["PrometheusRemoteWriteExporter"]

_SWEEP_INTERVAL_S: Final = 30.0
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
_RETRYABLE_STATUSES: Final = frozenset({429, *range(500, 600)})


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
            fixed_headers=V1_HEADERS,
        )
        self._versions = VersionChoice(
            self._client,
            config.http.endpoint,
            settings.clock,
            settings.telemetry.log,
            prefers_v2=config.protobuf_message == MESSAGE_V2,
        )
        self._deltas = DeltaTotals(config.delta_temporality, settings.telemetry, settings.clock, self._log)
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
            self._labels, LABEL_FORMAT, config.strategy, config.namespace,
            {"sent_ms": np.int64, "sent_value": np.int64, **(STALENESS_COLUMNS if config.stale_after else {})},
            idle_s=2 * config.stale_after, max_series=config.max_series,
        )  # fmt: skip
        self._staleness = Staleness(self._cache, config.stale_after) if config.stale_after else None
        self._report = LossReport(settings.telemetry, self._log)
        interval_s = min(_SWEEP_INTERVAL_S, config.stale_after / 10 or _SWEEP_INTERVAL_S)
        self._sweeping = PeriodicTask(self._sweep, interval_s, settings.clock, log=settings.telemetry.log)
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
        self._sweeping.start()

    async def shutdown(self) -> None:
        """See :class:`QueuedExporter`."""
        await self._sweeping.stop()
        await super().shutdown()

    async def _sweep(self) -> None:
        """Forget what is idle, and end series whose sources have vanished although no batch comes."""
        now_s = self.settings.clock.monotonic_s()
        if self._staleness is not None and self._staleness.has_due(now_s):
            # The markers must not overtake the samples that wait in the queue, so they wait in the queue as well.
            self.send_empty(Metrics(b""))
        self._deltas.expire(now_s)
        self._extra.forget()
        self._cache.expire(now_s)

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
            await self._versions.post(payload)
        except PermanentError as exc:
            self._learn(str(exc))
            raise
        if not len(payload.series) or payload.slots_version != self._cache.slots_version:
            return
        column = self._cache.series.column
        is_newer = payload.newest[:, 0] >= column("sent_ms")[payload.series]
        series = payload.series[is_newer]
        column("sent_ms")[series] = payload.newest[is_newer, 0]
        column("sent_value")[series] = payload.newest[is_newer, 1]

    def cut(self, part: Part[WriteRequest]) -> Sequence[Part[WriteRequest]]:
        """See :class:`QueuedExporter`."""
        return halves(part)

    def cut_refused(self, part: Part[WriteRequest]) -> Sequence[Part[WriteRequest]]:
        """See :class:`QueuedExporter`. The samples of a single series are cut by time."""
        return halves_by_time(part)

    def describe(self, payload: WriteRequest) -> str:
        """See :class:`QueuedExporter`."""
        return printable("; ".join(series_names(payload.body, _NAMES_MAX)))

    def encode(self, batch: Batch) -> Sequence[Part[WriteRequest]]:
        """The requests that carry the batch. What Prometheus cannot take is dropped and counted here."""
        assert isinstance(batch, Metrics)
        now_unix_nano = self.settings.clock.time_unix_nano()
        if not batch.item_count:
            return self._stale_markers(now_unix_nano)
        point_count = batch.item_count
        batch = self._deltas.accumulate(batch)
        has_all_points = batch.item_count == point_count
        found = self._cache.prepare(
            batch, self.settings.clock.monotonic_s(), now_unix_nano, self._unusable(batch, now_unix_nano)
        )
        order, run_of = found.order, found.run_of
        if self._sorts_by_time():
            is_usable = self._in_order(found)
            order, run_of = order[is_usable], run_of[is_usable]
        self._report.record(batch, found)
        if self._staleness is not None:
            self._staleness.note(found, order, self.settings.clock.monotonic_s())
        markers = self._stale_markers(now_unix_nano)
        if not len(order):
            return markers
        extras = self._extras(batch, found, now_unix_nano)
        shard_count = min(self._config.shard_count, 1 + len(order) // _POINTS_PER_SHARD)
        shard_of = (found.shard_key[order] % np.uint64(shard_count)).astype(np.int32)
        parts: list[Part[WriteRequest]] = []
        for shard in range(shard_count):
            chosen = shard_of == shard
            if chosen.any():
                # Not where a sample may stand for several points, or rows are not those of the batch in the queue.
                rows = order[chosen] if has_all_points and not found.folded_count else None
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
            self._types(found),
            np.ascontiguousarray(order),
            runs,
            np.frombuffer(self._cache.arena or b"\0", np.uint8),
            pieces,
            np.frombuffer(self._cache.families.names, np.uint8),
            self._cache.families.slices(),
            np.ascontiguousarray(column("family")[slot]),
            np.frombuffer(self._cache.label_sets.encoded, np.uint8),
            self._cache.label_sets.slices(),
            self._cache.label_sets.first(),
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
        details = self._details(found, order, column("family")[slot]) if self._versions.prefers_v2 else None
        parts, begin, first_point = [], 0, 0
        for body, cuts in requests:
            end, last_point = begin + len(cuts), first_point + int(cuts[-1, 1])
            own = details
            if details is not None:
                own = replace(details, times=details.times[first_point:last_point], family=details.family[begin:end])
            request = WriteRequest(body, cuts, series[begin:end], newest[begin:end], self._cache.slots_version, own)
            parts.append(part_of(request, shard))
            begin, first_point = end, last_point
        return parts

    def _types(self, found: Encodable) -> I32:
        """The type of each point, as the kernel knows them."""
        if not (self._config.convert_histograms_to_nhcb and self._versions.uses_v2()):
            return found.types
        return np.where(found.types == METRIC_HISTOGRAM, np.int32(CUSTOM_BUCKETS), found.types)

    def _details(self, found: Encodable, order: I32, family: I32) -> Details:
        """What version 2.0 says of the points in ``order``, whose runs have these families."""
        metadata, texts = self._cache.families.metadata()
        points = found.points[order]
        times = np.empty((len(order), 2), np.int64)
        times[:, 0] = points["time"] // np.uint64(1_000_000)
        times[:, 1] = points["start_time"] // np.uint64(1_000_000)
        kinds = metadata[self._cache.sources.column("family")[found.slot[order]], 0]
        # A start at the time of the point says that it is unknown; gauges have none.
        times[(times[:, 1] >= times[:, 0]) | (kinds == METADATA_TYPES["gauge"]), 1] = 0
        return Details(times, family, metadata, texts)

    def _stale_markers(self, now_unix_nano: int) -> list[Part[WriteRequest]]:
        """The requests that end series of vanished sources. They carry no points."""
        if self._staleness is None:
            return []
        now_s = self.settings.clock.monotonic_s()
        markers = self._staleness.due(now_s, now_unix_nano)
        if markers is None:
            return []
        parts = self._encode_runs(markers, markers.order, markers.run_of, 0)
        for part in parts:
            part.payload.cuts[:, 1] = 0
        return [part_of(part.payload, part.shard) for part in parts]

    def _extras(self, batch: Metrics, found: Encodable, now_unix_nano: int) -> list[Part[WriteRequest]]:
        """The requests that carry ``target_info`` and metadata."""
        parts: list[Part[WriteRequest]] = []
        contents: list[bytes] = []
        size = 0
        has_metadata = not self._versions.uses_v2()
        for content in self._extra.contents(batch, found, now_unix_nano, metadata=has_metadata):
            if contents and self.max_request_bytes and size + len(content) > self.max_request_bytes:
                parts.append(extra_part(contents))
                contents, size = [], 0
            contents.append(content)
            size += len(content)
        return [*parts, extra_part(contents)] if contents else parts


def _fingerprints(points: Array) -> I64:
    """A number per point that tells whether a sample of the same time is the same."""
    values = np.where(points["value_kind"] == 1, points["int_value"].astype(np.float64), points["double_value"])
    mixed = (values + 0.0).view(np.int64) ^ np.ascontiguousarray(points["sum"]).view(np.int64)
    fingerprints: I64 = mixed ^ (points["count"].astype(np.int64) << 1) ^ points["flags"].astype(np.int64)
    return fingerprints


def _as_bytes(records: Array) -> U8:
    """Structured records as the bytes that the kernel reads."""
    return np.ascontiguousarray(records).view(np.uint8).reshape(-1)
