"""The rules of docs/reference/cardinality.md that need more than one number per point; each test names its rule."""

import asyncio
from collections import Counter

import pytest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest

from collector.api import SharedState
from collector.model import Context, Metrics, Signal
from collector.testing import FakeClock, FakeHost, Sink, hand_over, make_settings
from processors.cardinality import factory
from processors.cardinality.config import CardinalityConfig

SECOND = 1_000_000_000
DELTA, CUMULATIVE = 1, 2


class Gateway:
    def __init__(self, *, clock=None, previous=None, shared=None, component_id="", **keys):
        self.clock = clock or FakeClock()
        self.sink = Sink(Signal.METRICS)
        self.settings = make_settings(
            factory,
            signals={Signal.METRICS},
            clock=self.clock,
            outputs={Signal.METRICS: self.sink},
            shared=shared,
            component_id=component_id,
        )
        config = CardinalityConfig.model_validate(keys)
        self.sut = hand_over(previous, factory.create(self.settings, config), config)
        self.sent = 0

    async def __aenter__(self):
        await self.sut.start(FakeHost())
        return self

    async def __aexit__(self, *_):
        await self.sut.shutdown()

    async def send(
        self, *fillers, kind="sum", temporality=CUMULATIVE, resource=None, context=None, name="requests", monotonic=True
    ):
        """Each filler is called with a point whose times are set."""
        await self.clock.advance(1)
        made = ExportMetricsServiceRequest()
        inner = made.resource_metrics.add()
        for key, value in {"service.name": "api", **(resource or {})}.items():
            inner.resource.attributes.add(key=key).value.string_value = value
        metric = getattr(inner.scope_metrics.add().metrics.add(name=name), kind)
        if kind != "gauge":
            metric.aggregation_temporality = temporality
        if kind == "sum":
            metric.is_monotonic = monotonic
        now = self.clock.time_unix_nano()
        for filler in fillers:
            filler(metric.data_points.add(time_unix_nano=now, start_time_unix_nano=now - SECOND))
        self.sent += len(fillers)
        batch = Metrics.from_wire(made.SerializeToString())
        await self.sut.consume(batch if context is None else batch.with_context(context))

    async def flush(self):
        """{attributes: point} of the points that this flush wrote."""
        seen = len(self.sink.batches)
        await self.clock.advance(15.1)
        return self.points(self.sink.batches[seen:])

    def points(self, batches):
        found = {}
        for batch in batches:
            for resource in ExportMetricsServiceRequest.FromString(batch.wire).resource_metrics:
                for scope in resource.scope_metrics:
                    for metric in scope.metrics:
                        for point in getattr(metric, metric.WhichOneof("data")).data_points:
                            key = tuple(
                                sorted(
                                    (a.key, a.value.string_value or str(a.value.bool_value)) for a in point.attributes
                                )
                            )
                            found[key] = point
        return found

    def balanced(self):
        ledger = self.settings.telemetry.ledger
        made, dropped = ledger.created[Signal.METRICS], ledger.dropped_count(Signal.METRICS)
        return self.sent + made == self.sink.item_count + ledger.folded[Signal.METRICS] + dropped


OVERFLOW = (("otel.metric.overflow", "True"),)


def number(value, user, **fields):
    def fill(point):
        if isinstance(value, int):
            point.as_int = value
        else:
            point.as_double = value
        point.attributes.add(key="user").value.string_value = user
        for name, content in fields.items():
            setattr(point, name, content)

    return fill


def test_rule_03_our_restart_makes_old_sources_baselines():
    """New start time, accumulators at 0; a source loses at most its gain since its last point. Named series pass."""

    async def run():
        clock = FakeClock()
        old = clock.time_unix_nano() - 10 * SECOND
        async with Gateway(clock=clock, limit=1) as before:
            await before.send(number(1, "a"), number(100, "b", start_time_unix_nano=old))
            await before.send(number(107, "b", start_time_unix_nano=old))
            first = (await before.flush())[OVERFLOW]
        async with Gateway(clock=clock, limit=1) as after:
            await after.send(number(5, "a", start_time_unix_nano=old), number(110, "b", start_time_unix_nano=old))
            await after.send(number(118, "b", start_time_unix_nano=old))
            second = (await after.flush())[OVERFLOW]
            assert (first.as_int, second.as_int) == (7, 8)
            assert second.start_time_unix_nano > first.start_time_unix_nano
            assert after.points(after.sink.batches[:1])[(("user", "a"),)].as_int == 5

    asyncio.run(run())


