"""Delivery under faults: whatever the backend does, received = delivered + dropped + refused + in flight."""

import asyncio
import re
from collections import deque

import pytest

from collector.api import PermanentError, RetryableError, Status, TooLargeError
from collector.delivery import ExporterConfig, MemoryStorage, Part, QueuedExporter
from collector.model import Batch, Context, Signal
from collector.testing import FakeClock, FakeHost, RecordingTelemetry, eventually, logs, make_settings, traces

OK = object()


class Backend:
    """What the other end does: a script of answers, then ``default``; ``gate`` holds requests back."""

    def __init__(self, *script, default=OK):
        self.script = deque(script)
        self.default = default
        self.seen = []
        self.times = []
        self.gate = asyncio.Event()
        self.gate.set()
        self.concurrent = 0
        self.concurrent_max = 0


class Probe(QueuedExporter[Batch]):
    def __init__(self, settings, config, backend):
        super().__init__(settings, config, uniform=lambda low, high: (low + high) / 2)
        self.backend = backend

    async def send(self, payload):
        backend = self.backend
        backend.seen.append(payload)
        backend.times.append(self.settings.clock.monotonic_s())
        backend.concurrent += 1
        backend.concurrent_max = max(backend.concurrent_max, backend.concurrent)
        try:
            await backend.gate.wait()
        finally:
            backend.concurrent -= 1
        answer = backend.script.popleft() if backend.script else backend.default
        if callable(answer):
            answer = answer(payload)
        if isinstance(answer, Exception):
            raise answer
        return answer if isinstance(answer, int) else None


class Rig:
    def __init__(self, backend, type_=Probe, **config):
        self.backend = backend
        self.telemetry = RecordingTelemetry()
        self.clock = FakeClock()
        self.host = FakeHost()
        settings = make_settings(
            signals=frozenset(Signal), telemetry=self.telemetry, clock=self.clock, component_id="probe/a"
        )
        self.exporter = type_(settings, ExporterConfig.model_validate(config), backend)
        self.received = 0

    async def __aenter__(self):
        await self.exporter.start(self.host)
        return self

    async def __aexit__(self, kind, *_):
        stopping = asyncio.ensure_future(self.exporter.shutdown())
        while not stopping.done():
            await self.clock.advance(1)
        await stopping
        if kind is None:
            self.check()
            assert not any(self.exporter.in_flight_items().values())
            assert self.host.admission.used_bytes == 0, "everything charged is released"

    async def take(self, *batches):
        for batch in batches:
            self.received += batch.item_count
            await self.exporter.consume(batch)
        self.check()

    def count(self, kind):
        return sum(getattr(self.telemetry.ledger, kind).values())

    @property
    def delivered(self):
        return self.count("delivered")

    def reasons(self, kind):
        found = {}
        for (_, reason), count in getattr(self.telemetry.ledger, kind).items():
            found[reason] = found.get(reason, 0) + count
        return found

    def check(self):
        in_flight = sum(self.exporter.in_flight_items().values())
        assert self.received == self.delivered + self.count("dropped") + self.count("refused") + in_flight

    async def settled(self):
        await eventually(lambda: not any(self.exporter.in_flight_items().values()))
        self.check()


def down(**more):
    return RetryableError("connection refused", reason="connect", **more)


async def test_a_healthy_backend_gets_everything_once():
    backend = Backend()
    async with Rig(backend) as rig:
        await rig.take(*(traces(spans=n) for n in range(1, 20)), logs(records=7))
        await rig.settled()
        assert rig.delivered == sum(range(1, 20)) + 7
    assert sorted(b.item_count for b in backend.seen) == sorted([*range(1, 20), 7])
    assert rig.telemetry.ledger.delivered == {Signal.TRACES: sum(range(1, 20)), Signal.LOGS: 7}


