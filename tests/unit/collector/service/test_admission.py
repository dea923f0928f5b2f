"""The memory budget refuses requests in time, releases what was reserved, and follows the resident memory."""

import asyncio

import pytest

from collector.api import HealthCheck, RetryableError
from collector.service import admission as module
from collector.service.admission import ServiceAdmission
from collector.testing import FakeClock, RecordingLog


def make(rss=lambda: 0, available=1000) -> ServiceAdmission:
    return ServiceAdmission(FakeClock(), available_bytes=available, rss=rss)


def test_the_default_is_half_of_what_there_is():
    """With 1000 bytes of memory the limit is 500: when 400 are held, 200 more are refused and 100 are not."""
    admission = make()
    admission.charge(400)
    with pytest.raises(RetryableError) as refusal:
        admission.reserve(200)
    assert (refusal.value.reason, refusal.value.retry_after_s) == ("memory_limit", 1.0)
    with admission.reserve(100):
        assert admission.used_bytes == 500
    assert admission.used_bytes == 400
    assert admission.refused_count == 1


def test_room_is_what_may_still_be_held():
    """What stages hold counts; there is no room above the soft limit or while the resident memory is high."""
    rss = 0
    admission = make(rss=lambda: rss)
    admission.limit(soft_bytes=500, hard_bytes=600)
    admission.charge(300)
    take_off = admission.add_source(lambda: 150)
    assert admission.room_bytes() == 50
    admission.charge(100)
    assert admission.room_bytes() == 0
    take_off()
    assert admission.room_bytes() == 100
    rss = 550
    admission.check()
    assert admission.room_bytes() == 0


def test_a_reservation_is_released_also_on_an_error():
    """A reservation is released if the block raises."""
    admission = make()
    with pytest.raises(KeyError), admission.reserve(10):
        raise KeyError
    assert admission.used_bytes == 0


def test_stages_count_and_can_be_taken_off():
    """The bytes that a source reports count until it is removed."""
    admission = make()
    detach = admission.add_source(lambda: 450)
    with pytest.raises(RetryableError):
        admission.reserve(100)
    detach()
    detach()
    assert admission.used_bytes == 0


def test_a_high_rss_refuses_until_it_falls():
    """Requests are refused above the soft limit, and accepted again below it."""
    rss = [90]
    admission = make(rss=lambda: rss[0])
    admission.limit(soft_bytes=80, hard_bytes=100)
    admission.check()
    with pytest.raises(RetryableError, match="the process uses 90 bytes"):
        admission.reserve(1)
    rss[0] = 70
    admission.check()
    with admission.reserve(1):
        pass


async def test_garbage_is_collected_at_most_once_an_interval():
    """Above the hard limit at every check (an interval of 0 s), between the soft and the hard limit every 10 s."""
    rss = [90]
    clock = FakeClock()
    admission = ServiceAdmission(clock, available_bytes=1000, rss=lambda: rss[0])
    admission.limit(soft_bytes=80, hard_bytes=100, check_interval_s=1.0)
    watch = asyncio.ensure_future(admission.watch())
    await clock.advance(9)
    assert admission.collected_count == 1
    await clock.advance(1.5)
    assert admission.collected_count == 2
    rss[0] = 120
    await clock.advance(3)
    assert admission.collected_count == 5
    watch.cancel()
    await asyncio.gather(watch, return_exceptions=True)


def test_of_several_limiters_the_lowest_holds_and_a_reload_forgets_them():
    """memory_limiter is used in three pipelines."""
    admission = make()
    withdraw = [
        admission.limit(soft_bytes=300, hard_bytes=400, check_interval_s=5.0),
        admission.limit(soft_bytes=200, hard_bytes=500),
    ]
    assert (admission.soft_bytes, admission.hard_bytes) == (200, 400)
    withdraw[1]()
    withdraw[1]()
    assert (admission.soft_bytes, admission.hard_bytes) == (300, 400)
    withdraw[0]()
    assert admission.soft_bytes == 500


def test_a_containers_limit_is_what_the_default_budget_is_a_share_of(monkeypatch):
    """collector.service.memory determines the limit, as it does for memory_limiter."""
    monkeypatch.setattr(module.memory, "available_bytes", lambda: 1048576)
    assert ServiceAdmission(FakeClock()).soft_bytes == 1048576 * module.DEFAULT_SHARE


def test_refusals_are_logged_and_shown_by_health():
    """At most one line in ten seconds; after a minute of refusals without a pause the check fails."""
    clock, log = FakeClock(), RecordingLog()
    admission = ServiceAdmission(clock, available_bytes=1000, rss=lambda: 0, log=log)
    assert admission.health().healthy
    assert not admission.health().message
    for _ in range(14):
        for _ in range(3):
            with pytest.raises(RetryableError):
                admission.reserve(10_000)
        clock.move(5)
    events = log.of_level("warning")
    assert len(events) == 7
    assert events[0].fields["held_limit_bytes"] == 500
    assert not admission.health().healthy
    assert "refused for 70 s" in admission.health().message
    clock.move(11)
    assert admission.health() == HealthCheck("memory", healthy=True)


def test_the_end_of_a_memory_shortage_is_logged():
    """When the process's memory is below its limit again."""
    clock, log, rss = FakeClock(), RecordingLog(), [2000]
    admission = ServiceAdmission(clock, available_bytes=10_000, rss=lambda: rss[0], log=log)
    admission.limit(soft_bytes=1000, hard_bytes=1500)
    admission.check()
    with pytest.raises(RetryableError):
        admission.reserve(1)
    rss[0] = 500
    admission.check()
    admission.check()
    assert len(log.of_level("info")) == 1
