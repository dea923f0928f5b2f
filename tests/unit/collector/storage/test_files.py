"""The directory: who owns it, what its parts are called, and values that are replaced as a whole."""

import asyncio
import os
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from collector.storage.directory import file_name, name_of
from collector.testing import FakeClock, traces


class TestOwnership:
    async def test_a_second_process_is_refused_and_told_which_one_has_it(self, disk):
        """It waits for the configured time first."""
        code = f"""
import asyncio, sys
from pathlib import Path
from collector.service.process import SystemClock
from collector.storage import FileStorage, FileStorageSettings
from collector.testing import RecordingTelemetry
settings = FileStorageSettings(Path({str(disk.folder)!r}), lock_timeout_s=0.2)
try:
    asyncio.run(FileStorage(settings, "s", SystemClock(), RecordingTelemetry()).open())
except OSError as error:
    print(error)
"""
        async with disk.opened():
            second = await asyncio.to_thread(
                subprocess.run, [sys.executable, "-c", code], capture_output=True, text=True, timeout=50, check=True
            )
        assert f"is in use by process {os.getpid()}" in second.stdout, second.stderr

    async def test_it_is_waited_for(self, disk):
        """A predecessor may still be ending."""
        disk.clock = FakeClock()
        async with disk.opened():
            waiting = asyncio.ensure_future(disk.storage(lock_timeout_s=10).open())
            while not disk.clock._sleepers:
                await asyncio.sleep(0.001)
            assert not waiting.done()
        while not waiting.done():
            await disk.clock.advance(0.05)
        await waiting

    async def test_a_queue_has_one_owner(self, disk, stored):
        """It can be opened again once it is closed."""
        storage = disk.storage()
        await storage.open()
        queue = await storage.queue("a")
        await storage.queue("b")
        with pytest.raises(OSError, match="'a' of file_storage is in use"):
            await storage.queue("a")
        await queue.close()
        await queue.close()
        again = await storage.queue("a")
        with pytest.raises(OSError, match="closed"):
            await stored(queue, traces(spans=1))
        await stored(again, traces(spans=1))
        await storage.close()
        await storage.close()

    async def test_a_directory_that_is_missing_is_named(self, disk):
        """With what to do about it."""
        with pytest.raises(OSError, match="does not exist; create it, or set create_directory: true"):
            await disk.storage(create_directory=False).open()
        disk.folder.write_text("")
        with pytest.raises(OSError, match="is not a directory"):
            await disk.storage(create_directory=False).open()

    async def test_files_are_private(self, disk, stored):
        """They contain what senders sent."""
        async with disk.opened(mode=0o700) as queue:
            (key,) = await stored(queue, traces(spans=1))
            await stored(queue, traces(spans=1))
            queue.ack(key)
        for path in disk.folder.rglob("*"):
            assert path.stat().st_mode & 0o077 == 0, path


@given(st.text(max_size=30))
def test_names_are_safe_for_files_and_can_be_told_again(name):
    """Every name, also ones that lead elsewhere."""
    escaped = file_name(name)
    assert "/" not in escaped
    assert escaped not in {"", ".", ".."}
    assert escaped.isascii()
    if name:
        assert name_of(escaped) == name


def test_a_name_that_is_too_long_is_refused():
    """File systems allow 255 bytes."""
    with pytest.raises(OSError, match="too long"):
        file_name("x" * 300)


class TestState:
    async def test_the_last_value_is_there_after_a_restart(self, disk):
        """Saved in the background or at once; of two, the later one wins."""
        storage = disk.storage()
        await storage.open()
        store = storage.state("tail_sampling@traces")
        assert await store.load() is None
        saving = asyncio.ensure_future(store.save(b"old" * 100_000))
        await asyncio.sleep(0)
        store.save_now(b"new")
        await saving
        assert await store.load() == b"new"
        await store.save(b"")
        assert await store.load() == b""
        store.discard()
        store.discard()
        assert await store.load() is None
        await store.save(b"later")
        assert await store.load() == b"later"
        await storage.close()

    @pytest.mark.parametrize("place", [0, 9, 20, 30, -1])
    async def test_a_damaged_value_is_none_and_put_aside(self, disk, place):
        """Components start without it rather than with something wrong."""
        storage = disk.storage()
        await storage.open()
        store = storage.state("q")
        await store.save(b"x" * 100)
        (path,) = disk.files(".state")
        content = bytearray(path.read_bytes())
        content[place] ^= 1
        path.write_bytes(content)
        if place == 9:  # part of the version, which is not part of the checksum: a release that does not exist
            with pytest.raises(OSError, match="newer release"):
                await store.load()
        else:
            assert await store.load() is None
            assert len(disk.files(".corrupt")) == 1
            assert disk.damaged_bytes == len(content)
            await store.save(b"again")
            assert await store.load() == b"again"
        await storage.close()

    async def test_a_failed_save_leaves_the_previous_value(self, disk, monkeypatch):
        """And no file beside it."""
        storage = disk.storage()
        await storage.open()
        store = storage.state("s")
        await store.save(b"good")

        def fail(fd):
            raise OSError(28, "No space left on device")

        monkeypatch.setattr("collector.storage.state.os.fsync", fail)
        with pytest.raises(OSError, match="No space"):
            await store.save(b"better")
        monkeypatch.undo()
        assert await store.load() == b"good"
        assert not disk.files(".new")
        await storage.close()
