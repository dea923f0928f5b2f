"""Samples of this machine's GPUs, for the receiver ``gpu`` and the processor ``gpu``.

``config``     the configuration keys that both share
``sampler``    one sampling thread per process and backend; ``acquire`` and ``release``
``ring``       the recent samples of a device, and their aggregates over many time windows at once
``backend``    the interface of a source of samples; ``nvml``, ``simulated`` and ``replay`` implement it
``processes``  the container and pod of a process that uses a GPU
``telemetry``  the sampler's own metrics

The rules they follow are numbered in docs/reference/gpu.md.
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
