"""A storage in a temporary directory, and a process that crashes without touching it."""

import asyncio
import shutil
from contextlib import asynccontextmanager

import pytest

from collector.service.process import SystemClock
from collector.storage import FileStorage, FileStorageSettings
from collector.storage.queue import QueueLimits
from collector.testing import RecordingTelemetry


class Disk:
    """The directory of one storage. ``opened`` is a process that uses it, ``crashed`` what a crash would leave now."""

    def __init__(self, folder):
        self.folder = folder
        self.telemetry = RecordingTelemetry()
        self.clock = SystemClock()

    def storage(self, *, sync=True, max_size_bytes=0, when_full="reject_newest", **more):
        limits = QueueLimits(max_size_bytes, when_full)
        settings = FileStorageSettings(self.folder, sync=sync, limits=limits, **more)
        return FileStorage(settings, "file_storage", self.clock, self.telemetry)

    @asynccontextmanager
    async def opened(self, name="q", **config):
        storage = self.storage(**config)
        await storage.open()
        try:
            yield await storage.queue(name)
        finally:
            await storage.close()

    def crashed(self, folder):
        """A copy of the files as they are, without their lock: the disk after ``kill -9``."""
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(self.folder, folder)
        return Disk(folder)

    def files(self, suffix):
        return sorted(self.folder.rglob(f"*{suffix}"))

    @property
    def damaged_bytes(self):
        return sum(self.telemetry.value("tailrace_storage_damaged_bytes", storage="q") for _ in (1,))

    @property
    def logged(self):
        return [event.event for event in self.telemetry.log.events]


@pytest.fixture
def disk(tmp_path):
    return Disk(tmp_path / "disk")


@pytest.fixture
def stored():
    """Append batches and wait until each is stored; the keys."""

    async def store(queue, *batches, labels=None):
        loop = asyncio.get_running_loop()
        outcomes = [loop.create_future() for _ in batches]

        def settle(outcome, error):
            outcome.set_result(None) if error is None else outcome.set_exception(error)

        keys = [
            queue.append(batch, lambda error, outcome=outcome: settle(outcome, error), labels)
            for batch, outcome in zip(batches, outcomes, strict=True)
        ]
        results = await asyncio.gather(*outcomes, return_exceptions=True)
        for error in results:
            if error is not None:
                raise error
        return keys

    return store
