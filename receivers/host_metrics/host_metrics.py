"""Collects metrics of the machine every ``collection_interval``. Source: the Collector's hostmetricsreceiver."""

import asyncio
from contextlib import suppress
from typing import Any, Final

import psutil

from collector.api import ConsumeError, Host, PeriodicTask, Receiver, Settings
from collector.model import MetricsBuilder, Signal
from receivers.host_metrics.config import HostMetricsConfig, ProcessConfig
from receivers.host_metrics.metrics import Points
from receivers.host_metrics.scrapers import SCRAPERS, Machine

__all__ = ["HostMetricsReceiver"]

_PROCESSES_AT_A_TIME: Final = 20
_NS_PER_S: Final = 1_000_000_000
_PROCESS_INFO: Final = ("pid", "name", "exe", "cmdline", "username", "ppid", "create_time")


class HostMetricsReceiver(Receiver):
    """Hands on one batch per collection."""

    def __init__(self, settings: Settings, config: HostMetricsConfig) -> None:
        self._settings, self._config = settings, config
        self._log = settings.telemetry.log
        self._machine = Machine(config.root_path)
        self._scrapers = config.scrapers.configured()
        self._enabled = {name: scraper.enabled(name) for name, scraper in self._scrapers.items()}
        self._failing: set[str] = set()
        """Scrapers whose failure has been logged."""
        self._first = PeriodicTask(self._begin, config.initial_delay, settings.clock, log=self._log)
        self._repeating = PeriodicTask(self._collect, config.collection_interval, settings.clock, log=self._log)

    async def start(self, host: Host) -> None:  # noqa: ARG002 - needs nothing of it
        """Begin to collect."""
        self._first.start()

    async def shutdown(self) -> None:
        """End that."""
        await self._first.stop()
        await self._repeating.stop()

    async def _begin(self) -> None:
        self._repeating.start()
        await self._first.stop()
        await self._collect()

    async def _collect(self) -> None:
        try:
            async with asyncio.timeout(self._config.timeout or None):
                batch = await self._scrape()
        except TimeoutError:
            self._log.warning("the collection took longer than the timeout; its metrics are left out")
            return
        if not batch.item_count:
            return
        # The next collection has newer values; the service has counted the refusal.
        with suppress(ConsumeError):
            await self._settings.outputs[Signal.METRICS].consume(batch)

    async def _scrape(self) -> Any:
        builder, now = MetricsBuilder(), self._settings.clock.time_unix_nano()
        boot_time = self._boot_time_unix_nano()
        for name, scraper in self._scrapers.items():
            if name == "process":
                await self._scrape_processes(builder, now)
                continue
            points = Points(name, self._enabled[name])
            try:
                with self._machine.psutil():
                    SCRAPERS[name](self._machine, points, scraper)
            except Exception as error:  # noqa: BLE001 - one scraper's failure must not cost the others' metrics
                self._report(name, error)
            else:
                self._failing.discard(name)
            points.write(builder, self._settings.version, now, boot_time)
            await asyncio.sleep(0)
        return builder.build()

    async def _scrape_processes(self, builder: MetricsBuilder, now: int) -> None:
        config = self._config.scrapers.process
        assert config is not None
        with self._machine.psutil():
            pids = psutil.pids()
        for first in range(0, len(pids), _PROCESSES_AT_A_TIME):
            with self._machine.psutil():
                for pid in pids[first : first + _PROCESSES_AT_A_TIME]:
                    # It may have ended, or belong to somebody else.
                    with suppress(psutil.Error, OSError):
                        self._scrape_process(builder, now, pid, config)
            await asyncio.sleep(0)

    def _scrape_process(self, builder: MetricsBuilder, now: int, pid: int, config: ProcessConfig) -> None:
        process = psutil.Process(pid)
        with process.oneshot():
            info = process.as_dict(_PROCESS_INFO)
            name = info["name"] or ""
            included, excluded = config.include.matcher(), config.exclude.matcher()
            age_s = now / _NS_PER_S - info["create_time"]
            if (
                (included is not None and not included(name))
                or (excluded is not None and excluded(name))
                or (config.scrape_process_delay and age_s < config.scrape_process_delay)
            ):
                return
            points = Points("process", self._enabled["process"])
            times = process.cpu_times()
            for state, seconds in (("user", times.user), ("system", times.system), ("wait", times.iowait)):
                points.add("process.cpu.time", seconds, state=state)
            memory = process.memory_info()
            points.add("process.memory.usage", memory.rss)
            points.add("process.memory.virtual", memory.vms)
            points.add("process.uptime", age_s)
            if points.wants("process.memory.utilization"):
                points.add("process.memory.utilization", process.memory_percent())
            if points.wants("process.threads"):
                points.add("process.threads", process.num_threads())
            if points.wants("process.context_switches"):
                switches = process.num_ctx_switches()
                points.add("process.context_switches", switches.voluntary, type="voluntary")
                points.add("process.context_switches", switches.involuntary, type="involuntary")
            with suppress(psutil.Error, OSError):  # only its owner may see these
                if points.wants("process.open_file_descriptors"):
                    points.add("process.open_file_descriptors", process.num_fds())
                if points.wants("process.disk.io", "process.disk.operations"):
                    counters = process.io_counters()
                    points.add("process.disk.io", counters.read_bytes, direction="read")
                    points.add("process.disk.io", counters.write_bytes, direction="write")
                    points.add("process.disk.operations", counters.read_count, direction="read")
                    points.add("process.disk.operations", counters.write_count, direction="write")
        command = info["cmdline"] or []
        resource = {
            "process.pid": pid,
            "process.parent_pid": info["ppid"],
            "process.executable.name": name,
            "process.executable.path": info["exe"] or None,
            "process.command": command[0] if command else None,
            "process.command_line": " ".join(command) or None,
            "process.owner": info["username"],
        }
        started = int(info["create_time"] * _NS_PER_S)
        known = {key: value for key, value in resource.items() if value is not None}
        points.write(builder, self._settings.version, now, started, known)

    def _boot_time_unix_nano(self) -> int:
        return self._machine.numbers("stat").get("btime", 0) * _NS_PER_S

    def _report(self, scraper: str, error: Exception) -> None:
        """Log a failure once, until the scraper has succeeded again."""
        if scraper not in self._failing:
            self._failing.add(scraper)
            self._log.warning("a scraper failed; its metrics are left out", scraper=scraper, error=str(error))
