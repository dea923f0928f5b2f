"""Settlement on its own: each item in exactly one book, units released, outcomes passed on."""

import asyncio
import errno

import pytest

from collector.api import PermanentError, RetryableError
from collector.delivery.log import RateLimitedLog
from collector.delivery.queue import SendingQueue
from collector.delivery.settlement import Settlement
from collector.model import Signal
from collector.testing import FakeClock, FakeQueueStorage, RecordingTelemetry, traces
from config.blocks import QueueConfig


class Probe:
    """The settlement of a queue that holds one unit of ``spans`` items."""

    def __init__(self, spans=10, storage=None, result=None):
        self.telemetry = RecordingTelemetry()
        self.clock = FakeClock()
        self.queue = SendingQueue(Signal.TRACES, QueueConfig(), self.clock)
        self.settlement = Settlement(self.queue, self.telemetry, RateLimitedLog(self.telemetry.log, self.clock))
        self.queue.open(storage, lambda size_bytes: None, self.settlement)
        self.units = []
        self.queue.start(1, self.units.append)
        self.queue.try_add(traces(spans=spans), result)
        if storage is None:
            (self.unit,) = self.units

    @property
    def books(self):
        """Delivered, refused by reason, dropped by reason, not settled."""
        ledger = self.telemetry.ledger
        refused, dropped = (
            {reason: count for (_, reason), count in book.items()} for book in (ledger.refused, ledger.dropped)
        )
        return sum(ledger.delivered.values()), refused, dropped, self.unit.unsettled_count

    @property
    def logged(self):
        return [event.event for event in self.telemetry.log.events]


@pytest.mark.parametrize(
    ("rejected", "books"),
    [
        (0, (10, {}, {}, 0)),
        (2, (8, {"partial_success": 2}, {}, 0)),
        (99, (0, {"partial_success": 10}, {}, 0)),
        (-1, (10, {}, {}, 0)),
    ],
)
def test_delivered_items_except_those_that_were_rejected(rejected, books):
    """A backend cannot reject more items than there are."""
    probe = Probe()
    probe.settlement.deliver(probe.unit, 10, rejected)
    assert probe.books == books


def test_the_parts_of_a_unit_are_settled_one_by_one():
    """Each in its book; the remainder is dropped if the exporter fails."""
    probe = Probe()
    probe.settlement.leave_out(probe.unit, 1)
    probe.settlement.deliver(probe.unit, 2)
    probe.settlement.refuse(probe.unit, 3, PermanentError("no", reason="http_400"))
    probe.settlement.give_up(probe.unit, 1, RetryableError("down", reason="connect"), "retries_exhausted")
    assert probe.books == (2, {"http_400": 3}, {"retries_exhausted": 1}, 3)
    probe.settlement.fail(probe.unit, ValueError("bug"))
    assert probe.books == (2, {"http_400": 3}, {"retries_exhausted": 1, "internal_error": 3}, 0)
    assert probe.logged == [
        "the backend refused data",
        "the backend did not accept data; it is dropped",
        "the exporter failed with an internal error; data is dropped",
    ]


def test_items_are_in_flight_until_they_are_settled():
    """Also while the others of their unit are not, so that the ledger closes at any moment."""
    probe = Probe()
    probe.settlement.deliver(probe.unit, 4)
    assert (probe.settlement.in_flight_count, probe.queue.size) == (6, 1)
    probe.settlement.refuse(probe.unit, 6, PermanentError("no", reason="http_400"))
    assert (probe.settlement.in_flight_count, probe.queue.size) == (0, 1)
    probe.settlement.release(probe.unit, None)
    assert (probe.settlement.in_flight_count, probe.queue.size) == (0, 0)


@pytest.mark.parametrize("error", [None, PermanentError("no", reason="http_400")])
async def test_a_caller_that_waits_receives_the_outcome(error):
    """The result, or the error as an exception."""
    result = asyncio.get_running_loop().create_future()
    probe = Probe(result=result)
    probe.settlement.release(probe.unit, error)
    assert result.exception() is error


async def test_a_caller_that_was_cancelled_does_not_disturb():
    """Its future is done already."""
    result = asyncio.get_running_loop().create_future()
    probe = Probe(result=result)
    result.cancel()
    probe.settlement.release(probe.unit, None)
    assert probe.queue.size == 0


def test_what_is_abandoned_is_dropped():
    """Only the items that were not settled before are dropped."""
    probe = Probe()
    probe.settlement.deliver(probe.unit, 4)
    probe.settlement.abandon(probe.unit)
    assert (probe.books[0], probe.books[2], probe.settlement.in_flight_count) == (4, {"shutdown": 6}, 0)


async def test_what_is_abandoned_stays_in_a_durable_queue():
    """It is in flight until the next start."""
    storage = FakeQueueStorage()
    probe = Probe(storage=storage)
    await asyncio.sleep(0)
    (probe.unit,) = probe.units
    probe.settlement.abandon(probe.unit)
    assert (probe.books, probe.settlement.in_flight_count) == ((0, {}, {}, 10), 10)
    assert len(storage.batches) == 1


def test_batches_that_were_not_taken():
    """Counted by reason, and logged where an operator can do something about it."""
    probe = Probe()
    probe.settlement.drop_on_full_queue(1)
    probe.settlement.drop_on_shutdown(3)
    assert probe.books[2] == {"queue_full": 1, "shutdown": 3}
    assert probe.logged == ["the queue is full; data is dropped"]


def test_what_a_storage_loses():
    """A full disk and other errors are told apart."""
    probe = Probe()
    probe.settlement.drop_unstored(2, OSError(errno.ENOSPC, "No space left on device"))
    probe.settlement.drop_unstored(3, OSError(errno.EROFS, "Read-only file system"))
    probe.settlement.drop_evicted(4)
    probe.settlement.drop_damaged(5, OSError("damaged"))
    assert probe.books[2] == {"storage_full": 2, "storage_error": 3, "queue_full": 4, "storage_damaged": 5}
    assert len(probe.logged) == 3


def test_unqueued_batches_are_in_flight_until_they_end():
    """They never enter the queue."""
    probe = Probe(spans=5)
    batch = traces(spans=3)
    unit = probe.settlement.begin_unqueued(batch)
    assert (unit.unsettled_count, probe.settlement.in_flight_count, probe.queue.item_count) == (3, 8, 5)
    probe.settlement.cancel(unit)
    probe.settlement.end_unqueued(unit, batch)
    assert (probe.books[2], probe.settlement.in_flight_count) == ({"cancelled": 3}, 5)


async def test_a_sentence_is_logged_once_in_ten_seconds():
    """An outage must not flood the log; another sentence is another matter."""
    probe = Probe()
    log = RateLimitedLog(probe.telemetry.log, probe.clock)
    for _ in range(3):
        log.warning("one")
        log.error("two")
    assert probe.logged == ["one", "two"]
    await probe.clock.advance(10)
    log.warning("one")
    assert probe.logged == ["one", "two", "one"]


async def test_the_first_few_losses_are_logged_one_by_one():
    """Each has its own name; the last line says that there may be more."""
    probe = Probe()
    log = RateLimitedLog(probe.telemetry.log, probe.clock)
    for number in range(8):
        log.first_errors("lost", names=str(number))
    assert probe.logged == ["lost"] * 5
    assert ["further" in event.fields for event in probe.telemetry.log.events] == [False] * 4 + [True]
    await probe.clock.advance(10)
    log.first_errors("lost")
    assert probe.logged == ["lost"] * 6
