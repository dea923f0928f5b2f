"""What waits while a backend is down or overloaded, and what passes."""

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from collector.api import PermanentError, RetryableError
from collector.delivery.breaker import CircuitBreaker, CircuitState
from collector.delivery.concurrency import ConcurrencyLimit, is_overload
from collector.delivery.gate import Gate
from collector.delivery.retry import RetryPolicy
from collector.testing import FakeClock
from config.blocks import RetryConfig

FOREVER = float("inf")


def down(retry_after_s=None):
    return RetryableError("connection refused", reason="connect", retry_after_s=retry_after_s)


def too_many():
    return RetryableError("slow down", reason="http_429")


def middle(low, high):
    return (low + high) / 2


class Probe:
    """A gate and the attempts that have entered it."""

    def __init__(self, threshold=3, max_count=10, latency_factor=0.0, **retry):
        self.clock = FakeClock()
        policy = RetryPolicy(RetryConfig.model_validate(retry), self.clock, middle)
        breaker = CircuitBreaker(threshold, lambda: policy.probe_backoff(5.0))
        self.gate = Gate(breaker, ConcurrencyLimit(max_count, latency_factor) if max_count else None, self.clock)
        self.entered = []
        self.tasks = []

    def enter(self, name, until_s=FOREVER):
        async def run():
            await self.gate.enter(until_s)
            self.entered.append(name)

        self.tasks.append(asyncio.ensure_future(run()))

    def fail(self, count=1, error=None):
        """Failures of attempts that pass without waiting, or of those that have entered."""
        for _ in range(count):
            if self.gate.circuit_state is CircuitState.CLOSED and not self.gate.in_flight:
                assert self.gate.try_enter()
            self.gate.fail(error or down(), self.clock.monotonic_s())

    async def close(self):
        for task in self.tasks:
            task.cancel()
        await asyncio.gather(*self.tasks, return_exceptions=True)


async def test_everything_passes_while_nothing_fails():
    probe = Probe(max_count=2)
    assert all(probe.gate.try_enter() for _ in range(100))
    assert probe.gate.in_flight == 100, "the queue limits them, not the gate"
    assert probe.gate.describe() == ""


async def test_failures_in_a_row_open_the_circuit_and_a_success_in_between_does_not():
    probe = Probe(threshold=3)
    probe.fail(2)
    assert probe.gate.try_enter()
    probe.gate.succeed(0.0)
    probe.fail(2)
    assert probe.gate.circuit_state is CircuitState.CLOSED
    probe.fail(1)
    assert probe.gate.circuit_state is CircuitState.OPEN
    assert not probe.gate.try_enter()
    assert "circuit open for 0 s, the next probe is due in 5 s" in probe.gate.describe()


async def test_refused_data_shows_that_the_backend_is_there():
    probe = Probe(threshold=2)
    probe.fail(1)
    probe.fail(1, PermanentError("bad", reason="http_400"))
    probe.fail(1)
    assert probe.gate.circuit_state is CircuitState.CLOSED


async def test_while_open_there_is_one_probe_at_a_time_in_order():
    probe = Probe(threshold=1)
    probe.fail()
    for name in "abc":
        probe.enter(name)
    await probe.clock.advance(4.9)
    assert probe.entered == []
    await probe.clock.advance(0.1)
    assert (probe.entered, probe.gate.circuit_state) == (["a"], CircuitState.HALF_OPEN)
    await probe.clock.advance(60)
    assert probe.entered == ["a"]
    probe.gate.fail(down(), 5.0)
    await probe.clock.advance(5)
    assert probe.entered == ["a", "b"]
    probe.gate.succeed(probe.clock.monotonic_s())
    await probe.clock.advance(0)
    assert (probe.entered, probe.gate.circuit_state) == (["a", "b", "c"], CircuitState.CLOSED)


async def test_after_an_outage_the_backend_gets_one_request_first_and_then_more():
    probe = Probe(threshold=1, max_count=4)
    probe.fail()
    for number in range(30):
        probe.enter(number)
    await probe.clock.advance(5)
    counts = []
    while len(probe.entered) < 30:
        counts.append(probe.gate.in_flight)
        probe.gate.succeed(probe.clock.monotonic_s())
        await probe.clock.advance(0)
    assert (counts[0], max(counts)) == (1, 4)
    assert counts == sorted(counts)
    assert probe.entered == list(range(30))


