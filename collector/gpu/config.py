"""The keys that receiver and processor share: where samples come from, how often, and how long they are kept."""

from typing import Literal, Self

from pydantic import Field, model_validator

from config import ByteSize, ComponentConfig, Duration

__all__ = ["GpuSourceConfig", "LoadConfig", "ReplayConfig", "SimulatedConfig"]


class LoadConfig(ComponentConfig):
    """How busy a simulated GPU is over time."""

    shape: Literal["constant", "sine", "square"] = "sine"
    """Shape of the curve: constant, a sine wave, or a square wave."""
    mean: float = Field(default=0.55, ge=0, le=1)
    """Mean utilization, from 0 to 1."""
    amplitude: float = Field(default=0.35, ge=0, le=1)
    """How far the utilization deviates from the mean, from 0 to 1."""
    period: Duration = Field(default=60.0, ge=0.001)
    """Duration of one cycle of the curve."""

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        # Clipping would make the energy counter disagree with the power it integrates.
        if self.shape != "constant" and not (self.mean - self.amplitude >= 0 and self.mean + self.amplitude <= 1):
            raise ValueError(f"mean ± amplitude must stay between 0 and 1, but {self.mean} ± {self.amplitude} does not")
        return self


class SimulatedConfig(ComponentConfig):
    """Simulated devices, for demonstrations and tests."""

    gpus: int = Field(default=1, ge=1, le=64)
    """Number of simulated GPUs, from 1 to 64."""
    host_name: str = ""
    """If set, the devices belong only to the host with this ``host.name``."""
    seed: int = Field(default=0, ge=0, le=2**31 - 1)
    """Seed of the simulation; the same seed produces the same devices and load."""
    model: str = "Simulated GPU"
    """Model name of the devices."""
    memory: ByteSize = Field(default=80 * 1024**3, gt=0)
    """Memory size of each device."""
    load: LoadConfig = LoadConfig()
    """How busy the devices are over time."""


class ReplayConfig(ComponentConfig):
    """A recording to replay."""

    file: str = ""
    """Path of the recording; required with ``backend: replay``."""
    loop: bool = True
    """Whether to start over at the end of the recording; counters keep rising."""


class GpuSourceConfig(ComponentConfig):
    """Where GPU samples come from. Components with the same ``backend`` and settings for it share one sampler."""

    backend: Literal["auto", "nvml", "replay", "simulated"] = "auto"
    """Source of the samples. ``auto`` uses NVML if it is available; simulated and replayed devices must be named
    explicitly.
    """
    sample_interval: Duration = Field(default=0.1, ge=0.01, le=60)
    """Time between two samples. The shortest interval that any component requests applies."""
    ring: Duration = Field(default=600.0, gt=0, le=86400)
    """How long samples are kept. The longest time that any component requests applies."""
    reprobe_interval: Duration = Field(default=60.0, ge=1, le=86400)
    """Time between two attempts to find a driver, or to reopen it for a lost GPU."""
    simulated: SimulatedConfig = SimulatedConfig()
    """The simulated devices, for ``backend: simulated``."""
    replay: ReplayConfig = ReplayConfig()
    """The recording, for ``backend: replay``."""

    @model_validator(mode="after")
    def _sourced(self) -> Self:
        if self.backend == "replay" and not self.replay.file:
            raise ValueError("backend: replay needs replay::file, the path of the recording to play")
        if self.ring < 10 * self.sample_interval:
            raise ValueError("ring is too short: it must be at least ten times sample_interval")
        if self.ring / self.sample_interval > 1_000_000:
            raise ValueError("ring holds too many samples: ring / sample_interval must not exceed 1 000 000")
        return self
