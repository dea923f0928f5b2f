"""Rules 2, 10 and 13 of docs/reference/cardinality.md: first values, times far ahead, processes with one identity."""

import pytest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest

from collector.model import Metrics
from tests.unit.processors.cardinality.test_cardinality import CUMULATIVE, OVERFLOW, SECOND, Bench, user

KINDS = ("sum", "histogram", "exponential", "updown")
HOUR = 3600


def inexact(bench, reason):
    return bench.settings.telemetry.value("tailrace_cardinality_inexact_points", reason=reason)


async def send(bench, kind, *points):
    """Points of the series ``a`` as (start, time, value); ``value`` is the count of a histogram."""
    made = ExportMetricsServiceRequest()
    resource = made.resource_metrics.add()
    resource.resource.attributes.add(key="service.name").value.string_value = "api"
    metric = resource.scope_metrics.add().metrics.add(name="requests")
    for start, time, value in points:
        if kind == "histogram":
            data = metric.histogram
            point = data.data_points.add(count=value, sum=value, bucket_counts=[value, 0], explicit_bounds=[1.0])
        elif kind == "exponential":
            data = metric.exponential_histogram
            point = data.data_points.add(count=value, sum=value, scale=3)
            point.positive.bucket_counts.append(value)
        else:
            data = metric.sum
            data.is_monotonic = kind == "sum"
            point = data.data_points.add(as_int=value)
        data.aggregation_temporality = CUMULATIVE
        point.start_time_unix_nano, point.time_unix_nano = start, time
        point.attributes.add(key="user").value.string_value = "a"
    bench.sent += len(points)
    await bench.sut.consume(Metrics.from_wire(made.SerializeToString()))


async def overflow(bench, kind):
    await bench.flush()
    point = bench.series()[0][OVERFLOW]
    return point.as_int if kind in {"sum", "updown"} else point.count


async def occupied(bench):
    """Take the one slot there is."""
    await bench.send((user(0), 1))


async def test_rule_2_a_series_never_seen_counts_in_full_however_old_its_process_is():
    """A process stamps all its series with its own start; users who arrive 70 minutes later count from 0."""
    async with Bench(limit=1) as bench:
        started = bench.start + 1
        await bench.send((user(0), 1, {"start": started}))
        for minute in range(7):
            await bench.clock.advance(600)
            await bench.send((user(0), 2 + minute, {"start": started}))
        await bench.send(*((user(i), 20, {"start": started}) for i in range(1, 7)))
        await bench.flush()
        assert bench.series()[0][OVERFLOW].as_int == 120
        assert inexact(bench, "baseline") == inexact(bench, "forgotten") == 0


async def test_rule_2_a_forgotten_source_is_a_baseline_and_counted_unless_it_has_restarted():
    """What it counted before has been counted; only a start after its last point makes it a new one."""
    async with Bench(limit=1) as bench:
        started = bench.start + 1
        await bench.clock.advance(1)
        await bench.send((user(0), 1), (user(3), 1))
        await bench.send((user(1), 10, {"start": started}), (user(2), 7, {"start": started}))
        for _ in range(8):
            await bench.clock.advance(600)
            await bench.send((user(0), 1), (user(3), 1))
        restarted = bench.clock.time_unix_nano() - 60 * SECOND
        await bench.send((user(1), 25, {"start": started}), (user(2), 5, {"start": restarted}))
        await bench.send((user(1), 26, {"start": started, "time": bench.clock.time_unix_nano() + 1}))
        await bench.flush()
        assert bench.series()[0][OVERFLOW].as_int == 1 + 10 + 7 + 5 + 1
        assert inexact(bench, "forgotten") == 1
        assert inexact(bench, "baseline") == 0


@pytest.mark.parametrize(("value", "count"), [(9, 1), (0, 0)])
async def test_rule_2_a_baseline_with_a_value_is_counted(value, count):
    async with Bench(limit=1) as bench:
        await bench.send((user(0), 1))
        await bench.send((user(1), value, {"start": bench.start - 1}))
        assert inexact(bench, "baseline") == count


