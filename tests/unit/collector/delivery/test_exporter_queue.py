"""The queue of an exporter: bounds, order, merging, callers that wait, shutdown and restart."""

import asyncio

import pytest
from delivery_rig import OK, Backend, Probe, Rig, down

from collector.api import PermanentError, RetryableError
from collector.model import Context, Signal
from collector.testing import FakeHost, eventually, logs, traces


async def test_a_full_queue_drops_for_itself_alone():
    backend = Backend()
    backend.gate.clear()
    async with Rig(backend, sending_queue={"queue_size": 2, "num_consumers": 1}) as rig:
        await rig.consume(traces(spans=1), traces(spans=2))
        assert not rig.exporter.has_room(traces(spans=1))
        assert rig.exporter.has_room(logs(records=1)), "each signal has a queue of its own"
        await rig.consume(traces(spans=4))
        assert rig.reasons("dropped") == {"queue_full": 4}
        assert rig.telemetry.value("otelcol_exporter_queue_size", data_type="traces") == 2
        assert rig.telemetry.value("otelcol_exporter_queue_capacity", data_type="traces") == 2
        backend.gate.set()
        await rig.settled()
        assert rig.exporter.has_room(traces(spans=1))
        assert rig.delivered == 3
    assert not rig.exporter.blocks_on_overflow()


async def test_a_queue_that_blocks_on_overflow_has_no_room_but_accepts_what_comes_without_asking():
    backend = Backend()
    backend.gate.clear()
    async with Rig(backend, sending_queue={"queue_size": 2, "num_consumers": 1, "block_on_overflow": True}) as rig:
        assert rig.exporter.blocks_on_overflow()
        await rig.consume(traces(spans=1), traces(spans=1))
        assert not rig.exporter.has_room(traces(spans=1)), "the receiver refuses requests"
        await rig.consume(traces(spans=1), traces(spans=1))
        assert rig.count("dropped") == 0, "what a stage has held and emits now is not lost"
        await rig.consume(traces(spans=1))
        assert rig.reasons("dropped") == {"queue_full": 1}, "the queue does not grow without limit"
        backend.gate.set()
        await rig.settled()


@pytest.mark.parametrize("sizer", ["items", "bytes"])
async def test_queue_size_is_in_units_of_the_sizer(sizer):
    backend = Backend()
    backend.gate.clear()
    one = traces(spans=10)
    limit = 25 if sizer == "items" else one.size_bytes * 5 // 2
    async with Rig(backend, sending_queue={"queue_size": limit, "sizer": sizer}) as rig:
        await rig.consume(one, one, one)
        assert rig.reasons("dropped") == {"queue_full": 10}
        backend.gate.set()
        await rig.settled()


async def test_the_queue_is_limited_in_bytes_whatever_the_sizer():
    backend = Backend()
    backend.gate.clear()
    one = traces(spans=10)
    async with Rig(backend, sending_queue={"max_bytes": one.size_bytes * 2}) as rig:
        await rig.consume(one, one, one)
        assert rig.reasons("dropped") == {"queue_full": 10}
        assert rig.host.admission.used_bytes >= one.size_bytes * 2
        backend.gate.set()
        await rig.settled()


async def test_a_batch_larger_than_the_queue_fits_into_an_empty_one():
    async with Rig(Backend(), sending_queue={"queue_size": 3, "sizer": "items"}) as rig:
        await rig.consume(traces(spans=10))
        await rig.settled()
        assert rig.delivered == 10


async def test_num_consumers_limits_concurrent_requests():
    backend = Backend()
    backend.gate.clear()
    async with Rig(backend, sending_queue={"num_consumers": 3}) as rig:
        await rig.consume(*(traces(spans=1) for _ in range(20)))
        await eventually(lambda: backend.concurrent == 3)
        assert rig.telemetry.value("otelcol_exporter_in_flight_requests", data_type="traces") == 3
        backend.gate.set()
        await rig.settled()
    assert backend.concurrent_max == 3


async def test_one_consumer_keeps_the_order_through_failures():
    backend = Backend(OK, down(), down(), OK)
    async with Rig(backend, sending_queue={"num_consumers": 1}) as rig:
        await rig.consume(*(traces(spans=n) for n in (1, 2, 3, 4)))
        await rig.clock.advance(100)
        await rig.settled()
    assert [b.item_count for b in backend.seen] == [1, 2, 2, 2, 3, 4]


MERGE = {"sending_queue": {"num_consumers": 1, "batch": {"flush_timeout": "200ms", "min_size": 10}}}


