"""Simulated GPUs: every reading is a function of the seed, the device and the time, so two runs agree.

Power follows utilisation in a straight line and energy is its exact integral, so means, sums and counters fit together.
"""

import math
import uuid
from collections.abc import Sequence
from typing import Final

from collector.gpu.backend import THROTTLE_REASONS, Device, Reading
from collector.gpu.config import LoadConfig, SimulatedConfig

__all__ = ["SimulatedBackend"]

# Power and temperature of a data-centre card, idle and busy: plausible, but not those of any particular model.
_IDLE_W: Final = 70.0
_BUSY_W: Final = 400.0
_IDLE_C: Final = 32.0
_BUSY_C: Final = 78.0
_IDLE_MEMORY: Final = 0.15
_BUSY_MEMORY: Final = 0.85
_PCIE_BYTES_PER_BUSY_SECOND: Final = 2e9
# Energy is counted from 2025-01-01, so that it is small enough for a float to keep microjoules.
_EPOCH_UNIX_NANO: Final = 1_735_689_600_000_000_000
_NAMESPACE: Final = uuid.UUID("6d1c8a5e-53f6-5b0a-9f0e-7a1b1e0c5d42")


class SimulatedBackend:
    """``gpus`` devices whose load follows ``load``, each with another phase."""

    source = "simulated"

    def __init__(self, config: SimulatedConfig) -> None:
        self._config = config

    def open(self, now_unix_nano: int) -> Sequence[Device]:  # noqa: ARG002 - Backend's signature
        """The devices, which are always available."""
        config = self._config
        return [
            Device(
                id=f"GPU-{uuid.uuid5(_NAMESPACE, f'{config.host_name}/{config.seed}/{index}')}",
                index=str(index),
                model=config.model,
                memory_limit_bytes=float(config.memory),
                serial=f"SIM{config.seed:08d}{index:02d}",
                driver_version="simulated",
            )
            for index in range(config.gpus)
        ]

    def read(self, now_unix_nano: int) -> Sequence[Reading]:
        """The readings at this time, one per device."""
        return [self._reading((now_unix_nano - _EPOCH_UNIX_NANO) * 1e-9, index) for index in range(self._config.gpus)]

    def close(self) -> None:
        """Does nothing; there is no driver."""

    def _reading(self, seconds: float, index: int) -> Reading:
        # Golden-ratio steps spread the devices (and seeds) evenly over the period.
        phase = (0.618033988749895 * index + 0.7548776662466927 * self._config.seed) % 1.0
        load, busy_s = _load(self._config.load, seconds, phase)
        return Reading(
            utilization=load,
            memory_used_bytes=math.floor(self._config.memory * (_IDLE_MEMORY + (_BUSY_MEMORY - _IDLE_MEMORY) * load)),
            power_w=_IDLE_W + (_BUSY_W - _IDLE_W) * load,
            energy_j=_IDLE_W * seconds + (_BUSY_W - _IDLE_W) * busy_s,
            temperature_c=_IDLE_C + (_BUSY_C - _IDLE_C) * load,
            throttle_s=(0.0,) * len(THROTTLE_REASONS),
            encoder_utilization=0.0,
            decoder_utilization=0.0,
            pcie_transmit_bytes=0.25 * _PCIE_BYTES_PER_BUSY_SECOND * busy_s,
            pcie_receive_bytes=0.75 * _PCIE_BYTES_PER_BUSY_SECOND * busy_s,
            errors_corrected=0.0,
            errors_uncorrected=0.0,
        )


def _load(load: LoadConfig, seconds: float, phase: float) -> tuple[float, float]:
    """The utilisation at a time, and its integral in seconds up to that time."""
    mean, amplitude, period = load.mean, load.amplitude, load.period
    if load.shape == "constant":
        return mean, mean * seconds
    turns = seconds / period + phase
    within = turns % 1.0
    if load.shape == "sine":
        angle = 2 * math.pi * within
        return mean + amplitude * math.sin(angle), mean * seconds + amplitude * period / (2 * math.pi) * (
            1 - math.cos(angle)
        )
    high_share = min(within, 1.0 - within)  # the integral of the square is a triangle
    return mean + (amplitude if within < 0.5 else -amplitude), mean * seconds + amplitude * period * high_share
