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
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final

from collector.api import Host, RetryableError, Settings
from collector.delivery import QueuedExporter
from collector.model import Batch, to_json
from collector.transport.compression import compress
from exporters.file.config import FileConfig
from exporters.file.rotation import RotatingFile

__all__ = ["FileExporter"]

_DISK_FULL_ERRORS: Final = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})


class FileExporter(QueuedExporter[Batch]):
    """Writes one batch after the other, in a thread of its own."""

    def __init__(self, settings: Settings, config: FileConfig) -> None:
        super().__init__(settings, config)
        self.path = config.path
        self._json = config.format == "json"
        self._compression = config.compression
        self._as_line = self._json and config.compression in {"", "none"}
        self._file = RotatingFile(
            config.path,
            config.rotation,
            settings.clock,
            keep=config.append or config.rotation is not None,
            directory_mode=int(config.directory_permissions, 8) if config.create_directory else None,
        )
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
            self._file.open()
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
            await asyncio.get_running_loop().run_in_executor(thread, self._file.close)
            thread.shutdown()

    async def send(self, payload: Batch) -> None:
        """See :class:`QueuedExporter`."""
        if self._thread is None:
            raise RetryableError("the file is not open", reason="shutdown")
        try:
            await asyncio.get_running_loop().run_in_executor(self._thread, self._write, payload)
        except OSError as exc:
            reason = "disk_full" if exc.errno in _DISK_FULL_ERRORS else "io_error"
            raise RetryableError(f"{self.path}: {exc.strerror or type(exc).__name__}", reason=reason) from exc

    def _write(self, batch: Batch) -> None:
        """Write the batch; runs in the thread."""
        body = to_json(batch) if self._json else batch.wire
        if self._as_line:
            self._file.write(body + b"\n")
            return
        body = compress(self._compression, body)
        self._file.write(len(body).to_bytes(4, "big") + body)
