"""Reads what the kernel says about the machine. Every function adds the points of one scraper.

Most values come from psutil; what it does not offer is read from /proc. What cannot be read is left out;
``Points.failed`` counts it where it ought to be there.
"""

import os
import socket
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Final

import psutil

from receivers.host_metrics.config import (
    DiskConfig,
    FilesystemConfig,
    LoadConfig,
    NetworkConfig,
    ScraperConfig,
    _NameMatch,
)
from receivers.host_metrics.metrics import Points
from receivers.host_metrics.procfs import procfs_at

__all__ = ["SCRAPERS", "Machine"]

_SECTOR_BYTES: Final = 512
_KIB: Final = 1024
_CPU_STATES: Final = {
    "user": "user",
    "system": "system",
    "idle": "idle",
    "irq": "interrupt",
    "nice": "nice",
    "softirq": "softirq",
    "steal": "steal",
    "iowait": "wait",
}
_TCP_STATES: Final = {
    psutil.CONN_CLOSE_WAIT: "CLOSE_WAIT",
    psutil.CONN_CLOSE: "CLOSE",
    psutil.CONN_CLOSING: "CLOSING",
    psutil.CONN_ESTABLISHED: "ESTABLISHED",
    psutil.CONN_FIN_WAIT1: "FIN_WAIT_1",
    psutil.CONN_FIN_WAIT2: "FIN_WAIT_2",
    psutil.CONN_LAST_ACK: "LAST_ACK",
    psutil.CONN_LISTEN: "LISTEN",
    psutil.CONN_SYN_RECV: "SYN_RECEIVED",
    psutil.CONN_SYN_SENT: "SYN_SENT",
    psutil.CONN_TIME_WAIT: "TIME_WAIT",
}
_PROCESS_STATES: Final = {
    psutil.STATUS_RUNNING: "running",
    psutil.STATUS_SLEEPING: "sleeping",
    psutil.STATUS_DISK_SLEEP: "blocked",
    psutil.STATUS_STOPPED: "stopped",
    psutil.STATUS_TRACING_STOP: "stopped",
    psutil.STATUS_ZOMBIE: "zombies",
    psutil.STATUS_IDLE: "idle",
}

_PSUTIL_LOCK: Final = threading.Lock()
"""Psutil keeps caches in its module, and each receiver collects in a thread of its own."""


class Machine:
    """The machine whose root is at ``root_path``, and what is remembered of it between collections."""

    def __init__(self, root_path: str) -> None:
        self.root = Path(root_path or "/")
        self._proc = str(self.root / "proc")
        self.cpu_before: tuple[float, list[Any]] | None = None
        """When CPU times were read last, and what they were."""

    @contextmanager
    def psutil(self) -> Iterator[None]:
        """Psutil reads from the machine's /proc while this is open, for this thread. Keep it short."""
        with _PSUTIL_LOCK, procfs_at(self._proc):
            yield

    def proc(self, name: str) -> list[list[str]]:
        """The words of each line of a file in /proc; nothing if it cannot be read."""
        with suppress(OSError):
            text = (self.root / "proc" / name).read_text(encoding="utf-8", errors="replace")
            return [line.split() for line in text.splitlines()]
        return []

    def numbers(self, name: str) -> dict[str, int]:
        """The numbers of a file in /proc by the word before them, such as ``MemFree: 12 kB``."""
        return {
            words[0].rstrip(":"): int(words[1]) for words in self.proc(name) if len(words) > 1 and words[1].isdecimal()
        }


def cpu(machine: Machine, points: Points, config: ScraperConfig) -> None:
    """CPU time by state."""
    del config
    with machine.psutil():
        times = psutil.cpu_times(percpu=True)
        counts = psutil.cpu_count(), psutil.cpu_count(logical=False)
        frequencies = (psutil.cpu_freq(percpu=True) or ()) if points.wants("system.cpu.frequency") else ()
    now_s = time.monotonic()
    for number, each in enumerate(times):
        for field, state in _CPU_STATES.items():
            points.add("system.cpu.time", getattr(each, field, 0.0), cpu=f"cpu{number}", state=state)
    if points.wants("system.cpu.utilization"):
        before_s, before = machine.cpu_before or (now_s, [])
        for number, (each, earlier) in enumerate(zip(times, before, strict=False)):
            for field, state in _CPU_STATES.items() if now_s > before_s else ():
                used = (getattr(each, field, 0.0) - getattr(earlier, field, 0.0)) / (now_s - before_s)
                points.add("system.cpu.utilization", used, cpu=f"cpu{number}", state=state)
        machine.cpu_before = now_s, times
    for number, frequency in enumerate(frequencies):
        points.add("system.cpu.frequency", frequency.current * 1e6, cpu=f"cpu{number}")
    for name, count in zip(("system.cpu.logical.count", "system.cpu.physical.count"), counts, strict=True):
        if count:
            points.add(name, count)


