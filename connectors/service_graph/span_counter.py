"""Counts spans that did not become part of an edge, by the service they come from.

The Collector's README documents the two metrics that are written this way, but its code does not emit them.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from collector.model import TEMPORALITY_CUMULATIVE, Attributes, MetricsBuilder, groups
from connectors.service_graph.series import STALE_S, shift_times, zero_times
from connectors.service_graph.spans import CONNECTION_TYPES, RequestSides
from connectors.service_graph.text_codes import TextCodes

__all__ = ["SpanCounter"]

_OVERFLOW: Final = ("", "", "", True)


@dataclass(slots=True)
class _Series:
    attributes: Attributes
    start_unix_nano: int
    began_unix_nano: int
    is_new: bool = True
    span_count: int = 0
    updated_s: float = 0.0


class SpanCounter:
    """A cumulative counter with the labels ``client``, ``server`` (one of them is empty) and ``connection_type``."""

    def __init__(self, name: str, labels: Mapping[str, str], *, limit: int) -> None:
        """``labels`` are on every point. ``limit``: how many series there may be before one overflow series; 0: any."""
        self._name = name
        self._labels = dict(labels)
        self._limit = limit
        self._series: dict[tuple[str, str, str, bool], _Series] = {}

    def __len__(self) -> int:
        return len(self._series)

    def add(
        self, sides: RequestSides, texts: TextCodes, *, now_s: float, now_unix_nano: int, start_unix_nano: int
    ) -> None:
        """Count the spans, not the requests they stand for: the metric is about the spans that were received."""
        if not len(sides):
            return
        alike = groups(sides.service, sides.is_client, sides.connection)
        for row, count in zip(alike.first.tolist(), alike.counts.tolist(), strict=True):
            service, is_client = texts[int(sides.service[row])] or "", bool(sides.is_client[row])
            connection = CONNECTION_TYPES[int(sides.connection[row])]
            key = (service if is_client else "", "" if is_client else service, connection, False)
            if key not in self._series and 0 < self._limit <= len(self._series):
                key = _OVERFLOW
            series = self._series.get(key)
            if series is None:
                series = self._series[key] = _Series(self._attributes(key), start_unix_nano, now_unix_nano)
            series.span_count += count
            series.updated_s = now_s

    def parts(self) -> list[Any]:
        """The series, for a checkpoint, as JSON."""
        return [
            [
                list(key),
                series.start_unix_nano,
                series.began_unix_nano,
                series.is_new,
                series.span_count,
                series.updated_s,
            ]
            for key, series in self._series.items()
        ]

    def restore(self, parts: list[Any], elapsed_s: float) -> None:
        """Continue from ``parts``; ``elapsed_s`` is added to monotonic times.

        Raises:
            TypeError, ValueError: They are not those of such an object.
        """
        for (client, server, connection, is_overflow), start, began, is_new, span_count, updated_s in parts:
            key = (str(client), str(server), str(connection), bool(is_overflow))
            self._series[key] = _Series(
                self._attributes(key), int(start), int(began), bool(is_new), int(span_count), updated_s + elapsed_s
            )

    def expire(self, now_s: float) -> int:
        """Remove the series that had no span for 15 minutes; returns how many."""
        stale = [key for key, series in self._series.items() if series.updated_s < now_s - STALE_S]
        for key in stale:
            del self._series[key]
        return len(stale)

    def write(self, builder: MetricsBuilder, scope: int, *, now_unix_nano: int, offset_nano: int) -> None:
        """Add the metric with a point for each series, and before it a zero for each new one."""
        if self._series:
            all_series = list(self._series.values())
            starts = np.array([series.start_unix_nano for series in all_series], np.uint64)
            began = np.array([series.began_unix_nano for series in all_series], np.uint64)
            times, fits = zero_times(began, starts, now_unix_nano)
            zeros = np.flatnonzero(fits & np.array([series.is_new for series in all_series]))
            rows = np.concatenate((zeros, np.arange(len(all_series))))
            times = np.concatenate((times[zeros], np.full(len(all_series), now_unix_nano, np.uint64)))
            values = np.array([series.span_count for series in all_series], np.int64)
            builder.sum(
                scope,
                self._name,
                temporality=TEMPORALITY_CUMULATIVE,
                monotonic=True,
                times=shift_times(times, offset_nano),
                start_times=shift_times(starts[rows], offset_nano),
                values=np.concatenate((np.zeros(len(zeros), np.int64), values)),
                attributes=(rows.astype(np.int32), [series.attributes for series in all_series]),
            )
            for series in all_series:
                series.is_new = False

    def _attributes(self, key: tuple[str, str, str, bool]) -> Attributes:
        client, server, connection, is_overflow = key
        labels: dict[str, Any] = {"client": client, "server": server, "connection_type": connection}
        return Attributes(({"otel.metric.overflow": True} if is_overflow else labels) | self._labels)
