"""What the user writes for ``debug``. Source: the Collector's exporter/debugexporter config.go."""

from typing import Annotated, Literal, Self

from pydantic import BeforeValidator, Field, model_validator

from config.blocks import ComponentConfig, QueueConfig

__all__ = ["DebugConfig"]


def _lower(value: object) -> object:
    return value.lower() if isinstance(value, str) else value


class DebugConfig(ComponentConfig):
    """Telemetry for a person to read."""

    verbosity: Annotated[Literal["basic", "normal", "detailed"], BeforeValidator(_lower)] = "basic"
    """``basic``: counts; ``normal``: a line an item; ``detailed``: every field."""
    sampling_initial: int = Field(default=2, ge=0)
    """Batches of a signal shown each second, whatever comes after."""
    sampling_thereafter: int = Field(default=1, ge=0)
    """After those, each n-th in that second; 0: none. What is not shown is delivered all the same."""
    use_internal_logger: bool = True
    """Through our own log; otherwise straight to ``output_paths``."""
    output_paths: tuple[str, ...] = ("stdout",)
    """``stdout``, ``stderr`` or files, which are appended to."""
    sending_queue: QueueConfig = QueueConfig(enabled=False)
    """Read for the Collector's sake; showing a batch takes no waiting, so there is no queue."""

    @model_validator(mode="after")
    def _outputs(self) -> Self:
        if not self.use_internal_logger and not self.output_paths:
            raise ValueError("output_paths: at least one is needed, for example [stdout]")
        if self.use_internal_logger and self.output_paths != ("stdout",):
            raise ValueError("output_paths: only together with use_internal_logger: false")
        return self
