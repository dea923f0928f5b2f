"""The processor, by the rules of docs/reference/cardinality.md: merged series stay true to the last unit."""

import asyncio
import random
from collections import defaultdict

import pytest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest

from collector.api import RetryableError
from collector.model import Metrics, Signal
from collector.testing import FakeClock, FakeHost, Sink, hand_over, make_settings
from processors.cardinality import factory, limits
from processors.cardinality.config import CardinalityConfig, TemplateConfig
from processors.cardinality.template import Templater

SECOND = 1_000_000_000
DELTA, CUMULATIVE = 1, 2


class Bench:
    def __init__(self, *, sink=None, **keys):
        self.clock = FakeClock()
        self.sink = sink or Sink(Signal.METRICS)
        self.settings = make_settings(
            factory, signals={Signal.METRICS}, clock=self.clock, outputs={Signal.METRICS: self.sink}
        )
        self.start = self.settings.start_time_unix_nano or self.clock.time_unix_nano()
        self.sut = factory.create(self.settings, CardinalityConfig.model_validate(keys))
        self.host = FakeHost()
        self.sent = 0

    async def __aenter__(self):
        await self.sut.start(self.host)
        return self

    async def __aexit__(self, *_):
        await self.sut.shutdown()

    async def send(
        self,
        *points,
        name="requests",
        temporality=CUMULATIVE,
        monotonic=True,
        kind="sum",
        service="api",
        bounds=(1.0, 2.0),
    ):
        """A point is (attributes, value or bucket counts, options)."""
        made = ExportMetricsServiceRequest()
        resource = made.resource_metrics.add()
        resource.resource.attributes.add(key="service.name").value.string_value = service
        metric = resource.scope_metrics.add().metrics.add(name=name)
        for attributes, value, *rest in points:
            options = rest[0] if rest else {}
            time = options.get("time", self.clock.time_unix_nano())
            start = options.get("start", self.start + 1)
            if kind == "histogram":
                metric.histogram.aggregation_temporality = temporality
                point = metric.histogram.data_points.add(count=sum(value), bucket_counts=value, explicit_bounds=bounds)
                point.sum = options.get("sum", float(sum(i * count for i, count in enumerate(value))))
                if "range" in options:
                    point.min, point.max = options["range"]
            elif kind == "gauge":
                point = metric.gauge.data_points.add()
            else:
                metric.sum.aggregation_temporality, metric.sum.is_monotonic = temporality, monotonic
                point = metric.sum.data_points.add()
            if kind != "histogram":
                if isinstance(value, int):
                    point.as_int = value
                else:
                    point.as_double = value
            point.time_unix_nano, point.start_time_unix_nano, point.flags = time, start, options.get("flags", 0)
            for key, text in attributes.items():
                point.attributes.add(key=key).value.string_value = text
        self.sent += len(points)
        await self.sut.consume(Metrics.from_wire(made.SerializeToString()))

    def reload(self, **keys):
        """Makes a successor, as the service does; returns the old object."""
        config = CardinalityConfig.model_validate(keys)
        old, self.sut = self.sut, hand_over(self.sut, factory.create(self.settings, config), config)
        return old

    async def flush(self):
        await self.clock.advance(15.1)

    def series(self):
        """{(service, name, attributes): last point} of the output, and the sums of all values."""
        last, added = {}, defaultdict(int)
        for batch in self.sink.batches:
            for resource in ExportMetricsServiceRequest.FromString(batch.wire).resource_metrics:
                service = {a.key: a.value.string_value for a in resource.resource.attributes}.get("service.name")
                for scope in resource.scope_metrics:
                    for metric in scope.metrics:
                        for point in getattr(metric, metric.WhichOneof("data")).data_points:
                            attributes = tuple(
                                sorted(
                                    (a.key, a.value.string_value or str(a.value.bool_value)) for a in point.attributes
                                )
                            )
                            key = service, metric.name, attributes
                            last[key] = point
                            if hasattr(point, "as_int"):
                                added[key] += point.as_int + int(point.as_double)
        return last, added

    def balanced(self):
        ledger = self.settings.telemetry.ledger
        created, folded = ledger.created[Signal.METRICS], ledger.folded[Signal.METRICS]
        return self.sent + created == self.sink.item_count + folded + ledger.dropped_count(Signal.METRICS)


OVERFLOW = ("api", "requests", (("otel.metric.overflow", "True"),))


def user(number):
    return {"user": f"u{number}"}


