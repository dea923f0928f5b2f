"""The extension: it owns the directory, and opens queues and states in it.

<directory>/tailrace.lock
<directory>/queues/<name>/<first key>.seg, .acks
<directory>/states/<name>.state
"""

from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Final

from collector.api import Extension, Host, Settings, StorageExtension, WhenFull
from collector.delivery.log import RateLimitedLog
from extensions.file_storage.config import FileStorageConfig
from extensions.file_storage.damage import Damage
from extensions.file_storage.directory import QUEUES, STATES, DirectoryLock, file_name, make_directory, prepare
from extensions.file_storage.queue import FileQueue, QueueLimits
from extensions.file_storage.state import STATE_SUFFIX, FileStateStore
from extensions.file_storage.worker import Worker

__all__ = ["FileStorage"]

_LOCK_POLL_S: Final = 0.05
_READERS: Final = 2


class FileStorage(Extension, StorageExtension):
    """Keeps queues and states in files. See :class:`collector.api.StorageExtension`."""

    def __init__(self, settings: Settings, config: FileStorageConfig) -> None:
        self._settings, self._config = settings, config
        self._log = RateLimitedLog(settings.telemetry.log, settings.clock)
        self._lock: DirectoryLock | None = None
        self._worker = Worker(f"storage {settings.id}")
        self._readers: ThreadPoolExecutor | None = None
        self._queues: dict[str, FileQueue] = {}
        self._opening: set[str] = set()
        self._states: dict[str, FileStateStore] = {}
        telemetry = settings.telemetry
        self._damaged_bytes = telemetry.counter(
            "tailrace_storage_damaged_bytes", "Bytes of damaged files that were kept aside", ("storage",)
        )
        telemetry.gauge(
            "tailrace_storage_size_bytes",
            "Size of the files of a queue",
            ("storage",),
            lambda: {(name,): queue.size_bytes for name, queue in self._queues.items()},
        )
        telemetry.gauge(
            "tailrace_storage_batches",
            "Batches in a queue that are not delivered yet",
            ("storage",),
            lambda: {(name,): queue.totals.batch_count for name, queue in self._queues.items()},
        )
        telemetry.gauge(
            "tailrace_storage_commits",
            "Writes to a queue since it was opened; each makes one or several batches durable",
            ("storage",),
            lambda: {(name,): queue.commit_count for name, queue in self._queues.items()},
        )
        telemetry.gauge(
            "tailrace_storage_failed_commits",
            "Writes to a queue that failed, for example because the disk was full",
            ("storage",),
            lambda: {(name,): queue.failed_commit_count for name, queue in self._queues.items()},
        )

    async def start(self, host: Host) -> None:  # noqa: ARG002 - nothing of it is needed
        """Take the directory.

        Raises:
            OSError: it cannot be used, or another process uses it.
        """
        key = f"extensions::{self._settings.id}::directory"
        directory = self._config.path
        try:
            await self._worker.run(self._prepare)
            lock = DirectoryLock(directory)
            clock = self._settings.clock
            give_up_s = clock.monotonic_s() + (self._config.timeout or float("inf"))
            while not await self._worker.run(lock.try_acquire):
                if clock.monotonic_s() >= give_up_s:
                    raise OSError(f"the directory {directory} is in use by {lock.owner()}")  # noqa: TRY301
                await clock.sleep(_LOCK_POLL_S)
        except OSError as error:
            await self._worker.close()
            raise OSError(f"{key}: {error.strerror or error}") from error
        self._lock = lock
        self._readers = ThreadPoolExecutor(_READERS, thread_name_prefix=f"storage {self._settings.id} read")

    def _prepare(self) -> None:
        prepare(self._config.path, create=self._config.create_directory, mode=self._config.mode)

    async def shutdown(self) -> None:
        """Close what its owners left open, and give the directory back."""
        for queue in list(self._queues.values()):
            await queue.close()
        await self._worker.close()
        readers, self._readers = self._readers, None
        if readers is not None:
            readers.shutdown(wait=False)
        lock, self._lock = self._lock, None
        if lock is not None:
            lock.release()

    async def queue(
        self, name: str, *, max_size_bytes: int | None = None, when_full: WhenFull | None = None
    ) -> FileQueue:
        """See :class:`collector.api.StorageExtension`."""
        readers = self._started()
        if name in self._queues or name in self._opening:
            raise OSError(f"the queue {name!r} of {self._settings.id} is in use already")
        directory = self._config.path / QUEUES / file_name(name)
        config = self._config
        queue = FileQueue(
            directory,
            QueueLimits(config.max_size if max_size_bytes is None else max_size_bytes, when_full or config.when_full),
            sync=config.fsync,
            clock=self._settings.clock,
            readers=readers,
            damage=self._damage(name),
            on_close=lambda: self._forget(name),
        )
        self._opening.add(name)
        try:
            await self._worker.run(partial(make_directory, directory, config.mode))
            await queue.open()
        finally:
            self._opening.discard(name)
        self._queues[name] = queue
        return queue

    def state(self, name: str) -> FileStateStore:
        """See :class:`collector.api.StorageExtension`."""
        readers = self._started()
        store = self._states.get(name)
        if store is None:
            path = self._config.path / STATES / (file_name(name) + STATE_SUFFIX)
            store = self._states[name] = FileStateStore(path, readers, self._damage(name))
        return store

    def _forget(self, name: str) -> None:
        self._queues.pop(name, None)

    def _damage(self, name: str) -> Damage:
        return Damage(name, self._log, self._damaged_bytes)

    def _started(self) -> ThreadPoolExecutor:
        if self._readers is None:
            raise OSError(f"the extension {self._settings.id} is not running")
        return self._readers