async def test_rule_2_forgotten_sources_beyond_the_memory_are_never_counted_again():
    """Once there are too many of them to be remembered, old start times are baselines again, and counted."""
    async with Bench(limit=1, state_limit_mib=1) as bench:
        remembered = bench.sut.state.fold
        started = bench.start + 1
        await bench.clock.advance(1)
        for round_ in range(4):
            await bench.send((user(0), 1), (user("kept"), 1))
            await bench.send(*((user(f"{round_}-{i}"), 1, {"start": started}) for i in range(1000)))
            for _ in range(8):
                await bench.clock.advance(600)
                await bench.send((user(0), 1), (user("kept"), 1))
        await bench.send((user("0-0"), 5, {"start": started}))
        await bench.flush()
        assert bench.series()[0][OVERFLOW].as_int == 2001
        assert inexact(bench, "forgotten") == 2001  # from the third round on, new series look like forgotten ones
        assert remembered.state_bytes < 1024 * 1024


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("together", [False, True])
async def test_rule_13_two_processes_with_one_identity_add_up(kind, together):
    """The start of one is before the last point of the other, so neither has restarted."""
    async with Bench(limit=1) as bench:
        await occupied(bench)
        begin = bench.clock.time_unix_nano()
        starts, values = (begin + 1, begin + 2), [0, 0]
        for round_ in range(1, 13):
            await bench.clock.advance(10)
            now = bench.clock.time_unix_nano()
            values = [values[0] + 20, values[1] + 7]
            points = [(starts[i], now + i, values[i]) for i in (0, 1)]
            for batch in [points] if together else [[point] for point in points]:
                await send(bench, kind, *batch)
            assert await overflow(bench, kind) == 27 * round_
        assert values == [240, 84]


@pytest.mark.parametrize("kind", KINDS)
async def test_rule_13_a_start_after_the_last_point_is_a_restart(kind):
    async with Bench(limit=1) as bench:
        await occupied(bench)
        total = 0
        for _ in range(5):
            start = bench.clock.time_unix_nano() + 1
            for value in (3, 8):
                await bench.clock.advance(10)
                await send(bench, kind, (start, bench.clock.time_unix_nano(), value))
            total += 8
            assert await overflow(bench, kind) == (8 if kind == "updown" else total)
        assert inexact(bench, "overlap") == 0


async def test_rule_13_an_old_process_that_returns_after_a_restart_loses_one_interval_and_is_counted():
    """It may have been counted before, so its first value is a baseline."""
    async with Bench(limit=1) as bench:
        await occupied(bench)
        begin = bench.clock.time_unix_nano()
        for start, time, value in [(1, 10, 100), (12, 15, 5), (1, 20, 110), (12, 21, 6), (1, 30, 130), (12, 31, 9)]:
            await send(bench, "sum", (begin + start, begin + time, value))
        assert await overflow(bench, "sum") == 100 + 9 + 20
        assert inexact(bench, "overlap") == 1


async def test_rule_13_too_many_processes_with_one_identity_are_dropped_and_counted():
    """A start time that changes with every point would otherwise count the same value again and again."""
    async with Bench(limit=1) as bench:
        await occupied(bench)
        begin = bench.clock.time_unix_nano() + SECOND
        for i in range(100):
            await send(bench, "sum", (begin - i, begin + 1000 + i, 10))
        assert await overflow(bench, "sum") == 10 * 32
        assert inexact(bench, "overlap") == 100 - 32


async def test_rule_13_the_series_outlives_its_first_process():
    """Where one process has ended, the other continues and is not counted again."""
    async with Bench(limit=1) as bench:
        begin = bench.clock.time_unix_nano()
        await occupied(bench)
        await send(bench, "sum", (begin + 1, begin + 10, 100), (begin + 2, begin + 11, 50))
        for i in range(12):
            await bench.clock.advance(600)
            await bench.send((user(0), 1))
            await send(bench, "sum", (begin + 2, bench.clock.time_unix_nano(), 51 + i))
        assert await overflow(bench, "sum") == 162


@pytest.mark.parametrize("kind", KINDS)
async def test_rule_10_a_time_far_ahead_does_not_silence_a_source(kind):
    """Once a point has a time that can be believed, it is not older than one that is a day ahead."""
    async with Bench(limit=1) as bench:
        await occupied(bench)
        start = bench.start + 1
        await send(bench, kind, (start, bench.clock.time_unix_nano() + 24 * HOUR * SECOND, 5))
        for value in (6, 9):
            await bench.clock.advance(10)
            await send(bench, kind, (start, bench.clock.time_unix_nano(), value))
        assert await overflow(bench, kind) == 9
        assert inexact(bench, "out_of_order") == 0


async def test_rule_10_a_source_whose_clock_is_always_ahead_keeps_its_order():
    async with Bench(limit=1) as bench:
        await occupied(bench)
        ahead = bench.start + 24 * HOUR * SECOND
        for time, value in ((10, 5), (20, 8), (15, 6), (20, 8), (30, 9)):
            await send(bench, "sum", (bench.start + 1, ahead + time, value))
        assert await overflow(bench, "sum") == 9
        assert inexact(bench, "out_of_order") == 2