async def test_rule_1_cumulative_sources_over_the_limit_add_up():
    """Σ named + Σ overflow = Σ truth after every flush, over restarts of sources; series stay within the limit."""
    rng = random.Random(4)
    async with Bench(limit=5, initial="auto") as bench:
        value, total, started = (
            dict.fromkeys(range(40), 0),
            dict.fromkeys(range(40), 0),
            dict.fromkeys(range(40), bench.start + 1),
        )
        for _ in range(12):
            await bench.clock.advance(1)
            points = []
            for source in rng.sample(range(40), 25):
                gain = rng.randrange(0, 50)
                if value[source] > 5 and rng.random() < 0.15 and source >= 5:
                    value[source] = 0
                    started[source] = bench.clock.time_unix_nano() - 1
                value[source] += gain
                total[source] += gain
                points.append((user(source), value[source], {"start": started[source]}))
            await bench.send(*points)
            await bench.flush()
            last, _ = bench.series()
            named = {key: point for key, point in last.items() if key != OVERFLOW}
            assert len(named) <= 5
            gone = sum(total[s] - value[s] for s in range(40) if any(dict(key[2]) == user(s) for key in named))
            assert sum(point.as_int for point in last.values()) + gone == sum(total.values())
        assert bench.balanced()


async def test_rule_1_overflow_is_written_also_while_sources_are_silent():
    """So it does not become stale; start is the processor's, and times increase strictly."""
    async with Bench(limit=1) as bench:
        await bench.send((user(0), 1), (user(1), 7))
        await bench.flush()
        first = bench.series()[0][OVERFLOW]
        await bench.flush()
        second = bench.series()[0][OVERFLOW]
        assert (first.as_int, second.as_int) == (7, 7)
        assert second.time_unix_nano > first.time_unix_nano
        assert second.start_time_unix_nano == first.start_time_unix_nano == bench.sut._fold.start_time_unix_nano
        await bench.sut.shutdown()
        assert bench.balanced()


@pytest.mark.parametrize(("initial", "expected"), [("auto", 5), ("zero", 5), ("full", 105)])
async def test_rule_2_a_source_with_a_past_is_a_baseline(initial, expected):
    """Its history must not appear in any rate."""
    async with Bench(limit=1, initial=initial) as bench:
        await bench.send((user(0), 1), (user(1), 100, {"start": bench.start - 3600 * SECOND}))
        await bench.clock.advance(1)
        await bench.send((user(1), 105, {"start": bench.start - 3600 * SECOND}))
        await bench.flush()
        assert bench.series()[0][OVERFLOW].as_int == expected


async def test_rule_4_delta_is_one_point_per_flush():
    """It covers [last flush, now]; without new points there is none."""
    async with Bench(limit=1) as bench:
        await bench.send((user(0), 1), (user(1), 3), (user(2), 4), temporality=DELTA)
        await bench.flush()
        await bench.clock.advance(1)
        await bench.send((user(1), 5), (user(3), 6), temporality=DELTA)
        await bench.flush()
        await bench.flush()
        _, added = bench.series()
        assert added[OVERFLOW] == 18
        assert sum(added.values()) == 19
        assert bench.balanced()


@pytest.mark.parametrize("temporality", [DELTA, CUMULATIVE])
async def test_rule_5_histograms_add_bucket_by_bucket(temporality):
    """With equal bounds the result is exact, also over restarts."""
    rng = random.Random(9)
    async with Bench(limit=2) as bench:
        value = {s: [0, 0, 0] for s in range(12)}
        started = dict.fromkeys(range(12), bench.start + 1)
        truth = [0, 0, 0]
        got_delta = [0, 0, 0]
        await bench.send(*((user(s), [0, 0, 0]) for s in range(2)), kind="histogram", temporality=temporality)
        for _ in range(8):
            await bench.clock.advance(1)
            points = []
            for source in rng.sample(range(12), 9):
                gain = [rng.randrange(5) for _ in range(3)]
                if temporality == CUMULATIVE and source >= 2 and rng.random() < 0.1:
                    value[source], started[source] = [0, 0, 0], bench.clock.time_unix_nano()
                base = [0, 0, 0] if temporality == DELTA else value[source]
                value[source] = [a + b for a, b in zip(base, gain, strict=True)]
                if source >= 2:
                    truth = [a + b for a, b in zip(truth, gain, strict=True)]
                points.append((user(source), value[source], {"start": started[source]}))
            await bench.send(*points, kind="histogram", temporality=temporality)
            await bench.flush()
            point = bench.series()[0].get(OVERFLOW)
            if temporality == DELTA and point is not None:
                got_delta = [a + b for a, b in zip(got_delta, point.bucket_counts, strict=True)]
        got = got_delta if temporality == DELTA else list(point.bucket_counts)
        assert got == truth
        if temporality == CUMULATIVE:
            assert point.count == sum(truth)
            assert point.sum == sum(i * count for i, count in enumerate(truth))
        assert bench.balanced()