async def test_a_dead_backend_is_tried_with_backoff_then_the_data_is_dropped():
    backend = Backend(default=down())
    async with Rig(backend, retry_on_failure={"max_elapsed_time": "30s"}) as rig:
        await rig.take(traces(spans=5))
        await rig.clock.advance(100)
        await rig.settled()
        assert rig.reasons("dropped") == {"retries_exhausted": 5}
    assert backend.times == pytest.approx([0, 5, 12.5, 23.75])  # 5, 7.5, 11.25; the next would be beyond 30


async def test_a_flapping_backend_delays_but_loses_nothing():
    backend = Backend(down(), OK, down(), down(), OK)
    async with Rig(backend, sending_queue={"num_consumers": 1}) as rig:
        await rig.take(traces(spans=3), traces(spans=4))
        await rig.clock.advance(60)
        await rig.settled()
        assert rig.delivered == 7


@pytest.mark.parametrize(("asked", "second"), [(None, 5), (1.0, 5), (42.0, 42)])
async def test_the_servers_wish_and_the_backoff_hold_whichever_is_longer(asked, second):
    backend = Backend(down(retry_after_s=asked))
    async with Rig(backend) as rig:
        await rig.take(traces(spans=3))
        await rig.clock.advance(100)
        await rig.settled()
    assert backend.times == [0, second]


async def test_a_wish_beyond_max_elapsed_time_drops_at_once():
    backend = Backend(down(retry_after_s=301))
    async with Rig(backend) as rig:
        await rig.take(traces(spans=3))
        await rig.settled()
        assert rig.reasons("dropped") == {"retries_exhausted": 3}


async def test_without_retry_the_first_failure_is_the_last():
    async with Rig(Backend(down()), retry_on_failure={"enabled": False}) as rig:
        await rig.take(traces(spans=3))
        await rig.settled()
        assert rig.reasons("dropped") == {"retry_disabled": 3}


async def test_what_the_backend_refuses_is_not_sent_again():
    backend = Backend(PermanentError("bad", reason="http_400"))
    async with Rig(backend) as rig:
        await rig.take(traces(spans=3), traces(spans=2))
        await rig.settled()
        assert rig.reasons("refused") == {"http_400": 3}
        assert rig.delivered == 2
    assert len(backend.seen) == 2


@pytest.mark.parametrize(("answer", "delivered", "refused"), [(2, 8, 2), (0, 10, 0), (99, 0, 10), (-1, 10, 0)])
async def test_a_partial_success_refuses_what_was_rejected(answer, delivered, refused):
    async with Rig(Backend(answer)) as rig:
        await rig.take(traces(spans=10))
        await rig.settled()
        assert (rig.delivered, rig.count("refused")) == (delivered, refused)


async def test_only_the_part_that_failed_is_sent_again():
    class Halved(Probe):
        max_items = 5

    backend = Backend(OK, down(), OK, OK)
    async with Rig(backend, Halved) as rig:
        await rig.take(traces(spans=15))
        await rig.clock.advance(10)
        await rig.settled()
        assert rig.delivered == 15
    assert [b.item_count for b in backend.seen] == [5, 5, 5, 5]
    assert backend.seen[1].wire == backend.seen[2].wire


async def test_a_refused_part_does_not_stop_the_others():
    class Halved(Probe):
        max_items = 5

    async with Rig(Backend(OK, PermanentError("no", reason="http_400"), OK), Halved) as rig:
        await rig.take(traces(spans=15))
        await rig.settled()
        assert (rig.delivered, rig.reasons("refused")) == (10, {"http_400": 5})


async def test_requests_stay_below_the_backends_limit():
    class Small(Probe):
        max_request_bytes = 3000

    backend = Backend()
    async with Rig(backend, Small) as rig:
        await rig.take(traces(spans=64))
        await rig.settled()
        assert rig.delivered == 64
    assert len(backend.seen) > 1
    assert all(b.size_bytes <= 3000 for b in backend.seen)


