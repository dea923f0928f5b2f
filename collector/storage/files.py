"""FileStorage: a directory that one process owns, and the queues and states in it.

The layout is::

<directory>/tailrace.lock
<directory>/queues/<name>/<first key>.seg, .acks
<directory>/states/<name>.state
"""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Final

from collector.api import Clock, Telemetry, WhenFull
from collector.delivery.log import RateLimitedLog
from collector.storage.damage import Damage
from collector.storage.directory import QUEUES, STATES, DirectoryLock, file_name, make_directory, prepare
from collector.storage.inspect import queue_names, summarize
from collector.storage.queue import FileQueue, QueueLimits
from collector.storage.state import STATE_SUFFIX, FileStateStore
from collector.storage.worker import Worker

__all__ = ["FileStorage", "FileStorageSettings"]

_LOCK_POLL_S: Final = 0.05
_READERS: Final = 2


@dataclass(frozen=True, slots=True)
class FileStorageSettings:
    """What a user may choose. See the configuration of the extension ``file_storage``."""

    directory: Path
    create_directory: bool = True
    mode: int = 0o750
    """Permissions of directories that are created."""
    lock_timeout_s: float = 1.0
    """0: no limit."""
    sync: bool = True
    """A batch counts as stored only once it would survive a power failure, not just the end of the process."""
    limits: QueueLimits = field(default_factory=QueueLimits)


class FileStorage:
    """A :class:`collector.api.StorageExtension` without the life cycle of a component."""

    def __init__(self, settings: FileStorageSettings, name: str, clock: Clock, telemetry: Telemetry) -> None:
        """``name`` is that of its owner, for threads and messages."""
        self._settings, self._name, self._clock = settings, name, clock
        self._log = RateLimitedLog(telemetry.log, clock)
        self._lock: DirectoryLock | None = None
        self._worker = Worker(f"{name} files")
        self._readers: ThreadPoolExecutor | None = None
        self._queues: dict[str, FileQueue] = {}
        self._opening: set[str] = set()
        self._states: dict[str, FileStateStore] = {}
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

    async def open(self) -> None:
        """Take the directory.

        Raises:
            OSError: it cannot be used, or another process uses it.
        """
        settings, clock = self._settings, self._clock
        try:
            await self._worker.run(
                partial(prepare, settings.directory, create=settings.create_directory, mode=settings.mode)
            )
            lock = DirectoryLock(settings.directory)
            give_up_s = clock.monotonic_s() + (settings.lock_timeout_s or float("inf"))
            while not await self._worker.run(lock.try_acquire):
                if clock.monotonic_s() >= give_up_s:
                    raise OSError(  # noqa: TRY301 - the thread has to end
                        f"the directory {settings.directory} is in use by {lock.owner()}; use another directory"
                    )
                await clock.sleep(_LOCK_POLL_S)
        except BaseException:
            await self._worker.close()
            raise
        self._lock = lock
        self._readers = ThreadPoolExecutor(_READERS, thread_name_prefix=f"{self._name} read")

    async def close(self) -> None:
        """Close what its owners left open, and give the directory back. Safe when it is not open."""
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
            raise OSError(f"the queue {name!r} of {self._name} is in use already")
        settings = self._settings
        directory = settings.directory / QUEUES / file_name(name)
        limits = settings.limits
        queue = FileQueue(
            directory,
            QueueLimits(
                limits.max_size_bytes if max_size_bytes is None else max_size_bytes, when_full or limits.when_full
            ),
            sync=settings.sync,
            clock=self._clock,
            readers=readers,
            damage=self._damage(name),
            on_close=partial(self._forget, name),
        )
        self._opening.add(name)
        try:
            await self._worker.run(partial(make_directory, directory, settings.mode))
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
            path = self._settings.directory / STATES / (file_name(name) + STATE_SUFFIX)
            store = self._states[name] = FileStateStore(path, readers, self._damage(name))
        return store

    def unopened(self) -> list[str]:
        """The names of queues with something in them that nobody has opened (blocking)."""
        known = self._queues.keys() | self._opening
        return [
            name
            for name in queue_names(self._settings.directory)
            if name not in known and summarize(self._settings.directory, name).totals.batch_count
        ]

    def problems(self) -> dict[str, str]:
        """Why queues cannot be written at present, by their names."""
        return {name: queue.problem for name, queue in self._queues.items() if queue.problem}

    def _forget(self, name: str) -> None:
        self._queues.pop(name, None)

    def _damage(self, name: str) -> Damage:
        return Damage(name, self._log, self._damaged_bytes)

    def _started(self) -> ThreadPoolExecutor:
        if self._readers is None:
            raise OSError(f"the storage {self._name} is not open")
        return self._readers