async def test_rule_5_other_bounds_count_into_inf_and_are_reported():
    """No observation is lost or in a wrong bucket."""
    async with Bench(limit=1) as bench:
        await bench.send((user(0), [1, 1, 1]), (user(1), [1, 2, 3]), kind="histogram")
        await bench.send((user(2), [5, 5, 5]), kind="histogram", bounds=(10.0, 20.0))
        await bench.flush()
        point = bench.series()[0][OVERFLOW]
        assert (list(point.bucket_counts), point.count) == ([1, 2, 18], 21)
        assert bench.settings.telemetry.value("tailrace_cardinality_inexact_points", reason="bounds") == 1


async def test_rule_5_two_types_of_one_name_have_an_overflow_each():
    """A sum and a gauge are never added up."""
    async with Bench(limit=1) as bench:
        await bench.send((user(0), 1), (user(1), 2))
        await bench.send((user(2), 3), kind="gauge")
        await bench.flush()
        kinds = [
            metric.WhichOneof("data")
            for batch in bench.sink.batches[-1:]
            for resource in ExportMetricsServiceRequest.FromString(batch.wire).resource_metrics
            for scope in resource.scope_metrics
            for metric in scope.metrics
        ]
        assert sorted(kinds) == ["gauge", "sum", "sum"]  # the sum begins with a zero


async def test_rule_6_up_down_counters_are_the_sum_of_latest_values():
    """A source that ends takes its value with it."""
    async with Bench(limit=1) as bench:
        await bench.send((user(0), 1), (user(1), 10), (user(2), 20), monotonic=False)
        await bench.clock.advance(1)
        await bench.send((user(1), 4), monotonic=False)
        await bench.flush()
        assert bench.series()[0][OVERFLOW].as_int == 24
        await bench.send((user(2), 0, {"flags": 1}), monotonic=False)
        await bench.flush()
        assert bench.series()[0][OVERFLOW].as_int == 4
        assert bench.balanced()


async def test_rule_5_min_and_max_are_kept_on_delta_alone():
    """A cumulative minimum would be meaningless. A point without them removes them from that flush only."""
    async with Bench(limit=1) as bench:
        for temporality in (DELTA, CUMULATIVE):
            await bench.send(
                (user(0), [1, 1, 1]),
                (user(1), [1, 1, 1], {"range": (-3.0, 5.0)}),
                (user(2), [1, 1, 1], {"range": (0.5, 9.0)}),
                kind="histogram",
                temporality=temporality,
                name=f"t{temporality}",
            )
        await bench.flush()
        delta, cumulative = (
            bench.series()[0]["api", f"t{temporality}", OVERFLOW[2]] for temporality in (DELTA, CUMULATIVE)
        )
        assert (delta.min, delta.max) == (-3.0, 9.0)
        assert not cumulative.HasField("min")
        for options, expected in (({}, False), ({"range": (2.0, 3.0)}, True)):
            await bench.clock.advance(1)
            await bench.send((user(1), [1, 0, 0], options), kind="histogram", temporality=DELTA, name="t1")
            await bench.flush()
            point = bench.series()[0]["api", "t1", OVERFLOW[2]]
            assert point.HasField("min") is expected
        assert (point.min, point.max) == (2.0, 3.0)


async def test_rule_5_a_source_that_changes_its_bounds_is_not_counted_again():
    """Neither within a batch nor between batches; its gain goes into +Inf."""
    async with Bench(limit=1) as bench:
        await bench.send((user(0), [1, 1, 1]), (user(1), [1, 2, 3]), kind="histogram")
        await bench.clock.advance(1)
        await bench.send((user(1), [2, 3, 4]), kind="histogram", bounds=(10.0, 20.0))
        await bench.clock.advance(1)
        await bench.send((user(1), [4, 4, 4]), kind="histogram")
        await bench.clock.advance(1)
        await bench.send((user(1), [5, 4, 4]), kind="histogram")
        await bench.flush()
        point = bench.series()[0][OVERFLOW]
        assert (list(point.bucket_counts), point.count) == ([2, 2, 9], 13)
        assert point.sum == 4 + 8
        assert bench.balanced()