async def test_a_full_queue_drops_for_itself_alone():
    backend = Backend()
    backend.gate.clear()
    async with Rig(backend, sending_queue={"queue_size": 2, "num_consumers": 1}) as rig:
        await rig.take(traces(spans=1), traces(spans=2))
        assert not rig.exporter.has_room(traces(spans=1))
        assert rig.exporter.has_room(logs(records=1)), "each signal has a queue of its own"
        await rig.take(traces(spans=4))
        assert rig.reasons("dropped") == {"queue_full": 4}
        assert rig.telemetry.value("otelcol_exporter_queue_size", data_type="traces") == 2
        assert rig.telemetry.value("otelcol_exporter_queue_capacity", data_type="traces") == 2
        backend.gate.set()
        await rig.settled()
        assert rig.exporter.has_room(traces(spans=1))
        assert rig.delivered == 3
    assert not rig.exporter.blocks_on_overflow()


async def test_a_queue_that_must_not_lose_refuses_at_the_door_and_takes_what_is_past_it():
    backend = Backend()
    backend.gate.clear()
    async with Rig(backend, sending_queue={"queue_size": 2, "num_consumers": 1, "block_on_overflow": True}) as rig:
        assert rig.exporter.blocks_on_overflow()
        await rig.take(traces(spans=1), traces(spans=1))
        assert not rig.exporter.has_room(traces(spans=1)), "the door refuses the request"
        await rig.take(traces(spans=1), traces(spans=1))
        assert rig.count("dropped") == 0, "what a stage held and emits now is not lost"
        await rig.take(traces(spans=1))
        assert rig.reasons("dropped") == {"queue_full": 1}, "nor does the queue grow without bound"
        backend.gate.set()
        await rig.settled()


@pytest.mark.parametrize("sizer", ["items", "bytes"])
async def test_queue_size_counts_in_units_of_its_sizer(sizer):
    backend = Backend()
    backend.gate.clear()
    one = traces(spans=10)
    limit = 25 if sizer == "items" else one.size_bytes * 5 // 2
    async with Rig(backend, sending_queue={"queue_size": limit, "sizer": sizer}) as rig:
        await rig.take(one, one, one)
        assert rig.reasons("dropped") == {"queue_full": 10}
        backend.gate.set()
        await rig.settled()


async def test_the_queue_is_bounded_by_bytes_whatever_its_sizer():
    backend = Backend()
    backend.gate.clear()
    one = traces(spans=10)
    async with Rig(backend, sending_queue={"max_bytes": one.size_bytes * 2}) as rig:
        await rig.take(one, one, one)
        assert rig.reasons("dropped") == {"queue_full": 10}
        assert rig.host.admission.used_bytes >= one.size_bytes * 2
        backend.gate.set()
        await rig.settled()


async def test_one_batch_larger_than_the_queue_goes_through_an_empty_one():
    async with Rig(Backend(), sending_queue={"queue_size": 3, "sizer": "items"}) as rig:
        await rig.take(traces(spans=10))
        await rig.settled()
        assert rig.delivered == 10


async def test_consumers_bound_what_is_sent_at_once():
    backend = Backend()
    backend.gate.clear()
    async with Rig(backend, sending_queue={"num_consumers": 3}) as rig:
        await rig.take(*(traces(spans=1) for _ in range(20)))
        await eventually(lambda: backend.concurrent == 3)
        assert rig.telemetry.value("otelcol_exporter_in_flight_requests", data_type="traces") == 3
        backend.gate.set()
        await rig.settled()
    assert backend.concurrent_max == 3


async def test_one_consumer_keeps_the_order_through_failures():
    backend = Backend(OK, down(), down(), OK)
    async with Rig(backend, sending_queue={"num_consumers": 1}) as rig:
        await rig.take(*(traces(spans=n) for n in (1, 2, 3, 4)))
        await rig.clock.advance(100)
        await rig.settled()
    assert [b.item_count for b in backend.seen] == [1, 2, 2, 2, 3, 4]


