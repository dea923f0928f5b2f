"""Configuration of the receiver ``file_log``: the Collector's keys and defaults.

Source: opentelemetry-collector-contrib receiver/filelogreceiver and pkg/stanza/fileconsumer (v0.156).
"""

from collections.abc import Iterable
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, Field, model_validator

from collector.log_operators import (
    AnyOperatorConfig,
    MultilineConfig,
    OperatorsConfig,
    Pipeline,
    TrimConfig,
    check_encoding,
)
from collector.log_operators.layouts import strptime_reader
from collector.text.patterns import compile_pattern
from config import ByteSize, ComponentConfig, Duration
from receivers.file_log.globs import glob_pattern

__all__ = ["FileLogConfig", "HeaderConfig", "OrderingConfig", "RetryConfig", "SortConfig"]

_MIN_FINGERPRINT_SIZE = 16


def _glob(text: str) -> str:
    glob_pattern(text)
    return text


def _pattern(text: str) -> str:
    compile_pattern(text)
    return text


_Glob = Annotated[str, AfterValidator(_glob)]
_Pattern = Annotated[str, AfterValidator(_pattern)]


class SortConfig(ComponentConfig):
    """By what files are sorted."""

    sort_type: Literal["numeric", "alphabetical", "timestamp", "mtime"]
    """How the values of ``regex_key`` are compared; ``mtime``: by the time of the last modification, latest first."""
    regex_key: str = ""
    """The named group of ``ordering_criteria::regex`` with the value to sort by."""
    ascending: bool = False
    """Whether the lowest value comes first."""
    layout: str = ""
    """The strptime layout of values of type ``timestamp``."""
    location: str = ""
    """The time zone of values of type ``timestamp``; by default UTC."""
    max_time: Duration = Field(default=0.0, ge=0)
    """With ``mtime``: files that were modified longer ago than this are left out. 0: none."""

    @model_validator(mode="after")
    def _is_complete(self) -> Self:
        if self.sort_type != "mtime" and not self.regex_key:
            raise ValueError(f"regex_key is required with sort_type {self.sort_type!r}")
        if self.sort_type == "timestamp":
            if not self.layout:
                raise ValueError("layout is required with sort_type 'timestamp'")
            strptime_reader(self.layout, self.location or "UTC", {})
        return self


class OrderingConfig(ComponentConfig):
    """Which of the files that match are read."""

    regex: _Pattern = ""
    """A pattern with named groups; files whose paths it does not match are left out."""
    top_n: int = Field(default=1, ge=0)
    """How many files are read: the first in the order. 0 means 1."""
    sort_by: tuple[SortConfig, ...] = ()
    """By what the files are sorted, one sort after the other: the last one counts most. Empty: all files are read."""
    group_by: _Pattern = ""
    """A pattern whose first group says which group a file belongs to; ``top_n`` holds for each group."""

    @model_validator(mode="after")
    def _has_a_regex(self) -> Self:
        keys = [sort.regex_key for sort in self.sort_by if sort.sort_type != "mtime"]
        if keys and not self.regex:
            raise ValueError("regex is required with sort_by")
        if keys:
            groups = compile_pattern(self.regex).groupindex
            for key in keys:
                if key not in groups:
                    raise ValueError(f"sort_by: regex has no group that is named {key!r}")
        return self


class HeaderConfig(ComponentConfig):
    """Lines at the beginning of each file that describe it."""

    pattern: _Pattern
    """A pattern that matches every line of the header."""
    metadata_operators: tuple[AnyOperatorConfig, ...] = Field(min_length=1)
    """Operators that each line of the header passes through; the attributes that they make are set on all entries of
    the file.
    """


class RetryConfig(ComponentConfig):
    """What happens with entries that the pipeline refuses for a time."""

    enabled: bool = True
    """Whether they are offered again, and the files are not read on meanwhile. false: they are dropped."""
    initial_interval: Duration = Field(default=1.0, gt=0)
    """The wait before the first retry."""
    max_interval: Duration = Field(default=30.0, gt=0)
    """The longest wait."""
    max_elapsed_time: Duration = Field(default=0.0, ge=0)
    """The time after which they are dropped. 0: never."""