async def test_rule_5_two_bounds_of_one_source_in_one_batch():
    """Its buckets stay its own, whichever bounds were last."""
    async with Bench(limit=1) as bench:
        now = bench.clock.time_unix_nano()
        made = ExportMetricsServiceRequest()
        resource = made.resource_metrics.add()
        resource.resource.attributes.add(key="service.name").value.string_value = "api"
        histogram = resource.scope_metrics.add().metrics.add(name="requests").histogram
        histogram.aggregation_temporality = CUMULATIVE
        for who, counts, bounds, later in (
            (0, [1, 1], [1.0], 0),
            (1, [1, 1], [1.0], 0),
            (2, [2, 2], [5.0], 0),
            (3, [2, 2], [5.0], 0),
            (3, [3, 3], [1.0], 1),
        ):
            point = histogram.data_points.add(count=sum(counts), bucket_counts=counts, explicit_bounds=bounds, sum=1)
            point.time_unix_nano, point.start_time_unix_nano = now + later, bench.start + 1
            point.attributes.add(key="user").value.string_value = f"u{who}"
        bench.sent += 5
        await bench.sut.consume(Metrics.from_wire(made.SerializeToString()))
        await bench.clock.advance(1)
        await bench.send((user(1), [5, 5]), (user(3), [4, 5]), kind="histogram", bounds=(1.0,))
        await bench.flush()
        point = bench.series()[0][OVERFLOW]
        assert point.count == sum(point.bucket_counts) == 10 + 4 + 9
        assert bench.balanced()


async def test_rule_5_of_too_many_bounds_only_count_and_sum_are_kept():
    """They take no memory for buckets."""
    async with Bench(limit=1) as bench:
        many = [float(i) for i in range(6000)]
        await bench.send((user(0), [1] * 6001), (user(1), [1] * 6001), kind="histogram", bounds=many)
        await bench.flush()
        point = bench.series()[0][OVERFLOW]
        assert (point.count, list(point.bucket_counts)) == (6001, [])


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
async def test_values_that_are_not_finite_are_dropped_and_counted(value):
    """A NaN would stay in the sum forever."""
    async with Bench(limit=1) as bench:
        await bench.send((user(0), 1.0), (user(1), value), (user(2), 3.0))
        await bench.send((user(0), [1, 0, 0]), (user(1), [1, 0, 0], {"sum": value}), kind="histogram", name="h")
        await bench.flush()
        last, _ = bench.series()
        assert last[OVERFLOW].as_double == 3.0
        assert (last["api", "h", OVERFLOW[2]].count, last["api", "h", OVERFLOW[2]].HasField("sum")) == (1, False)
        assert bench.settings.telemetry.ledger.dropped_count(Signal.METRICS, "not_finite") == 1
        assert bench.balanced()


async def test_a_source_may_change_between_ints_and_doubles():
    """That is not a restart."""
    async with Bench(limit=1) as bench:
        await bench.send((user(0), 1))
        for value in (3, 4.5, 5, 2, 2.5):
            await bench.clock.advance(1)
            await bench.send((user(1), value))
        await bench.flush()
        assert bench.series()[0][OVERFLOW].as_double == 7.5


async def test_rule_6_a_silent_source_leaves_after_stale_after():
    """Without live sources the series is not written."""
    async with Bench(limit=1) as bench:
        await bench.send((user(0), 1), (user(1), 10), (user(2), 20), monotonic=False)
        for _ in range(5):
            await bench.clock.advance(100)
            await bench.send((user(1), 10), monotonic=False)
        await bench.flush()
        assert bench.series()[0][OVERFLOW].as_int == 10
        await bench.clock.advance(400)
        before = bench.sink.item_count
        await bench.flush()
        assert bench.sink.item_count == before


async def test_rule_7_end_markers_of_unknown_series_do_not_bypass_the_limit():
    """They pass only while there is room."""
    async with Bench(limit=2) as bench:
        await bench.send((user(0), 1), (user(9), 0, {"flags": 1}))
        await bench.send((user(1), 1))
        await bench.send(*((user(i), 0, {"flags": 1}) for i in range(10, 50)))
        assert {dict(key[2])["user"] for key in bench.series()[0]} == {"u0", "u1", "u9"}
        assert bench.balanced()


@pytest.mark.parametrize("named", [True, False])
async def test_rule_7_a_series_that_ended_and_comes_back_is_not_counted_twice(named):
    """Under its old start time only the gain counts; under a new one the whole value."""
    async with Bench(limit=1) as bench:
        if not named:
            await bench.send((user(9), 1))
        await bench.send((user(0), 100))
        await bench.clock.advance(1)
        await bench.send((user(0), 0, {"flags": 1}))
        await bench.clock.advance(1)
        await bench.send((user(1), 5))
        await bench.clock.advance(1)
        await bench.send((user(0), 107))
        await bench.clock.advance(1)
        await bench.send((user(0), 110))
        await bench.clock.advance(1)
        await bench.send((user(0), 2, {"start": bench.clock.time_unix_nano() - 1}))
        await bench.flush()
        assert bench.series()[0][OVERFLOW].as_int == (7 + 3 + 2 if named else 100 + 5 + 7 + 3 + 2)
        assert bench.balanced()