async def test_shards_go_at_the_same_time_and_each_in_order():
    class Sharded(Probe):
        def encode(self, batch):
            return [Part(part, part.item_count, shard=index % 2) for index, part in enumerate(batch.split(max_items=1))]

    failed = []

    def first_of_shard_0_fails(payload):
        if not failed:
            failed.append(payload)
            return down()
        return OK

    backend = Backend(first_of_shard_0_fails)
    async with Rig(backend, Sharded, sending_queue={"num_consumers": 1}) as rig:
        await rig.take(traces(spans=4, services=1))
        await rig.clock.advance(1)
        assert rig.delivered == 2, "the other shard is not held up"
        await rig.clock.advance(10)
        await rig.settled()
        assert rig.delivered == 4
    wires = [b.wire for b in backend.seen]
    assert wires.count(failed[0].wire) == 2
    assert wires[-2] == failed[0].wire, "the shard goes on after its first part was taken"


async def test_items_an_encoder_leaves_out_are_its_own_to_count():
    class Picky(Probe):
        def encode(self, batch):
            self.telemetry.dropped(batch.signal, batch.item_count - 1, "unsupported")
            return [Part(batch, 1)]

    async with Rig(Backend(), Picky) as rig:
        await rig.take(traces(spans=5))
        await rig.settled()
        assert (rig.delivered, rig.reasons("dropped")) == (1, {"unsupported": 4})


async def test_a_bug_in_an_exporter_costs_one_batch_and_not_the_exporter():
    async with Rig(Backend(ValueError("bug"))) as rig:
        await rig.take(traces(spans=5))
        await rig.settled()
        await rig.take(traces(spans=6))
        await rig.settled()
        assert (rig.delivered, rig.reasons("dropped")) == (6, {"internal_error": 5})


async def test_an_attempt_without_answer_times_out_and_is_tried_again():
    backend = Backend()
    backend.gate.clear()
    async with Rig(backend, timeout="10ms") as rig:
        await rig.take(traces(spans=5))
        await eventually(lambda: rig.exporter.health.last_error != "")
        backend.gate.set()
        await rig.clock.advance(10)
        await rig.settled()
        assert rig.delivered == 5


async def test_an_exporter_that_keeps_its_timeout_gets_no_second_one():
    """Its send ends in time by itself."""

    class Keeping(Probe):
        enforces_timeout = True

    backend = Backend()
    backend.gate.clear()
    async with Rig(backend, Keeping, timeout="1ms") as rig:
        await rig.take(traces(spans=5))
        await eventually(lambda: backend.concurrent == 1)
        due_s = asyncio.get_running_loop().time() + 0.02
        await eventually(lambda: asyncio.get_running_loop().time() > due_s)
        assert (backend.concurrent, rig.exporter.health.last_error) == (1, "")
        backend.gate.set()
        await rig.settled()
        assert rig.delivered == 5


MERGE = {"sending_queue": {"num_consumers": 1, "batch": {"flush_timeout": "200ms", "min_size": 10}}}


