"""The keys that the GPU receiver and the GPU processor share: where samples come from, how often, how long they are kept."""

from typing import Literal, Self

from pydantic import Field, model_validator

from config import ByteSize, ComponentConfig, Duration

__all__ = ["GpuSourceConfig", "LoadConfig", "ReplayConfig", "SimulatedConfig"]


class LoadConfig(ComponentConfig):
    """How busy a simulated GPU is over time."""

    shape: Literal["constant", "sine", "square"] = "sine"
    mean: float = Field(default=0.55, ge=0, le=1)
    amplitude: float = Field(default=0.35, ge=0, le=1)
    period: Duration = Field(default=60.0, ge=0.001)

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        # Clipping would make the energy counter disagree with the power it integrates.
        if self.shape != "constant" and not (self.mean - self.amplitude >= 0 and self.mean + self.amplitude <= 1):
            raise ValueError(f"mean ± amplitude must stay within 0 and 1: {self.mean} ± {self.amplitude} does not")
        return self


class SimulatedConfig(ComponentConfig):
    """Invented devices, for demonstrations and tests."""

    gpus: int = Field(default=1, ge=1, le=64)
    host_name: str = ""
    """Set: the devices belong to the host of that ``host.name`` alone."""
    seed: int = Field(default=0, ge=0, le=2**31 - 1)
    model: str = "Simulated GPU"
    memory: ByteSize = Field(default=80 * 1024**3, gt=0)
    load: LoadConfig = LoadConfig()


class ReplayConfig(ComponentConfig):
    """A recording to play."""

    file: str = ""
    loop: bool = True


class GpuSourceConfig(ComponentConfig):
    """One sampler thread a process serves all components whose ``backend`` (and its own block) is the same."""

    backend: Literal["auto", "nvml", "replay", "simulated"] = "auto"
    """auto: NVML or nothing. Simulated and replayed devices exist only where they are written."""
    sample_interval: Duration = Field(default=0.1, ge=0.01, le=60)
    ring: Duration = Field(default=600.0, gt=0, le=86400)
    reprobe_interval: Duration = Field(default=60.0, ge=1, le=86400)
    simulated: SimulatedConfig = SimulatedConfig()
    replay: ReplayConfig = ReplayConfig()

    @model_validator(mode="after")
    def _sourced(self) -> Self:
        if self.backend == "replay" and not self.replay.file:
            raise ValueError("backend: replay needs replay::file, the recording to play")
        if self.ring < 10 * self.sample_interval:
            raise ValueError("ring must be at least ten times sample_interval")
        if self.ring / self.sample_interval > 1_000_000:
            raise ValueError("ring / sample_interval must not exceed 1 000 000 samples")
        return self
