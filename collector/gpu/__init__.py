"""Samples of this machine's GPUs, for the receiver ``gpu`` and the processor ``gpu``.

``config``     the configuration keys that both share
``sampler``    one sampling thread per backend, shared through ``SAMPLERS``
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
from collector.gpu.sampler import SAMPLERS, GpuSampler, SamplerPool, Snapshot, make_backend

__all__ = [
    "SAMPLERS",
    "THROTTLE_REASONS",
    "Backend",
    "BackendUnavailableError",
    "Device",
    "GpuSampler",
    "GpuSourceConfig",
    "LayoutChangedError",
    "LoadConfig",
    "Process",
    "Reading",
    "Recorder",
    "ReplayConfig",
    "Ring",
    "RingView",
    "SamplerPool",
    "SimulatedConfig",
    "Snapshot",
    "Windows",
    "make_backend",
    "record",
]
