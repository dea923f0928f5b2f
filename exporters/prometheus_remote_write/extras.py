"""What is sent beside the points: a ``target_info`` sample per resource, and the metadata of metric families.

Each of them is sent at most once a minute. What was sent is remembered as digests of one size, however long the labels.
"""

import hashlib
from typing import Final

import numpy as np

from collector.api import Clock
from collector.model import Metrics
from collector.prometheus import FUTURE_MAX_NS, Encodable, SeriesCache, SeriesLabels
from exporters.prometheus_remote_write.messages import encode_label, encode_metadata, encode_sample_series

__all__ = ["ExtraContents"]

_INTERVAL_MS: Final = 60_000  # well within Prometheus' lookback of five minutes
_FORGET_INTERVAL_S: Final = 300.0
# Resources and families remembered. Forgetting one costs a sample or a metadata entry that is sent again.
_REMEMBERED_MAX: Final = 100_000


class ExtraContents:
    """Encodes them as fields of a WriteRequest."""

    def __init__(
        self, labels: SeriesLabels, cache: SeriesCache, clock: Clock, *, target_info: bool, metadata: bool
    ) -> None:
        """``target_info`` and ``metadata`` say what is sent at all."""
        self._labels = labels
        self._cache = cache
        self._clock = clock
        self._has_target_info = target_info
        self._has_metadata = metadata
        self._targets = _Schedule()
        self._families = _Schedule()
        self._forgotten_s = clock.monotonic_s()

    def forget(self) -> None:
        """Forget resources and families that have had nothing to send for some minutes."""
        now_s = self._clock.monotonic_s()
        if now_s >= self._forgotten_s + _FORGET_INTERVAL_S:
            self._forgotten_s = now_s
            self._targets.forget()
            self._families.forget()

    def contents(self, batch: Metrics, found: Encodable, now_unix_nano: int, *, metadata: bool) -> list[bytes]:
        """What is due with this batch. ``metadata`` is false while the series carry their metadata themselves."""
        contents = self._target_info(batch, now_unix_nano) if self._has_target_info else []
        return contents + (self._metadata(found) if self._has_metadata and metadata else [])

    def _target_info(self, batch: Metrics, now_unix_nano: int) -> list[bytes]:
        """A ``target_info`` sample per resource, at the time of its latest point."""
        resource_of = batch.ancestor("resources", "points")
        first = np.flatnonzero(np.concatenate(([True], resource_of[1:] != resource_of[:-1])))
        times = batch.table("points").rows["time"]
        times = np.where(times > np.uint64(now_unix_nano + FUTURE_MAX_NS), np.uint64(now_unix_nano), times)
        latest_ms = (np.maximum.reduceat(times, first) // np.uint64(1_000_000)).tolist()
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
            if time_ms and self._targets.is_due(label_bytes, time_ms):
                encoded.append(encode_sample_series(label_bytes, 1.0, time_ms))
        return encoded

    def _metadata(self, found: Encodable) -> list[bytes]:
        """Type, help and unit of the metric families in the batch."""
        now_ms = int(self._clock.monotonic_s() * 1000)
        numbers = np.unique(self._cache.sources.column("family")[found.slot[found.order]]).tolist()
        families = [self._cache.families[number] for number in numbers]
        return [
            encode_metadata(family.name, family.kind, family.description, family.unit)
            for family in families
            if self._families.is_due(f"{family.kind} {family.name}".encode(), now_ms)
        ]


class _Schedule:
    """When each content was last due. It is remembered for one to two periods of ``forget``."""

    def __init__(self) -> None:
        self._times_ms: dict[bytes, int] = {}
        self._older_ms: dict[bytes, int] = {}

    def is_due(self, content: bytes, time_ms: int) -> bool:
        """Whether the interval has passed since the content was last due. If so, it is due at this time."""
        key = hashlib.blake2b(content, digest_size=16).digest()
        last_ms = self._times_ms.get(key, self._older_ms.get(key, -_INTERVAL_MS))
        if time_ms < last_ms + _INTERVAL_MS:
            return False
        if len(self._times_ms) >= _REMEMBERED_MAX:
            self._times_ms.clear()
        self._times_ms[key] = time_ms
        return True

    def forget(self) -> None:
        """Forget what was not due since the last call but one."""
        self._older_ms, self._times_ms = self._times_ms, {}
