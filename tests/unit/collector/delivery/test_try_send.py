"""Sending without a task: the same outcomes as with one, nothing twice, never more at a time than ``num_consumers``."""

import asyncio
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from collector.api import PermanentError, RetryableError, Status, TooLargeError
from collector.delivery import ExporterConfig, QueuedExporter
from collector.model import Batch, Signal
from collector.testing import FakeClock, FakeHost, FakeStorage, RecordingTelemetry, eventually, make_settings, traces


class Probe(QueuedExporter[Batch]):
    """Sends at once while ``sends_at_once``, to be answered by ``answer``; otherwise in tasks, answered by ``script``."""

    enforces_timeout = True

    def __init__(self, *, signals=frozenset({Signal.TRACES}), **config):
        self.recorded = RecordingTelemetry()
        self.fake_clock = FakeClock()
        made = make_settings(signals=signals, telemetry=self.recorded, clock=self.fake_clock, component_id="probe/a")
        super().__init__(made, ExporterConfig.model_validate(config), uniform=lambda low, high: (low + high) / 2)
        self.host = FakeHost()
        self.sends_at_once = True
        self.sent_at_once = []
        self.callbacks = []
        self.sent = []
        self.times = []
        self.script = []

    async def __aenter__(self):
        await self.start(self.host)
        return self

    async def __aexit__(self, kind, *_):
        stopping = asyncio.ensure_future(self.shutdown())
        while not stopping.done():
            await self.fake_clock.advance(1)
        await stopping
        if kind is None:
            assert self.host.admission.used_bytes == 0, "everything charged is released"

    def try_send(self, batch, on_done):
        if not self.sends_at_once:
            return False
        self.sent_at_once.append(batch.item_count)
        self.callbacks.append(on_done)
        return True

    async def send(self, payload):
        self.sent.append(payload.item_count)
        self.times.append(self.fake_clock.monotonic_s())
        answer = self.script.pop(0) if self.script else 0
        if callable(answer):
            answer = answer(payload)
        if isinstance(answer, Exception):
            raise answer
        return answer

    def answer(self, outcome=0, place=0):
        self.callbacks.pop(place)(outcome)

    def add(self, *counts):
        for count in counts:
            assert self.try_consume(traces(spans=count, seed=count))

    @property
    def in_flight(self):
        return sum(self.in_flight_items().values())

    @property
    def requests(self):
        return self.recorded.value("otelcol_exporter_in_flight_requests", data_type="traces")

    @property
    def books(self):
        ledger = self.recorded.ledger
        reasons = Counter()
        for kind in (ledger.dropped, ledger.refused):
            for (_, reason), count in kind.items():
                reasons[reason] += count
        return sum(ledger.delivered.values()), dict(reasons)


def down():
    return RetryableError("connection refused", reason="connect")


async def test_a_batch_is_sent_within_the_call_that_adds_it():
    """And settled within the call of ``on_done``: no task is created or woken."""
    async with Probe() as probe:
        tasks = asyncio.all_tasks()
        probe.add(3)
        assert (probe.sent_at_once, probe.in_flight, probe.requests) == ([3], 3, 1)
        probe.answer()
        assert (probe.books, probe.in_flight, probe.requests) == ((3, {}), 0, 0)
        assert asyncio.all_tasks() == tasks
        assert probe.sent == []


@pytest.mark.parametrize(
    ("rejected", "books"), [(2, (8, {"partial_success": 2})), (99, (0, {"partial_success": 10})), (-1, (10, {}))]
)
async def test_items_rejected_in_a_partial_success_are_refused(rejected, books):
    """At most as many items are refused as the batch has."""
    async with Probe() as probe:
        probe.add(10)
        probe.answer(rejected)
        assert probe.books == books


async def test_a_failed_attempt_is_repeated_by_a_task():
    """Once, after the backoff; the outage is reported, and its end as well."""
    async with Probe() as probe:
        probe.add(3)
        probe.answer(down())
        await probe.fake_clock.advance(4)
        assert (probe.sent, probe.in_flight, probe.requests) == ([], 3, 0)
        assert "connection refused" in probe.health.last_error
        await probe.fake_clock.advance(2)
        assert (probe.times, probe.sent, probe.books) == ([5], [3], (3, {}))
        assert [status for status, _ in probe.host.statuses] == [Status.RECOVERABLE_ERROR, Status.OK]


async def test_the_time_of_the_first_attempt_counts():
    """``max_elapsed_time`` starts with the first attempt."""
    async with Probe(retry_on_failure={"max_elapsed_time": "8s", "max_interval": "6s"}) as probe:
        probe.add(3)
        await probe.fake_clock.advance(4)
        probe.answer(down())
        await probe.fake_clock.advance(10)
        assert (probe.sent, probe.books) == ([], (0, {"retries_exhausted": 3}))


