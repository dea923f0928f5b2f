"""A queue with a storage: what is acknowledged when, what is sent after a restart, what is lost to a bad disk."""

import asyncio
import errno

import pytest
from delivery_rig import OK, Backend, Probe, Rig, down
from hypothesis import given, settings
from hypothesis import strategies as st

from collector.api import RetryableError, SharedState
from collector.model import Context, Signal
from collector.testing import FakeHost, FakeStorage, eventually, traces

NAME = "probe/a traces"
FULL = OSError(errno.ENOSPC, "No space left on device")


class DiskRig(Rig):
    """An exporter with a queue on ``disk``; ``restart`` gives another one on the same disk."""

    def __init__(self, disk, backend=None, type_=Probe, **config):
        queue = {"storage": "file_storage", "num_consumers": 1, **config.pop("sending_queue", {})}
        super().__init__(backend or Backend(), type_, sending_queue=queue, **config)
        self.disk = disk
        self.host = FakeHost(extensions={"file_storage": disk})

    @property
    def stored(self):
        return self.disk.queues[NAME]

    @property
    def in_flight(self):
        return sum(self.exporter.in_flight_items().values())

    async def stop(self):
        stopping = asyncio.ensure_future(self.exporter.shutdown())
        while not stopping.done():
            await self.clock.advance(1)
        await stopping


async def test_consume_returns_once_the_batch_is_stored():
    """Not earlier; nothing is sent before either, so what is refused was never delivered."""
    async with DiskRig(FakeStorage()) as rig:
        rig.stored.hold()
        assert not rig.exporter.try_consume(traces(spans=3))
        consuming = asyncio.ensure_future(rig.consume(traces(spans=3)))
        await rig.clock.advance(0)
        assert (consuming.done(), rig.backend.seen, rig.in_flight) == (False, [], 3)
        rig.stored.resume()
        await consuming
        await rig.settled()
        assert rig.delivered == 3
        assert rig.stored.batches == {}


async def test_what_is_left_is_sent_after_the_restart():
    """It is in flight until then; the next process counts it as created."""
    disk = FakeStorage()
    first = DiskRig(disk, Backend(default=down()))
    await first.exporter.start(first.host)
    await first.consume(traces(spans=3), traces(spans=4))
    await first.stop()
    first.check()
    assert (first.count("dropped"), first.in_flight) == (0, 7)
    assert first.host.admission.used_bytes == 0

    async with DiskRig(disk) as second:
        second.received = 7
        await second.settled()
        assert (second.delivered, second.count("created")) == (7, 7)
        assert [batch.item_count for batch in second.backend.seen] == [3, 4]


async def test_a_reload_counts_nothing_twice():
    """What the predecessor left in the storage moves to its successor, and is not created anew."""
    disk, shared = FakeStorage(), SharedState()
    first = DiskRig(disk, Backend(default=down()), shared=shared)
    await first.exporter.start(first.host)
    await first.consume(traces(spans=5))
    await first.stop()
    assert first.in_flight == 5
    second = DiskRig(disk, shared=shared)
    async with second:
        assert first.in_flight == 0
        second.received = 5
        await second.settled()
        assert (second.delivered, second.count("created")) == (5, 0)


async def test_the_oldest_is_sent_first_however_much_there_is():
    """Only a part of it is at hand at a time; what arrives meanwhile comes last."""
    disk = FakeStorage()
    first = DiskRig(disk, Backend(default=down()), sending_queue={"queue_size": 10_000})
    await first.exporter.start(first.host)
    for count in range(1, 1501):
        await first.exporter.consume(traces(spans=count % 7 + 1))
    await first.stop()

    async with DiskRig(disk, sending_queue={"queue_size": 10_000}) as second:
        second.received = second.count("created")
        await second.consume(traces(spans=9))
        await second.settled()
        assert [batch.item_count for batch in second.backend.seen] == [*(n % 7 + 1 for n in range(1, 1501)), 9]


async def test_a_queue_that_outgrows_its_memory_keeps_order_and_memory():
    """Beyond what is at hand, batches are on the disk alone."""
    backend = Backend()
    backend.gate.clear()
    async with DiskRig(FakeStorage(), backend, sending_queue={"queue_size": 10_000}) as rig:
        one = traces(spans=1)
        for count in range(1, 2001):
            await rig.exporter.consume(traces(spans=count % 5 + 1))
            rig.received += count % 5 + 1
        assert rig.host.admission.used_bytes < 700 * traces(spans=5).memory_bytes
        assert one.size_bytes
        backend.gate.set()
        await rig.settled()
        assert [batch.item_count for batch in backend.seen] == [n % 5 + 1 for n in range(1, 2001)]


async def test_what_cannot_be_stored_is_reported_to_the_sender():
    """New data is refused at the door meanwhile; afterwards the queue works again by itself."""
    async with DiskRig(FakeStorage()) as rig:
        rig.stored.fail_with = FULL
        assert not rig.exporter.has_room(traces(spans=1))
        rig.stored.hold()
        rig.stored.fail_with = None
        consuming = asyncio.ensure_future(rig.consume(traces(spans=3)))
        await rig.clock.advance(0)
        rig.stored.fail_with = FULL
        rig.stored.resume()
        with pytest.raises(RetryableError, match="No space left"):
            await consuming
        assert rig.reasons("dropped") == {"storage_full": 3}
        assert rig.backend.seen == []
        rig.stored.fail_with = None
        await rig.consume(traces(spans=2))
        await rig.settled()
        assert rig.delivered == 2