class TestMerging:
    async def test_small_batches_are_merged(self):
        backend = Backend()
        async with Rig(backend, **MERGE) as rig:
            await rig.consume(*(traces(spans=3, seed=n) for n in range(4)))
            await rig.settled()
        assert [b.item_count for b in backend.seen] == [12]

    async def test_a_batch_that_stays_small_is_sent_after_the_flush_timeout(self):
        backend = Backend()
        async with Rig(backend, **MERGE) as rig:
            await rig.consume(traces(spans=3))
            await rig.clock.advance(0.15)
            await rig.consume(traces(spans=2))
            assert backend.seen == []
            await rig.clock.advance(0.1)
            assert [b.item_count for b in backend.seen] == [5]
            await rig.consume(traces(spans=1))
            await rig.clock.advance(0.3)
            assert [b.item_count for b in backend.seen] == [5, 1]

    async def test_only_batches_with_equal_contexts_are_merged(self):
        backend = Backend()
        async with Rig(backend, **MERGE) as rig:
            await rig.consume(*(traces(spans=5, context=Context(tenant=name)) for name in ("a", "b", "a", "b")))
            await rig.settled()
        assert [(b.item_count, b.context.tenant) for b in backend.seen] == [(10, "a"), (10, "b")]

    async def test_max_size_is_never_exceeded(self):
        backend = Backend()
        async with Rig(backend, sending_queue={"batch": {"min_size": 8, "max_size": 10, "flush_timeout": "1s"}}) as rig:
            await rig.consume(traces(spans=6), traces(spans=6), traces(spans=25))
            await rig.clock.advance(2)
            await rig.settled()
            assert rig.delivered == 37
        assert max(b.item_count for b in backend.seen) <= 10

    async def test_min_size_can_be_in_bytes(self):
        backend = Backend()
        one = traces(spans=8)
        size = one.size_bytes
        async with Rig(
            backend, sending_queue={"sizer": "bytes", "queue_size": 100 * size, "batch": {"min_size": 3 * size}}
        ) as rig:
            await rig.consume(one, one, one)
            await rig.settled()
        assert [b.item_count for b in backend.seen] == [24]

    async def test_shutdown_sends_what_is_being_merged(self):
        backend = Backend()
        async with Rig(backend, **MERGE) as rig:
            await rig.consume(traces(spans=3))
        assert [b.item_count for b in backend.seen] == [3]
        assert rig.delivered == 3


class TestWaitingForTheResult:
    async def test_the_caller_receives_the_backends_answer(self):
        refusal = PermanentError("no", reason="http_400")
        async with Rig(Backend(OK, refusal), sending_queue={"wait_for_result": True}) as rig:
            assert rig.exporter.waits_for_result
            await rig.consume(traces(spans=1))
            assert rig.delivered == 1, "consume returns once the batch is delivered"
            with pytest.raises(PermanentError):
                await rig.consume(traces(spans=2))
            assert rig.reasons("refused") == {"http_400": 2}

    async def test_without_a_queue_the_caller_waits_too(self):
        async with Rig(
            Backend(OK, down(), down()), sending_queue={"enabled": False}, retry_on_failure={"max_elapsed_time": "30s"}
        ) as rig:
            assert rig.exporter.waits_for_result
            await rig.consume(traces(spans=1))
            waiting = asyncio.ensure_future(rig.consume(traces(spans=2)))
            await rig.clock.advance(0)
            assert rig.exporter.in_flight_items()[Signal.TRACES] == 2
            await rig.clock.advance(20)
            await waiting
            assert rig.delivered == 3

    async def test_the_books_close_if_the_caller_is_cancelled(self):
        backend = Backend()
        backend.gate.clear()
        for queue in ({"wait_for_result": True}, {"enabled": False}):
            async with Rig(backend, sending_queue=queue) as rig:
                waiting = asyncio.ensure_future(rig.consume(traces(spans=2)))
                await rig.clock.advance(0)
                waiting.cancel()
                await asyncio.gather(waiting, return_exceptions=True)
                backend.gate.set()
                await rig.settled()

    async def test_one_part_that_may_be_retried_makes_the_error_retryable(self):
        class Halved(Probe):
            max_items = 5

        backend = Backend(OK, PermanentError("no", reason="http_400"), down())
        async with Rig(
            backend, Halved, sending_queue={"wait_for_result": True}, retry_on_failure={"enabled": False}
        ) as rig:
            with pytest.raises(RetryableError):
                await rig.consume(traces(spans=15))

    async def test_the_caller_receives_an_error_if_the_queue_is_full(self):
        backend = Backend()
        backend.gate.clear()
        async with Rig(backend, sending_queue={"wait_for_result": True, "queue_size": 1}) as rig:
            first = asyncio.ensure_future(rig.consume(traces(spans=2)))
            await rig.clock.advance(0)
            with pytest.raises(RetryableError, match="full"):
                await rig.consume(traces(spans=2))
            backend.gate.set()
            await first


