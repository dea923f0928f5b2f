"""What a source of GPU samples is: the devices of a machine and, at each call, one reading of each.

Not the sampling itself (``sampler``), nor the history (``ring``). A quantity a device does not report is NaN, never 0.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import nan
from typing import Final, Protocol

__all__ = [
    "THROTTLE_REASONS",
    "Backend",
    "BackendUnavailableError",
    "Device",
    "LayoutChangedError",
    "Process",
    "Reading",
]

THROTTLE_REASONS: Final = ("power_cap", "thermal_policy", "sw_thermal", "hw_thermal", "hw_power_brake")
"""Why clocks were lowered, in the order of ``Reading.throttle_s``. Source: nvml.h, field ids 74, 75, 269, 270, 271."""


class BackendUnavailableError(Exception):
    """There is nothing to sample now. ``reason`` is a constant word for the metric, the message is for the log."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


class LayoutChangedError(Exception):
    """The set of devices is no longer what ``open`` returned (MIG slices created, a GPU added): call ``open`` again."""


@dataclass(frozen=True, slots=True)
class Device:
    """A GPU, or a MIG slice of one."""

    id: str
    """NVML's UUID: ``GPU-…`` or ``MIG-…``."""
    index: str
    """NVML's order, ``0``, and ``0:1`` for the second slice of the first board. Not CUDA's order."""
    model: str = ""
    memory_limit_bytes: float = nan
    parent_id: str = ""
    """The board of a MIG slice: power and energy are measured there."""
    is_partitioned: bool = False
    """A board in MIG mode: work runs on its slices, never on itself."""
    serial: str = ""
    driver_version: str = ""

    @property
    def name(self) -> str:
        """For people: ``GPU 0``, ``GPU 0 MIG 1``."""
        board, _, part = self.index.partition(":")
        return f"GPU {board} MIG {part}" if part else f"GPU {board}"


@dataclass(frozen=True, slots=True)
class Process:
    """A process with a compute context on a device, as /proc of this machine shows it."""

    pid: int
    namespace_pid: int
    """Its pid as itself sees it: the last of NSpid; equal to ``pid`` outside containers."""
    start_time_unix_nano: int
    """0: unknown."""
    container_id: str = ""
    pod_uid: str = ""


@dataclass(frozen=True, slots=True)
class Reading:
    """One device at one moment."""

    utilization: float = nan
    """0 to 1: share of the driver's own last period (1/6 to 1 s) in which a kernel was resident."""
    memory_used_bytes: float = nan
    power_w: float = nan
    energy_j: float = nan
    """Counter since the driver was loaded."""
    temperature_c: float = nan
    throttle_s: tuple[float, ...] = (nan,) * len(THROTTLE_REASONS)
    """Counters, in the order of :data:`THROTTLE_REASONS`."""
    encoder_utilization: float = nan
    decoder_utilization: float = nan
    pcie_transmit_bytes: float = nan
    """Counter; may wrap."""
    pcie_receive_bytes: float = nan
    errors_corrected: float = nan
    errors_uncorrected: float = nan
    is_lost: bool = False
    """Fell off the bus, or needs a reset: nothing above is known."""
    process_count: int | None = None
    """Processes with a compute context; None: the backend cannot tell."""
    processes: tuple[Process, ...] = ()
    """Those of them that /proc shows us."""


class Backend(Protocol):
    """A source of samples. Every method may block; they are called from one thread at a time."""

    source: str
    """``nvml``, ``simulated`` or ``replay``: what ``gpu.source`` says."""

    def open(self, now_unix_nano: int) -> Sequence[Device]:
        """Connect and list the devices; also called to list them again.

        Raises:
            BackendUnavailableError: no library, driver or device.
        """
        ...

    def read(self, now_unix_nano: int) -> Sequence[Reading]:
        """One reading a device, in the order of ``open``.

        Raises:
            LayoutChangedError: the devices are no longer those of ``open``.
            BackendUnavailableError: the driver went away.
        """
        ...

    def close(self) -> None:
        """Release the driver. Never raises."""
        ...