class Service:
    """Several processors of one process."""

    def __init__(self):
        self.clock, self.shared, self.running = FakeClock(), SharedState(), []

    async def gateway(self, name, previous=None, **keys):
        """Starts a processor, as the successor of ``previous`` if that is given."""
        if previous is not None:
            await self.stop(previous)
        sut = None if previous is None else previous.sut
        made = Gateway(
            clock=self.clock, shared=self.shared, component_id=f"cardinality/{name}", previous=sut, limit=0, **keys
        )
        await made.sut.start(FakeHost())
        self.running.append(made)
        return made

    async def stop(self, gateway):
        self.running.remove(gateway)
        await gateway.sut.shutdown()

    async def __aenter__(self):
        return self

    async def __aexit__(self, *_):
        for gateway in list(self.running):
            await self.stop(gateway)

    async def series(self, gateway):
        """How many series the processor has named, and how many all processors have."""
        (report,) = (await gateway.sut._overview.show({})).values()
        return report["series"], report["process_series"]


def users(*names):
    return [number(1, name) for name in names]


async def test_max_series_counts_all_processors_of_the_process():
    """One takes room from the others; one that stops makes room; another process has room of its own."""
    async with Service() as service, Service() as other:
        first, second = [await service.gateway(name, max_series=5) for name in "ab"]
        await first.send(*users("1", "2", "3"))
        await second.send(*users("1", "2", "3"))
        assert await service.series(first) == (3, 5)
        assert await service.series(second) == (2, 5)
        assert await second.flush()
        assert OVERFLOW in second.points(second.sink.batches)
        stranger = await other.gateway("a", max_series=5)
        await stranger.send(*users("1", "2", "3", "4", "5"))
        assert await other.series(stranger) == (5, 5)
        await service.stop(first)
        await second.send(*users("4", "5", "6", "7"))
        assert await service.series(second) == (5, 5)


async def test_each_processor_applies_its_own_max_series():
    """Where they differ, each compares the series of all processors with its own limit."""
    async with Service() as service:
        narrow, wide = await service.gateway("a", max_series=2), await service.gateway("b", max_series=4)
        await wide.send(*users("1", "2", "3"))
        await narrow.send(*users("1"))
        assert await service.series(narrow) == (0, 3)
        await wide.send(*users("4", "5"))
        assert await service.series(wide) == (4, 4)


async def test_a_reload_keeps_the_series_of_the_process():
    """Those of the successor count; a successor that makes other series starts with none."""
    async with Service() as service:
        first, second = [await service.gateway(name, max_series=4) for name in "ab"]
        await first.send(*users("1", "2", "3"))
        first = await service.gateway("a", previous=first, max_series=4)
        assert await service.series(first) == (3, 3)
        await second.send(*users("1", "2"))
        assert await service.series(second) == (1, 4)
        first = await service.gateway("a", previous=first, max_series=4, group_by=["host.name"])
        assert await service.series(first) == (0, 1)
        await second.send(*users("3", "4", "5", "6"))
        assert await service.series(second) == (4, 4)


async def test_rule_08_a_lower_max_series_ends_the_youngest_of_the_process():
    """Whichever processor has named them; each writes the end of its own."""
    async with Service() as service:
        first, second = [await service.gateway(name, max_series=6) for name in "ab"]
        await first.send(*users("1", "2"))
        await second.send(*users("1", "2"))
        await first.send(*users("3", "4"))
        first = await service.gateway("a", previous=first, max_series=3)
        second = await service.gateway("b", previous=second, max_series=3)
        await service.clock.advance(15.1)
        assert await service.series(first) == (2, 3)
        assert await service.series(second) == (1, 3)
        assert [batch.item_count for batch in second.sink.batches] == [1]
        assert second.points(second.sink.batches)[(("user", "2"),)].flags == 1


