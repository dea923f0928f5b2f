"""Outages and overload as a backend sees them: how much it is asked meanwhile, and what it gets afterwards."""

from delivery_rig import OK, Backend, Rig, down

from collector.api import RetryableError
from collector.testing import logs, traces


def too_many():
    return RetryableError("slow down", reason="http_429")


async def test_a_dead_backend_is_probed_and_then_gets_everything_once():
    """A hundred batches behind ten consumers are one attempt about every five seconds, and none is given up."""
    backend = Backend(default=down())
    async with Rig(backend, retry_on_failure={"max_elapsed_time": "0s"}) as rig:
        await rig.consume(*(traces(spans=1) for _ in range(100)))
        await rig.clock.advance(1)
        assert len(backend.seen) <= 10, "those that were on their way when the circuit opened"
        before = len(backend.seen)
        await rig.clock.advance(600)
        assert 100 <= len(backend.seen) - before <= 125
        (check,) = rig.host.checks.values()
        assert "circuit open" in check().message
        assert rig.telemetry.value("tailrace_exporter_circuit_state", data_type="traces") == 2
        backend.default = OK
        await rig.clock.advance(5)
        await rig.settled()
        assert rig.delivered == 100
        assert rig.telemetry.value("tailrace_exporter_circuit_state", data_type="traces") == 0
        assert rig.telemetry.value("tailrace_exporter_concurrency_limit", data_type="traces") == 10


async def test_without_a_breaker_every_consumer_tries_for_itself():
    backend = Backend(default=down())
    async with Rig(backend, circuit_breaker={"enabled": False}, retry_on_failure={"max_elapsed_time": "0s"}) as rig:
        await rig.consume(*(traces(spans=1) for _ in range(100)))
        await rig.clock.advance(600)
        assert len(backend.seen) >= 10 * 600 // 30
        backend.default = OK
        await rig.clock.advance(60)
        assert rig.delivered == 100


async def test_every_batch_is_attempted_before_it_is_given_up():
    """Also one that spends its whole time waiting behind the circuit."""
    backend = Backend(default=down())
    async with Rig(
        backend,
        circuit_breaker={"failure_threshold": 1, "probe_interval": "1h"},
        retry_on_failure={"initial_interval": "1h", "max_interval": "1h", "max_elapsed_time": "2h"},
    ) as rig:
        batches = [traces(spans=1, seed=seed) for seed in range(20)]
        await rig.consume(*batches)
        await rig.clock.advance(100_000)
        assert rig.reasons("dropped") == {"retries_exhausted": 20}
        assert {batch.wire for batch in backend.seen} == {batch.wire for batch in batches}


async def test_without_retries_nothing_waits_behind_the_circuit():
    backend = Backend(default=down())
    async with Rig(backend, circuit_breaker={"failure_threshold": 1}, retry_on_failure={"enabled": False}) as rig:
        await rig.consume(*(traces(spans=1) for _ in range(50)))
        await rig.settled()
        assert (len(backend.seen), rig.reasons("dropped")) == (50, {"retry_disabled": 50})


async def test_an_overloaded_backend_gets_fewer_requests_at_once():
    """It takes two at a time and refuses the others; soon it is not sent many more than that."""
    backend = Backend()
    backend.default = lambda _: too_many() if backend.concurrent >= 2 else 0
    backend.gate.clear()
    async with Rig(backend, retry_on_failure={"initial_interval": "100ms", "max_interval": "100ms"}) as rig:
        await rig.consume(*(traces(spans=1) for _ in range(40)))
        await rig.clock.advance(0)
        assert backend.concurrent == 10
        backend.gate.set()
        await rig.clock.advance(0)
        assert rig.telemetry.value("tailrace_exporter_concurrency_limit", data_type="traces") < 10
        for _ in range(20):
            await rig.clock.advance(1)
        await rig.settled()
        assert rig.delivered == 40


async def test_waits_end_with_the_outage_unless_the_backend_demanded_them():
    """Two batches fail; the backend told only one of them to wait."""
    backend = Backend(down(retry_after_s=200), down(), default=down())
    async with Rig(
        backend,
        circuit_breaker={"failure_threshold": 2, "probe_interval": "1s"},
        retry_on_failure={"initial_interval": "100s", "max_interval": "100s", "max_elapsed_time": "0s"},
    ) as rig:
        await rig.consume(traces(spans=1), traces(spans=2))
        await rig.clock.advance(10)
        backend.default = OK
        await rig.consume(traces(spans=4))
        await rig.clock.advance(1)
        assert rig.delivered == 6, "the probe, and the batch that would have waited for 90 s more"
        await rig.clock.advance(188)
        assert rig.delivered == 6
        await rig.clock.advance(1)
        assert rig.delivered == 7


async def test_a_single_consumer_keeps_the_order_during_an_outage():
    backend = Backend(*[down()] * 12, too_many(), down())
    async with Rig(backend, sending_queue={"num_consumers": 1}, retry_on_failure={"max_elapsed_time": "0s"}) as rig:
        batches = [traces(spans=count) for count in range(1, 20)]
        await rig.consume(*batches)
        await rig.clock.advance(1000)
        seen = [batch.item_count for batch in backend.seen]
        assert seen == sorted(seen)
        assert rig.delivered == sum(range(1, 20))


async def test_one_signal_does_not_wait_for_another():
    """Each signal has a circuit of its own: the servers of an exporter's signals may be different ones."""
    backend = Backend(default=lambda payload: down() if str(payload.signal) == "traces" else 0)
    async with Rig(backend, circuit_breaker={"failure_threshold": 1}) as rig:
        await rig.consume(traces(spans=3), logs(records=5))
        await rig.clock.advance(1)
        assert rig.delivered == 5
        assert rig.telemetry.value("tailrace_exporter_circuit_state", data_type="traces") == 2
        assert rig.telemetry.value("tailrace_exporter_circuit_state", data_type="logs") == 0