class TestShutdown:
    async def test_a_healthy_backend_gets_everything_that_is_queued(self):
        backend = Backend()
        async with Rig(backend, sending_queue={"num_consumers": 2}) as rig:
            await rig.consume(*(traces(spans=n) for n in range(1, 50)))
        assert rig.delivered == sum(range(1, 50))

    async def test_what_a_dead_backend_does_not_accept_is_dropped_with_a_reason(self):
        backend = Backend(default=down())
        async with Rig(backend, sending_queue={"num_consumers": 2}) as rig:
            await rig.consume(*(traces(spans=1) for _ in range(8)))
            await rig.clock.advance(1)
        assert rig.reasons("dropped") == {"shutdown": 8}
        assert rig.clock.monotonic_s() <= 1 + rig.host.shutdown_timeout_s + 1

    async def test_it_uses_all_the_time_that_the_service_has(self):
        """The backend recovers after 20 of 25 seconds; nothing is dropped."""
        backend = Backend(*[down()] * 20)
        async with Rig(backend, sending_queue={"num_consumers": 1}) as rig:
            rig.host.shutdown_timeout_s = 25.0
            await rig.consume(*(traces(spans=1) for _ in range(8)))
        assert (rig.delivered, rig.reasons("dropped")) == (8, {})

    async def test_with_plenty_of_time_it_does_not_hurry_the_backend(self):
        """What drains in the background waits as usual between its attempts, and ends sooner if it is told to."""
        backend = Backend(default=down())
        retry = {"initial_interval": "20s", "multiplier": 1, "randomization_factor": 0, "max_elapsed_time": 0}
        async with Rig(backend, retry_on_failure=retry, circuit_breaker={"enabled": False}) as rig:
            rig.host.shutdown_timeout_s = 300.0
            await rig.consume(traces(spans=3))
            stopping = asyncio.ensure_future(rig.exporter.shutdown())
            for _ in range(70):
                await rig.clock.advance(1)
            assert backend.times == [0, 20, 40, 60]
            rig.host.shutdown_timeout_s = 5.0
            for _ in range(7):
                await rig.clock.advance(1)
            assert stopping.done()
        assert rig.reasons("dropped") == {"shutdown": 3}

    async def test_it_ends_waits_between_attempts(self):
        backend = Backend(down())
        async with Rig(backend) as rig:
            await rig.consume(traces(spans=3))
            await rig.clock.advance(1)
        assert rig.delivered == 3
        assert backend.times == [0, 1], "retried at once, not after the backoff"

    async def test_a_hanging_backend_does_not_hold_it_up(self):
        backend = Backend()
        backend.gate.clear()
        async with Rig(backend, timeout="0s") as rig:
            await rig.consume(traces(spans=3), traces(spans=4))
        assert rig.reasons("dropped") == {"shutdown": 7}

    async def test_the_service_may_end_it_early(self):
        rig = Rig(Backend(default=down()))
        async with rig:
            await rig.consume(traces(spans=3))
            stopping = asyncio.ensure_future(rig.exporter.shutdown())
            await rig.clock.advance(1)
            stopping.cancel()
            with pytest.raises(asyncio.CancelledError):
                await stopping
            assert rig.reasons("dropped") == {"shutdown": 3}

    async def test_batches_that_arrive_after_it_are_dropped(self):
        rig = Rig(Backend())
        async with rig:
            await rig.consume(traces(spans=1))
            await rig.settled()
        await rig.consume(traces(spans=3))
        assert rig.reasons("dropped") == {"shutdown": 3}
        assert not rig.exporter.has_room(traces(spans=1))

    async def test_it_is_safe_unstarted_and_twice(self):
        rig = Rig(Backend())
        await rig.exporter.shutdown()
        await rig.exporter.shutdown()


@pytest.mark.parametrize("extensions", [{}, {"file_storage": object()}])
async def test_an_extension_that_is_missing_or_no_storage_refuses_the_start(extensions):
    rig = Rig(Backend(), sending_queue={"storage": "file_storage"})
    with pytest.raises(ValueError, match="exporters::probe/a::sending_queue::storage"):
        await rig.exporter.start(FakeHost(extensions=extensions))


async def test_an_empty_batch_is_ignored():
    backend = Backend()
    async with Rig(backend) as rig:
        empty = type("Empty", (), {"signal": Signal.TRACES, "item_count": 0})()
        await rig.exporter.consume(empty)
        await rig.settled()
    assert backend.seen == []