async def test_a_probe_that_is_cancelled_gives_way_to_the_next_one():
    probe = Probe(threshold=1)
    probe.fail()
    probe.enter("a")
    probe.enter("b")
    await probe.clock.advance(5)
    probe.gate.abort()
    await probe.clock.advance(0)
    assert probe.entered == ["a", "b"]


async def test_who_may_not_wait_any_longer_passes():
    probe = Probe(threshold=1)
    probe.fail(1, down(retry_after_s=25))
    probe.enter("a", until_s=3)
    probe.enter("b", until_s=60)
    await probe.clock.advance(2.9)
    assert probe.entered == []
    await probe.clock.advance(0.1)
    assert probe.entered == ["a"]
    probe.gate.fail(down(), 3.0)
    await probe.clock.advance(21.9)
    assert probe.entered == ["a"], "the first failure demanded 25 s, and that of the latecomer changes nothing"
    await probe.clock.advance(0.1)
    assert probe.entered == ["a", "b"]


async def test_a_demand_delays_probes_by_max_interval_at_most():
    """The request itself waits as long as demanded; what others send may belong to another tenant."""
    probe = Probe(threshold=1)
    probe.fail(1, down(retry_after_s=3600))
    probe.enter("a")
    await probe.clock.advance(30)
    assert probe.entered == ["a"]


async def test_probes_begin_as_quickly_as_retries():
    probe = Probe(threshold=1, initial_interval="50ms", max_interval="200ms")
    probe.fail()
    probe.enter("a")
    await probe.clock.advance(0.05)
    assert probe.entered == ["a"]


async def test_a_cancelled_waiter_does_not_hold_up_those_behind_it():
    probe = Probe(threshold=1)
    probe.fail()
    probe.enter("a")
    probe.enter("b")
    await probe.clock.advance(1)
    probe.tasks[0].cancel()
    await probe.clock.advance(4)
    assert probe.entered == ["b"]


async def test_draining_lets_everything_pass():
    probe = Probe(threshold=1, max_count=1)
    probe.fail()
    for name in "abc":
        probe.enter(name)
    await probe.clock.advance(0)
    probe.gate.drain()
    await probe.clock.advance(0)
    assert probe.entered == ["a", "b", "c"]
    assert probe.gate.try_enter()


@pytest.mark.parametrize("is_refused", [False, True])
async def test_whoever_waits_for_the_recovery_is_told(is_refused):
    probe = Probe(threshold=1)
    probe.fail()
    waiting = asyncio.ensure_future(probe.gate.wait_recovered())
    probe.enter("a")
    await probe.clock.advance(5)
    assert not waiting.done()
    if is_refused:
        probe.gate.fail(PermanentError("bad", reason="http_400"), 5.0)
    else:
        probe.gate.succeed(5.0)
    await probe.clock.advance(0)
    assert waiting.done()


async def test_a_disabled_breaker_never_opens():
    probe = Probe(threshold=0)
    probe.fail(1000)
    assert probe.gate.circuit_state is CircuitState.CLOSED


async def test_an_overloaded_backend_gets_half_as_many_requests_at_once():
    """All refusals of what was in flight at once count as one."""
    probe = Probe(threshold=0, max_count=8)
    assert all(probe.gate.try_enter() for _ in range(8))
    await probe.clock.advance(1)
    for _ in range(8):
        probe.gate.fail(too_many(), 0.0)
    assert [probe.gate.try_enter() for _ in range(6)] == [True] * 4 + [False] * 2
    assert probe.gate.describe() == "limited to 4 concurrent requests"
    await probe.clock.advance(1)
    probe.gate.fail(too_many(), 1.5)
    assert probe.gate.limit == 2


