"""The state of span_metrics in a storage: after a restart it continues, without a reset and without a doubled value."""

import errno

import numpy as np
import pytest

from collector.testing import FakeHost, FakeStorage

CALLS, DURATION = "traces.span.metrics.calls", "traces.span.metrics.duration"
DELTA = "AGGREGATION_TEMPORALITY_DELTA"
FULL = OSError(errno.ENOSPC, "No space left on device")
VARIANTS = {
    "explicit": {},
    "exponential": {"histogram": {"exponential": {"max_size": 20}}},
    "dimensions": {"calls_dimensions": [{"name": "n"}], "events": {"enabled": True, "dimensions": [{"name": "e"}]}},
    "overflow": {"aggregation_cardinality_limit": 2},
    "instance": {"include_collector_instance_id": True},
}


async def started(kit, storage, config=None, **how):
    gateway = kit.Gateway({"storage": "file_storage", **(config or {})}, **how)
    await gateway.connector.start(FakeHost(extensions={"file_storage": storage}))
    gateway.connector.state.random = np.random.default_rng(1)
    return gateway


async def killed(gateway):
    """What is in memory is gone."""
    await gateway.connector._flush_task.stop()


def spans(kit, first, count):
    return [
        kit.span_of(
            name=f"op{i % 5}",
            span=i,
            ns=1_000_000 * i,
            status=2 if i % 3 == 0 else 0,
            attributes={"n": i % 2},
            events=[("exception", {"e": "x"})],
            resource={"service.name": f"service{i % 2}"},
        )
        for i in range(first, first + count)
    ]


async def calls(gateway):
    """The calls of all series after a flush."""
    points, _ = await gateway.flush()
    return sum(written[-1].as_int for key, written in points.items() if key[1] == CALLS)


def last_points(points):
    """Of each series, everything of its last point but the time."""
    found = {}
    for key, written in points.items():
        point = type(written[-1])()
        point.CopyFrom(written[-1])
        point.ClearField("time_unix_nano")
        del point.exemplars[:]
        found[key] = point
    return found


@pytest.mark.parametrize("is_killed", [True, False], ids=["kill -9", "SIGTERM"])
@pytest.mark.parametrize("variant", VARIANTS)
async def test_continues_like_a_connector_that_was_never_restarted(kit, variant, is_killed):
    """Every series has the values and the start time that it would have; none begins again with a zero."""
    storage, config = FakeStorage(), VARIANTS[variant]
    whole = await started(kit, FakeStorage(), config)
    first = await started(kit, storage, config, clock=whole.clock)
    for gateway in (whole, first):
        await gateway.send(*spans(kit, 1, 40))
    await first.flush(0)
    await whole.flush(1)
    if is_killed:
        await killed(first)
    else:
        await first.connector.shutdown()
    second = await started(kit, storage, config, clock=whole.clock)
    for gateway in (whole, second):
        await gateway.send(*spans(kit, 30, 40))
    expected, _ = await whole.flush(0)
    continued, _ = await second.flush(1)
    assert last_points(continued) == last_points(expected)
    assert all(len(written) == 1 for written in continued.values()), "a series began again"


async def test_after_a_crash_no_value_is_lower_than_one_that_was_emitted(kit):
    """What arrived after the last flush is missing, and nothing else."""
    storage = FakeStorage()
    first = await started(kit, storage)
    await first.send(*spans(kit, 1, 10))
    await first.flush()
    await first.send(*spans(kit, 11, 10))
    await killed(first)
    second = await started(kit, storage, clock=first.clock)
    assert await calls(second) == 10


async def test_deltas_are_neither_lost_nor_doubled_by_a_restart(kit):
    """Those of the last interval are written before the end; the next interval begins where that one ended."""
    storage, config = FakeStorage(), {"aggregation_temporality": DELTA}
    first = await started(kit, storage, config)
    await first.send(*spans(kit, 1, 10))
    first.clock.move(5)
    await first.connector.shutdown()
    written, _ = kit.points_of(first.sink.batches)
    ended = {key: points[-1].time_unix_nano for key, points in written.items()}
    second = await started(kit, storage, config, clock=first.clock)
    await second.send(*spans(kit, 1, 10))
    continued, _ = await second.flush()
    assert {key: points[-1].start_time_unix_nano for key, points in continued.items()} == ended
    total = sum(point.as_int for key, points in continued.items() if key[1] == CALLS for point in points)
    assert total == 10


async def test_a_configuration_with_other_series_begins_afresh(kit):
    """The saved state is not used, and the log says so."""
    storage = FakeStorage()
    first = await started(kit, storage)
    await first.send(*spans(kit, 1, 10))
    await first.connector.shutdown()
    second = await started(kit, storage, {"dimensions": [{"name": "n"}]}, clock=first.clock)
    await second.send(*spans(kit, 1, 3))
    assert await calls(second) == 3
    assert any("begins without saved state" in event.event for event in second.telemetry.log.events)


@pytest.mark.parametrize("damage", [b"", b"garbage", b"TRCHKPT\n\xff\xff\xff\xff", "cut", "version"])
async def test_a_state_that_cannot_be_understood_is_like_none(kit, damage):
    """It warns and counts from zero."""
    storage = FakeStorage()
    first = await started(kit, storage)
    await first.send(*spans(kit, 1, 10))
    await first.connector.shutdown()
    [state] = storage.states.values()
    match damage:
        case "cut":
            state.value = state.value[: len(state.value) // 2]
        case "version":
            state.value = state.value.replace(b'"version": 1', b'"version": 9')
        case _:
            state.value = damage
    second = await started(kit, storage, clock=first.clock)
    await second.send(*spans(kit, 1, 3))
    assert await calls(second) == 3
    assert second.telemetry.value("tailrace_state_failures", operation="load") == 1
    assert [event.level for event in second.telemetry.log.events] == ["warning"]


async def test_a_full_disk_stops_no_metrics(kit):
    """They are emitted; the log and the health check say that nothing is saved, until it is again."""
    storage = FakeStorage()
    host = FakeHost(extensions={"file_storage": storage})
    gateway = kit.Gateway({"storage": "file_storage"})
    await gateway.connector.start(host)
    [state] = storage.states.values()
    state.fail_with = FULL
    await gateway.send(*spans(kit, 1, 5))
    assert await calls(gateway) == 5
    [check] = host.health()
    assert (check.healthy, "No space left" in check.message) == (False, True)
    assert gateway.telemetry.value("tailrace_state_failures", operation="save") == 1
    state.fail_with = None
    await gateway.flush()
    assert host.health()[0].healthy
    assert state.save_count == 1


async def test_a_reload_hands_the_state_over_as_without_a_storage(kit):
    """The successor does not go back to what was saved last."""
    storage = FakeStorage()
    first = await started(kit, storage)
    await first.send(*spans(kit, 1, 10))
    await first.flush()
    await first.send(*spans(kit, 1, 10))
    second = kit.Gateway({"storage": "file_storage"}, previous=first.connector, clock=first.clock)
    await killed(first)
    await second.connector.start(FakeHost(extensions={"file_storage": storage}))
    assert await calls(second) == 20


async def test_an_unknown_storage_refuses_the_start_and_names_the_key(kit):
    gateway = kit.Gateway({"storage": "file_storage/x"})
    with pytest.raises(ValueError, match=r"connectors::span_metrics::storage: .*'file_storage/x' is not configured"):
        await gateway.connector.start(FakeHost())
