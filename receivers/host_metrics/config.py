"""Configuration of ``host_metrics``: the Collector's keys and defaults.

Source: opentelemetry-collector-contrib receiver/hostmetricsreceiver config.go and those of its scrapers.
"""

from collections.abc import Callable, Sequence
from typing import Any, Final, Literal, Self

from pydantic import Field, field_validator, model_validator

from collector.text.patterns import compile_pattern
from config.blocks import ComponentConfig, Duration
from receivers.host_metrics.metrics import METRICS

__all__ = ["HostMetricsConfig", "ScraperConfig", "ScrapersConfig"]

PROCESS_ATTRIBUTES: Final = {
    "process.cgroup": False,
    "process.command": True,
    "process.command_line": True,
    "process.executable.name": True,
    "process.executable.path": True,
    "process.owner": True,
    "process.parent_pid": True,
    "process.pid": True,
}
"""The attributes of a process, and whether its resource has them by default."""


class MetricSwitch(ComponentConfig):
    """Whether a metric is collected."""

    enabled: bool = True
    """Whether it is collected."""


class ScraperConfig(ComponentConfig):
    """The settings of a scraper."""

    metrics: dict[str, MetricSwitch] = Field(default_factory=dict)
    """Which metrics are collected, where that differs from the default: ``system.cpu.utilization: {enabled: true}``."""

    def enabled(self, scraper: str) -> frozenset[str]:
        """The metrics that are collected."""
        return frozenset(
            name
            for name, metric in METRICS[scraper].items()
            if (self.metrics[name].enabled if name in self.metrics else metric.is_default)
        )


class _NameMatch(ComponentConfig):
    """Names that match."""

    match_type: Literal["", "strict", "regexp"] = ""
    """Whether the texts are names (strict) or regular expressions (regexp). Required if there are any."""

    def texts(self) -> Sequence[str]:
        """The names or patterns."""
        raise NotImplementedError

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.texts() and not self.match_type:
            raise ValueError("match_type is required; write strict or regexp")
        for pattern in self.texts() if self.match_type == "regexp" else ():
            compile_pattern(pattern)
        return self

    def matcher(self) -> Callable[[str], bool] | None:
        """Whether a name matches; None if nothing is given."""
        texts = self.texts()
        if not texts:
            return None
        if self.match_type == "strict":
            names = frozenset(texts)
            return lambda name: name in names
        patterns: list[Any] = [compile_pattern(text) for text in texts]
        return lambda name: any(pattern.search(name) for pattern in patterns)


class DeviceMatch(_NameMatch):
    """Devices."""

    devices: tuple[str, ...] = ()
    """Names of devices."""

    def texts(self) -> Sequence[str]:
        """The names or patterns."""
        return self.devices


class InterfaceMatch(_NameMatch):
    """Network interfaces."""

    interfaces: tuple[str, ...] = ()
    """Names of network interfaces."""

    def texts(self) -> Sequence[str]:
        """The names or patterns."""
        return self.interfaces


class FSTypeMatch(_NameMatch):
    """Types of file systems."""

    fs_types: tuple[str, ...] = ()
    """Types of file systems."""

    def texts(self) -> Sequence[str]:
        """The names or patterns."""
        return self.fs_types


class MountPointMatch(_NameMatch):
    """Mount points."""

    mount_points: tuple[str, ...] = ()
    """Paths where file systems are mounted."""

    def texts(self) -> Sequence[str]:
        """The names or patterns."""
        return self.mount_points


class ProcessMatch(_NameMatch):
    """Processes."""

    names: tuple[str, ...] = ()
    """Names of executables."""

    def texts(self) -> Sequence[str]:
        """The names or patterns."""
        return self.names


class LoadConfig(ScraperConfig):
    """The settings of the scraper load."""

    cpu_average: bool = False
    """Whether the load is divided by the number of logical CPUs."""


class DiskConfig(ScraperConfig):
    """The settings of the scraper disk."""

    include: DeviceMatch = DeviceMatch()
    """The devices to report. Empty: all."""
    exclude: DeviceMatch = DeviceMatch()
    """Of those, the devices that are not reported."""


class NetworkConfig(ScraperConfig):
    """The settings of the scraper network."""

    include: InterfaceMatch = InterfaceMatch()
    """The interfaces to report. Empty: all."""
    exclude: InterfaceMatch = InterfaceMatch()
    """Of those, the interfaces that are not reported."""


