"""SendingQueue on its own: bounds, order, what is passed on when, merging, and what is released."""

import asyncio

import pytest

from collector.delivery.queue import SendingQueue
from collector.model import Context, Signal
from collector.testing import FakeClock, traces
from config.blocks import QueueConfig


class Probe:
    """A queue whose units are collected instead of sent; ``charged_bytes`` is what it holds of the memory budget."""

    def __init__(self, max_sending=1, **config):
        self.clock = FakeClock()
        self.queue = SendingQueue(Signal.TRACES, QueueConfig.model_validate(config), self.clock)
        self.charged_bytes = 0
        self.sent = []
        self.queue.open(None, self.charge)
        self.queue.start(max_sending, self.sent.append)

    def charge(self, size_bytes):
        self.charged_bytes += size_bytes

    def add(self, *span_counts, **more):
        return [self.queue.try_add(traces(spans=count, seed=count, **more)) for count in span_counts]

    def release(self, index=0):
        """Settle one of the units being sent; the next one is sent in its place."""
        self.queue.release(self.sent.pop(index))
        if (unit := self.queue.next_unit()) is not None:
            self.sent.append(unit)

    @property
    def sizes(self):
        return [unit.unsettled_count for unit in self.sent]


def test_units_are_passed_on_in_order_at_most_so_many_at_a_time():
    """A released unit makes room for the next one that waits."""
    probe = Probe(max_sending=2)
    assert probe.add(1, 2, 3, 4) == [True] * 4
    assert probe.sizes == [1, 2]
    probe.release(1)
    assert probe.sizes == [1, 3]
    probe.release()
    probe.release()
    probe.release()
    assert (probe.sizes, probe.queue.next_unit()) == ([], None)


def test_nothing_is_passed_on_before_the_start():
    """What was added before is sent then."""
    queue = SendingQueue(Signal.TRACES, QueueConfig(), FakeClock())
    queue.try_add(traces(spans=1))
    sent = []
    queue.start(10, sent.append)
    assert len(sent) == 1


def test_everything_not_released_counts_against_the_bound():
    """Also what is being sent; the memory budget is charged for it."""
    probe = Probe(queue_size=2)
    assert probe.add(1, 2, 3) == [True, True, False]
    assert (probe.queue.size, probe.queue.item_count) == (2, 3)
    assert probe.charged_bytes >= probe.queue.size_bytes > 0
    probe.release()
    assert probe.add(4) == [True]
    probe.release()
    probe.release()
    assert (probe.queue.size, probe.queue.size_bytes, probe.queue.item_count, probe.charged_bytes) == (0, 0, 0, 0)


def test_requests_are_counted_as_senders_sent_them():
    """The door joins several into one batch."""
    probe = Probe(queue_size=10)
    joined = traces(spans=4)
    joined.request_count = 8
    assert probe.queue.try_add(joined)
    assert (probe.queue.size, probe.queue.has_room(joined)) == (8, False)
    assert probe.add(1, 1, 1) == [True, True, False]


@pytest.mark.parametrize(
    ("config", "fits"), [({"sizer": "items", "queue_size": 25}, 2), ({"max_bytes": 10}, 1), ({"queue_size": 3}, 3)]
)
def test_the_bound_is_in_units_of_the_sizer_and_in_bytes(config, fits):
    """An empty queue has room for one batch of any size."""
    probe = Probe(**config)
    assert [probe.queue.try_add(traces(spans=10)) for _ in range(fits + 1)] == [True] * fits + [False]


def test_a_queue_that_blocks_on_overflow_accepts_twice_its_bounds():
    """Stages emit from timers and cannot be refused; ``has_room`` still says no at the bound."""
    probe = Probe(queue_size=2, block_on_overflow=True)
    assert probe.add(1, 1) == [True, True]
    assert not probe.queue.has_room(traces(spans=1))
    assert probe.add(1, 1, 1) == [True, True, False]


