"""The metrics of each scraper, and the points of one collection.

Source: opentelemetry-collector-contrib receiver/hostmetricsreceiver/internal/scraper, metadata.yaml of each scraper.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from collector.model import TEMPORALITY_CUMULATIVE, MetricsBuilder

__all__ = ["METRICS", "Metric", "Points"]

_SCOPE: Final = (
    "github.com/open-telemetry/opentelemetry-collector-contrib/receiver/hostmetricsreceiver/internal/scraper"
)


@dataclass(frozen=True, slots=True)
class Metric:
    """One metric."""

    unit: str
    description: str
    kind: str
    """``counter`` (a monotonic sum), ``level`` (a sum that rises and falls) or ``gauge``."""
    is_double: bool = False
    is_default: bool = True


def _counter(unit: str, description: str, *, double: bool = False, default: bool = True) -> Metric:
    return Metric(unit, description, "counter", double, default)


def _level(unit: str, description: str, *, default: bool = True) -> Metric:
    return Metric(unit, description, "level", is_default=default)


def _gauge(unit: str, description: str, *, double: bool = True, default: bool = False) -> Metric:
    return Metric(unit, description, "gauge", double, default)


METRICS: Final[Mapping[str, Mapping[str, Metric]]] = {
    "cpu": {
        "system.cpu.time": _counter("s", "Total seconds each logical CPU spent on each mode.", double=True),
        "system.cpu.utilization": _gauge(
            "1",
            "Difference in system.cpu.time since the last measurement per logical CPU, divided by the elapsed time.",
        ),
        "system.cpu.frequency": _gauge("Hz", "Current frequency of the CPU core in Hz."),
        "system.cpu.logical.count": _level("{cpu}", "Number of available logical CPUs.", default=False),
        "system.cpu.physical.count": _level("{cpu}", "Number of available physical CPUs.", default=False),
    },
    "memory": {
        "system.memory.usage": _level("By", "Bytes of memory in use."),
        "system.memory.utilization": _gauge("1", "Percentage of memory bytes in use."),
        "system.memory.limit": _level("By", "Total bytes of memory available.", default=False),
        "system.memory.page_size": _gauge(
            "By", "A constant value for the system's configured page size.", double=False
        ),
        "system.linux.memory.available": _level(
            "By",
            "An estimate of how much memory is available for starting new applications, without swapping.",
            default=False,
        ),
        "system.linux.memory.dirty": _level(
            "By", "The amount of dirty memory according to `/proc/meminfo`.", default=False
        ),
    },
    "load": {
        f"system.cpu.load_average.{span}": _gauge("{thread}", f"Average CPU Load over {text}.", default=True)
        for span, text in (("1m", "1 minute"), ("5m", "5 minutes"), ("15m", "15 minutes"))
    },
    "disk": {
        "system.disk.io": _counter("By", "Disk bytes transferred."),
        "system.disk.io_time": _counter("s", "Time disk spent activated.", double=True),
        "system.disk.merged": _counter(
            "{operations}", "The number of disk reads/writes merged into single physical disk access operations."
        ),
        "system.disk.operation_time": _counter("s", "Time spent in disk operations.", double=True),
        "system.disk.operations": _counter("{operations}", "Disk operations count."),
        "system.disk.pending_operations": _level("{operations}", "The queue size of pending I/O operations."),
        "system.disk.weighted_io_time": _counter(
            "s", "Time disk spent activated multiplied by the queue length.", double=True
        ),
    },
    "filesystem": {
        "system.filesystem.usage": _level("By", "Filesystem bytes used."),
        "system.filesystem.inodes.usage": _level("{inodes}", "FileSystem inodes used."),
        "system.filesystem.utilization": _gauge("1", "Fraction of filesystem bytes used."),
    },
    "network": {
        "system.network.connections": _level("{connections}", "The number of connections."),
        "system.network.dropped": _counter("{packets}", "The number of packets dropped."),
        "system.network.errors": _counter("{errors}", "The number of errors encountered."),
        "system.network.io": _counter("By", "The number of bytes transmitted and received."),
        "system.network.packets": _counter("{packets}", "The number of packets transferred."),
        "system.network.conntrack.count": _level(
            "{entries}", "The count of entries in conntrack table.", default=False
        ),
        "system.network.conntrack.max": _level(
            "{entries}", "The limit for entries in the conntrack table.", default=False
        ),
    },
    "paging": {
        "system.paging.faults": _counter("{faults}", "The number of page faults."),
        "system.paging.operations": _counter("{operations}", "The number of paging operations."),
        "system.paging.usage": _level("By", "Swap (unix) or pagefile (windows) usage."),
        "system.paging.utilization": _gauge("1", "Swap (unix) or pagefile (windows) utilization."),
    },
    "processes": {
        "system.processes.count": _level("{processes}", "Total number of processes in each state."),
        "system.processes.created": _counter("{processes}", "Total number of created processes."),
    },
    "process": {
        "process.cpu.time": _counter("s", "Total CPU seconds broken down by different states.", double=True),
        "process.disk.io": _counter("By", "Disk bytes transferred."),
        "process.memory.usage": _level("By", "The amount of physical memory in use."),
        "process.memory.virtual": _level("By", "Virtual memory size."),
        "process.context_switches": _counter(
            "{count}", "Number of times the process has been context switched.", default=False
        ),
        "process.disk.operations": _counter(
            "{operations}", "Number of disk operations performed by the process.", default=False
        ),
        "process.memory.utilization": _gauge("1", "Percentage of total physical memory that is used by the process."),
        "process.open_file_descriptors": _level(
            "{count}", "Number of file descriptors in use by the process.", default=False
        ),
        "process.threads": _level("{threads}", "Process threads count.", default=False),
        "process.uptime": _gauge("s", "The time the process has been running."),
    },
    "system": {"system.uptime": _gauge("s", "The time the system has been running.", default=True)},
}


class Points:
    """The points of one resource of one collection."""

    def __init__(self, scraper: str, enabled: frozenset[str]) -> None:
        self._scraper, self._enabled = scraper, enabled
        self._rows: dict[str, list[tuple[float, dict[str, Any]]]] = {}
        self.errors: list[str] = []
        """What could not be read, and why."""

    def wants(self, *names: str) -> bool:
        """Whether one of the metrics is enabled."""
        return any(name in self._enabled for name in names)

    def add(self, name: str, value: float, **attributes: Any) -> None:
        """Add a point of a metric, if that is enabled."""
        if name in self._enabled:
            self._rows.setdefault(name, []).append((value, attributes))

    def failed(self, message: str) -> None:
        """Note that something could not be read; ``message`` says what and why."""
        self.errors.append(message)

    def names(self) -> frozenset[str]:
        """The metrics that have points."""
        return frozenset(self._rows)

    def write(
        self,
        builder: MetricsBuilder,
        version: str,
        now_unix_nano: int,
        start_unix_nano: int,
        resource: Mapping[str, Any] | None = None,
    ) -> None:
        """Write the points; ``start_unix_nano`` is when counters began, the start of the machine or process."""
        if not self._rows:
            return
        scope = builder.scope(builder.resource(resource or {}), f"{_SCOPE}/{self._scraper}scraper", version)
        for name, rows in self._rows.items():
            metric = METRICS[self._scraper][name]
            values = np.array([value for value, _ in rows], np.float64 if metric.is_double else np.int64)
            times = np.full(len(rows), now_unix_nano, np.uint64)
            attributes = [attributes for _, attributes in rows]
            if metric.kind == "gauge":
                builder.gauge(
                    scope, name, times=times, values=values, attributes=attributes, unit=metric.unit,
                    description=metric.description,
                )  # fmt: skip
                continue
            builder.sum(
                scope,
                name,
                temporality=TEMPORALITY_CUMULATIVE,
                monotonic=metric.kind == "counter",
                times=times,
                start_times=np.full(len(rows), start_unix_nano, np.uint64),
                values=values,
                attributes=attributes,
                unit=metric.unit,
                description=metric.description,
            )
