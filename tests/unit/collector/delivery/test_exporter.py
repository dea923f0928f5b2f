"""Sending under faults: whatever the backend does, received = delivered + dropped + refused + in flight."""

import asyncio
import re

import pytest
from delivery_rig import OK, Backend, Probe, Rig, down

from collector.api import PermanentError, Status, TooLargeError
from collector.delivery import ExporterConfig, Part
from collector.model import Signal
from collector.testing import eventually, logs, traces


async def test_a_healthy_backend_gets_everything_once():
    backend = Backend()
    async with Rig(backend) as rig:
        await rig.consume(*(traces(spans=n) for n in range(1, 20)), logs(records=7))
        await rig.settled()
        assert rig.delivered == sum(range(1, 20)) + 7
    assert sorted(b.item_count for b in backend.seen) == sorted([*range(1, 20), 7])
    assert rig.telemetry.ledger.delivered == {Signal.TRACES: sum(range(1, 20)), Signal.LOGS: 7}


async def test_a_dead_backend_is_retried_with_backoff_until_the_data_is_dropped():
    backend = Backend(default=down())
    async with Rig(backend, retry_on_failure={"max_elapsed_time": "30s"}) as rig:
        await rig.consume(traces(spans=5))
        await rig.clock.advance(100)
        await rig.settled()
        assert rig.reasons("dropped") == {"retries_exhausted": 5}
    assert backend.times == pytest.approx([0, 5, 12.5, 23.75])  # 5, 7.5, 11.25; the next would be beyond 30


async def test_a_flapping_backend_delays_but_loses_nothing():
    backend = Backend(down(), OK, down(), down(), OK)
    async with Rig(backend, sending_queue={"num_consumers": 1}) as rig:
        await rig.consume(traces(spans=3), traces(spans=4))
        await rig.clock.advance(60)
        await rig.settled()
        assert rig.delivered == 7


@pytest.mark.parametrize(("retry_after_s", "second_attempt_s"), [(None, 5), (1.0, 5), (42.0, 42)])
async def test_the_longer_of_retry_after_and_backoff_applies(retry_after_s, second_attempt_s):
    backend = Backend(down(retry_after_s=retry_after_s))
    async with Rig(backend) as rig:
        await rig.consume(traces(spans=3))
        await rig.clock.advance(100)
        await rig.settled()
    assert backend.times == [0, second_attempt_s]


async def test_retry_after_beyond_max_elapsed_time_leaves_one_attempt_at_its_end():
    """Dropping the data at once would lose what the backend may accept by then."""
    backend = Backend(down(retry_after_s=301), down(retry_after_s=301))
    async with Rig(backend) as rig:
        await rig.consume(traces(spans=3))
        await rig.clock.advance(299)
        assert backend.times == [0]
        await rig.clock.advance(1)
        assert backend.times == [0, 300]
        assert rig.reasons("dropped") == {"retries_exhausted": 3}


async def test_without_retry_the_first_failure_is_the_last():
    async with Rig(Backend(down()), retry_on_failure={"enabled": False}) as rig:
        await rig.consume(traces(spans=3))
        await rig.settled()
        assert rig.reasons("dropped") == {"retry_disabled": 3}


async def test_what_the_backend_refuses_is_not_sent_again():
    backend = Backend(PermanentError("bad", reason="http_400"))
    async with Rig(backend) as rig:
        await rig.consume(traces(spans=3), traces(spans=2))
        await rig.settled()
        assert rig.reasons("refused") == {"http_400": 3}
        assert rig.delivered == 2
    assert len(backend.seen) == 2


@pytest.mark.parametrize(("answer", "delivered", "refused"), [(2, 8, 2), (0, 10, 0), (99, 0, 10), (-1, 10, 0)])
async def test_items_rejected_in_a_partial_success_are_refused(answer, delivered, refused):
    async with Rig(Backend(answer)) as rig:
        await rig.consume(traces(spans=10))
        await rig.settled()
        assert (rig.delivered, rig.count("refused")) == (delivered, refused)