async def test_other_failures_do_not_lower_the_limit():
    probe = Probe(threshold=0, max_count=8)
    probe.fail(5)
    assert probe.gate.limit == 8


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (too_many(), True),
        (RetryableError("", reason="http_503"), False),
        (RetryableError("", reason="http_503", retry_after_s=1), True),
        (RetryableError("", reason="timeout"), True),
        (RetryableError("", reason="grpc_unavailable", retry_after_s=0.5), True),
        (PermanentError("", reason="grpc_resource_exhausted"), True),
        (PermanentError("", reason="http_400"), False),
        (down(), False),
    ],
)
def test_what_counts_as_overload(error, expected):
    assert is_overload(error) is expected


def test_a_slow_backend_lowers_the_limit_if_that_is_configured():
    """A latency that stays becomes the usual one."""
    limit, now_s = ConcurrencyLimit(8, latency_factor=3), 0.0
    for _ in range(100):
        now_s += 1
        limit.succeed(now_s - 0.2, now_s)
    assert limit.limit == 8
    now_s += 1
    limit.succeed(now_s - 0.7, now_s)
    assert limit.limit == 4
    for _ in range(1000):
        now_s += 1
        limit.succeed(now_s - 0.7, now_s)
    assert limit.limit == 8


def test_a_quick_backend_is_never_slow():
    """Differences of some milliseconds say nothing about the backend."""
    limit = ConcurrencyLimit(8, latency_factor=2)
    for _ in range(50):
        limit.succeed(0.0, 0.001)
    limit.succeed(0.0, 0.09)
    assert limit.limit == 8


@given(st.integers(1, 20), st.lists(st.sampled_from(["ok", "overload", "restart"]), max_size=200))
def test_the_limit_stays_between_one_and_the_maximum(max_count, events):
    limit, now_s = ConcurrencyLimit(max_count), 0.0
    for event in events:
        now_s += 1
        match event:
            case "ok":
                limit.succeed(now_s - 0.5, now_s)
            case "overload":
                limit.overload(now_s - 0.5, now_s)
            case "restart":
                limit.restart(now_s)
        assert 1 <= limit.limit <= max_count


@given(st.lists(st.sampled_from(["enter", "ok", "down", "overload", "abort", "second", "minute"]), max_size=60))
async def test_nobody_waits_for_ever(events):
    """Whatever happens: once the backend succeeds again, everything that waits gets in."""
    probe = Probe(threshold=2, max_count=3)
    outcomes = {
        "ok": lambda: probe.gate.succeed(probe.clock.monotonic_s()),
        "down": lambda: probe.gate.fail(down(), probe.clock.monotonic_s()),
        "overload": lambda: probe.gate.fail(too_many(), probe.clock.monotonic_s()),
        "abort": probe.gate.abort,
    }
    for number, event in enumerate(events):
        if event == "enter":
            probe.enter(number)
            await asyncio.sleep(0)
        elif event in outcomes:
            if probe.gate.in_flight:
                outcomes[event]()
        else:
            await probe.clock.advance(1 if event == "second" else 60)
        assert probe.gate.in_flight >= 0
    for _ in range(3 * len(events) + 3):
        await probe.clock.advance(60)
        while probe.gate.in_flight:
            outcomes["ok"]()
    assert len(probe.entered) == events.count("enter")
    assert probe.gate.in_flight == 0
    assert probe.gate.try_enter()
    await probe.close()


async def test_a_paused_gate_lets_nothing_enter_and_waits_for_what_has_entered():
    """Not even an attempt whose time to wait is over; afterwards everything passes again."""
    probe = Probe()
    assert probe.gate.try_enter()
    pausing = asyncio.ensure_future(probe.gate.pause())
    await probe.clock.advance(0)
    assert not probe.gate.try_enter()
    probe.enter("late", until_s=0.0)
    await probe.clock.advance(1)
    assert (probe.entered, pausing.done()) == ([], False)
    probe.gate.succeed(0.0)
    await pausing
    await probe.clock.advance(1)
    assert probe.entered == []
    probe.gate.resume()
    await probe.clock.advance(0)
    assert probe.entered == ["late"]
    probe.gate.succeed(0.0)
    assert probe.gate.is_calm
    await probe.close()