async def test_all_state_expires():
    """Sources, their buckets, budgets and written series."""
    async with Bench(limit=1) as bench:
        for i in range(6):
            await bench.send(
                *((user(100 * i + j), [1, 1, 1]) for j in range(100)),
                kind="histogram",
                name=f"n{i}",
                bounds=(1.0, 2.0 + i),
            )
            await bench.clock.advance(3700)
        fold = bench.sut._fold
        limits = bench.sut.state.limits
        assert [len(table) for table in (fold.accumulators, limits.budgets, limits.named)] == [0, 0, 0]
        await bench.clock.advance(3700)  # so long a series that was named may come back
        assert len(fold.sources) == 0
        rows = (*fold.histograms.source_pools, *fold.histograms.accumulator_pools)
        assert sum(store.used for store in rows) == 0
        assert len(fold.histograms.source_pools) <= 6
        assert not limits.names
        before = bench.sink.item_count
        await bench.flush()
        assert bench.sink.item_count == before


async def test_merged_series_stay_below_the_limit_over_time():
    """One that lost its slot is not written; when it comes back, it starts after its last point."""
    async with Bench(limit=2, attributes=[{"keys": ["user"], "action": "drop"}]) as bench:
        key, before = ("api", "requests", (("code", "0"),)), {}
        for i in (0, 1, 2, 0):
            points = (
                ({"user": "x", "code": str(i * 2 + j)}, 1, {"start": bench.clock.time_unix_nano()}) for j in range(2)
            )
            await bench.send(*points)
            await bench.flush()
            assert bench.sink.batches[-1].item_count == 4  # each of them begins with a zero
            last, _ = bench.series()
            await bench.clock.advance(3700)
            if not i and key not in before:
                before[key] = bench.series()[0][key]
        assert before[key].flags == 1
        assert last[key].start_time_unix_nano > bench.start
        assert before[key].time_unix_nano > last[key].start_time_unix_nano - 4 * 3700 * SECOND


async def test_a_full_state_drops_new_sources_and_keeps_the_known():
    """Sources without state must not be added up."""
    async with Bench(limit=1, state_limit_mib=1) as bench:
        await bench.send(*((user(i), 1) for i in range(30_000)))
        await bench.clock.advance(1)
        await bench.send((user(1), 5), (user(30_001), 7))
        await bench.flush()
        dropped = bench.settings.telemetry.ledger.dropped_count(Signal.METRICS, "state_full")
        assert dropped > 1
        assert bench.series()[0][OVERFLOW].as_int == 30_000 - dropped + 4
        assert bench.balanced()


async def test_a_refused_flush_does_not_end_the_flushes():
    """An exporter that waits for its backend raises the backend's error."""

    class Refusing(Sink):
        async def consume(self, batch):
            if not self.batches:
                self.batches.append(batch)
                raise RetryableError("busy")
            await super().consume(batch)

    async with Bench(
        limit=1, attributes=[{"keys": ["user"], "action": "drop"}], sink=Refusing(Signal.METRICS)
    ) as bench:
        await bench.send((user(1), 3))
        await bench.flush()
        await bench.flush()
        assert len(bench.sink.batches) == 2


async def test_a_reload_continues():
    """Slots, sources and sums are kept; a new limit applies to new series."""
    async with Bench(limit=1) as bench:
        await bench.send((user(0), 1), (user(1), 7))
        await bench.flush()
        old = bench.reload(limit=2)
        await old.shutdown()
        await bench.sut.start(bench.host)
        await bench.clock.advance(1)
        await bench.send((user(0), 2), (user(1), 9), (user(2), 4))
        await bench.flush()
        last, _ = bench.series()
        assert (last[OVERFLOW].as_int, last["api", "requests", (("user", "u2"),)].as_int) == (9, 4)
        assert last[OVERFLOW].start_time_unix_nano == bench.start
        assert bench.balanced()


async def test_a_reload_with_other_series_starts_afresh():
    """The start time is new and known sources are baselines, so nothing is counted twice."""
    async with Bench(limit=1) as bench:
        await bench.send((user(0), 1), (user(1), 7))
        await bench.flush()
        old = bench.reload(limit=1, group_by=[])
        await old.shutdown()
        await bench.sut.start(bench.host)
        await bench.clock.advance(1)
        await bench.send((user(0), 2))
        await bench.send((user(1), 9))
        await bench.flush()
        point = bench.series()[0][None, "requests", OVERFLOW[2]]
        assert point.as_int == 0
        assert point.start_time_unix_nano > bench.start


