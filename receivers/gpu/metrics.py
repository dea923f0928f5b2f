"""A snapshot of the GPUs as metrics: those of the semantic conventions, ours, and the older names on request.

A quantity that a device does not report has no data point.
Source: semantic conventions v1.44, hardware/gpu.md and hardware/common.md.
"""

import math
from collections.abc import Iterable
from typing import Any, Final

from collector.gpu import THROTTLE_REASONS, Device, Reading, Snapshot
from collector.model import TEMPORALITY_CUMULATIVE, Metrics, MetricsBuilder
from receivers.gpu.config import GpuReceiverConfig

__all__ = ["MetricsMaker"]

_Points = Iterable[tuple[dict[str, Any], float]]
_STATES: Final = ("ok", "degraded", "failed")


class MetricsMaker:
    """Makes a batch from each snapshot. It remembers the counters, so that a reset starts a new stream."""

    def __init__(self, config: GpuReceiverConfig, resource: dict[str, str], version: str) -> None:
        self._config, self._resource, self._version = config, resource, version
        self._counters: dict[tuple[str, ...], tuple[float, int]] = {}
        self._previous_unix_nano = 0

    def make(self, snapshot: Snapshot, now_unix_nano: int) -> Metrics | None:
        """The metrics at this moment; None if no device has been found yet."""
        if not snapshot.devices:
            return None
        # There are no readings if the driver has gone or hangs: the known devices have failed.
        readings = snapshot.readings or (Reading(is_lost=True),) * len(snapshot.devices)
        pairs = list(zip(snapshot.devices, readings, strict=True))
        batch = _Batch(self, self._resource, self._version, snapshot, now_unix_nano)
        batch.gauge("hw.gpu.utilization", "1", "Fraction of time the GPU was busy", _utilization(pairs))
        batch.gauge("hw.gpu.memory.utilization", "1", "Fraction of the GPU memory in use", _memory_utilization(pairs))
        batch.level(
            "hw.gpu.memory.usage", "By", "GPU memory in use", ((_identity(d), r.memory_used_bytes) for d, r in pairs)
        )
        batch.level(
            "hw.gpu.memory.limit", "By", "GPU memory size", ((_identity(d), d.memory_limit_bytes) for d, _ in pairs)
        )
        batch.counter("hw.gpu.io", "By", "Bytes transferred over the bus", _io(pairs))
        batch.counter("hw.energy", "J", "Energy consumed by the GPU", ((_identity(d), r.energy_j) for d, r in pairs))
        batch.gauge("hw.power", "W", "Current power draw of the GPU", ((_identity(d), r.power_w) for d, r in pairs))
        batch.gauge(
            "hw.temperature", "Cel", "Temperature of the GPU", ((_identity(d), r.temperature_c) for d, r in pairs)
        )
        batch.counter("hw.errors", "{error}", "Memory errors of the GPU", _errors(pairs))
        batch.level("hw.status", "1", "1 for the current state of the GPU, 0 for all others", _status(pairs))
        batch.counter(
            "gpu.throttle.time", "s", "Time during which the clocks were lowered, by reason", _throttle(pairs)
        )
        if self._config.legacy_names:
            # Without a unit, which Prometheus would append: queries of existing dashboards contain these very names.
            used = ((self._label(d), r.memory_used_bytes) for d, r in pairs)
            batch.gauge("cuda_memory_usage_bytes", "", "GPU memory in use", used)
            batch.gauge(
                "cuda_memory_total_bytes",
                "",
                "GPU memory size",
                ((self._label(d), d.memory_limit_bytes) for d, _ in pairs),
            )
            busy = ((self._label(d), 100 * r.utilization) for d, r in pairs)
            batch.gauge("cuda_utilization_percent", "", "GPU utilization", busy)
        self._previous_unix_nano = now_unix_nano
        return batch.build()

    def stream_start(self, key: tuple[str, ...], value: float, start_unix_nano: int) -> int:
        """The start time of the counter ``key``, which has this value now; ``start_unix_nano`` if it is new."""
        before = self._counters.get(key)
        if before is None:
            start = start_unix_nano
        elif value < before[0]:  # the driver was loaded again, or the counter wrapped
            start = self._previous_unix_nano
        else:
            start = before[1]
        self._counters[key] = (value, start)
        return start

    def _label(self, device: Device) -> dict[str, Any]:
        return {"device": device.index if self._config.device_label == "index" else device.id}