async def test_rule_05_histograms_go_to_the_bounds_both_share():
    """Exact at shared bounds, and counted where another bound does not stay exact."""

    def histogram(counts, bounds, user):
        def fill(point):
            point.count, point.sum = sum(counts), 1.0
            point.bucket_counts.extend(counts)
            point.explicit_bounds.extend(bounds)
            point.attributes.add(key="user").value.string_value = user

        return fill

    async with Gateway(limit=1) as gateway:
        await gateway.send(
            histogram([1], [], "a"),
            histogram([1, 1, 1, 1], [1.0, 2.0, 5.0], "b"),
            histogram([1, 2, 4, 8], [1.0, 5.0, 9.0], "c"),
            histogram([1, 1, 1, 1, 1], [1.0, 2.0, 3.0, 5.0], "d"),
            kind="histogram",
        )
        point = (await gateway.flush())[OVERFLOW]
        assert list(point.bucket_counts) == [1 + 1 + 1, 1 + 0 + 1, 1 + 2 + 2, 1 + 12 + 1]
        assert point.count == sum(point.bucket_counts) == 4 + 15 + 5
        # c has no bound 2
        assert gateway.settings.telemetry.value("tailrace_cardinality_inexact_points", reason="bounds") == 1
        assert gateway.balanced()


def exponential(scale, user, *, positive=(), offset=0, zeros=0, threshold=0.0, count=None):
    def fill(point):
        point.scale, point.zero_count, point.zero_threshold = scale, zeros, threshold
        point.count = sum(positive) + zeros if count is None else count
        point.sum = 1.0
        point.positive.offset = offset
        point.positive.bucket_counts.extend(positive)
        point.attributes.add(key="user").value.string_value = user

    return fill


async def test_rule_05_exponential_histograms_merge_at_the_lower_scale_and_larger_threshold():
    """Indices are halved, rounded down; buckets below the threshold move into the zero bucket."""
    async with Gateway(limit=1) as gateway:
        await gateway.send(
            exponential(0, "a"),
            exponential(1, "b", positive=[1, 2, 3], offset=-1),
            exponential(0, "c", positive=[5], offset=2),
            kind="exponential_histogram",
        )
        point = (await gateway.flush())[OVERFLOW]
        got = Counter({point.positive.offset + i: n for i, n in enumerate(point.positive.bucket_counts) if n})
        assert (point.scale, got) == (0, {-1: 1, 0: 5, 2: 5})
        await gateway.send(
            exponential(0, "d", positive=[7], offset=3, zeros=1, threshold=3.0), kind="exponential_histogram"
        )
        point = (await gateway.flush())[OVERFLOW]
        got = Counter({point.positive.offset + i: n for i, n in enumerate(point.positive.bucket_counts) if n})
        assert (point.zero_threshold, point.zero_count, got) == (4.0, 1 + 1 + 5, {2: 5, 3: 7})
        assert point.count == 11 + 8
        assert gateway.balanced()


async def test_rule_05_exponential_buckets_stay_within_160():
    """The scale falls until they fit; a point whose buckets do not add up to its count is dropped and counted."""
    async with Gateway(limit=1) as gateway:
        await gateway.send(
            exponential(5, "a"),
            exponential(5, "b", positive=[1] * 160),
            exponential(5, "c", positive=[1], offset=1000),
            exponential(5, "x", positive=[1], count=9),
            kind="exponential_histogram",
        )
        point = (await gateway.flush())[OVERFLOW]
        assert len(point.positive.bucket_counts) <= 160
        assert (point.scale, sum(point.positive.bucket_counts), point.count) == (2, 161, 161)
        assert gateway.settings.telemetry.ledger.dropped_count(Signal.METRICS, "exponential") == 1
        assert gateway.balanced()