def memory(machine: Machine, points: Points, config: ScraperConfig) -> None:
    """Memory by state."""
    del config
    kib = machine.numbers("meminfo")
    total = kib.get("MemTotal", 0)
    reclaimable = kib.get("SReclaimable", 0)
    cached = kib.get("Cached", 0) + reclaimable
    states = {
        "free": kib.get("MemFree", 0),
        "buffered": kib.get("Buffers", 0),
        "cached": cached,
        "slab_reclaimable": reclaimable,
        "slab_unreclaimable": kib.get("SUnreclaim", 0),
    }
    states["used"] = max(0, total - states["free"] - states["buffered"] - cached)
    for state, amount in states.items() if total else ():
        points.add("system.memory.usage", amount * _KIB, state=state)
        points.add("system.memory.utilization", amount / total, state=state)
    points.add("system.memory.limit", total * _KIB)
    points.add("system.memory.page_size", os.sysconf("SC_PAGE_SIZE"))
    points.add("system.linux.memory.available", kib.get("MemAvailable", 0) * _KIB)
    points.add("system.linux.memory.dirty", kib.get("Dirty", 0) * _KIB)


def load(machine: Machine, points: Points, config: ScraperConfig) -> None:
    """Load averages."""
    assert isinstance(config, LoadConfig)
    words = next(iter(machine.proc("loadavg")), [])
    with machine.psutil():
        divisor = (psutil.cpu_count() or 1) if config.cpu_average else 1
    for span, word in zip(("1m", "5m", "15m"), words, strict=False):
        points.add(f"system.cpu.load_average.{span}", float(word) / divisor)


def disk(machine: Machine, points: Points, config: ScraperConfig) -> None:
    """Disk I/O. Source of the columns: the kernel's Documentation/admin-guide/iostats.rst."""
    assert isinstance(config, DiskConfig)
    for words in machine.proc("diskstats"):
        if (
            len(words) < 14
            or not all(word.isdecimal() for word in words[3:14])
            or not _wanted(words[2], config.include, config.exclude)
        ):
            continue
        device, values = words[2], [int(word) for word in words[3:14]]
        for place, direction in ((0, "read"), (4, "write")):
            operations, merged, sectors, milliseconds = values[place : place + 4]
            points.add("system.disk.operations", operations, device=device, direction=direction)
            points.add("system.disk.merged", merged, device=device, direction=direction)
            points.add("system.disk.io", sectors * _SECTOR_BYTES, device=device, direction=direction)
            points.add("system.disk.operation_time", milliseconds / 1e3, device=device, direction=direction)
        points.add("system.disk.pending_operations", values[8], device=device)
        points.add("system.disk.io_time", values[9] / 1e3, device=device)
        points.add("system.disk.weighted_io_time", values[10] / 1e3, device=device)


def filesystem(machine: Machine, points: Points, config: ScraperConfig) -> None:
    """Usage of file systems. Those of a container's host are below ``root_path``."""
    assert isinstance(config, FilesystemConfig)
    seen: set[tuple[str, str]] = set()
    with machine.psutil():
        partitions = psutil.disk_partitions(all=config.include_virtual_filesystems)
    for partition in partitions:
        place, kind, device = partition.mountpoint, partition.fstype, partition.device
        if (
            (device, place) in seen
            or not _wanted(device, config.include_devices, config.exclude_devices)
            or not _wanted(kind, config.include_fs_types, config.exclude_fs_types)
            or not _wanted(place, config.include_mount_points, config.exclude_mount_points)
        ):
            continue
        seen.add((device, place))
        try:
            found = os.statvfs(machine.root / place.lstrip("/"))
        except OSError as error:
            points.failed(f"{place}: {error.strerror or error}")
            continue
        mode = "ro" if "ro" in partition.opts.split(",") else "rw"
        where = {"device": device, "mountpoint": place, "type": kind, "mode": mode}
        used, free = (found.f_blocks - found.f_bfree) * found.f_frsize, found.f_bavail * found.f_frsize
        reserved = (found.f_bfree - found.f_bavail) * found.f_frsize
        for state, amount in (("used", used), ("free", free), ("reserved", reserved)):
            points.add("system.filesystem.usage", amount, **where, state=state)
        points.add("system.filesystem.utilization", used / (used + free) if used + free else 0.0, **where)
        points.add("system.filesystem.inodes.usage", found.f_files - found.f_ffree, **where, state="used")
        points.add("system.filesystem.inodes.usage", found.f_ffree, **where, state="free")