async def test_only_the_part_that_failed_is_sent_again():
    class Halved(Probe):
        max_items = 5

    backend = Backend(OK, down(), OK, OK)
    async with Rig(backend, Halved) as rig:
        await rig.consume(traces(spans=15))
        await rig.clock.advance(10)
        await rig.settled()
        assert rig.delivered == 15
    assert [b.item_count for b in backend.seen] == [5, 5, 5, 5]
    assert backend.seen[1].wire == backend.seen[2].wire


async def test_a_refused_part_does_not_stop_the_others():
    class Halved(Probe):
        max_items = 5

    async with Rig(Backend(OK, PermanentError("no", reason="http_400"), OK), Halved) as rig:
        await rig.consume(traces(spans=15))
        await rig.settled()
        assert (rig.delivered, rig.reasons("refused")) == (10, {"http_400": 5})


async def test_requests_stay_below_the_backends_limit():
    class Small(Probe):
        max_request_bytes = 3000

    backend = Backend()
    async with Rig(backend, Small) as rig:
        await rig.consume(traces(spans=64))
        await rig.settled()
        assert rig.delivered == 64
    assert len(backend.seen) > 1
    assert all(b.size_bytes <= 3000 for b in backend.seen)


async def test_shards_are_sent_at_the_same_time_and_each_in_order():
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
        await rig.consume(traces(spans=4, services=1))
        await rig.clock.advance(1)
        assert rig.delivered == 2, "the other shard does not wait"
        await rig.clock.advance(10)
        await rig.settled()
        assert rig.delivered == 4
    wires = [b.wire for b in backend.seen]
    assert wires.count(failed[0].wire) == 2
    assert wires[-2] == failed[0].wire, "the shard continues once its first part is accepted"


async def test_items_that_encode_leaves_out_are_not_counted_again():
    class Picky(Probe):
        def encode(self, batch):
            self.telemetry.dropped(batch.signal, batch.item_count - 1, "unsupported")
            return [Part(batch, 1)]

    async with Rig(Backend(), Picky) as rig:
        await rig.consume(traces(spans=5))
        await rig.settled()
        assert (rig.delivered, rig.reasons("dropped")) == (1, {"unsupported": 4})


async def test_a_bug_in_an_exporter_costs_one_batch():
    async with Rig(Backend(ValueError("bug"))) as rig:
        await rig.consume(traces(spans=5))
        await rig.settled()
        await rig.consume(traces(spans=6))
        await rig.settled()
        assert (rig.delivered, rig.reasons("dropped")) == (6, {"internal_error": 5})


async def test_an_attempt_without_answer_times_out_and_is_retried():
    backend = Backend()
    backend.gate.clear()
    async with Rig(backend, timeout="10ms") as rig:
        await rig.consume(traces(spans=5))
        await eventually(lambda: rig.exporter.health.last_error != "")
        backend.gate.set()
        await rig.clock.advance(10)
        await rig.settled()
        assert rig.delivered == 5


async def test_an_exporter_that_enforces_the_timeout_gets_no_second_one():
    """Its ``send`` ends in time by itself."""

    class Enforcing(Probe):
        enforces_timeout = True

    backend = Backend()
    backend.gate.clear()
    async with Rig(backend, Enforcing, timeout="1ms") as rig:
        await rig.consume(traces(spans=5))
        await eventually(lambda: backend.concurrent == 1)
        due_s = asyncio.get_running_loop().time() + 0.02
        await eventually(lambda: asyncio.get_running_loop().time() > due_s)
        assert (backend.concurrent, rig.exporter.health.last_error) == (1, "")
        backend.gate.set()
        await rig.settled()
        assert rig.delivered == 5


async def test_health_follows_the_backend():
    backend = Backend(default=down())
    async with Rig(backend, retry_on_failure={"max_elapsed_time": "0s"}) as rig:
        (check,) = rig.host.checks.values()
        assert check().healthy
        await rig.consume(traces(spans=1))
        await rig.clock.advance(6)
        assert check().healthy
        assert "never succeeded: " in check().message
        assert "connection refused" in check().message
        await rig.clock.advance(60)
        assert not check().healthy
        backend.default = OK
        await rig.clock.advance(60)
        assert check().healthy
        assert "failing" not in check().message
        backend.default = down()
        await rig.consume(traces(spans=1))
        await rig.clock.advance(1)
        assert re.search(r"last success \d+ s ago: connection refused", check().message)
        assert [status for status, _ in rig.host.statuses] == [
            Status.RECOVERABLE_ERROR,
            Status.OK,
            Status.RECOVERABLE_ERROR,
        ]