@pytest.mark.parametrize(
    ("fold", "expected"), [("last", {3.0}), ("sum", {6.5}), ("max", {3.0}), ("min", {1.5}), ("mean", {6.5 / 3})]
)
async def test_rule_06_gauges_fold_as_configured(fold, expected):
    """The value combines the latest values of live sources."""
    async with Gateway(limit=1, gauge=[{"metrics": ["req*"], "fold": fold}]) as gateway:
        await gateway.send(number(9.0, "a"), number(1.5, "b"), number(2, "c"), kind="gauge")
        await gateway.send(number(3.0, "d"), kind="gauge")
        point = (await gateway.flush())[OVERFLOW]
        assert point.as_double + point.as_int in expected


async def test_rule_06_a_repeated_point_does_not_keep_a_latest_value_alive():
    """It is ignored (rule 10); its source leaves after ``stale_after`` without a new point."""
    async with Gateway(limit=1, gauge=[{"metrics": ["*"], "fold": "min"}], overflow={"stale_after": "60s"}) as gateway:
        old = gateway.clock.time_unix_nano()
        await gateway.send(number(9, "a"), number(1, "b", time_unix_nano=old), number(5, "c"), kind="gauge")
        for _ in range(6):
            await gateway.send(number(1, "b", time_unix_nano=old), number(5, "c"), kind="gauge")
            point = (await gateway.flush())[OVERFLOW]
        assert point.as_int == 5
        assert gateway.settings.telemetry.value("tailrace_cardinality_inexact_points", reason="out_of_order") == 6


async def test_rule_08_a_freed_series_ends_once_and_continues_in_overflow():
    """There is one NO_RECORDED_VALUE; start and last value are kept, and the old name is never used again."""
    async with Gateway(limit=1, window="100s", state_ttl="100s", overflow={"stale_after": "60s"}) as gateway:
        start = gateway.clock.time_unix_nano()
        await gateway.send(number(10, "a", start_time_unix_nano=start))
        await gateway.clock.advance(120)
        markers = [p for p in gateway.points(gateway.sink.batches[1:]).items() if p[1].flags & 1]
        assert [key for key, _ in markers] == [(("user", "a"),)]
        await gateway.send(number(17, "a", start_time_unix_nano=start))
        written = await gateway.flush()
        assert written[OVERFLOW].as_int == 7
        assert (("user", "a"),) not in written
        assert gateway.settings.telemetry.value("tailrace_cardinality_slots_freed") == 1
        assert gateway.balanced()


@pytest.mark.parametrize(
    "how",
    [
        {"kind": "sum"},
        {"kind": "sum", "temporality": DELTA},
        {"kind": "sum", "monotonic": False},
        {"kind": "gauge"},
    ],
    ids=["counter", "delta", "up_down", "gauge"],
)
async def test_rule_08_after_a_rolling_deployment_new_series_stay_in_overflow(how):
    """They arrived while the old ones had the slots, and keep their place as long as they send; a newcomer is named."""
    async with Gateway(limit=1, window="100s", state_ttl="100s", overflow={"stale_after": "60s"}) as gateway:
        is_cumulative = how["kind"] == "sum" and how.get("temporality") != DELTA
        times = {"start_time_unix_nano": gateway.clock.time_unix_nano()} if is_cumulative else {}
        await gateway.send(number(10, "old", **times), number(1, "new", **times), **how)
        for value in range(2, 20):
            await gateway.clock.advance(9)
            await gateway.send(number(value, "new", **times), **how)
        assert gateway.settings.telemetry.value("tailrace_cardinality_slots_freed") == 1
        seen = len(gateway.sink.batches)
        await gateway.send(number(20, "new", **times), number(5, "newcomer", **times), **how)
        assert set(gateway.points(gateway.sink.batches[seen:])) == {(("user", "newcomer"),)}


