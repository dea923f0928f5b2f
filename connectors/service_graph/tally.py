"""Counts of spans that became no edge, by the service they come from.

The Collector's README names these two metrics without its code emitting them; names and labels are as there.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from collector.model import TEMPORALITY_CUMULATIVE, Attributes, MetricsBuilder, groups
from connectors.service_graph.series import STALE_S, shifted
from connectors.service_graph.spans import CONNECTION_TYPES, Halves
from connectors.service_graph.texts import Texts

__all__ = ["SpanTally"]

_OVERFLOW: Final = ("", "", "", True)


@dataclass(slots=True)
class _Series:
    attributes: Attributes
    start_unix_nano: int
    span_count: int = 0
    updated_s: float = 0.0


class SpanTally:
    """One cumulative counter with the labels ``client``, ``server`` and ``connection_type``; the side a span is not on stays empty."""

    def __init__(self, name: str, labels: Mapping[str, str], *, limit: int) -> None:
        """``limit``: series; 0: no limit. What is beyond it is added up in one."""
        self._name = name
        self._labels = dict(labels)
        self._limit = limit
        self._series: dict[tuple[str, str, str, bool], _Series] = {}

    def __len__(self) -> int:
        return len(self._series)

    def add(self, halves: Halves, texts: Texts, now_s: float, start_unix_nano: int) -> None:
        """Counts the spans, each as one whatever it stands for: this is about what arrived."""
        if not len(halves):
            return
        alike = groups(halves.service, halves.is_client, halves.connection)
        for row, count in zip(alike.first.tolist(), alike.counts.tolist(), strict=True):
            service, is_client = texts[int(halves.service[row])] or "", bool(halves.is_client[row])
            connection = CONNECTION_TYPES[int(halves.connection[row])]
            key = (service if is_client else "", "" if is_client else service, connection, False)
            if key not in self._series and 0 < self._limit <= len(self._series):
                key = _OVERFLOW
            series = self._series.get(key)
            if series is None:
                series = self._series[key] = _Series(self._attributes(key), start_unix_nano)
            series.span_count += count
            series.updated_s = now_s

    def expire(self, now_s: float) -> int:
        """Lets go of the series without a span for 15 minutes; returns how many."""
        stale = [key for key, series in self._series.items() if series.updated_s < now_s - STALE_S]
        for key in stale:
            del self._series[key]
        return len(stale)

    def write(self, builder: MetricsBuilder, scope: int, *, time_unix_nano: int, offset_nano: int) -> None:
        """Adds a point a series."""
        if self._series:
            series = list(self._series.values())
            builder.sum(
                scope,
                self._name,
                temporality=TEMPORALITY_CUMULATIVE,
                monotonic=True,
                times=np.full(len(series), time_unix_nano, np.uint64),
                start_times=shifted(np.array([each.start_unix_nano for each in series], np.uint64), offset_nano),
                values=np.array([each.span_count for each in series], np.int64),
                attributes=[each.attributes for each in series],
            )

    def _attributes(self, key: tuple[str, str, str, bool]) -> Attributes:
        client, server, connection, is_overflow = key
        labels: dict[str, Any] = {"client": client, "server": server, "connection_type": connection}
        return Attributes(({"otel.metric.overflow": True} if is_overflow else labels) | self._labels)
