"""The extension: a :class:`collector.storage.FileStorage` with a life cycle."""

import asyncio
import contextlib
from collections.abc import Collection
from typing import Final

from collector.api import Extension, HealthCheck, Host, QueueStorage, Settings, StateStore, StorageExtension, WhenFull
from collector.storage import FileStorage, FileStorageSettings
from collector.storage.queue import QueueLimits
from extensions.file_storage.config import FileStorageConfig

__all__ = ["FileStorageExtension"]

_LOOK_AFTER_S: Final = 60.0


class FileStorageExtension(Extension, StorageExtension):
    """Keeps queues and states in files."""

    def __init__(self, settings: Settings, config: FileStorageConfig) -> None:
        self._id, self._config, self._log = settings.id, config, settings.telemetry.log
        self._clock = settings.clock
        self._looking: asyncio.Task[None] | None = None
        self._files = FileStorage(
            FileStorageSettings(
                config.path,
                create_directory=config.create_directory,
                mode=config.mode,
                lock_timeout_s=config.timeout,
                sync=config.fsync,
                limits=QueueLimits(config.max_size, config.when_full),
            ),
            str(settings.id),
            settings.clock,
            settings.telemetry,
        )

    async def start(self, host: Host) -> None:
        """Take the directory.

        Raises:
            OSError: it cannot be used, or another process uses it.
        """
        compaction = self._config.compaction
        if compaction.on_start or compaction.on_rebound:
            self._log.warning("compaction has no effect: files are deleted when all of their content is delivered")
        try:
            await self._files.open()
        except OSError as error:
            raise OSError(f"extensions::{self._id}::directory: {error.strerror or error}") from error
        host.add_health_check(f"extension {self._id}", self._check)
        self._looking = asyncio.ensure_future(self._look_for_unopened())

    async def shutdown(self) -> None:
        """Close what its owners left open, and give the directory back."""
        if self._looking is not None:
            self._looking.cancel()
            await asyncio.gather(self._looking, return_exceptions=True)
        await self._files.close()

    async def _look_for_unopened(self) -> None:
        """Name the queues that no exporter uses any more, once, when all components have started."""
        await self._clock.sleep(_LOOK_AFTER_S)
        with contextlib.suppress(OSError):
            for name in await asyncio.to_thread(self._files.unopened):
                self._log.warning(
                    "a queue on disk has no exporter any more; look at it with `tailrace queue`, or configure the"
                    " exporter again to deliver it",
                    queue=name,
                    directory=str(self._config.path),
                )

    def _check(self) -> HealthCheck:
        problems = self._files.problems()
        message = "; ".join(f"the queue {name!r} cannot be written: {why}" for name, why in problems.items())
        return HealthCheck(f"extension {self._id}", healthy=not problems, message=message)

    def sole_use(self) -> Collection[str]:
        """See :class:`collector.api.Component`."""
        return (str(self._config.path.absolute()),)

    async def queue(
        self, name: str, *, max_size_bytes: int | None = None, when_full: WhenFull | None = None
    ) -> QueueStorage:
        """See :class:`collector.api.StorageExtension`."""
        return await self._files.queue(name, max_size_bytes=max_size_bytes, when_full=when_full)

    def state(self, name: str) -> StateStore:
        """See :class:`collector.api.StorageExtension`."""
        return self._files.state(name)
