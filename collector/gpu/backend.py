"""The interface of a source of GPU samples: the devices of a machine and, at each call, one reading of each.

Sampling itself is in ``sampler``, the history in ``ring``. A quantity that a device does not report is NaN, never 0.
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
"""Reasons for lowered clocks, in the order of ``Reading.throttle_s``. Source: nvml.h, field ids 74, 75, 269 to 271."""


class BackendUnavailableError(Exception):
    """There is nothing to sample now. ``reason`` is a constant word for the metric; the message is for the log."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


class LayoutChangedError(Exception):
    """The devices are no longer those that ``open`` returned (MIG slices created, a GPU added): call ``open`` again."""


@dataclass(frozen=True, slots=True)
class Device:
    """A GPU, or a MIG slice of one."""

    id: str
    """NVML's UUID: ``GPU-…`` or ``MIG-…``."""
    index: str
    """The position in NVML's order: ``0``, or ``0:1`` for the second slice of the first board. Not CUDA's order."""
    model: str = ""
    memory_limit_bytes: float = nan
    parent_id: str = ""
    """The board of a MIG slice, which is where power and energy are measured."""
    is_partitioned: bool = False
    """A board in MIG mode: work runs on its slices, never on the board itself."""
    serial: str = ""
    driver_version: str = ""

    @property
    def name(self) -> str:
        """A name for people: ``GPU 0``, ``GPU 0 MIG 1``."""
        board, _, part = self.index.partition(":")
        return f"GPU {board} MIG {part}" if part else f"GPU {board}"


@dataclass(frozen=True, slots=True)
class Process:
    """A process with a compute context on a device, as this machine's /proc shows it."""

    pid: int
    namespace_pid: int
    """The pid that the process itself sees, the last of NSpid; equal to ``pid`` outside containers."""
    start_time_unix_nano: int
    """0 if unknown."""
    container_id: str = ""
    pod_uid: str = ""


@dataclass(frozen=True, slots=True)
class Reading:
    """One device at one moment."""

    utilization: float = nan
    """0 to 1: the share of the driver's last averaging period (1/6 to 1 s) in which a kernel was resident."""
    memory_used_bytes: float = nan
    power_w: float = nan
    energy_j: float = nan
    """A counter since the driver was loaded."""
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
    """The device fell off the bus or needs a reset; nothing above is known."""
    process_count: int | None = None
    """The number of processes with a compute context; None if the backend cannot tell."""
    processes: tuple[Process, ...] = ()
    """Those of them that our /proc shows."""


class Backend(Protocol):
    """A source of samples. Every method may block; only one thread at a time calls them."""

    source: str
    """``nvml``, ``simulated`` or ``replay``: the value of the attribute ``gpu.source``."""

    def open(self, now_unix_nano: int) -> Sequence[Device]:
        """Connect and return the devices; also called to list them again.

        Raises:
            BackendUnavailableError: no library, driver or device.
        """
        ...

    def read(self, now_unix_nano: int) -> Sequence[Reading]:
        """One reading per device, in the order of ``open``.

        Raises:
            LayoutChangedError: the devices are no longer those of ``open``.
            BackendUnavailableError: the driver went away.
        """
        ...

    def close(self) -> None:
        """Release the driver. Never raises."""
        ...
