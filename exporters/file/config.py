"""The configuration of ``file``. Source: opentelemetry-collector-contrib exporter/fileexporter config.go."""

import re
from collections.abc import Iterable
from typing import Annotated, Final, Literal, Self

from pydantic import BeforeValidator, Field, model_validator

from collector.delivery import ExporterConfig
from config.blocks import ComponentConfig, Duration, QueueConfig

__all__ = ["PLACEHOLDER", "CompressionParams", "FileConfig", "GroupByConfig", "RotationConfig"]

PLACEHOLDER: Final = "*"
"""What the value of an attribute takes the place of in ``path``."""
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


class CompressionParams(ComponentConfig):
    """Parameters of the compression."""

    level: int = Field(default=0, ge=0, le=22)
    """Level of zstd, from 1 (fastest) to 22 (smallest). 0: its default, 3."""


class GroupByConfig(ComponentConfig):
    """One file per value of a resource attribute."""

    enabled: bool = False
    """Whether the value takes the place of ``*`` in ``path``."""
    resource_attribute: str = "fileexporter.path_segment"
    """The attribute, a text. Items of resources without it are dropped."""
    max_open_files: int = Field(default=100, ge=1)
    """Number of files that may be open at the same time; further ones are closed and opened again as needed."""


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
    compression_params: CompressionParams = CompressionParams()
    """Parameters of the compression."""
    append: bool = False
    """Whether to keep existing content of the file at startup; with ``rotation`` it is always kept."""
    flush_interval: Duration = Field(default=1.0, ge=0)
    """Accepted for compatibility with the Collector; has no effect, since batches are written without buffering."""
    create_directory: bool = False
    """Whether to create missing directories."""
    directory_permissions: Annotated[str, BeforeValidator(_permissions)] = "0755"
    """Octal mode of the directories that are created."""
    group_by: GroupByConfig = GroupByConfig()
    """One file per value of a resource attribute."""
    timeout: Duration = Field(default=0.0, ge=0)
    """Timeout of one write; 0 disables it, because a write that hangs cannot be cancelled."""
    sending_queue: QueueConfig = QueueConfig(num_consumers=1, queue_size=10_000)
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
            self._check_groups()
        return self

    def _check_groups(self) -> None:
        if self.path.count(PLACEHOLDER) != 1 or self.path.startswith(PLACEHOLDER):
            raise ValueError(
                f"path {self.path!r} must contain exactly one {PLACEHOLDER} and not start with it, because group_by "
                f"is enabled; for example ./telemetry/{PLACEHOLDER}.jsonl"
            )
        if not self.group_by.resource_attribute:
            raise ValueError("group_by: resource_attribute must not be empty")

    def warnings(self) -> Iterable[tuple[str, str]]:
        """See :class:`ComponentConfig`."""
        if self.group_by.enabled and self.rotation is not None:
            yield "rotation", "this setting has no effect with group_by, as in the Collector"
        if self.compression_params.level and self.compression != "zstd":
            yield "compression_params", "this setting has no effect without compression: zstd"