class TestMerging:
    async def test_small_batches_wait_for_each_other(self):
        backend = Backend()
        async with Rig(backend, **MERGE) as rig:
            await rig.take(*(traces(spans=3, seed=n) for n in range(4)))
            await rig.settled()
        assert [b.item_count for b in backend.seen] == [12]

    async def test_what_stays_small_goes_when_its_time_is_over(self):
        backend = Backend()
        async with Rig(backend, **MERGE) as rig:
            await rig.take(traces(spans=3))
            await rig.clock.advance(0.15)
            await rig.take(traces(spans=2))
            assert backend.seen == []
            await rig.clock.advance(0.1)
            assert [b.item_count for b in backend.seen] == [5]
            await rig.take(traces(spans=1))
            await rig.clock.advance(0.3)
            assert [b.item_count for b in backend.seen] == [5, 1]

    async def test_only_equal_contexts_merge(self):
        backend = Backend()
        async with Rig(backend, **MERGE) as rig:
            await rig.take(*(traces(spans=5, context=Context(tenant=name)) for name in ("a", "b", "a", "b")))
            await rig.settled()
        assert [(b.item_count, b.context.tenant) for b in backend.seen] == [(10, "a"), (10, "b")]

    async def test_max_size_is_never_exceeded(self):
        backend = Backend()
        async with Rig(backend, sending_queue={"batch": {"min_size": 8, "max_size": 10, "flush_timeout": "1s"}}) as rig:
            await rig.take(traces(spans=6), traces(spans=6), traces(spans=25))
            await rig.clock.advance(2)
            await rig.settled()
            assert rig.delivered == 37
        assert max(b.item_count for b in backend.seen) <= 10

    async def test_bytes_can_be_the_measure(self):
        backend = Backend()
        one = traces(spans=8)
        size = one.size_bytes
        async with Rig(
            backend, sending_queue={"sizer": "bytes", "queue_size": 100 * size, "batch": {"min_size": 3 * size}}
        ) as rig:
            await rig.take(one, one, one)
            await rig.settled()
        assert [b.item_count for b in backend.seen] == [24]

    async def test_shutdown_sends_what_is_being_merged(self):
        backend = Backend()
        async with Rig(backend, **MERGE) as rig:
            await rig.take(traces(spans=3))
        assert [b.item_count for b in backend.seen] == [3]
        assert rig.delivered == 3


class TestWaiting:
    async def test_the_sender_hears_what_the_backend_said(self):
        refusal = PermanentError("no", reason="http_400")
        async with Rig(Backend(OK, refusal), sending_queue={"wait_for_result": True}) as rig:
            assert rig.exporter.waits_for_result
            await rig.take(traces(spans=1))
            assert rig.delivered == 1, "consume returns when it is delivered"
            with pytest.raises(PermanentError):
                await rig.take(traces(spans=2))
            assert rig.reasons("refused") == {"http_400": 2}

    async def test_without_a_queue_the_sender_waits_too(self):
        async with Rig(
            Backend(OK, down(), down()), sending_queue={"enabled": False}, retry_on_failure={"max_elapsed_time": "30s"}
        ) as rig:
            assert rig.exporter.waits_for_result
            await rig.take(traces(spans=1))
            waiting = asyncio.ensure_future(rig.take(traces(spans=2)))
            await rig.clock.advance(0)
            assert rig.exporter.in_flight_items()[Signal.TRACES] == 2
            await rig.clock.advance(20)
            await waiting
            assert rig.delivered == 3

    async def test_a_sender_that_goes_away_leaves_the_books_closed(self):
        backend = Backend()
        backend.gate.clear()
        for queue in ({"wait_for_result": True}, {"enabled": False}):
            async with Rig(backend, sending_queue=queue) as rig:
                waiting = asyncio.ensure_future(rig.take(traces(spans=2)))
                await rig.clock.advance(0)
                waiting.cancel()
                await asyncio.gather(waiting, return_exceptions=True)
                backend.gate.set()
                await rig.settled()

    async def test_a_part_that_may_yet_be_taken_asks_for_the_request_again(self):
        class Halved(Probe):
            max_items = 5

        backend = Backend(OK, PermanentError("no", reason="http_400"), down())
        async with Rig(
            backend, Halved, sending_queue={"wait_for_result": True}, retry_on_failure={"enabled": False}
        ) as rig:
            with pytest.raises(RetryableError):
                await rig.take(traces(spans=15))

    async def test_a_full_queue_is_heard(self):
        backend = Backend()
        backend.gate.clear()
        async with Rig(backend, sending_queue={"wait_for_result": True, "queue_size": 1}) as rig:
            first = asyncio.ensure_future(rig.take(traces(spans=2)))
            await rig.clock.advance(0)
            with pytest.raises(RetryableError, match="full"):
                await rig.take(traces(spans=2))
            backend.gate.set()
            await first


