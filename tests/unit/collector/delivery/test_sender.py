"""Sender on its own, between a scripted exporter and a real queue: at once or in a task, parts, attempts, errors."""

import asyncio

import pytest

from collector.api import PermanentError, RetryableError, TooLargeError
from collector.delivery.breaker import CircuitBreaker
from collector.delivery.concurrency import ConcurrencyLimit
from collector.delivery.gate import Gate
from collector.delivery.health import BackendHealth
from collector.delivery.log import RateLimitedLog
from collector.delivery.parts import Part, whole_part
from collector.delivery.queue import SendingQueue
from collector.delivery.retry import RetryPolicy
from collector.delivery.sender import Sender
from collector.delivery.settlement import Settlement
from collector.delivery.tasks import TaskSet
from collector.model import Signal
from collector.testing import FakeClock, RecordingTelemetry, eventually, traces
from config.blocks import QueueConfig, RetryConfig


class ScriptedExporter:
    """What the sender needs of an exporter. ``outcomes`` are those of the attempts, then success."""

    max_request_bytes = 0
    max_items = 0
    isolated_reasons = frozenset({"http_400"})

    def __init__(self, *outcomes):
        self.outcomes = list(outcomes)
        self.sent = []
        self.callbacks = []

    async def send(self, payload):
        self.sent.append(payload.item_count)
        outcome = self.outcomes.pop(0) if self.outcomes else None
        if isinstance(outcome, asyncio.Event):
            outcome = await outcome.wait() and None
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    def try_send(self, batch, on_done):
        self.sent.append(batch.item_count)
        self.callbacks.append(on_done)
        return True

    def encode(self, batch):
        return [whole_part(batch)]

    def cut(self, part):
        halves = part.payload.split(max_bytes=part.size_bytes // 2)
        return [Part(half, half.item_count, part.shard, half.size_bytes) for half in halves]

    cut_refused = cut

    def describe(self, payload):
        return f"{payload.item_count} spans"


class Probe:
    """A sender with everything around it; batches are added to its queue."""

    def __init__(self, exporter, *, sends_at_once=False, timeout_s=None, num_consumers=1, **retry):
        self.exporter = exporter
        self.telemetry = RecordingTelemetry()
        self.clock = FakeClock()
        self.tasks = TaskSet()
        self.merged = []
        self.queue = SendingQueue(Signal.TRACES, QueueConfig(), self.clock)
        log = RateLimitedLog(self.telemetry.log, self.clock)
        self.retry = RetryPolicy(RetryConfig.model_validate(retry), self.clock, lambda low, high: (low + high) / 2)
        self.health = BackendHealth("exporter probe", self.clock)
        self.sender = Sender(
            exporter,
            self.queue,
            Settlement(self.queue, self.telemetry, log),
            self.retry,
            Gate(CircuitBreaker(5, lambda: self.retry.probe_backoff(5.0)), ConcurrencyLimit(num_consumers), self.clock),
            self.health,
            tasks=self.tasks,
            log=log,
            clock=self.clock,
            timeout_s=timeout_s,
            sends_at_once=sends_at_once,
            record_merged=lambda *sizes: self.merged.append(sizes),
        )
        self.queue.start(num_consumers, self.sender.start_sending)

    async def send(self, *span_counts):
        """Add batches and give the tasks time for what needs no waiting."""
        for count in span_counts:
            self.queue.try_add(traces(spans=count, seed=count))
        await self.clock.advance(0)

    @property
    def books(self):
        """Delivered items, and refused or dropped ones by reason."""
        ledger = self.telemetry.ledger
        losses = {reason: count for book in (ledger.refused, ledger.dropped) for (_, reason), count in book.items()}
        return sum(ledger.delivered.values()), losses


def down():
    return RetryableError("connection refused", reason="connect")


async def test_units_are_sent_one_after_the_other_and_released():
    """One task sends all units, in order."""
    probe = Probe(ScriptedExporter())
    await probe.send(1, 2, 3)
    assert (probe.exporter.sent, probe.books, probe.queue.size) == ([1, 2, 3], (6, {}), 0)


async def test_a_unit_sent_at_once_needs_no_task():
    """Neither the unit nor the one after it starts a task."""
    probe = Probe(ScriptedExporter(), sends_at_once=True)
    tasks = asyncio.all_tasks()
    probe.queue.try_add(traces(spans=1))
    probe.queue.try_add(traces(spans=2))
    assert (probe.exporter.sent, probe.sender.gate.in_flight) == ([1], 1)
    probe.exporter.callbacks.pop()(0)
    assert (probe.exporter.sent, probe.books) == ([1, 2], (1, {}))
    assert asyncio.all_tasks() == tasks


async def test_a_failed_attempt_at_once_is_the_first_of_the_task():
    """It is not repeated before the backoff is over, and its batch is not encoded again."""
    probe = Probe(ScriptedExporter(), sends_at_once=True)
    await probe.send(5)
    await probe.clock.advance(3)
    probe.exporter.encode = None
    probe.exporter.callbacks.pop()(down())
    await probe.clock.advance(4)
    assert (probe.exporter.sent, probe.health.last_error) == ([5], "connection refused")
    await probe.clock.advance(1)
    assert (probe.exporter.sent, probe.books) == ([5, 5], (5, {}))


async def test_after_the_stop_outcomes_are_ignored():
    """What they belong to is dropped by the exporter."""
    probe = Probe(ScriptedExporter(), sends_at_once=True)
    await probe.send(5)
    probe.sender.stop()
    probe.exporter.callbacks.pop()(0)
    assert (probe.books, probe.queue.item_count, probe.sender.gate.in_flight) == ((0, {}), 5, 0)


@pytest.mark.parametrize(
    ("outcomes", "books"),
    [
        ([3], (7, {"partial_success": 3})),
        ([down()], (10, {})),
        ([PermanentError("no", reason="http_403")], (0, {"http_403": 10})),
        ([down(), PermanentError("no", reason="http_403")], (0, {"http_403": 10})),
        ([ValueError("bug")], (0, {"internal_error": 10})),
        ([down()] * 9, (0, {"retries_exhausted": 10})),
    ],
)
async def test_how_attempts_end(outcomes, books):
    """Success, refusal, a bug, or no more time."""
    probe = Probe(ScriptedExporter(*outcomes), max_elapsed_time="30s")
    await probe.send(10)
    await probe.clock.advance(60)
    assert (probe.books, probe.queue.size) == (books, 0)


async def test_an_attempt_without_answer_ends_with_the_timeout():
    """The attempt is then repeated like any other failure."""
    probe = Probe(ScriptedExporter(asyncio.Event()), timeout_s=0.01)
    await probe.send(1)
    await eventually(lambda: probe.health.last_error != "")
    assert probe.health.last_error == "the backend did not answer in time"
    await probe.clock.advance(10)
    assert probe.books == (1, {})


async def test_a_part_that_is_too_large_is_cut_and_the_limit_lowered():
    """Later batches are then split beforehand."""
    probe = Probe(ScriptedExporter(TooLargeError("413", reason="http_413")))
    batch = traces(spans=1000)
    probe.queue.try_add(batch)
    await probe.clock.advance(0)
    assert (probe.exporter.sent[0], sum(probe.exporter.sent[1:]), probe.books) == (1000, 1000, (1000, {}))
    assert probe.exporter.max_request_bytes == batch.size_bytes // 2


class PickyExporter(ScriptedExporter):
    """Refuses every request that holds one of the ``bad`` items, which it knows by their numbers in the batch."""

    def __init__(self, *bad):
        super().__init__()
        self.bad = set(bad)
        self.accepted = []

    def encode(self, batch):
        return [Part(range(batch.item_count), batch.item_count, size_bytes=1)]

    def cut(self, part):
        numbers = part.payload
        middle = len(numbers) // 2
        halves = [numbers[:middle], numbers[middle:]] if middle else [numbers]
        return [Part(half, len(half), part.shard, 1) for half in halves]

    cut_refused = cut

    def describe(self, payload):
        return str(list(payload))

    async def send(self, payload):
        self.sent.append(len(payload))
        if self.bad & set(payload):
            raise PermanentError("no", reason="http_400")
        self.accepted += payload


@pytest.mark.parametrize("bad", [{0}, {999}, {17, 18, 600}, {1, 501, 502, 999}])
async def test_a_refused_batch_loses_only_the_items_to_blame(bad):
    """In order, with a few requests, and the log names an item that is lost."""
    probe = Probe(PickyExporter(*bad))
    await probe.send(1000)
    assert probe.exporter.accepted == [number for number in range(1000) if number not in bad]
    assert probe.books == (1000 - len(bad), {"http_400": len(bad)})
    assert len(probe.exporter.sent) <= 128
    assert probe.telemetry.log.of_level("error")[0].fields["names"] == str([min(bad)])


async def test_a_backend_that_refuses_everything_is_not_flooded():
    """At most 128 more requests for the first batch, soon four; the whole number as soon as something is accepted."""
    exporter = PickyExporter(*range(1000))
    probe = Probe(exporter)
    counts = []
    for _ in range(5):
        exporter.sent.clear()
        await probe.send(1000)
        counts.append(len(exporter.sent))
    assert probe.books == (0, {"http_400": 5000})
    assert counts[0] <= 129
    assert counts[-1] <= 5
    exporter.bad = {999}
    await probe.send(1000)
    await probe.send(1000)
    assert probe.books[1]["http_400"] <= 5000 + 500 + 1


async def test_shards_are_sent_at_the_same_time_and_each_in_order():
    """A shard that hangs does not hold up the other one."""
    gate = asyncio.Event()
    exporter = ScriptedExporter(gate)
    exporter.encode = lambda batch: [
        Part(part, part.item_count, shard=number % 2) for number, part in enumerate(batch.split(max_items=1))
    ]
    probe = Probe(exporter)
    await probe.send(4)
    assert (probe.books, probe.sender.gate.in_flight) == ((2, {}), 1)
    gate.set()
    await probe.clock.advance(0)
    assert probe.books == (4, {})


async def test_items_that_encode_leaves_out_are_not_counted_again():
    """``encode`` counts the items that it leaves out, so the sender does not."""
    exporter = ScriptedExporter()
    exporter.encode = lambda batch: [Part(batch, batch.item_count - 2)]
    probe = Probe(exporter)
    await probe.send(5)
    assert (probe.books, probe.queue.size) == ((3, {}), 0)


@pytest.mark.parametrize("error", [down(), PermanentError("no", reason="http_403"), ValueError("bug")])
async def test_without_a_queue_the_error_is_returned(error):
    """For the caller, which waits; a bug appears as a failure that may be repeated."""
    probe = Probe(ScriptedExporter(error), enabled=False)
    returned = await probe.sender.send_unqueued(traces(spans=3))
    assert returned is error or (returned.reason, returned.__cause__) == ("internal_error", error)
    assert sum(probe.books[1].values()) == 3


async def test_draining_ends_the_wait_for_the_next_attempt():
    """Later waits last a second at most."""
    probe = Probe(ScriptedExporter(down(), down()))
    await probe.send(1)
    probe.retry.drain()
    await probe.clock.advance(0)
    assert probe.exporter.sent == [1, 1]
    await probe.clock.advance(1)
    assert (probe.exporter.sent, probe.books) == ([1, 1, 1], (1, {}))
