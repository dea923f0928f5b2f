"""Configuration of ``file_storage``: the Collector's keys, and some additions.

Source: opentelemetry-collector-contrib extension/storage/filestorage config.go and README.
"""

from pathlib import Path
from typing import Self

from pydantic import Field, field_validator, model_validator

from collector.api import WhenFull
from config.blocks import ByteSize, ComponentConfig, Duration

__all__ = ["CompactionConfig", "FileStorageConfig"]

_DEFAULT_DIRECTORY = "/var/lib/otelcol/file_storage"


class CompactionConfig(ComponentConfig):
    """Compaction of the Collector's database files.

    Tailrace deletes a file when all of it is delivered instead, so these keys have no effect.
    """

    on_start: bool = False
    """Accepted for compatibility with the Collector; has no effect, since files are deleted when they are delivered."""
    on_rebound: bool = False
    """Accepted for compatibility with the Collector; has no effect."""
    directory: str = _DEFAULT_DIRECTORY
    """Accepted for compatibility with the Collector; has no effect."""
    max_transaction_size: int = Field(default=65536, ge=0)
    """Accepted for compatibility with the Collector; has no effect."""
    rebound_needed_threshold_mib: int = 100
    """Accepted for compatibility with the Collector; has no effect."""
    rebound_trigger_threshold_mib: int = 10
    """Accepted for compatibility with the Collector; has no effect."""
    check_interval: Duration = 5.0
    """Accepted for compatibility with the Collector; has no effect."""
    cleanup_on_start: bool = False
    """Accepted for compatibility with the Collector; has no effect."""


class FileStorageConfig(ComponentConfig):
    """Keeps queues and state in files."""

    directory: str = _DEFAULT_DIRECTORY
    """Directory of the files. One process uses it at a time."""
    timeout: Duration = Field(default=1.0, ge=0)
    """Longest wait for a directory that another process still uses. 0: no limit."""
    fsync: bool = True
    """Acknowledge data only once it would survive a power failure, and not just the end of the process. The Collector's
    default is false."""
    create_directory: bool = False
    """Create the directory if it does not exist."""
    directory_permissions: str = "0750"
    """Permissions, in octal, of a directory that is created, minus the process's umask."""
    max_size: ByteSize = 0
    """Largest size of the files of each queue. 0: no limit."""
    when_full: WhenFull = "reject_newest"
    """What happens to new data at the maximum size: refuse it, or drop the oldest instead (specific to Tailrace)."""
    recreate: bool = False
    """Accepted for compatibility with the Collector; has no effect: damaged files are always kept aside, and what is
    intact is delivered."""
    compaction: CompactionConfig = CompactionConfig()
    """Accepted for compatibility with the Collector; has no effect."""

    @field_validator("directory")
    @classmethod
    def _names_a_directory(cls, value: str) -> str:
        if not value or "\0" in value:
            raise ValueError("the directory must not be empty, for example /var/lib/otelcol/file_storage")
        return value

    @model_validator(mode="after")
    def _permissions_are_octal(self) -> Self:
        text = self.directory_permissions
        try:
            mode = int(text, 8)
        except ValueError:
            mode = -1
        if not 0 <= mode <= 0o777:
            raise ValueError(f"directory_permissions {text!r} are not octal permissions, for example '0750'")
        return self

    @property
    def path(self) -> Path:
        """The directory."""
        return Path(self.directory)

    @property
    def mode(self) -> int:
        """Permissions of a directory that is created."""
        return int(self.directory_permissions, 8)