async def test_scopes_of_merged_series_keep_their_attributes():
    """They are part of the identity of a series."""
    async with Bench(attributes=[{"keys": ["user"], "action": "drop"}]) as bench:
        made = ExportMetricsServiceRequest()
        resource = made.resource_metrics.add()
        for shard in range(2):
            inner = resource.scope_metrics.add()
            inner.scope.name = "lib"
            inner.scope.attributes.add(key="shard").value.int_value = shard
            metric = inner.metrics.add(name="requests")
            metric.sum.aggregation_temporality, metric.sum.is_monotonic = CUMULATIVE, True
            for i in range(2):
                point = metric.sum.data_points.add(
                    as_int=1 + shard, time_unix_nano=bench.start + 2, start_time_unix_nano=bench.start + 1
                )
                point.attributes.add(key="user").value.int_value = i
        bench.sent += 4
        await bench.sut.consume(Metrics.from_wire(made.SerializeToString()))
        await bench.flush()
        written = ExportMetricsServiceRequest.FromString(bench.sink.batches[-1].wire).resource_metrics
        got = {
            scope.scope.attributes[0].value.int_value: scope.metrics[-1].sum.data_points[0].as_int
            for resource in written
            for scope in resource.scope_metrics
        }
        assert got == {0: 2, 1: 4}
        assert bench.balanced()


async def test_rule_7_the_end_of_a_named_series_frees_its_slot():
    """NO_RECORDED_VALUE passes, and the next new series is named."""
    async with Bench(limit=1) as bench:
        await bench.send((user(0), 1))
        await bench.clock.advance(1)
        await bench.send((user(0), 0, {"flags": 1}))
        await bench.clock.advance(1)
        await bench.send((user(1), 5))
        await bench.flush()
        last, _ = bench.series()
        assert set(last) == {("api", "requests", (("user", "u0"),)), ("api", "requests", (("user", "u1"),))}
        assert bench.settings.telemetry.value("tailrace_cardinality_slots_freed") == 1


async def test_rule_10_late_points_are_ignored_and_counted():
    """The time of a source only increases, also within a batch."""
    async with Bench(limit=1) as bench:
        now = bench.clock.time_unix_nano()
        await bench.send(
            (user(0), 1),
            (user(1), 8, {"time": now + 3}),
            (user(1), 2, {"time": now + 1}),
            (user(1), 5, {"time": now + 2}),
        )
        await bench.send((user(1), 4, {"time": now + 2}))
        await bench.flush()
        assert bench.series()[0][OVERFLOW].as_int == 8
        assert bench.settings.telemetry.ledger.dropped_count(Signal.METRICS, "out_of_order") == 1
        assert bench.balanced()


async def test_rule_11_identity():
    """The order of attributes does not matter."""
    async with Bench(limit=1) as bench:
        await bench.send(({"a": "1", "b": "2"}, 1))
        await bench.clock.advance(1)
        await bench.send(({"b": "2", "a": "1"}, 2))
        await bench.flush()
        assert OVERFLOW not in bench.series()[0]


async def test_limits_are_for_each_group_and_metric():
    """One service cannot take the slots of another; overrides apply by name."""
    async with Bench(limit=2, overrides=[{"metrics": ["up*"], "limit": 0}]) as bench:
        for service in ("api", "db"):
            await bench.send(*((user(i), 1) for i in range(5)), service=service)
        await bench.send(*((user(i), 1) for i in range(5)), name="uptime")
        await bench.flush()
        last, _ = bench.series()
        named = defaultdict(int)
        for service, name, attributes in last:
            named[service, name] += attributes != OVERFLOW[2]
        assert named == {("api", "requests"): 2, ("db", "requests"): 2, ("api", "uptime"): 5}
        assert last["db", "requests", OVERFLOW[2]].as_int == 3


async def test_gauges_fold_to_the_last_value():
    """The last by time, and only while a source reports."""
    async with Bench(limit=1, overflow={"stale_after": "60s"}) as bench:
        now = bench.clock.time_unix_nano()
        await bench.send(
            (user(0), 1.5), (user(1), 7.5, {"time": now + 2}), (user(2), 3.5, {"time": now + 1}), kind="gauge"
        )
        await bench.flush()
        assert bench.series()[0][OVERFLOW].as_double == 7.5
        count = bench.sink.item_count
        await bench.clock.advance(61)
        after = bench.sink.item_count
        await bench.flush()
        assert bench.sink.item_count == after
        assert after >= count