class TestShutdown:
    async def test_under_load_a_healthy_backend_gets_everything(self):
        backend = Backend()
        async with Rig(backend, sending_queue={"num_consumers": 2}) as rig:
            await rig.take(*(traces(spans=n) for n in range(1, 50)))
        assert rig.delivered == sum(range(1, 50))

    async def test_what_a_dead_backend_does_not_take_is_dropped_with_a_reason(self):
        backend = Backend(default=down())
        async with Rig(backend, sending_queue={"num_consumers": 2}) as rig:
            await rig.take(*(traces(spans=1) for _ in range(8)))
            await rig.clock.advance(1)
        assert rig.reasons("dropped") == {"shutdown": 8}
        assert rig.clock.monotonic_s() <= 1 + Probe.drain_timeout_s + 1

    async def test_a_wait_for_the_next_attempt_ends_with_it(self):
        backend = Backend(down())
        async with Rig(backend) as rig:
            await rig.take(traces(spans=3))
            await rig.clock.advance(1)
        assert rig.delivered == 3
        assert backend.times == [0, 1], "tried again at once, not after the backoff"

    async def test_a_hanging_backend_does_not_hold_it_up(self):
        backend = Backend()
        backend.gate.clear()
        async with Rig(backend, timeout="0s") as rig:
            await rig.take(traces(spans=3), traces(spans=4))
        assert rig.reasons("dropped") == {"shutdown": 7}

    async def test_the_service_may_end_it_early(self):
        rig = Rig(Backend(default=down()))
        async with rig:
            await rig.take(traces(spans=3))
            stopping = asyncio.ensure_future(rig.exporter.shutdown())
            await rig.clock.advance(1)
            stopping.cancel()
            with pytest.raises(asyncio.CancelledError):
                await stopping
            assert rig.reasons("dropped") == {"shutdown": 3}

    async def test_what_comes_after_it_is_dropped(self):
        rig = Rig(Backend())
        async with rig:
            await rig.take(traces(spans=1))
            await rig.settled()
        await rig.take(traces(spans=3))
        assert rig.reasons("dropped") == {"shutdown": 3}
        assert not rig.exporter.has_room(traces(spans=1))

    async def test_it_is_safe_unstarted_and_twice(self):
        rig = Rig(Backend())
        await rig.exporter.shutdown()
        await rig.exporter.shutdown()


class DiskLike(MemoryStorage):
    durable = True


class Disk:
    """A storage extension whose content survives the exporter."""

    def __init__(self):
        self.kept = {}

    def storage(self, name):
        return self.kept.setdefault(name, DiskLike())


async def test_what_a_durable_queue_held_is_sent_after_the_restart():
    disk = Disk()
    queue = {"storage": "file_storage", "num_consumers": 1}
    first = Rig(Backend(default=down()), sending_queue=queue)
    first.host = FakeHost(extensions={"file_storage": disk})
    await first.exporter.start(first.host)
    await first.take(traces(spans=3), traces(spans=4))
    stopping = asyncio.ensure_future(first.exporter.shutdown())
    await first.clock.advance(30)
    await stopping
    first.check()
    assert (first.count("dropped"), sum(first.exporter.in_flight_items().values())) == (0, 7), (
        "it stays, and is in flight"
    )

    second = Rig(Backend(), sending_queue=queue)
    second.host = FakeHost(extensions={"file_storage": disk})
    async with second:
        second.received = 7
        await second.settled()
        assert second.delivered == 7
        assert second.count("created") == 7
        assert [b.item_count for b in second.backend.seen] == [3, 4]


async def test_a_storage_that_takes_no_more_drops_with_a_reason():
    class Full(DiskLike):
        def append(self, batch):
            raise OSError(28, "No space left on device")

    disk = Disk()
    disk.kept = {f"probe/a {signal}": Full() for signal in Signal}
    rig = Rig(Backend(), sending_queue={"storage": "file_storage"})
    rig.host = FakeHost(extensions={"file_storage": disk})
    async with rig:
        await rig.take(traces(spans=3))
        assert rig.reasons("dropped") == {"storage_full": 3}