async def test_rule_10_the_last_value_is_not_that_of_a_clock_that_is_ahead():
    """A gauge from tomorrow is as new as its arrival."""
    async with Bench(limit=1) as bench:
        await bench.send((user(0), 1), kind="gauge")
        now = bench.clock.time_unix_nano()
        await bench.send((user(1), 7, {"time": now + 24 * HOUR * SECOND}), kind="gauge")
        await bench.clock.advance(5)
        await bench.send((user(2), 3), kind="gauge")
        await bench.flush()
        assert bench.series()[0][OVERFLOW].as_int == 3


def all_points(bench, name="requests"):
    """Every written point of the overflow series, in order."""
    return [
        point
        for batch in bench.sink.batches
        for resource in ExportMetricsServiceRequest.FromString(batch.wire).resource_metrics
        for scope in resource.scope_metrics
        for metric in scope.metrics
        for point in getattr(metric, metric.WhichOneof("data")).data_points
        if metric.name == name and point.attributes[0].key == "otel.metric.overflow"
    ]


@pytest.mark.parametrize("kind", KINDS[:3])
async def test_an_overflow_series_begins_with_a_zero(kind):
    """Without one, a backend that computes increases would not see what the first flush has."""
    async with Bench(limit=1) as bench:
        await occupied(bench)
        await bench.clock.advance(3)
        began = bench.clock.time_unix_nano()
        await send(bench, kind, (bench.start + 1, began, 5))
        await overflow(bench, kind)
        zero, value = all_points(bench)
        assert zero.start_time_unix_nano == value.start_time_unix_nano <= zero.time_unix_nano == began
        assert value.time_unix_nano > began
        if kind == "sum":
            assert (zero.as_int, value.as_int) == (0, 5)
        else:
            assert (zero.count, zero.sum, value.count, value.sum) == (0, 0, 5, 5)
            counts = zero.bucket_counts if kind == "histogram" else zero.positive.bucket_counts
            assert not any(counts)
        await overflow(bench, kind)
        assert len(all_points(bench)) == 3


async def test_a_series_that_the_backend_knows_does_not_begin_with_a_zero():
    """A source of that name was named before, and its value continues."""
    async with Bench(attributes=[{"keys": ["path"], "action": "template"}]) as bench:
        await bench.clock.advance(1)
        await bench.send(({"path": "/a/{id}"}, 5))
        await bench.clock.advance(1)
        await bench.send(({"path": "/a/1"}, 2), ({"path": "/a/{id}"}, 6))
        await bench.flush()
        _, added = bench.series()
        assert added["api", "requests", (("path", "/a/{id}"),)] == 5 + 8
        values = [
            point.as_int
            for batch in bench.sink.batches
            for resource in ExportMetricsServiceRequest.FromString(batch.wire).resource_metrics
            for scope in resource.scope_metrics
            for metric in scope.metrics
            for point in metric.sum.data_points
        ]
        assert values == [5, 8]


@pytest.mark.parametrize("kind", [*KINDS, "gauge"])
async def test_written_series_end_with_the_process(kind):
    """The next process writes other ones: backends must not add up both. Histograms end with their bounds."""
    async with Bench(limit=1) as bench:
        await occupied(bench)
        if kind == "gauge":
            await bench.send((user(1), 5), kind="gauge")
            await bench.send((user(2), 5), kind="gauge")
        else:
            await send(bench, kind, (bench.start + 1, bench.clock.time_unix_nano(), 5))
        await bench.flush()
    *_, value, end = all_points(bench)
    assert not value.flags
    assert end.flags == 1
    assert end.time_unix_nano > value.time_unix_nano
    if kind == "histogram":
        assert list(end.explicit_bounds) == [1.0]
        assert list(end.bucket_counts) == [0, 0]
    assert bench.balanced()


async def test_a_reload_ends_written_series_only_if_its_successor_makes_other_ones():
    for keys, flags in (({"limit": 1}, [0, 0, 0]), ({"limit": 1, "group_by": ["service.namespace"]}, [0, 0, 0, 1])):
        async with Bench(limit=1) as bench:
            await occupied(bench)
            await send(bench, "sum", (bench.start + 1, bench.clock.time_unix_nano() + 1, 5))
            await bench.flush()
            old = bench.reload(**keys)
            await old.shutdown()
            assert [point.flags for point in all_points(bench)] == flags
            await bench.sut.start(bench.host)