async def test_a_backend_that_refuses_everything_is_unhealthy_after_a_minute():
    """A single refusal is the data's fault; nothing but refusals is that of the backend or of its configuration."""
    backend = Backend(default=PermanentError("bad credentials", reason="http_401"))
    async with Rig(backend) as rig:
        (check,) = rig.host.checks.values()
        await rig.consume(traces(spans=1))
        await rig.clock.advance(3600)
        assert check().healthy, "an exporter without data does not become unhealthy"
        await rig.consume(traces(spans=1))
        await rig.settled()
        assert (check().healthy, check().status) == (False, Status.PERMANENT_ERROR)
        assert "refusing for 3600 s, never succeeded: bad credentials" in check().message
        backend.default = OK
        await rig.consume(traces(spans=1))
        await rig.settled()
        assert (check().healthy, check().status) == (True, Status.OK)


async def test_the_age_of_the_queue_is_that_of_its_oldest_batch():
    """Whether it waits, is being sent or is being retried."""
    backend = Backend(down())
    backend.gate.clear()
    async with Rig(backend, sending_queue={"num_consumers": 1}) as rig:
        age = lambda: rig.telemetry.value("tailrace_exporter_queue_oldest_age_seconds", data_type="traces")  # noqa: E731
        assert age() == 0
        await rig.consume(traces(spans=1))
        await rig.clock.advance(1)
        await rig.consume(traces(spans=2))
        await rig.clock.advance(1)
        assert age() == 2
        assert next(iter(rig.host.checks.values()))().queue_age_s == 2
        backend.gate.set()
        await rig.clock.advance(1)
        assert age() == 3
        await rig.clock.advance(10)
        assert age() == 0
        assert rig.telemetry.value("tailrace_exporter_last_success_timestamp_seconds") == pytest.approx(
            rig.clock.time_unix_nano() / 1e9 - (rig.clock.monotonic_s() - backend.times[-1])
        )


async def test_an_outage_does_not_fill_the_log():
    async with Rig(Backend(default=down()), retry_on_failure={"enabled": False}) as rig:
        await rig.consume(*(traces(spans=1) for _ in range(100)))
        await rig.settled()
        assert len(rig.telemetry.log.events) == 1


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"sending_queue": {"storage": "x", "wait_for_result": True}}, "wait_for_result"),
        ({"sending_queue": {"sizer": "items", "queue_size": 10, "batch": {"min_size": 20}}}, "min_size 20"),
        ({"timeout": "-1s"}, "timeout"),
    ],
)
def test_configurations_that_cannot_work_are_refused(config, message):
    with pytest.raises(ValueError, match=message):
        ExporterConfig.model_validate(config)


def accepts_at_most(size_bytes):
    """The answer of a backend with a size limit."""
    return lambda batch: TooLargeError("413", reason="http_413") if batch.size_bytes > size_bytes else OK


async def test_a_batch_that_is_too_large_for_the_backend_is_sent_in_parts():
    """A merged batch must not be lost if each of its requests would have been accepted; later ones are split first."""
    backend = Backend(default=accepts_at_most(100_000))
    async with Rig(backend) as rig:
        batch = traces(spans=2000)
        assert batch.size_bytes > 400_000
        await rig.consume(batch)
        await rig.settled()
        assert rig.delivered == 2000
        refused_before = sum(part.size_bytes > 100_000 for part in backend.seen)
        await rig.consume(traces(spans=2000, seed=2))
        await rig.settled()
        assert rig.delivered == 4000
        assert sum(part.size_bytes > 100_000 for part in backend.seen) == refused_before


async def test_splitting_ends_when_it_is_of_no_use():
    """One item, or a backend that finds everything too large: refused with the reason, after a few attempts."""
    backend = Backend(default=lambda batch: TooLargeError("413", reason="http_413"))
    async with Rig(backend) as rig:
        await rig.consume(traces(spans=2000), traces(spans=1, seed=2))
        await rig.settled()
        assert rig.reasons("refused") == {"http_413": 2001}
        assert len(backend.seen) < 60
