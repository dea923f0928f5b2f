"""Samples of this machine's GPUs, for the ``gpu`` receiver and the ``gpu`` processor.

``config``     the keys both share
``sampler``    one thread a process for each backend; ``acquire`` and ``release``
``ring``       the recent past of a device, and questions about many time windows of it at once
``backend``    what a source of samples is; ``nvml``, ``simulated`` and ``replay`` are the three
``processes``  which container and pod a process on a GPU belongs to
"""

from collector.gpu.backend import (
    THROTTLE_REASONS,
    Backend,
    BackendUnavailableError,
    Device,
    LayoutChangedError,
    Process,
    Reading,
)
from collector.gpu.config import GpuSourceConfig, LoadConfig, ReplayConfig, SimulatedConfig
from collector.gpu.replay import Recorder, record
from collector.gpu.ring import Ring, RingView, Windows
from collector.gpu.sampler import Sampler, Snapshot, acquire, make_backend, release

__all__ = [
    "THROTTLE_REASONS",
    "Backend",
    "BackendUnavailableError",
    "Device",
    "GpuSourceConfig",
    "LayoutChangedError",
    "LoadConfig",
    "Process",
    "Reading",
    "Recorder",
    "ReplayConfig",
    "Ring",
    "RingView",
    "Sampler",
    "SimulatedConfig",
    "Snapshot",
    "Windows",
    "acquire",
    "make_backend",
    "record",
    "release",
]