@pytest.mark.parametrize("restarted", [False, True])
async def test_rule_08_a_forgotten_source_is_never_shown_twice(restarted):
    """Its gains are in overflow. The same process stays there, counted as inexact; a new one is named, with its value.

    Only the first point after the silence can be wrong, by what the source gained in the silence.
    """
    async with Gateway(limit=1, window="100s", state_ttl="100s", overflow={"stale_after": "60s"}) as gateway:
        start = gateway.clock.time_unix_nano()
        await gateway.send(number(5, "a", start_time_unix_nano=start), number(100, "b", start_time_unix_nano=start))
        assert (await gateway.flush())[OVERFLOW].as_int == 100
        await gateway.clock.advance(250)  # "a" has left its slot, and "b" is forgotten
        seen = len(gateway.sink.batches)
        if restarted:
            await gateway.send(number(7, "b", start_time_unix_nano=gateway.clock.time_unix_nano()))
        else:
            await gateway.send(number(200, "b", start_time_unix_nano=start))
            await gateway.send(number(202, "b", start_time_unix_nano=start))
        written = gateway.points(gateway.sink.batches[seen:]) | await gateway.flush()
        named = written[("user", "b"),].as_int if (("user", "b"),) in written else 0
        overflow = written[OVERFLOW].as_int if OVERFLOW in written else 0
        inexact = gateway.settings.telemetry.value("tailrace_cardinality_inexact_points", reason="forgotten")
        assert (named, overflow, inexact) == ((7, 0, 0) if restarted else (0, 2, 1))
        assert gateway.balanced()


async def test_rule_08_a_limit_lowered_by_reload_takes_the_youngest_names():
    """Each ends once; their gains continue in overflow."""
    async with Gateway(limit=3) as gateway:
        start = gateway.clock.time_unix_nano()
        await gateway.send(*(number(10, user, start_time_unix_nano=start) for user in "abc"))
        config = CardinalityConfig(limit=1)
        old, gateway.sut = gateway.sut, hand_over(gateway.sut, factory.create(gateway.settings, config), config)
        await old.shutdown()
        await gateway.sut.start(FakeHost())
        ended = await gateway.flush()
        assert {key for key, point in ended.items() if point.flags & 1} == {(("user", "b"),), (("user", "c"),)}
        await gateway.send(*(number(14, user, start_time_unix_nano=start) for user in "abc"))
        assert (await gateway.flush())[OVERFLOW].as_int == 8
        assert gateway.balanced()


async def test_rule_09_exemplars_are_the_newest_four_with_what_was_dropped():
    """Trace and span ids are kept; keys of the ``hash`` list are left out."""
    async with Gateway(limit=1, top={"hash": ["user"]}) as gateway:

        def many(point):
            number(5, "b")(point)
            point.attributes.add(key="path").value.string_value = "/x"
            for i in range(6):
                exemplar = point.exemplars.add(
                    time_unix_nano=100 + i, as_int=i, trace_id=bytes([i] * 16), span_id=bytes([i] * 8)
                )
                exemplar.filtered_attributes.add(key="own").value.int_value = i

        await gateway.send(number(1, "a"), many)
        point = (await gateway.flush())[OVERFLOW]
        assert sorted(e.time_unix_nano for e in point.exemplars) == [102, 103, 104, 105]
        assert {e.trace_id for e in point.exemplars} == {bytes([i] * 16) for i in range(2, 6)}
        for exemplar in point.exemplars:
            assert {a.key for a in exemplar.filtered_attributes} == {"own", "path"}
        assert not (await gateway.flush())[OVERFLOW].exemplars


async def test_rule_11_empty_equals_absent_and_int_is_not_text():
    """Series that the exporter will merge count as one."""
    async with Gateway(limit=10) as gateway:

        def empty(point):
            number(1, "a")(point)
            point.attributes.add(key="zone").value.string_value = ""

        def count(point):
            point.as_int = 1
            point.attributes.add(key="user").value.int_value = 1

        await gateway.send(number(1, "a"), empty, count, number(1, "1"))
        assert len(gateway.sut.state.limits.named) == 3


async def test_tenants_have_limits_and_overflow_points_of_their_own():
    """For each metric and altogether; one tenant cannot take the room of another."""

    def of(tenant, user):
        def fill(point):
            number(1, user)(point)
            point.attributes.add(key="tenant").value.string_value = tenant

        return fill

    async with Gateway(limit=10, tenant={"attribute": "tenant", "limit": 2, "total": 3, "max_values": 2}) as gateway:
        for name in ("one", "two"):
            await gateway.send(*(of("loud", f"u{i}") for i in range(5)), of("quiet", "u"), name=name)
        series = gateway.sut.state.limits
        assert len(series.named) == 3 + 2
        written = await gateway.flush()
        assert (*OVERFLOW, ("tenant", "loud")) in written
        await gateway.send(*(of(f"t{i}", "u") for i in range(5)), name="one")
        assert (*OVERFLOW, ("tenant", "__other__")) in await gateway.flush()
        assert gateway.balanced()


