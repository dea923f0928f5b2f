"""The configuration of ``file``. Source: opentelemetry-collector-contrib exporter/fileexporter config.go."""

import re
from typing import Annotated, Literal, Self

from pydantic import BeforeValidator, Field, model_validator

from collector.delivery import ExporterConfig
from config.blocks import ComponentConfig, Duration, QueueConfig

__all__ = ["FileConfig", "GroupByConfig", "RotationConfig"]

_OCTAL = re.compile(r"^0?[0-7]{3,4}$")


def _permissions(value: object) -> object:
    """A file mode as octal text, as in the Collector; YAML turns ``0755`` and ``0o755`` into a number."""
    if isinstance(value, int) and not isinstance(value, bool):
        return f"0{value:o}"
    if isinstance(value, str) and not _OCTAL.match(value):
        raise ValueError(f"{value!r} is not a valid file mode; expected octal digits, for example 0755")
    return value


class RotationConfig(ComponentConfig):
    """When a new file is started, and how long old files are kept."""

    max_megabytes: int = Field(default=100, ge=1)
    """Size limit of a file in MiB; only a single batch that is larger exceeds it."""
    max_days: int = Field(default=0, ge=0)
    """Old files are removed after this many days. 0: files are not removed because of their age."""
    max_backups: int = Field(default=100, ge=0)
    """Number of old files to keep. 0: all of them."""
    localtime: bool = False
    """Whether the timestamps in the names of old files are in local time instead of UTC."""


class GroupByConfig(ComponentConfig):
    """One file per value of a resource attribute. Not available; the keys are accepted to report a helpful error."""

    enabled: bool = False
    """Must be false, since grouping is not available."""
    resource_attribute: str = "fileexporter.path_segment"
    """Accepted for compatibility with the Collector; has no effect."""
    max_open_files: int = 100
    """Accepted for compatibility with the Collector; has no effect."""


class FileConfig(ExporterConfig):
    """Where and how telemetry is written."""

    path: str = ""
    """Path of the file. Its directory must exist unless ``create_directory`` is set."""
    rotation: RotationConfig | None = None
    """When a new file is started. Absent: there is a single file, which grows without limit."""
    format: Literal["json", "proto"] = "json"
    """Encoding of the data: OTLP/JSON, or OTLP as protobuf messages."""
    encoding: str = ""
    """Must be empty, since encoding extensions are not available."""
    compression: Literal["", "none", "zstd"] = ""
    """Compression of the data. Empty or none: not compressed. zstd cannot be combined with ``append``."""
    append: bool = False
    """Whether to keep existing content of the file at startup; with ``rotation`` it is always kept."""
    flush_interval: Duration = Field(default=1.0, ge=0)
    """Accepted for compatibility with the Collector; has no effect, since batches are written without buffering."""
    create_directory: bool = False
    """Whether to create missing directories."""
    directory_permissions: Annotated[str, BeforeValidator(_permissions)] = "0755"
    """Octal mode of the directories that are created."""
    group_by: GroupByConfig = GroupByConfig()
    """One file per value of a resource attribute. Not available."""
    timeout: Duration = Field(default=0.0, ge=0)
    """Timeout of one write; 0 disables it, because a write that hangs cannot be cancelled."""
    sending_queue: QueueConfig = QueueConfig(num_consumers=1)
    """The queue in which data waits to be written. Writes keep their order by default."""

    @model_validator(mode="after")
    def _is_consistent(self) -> Self:
        if not self.path:
            raise ValueError("path is required, for example ./telemetry.jsonl")
        if self.append and self.compression == "zstd":
            raise ValueError("append cannot be combined with compression; remove one of them")
        if self.append and self.rotation is not None:
            raise ValueError(
                "append cannot be combined with rotation, which keeps existing content anyway; remove append"
            )
        if self.encoding:
            raise ValueError("encoding: encoding extensions are not available; use format: json or format: proto")
        if self.group_by.enabled:
            raise ValueError(
                "group_by is not available; use one file exporter per group, each in a pipeline of its own"
            )
        return self
