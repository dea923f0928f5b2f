"""FileQueue: what is stored, found again, settled and deleted, and what a full disk does."""

import asyncio
import errno
import os
import subprocess
import sys

import pytest

from collector.model import Context, Signal
from collector.storage import segment as segment_module
from collector.storage.records import HEADER_BYTES, Entry, footer_of, header_of, new_marker
from collector.storage.segment import segment_name
from collector.testing import eventually, logs, metrics, traces


async def contents(queue):
    return [await queue.read(each.key) for each in await queue.after(-1, 10_000)]


async def test_what_is_stored_is_there_after_a_restart(disk, stored):
    """Bytes, counts, context and labels, for each signal; claims are left out."""
    context = Context(metadata=(("x-a", ("1", "\udcff")),), tenant="t", claims=(("sub", "me"),), local_peer=True)
    batches = [traces(spans=3, context=context), metrics(points=4), logs(records=5)]
    batches[0].request_count = 7
    async with disk.opened() as queue:
        await stored(queue, *batches, labels={"reason": "http_400"})
    async with disk.opened() as queue:
        found = await queue.after(-1, 10)
        assert [each.labels for each in found] == [{"reason": "http_400"}] * 3
        assert found[0].request_count == 7
        assert (queue.totals.item_count, queue.totals.request_count, queue.totals.batch_count) == (12, 9, 3)
        read = await contents(queue)
        assert [batch.wire for batch in read] == [batch.wire for batch in batches]
        assert [(batch.signal, batch.item_count) for batch in read] == [
            (Signal.TRACES, 3), (Signal.METRICS, 4), (Signal.LOGS, 5),
        ]  # fmt: skip
        assert read[0].context == found[0].context == Context(context.metadata, "t", local_peer=True)


async def test_what_is_settled_does_not_come_back(disk, stored):
    """And the files of a queue in which nothing is left are gone."""
    async with disk.opened() as queue:
        keys = await stored(queue, *(traces(spans=n) for n in (1, 2, 3)))
        queue.ack(keys[1])
        queue.ack(keys[1])
        assert queue.totals.item_count == 4
    async with disk.opened() as queue:
        assert [each.item_count for each in await queue.after(-1, 10)] == [1, 3]
        with pytest.raises(KeyError):
            await queue.read(keys[1])
        for key in keys:
            queue.ack(key)
        assert queue.totals.batch_count == 0
    assert disk.files(".seg") == disk.files(".acks") == []


async def test_what_arrives_together_is_committed_together(disk, stored):
    """Also what arrives while the disk is busy: a slow disk costs latency, not throughput."""
    async with disk.opened() as queue:
        await stored(queue, *(traces(spans=1) for _ in range(100)))
        assert queue.commit_count == 1
        tasks = [asyncio.ensure_future(stored(queue, traces(spans=1))) for _ in range(3)]
        await asyncio.sleep(0)
        await asyncio.sleep(0)  # the first commit has begun
        tasks += [asyncio.ensure_future(stored(queue, traces(spans=1))) for _ in range(50)]
        await asyncio.gather(*tasks)
        assert queue.commit_count <= 4


async def test_segments_are_completed_and_deleted_as_they_are_settled(disk, stored):
    """The files shrink with what is left of the queue."""
    one = traces(spans=100)
    async with disk.opened(max_size_bytes=64 * one.size_bytes) as queue:
        keys = []
        for _ in range(32):
            keys += await stored(queue, one)
        assert len(disk.files(".seg")) >= 4
        assert queue.size_bytes >= 32 * one.size_bytes
        for key in keys[:24]:
            queue.ack(key)
        await eventually(lambda: len(disk.files(".seg")) <= 2)
        assert queue.size_bytes < 16 * one.size_bytes
        assert [each.key for each in await queue.after(-1, 100)] == keys[24:]


async def test_parts_of_a_long_queue_are_not_kept_in_memory(disk, stored, monkeypatch):
    """The index of a segment in the middle is read again when its turn comes, also in order to settle a batch."""
    monkeypatch.setattr("collector.storage.queue._LOADED_MAX", 1)
    one = traces(spans=100)
    async with disk.opened(max_size_bytes=160 * one.size_bytes) as queue:
        keys = []
        for _ in range(100):
            keys += await stored(queue, one)
        loaded = [segment for segment in queue._segments if segment.entries is not None]
        assert len(queue._segments) > len(loaded)
        queue.ack(keys[60])
        assert [each.key for each in await queue.after(-1, 1000)] == [*keys[:60], *keys[61:]]
        assert (await queue.read(keys[70])).wire == one.wire


async def test_at_the_maximum_size_there_is_no_room_until_something_is_settled(disk, stored):
    """By default the newest is refused."""
    one = traces(spans=1000)
    async with disk.opened(max_size_bytes=4 * one.size_bytes) as queue:
        keys = []
        while queue.has_room(one.size_bytes):
            keys += await stored(queue, one)
        assert len(keys) == 3
        assert not queue.drops_oldest
        queue.ack(keys[0])
        await eventually(lambda: queue.has_room(one.size_bytes))


