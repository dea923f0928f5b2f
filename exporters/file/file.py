"""Writes batches to a file, each as a line of OTLP/JSON or as length-prefixed protobuf.

The files are for other programs to read, so they never contain half a batch. JSON without compression is one line per
batch; in all other formats a batch is preceded by its length as four bytes, big-endian, as in the Collector. A batch
that does not fit on the disk leaves nothing behind and is retried. The operating system decides when data reaches the
disk: there is no fsync per batch.

Source: OTLP file exporter specification (protocol/file-exporter.md); opentelemetry-collector-contrib
    exporter/fileexporter.
"""

import asyncio
import errno
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from collector.api import Host, PermanentError, RetryableError, Settings
from collector.delivery import Part, QueuedExporter
from collector.delivery.log import printable
from collector.model import Batch, groups, to_json
from collector.model.arrays import I32
from collector.transport.compression import compress
from exporters.file.config import FileConfig
from exporters.file.grouped_files import GroupedFiles
from exporters.file.rotation import RotatingFile

__all__ = ["FileExporter"]

_DISK_FULL_ERRORS: Final = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
_BAD_PATH_ERRORS: Final = frozenset(
    {errno.ENAMETOOLONG, errno.EISDIR, errno.ENOTDIR, errno.EEXIST, errno.EINVAL, errno.ELOOP}
)


@dataclass(frozen=True, slots=True)
class Record:
    """A batch to write, or the items of one group in it: those with the code ``group`` in ``codes``."""

    path: str
    batch: Batch
    codes: I32 | None = None
    group: int = 0

    def selected(self) -> Batch:
        """The items to write."""
        return self.batch if self.codes is None else self.batch.select(self.codes == self.group)


class FileExporter(QueuedExporter[Record]):
    """Writes one record after the other, in a thread of its own."""

    def __init__(self, settings: Settings, config: FileConfig) -> None:
        super().__init__(settings, config)
        self.path = config.path
        self._json = config.format == "json"
        self._compression = config.compression
        self._level = config.compression_params.level or None
        self._as_line = self._json and config.compression in {"", "none"}
        directory_mode = int(config.directory_permissions, 8)
        self._file = RotatingFile(
            config.path,
            config.rotation,
            settings.clock,
            keep=config.append or config.rotation is not None,
            directory_mode=directory_mode if config.create_directory else None,
        )
        self._groups: GroupedFiles | None = None
        if config.group_by.enabled:
            self._groups = GroupedFiles(
                config.path,
                settings.clock,
                max_open_files=config.group_by.max_open_files,
                directory_mode=directory_mode,
            )
        self._group_attribute = config.group_by.resource_attribute
        self._thread: ThreadPoolExecutor | None = None

    def hand_over(self, config: FileConfig) -> str:  # noqa: ARG002 - the successor compares the paths
        """The path: a successor that writes the same file continues it."""
        return self.path

    def sole_use(self) -> frozenset[str]:
        """See :class:`collector.api.Component`: two writers would tear each other's rotated files apart."""
        return frozenset({f"file {Path(self.path).absolute()}"})

    def take_over(self, state: object) -> bool:
        """Continue the file of the predecessor instead of emptying it."""
        if state != self.path:
            return False
        self._file.keep_existing()
        return True

    async def open(self, host: Host) -> None:  # noqa: ARG002 - needs nothing of it
        """See :class:`QueuedExporter`. Opening takes microseconds, and here an error refuses the start."""
        try:
            if self._groups is None:
                self._file.open()
            else:
                self._groups.prepare()
        except OSError as exc:
            hint = "; create the directory or set create_directory: true" if isinstance(exc, FileNotFoundError) else ""
            raise ValueError(
                f"exporters::{self.settings.id}::path: cannot write {self.path}: {exc.strerror}{hint}"
            ) from exc
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix=f"file-{self.settings.id}")

    async def close(self) -> None:
        """See :class:`QueuedExporter`."""
        if self._thread is not None:
            thread, self._thread = self._thread, None
            await asyncio.get_running_loop().run_in_executor(thread, self._close_files)
            thread.shutdown()

    def encode(self, batch: Batch) -> Sequence[Part[Record]]:
        """See :class:`QueuedExporter`: the batch, or a record for each group in it."""
        if self._groups is None:
            return [Part(Record(self.path, batch), batch.item_count)]
        values = batch.attribute(self._group_attribute, "resources").text
        codes = values.codes[batch.ancestor("resources")]
        if missing_count := int((codes < 0).sum()):
            self.telemetry.dropped(batch.signal, missing_count, "missing_attribute")
            self._log.error(
                "resources lack the attribute of group_by as a text; their items are dropped",
                attribute=self._group_attribute,
                items=missing_count,
            )
        found = groups(codes)
        parts = []
        for group, (row, count) in enumerate(zip(found.first.tolist(), found.counts.tolist(), strict=True)):
            if codes[row] >= 0:
                path = self._groups.path_of(values.distinct[codes[row]])
                parts.append(Part(Record(path, batch, found.codes, group), count))
        return parts

    def cut(self, part: Part[Record]) -> Sequence[Part[Record]]:
        """See :class:`QueuedExporter`: a file takes records of any size."""
        return [part]

    def describe(self, payload: Record) -> str:
        """See :class:`QueuedExporter`."""
        return printable(payload.path)

    async def send(self, payload: Record) -> None:
        """See :class:`QueuedExporter`."""
        if self._thread is None:
            raise RetryableError("the file is not open", reason="shutdown")
        try:
            await asyncio.get_running_loop().run_in_executor(self._thread, self._write, payload)
        except OSError as exc:
            message = f"{printable(payload.path)}: {exc.strerror or type(exc).__name__}"
            if self._groups is not None and exc.errno in _BAD_PATH_ERRORS:
                raise PermanentError(message, reason="invalid_path") from exc
            reason = "disk_full" if exc.errno in _DISK_FULL_ERRORS else "io_error"
            raise RetryableError(message, reason=reason) from exc

    def _write(self, record: Record) -> None:
        """Write the record; runs in the thread."""
        batch = record.selected()
        body = to_json(batch) if self._json else batch.wire
        if self._as_line:
            body += b"\n"
        else:
            body = compress(self._compression, body, self._level)
            body = len(body).to_bytes(4, "big") + body
        if self._groups is None:
            self._file.write(body)
        else:
            self._groups.write(record.path, body)

    def _close_files(self) -> None:
        self._file.close()
        if self._groups is not None:
            self._groups.close()
