"""The keys that receiver and processor share: where samples come from, how often, and how long they are kept."""

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
            raise ValueError(f"mean ± amplitude must stay between 0 and 1, but {self.mean} ± {self.amplitude} does not")
        return self


class SimulatedConfig(ComponentConfig):
    """Simulated devices, for demonstrations and tests."""

    gpus: int = Field(default=1, ge=1, le=64)
    host_name: str = ""
    """If set, the devices belong only to the host with this ``host.name``."""
    seed: int = Field(default=0, ge=0, le=2**31 - 1)
    model: str = "Simulated GPU"
    memory: ByteSize = Field(default=80 * 1024**3, gt=0)
    load: LoadConfig = LoadConfig()


class ReplayConfig(ComponentConfig):
    """A recording to play."""

    file: str = ""
    loop: bool = True


class GpuSourceConfig(ComponentConfig):
    """One sampler per process serves all components with the same ``backend`` (and the same block for it)."""

    backend: Literal["auto", "nvml", "replay", "simulated"] = "auto"
    """``auto`` means NVML or nothing: simulated and replayed devices exist only where the configuration names them."""
    sample_interval: Duration = Field(default=0.1, ge=0.01, le=60)
    ring: Duration = Field(default=600.0, gt=0, le=86400)
    reprobe_interval: Duration = Field(default=60.0, ge=1, le=86400)
    simulated: SimulatedConfig = SimulatedConfig()
    replay: ReplayConfig = ReplayConfig()

    @model_validator(mode="after")
    def _sourced(self) -> Self:
        if self.backend == "replay" and not self.replay.file:
            raise ValueError("backend: replay needs replay::file, the path of the recording to play")
        if self.ring < 10 * self.sample_interval:
            raise ValueError("ring is too short: it must be at least ten times sample_interval")
        if self.ring / self.sample_interval > 1_000_000:
            raise ValueError("ring holds too many samples: ring / sample_interval must not exceed 1 000 000")
        return self