class FileLogConfig(TrimConfig, OperatorsConfig):
    """Configuration of ``file_log``: reads log entries from files."""

    include: tuple[_Glob, ...] = Field(min_length=1)
    """Patterns of the paths of files to read: ``*``, ``?``, ``[a-z]``, ``{a,b}``, and ``**`` for any folders."""
    exclude: tuple[_Glob, ...] = ()
    """Patterns of paths that are not read although ``include`` matches."""
    exclude_older_than: Duration = Field(default=0.0, ge=0)
    """Files that were modified longer ago than this are not read. 0: all are."""
    ordering_criteria: OrderingConfig = OrderingConfig()
    """Which of the files that match are read."""
    start_at: Literal["beginning", "end"] = "end"
    """Where to begin in files that are there at the start and are not known. Files that appear later are always read
    from the beginning.
    """
    multiline: MultilineConfig = MultilineConfig()
    """Where entries begin or end; by default each line is one."""
    force_flush_period: Duration = Field(default=0.5, ge=0)
    """The time without new bytes after which an incomplete entry at the end of a file is taken. 0: never."""
    encoding: Annotated[str, AfterValidator(check_encoding)] = "utf-8"
    """The encoding of the files: ``utf-8``, ``utf-16le``, ``ascii``, ``big5``, …; ``nop`` leaves them unsplit."""
    include_file_name: bool = True
    """Whether entries get the attribute ``log.file.name``."""
    include_file_path: bool = False
    """Whether entries get the attribute ``log.file.path``."""
    include_file_name_resolved: bool = False
    """Whether entries get the attribute ``log.file.name_resolved``: the name behind symbolic links."""
    include_file_path_resolved: bool = False
    """Whether entries get the attribute ``log.file.path_resolved``: the path behind symbolic links."""
    include_file_owner_name: bool = False
    """Whether entries get the attribute ``log.file.owner.name``."""
    include_file_owner_group_name: bool = False
    """Whether entries get the attribute ``log.file.owner.group.name``."""
    include_file_record_number: bool = False
    """Whether entries get the attribute ``log.file.record_number``: 1 for the first of a file."""
    include_file_record_offset: bool = False
    """Whether entries get the attribute ``log.file.record_offset``: where they begin, in bytes."""
    poll_interval: Duration = Field(default=0.2, gt=0)
    """How often files that are written to are checked. Idle ones are checked less often if they are many."""
    fingerprint_size: ByteSize = 1000
    """How many bytes at the beginning of a file identify it; at least 16."""
    initial_buffer_size: ByteSize = 16 * 1024
    """How many bytes are read from a file first; more if there are more."""
    max_log_size: ByteSize = 1024 * 1024
    """The size at which an entry is cut."""
    max_concurrent_files: int = Field(default=1024, gt=1)
    """How many files are read in one batch, and the most that stay open."""
    max_batches: int = Field(default=0, ge=0)
    """How many batches of files are read in one poll; the others follow in the next one. 0: all."""
    delete_after_read: bool = False
    """Whether files are deleted when all their entries have been accepted. Needs ``start_at: beginning``."""
    acquire_fs_lock: bool = False
    """Whether a shared lock (flock) is held while a file is read; a file that another process has locked is left for
    the next poll.
    """
    storage: str = ""
    """Id of the storage extension that keeps the offsets over a restart. Empty: they are lost."""
    header: HeaderConfig | None = None
    """Lines at the beginning of each file that describe it. Needs ``start_at: beginning``."""
    retry_on_failure: RetryConfig = RetryConfig()
    """What happens with entries that the pipeline refuses for a time."""
    compression: Literal["", "gzip", "auto"] = ""
    """The compression of the files: ``gzip`` of all, or ``auto``: of those whose names end in ``.gz``."""
    polls_to_archive: int = Field(default=0, ge=0)
    """For how many further searches files that have vanished are remembered, in case that they appear again."""

    @model_validator(mode="after")
    def _is_consistent(self) -> Self:
        if self.start_at == "end":
            for key in ("delete_after_read", "header"):
                if getattr(self, key):
                    raise ValueError(f"{key}: cannot be used with start_at 'end'; set start_at to 'beginning'")
        if self.max_log_size == 0:
            raise ValueError("max_log_size: must be greater than 0")
        if self.fingerprint_size < _MIN_FINGERPRINT_SIZE:
            raise ValueError(f"fingerprint_size: must be at least {_MIN_FINGERPRINT_SIZE} bytes")
        if self.header is not None:
            Pipeline(self.header.metadata_operators, report=_SILENT)
        return self

    def warnings(self) -> Iterable[tuple[str, str]]:
        """See :meth:`ComponentConfig.warnings`."""
        if not self.storage:
            yield "storage", "without a storage extension, a restart loses the offsets: lines are skipped or read twice"


class _Silent:
    def failed(self, *_: Any, **__: Any) -> None:
        pass

    def dropped(self, reason: str, count: int) -> None:
        pass


_SILENT: Any = _Silent()
