"""``memory_limiter``: the limits it sets, the rules of its configuration, and that batches pass."""

import pytest
from pydantic import ValidationError

from collector.model import Signal
from collector.service.admission import ServiceAdmission
from collector.testing import FakeClock, FakeHost, RecordingTelemetry, check_component, make_settings, traces
from processors.memory_limiter import factory
from processors.memory_limiter.config import MemoryLimiterConfig
from processors.memory_limiter.memory_limiter import MemoryLimiter

MIB = 1024 * 1024


def load(**keys):
    return MemoryLimiterConfig.model_validate({"check_interval": "1s", **keys})


async def test_factory_keeps_the_contract():
    """Life cycle and README examples."""
    await check_component(factory)


@pytest.mark.parametrize(
    ("keys", "limits"),
    [
        ({"limit_mib": 1000}, (800 * MIB, 1000 * MIB)),
        ({"limit_mib": 1000, "spike_limit_mib": 300}, (700 * MIB, 1000 * MIB)),
        ({"limit_percentage": 50}, (400 * MIB, 500 * MIB)),
        ({"limit_percentage": 80, "spike_limit_percentage": 25}, (550 * MIB, 800 * MIB)),
        ({"limit_mib": 10, "limit_percentage": 80}, (8 * MIB, 10 * MIB)),
    ],
)
def test_limits(keys, limits):
    """The soft limit is 20 % below the hard limit unless configured; ``limit_mib`` takes precedence."""
    assert load(**keys).limits_bytes(1000 * MIB) == limits


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"check_interval": "0s", "limit_mib": 5}, "'check_interval' must be greater than zero"),
        ({}, "'limit_mib' or 'limit_percentage' must be greater than zero"),
        ({"limit_mib": 5, "spike_limit_mib": 5}, "'spike_limit_mib' must be smaller than 'limit_mib'"),
        ({"limit_percentage": 50, "spike_limit_percentage": 60}, "'spike_limit_percentage' must be smaller"),
        ({"limit_percentage": 101}, "less than or equal to 100"),
        ({"limit_mib": -1}, "greater than or equal to 0"),
        ({"limit_mib": 5, "spike_limit_percentage": 5}, "without 'limit_percentage' has no effect"),
        ({"limit_mib": 5, "max_gc_interval_when_soft_limited": "1s"}, "must not be less"),
        ({"limit_mib": 5, "limit_gib": 1}, "Extra inputs"),
    ],
)
def test_mistakes_are_refused(keys, message):
    """The messages are the Collector's where it has one."""
    with pytest.raises(ValidationError, match=message):
        load(**keys)


def test_check_interval_is_required():
    """Its default is invalid, as in the Collector."""
    with pytest.raises(ValidationError, match="check_interval: 1s"):
        MemoryLimiterConfig.model_validate({"limit_mib": 5})


async def test_start_hands_the_limits_to_the_real_door_which_then_refuses():
    """A request above the soft limit is refused, one below it is accepted; batches pass unchanged."""
    clock = FakeClock()
    host = FakeHost(admission=ServiceAdmission(clock, available_bytes=100 * MIB, rss=lambda: 0))
    telemetry = RecordingTelemetry()
    limiter = MemoryLimiter(
        make_settings(factory, signals={Signal.TRACES}, telemetry=telemetry), load(limit_percentage=10)
    )
    await limiter.start(host)
    with host.admission.reserve(7 * MIB):
        assert telemetry.value("otelcol_processor_memory_limiter_used_bytes") == 7 * MIB
        with pytest.raises(Exception, match="memory") as refusal:
            host.admission.reserve(2 * MIB)
    assert type(refusal.value).__name__ == "RetryableError"
    assert telemetry.value("otelcol_processor_memory_limiter_limit_bytes", limit="soft") == 8 * MIB
    assert telemetry.value("otelcol_processor_memory_limiter_limit_bytes", limit="hard") == 10 * MIB
    batch = traces()
    assert limiter.transform(batch) is batch


async def test_intervals_reach_the_door():
    """``check_interval`` and the intervals between garbage collections are passed on."""
    seen = {}

    class Recorder:
        used_bytes = 0
        available_bytes = 1 << 30

        def limit(self, **keys):
            seen.update(keys)

    config = load(
        limit_mib=5,
        check_interval="250ms",
        min_gc_interval_when_soft_limited="3s",
        min_gc_interval_when_hard_limited="2s",
    )
    await MemoryLimiter(make_settings(factory, signals={Signal.LOGS}), config).start(FakeHost(admission=Recorder()))
    assert seen == {
        "soft_bytes": 4 * MIB,
        "hard_bytes": 5 * MIB,
        "check_interval_s": 0.25,
        "min_gc_interval_soft_s": 3,
        "min_gc_interval_hard_s": 2,
    }


async def test_a_removed_limiter_withdraws_its_limits():
    """A reload that removes it returns to the default budget, even if it is shut down twice."""
    admission = ServiceAdmission(FakeClock(), available_bytes=1000 * MIB)
    limiter = MemoryLimiter(make_settings(factory), load(limit_mib=100))
    await limiter.start(FakeHost(admission=admission))
    assert admission.soft_bytes == 80 * MIB
    await limiter.shutdown()
    await limiter.shutdown()
    assert admission.soft_bytes == 500 * MIB