def network(machine: Machine, points: Points, config: ScraperConfig) -> None:
    """Network I/O and connections."""
    assert isinstance(config, NetworkConfig)
    with machine.psutil():
        interfaces = psutil.net_io_counters(pernic=True, nowrap=False)
    for device, counters in interfaces.items():
        if not _wanted(device, config.include, config.exclude):
            continue
        for direction, io, packets, errors, dropped in (
            ("transmit", counters.bytes_sent, counters.packets_sent, counters.errout, counters.dropout),
            ("receive", counters.bytes_recv, counters.packets_recv, counters.errin, counters.dropin),
        ):
            points.add("system.network.io", io, device=device, direction=direction)
            points.add("system.network.packets", packets, device=device, direction=direction)
            points.add("system.network.errors", errors, device=device, direction=direction)
            points.add("system.network.dropped", dropped, device=device, direction=direction)
    if points.wants("system.network.connections"):
        try:
            with machine.psutil():
                connections = psutil.net_connections("inet")
        except (psutil.Error, OSError) as error:
            points.failed(f"connections: {error}")
            connections = None
        if connections is not None:
            counts = Counter(each.status for each in connections if each.type == socket.SOCK_STREAM)
            for status, state in _TCP_STATES.items():
                points.add("system.network.connections", counts[status], protocol="tcp", state=state)
    for name in ("count", "max"):
        words = next(iter(machine.proc(f"sys/net/netfilter/nf_conntrack_{name}")), [])
        if words and words[0].isdecimal():
            points.add(f"system.network.conntrack.{name}", int(words[0]))


def paging(machine: Machine, points: Points, config: ScraperConfig) -> None:
    """Paging and swap."""
    del config
    pages = machine.numbers("vmstat")
    major = pages.get("pgmajfault", 0)
    points.add("system.paging.faults", major, type="major")
    points.add("system.paging.faults", max(0, pages.get("pgfault", 0) - major), type="minor")
    for direction, swap, page in (("page_in", "pswpin", "pgpgin"), ("page_out", "pswpout", "pgpgout")):
        points.add("system.paging.operations", pages.get(swap, 0), direction=direction, type="major")
        points.add("system.paging.operations", pages.get(page, 0), direction=direction, type="minor")
    for words in machine.proc("swaps")[1:]:
        if len(words) >= 4 and words[2].isdecimal() and words[3].isdecimal():
            size, used = int(words[2]), int(words[3])
            for state, amount in (("used", used), ("free", size - used)):
                points.add("system.paging.usage", amount * _KIB, device=words[0], state=state)
                points.add("system.paging.utilization", amount / size if size else 0.0, device=words[0], state=state)


def processes(machine: Machine, points: Points, config: ScraperConfig) -> None:
    """Counts of processes."""
    del config
    if points.wants("system.processes.count"):
        counts: Counter[str] = Counter()
        with machine.psutil():
            for process in psutil.process_iter(["status"]):
                counts[_PROCESS_STATES.get(process.info["status"], "unknown")] += 1
        for status in sorted({*counts, "running", "sleeping", "blocked", "zombies"}):
            points.add("system.processes.count", counts[status], status=status)
    created = machine.numbers("stat").get("processes")
    if created is not None:
        points.add("system.processes.created", created)


def system(machine: Machine, points: Points, config: ScraperConfig) -> None:
    """Uptime."""
    del config
    words = next(iter(machine.proc("uptime")), [])
    if words:
        points.add("system.uptime", float(words[0]))


SCRAPERS: Final = {
    "cpu": cpu,
    "memory": memory,
    "load": load,
    "disk": disk,
    "filesystem": filesystem,
    "network": network,
    "paging": paging,
    "processes": processes,
    "system": system,
}


def _wanted(name: str, include: _NameMatch, exclude: _NameMatch) -> bool:
    included, excluded = include.matcher(), exclude.matcher()
    return (included is None or included(name)) and not (excluded is not None and excluded(name))