@pytest.mark.parametrize(
    ("outcome", "reason"),
    [
        (PermanentError("no", reason="http_400"), "http_400"),
        (TooLargeError("413", reason="http_413"), "http_413"),
        (ValueError("bug"), "internal_error"),
    ],
)
async def test_what_is_refused_is_not_sent_again(outcome, reason):
    """The next batch is sent instead."""
    async with Probe(sending_queue={"num_consumers": 1}) as probe:
        probe.add(3, 4)
        probe.answer(outcome)
        await probe.fake_clock.advance(10)
        probe.answer()
        assert (probe.sent_at_once, probe.sent, probe.books) == ([3, 4], [], (4, {reason: 3}))


async def test_a_batch_that_is_too_large_is_sent_in_parts():
    """The task cuts it; later batches of that size are not sent at once."""
    async with Probe() as probe:
        probe.add(2000)
        probe.answer(TooLargeError("413", reason="http_413"))
        await probe.fake_clock.advance(1)
        assert (sum(probe.sent), max(probe.sent) < 2000, probe.books) == (2000, True, (2000, {}))
        probe.add(2001)
        await probe.fake_clock.advance(1)
        assert (probe.sent_at_once, probe.books) == ([2000], (4001, {}))


async def test_num_consumers_limits_concurrent_requests_and_the_order_is_kept():
    """At once and in tasks together; a batch that waits for its next attempt keeps its place."""
    async with Probe(sending_queue={"num_consumers": 2}) as probe:
        probe.add(1, 2, 3, 4, 5)
        assert probe.sent_at_once == [1, 2]
        probe.answer(down())
        await probe.fake_clock.advance(1)
        assert probe.sent_at_once == [1, 2]
        probe.answer()
        assert probe.sent_at_once == [1, 2, 3]
        await probe.fake_clock.advance(10)
        assert (probe.sent, probe.sent_at_once) == ([1], [1, 2, 3, 4]), (
            "the task has ended, and the next batch needs none"
        )
        probe.answer()
        probe.answer()
        assert probe.sent_at_once == [1, 2, 3, 4, 5]
        probe.answer()
        assert probe.books == (15, {})


async def test_one_consumer_keeps_the_order_through_failures():
    """Nothing overtakes a batch that is retried."""
    async with Probe(sending_queue={"num_consumers": 1}) as probe:
        probe.add(1, 2, 3)
        probe.answer()
        probe.answer(down())
        probe.script = [down()]
        await probe.fake_clock.advance(100)
        assert (probe.sent_at_once, probe.sent) == ([1, 2, 3], [2, 2])
        probe.answer()
        assert probe.books == (6, {})


async def test_a_batch_that_cannot_be_sent_at_once_is_sent_in_a_task():
    """Not now, or not at all: nothing is lost if ``try_send`` raises."""
    async with Probe(sending_queue={"num_consumers": 1}) as probe:
        probe.sends_at_once = False
        probe.add(1, 2)
        await probe.fake_clock.advance(0)
        assert (probe.sent, probe.books) == ([1, 2], (3, {}))
        probe.try_send = lambda *_: 1 / 0
        probe.add(4)
        await probe.fake_clock.advance(0)
        assert (probe.sent, probe.books) == ([1, 2, 4], (7, {}))


@pytest.mark.parametrize(
    ("limits", "config"),
    [
        ({"max_items": 5}, {}),
        ({"max_request_bytes": 1000}, {}),
        ({"enforces_timeout": False}, {"timeout": "1s"}),
        ({}, {"sending_queue": {"batch": {"min_size": 1, "flush_timeout": "1s"}}}),
        ({}, {"sending_queue": {"enabled": False}}),
    ],
)
async def test_only_whole_batches_are_sent_at_once(limits, config):
    """Not if they must be split or merged, not if a timeout must be enforced, and not without a queue."""
    async with type("Limited", (Probe,), limits)(**config) as probe:
        await probe.consume(traces(spans=10))
        await probe.fake_clock.advance(1)
        assert (probe.sent_at_once, probe.books) == ([], (10, {}))


async def test_a_caller_that_waits_for_the_result_receives_it():
    """The caller sees the success of one batch and the refusal of another."""
    async with Probe(sending_queue={"wait_for_result": True}) as probe:
        first, second = (asyncio.ensure_future(probe.consume(traces(spans=n))) for n in (1, 2))
        await probe.fake_clock.advance(0)
        probe.answer(PermanentError("no", reason="http_400"))
        probe.answer()
        await probe.fake_clock.advance(0)
        with pytest.raises(PermanentError):
            await first
        assert await second is None