async def test_a_damaged_batch_costs_only_itself():
    """It is counted, and neither stops nor delays what is behind it."""
    disk = FakeStorage()
    first = DiskRig(disk, Backend(default=down()))
    await first.exporter.start(first.host)
    await first.consume(traces(spans=3), traces(spans=4), traces(spans=5))
    await first.stop()
    disk.queues[NAME].unreadable = {1}
    async with DiskRig(disk) as second:
        second.received = 12
        await second.settled()
        assert second.reasons("dropped") == {"storage_damaged": 4}
        assert [batch.item_count for batch in second.backend.seen] == [3, 5]
        assert disk.queues[NAME].batches == {}


async def test_the_oldest_makes_room_for_the_newest():
    """With ``drop_oldest``: what is being sent is not touched, and the books close."""
    backend = Backend()
    backend.gate.clear()
    async with DiskRig(FakeStorage(), backend) as rig:
        rig.stored.when_full, rig.stored.max_batches = "drop_oldest", 3
        for count in (1, 2, 4, 8, 16):
            assert rig.exporter.has_room(traces(spans=count))
            await rig.consume(traces(spans=count))
        assert rig.reasons("dropped") == {"queue_full": 2}
        assert rig.exporter.in_flight_items()[Signal.TRACES] == 29
        backend.gate.set()
        await rig.settled()
        assert [batch.item_count for batch in backend.seen] == [1, 4, 8, 16]


async def test_what_was_evicted_while_it_was_sent_is_lost_at_shutdown():
    """It is only in memory then, and must not count as kept."""
    disk = FakeStorage()
    rig = DiskRig(disk, Backend(default=down()))
    await rig.exporter.start(rig.host)
    rig.stored.when_full, rig.stored.max_batches = "drop_oldest", 1
    await rig.consume(traces(spans=3))
    await rig.consume(traces(spans=4))
    await rig.stop()
    rig.check()
    assert (rig.reasons("dropped"), rig.in_flight) == ({"queue_full": 3}, 4)
    assert [stored.item_count for stored, _ in disk.queues[NAME].batches.values()] == [4]


async def test_a_batch_of_which_a_part_was_delivered_is_sent_again_as_a_whole():
    """The storage has all of it or nothing; the repeated items count as created."""

    class Halved(Probe):
        max_items = 5

    disk = FakeStorage()
    first = DiskRig(disk, Backend(OK, default=down()), Halved)
    await first.exporter.start(first.host)
    await first.consume(traces(spans=10))
    await first.stop()
    assert (first.delivered, first.count("created"), first.in_flight) == (5, 5, 10)
    async with DiskRig(disk) as second:
        second.received = 10
        await second.settled()
        assert second.delivered == 10


async def test_what_was_stored_is_merged_after_the_restart():
    """By context, which is known without reading the batches."""
    disk = FakeStorage()
    first = DiskRig(disk, Backend(default=down()))
    await first.exporter.start(first.host)
    for tenant, count in (("a", 3), ("b", 4), ("a", 5)):
        await first.consume(traces(spans=count, context=Context(tenant=tenant)))
    await first.stop()
    async with DiskRig(disk, sending_queue={"batch": {"min_size": 8}}) as second:
        second.received = 12
        await eventually(lambda: len(second.backend.seen) == 1)
        await second.clock.advance(1)
        await second.settled()
        assert [(batch.item_count, batch.context.tenant) for batch in second.backend.seen] == [(8, "a"), (4, "b")]


async def test_a_queue_on_disk_is_not_bounded_like_one_in_memory():
    """``max_bytes`` applies if it was set; otherwise the storage's own limit does."""
    one = traces(spans=10)
    backend = Backend()
    backend.gate.clear()
    async with DiskRig(FakeStorage(), backend, sending_queue={"max_bytes": one.size_bytes * 2}) as rig:
        await rig.consume(one, one, one)
        assert rig.reasons("dropped") == {"queue_full": 10}
        backend.gate.set()
        await rig.settled()
    assert DiskRig(FakeStorage()).exporter._queues[Signal.TRACES]._max_bytes == 0


LIVES = st.lists(
    st.fixed_dictionaries(
        {
            "answers": st.lists(st.sampled_from(["ok", "down"]), max_size=5),
            "default": st.sampled_from(["ok", "down"]),
            "when_full": st.sampled_from(["reject_newest", "drop_oldest"]),
            "max_batches": st.sampled_from([0, 1, 3]),
            "steps": st.lists(
                st.tuples(st.sampled_from([None, None, FULL]), st.integers(1, 5), st.sampled_from([0, 1, 10])),
                max_size=6,
            ),
        }
    ),
    min_size=1,
    max_size=3,
)


@settings(max_examples=100)
@given(LIVES)
async def test_nothing_is_lost_and_the_books_close_whatever_happens(lives):
    """Random batches, failures of disk and backend, evictions and restarts."""
    disk, total, delivered, dropped = FakeStorage(), 0, 0, 0
    outcomes = {"ok": lambda: OK, "down": down}
    for life in lives:
        answers = [outcomes[name]() for name in life["answers"]]
        rig = DiskRig(disk, Backend(*answers, default=outcomes[life["default"]]()))
        await rig.exporter.start(rig.host)
        rig.received = rig.count("created")
        rig.stored.when_full, rig.stored.max_batches = life["when_full"], life["max_batches"]
        for fail_with, count, wait_s in life["steps"]:
            rig.stored.fail_with = fail_with
            total += count
            rig.received += count
            await asyncio.gather(rig.exporter.consume(traces(spans=count)), return_exceptions=True)
            await rig.clock.advance(wait_s)
            rig.check()
        rig.stored.fail_with = None
        await rig.stop()
        rig.check()
        delivered, dropped = delivered + rig.delivered, dropped + rig.count("dropped")
    assert total == delivered + dropped + sum(stored.item_count for stored, _ in disk.queues[NAME].batches.values())
