"""What ``QueueStorage`` promises, of the files and of the double that other tests use instead of them."""

import pytest

from collector.api import QueueStorage, StorageExtension, StoredTotals
from collector.model import Context
from collector.testing import FakeStorage, traces

CONTEXT = Context(metadata=(("x-a", ("1",)),), tenant="t", claims=(("sub", "me"),), local_peer=False)


class Restartable:
    """A storage that can be closed and opened again."""

    def __init__(self, disk):
        self.disk, self.fake, self.open_one = disk, FakeStorage(), None

    async def queue(self, *, is_fake, **limits):
        """The queue in a new life of the process."""
        if is_fake:
            if self.fake.queues:
                await self.fake.queues["q"].close()
            return await self.fake.queue("q", **limits)
        if self.open_one is not None:
            await self.open_one.close()
        self.open_one = self.disk.storage()
        await self.open_one.open()
        return await self.open_one.queue("q", **limits)

    async def close(self):
        if self.open_one is not None:
            await self.open_one.close()


@pytest.fixture(params=["files", "double"])
async def restart(request, disk):
    restartable = Restartable(disk)

    async def start(**limits):
        return await restartable.queue(is_fake=request.param == "double", **limits)

    yield start
    await restartable.close()


async def test_the_double_is_a_storage_extension():
    """As the check in ``find_storage`` sees it."""
    assert isinstance(FakeStorage(), StorageExtension)


async def test_batches_are_kept_until_they_are_acknowledged(restart, stored):
    """In order, over a restart, with all that is known of them but the claims."""
    queue: QueueStorage = await restart()
    batches = [traces(spans=count, context=CONTEXT) for count in (1, 2, 3)]
    batches[1].request_count = 9
    keys = await stored(queue, *batches, labels={"reason": "why"})
    assert keys == sorted(keys)
    queue.ack(keys[0])
    queue.ack(keys[0])
    for _ in range(2):
        size_bytes = sum(batch.size_bytes for batch in batches[1:])
        assert queue.totals == StoredTotals(2, 10, 5, size_bytes)
        assert [each.key for each in await queue.after(-1, 1)] == keys[1:2]
        assert [each.key for each in await queue.after(keys[1], 9)] == keys[2:]
        assert await queue.after(keys[2], 9) == []
        for each, batch in zip(await queue.after(-1, 9), batches[1:], strict=True):
            read = await queue.read(each.key)
            assert (read.wire, read.item_count) == (batch.wire, batch.item_count)
            assert read.request_count == each.request_count == batch.request_count
            assert read.context == each.context == Context(CONTEXT.metadata, "t", local_peer=False)
            assert each.labels == {"reason": "why"}
        with pytest.raises(KeyError):
            await queue.read(keys[0])
        queue = await restart()


async def test_the_oldest_can_be_evicted(restart, stored):
    """Its owner learns how much it was; an acknowledgement of it does no harm."""
    queue = await restart(when_full="drop_oldest")
    assert queue.drops_oldest
    assert queue.evict_oldest() is None
    keys = await stored(queue, traces(spans=4))
    evicted = queue.evict_oldest()
    assert (evicted.last_key, evicted.totals.item_count, evicted.totals.batch_count) == (keys[0], 4, 1)
    queue.ack(keys[0])
    assert queue.totals == StoredTotals()
    (key,) = await stored(queue, traces(spans=5))
    assert key > keys[0]
    assert [each.item_count for each in await queue.after(-1, 9)] == [5]


async def test_closing_twice_is_safe(restart, stored):
    """And what was being stored is stored before the first call returns."""
    queue = await restart()
    outcomes = []
    queue.append(traces(spans=2), outcomes.append)
    await queue.close()
    assert outcomes == [None]
    await queue.close()
    queue = await restart()
    assert queue.totals.item_count == 2