@pytest.mark.parametrize("extensions", [{}, {"file_storage": object()}])
async def test_a_storage_that_is_none_refuses_the_start(extensions):
    rig = Rig(Backend(), sending_queue={"storage": "file_storage"})
    with pytest.raises(ValueError, match="exporters::probe/a::sending_queue::storage"):
        await rig.exporter.start(FakeHost(extensions=extensions))


async def test_health_follows_the_backend():
    backend = Backend(default=down())
    async with Rig(backend, retry_on_failure={"max_elapsed_time": "0s"}) as rig:
        (check,) = rig.host.checks.values()
        assert check().healthy
        await rig.take(traces(spans=1))
        await rig.clock.advance(6)
        assert check().healthy
        assert "never succeeded: " in check().message
        assert "connection refused" in check().message
        await rig.clock.advance(60)
        assert not check().healthy
        backend.default = OK
        await rig.clock.advance(60)
        assert check().healthy
        assert check().message == ""
        backend.default = down()
        await rig.take(traces(spans=1))
        await rig.clock.advance(1)
        assert re.search(r"last success \d+ s ago: connection refused", check().message)
        assert [status for status, _ in rig.host.statuses] == [
            Status.RECOVERABLE_ERROR,
            Status.OK,
            Status.RECOVERABLE_ERROR,
        ]


async def test_an_outage_does_not_fill_the_log():
    async with Rig(Backend(default=down()), retry_on_failure={"enabled": False}) as rig:
        await rig.take(*(traces(spans=1) for _ in range(100)))
        await rig.settled()
        assert len(rig.telemetry.log.events) == 1


async def test_an_empty_batch_is_nothing():
    backend = Backend()
    async with Rig(backend) as rig:
        empty = type("Empty", (), {"signal": Signal.TRACES, "item_count": 0})()
        await rig.exporter.consume(empty)
        await rig.settled()
    assert backend.seen == []


@pytest.mark.parametrize(
    ("config", "said"),
    [
        ({"sending_queue": {"storage": "x", "wait_for_result": True}}, "wait_for_result"),
        ({"sending_queue": {"sizer": "items", "queue_size": 10, "batch": {"min_size": 20}}}, "min_size 20"),
        ({"timeout": "-1s"}, "timeout"),
    ],
)
def test_configurations_that_cannot_work_are_refused(config, said):
    with pytest.raises(ValueError, match=said):
        ExporterConfig.model_validate(config)


def takes_at_most(size_bytes):
    """A backend with a limit of its own."""
    return lambda batch: TooLargeError("413", reason="http_413") if batch.size_bytes > size_bytes else OK


async def test_what_is_too_large_for_the_backend_goes_in_parts():
    """A merged batch must not be lost where each of its requests would have been taken; later ones are split beforehand."""
    backend = Backend(default=takes_at_most(100_000))
    async with Rig(backend) as rig:
        batch = traces(spans=2000)
        assert batch.size_bytes > 400_000
        await rig.take(batch)
        await rig.settled()
        assert rig.delivered == 2000
        refused_before = sum(part.size_bytes > 100_000 for part in backend.seen)
        await rig.take(traces(spans=2000, seed=2))
        await rig.settled()
        assert rig.delivered == 4000
        assert sum(part.size_bytes > 100_000 for part in backend.seen) == refused_before


async def test_splitting_ends_where_it_is_of_no_use():
    """One item, or a backend that calls everything too large: refused with the reason, after a handful of attempts."""
    backend = Backend(default=lambda batch: TooLargeError("413", reason="http_413"))
    async with Rig(backend) as rig:
        await rig.take(traces(spans=2000), traces(spans=1, seed=2))
        await rig.settled()
        assert rig.reasons("refused") == {"http_413": 2001}
        assert len(backend.seen) < 60