def test_what_has_to_wait_is_kept_without_its_index():
    """A batch that is sent at once will need the index; a queue holds bytes."""
    probe = Probe()
    batch = traces(spans=3)
    assert batch.field("span_id").size
    for _ in range(2):
        probe.queue.try_add(batch)
    units = probe.queue.take_all()
    assert [bool(probe.queue.read_single(unit).index.tables()) for unit in units] == [True, False]


def test_taking_all_returns_units_being_sent_then_waiting_then_merging():
    """Afterwards the queue passes nothing on any more."""
    probe = Probe()
    probe.add(1, 2, 3)
    assert [unit.unsettled_count for unit in probe.queue.take_all()] == [1, 2, 3]
    probe.add(4)
    assert probe.sizes == [1]


async def test_waiting_ends_when_the_last_unit_is_released():
    """Not earlier, and at once for an empty queue."""
    probe = Probe(max_sending=2)
    await probe.queue.wait_empty()
    probe.add(1, 2)
    waiting = asyncio.ensure_future(probe.queue.wait_empty())
    probe.release()
    await asyncio.sleep(0)
    assert not waiting.done()
    probe.release()
    await waiting


MERGE = {"min_size": 10, "flush_timeout": "1s"}


class TestMerging:
    async def test_batches_are_merged_until_they_are_large_enough(self):
        probe = Probe(batch=MERGE)
        probe.add(4, 5)
        assert probe.sizes == []
        probe.add(6)
        assert probe.sizes == [15]
        (merged,) = await probe.queue.read(probe.sent[0])
        assert merged.item_count == 15

    async def test_only_batches_with_equal_contexts_are_merged(self):
        probe = Probe(max_sending=9, batch=MERGE)
        for tenant in ("a", "b", "a", "b"):
            probe.add(5, context=Context(tenant=tenant))
        contexts = [batch.context.tenant for unit in probe.sent for batch in await probe.queue.read(unit)]
        assert (probe.sizes, contexts) == ([10, 10], ["a", "b"])

    async def test_a_unit_is_read_as_batches_within_max_size(self):
        probe = Probe(batch=MERGE | {"max_size": 12})
        probe.add(30)
        assert [batch.item_count for batch in await probe.queue.read(probe.sent[0])] == [12, 12, 6]

    async def test_only_the_partition_keys_decide_if_there_are_any(self):
        """The headers that differ are dropped, as in the Collector; tenants are never mixed."""
        probe = Probe(max_sending=9, batch=MERGE | {"partition": {"metadata_keys": ["X-Region"]}})
        for region, path, tenant in (("eu", "/a", "t"), ("eu", "/b", "t"), ("us", "/a", "t"), ("us", "/a", "u")):
            metadata = (("path", (path,)), ("x-region", (region,)))
            probe.add(5, context=Context(metadata=metadata, tenant=tenant))
        probe.queue.flush()
        merged = [batch for unit in probe.sent for batch in await probe.queue.read(unit)]
        assert [(batch.item_count, dict(batch.context.metadata), batch.context.tenant) for batch in merged] == [
            (10, {"x-region": ("eu",)}, "t"),
            (5, {"x-region": ("us",)}, "t"),
            (5, {"x-region": ("us",)}, "u"),
        ]

    def test_a_batch_that_would_exceed_max_size_starts_a_new_unit(self):
        probe = Probe(max_sending=9, batch=MERGE | {"max_size": 12})
        probe.add(8, 7)
        assert probe.sizes == [8]
        probe.queue.flush()
        assert probe.sizes == [8, 7]

    async def test_a_small_unit_is_sent_after_the_timeout(self):
        probe = Probe(max_sending=9, batch=MERGE)
        flushing = asyncio.ensure_future(probe.queue.flush_when_due())
        probe.add(3)
        await probe.clock.advance(0.9)
        assert probe.sizes == []
        await probe.clock.advance(0.2)
        assert probe.sizes == [3]
        flushing.cancel()
        await asyncio.gather(flushing, return_exceptions=True)