class FilesystemConfig(ScraperConfig):
    """The settings of the scraper filesystem."""

    include_virtual_filesystems: bool = False
    """Whether file systems without a device, such as tmpfs, are reported."""
    include_devices: DeviceMatch = DeviceMatch()
    """The devices to report. Empty: all."""
    exclude_devices: DeviceMatch = DeviceMatch()
    """Devices that are not reported."""
    include_fs_types: FSTypeMatch = FSTypeMatch()
    """The types to report. Empty: all."""
    exclude_fs_types: FSTypeMatch = FSTypeMatch()
    """Types that are not reported."""
    include_mount_points: MountPointMatch = MountPointMatch()
    """The mount points to report. Empty: all."""
    exclude_mount_points: MountPointMatch = MountPointMatch()
    """Mount points that are not reported."""


class ProcessConfig(ScraperConfig):
    """The settings of the scraper process."""

    include: ProcessMatch = ProcessMatch()
    """The processes to report. Empty: all."""
    exclude: ProcessMatch = ProcessMatch()
    """Of those, the processes that are not reported."""
    mute_process_all_errors: bool = False
    """Whether nothing that cannot be read of a process is counted and logged."""
    mute_process_name_error: bool = False
    """The same for the name of its executable. A process without a name is not reported."""
    mute_process_io_error: bool = False
    """The same for its disk I/O and open files."""
    mute_process_exe_error: bool = False
    """The same for the path of its executable."""
    mute_process_user_error: bool = False
    """The same for the name of its owner."""
    mute_process_cgroup_error: bool = False
    """The same for its control group, if ``process.cgroup`` is enabled."""
    resource_attributes: dict[str, MetricSwitch] = Field(default_factory=dict)
    """Which attributes the resource of a process has, where that differs from the default:
    ``process.cgroup: {enabled: true}``.
    """
    scrape_process_delay: Duration = Field(default=0.0, ge=0)
    """How old a process must be to be reported."""

    @field_validator("resource_attributes")
    @classmethod
    def _exist(cls, switches: dict[str, MetricSwitch]) -> dict[str, MetricSwitch]:
        for name in switches:
            if name not in PROCESS_ATTRIBUTES:
                raise ValueError(f"{name!r} is not an attribute; expected some of {', '.join(PROCESS_ATTRIBUTES)}")
        return switches

    def has_attribute(self, name: str) -> bool:
        """Whether the resource of a process has this attribute."""
        switch = self.resource_attributes.get(name)
        return PROCESS_ATTRIBUTES[name] if switch is None else switch.enabled


class ScrapersConfig(ComponentConfig):
    """The scrapers; one that is not written does not run."""

    cpu: ScraperConfig | None = None
    """CPU time by state."""
    memory: ScraperConfig | None = None
    """Memory by state."""
    load: LoadConfig | None = None
    """Load averages."""
    disk: DiskConfig | None = None
    """Disk I/O."""
    filesystem: FilesystemConfig | None = None
    """Usage of file systems."""
    network: NetworkConfig | None = None
    """Network I/O and connections."""
    paging: ScraperConfig | None = None
    """Paging and swap."""
    processes: ScraperConfig | None = None
    """Counts of processes."""
    process: ProcessConfig | None = None
    """Each process: CPU, memory and disk I/O."""
    system: ScraperConfig | None = None
    """Uptime."""

    def configured(self) -> dict[str, ScraperConfig]:
        """The scrapers that run, by name."""
        scrapers = {
            "cpu": self.cpu,
            "memory": self.memory,
            "load": self.load,
            "disk": self.disk,
            "filesystem": self.filesystem,
            "network": self.network,
            "paging": self.paging,
            "processes": self.processes,
            "process": self.process,
            "system": self.system,
        }
        return {name: scraper for name, scraper in scrapers.items() if scraper is not None}


class HostMetricsConfig(ComponentConfig):
    """Configuration of ``host_metrics``."""

    collection_interval: Duration = Field(default=60.0, gt=0)
    """How often metrics are collected."""
    initial_delay: Duration = Field(default=1.0, ge=0)
    """When they are collected for the first time."""
    timeout: Duration = Field(default=0.0, ge=0)
    """Longest time of one collection. 0: no limit."""
    root_path: str = ""
    """Where the root of the host's file system is mounted in this container, for example /hostfs."""
    metadata_collection_interval: Duration = Field(default=300.0, gt=0)
    """Accepted for compatibility with the Collector; has no effect, since entities are not reported."""
    scrapers: ScrapersConfig
    """What is collected."""

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        configured = self.scrapers.configured()
        if not configured:
            raise ValueError("scrapers: at least one scraper is required, for example cpu")
        for name, scraper in configured.items():
            for metric in scraper.metrics:
                if metric not in METRICS[name]:
                    known = ", ".join(METRICS[name])
                    raise ValueError(f"scrapers::{name}::metrics: {metric!r} is not known; expected some of {known}")
        return self