async def test_dropped_attributes_leave_a_true_sum():
    """Elsewhere all sources but one vanish when a label is deleted from a cumulative counter."""
    async with Bench(attributes=[{"keys": ["user"], "action": "drop"}]) as bench:
        truth = 0
        for step in range(1, 5):
            await bench.send(*(({"user": f"u{i}", "code": "200"}, step * (i + 1)) for i in range(3)))
            truth = step * 6
            await bench.flush()
            (key,) = bench.series()[0]
            assert key == ("api", "requests", (("code", "200"),))
            assert bench.series()[0][key].as_int == truth
        assert bench.balanced()


async def test_templates_and_collapse():
    """Paths become templates, values beyond the limit ``__other__``; other attributes stay."""
    rules = [{"keys": ["path"], "action": "template"}, {"keys": ["tenant"], "action": "collapse", "max_values": 2}]
    async with Bench(attributes=rules) as bench:
        await bench.send(*(({"path": f"GET /users/{i}?q=1", "code": "200"}, 1) for i in range(4)))
        await bench.send(*(({"tenant": f"t{i}"}, 1) for i in range(5)), name="tenants")
        await bench.flush()
        last, _ = bench.series()
        assert last["api", "requests", (("code", "200"), ("path", "GET /users/{id}"))].as_int == 4
        assert last["api", "tenants", (("tenant", "__other__"),)].as_int == 3
        assert ("api", "tenants", (("tenant", "t0"),)) in last
        assert bench.balanced()


async def test_a_series_has_one_writer():
    """A source that sends the template itself is merged into it, whichever was first."""
    async with Bench(attributes=[{"keys": ["path"], "action": "template"}]) as bench:
        shape = ("api", "requests", (("path", "/u/{id}"),))
        await bench.send(({"path": "/u/{id}"}, 10))
        await bench.clock.advance(1)
        await bench.send(({"path": "/u/1"}, 1), ({"path": "/u/2"}, 2), ({"path": "/u/{id}"}, 11))
        await bench.flush()
        assert bench.series()[0][shape].as_int == 14
        before = bench.sink.item_count
        await bench.send(({"path": "/u/{id}"}, 15))
        assert bench.sink.item_count == before
        await bench.flush()
        assert bench.series()[0][shape].as_int == 18
        assert bench.balanced()


async def test_merged_series_count_against_the_limit():
    """After the rules there may still be too many series."""
    async with Bench(limit=2, attributes=[{"keys": ["user"], "action": "drop"}]) as bench:
        await bench.send(*(({"user": f"u{i}", "code": str(i % 4)}, 1) for i in range(40)))
        await bench.flush()
        last, _ = bench.series()
        assert len(last) == 3
        assert last[OVERFLOW].as_int == 20
        assert sum(point.as_int for point in last.values()) == 40


async def test_a_source_in_overflow_stays_there_without_a_series_of_its_own():
    """The series that a rule would make of it now is not written empty."""
    async with Bench(limit=1, attributes=[{"keys": ["path"], "action": "template"}]) as bench:
        await bench.send((user(0), 1))
        for step in range(1, 4):
            await bench.clock.advance(1)
            await bench.send(({"path": "/u/1"}, step))
            await bench.flush()
        last, _ = bench.series()
        assert set(last) == {("api", "requests", (("user", "u0"),)), OVERFLOW}
        assert last[OVERFLOW].as_int == 3


async def test_observe_counts_and_merges_nothing():
    """The counters are the same, the data passes unchanged."""
    async with Bench(limit=1, mode="observe") as bench:
        await bench.send(*((user(i), 1) for i in range(4)))
        await bench.flush()
        assert len(bench.series()[0]) == 4
        assert bench.settings.telemetry.value("tailrace_cardinality_folded_points", merge_reason="overflow") == 3
        assert bench.balanced()


async def test_unmergeable_types_over_the_limit_are_dropped_and_counted():
    """Summaries are dropped because they cannot be merged."""
    async with Bench(limit=1) as bench:
        made = ExportMetricsServiceRequest()
        metric = made.resource_metrics.add().scope_metrics.add().metrics.add(name="s")
        for i in range(3):
            metric.summary.data_points.add(time_unix_nano=1, count=1).attributes.add(key="i").value.int_value = i
        bench.sent += 3
        await bench.sut.consume(Metrics.from_wire(made.SerializeToString()))
        assert bench.settings.telemetry.ledger.dropped_count(Signal.METRICS, "summary") == 2
        assert bench.balanced()


