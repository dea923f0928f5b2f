"""What the user writes for ``file``. Source: opentelemetry-collector-contrib exporter/fileexporter config.go."""

import re
from typing import Annotated, Literal, Self

from pydantic import BeforeValidator, Field, model_validator

from collector.delivery import ExporterConfig
from config.blocks import ComponentConfig, Duration, QueueConfig

__all__ = ["FileConfig", "GroupByConfig", "RotationConfig"]

_OCTAL = re.compile(r"^0?[0-7]{3,4}$")


def _permissions(value: object) -> object:
    """Octal text, as in the Collector; a number is what YAML made of ``0755`` or ``0o755``."""
    if isinstance(value, int) and not isinstance(value, bool):
        return f"0{value:o}"
    if isinstance(value, str) and not _OCTAL.match(value):
        raise ValueError(f"{value!r} is no file mode: write it in octal, for example 0755")
    return value


class RotationConfig(ComponentConfig):
    """When a new file is begun, and how long old ones are kept."""

    max_megabytes: int = Field(default=100, ge=1)
    """A file is at most this large (2^20 bytes), but for a single batch that is larger."""
    max_days: int = Field(default=0, ge=0)
    """Old files are removed after so many days; 0: never for their age."""
    max_backups: int = Field(default=100, ge=0)
    """Old files kept; 0: all."""
    localtime: bool = False
    """Time stamps in names of old files: local instead of UTC."""


class GroupByConfig(ComponentConfig):
    """One file for each value of a resource attribute. Not available here."""

    enabled: bool = False
    resource_attribute: str = "fileexporter.path_segment"
    max_open_files: int = 100


class FileConfig(ExporterConfig):
    """Telemetry in a file."""

    path: str = ""
    """The file. Its directory must be there, or ``create_directory`` set."""
    rotation: RotationConfig | None = None
    """Absent: one file that grows."""
    format: Literal["json", "proto"] = "json"
    encoding: str = ""
    compression: Literal["", "none", "zstd"] = ""
    append: bool = False
    """Keep what is in the file at the start; with ``rotation`` that is so anyway."""
    flush_interval: Duration = Field(default=1.0, ge=0)
    """The Collector's. Batches reach the operating system at once here, so there is nothing to flush."""
    create_directory: bool = False
    directory_permissions: Annotated[str, BeforeValidator(_permissions)] = "0755"
    group_by: GroupByConfig = GroupByConfig()
    timeout: Duration = Field(default=0.0, ge=0)
    """Of one write; 0: none. A write that hangs cannot be taken back."""
    sending_queue: QueueConfig = QueueConfig(num_consumers=1)

    @model_validator(mode="after")
    def _can_be_done(self) -> Self:
        if not self.path:
            raise ValueError("path: required, for example ./telemetry.jsonl")
        if self.append and self.compression == "zstd":
            raise ValueError("append: not together with compression")
        if self.append and self.rotation is not None:
            raise ValueError("append: not together with rotation, which keeps what is there by itself")
        if self.encoding:
            raise ValueError("encoding: encoding extensions are not available here; use format json or proto")
        if self.group_by.enabled:
            raise ValueError(
                "group_by: not available here; use one file exporter for each group, fed by its own pipeline"
            )
        return self