async def test_prometheus_series_count_as_many_as_prometheus_stores():
    """A histogram with 11 bounds counts 14."""

    def histogram(user):
        def fill(point):
            point.count = 12
            point.bucket_counts.extend([1] * 12)
            point.explicit_bounds.extend(float(i) for i in range(11))
            point.attributes.add(key="user").value.string_value = user

        return fill

    async with Gateway(limit=30, count="prometheus_series") as gateway:
        await gateway.send(*(histogram(f"u{i}") for i in range(5)), kind="histogram")
        assert len(gateway.sut.state.limits.named) == 2
        (shown,) = (await gateway.sut._overview.show({})).values()
        assert shown["metrics"][0]["series"] == 28


async def test_ints_that_leave_64_bits_continue_as_doubles():
    """They are counted and never wrap."""
    async with Gateway(limit=1) as gateway:
        await gateway.send(number(1, "a"), *(number(2**62, f"u{i}") for i in range(4)))
        assert (await gateway.flush())[OVERFLOW].as_double == 4.0 * 2**62
        assert gateway.settings.telemetry.value("tailrace_cardinality_inexact_points", reason="integer_overflow") > 0


async def test_merged_points_keep_their_context():
    """Neither overflow series nor limits of different tenants mix."""
    contexts = [Context(tenant="a"), Context(tenant="b")]
    async with Gateway(limit=1) as gateway:
        for context in contexts:
            await gateway.send(number(1, "x"), number(2, "y"), context=context)
        await gateway.flush()
        assert {batch.context.tenant for batch in gateway.sink.batches[-2:]} == {"a", "b"}
        assert all(gateway.points([batch])[OVERFLOW].as_int == 2 for batch in gateway.sink.batches[-2:])


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"tenant": {"attribute": "t", "limit": 9, "total": 3}}, "total"),
        ({"tenant": {"attribute": "t", "limit": 0, "total": 0}}, "limit"),
        ({"tenant": {"attribute": ""}}, "attribute"),
        ({"limit": 11, "max_series": 10}, "max_series"),
        ({"max_series": 0}, "max_series"),
        ({"group_by": ["service.instance.id"]}, "service.instance.id"),
        ({"group_by": ["a", "a"]}, "twice"),
        ({"count": "all"}, "count"),
        ({"overflow": {"stale_after": "1s"}}, "stale_after"),
        ({"overflow": {"exemplars": -1}}, "exemplars"),
        ({"overflow": {"exemplars": 101}}, "exemplars"),
        ({"state_ttl": "1m"}, "stale_after"),
        ({"state_limit_mib": 0}, "state_limit_mib"),
        ({"gauge": [{"metrics": ["*"], "fold": "median"}]}, "fold"),
        ({"top": {"n": 0}}, "n"),
        ({"initial": "some"}, "initial"),
        ({"tenant": {"attribute": "t"}, "attributes": [{"keys": ["t"], "action": "drop"}]}, "tenant"),
    ],
)
def test_bad_configuration_names_its_key(keys, message):
    """A value out of range, or a contradiction."""
    with pytest.raises(ValueError, match=message):
        CardinalityConfig.model_validate(keys)


def test_globs_that_never_match_are_reported():
    """Names that metrics cannot have, and names that an earlier rule matches."""
    config = CardinalityConfig.model_validate(
        {"overrides": [{"metrics": ["http_*", "a b"], "limit": 1}, {"metrics": ["http_x", "other"], "limit": 2}]}
    )
    assert [(key, glob) for key, glob, _ in config.unmatchable()] == [
        ("overrides[0].metrics", "a b"),
        ("overrides[1].metrics", "http_x"),
    ]
