"""Metrics to a Prometheus remote-write 1.0 receiver: Prometheus, Mimir, Thanos, VictoriaMetrics.

Each batch becomes requests of at most ``max_batch_size_bytes``, less where the receiver refuses that for its size,
spread over shards by the final label bytes. Shards are sent at the same time, the requests of one shard one after the
other and one batch after the other: a series is never reordered. What Prometheus has no form for (delta and unspecified
temporality, names of which nothing is left) is dropped and counted; the rest of the batch goes out.
Source: Prometheus remote-write specification 1.0; OpenTelemetry's Prometheus compatibility page.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from collector.api import Host, Settings
from collector.delivery import ExporterConfig, Part, QueuedExporter
from collector.model import METRIC_EXPONENTIAL_HISTOGRAM, Batch, Metrics, Signal
from collector.model.arrays import I32, I64
from collector.prometheus import Encodable, Family, LabelSettings, SeriesCache, SeriesLabels
from collector.transport.http.client import HTTPClient
from config.blocks import QueueConfig
from exporters.prometheus_remote_write._encode import Encoder
from exporters.prometheus_remote_write.config import PrometheusRemoteWriteConfig
from exporters.prometheus_remote_write.messages import encode_label, encode_metadata, encode_sample_series

__all__ = ["PrometheusRemoteWriteExporter"]

_HEADERS: Final = {"X-Prometheus-Remote-Write-Version": "0.1.0"}
_POINTS_PER_SHARD: Final = 2000
_METADATA_INTERVAL_S: Final = 60.0
_MIN_SCALE: Final = -4  # native histograms go no coarser
# resources and families; forgetting them costs a sample or a line of metadata sent again
_REMEMBERED_MAX: Final = 100_000
RETRYABLE_STATUSES: Final = frozenset({429, *range(500, 600)})


@dataclass(frozen=True, slots=True)
class WriteRequest:
    """A request, and where it may be cut."""

    body: bytes
    cuts: I64
    """(k, 2): where each series' samples of this request end (a histogram's series are one), the points up to there."""


class PrometheusRemoteWriteExporter(QueuedExporter[WriteRequest]):
    """See the module."""

    def __init__(self, settings: Settings, config: PrometheusRemoteWriteConfig) -> None:
        queue = config.remote_write_queue
        super().__init__(
            settings,
            ExporterConfig.model_construct(
                timeout=config.timeout,
                retry_on_failure=config.retry_on_failure,
                # One batch at a time keeps the order; the shards inside a batch are the parallel part.
                sending_queue=QueueConfig(
                    enabled=queue.enabled, num_consumers=1, queue_size=queue.queue_size, max_bytes=queue.max_bytes,
                    block_on_overflow=queue.block_on_overflow, storage=queue.storage,
                ),
            ),
        )  # fmt: skip
        self._config = config
        self.max_request_bytes = config.max_batch_size_bytes
        self._client = HTTPClient(
            config.http,
            key=f"exporters::{settings.id}",
            clock=settings.clock,
            user_agent=f"Tailrace/{settings.version}",
            retryable=RETRYABLE_STATUSES,
            fixed_headers=_HEADERS,
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
        self._targets: dict[bytes, int] = {}
        self._metadata_sent_s: dict[tuple[str, str], float] = {}
        settings.telemetry.gauge(
            "tailrace_exporter_series_cache_bytes",
            "Bytes of cached label sets",
            read=lambda: float(self._cache.memory_bytes),
        )

    async def open(self, host: Host) -> None:
        """Make the HTTP session."""
        await self._client.open(host)

    async def close(self) -> None:
        """Close the HTTP session."""
        await self._client.close()

    async def send(self, payload: WriteRequest) -> int | None:
        """One request, compressed."""
        await self._client.post(self._config.http.endpoint, payload.body, content_type="application/x-protobuf")
        return None

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
        """The requests of a batch; what Prometheus cannot hold is counted here."""
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
        before = [*self._target_info(batch), *self._metadata(found)]
        parts: list[Part[WriteRequest]] = []
        for shard in range(shard_count):
            chosen = shard_of == shard
            if chosen.any():
                parts += [
                    _part(*request, shard)
                    for request in self._encode_runs(found, order[chosen], run_of[chosen], before)
                ]
                before = []
        return parts

    def _encode_runs(self, found: Encodable, order: I32, run_of: I32, before: list[bytes]) -> list[tuple[bytes, I64]]:
        """Requests of the chosen points, ``before`` ahead of them, and where each may be cut."""
        starts = np.flatnonzero(np.concatenate(([True], run_of[1:] != run_of[:-1]))).astype(np.int32)
        runs = np.concatenate((starts, [len(order)])).astype(np.int32)
        head = order[starts]
        slot = found.slot[head]
        column = self._cache.sources.column
        pieces = np.empty((len(slot), 4), np.int64)
        for i, name in enumerate(("start", "a", "b", "c")):
            pieces[:, i] = column(name)[slot]
        return self._encoder.encode(
            found.wire, _bytes(found.points), found.types, np.ascontiguousarray(order), runs,
            np.frombuffer(self._cache.arena or b"\0", np.uint8), pieces,
            np.frombuffer(self._cache.names, np.uint8), self._cache.name_slices(), np.ascontiguousarray(column("family")[slot]),
            np.frombuffer(self._cache.extras, np.uint8), self._cache.extra_slices(), self._cache.extra_first(),
            np.ascontiguousarray(found.extra_set[head]),
            _bytes(found.exemplars), found.exemplar_first, found.exemplar_arena, found.exemplar_slices,
            _bytes(found.quantiles), found.quantile_first,
            before, self.max_request_bytes,
        )  # fmt: skip

    def _target_info(self, batch: Metrics) -> list[bytes]:
        """A ``target_info`` sample for each resource, at the latest time of its points, never older than the last one sent."""
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
                (keys.distinct[keys.codes[j]], texts.distinct[texts.codes[j]] if texts.codes[j] >= 0 else "")
                for j in range(begin, end)
            ]
            labels = self._labels.target_info(pairs)
            if not labels:
                continue
            named = sorted([("__name__", "target_info"), *labels], key=lambda label: label[0].encode())
            label_bytes = b"".join(encode_label(*label) for label in named)
            if time_ms > self._targets.get(label_bytes, 0):
                if len(self._targets) >= _REMEMBERED_MAX:
                    self._targets.clear()
                self._targets[label_bytes] = time_ms
                encoded.append(encode_sample_series(label_bytes, 1.0, time_ms))
        return encoded

    def _metadata(self, found: Encodable) -> list[bytes]:
        """Type, help and unit of the batch's families, each at most once a minute."""
        if not self._config.send_metadata:
            return []
        now_s = self.settings.clock.monotonic_s()
        numbers = np.unique(self._cache.sources.column("family")[found.slot[found.order]])
        due: list[Family] = []
        for number in numbers.tolist():
            family = self._cache.families[number]
            if (
                now_s - self._metadata_sent_s.get((family.name, family.kind), -_METADATA_INTERVAL_S)
                >= _METADATA_INTERVAL_S
            ):
                if len(self._metadata_sent_s) >= _REMEMBERED_MAX:
                    self._metadata_sent_s.clear()
                self._metadata_sent_s[family.name, family.kind] = now_s
                due.append(family)
        return [encode_metadata(family.name, family.kind, family.description, family.unit) for family in due]


def _part(body: bytes, cuts: I64, shard: int) -> Part[WriteRequest]:
    return Part(WriteRequest(body, cuts), int(cuts[-1, 1]), shard, len(body))


def _bytes(records: "np.ndarray[tuple[int], np.dtype[np.void]]") -> "np.ndarray[tuple[int], np.dtype[np.uint8]]":
    """The records as the kernel takes them."""
    return np.ascontiguousarray(records).view(np.uint8).reshape(-1)