async def test_the_oldest_can_be_evicted(disk, stored):
    """A segment at a time; its owner learns what was lost."""
    one = traces(spans=1000)
    async with disk.opened(max_size_bytes=4 * one.size_bytes, when_full="drop_oldest") as queue:
        keys = await stored(queue, one)
        keys += await stored(queue, one)
        queue.ack(keys[0])
        evicted = queue.evict_oldest()
        assert (evicted.last_key, evicted.totals.item_count) == (keys[1], 1000)
        assert queue.evict_oldest() is None
        with pytest.raises(KeyError):
            await queue.read(keys[1])
        await stored(queue, one)
        assert queue.totals.item_count == 1000
    async with disk.opened() as queue:
        assert queue.totals.item_count == 1000


class TestAFullDisk:
    @pytest.fixture
    def full(self, monkeypatch):
        """Set ``full.error`` to make every write fail after half of it."""

        class Full:
            error = None

        def pwritev(fd, buffers, offset, flags=0):
            if Full.error is not None:
                os.pwrite(fd, bytes(buffers[0])[: len(buffers[0]) // 2], offset)
                raise Full.error
            return real(fd, buffers, offset, flags)

        real = os.pwritev
        monkeypatch.setattr(segment_module.os, "pwritev", pwritev)
        return Full

    @pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO])
    @pytest.mark.parametrize("is_first", [True, False])
    async def test_it_refuses_and_recovers_by_itself(self, disk, stored, full, code, is_first, monkeypatch):
        """What was refused is not stored; what was stored before and after is."""
        monkeypatch.setattr("collector.storage.queue._FULL_RETRY_S", 0.05)
        async with disk.opened() as queue:
            if not is_first:
                await stored(queue, traces(spans=1))
            full.error = OSError(code, os.strerror(code))
            with pytest.raises(OSError, match=os.strerror(code)):
                await stored(queue, traces(spans=2), traces(spans=3))
            assert not queue.has_room(1)
            assert queue.failed_commit_count == 1
            full.error = None
            await eventually(lambda: queue.has_room(1))
            await stored(queue, traces(spans=4))
            expected = [4] if is_first else [1, 4]
            assert [each.item_count for each in await queue.after(-1, 10)] == expected
            assert queue.totals.item_count == sum(expected)
        async with disk.opened() as queue:
            assert [batch.item_count for batch in await contents(queue)] == expected
        assert disk.files(".corrupt") == []

    async def test_a_real_limit_of_the_file_size(self, tmp_path):
        """With RLIMIT_FSIZE as a disk that is full at 300 KB, in a process of its own."""
        code = f"""
import asyncio, resource, sys
resource.setrlimit(resource.RLIMIT_FSIZE, (300_000, 300_000))
from pathlib import Path
from collector.service.process import SystemClock
from collector.storage import FileStorage, FileStorageSettings
from collector.testing import RecordingTelemetry, traces
async def main():
    storage = FileStorage(FileStorageSettings(Path({str(tmp_path / "disk")!r})), "s", SystemClock(), RecordingTelemetry())
    await storage.open()
    queue = await storage.queue("q")
    outcomes = []
    for _ in range(30):
        outcome = asyncio.get_running_loop().create_future()
        queue.append(traces(spans=100), outcome.set_result)
        outcomes.append(await outcome)
    good = outcomes.index(next(each for each in outcomes if each is not None))
    assert 5 < good < 29, good
    assert queue.totals.batch_count == outcomes.count(None)
    assert len([await queue.read(each.key) for each in await queue.after(-1, 100)]) == outcomes.count(None)
    await storage.close()
    print("done", outcomes.count(None))
asyncio.run(main())
"""
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=50, check=False)
        assert done.stdout.startswith("done"), done.stderr


async def test_a_queue_of_ten_gigabytes_opens_without_reading_it(disk, stored, monkeypatch):
    """Only the ends of its files are read. Its bodies are holes in sparse files here, which makes no difference."""
    async with disk.opened() as queue:
        await stored(queue, traces(spans=1))
    (first,) = disk.files(".seg")
    first.unlink()
    per_segment = 640
    for number in range(160):
        first_key = number * per_segment
        entries = [Entry(first_key + n, HEADER_BYTES + n * 100_000, 99_900, 500, 1, 0, b"") for n in range(per_segment)]
        with first.with_name(segment_name(first_key, new_marker())).open("wb") as file:
            file.write(header_of(first_key))
            file.truncate(HEADER_BYTES + per_segment * 100_000)
            file.seek(0, os.SEEK_END)
            file.write(footer_of(entries))
    assert sum(path.stat().st_size for path in disk.files(".seg")) > 10 * 10**9
    read_bytes = []
    real = os.pread
    monkeypatch.setattr(
        segment_module.os, "pread", lambda fd, size, offset: read_bytes.append(size) or real(fd, size, offset)
    )
    async with disk.opened() as queue:
        assert sum(read_bytes) < 64 * 1024
        assert queue.totals.item_count == 160 * per_segment * 500
        assert [each.key for each in await queue.after(-1, 3)] == [0, 1, 2]
        assert sum(read_bytes) < 128 * 1024