class _Batch:
    """A batch that is being built."""

    def __init__(
        self, maker: MetricsMaker, resource: dict[str, str], version: str, snapshot: Snapshot, now_unix_nano: int
    ) -> None:
        self._maker, self._now, self._start = maker, now_unix_nano, snapshot.start_unix_nano
        self._builder = MetricsBuilder()
        self._scope = self._builder.scope(self._builder.resource(resource), "tailrace.gpu", version)

    def gauge(self, name: str, unit: str, description: str, points: _Points) -> None:
        attributes, values = _reported(points)
        if values:
            self._builder.gauge(
                self._scope,
                name,
                unit=unit,
                description=description,
                times=[self._now] * len(values),
                values=values,
                attributes=attributes,
            )

    def level(self, name: str, unit: str, description: str, points: _Points) -> None:
        """Add an UpDownCounter in whole units."""
        attributes, values = _reported(points)
        self._sum(
            name,
            unit,
            description,
            attributes,
            [int(value) for value in values],
            [self._start] * len(values),
            monotonic=False,
        )

    def counter(self, name: str, unit: str, description: str, points: _Points) -> None:
        attributes, values = _reported(points)
        keys = [(name, *map(str, point.values())) for point in attributes]
        starts = [self._maker.stream_start(key, value, self._start) for key, value in zip(keys, values, strict=True)]
        self._sum(name, unit, description, attributes, values, starts, monotonic=True)

    def build(self) -> Metrics:
        return self._builder.build()

    def _sum(
        self,
        name: str,
        unit: str,
        description: str,
        attributes: list[dict[str, Any]],
        values: Any,
        starts: list[int],
        *,
        monotonic: bool,
    ) -> None:
        if values:
            self._builder.sum(
                self._scope,
                name,
                unit=unit,
                description=description,
                temporality=TEMPORALITY_CUMULATIVE,
                monotonic=monotonic,
                times=[self._now] * len(values),
                start_times=starts,
                values=values,
                attributes=attributes,
            )


_Pairs = list[tuple[Device, Reading]]


def _identity(device: Device) -> dict[str, Any]:
    identity = {"hw.id": device.id, "hw.type": "gpu", "hw.name": device.name, "hw.model": device.model}
    if device.parent_id:
        identity["hw.parent"] = device.parent_id
    return identity


def _reported(points: _Points) -> tuple[list[dict[str, Any]], list[float]]:
    reported = [(attributes, float(value)) for attributes, value in points if not math.isnan(value)]
    return [attributes for attributes, _ in reported], [value for _, value in reported]


def _utilization(pairs: _Pairs) -> _Points:
    for device, reading in pairs:
        tasks = (
            ("general", reading.utilization),
            ("encoder", reading.encoder_utilization),
            ("decoder", reading.decoder_utilization),
        )
        for task, value in tasks:
            yield {**_identity(device), "hw.gpu.task": task}, value


def _memory_utilization(pairs: _Pairs) -> _Points:
    for device, reading in pairs:
        if device.memory_limit_bytes > 0:
            yield _identity(device), reading.memory_used_bytes / device.memory_limit_bytes


def _io(pairs: _Pairs) -> _Points:
    for device, reading in pairs:
        for direction, value in (("transmit", reading.pcie_transmit_bytes), ("receive", reading.pcie_receive_bytes)):
            yield {**_identity(device), "network.io.direction": direction}, value


def _errors(pairs: _Pairs) -> _Points:
    for device, reading in pairs:
        for kind, value in (("corrected", reading.errors_corrected), ("uncorrected", reading.errors_uncorrected)):
            yield {**_identity(device), "error.type": kind}, value


def _status(pairs: _Pairs) -> _Points:
    for device, reading in pairs:
        identity = _identity(device)
        if device.driver_version:
            identity["hw.driver_version"] = device.driver_version
        if device.serial:
            identity["hw.serial_number"] = device.serial
        state = "failed" if reading.is_lost else "degraded" if reading.errors_uncorrected > 0 else "ok"
        for name in _STATES:
            yield {**identity, "hw.state": name}, float(name == state)


def _throttle(pairs: _Pairs) -> _Points:
    for device, reading in pairs:
        for reason, value in zip(THROTTLE_REASONS, reading.throttle_s, strict=True):
            yield {**_identity(device), "gpu.throttle.reason": reason}, value
