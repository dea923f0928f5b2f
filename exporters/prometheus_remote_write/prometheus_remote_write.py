"""Sends metrics to a Prometheus remote-write 1.0 receiver: Prometheus, Mimir, Thanos, VictoriaMetrics.

Each batch becomes requests of at most ``max_batch_size_bytes``, or less if the receiver refuses requests of that size,
spread over shards by the final label bytes. Different shards are sent at the same time; batches, and the requests of
one shard, are sent one after the other, so a series is never reordered. What Prometheus cannot represent (delta and
unspecified temporality, names that have no valid character) is dropped and counted; the rest of the batch is sent.

Source: Prometheus remote-write specification 1.0; OpenTelemetry's Prometheus compatibility page.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from collector.api import Host, Settings
from collector.delivery import ExporterConfig, Part, QueuedExporter
from collector.model import METRIC_EXPONENTIAL_HISTOGRAM, Batch, Metrics, Signal
from collector.model.arrays import I32, I64, U8, Array
from collector.prometheus import Encodable, Family, LabelSettings, SeriesCache, SeriesLabels
from collector.transport.http.client import HTTPClient
from collector.transport.user_agent import user_agent
from config.blocks import QueueConfig
from exporters.prometheus_remote_write._encode import Encoder
from exporters.prometheus_remote_write.config import PrometheusRemoteWriteConfig
from exporters.prometheus_remote_write.messages import encode_label, encode_metadata, encode_sample_series

__all__ = ["PrometheusRemoteWriteExporter"]

_HEADERS: Final = {"X-Prometheus-Remote-Write-Version": "0.1.0"}
# The specification: senders must not let users set them. Source: Prometheus config.go, ReservedHeaders.
_RESERVED_HEADERS: Final = ("host", "user-agent", "x-prometheus-remote-read-version")
_POINTS_PER_SHARD: Final = 2000
_METADATA_INTERVAL_S: Final = 60.0
_MIN_SCALE: Final = -4  # the coarsest that native histograms have
# Resources and families remembered. Forgetting one costs a target_info sample or a metadata entry that is sent again.
_REMEMBERED_MAX: Final = 100_000
_RETRYABLE_STATUSES: Final = frozenset({429, *range(500, 600)})


@dataclass(frozen=True, slots=True)
class WriteRequest:
    """The body of a request, and where it may be cut."""

    body: bytes
    cuts: I64
    """(k, 2): where the samples of each series end (the series of a histogram count as one), the points up to there."""


class PrometheusRemoteWriteExporter(QueuedExporter[WriteRequest]):
    """See the module."""

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
                    enabled=queue.enabled,
                    num_consumers=1,
                    queue_size=queue.queue_size,
                    max_bytes=queue.max_bytes,
                    block_on_overflow=queue.block_on_overflow,
                    storage=queue.storage,
                ),
            ),
        )
        self._config = config
        self.max_request_bytes = config.max_batch_size_bytes
        self._client = HTTPClient(
            config.http,
            key=f"exporters::{settings.id}",
            clock=settings.clock,
            user_agent=user_agent(settings),
            retryable=_RETRYABLE_STATUSES,
            fixed_headers=_HEADERS,
            reserved_headers=_RESERVED_HEADERS,
        )
        self._labels = SeriesLabels(
            LabelSettings(
                strategy=config.strategy,
                external_labels=config.external_labels,
                scope_info=not config.disable_scope_info,
                promote_all_resource_attributes=config.resource_to_telemetry_conversion.enabled,
                resource_attributes=config.resource_constant_labels.included,
                excluded_resource_attributes=config.resource_constant_labels.excluded,
                sanitize_leading_underscore=config.sanitize_leading_underscore,
                preserve_multiple_underscores=config.preserve_multiple_underscores,
            )
        )
        self._cache = SeriesCache(self._labels, encode_label, config.strategy, config.namespace)
        self._encoder = Encoder()
        self._target_times_ms: dict[bytes, int] = {}
        self._metadata_sent_s: dict[tuple[str, str], float] = {}
        settings.telemetry.gauge(
            "tailrace_exporter_series_cache_bytes",
            "Memory of the cached label sets, in bytes.",
            read=lambda: float(self._cache.memory_bytes),
        )

    async def open(self, host: Host) -> None:
        """See :class:`QueuedExporter`."""
        await self._client.open(host)

    async def close(self) -> None:
        """See :class:`QueuedExporter`."""
        await self._client.close()

    async def send(self, payload: WriteRequest) -> None:
        """See :class:`QueuedExporter`."""
        await self._client.post(self._config.http.endpoint, payload.body, content_type="application/x-protobuf")

    def cut(self, part: Part[WriteRequest]) -> Sequence[Part[WriteRequest]]:
        """See :class:`QueuedExporter`."""
        body, cuts = part.payload.body, part.payload.cuts
        if len(cuts) < 2:
            return [part]
        count = min(max(int(np.searchsorted(cuts[:, 0], len(body) // 2, side="right")), 1), len(cuts) - 1)
        middle = cuts[count - 1]
        return [
            _part(body[: middle[0]], cuts[:count], part.shard),
            _part(body[middle[0] :], cuts[count:] - middle, part.shard),
        ]

    def encode(self, batch: Batch) -> Sequence[Part[WriteRequest]]:
        """The requests that carry the batch. What Prometheus cannot represent is dropped and counted here."""
        assert isinstance(batch, Metrics)
        found = self._cache.prepare(batch)
        order, run_of = found.order, found.run_of
        coarse = (found.types[order] == METRIC_EXPONENTIAL_HISTOGRAM) & (found.points["scale"][order] < _MIN_SCALE)
        if coarse.any():
            found.dropped["exponential_scale"] = int(np.count_nonzero(coarse))
            order, run_of = order[~coarse], run_of[~coarse]
        for reason, count in found.dropped.items():
            self.telemetry.dropped(Signal.METRICS, count, reason)
        if not len(order):
            return []
        shard_count = min(self._config.remote_write_queue.num_consumers, 1 + len(order) // _POINTS_PER_SHARD)
        shard_of = (found.shard_key[order] % np.uint64(shard_count)).astype(np.int32)
        preamble = [*self._target_info(batch), *self._metadata(found)]
        parts: list[Part[WriteRequest]] = []
        for shard in range(shard_count):
            chosen = shard_of == shard
            if chosen.any():
                parts += [
                    _part(*request, shard)
                    for request in self._encode_runs(found, order[chosen], run_of[chosen], preamble)
                ]
                preamble = []  # only the first request carries it
        return parts

    def _encode_runs(self, found: Encodable, order: I32, run_of: I32, preamble: list[bytes]) -> list[tuple[bytes, I64]]:
        """The requests that carry ``preamble`` and then the chosen points, and where each may be cut."""
        starts = np.flatnonzero(np.concatenate(([True], run_of[1:] != run_of[:-1]))).astype(np.int32)
        runs = np.append(starts, len(order)).astype(np.int32)
        first_rows = order[starts]
        slot = found.slot[first_rows]
        column = self._cache.sources.column
        pieces = np.empty((len(slot), 4), np.int64)
        for i, name in enumerate(("start", "a", "b", "c")):
            pieces[:, i] = column(name)[slot]
        return self._encoder.encode(
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
            preamble,
            self.max_request_bytes,
        )

    def _target_info(self, batch: Metrics) -> list[bytes]:
        """A ``target_info`` sample per resource, at the time of its latest point, if newer than the last one sent."""
        if not self._config.target_info.enabled:
            return []
        resource_of = batch.ancestor("resources", "points")
        first = np.flatnonzero(np.concatenate(([True], resource_of[1:] != resource_of[:-1])))
        latest_ms = (np.maximum.reduceat(batch.table("points").rows["time"], first) // np.uint64(1_000_000)).tolist()
        attributes = batch.attributes("resources")
        keys, texts = attributes.key, attributes.as_text()
        begins = np.searchsorted(attributes.owner, resource_of[first]).tolist()
        ends = np.searchsorted(attributes.owner, resource_of[first], side="right").tolist()
        encoded = []
        for begin, end, time_ms in zip(begins, ends, latest_ms, strict=True):
            pairs = [
                (keys.distinct[keys.codes[row]], texts.distinct[texts.codes[row]] if texts.codes[row] >= 0 else "")
                for row in range(begin, end)
            ]
            labels = self._labels.target_info(pairs)
            if not labels:
                continue
            labels = sorted([("__name__", "target_info"), *labels], key=lambda label: label[0].encode())
            label_bytes = b"".join(encode_label(*label) for label in labels)
            if time_ms > self._target_times_ms.get(label_bytes, 0):
                if len(self._target_times_ms) >= _REMEMBERED_MAX:
                    self._target_times_ms.clear()
                self._target_times_ms[label_bytes] = time_ms
                encoded.append(encode_sample_series(label_bytes, 1.0, time_ms))
        return encoded

    def _metadata(self, found: Encodable) -> list[bytes]:
        """Type, help and unit of the metric families in the batch, each family at most once a minute."""
        if not self._config.send_metadata:
            return []
        now_s = self.settings.clock.monotonic_s()
        numbers = np.unique(self._cache.sources.column("family")[found.slot[found.order]])
        due: list[Family] = []
        for number in numbers.tolist():
            family = self._cache.families[number]
            sent_s = self._metadata_sent_s.get((family.name, family.kind), -_METADATA_INTERVAL_S)
            if now_s - sent_s >= _METADATA_INTERVAL_S:
                if len(self._metadata_sent_s) >= _REMEMBERED_MAX:
                    self._metadata_sent_s.clear()
                self._metadata_sent_s[family.name, family.kind] = now_s
                due.append(family)
        return [encode_metadata(family.name, family.kind, family.description, family.unit) for family in due]


def _part(body: bytes, cuts: I64, shard: int) -> Part[WriteRequest]:
    return Part(WriteRequest(body, cuts), int(cuts[-1, 1]), shard, len(body))


def _as_bytes(records: Array) -> U8:
    """Structured records as the bytes that the kernel reads."""
    return np.ascontiguousarray(records).view(np.uint8).reshape(-1)