async def test_report_names_the_attribute_with_most_values():
    """``GET /cardinality`` lists it first, with hashed samples of its values."""
    async with Bench(limit=2, top={"hash": ["user"]}) as bench:
        await bench.send(*(({"user": f"u{i}", "code": "200"}, 1) for i in range(30)))
        (report,) = (await bench.sut._overview.show({})).values()
        assert (report["series"], report["folded_sources"]) == (2, 28)
        assert report["attributes"][0] == {
            "metric": "requests",
            "attribute": "user",
            "values": pytest.approx(30, abs=6),  # an estimate
            "samples": report["attributes"][0]["samples"],
        }
        assert all(sample.startswith("#") for sample in report["attributes"][0]["samples"])


@pytest.mark.parametrize(
    ("value", "shape"),
    [
        ("GET /users/123?query", "GET /users/{id}"),
        ("/users/123?x=1", "/users/{id}"),
        ("/v1/embeddings", "/v1/embeddings"),
        ("/", "/"),
        ("", ""),
        ("/a/550e8400-e29b-41d4-a716-446655440000/b", "/a/{id}/b"),
        ("/c/deadbeef01", "/c/{id}"),
        ("/m/a@b.c", "/m/{id}"),
        ("/u/01ARZ3NDEKTSV4RRFFQ69G5FAV", "/u/{id}"),
        ("/feedback", "/feedback"),
        ("/" + "9" * 5000, "/" + "9" * 5000),
    ],
)
def test_templates(value, shape):
    """The method is kept, the query dropped, identifiers are replaced."""
    assert Templater(TemplateConfig())(value) == shape


@pytest.mark.parametrize(
    "keys",
    [
        {"window": "1m"},
        {"attributes": [{"keys": ["status"], "action": "collapse"}]},
        {"limit": -1},
        {"attributes": [{"keys": ["a"], "action": "drop"}, {"keys": ["a"], "action": "template"}]},
    ],
)
def test_contradictions_are_configuration_errors(keys):
    """They are found before anything starts."""
    with pytest.raises(ValueError, match=r"."):
        CardinalityConfig.model_validate(keys)


async def test_metrics_beyond_the_room_for_budgets_are_dropped_and_never_merged_into_others(monkeypatch):
    """Budgets take at most half of the state's memory; here they take the room of 100."""
    monkeypatch.setattr(limits, "_BUDGETS_SHARE", 100 * limits._BUDGET_BYTES / (128 * 1024 * 1024))
    async with Bench(limit=1) as bench:
        names = [f"metric_{number}" for number in range(200)]
        for name in names:
            await bench.send((user(0), 3), (user(1), 4), name=name)
        await bench.flush()
        last, _ = bench.series()
        for name in names[:95]:
            assert last["api", name, (("otel.metric.overflow", "True"),)].as_int == 4
        assert {key[1] for key in last}.isdisjoint(names[105:])
        assert bench.settings.telemetry.ledger.dropped_count(Signal.METRICS) >= 190
        assert bench.balanced()
        values = {point.as_int for key, point in last.items() if key[2] == (("otel.metric.overflow", "True"),)}
        assert values == {4}


async def test_points_that_arrive_during_a_flush_are_in_the_next_one():
    """A flush of many metrics lets other work run between its parts."""
    async with Bench(limit=1) as bench:
        names = [f"metric_{number}" for number in range(300)]
        for name in names:
            await bench.send((user(0), 1), (user(1), 5), name=name, temporality=DELTA)

        async def interrupt():
            later = {"time": bench.clock.time_unix_nano() + SECOND}
            for name in (names[0], names[-1], "new"):
                await bench.send((user(0), 1, later), (user(1), 7, later), name=name, temporality=DELTA)

        await asyncio.gather(bench.sut._flush(), interrupt())
        _, added = bench.series()
        overflow = (("otel.metric.overflow", "True"),)
        assert added["api", names[0], overflow] == 5
        assert ("api", "new", overflow) not in added
        await bench.flush()
        _, added = bench.series()
        assert [added["api", name, overflow] for name in (names[0], names[-1], "new")] == [12, 12, 7]
        assert sum(value for key, value in added.items() if key[2] == overflow) == 300 * 5 + 3 * 7
        assert bench.balanced()


async def test_points_whose_series_needs_too_long_a_description_are_dropped():
    """They are counted as ``too_long``; other points of the metric are merged."""
    async with Bench(limit=1, attributes=[{"keys": ["path"], "action": "template"}]) as bench:
        await bench.send((user(0), 1), ({"user": "x" * 70_000}, 2), (user(2), 4))
        await bench.flush()
        assert bench.series()[0][OVERFLOW].as_int == 4
        assert bench.settings.telemetry.ledger.dropped_count(Signal.METRICS) == 1
        assert bench.balanced()