class TestShutdown:
    async def test_batches_that_are_answered_in_time_are_delivered(self):
        """Batches that waited are sent meanwhile."""
        probe = Probe(sending_queue={"num_consumers": 1})
        async with probe:
            probe.add(1, 2, 3)
            stopping = asyncio.ensure_future(probe.shutdown())
            for _ in range(3):
                await probe.fake_clock.advance(1)
                probe.answer()
            await stopping
            assert probe.books == (6, {})

    async def test_other_batches_are_dropped_once(self):
        """An answer that arrives too late changes nothing."""
        probe = Probe(sending_queue={"num_consumers": 2})
        async with probe:
            probe.add(1, 2, 4)
        for outcome in (0, down()):
            probe.answer(outcome)
        await probe.fake_clock.advance(10)
        assert (probe.books, probe.in_flight, probe.requests) == ((0, {"shutdown": 7}), 0, 0)
        assert (probe.sent_at_once, probe.sent) == ([1, 2], [])

    async def test_a_durable_queue_keeps_them(self):
        """They are sent after the restart, and are in flight until then."""
        disk = FakeStorage()
        probe = Probe(sending_queue={"storage": "disk"})
        probe.host = FakeHost(extensions={"disk": disk})
        await probe.start(probe.host)
        await probe.consume(traces(spans=5))
        assert probe.sent_at_once == [5]
        stopping = asyncio.ensure_future(probe.shutdown())
        await probe.fake_clock.advance(20)
        await stopping
        probe.answer()
        assert (probe.books, probe.in_flight) == ((0, {}), 5)
        again = Probe(sending_queue={"storage": "disk"})
        again.host = FakeHost(extensions={"disk": disk})
        await again.start(again.host)
        await eventually(lambda: again.sent == [5])
        assert again.books == (5, {})
        await again.shutdown()

    @pytest.mark.parametrize("turns", range(12))
    async def test_a_failure_during_the_shutdown_is_counted_once(self, turns):
        """In whichever turn of the loop it happens: dropped, and no task that outlives the exporter sends anything."""
        probe = Probe()
        await probe.start(probe.host)
        probe.add(3)
        stopping = asyncio.ensure_future(probe.shutdown())
        await probe.fake_clock.advance(1)
        stopping.cancel()
        for _ in range(turns):
            await asyncio.sleep(0)
        probe.answer(down())
        await asyncio.gather(stopping, return_exceptions=True)
        await probe.fake_clock.advance(100)
        assert (probe.books, probe.in_flight, probe.sent) == ((0, {"shutdown": 3}), 0, [])
        assert probe.host.admission.used_bytes == 0


OUTCOMES = st.sampled_from(
    [
        0,
        0,
        0,
        1,
        down(),
        PermanentError("no", reason="http_400"),
        TooLargeError("no", reason="http_413"),
        ValueError("x"),
    ]
)
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("take"), st.integers(1, 5)),
        st.tuples(st.just("answer"), st.integers(0, 9), OUTCOMES),
        st.tuples(st.just("sends_at_once"), st.booleans()),
        st.tuples(st.just("advance"), st.integers(0, 20)),
    ),
    max_size=40,
)


@settings(max_examples=150, deadline=None)
@given(STEPS, st.lists(OUTCOMES, max_size=10), st.integers(1, 3))
def test_the_books_close_whatever_happens(steps, script, num_consumers):
    """Every item is settled once, requests stay within ``num_consumers``, and one consumer keeps the order."""

    async def run():
        received, first_attempts = 0, []
        probe = Probe(sending_queue={"num_consumers": num_consumers}, retry_on_failure={"max_elapsed_time": "30s"})
        probe.script = list(script)

        def try_send(batch, on_done):
            is_sent = Probe.try_send(probe, batch, on_done)
            if is_sent:
                first_attempts.append(batch.wire)
            return is_sent

        probe.try_send = try_send
        sent = probe.send

        async def send(payload):
            if payload.wire not in first_attempts:
                first_attempts.append(payload.wire)
            return await sent(payload)

        probe.send = send
        given_wires = []
        async with probe:
            for number, (step, *what) in enumerate(steps):
                if step == "take":
                    batch = traces(spans=what[0], seed=number)
                    given_wires.append(batch.wire)
                    received += batch.item_count
                    probe.try_consume(batch)
                elif step == "answer" and probe.callbacks:
                    probe.answer(what[1], what[0] % len(probe.callbacks))
                elif step == "sends_at_once":
                    probe.sends_at_once = what[0]
                elif step == "advance":
                    await probe.fake_clock.advance(what[0])
                delivered, reasons = probe.books
                assert received == delivered + sum(reasons.values()) + probe.in_flight
                assert len(probe.callbacks) <= probe.requests <= num_consumers
        delivered, reasons = probe.books
        assert (received, probe.in_flight, probe.requests) == (
            delivered + sum(reasons.values()),
            0,
            len(probe.callbacks),
        )
        assert num_consumers > 1 or first_attempts == given_wires[: len(first_attempts)]

    asyncio.run(run())
