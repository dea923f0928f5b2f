"""One collection of all scrapers. It blocks, so it runs in a thread.

A scraper or a process that cannot be read does not cost the others' metrics: it is counted and named.
"""

from collections import Counter
from typing import Any, Final

import psutil

from collector.api import Settings
from collector.model import MetricsBuilder
from receivers.host_metrics.config import HostMetricsConfig, ProcessConfig
from receivers.host_metrics.metrics import Points
from receivers.host_metrics.scrapers import SCRAPERS, Machine

__all__ = ["Collection"]

_NS_PER_S: Final = 1_000_000_000
_CGROUP_MAX_BYTES: Final = 4096
_PROCESS_INFO: Final = ("pid", "name", "exe", "cmdline", "username", "ppid", "create_time")


class Collection:
    """The batch of one collection, and what could not be read."""

    def __init__(self, settings: Settings, config: HostMetricsConfig, machine: Machine) -> None:
        self._config, self._machine = config, machine
        self._version, self._now = settings.version, settings.clock.time_unix_nano()
        self._builder = MetricsBuilder()
        self.error_counts: Counter[str] = Counter()
        """Scraper → metrics, processes or file systems that could not be read."""
        self.first_errors: dict[str, str] = {}
        """Scraper → what could not be read first, and why."""

    def run(self) -> Any:
        """Read everything and return the batch."""
        boot_time = self._machine.numbers("stat").get("btime", 0) * _NS_PER_S
        for name, scraper in self._config.scrapers.configured().items():
            enabled = scraper.enabled(name)
            if name == "process":
                self._scrape_processes(enabled)
                continue
            points = Points(name, enabled)
            try:
                SCRAPERS[name](self._machine, points, scraper)
            except Exception as error:  # noqa: BLE001 - one scraper's failure must not cost the others' metrics
                self._failed(name, str(error), len(enabled - points.names()))
            for message in points.errors:
                self._failed(name, message)
            points.write(self._builder, self._version, self._now, boot_time)
        return self._builder.build()

    def _failed(self, scraper: str, message: str, count: int = 1) -> None:
        self.error_counts[scraper] += count
        self.first_errors.setdefault(scraper, message)

    def _scrape_processes(self, enabled: frozenset[str]) -> None:
        config = self._config.scrapers.process
        assert config is not None
        try:
            with self._machine.psutil():
                pids = psutil.pids()
        except OSError as error:
            self._failed("process", str(error))
            return
        for pid in pids:
            try:
                with self._machine.psutil():
                    self._scrape_process(pid, config, enabled)
            except psutil.NoSuchProcess:  # it has ended meanwhile
                continue
            except (psutil.Error, OSError) as error:
                if not config.mute_process_all_errors:
                    self._failed("process", f"process {pid}: {error}")

    def _scrape_process(self, pid: int, config: ProcessConfig, enabled: frozenset[str]) -> None:
        process = psutil.Process(pid)
        points = Points("process", enabled)
        with process.oneshot():
            info = process.as_dict(_PROCESS_INFO)
            name = info["name"] or ""
            is_muted = config.mute_process_all_errors
            if not name:
                if not (config.mute_process_name_error or is_muted):
                    self._failed("process", f"process {pid}: its name may not be read")
                return
            included, excluded = config.include.matcher(), config.exclude.matcher()
            age_s = self._now / _NS_PER_S - info["create_time"]
            if (
                (included is not None and not included(name))
                or (excluded is not None and excluded(name))
                or (config.scrape_process_delay and age_s < config.scrape_process_delay)
            ):
                return
            if info["exe"] is None and not (config.mute_process_exe_error or is_muted):
                self._failed("process", f"process {pid}: the path of the executable may not be read")
            if info["username"] is None and not (config.mute_process_user_error or is_muted):
                self._failed("process", f"process {pid}: the name of its owner may not be read")
            cgroup = self._cgroup(pid, config) if config.has_attribute("process.cgroup") else None
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
            self._add_what_the_owner_may_see(process, points, config)
        command = info["cmdline"] or []
        resource = {
            "process.pid": pid,
            "process.parent_pid": info["ppid"],
            "process.executable.name": name,
            "process.executable.path": info["exe"] or None,
            "process.command": command[0] if command else None,
            "process.command_line": " ".join(command) or None,
            "process.owner": info["username"],
            "process.cgroup": cgroup,
        }
        started = int(info["create_time"] * _NS_PER_S)
        known = {key: value for key, value in resource.items() if value is not None and config.has_attribute(key)}
        points.write(self._builder, self._version, self._now, started, known)

    def _cgroup(self, pid: int, config: ProcessConfig) -> str | None:
        """The control groups of a process, as the kernel writes them; None if they may not be read."""
        try:
            with (self._machine.root / "proc" / str(pid) / "cgroup").open("rb") as file:
                return file.read(_CGROUP_MAX_BYTES).decode("utf-8", "replace").rstrip("\n") or None
        except FileNotFoundError:  # it has ended, or the kernel has no control groups
            return None
        except OSError as error:
            if not (config.mute_process_cgroup_error or config.mute_process_all_errors):
                self._failed("process", f"process {pid}: its control group: {error.strerror}")
            return None

    def _add_what_the_owner_may_see(self, process: psutil.Process, points: Points, config: ProcessConfig) -> None:
        """Metrics that only the owner of the process and root may read."""
        try:
            if points.wants("process.open_file_descriptors"):
                points.add("process.open_file_descriptors", process.num_fds())
            if points.wants("process.disk.io", "process.disk.operations"):
                counters = process.io_counters()
                points.add("process.disk.io", counters.read_bytes, direction="read")
                points.add("process.disk.io", counters.write_bytes, direction="write")
                points.add("process.disk.operations", counters.read_count, direction="read")
                points.add("process.disk.operations", counters.write_count, direction="write")
        except psutil.NoSuchProcess:
            return
        except (psutil.Error, OSError) as error:
            if not (config.mute_process_io_error or config.mute_process_all_errors):
                self._failed("process", f"process {process.pid}: {error}")
