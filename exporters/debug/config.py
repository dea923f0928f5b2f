"""The configuration of ``debug``. Source: the Collector's exporter/debugexporter config.go."""

from typing import Annotated, Literal, Self

from pydantic import BeforeValidator, Field, model_validator

from config.blocks import ComponentConfig, QueueConfig

__all__ = ["DebugConfig"]


def _lower(value: object) -> object:
    return value.lower() if isinstance(value, str) else value


class DebugConfig(ComponentConfig):
    """What is shown of the telemetry, and where."""

    verbosity: Annotated[Literal["basic", "normal", "detailed"], BeforeValidator(_lower)] = "basic"
    """``basic`` shows counts, ``normal`` one line per item, ``detailed`` every field."""
    sampling_initial: int = Field(default=2, ge=0)
    """Number of batches of each signal that are shown in each second before sampling begins."""
    sampling_thereafter: int = Field(default=1, ge=0)
    """After those, every n-th batch of the second is shown. 0: none. Batches that are not shown also count as
    delivered.
    """
    use_internal_logger: bool = True
    """Whether to write to the service's own log instead of ``output_paths``."""
    output_paths: tuple[str, ...] = ("stdout",)
    """``stdout``, ``stderr`` or paths of files, which are appended to."""
    sending_queue: QueueConfig = QueueConfig(enabled=False)
    """Accepted for compatibility with the Collector; has no effect, since batches are shown without waiting."""

    @model_validator(mode="after")
    def _is_consistent(self) -> Self:
        if not self.use_internal_logger and not self.output_paths:
            raise ValueError(
                "output_paths must not be empty with use_internal_logger: false; expected for example [stdout]"
            )
        if self.use_internal_logger and self.output_paths != ("stdout",):
            raise ValueError(
                "output_paths has no effect with use_internal_logger: true; set use_internal_logger: false"
            )
        return self
