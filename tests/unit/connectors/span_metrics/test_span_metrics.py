"""span_metrics apart from counting: names, dimensions, limits, exemplars, flushes, reload, the admin route."""

import math

import numpy as np
import pytest

from collector.api import RetryableError
from collector.model import Signal
from collector.otlp.adjusted_count import ADJUSTED_COUNT_MAX
from collector.tail_sampling.decision_registry import DECISIONS, Decision
from collector.testing import FakeHost, batch, eventually, make
from connectors.span_metrics import factory

CALLS, DURATION, EVENTS = (f"traces.span.metrics.{name}" for name in ("calls", "duration", "events"))
DELTA = "AGGREGATION_TEMPORALITY_DELTA"
CUMULATIVE_FORM = 2


def of_metric(points, metric):
    return {key[2]: found for key, found in points.items() if key[1] == metric}


def only(points, metric):
    [found] = of_metric(points, metric).values()
    return found[-1]


# Names and dimensions.


async def test_writes_the_collectors_names_units_and_dimensions(kit):
    """Calls is a monotonic cumulative sum, duration a histogram in ms; the resource is the spans', arrays included."""
    gateway = kit.Gateway()
    await gateway.send(kit.span_of(resource={"service.name": "a", "process.command_args": ["x", "y"]}, status=2))
    points, metrics = await gateway.flush()
    dimensions = {
        "service.name": "a",
        "span.name": "op",
        "span.kind": "SPAN_KIND_SERVER",
        "status.code": "STATUS_CODE_ERROR",
    }
    resource = kit.frozen({"service.name": "a", "process.command_args": ["x", "y"]})
    assert points.keys() == {(resource, name, kit.frozen(dimensions)) for name in (CALLS, DURATION)}
    assert metrics[CALLS].sum.is_monotonic
    assert metrics[CALLS].sum.aggregation_temporality == CUMULATIVE_FORM
    assert (metrics[CALLS].unit, metrics[DURATION].unit) == ("", "ms")
    assert list(only(points, DURATION).explicit_bounds) == [
        2,
        4,
        6,
        8,
        10,
        50,
        100,
        200,
        400,
        800,
        1000,
        1400,
        2000,
        5000,
        10000,
        15000,
    ]


async def test_namespace_may_be_empty(kit):
    gateway = kit.Gateway({"namespace": "", "histogram": {"disable": True}})
    await gateway.send(kit.span_of())
    _, metrics = await gateway.flush()
    assert metrics.keys() == {"calls"}


async def test_a_dimension_keeps_the_kind_of_its_first_value(kit):
    """Int 1 and "1" are one series, as in the Collector; arrays become text."""
    gateway = kit.Gateway({"dimensions": [{"name": "n"}, {"name": "list"}]})
    await gateway.send(
        kit.span_of(attributes={"n": 1, "list": ["a", "b"]}), kit.span_of(attributes={"n": "1", "list": ["a", "b"]})
    )
    points, _ = await gateway.flush()
    [(attributes, found)] = of_metric(points, CALLS).items()
    assert found[-1].as_int == 2
    assert dict(attributes)["n"] == "1"
    assert dict(attributes)["list"] == repr('["a","b"]')


async def test_an_unknown_kind_or_status_is_empty(kit):
    gateway = kit.Gateway()
    await gateway.send(kit.span_of(kind=77, status=9))
    [attributes] = of_metric((await gateway.flush())[0], CALLS)
    assert dict(attributes)["span.kind"] == dict(attributes)["status.code"] == "''"


async def test_scopes_that_are_named_become_dimensions_of_their_own_series(kit):
    """Two versions are two series; scopes not named are not told apart."""
    gateway = kit.Gateway({"include_instrumentation_scope": ["lib"]})
    await gateway.send(
        *(kit.span_of(scope=scope) for scope in (("lib", "1"), ("lib", "2"), ("lib", ""), ("x", "1"), ("y", "1")))
    )
    found = {
        dict(key).get("span.instrumentation.scope.name", "")
        + dict(key).get("span.instrumentation.scope.version", ""): each[-1].as_int
        for key, each in of_metric((await gateway.flush())[0], CALLS).items()
    }
    assert found == {"'lib''1'": 1, "'lib''2'": 1, "'lib'": 1, "": 2}


async def test_sampling_method_and_instance_are_dimensions_where_asked_for(kit):
    gateway = kit.Gateway({"enable_metrics_sampling_method": True, "include_collector_instance_id": True})
    await gateway.send(kit.span_of(trace_state="ot=th:0"), kit.span_of())
    found = {
        (dict(key)["sampling.method"], dict(key)["collector.instance.id"])
        for key in of_metric((await gateway.flush())[0], CALLS)
    }
    assert found == {("'extrapolated'", "'test-instance'"), ("'counted'", "'test-instance'")}


async def test_globs_add_every_key_that_matches(kit):
    """From span and resource, the span's first; a batch without a key makes the same series as one with others."""
    gateway = kit.Gateway({"dimensions": [{"glob": "k8s.*.name"}]})
    resource = {"service.name": "a", "k8s.pod.name": "p", "k8s.pod.uid": "u", "k8s.a.b.name": "no"}
    await gateway.send(
        kit.span_of(resource=resource, attributes={"k8s.node.name": "n"}), kit.span_of(resource=resource)
    )
    await gateway.send(kit.span_of(resource=resource), kit.span_of(resource=resource, attributes={"k8s.pod.name": "q"}))
    found = {
        (*(name for name in dict(key) if "k8s" in name), dict(key)["k8s.pod.name"]): each[-1].as_int
        for key, each in of_metric((await gateway.flush())[0], CALLS).items()
    }
    assert found == {
        ("k8s.node.name", "k8s.pod.name", "'p'"): 1,
        ("k8s.pod.name", "'p'"): 2,
        ("k8s.pod.name", "'q'"): 1,
    }


async def test_a_glob_adds_a_bounded_number_of_keys(kit):
    """A hostile sender cannot create any number of dimensions; the warning is logged once."""
    gateway = kit.Gateway({"dimensions": [{"glob": "x.**"}]})
    for start in (0, 100):
        await gateway.send(kit.span_of(attributes={f"x.{number:03}": 1 for number in range(start, start + 100)}))
    keys = {name for key in of_metric((await gateway.flush())[0], CALLS) for name in dict(key) if name.startswith("x.")}
    assert len(keys) == 64
    assert len(gateway.telemetry.log.of_level("warning")) == 1


async def test_events_count_with_the_attributes_of_span_then_event_then_resource(kit):
    gateway = kit.Gateway(
        {
            "events": {"enabled": True, "dimensions": [{"name": "exception.type"}, {"name": "who", "default": "-"}]},
            "kinds": ["SERVER"],
        }
    )
    error = ("exception", {"exception.type": "E", "who": "event"})
    await gateway.send(
        kit.span_of(events=[error, error, ("other", {})], trace_state="ot=th:8"),
        kit.span_of(events=[error], attributes={"who": "span"}),
        kit.span_of(events=[error], kind=1),
        kit.span_of(events=[("x", {})], resource={"service.name": "a", "who": "resource"}),
    )
    found = {
        (dict(key).get("exception.type"), dict(key)["who"]): each[-1].as_int
        for key, each in of_metric((await gateway.flush())[0], EVENTS).items()
    }
    assert found == {("'E'", "'event'"): 4, (None, "'-'"): 2, ("'E'", "'span'"): 1, (None, "'resource'"): 1}


# The http preset.


@pytest.mark.parametrize(
    ("attributes", "expected"),
    [
        (
            {
                "http.request.method": "GET",
                "http.route": "/u/{id}",
                "http.response.status_code": 200,
                "url.path": "/u/1",
            },
            ("GET", "/u/{id}", "200"),
        ),
        (
            {"http.method": "GET", "http.route": "/u/{id}", "http.status_code": 200, "http.target": "/u/1?q"},
            ("GET", "/u/{id}", "200"),
        ),
        (
            {"http.request.method": "POST", "url.path": "/u/123/x", "http.response.status_code": 404},
            ("POST", "/u/{id}/x", "404"),
        ),
        (
            {
                "http.method": "GET",
                "http.target": "/f/0c29a1c5-7b5e-4bd0-9d64-51ec1c4f8b2b?a=/1",
                "http.status_code": "500",
            },
            ("GET", "/f/{id}", "500"),
        ),
        ({"http.method": "GET", "http.url": "http://h:1/v1/99#x"}, ("GET", "/v1/{id}", None)),
        ({"http.method": "GET", "url.full": "http://[bad"}, ("GET", None, None)),
        ({"http.method": "GET", "name": "GET /named/7"}, ("GET", "/named/{id}", None)),
    ],
)
async def test_http_names_read_both_generations_of_the_conventions(kit, attributes, expected):
    """Method, endpoint and status; a path without a route becomes a template."""
    attributes = dict(attributes)
    name = attributes.pop("name", "GET")
    gateway = kit.Gateway({"names": "http"})
    await gateway.send(kit.span_of(name=name, attributes=attributes, ns=2_000_000))
    points, metrics = await gateway.flush()
    assert metrics.keys() == {"http_requests_total", "http_request_duration_seconds"}
    assert metrics["http_request_duration_seconds"].unit == "s"
    wanted = {
        key: repr(value)
        for key, value in zip(("method", "endpoint", "status"), expected, strict=True)
        if value is not None
    }
    assert {key: dict(value) for (_, key, value) in points} == dict.fromkeys(metrics, wanted)
    assert only(points, "http_request_duration_seconds").sum == 0.002


async def test_http_names_leave_out_spans_that_are_not_requests(kit):
    """They are client spans, unless ``kinds`` includes them, and server spans without a method."""
    get = {"http.request.method": "GET", "http.route": "/", "http.response.status_code": 503}
    gateway = kit.Gateway({"names": "http", "status_label": "status_code"})
    await gateway.send(kit.span_of(attributes=get), kit.span_of(attributes=get, kind=3), kit.span_of())
    points, _ = await gateway.flush()
    [(attributes, found)] = of_metric(points, "http_requests_total").items()
    assert dict(attributes) == {"method": "'GET'", "endpoint": "'/'", "status_code": "'503'"}
    assert found[-1].as_int == 1
    assert gateway.telemetry.value("tailrace_span_metrics_uncounted_spans", reason="kind") == 1
    assert gateway.telemetry.value("tailrace_span_metrics_uncounted_spans", reason="no_http") == 1
    document = (await gateway.connector._show({}))["span_metrics"]["services"][0]
    assert (document["errors"], document["operations"][0]["name"]) == (1, "GET /")
    clients = kit.Gateway({"names": "http", "kinds": ["CLIENT"]})
    await clients.send(kit.span_of(attributes=get), kit.span_of(attributes=get, kind=3))
    assert only((await clients.flush())[0], "http_requests_total").as_int == 1


# Adjusted counts.


async def test_adjusted_counts_are_unbiased(kit):
    """20 000 spans of 1.6 each: the rounded sum is within five standard deviations of the truth, the sum exact."""
    threshold = round((1 - 1 / 1.6) * 2**56)
    trace_state = f"ot=th:{threshold:014x}"
    exact = 2**56 / (2**56 - threshold)
    gateway, spans = kit.Gateway(seed=7), 20_000
    request = kit.request_of([kit.span_of(trace_state=trace_state, ns=1_000_000)] * 1000)
    for _ in range(spans // 1000):
        await gateway.connector.consume(request)
    points, _ = await gateway.flush()
    fraction = exact - math.floor(exact)
    bound = 5 * math.sqrt(spans * fraction * (1 - fraction))
    assert abs(only(points, CALLS).as_int - spans * exact) < bound
    assert only(points, CALLS).as_int == only(points, DURATION).count == sum(only(points, DURATION).bucket_counts)
    assert math.isclose(only(points, DURATION).sum, spans * exact, rel_tol=1e-9)
    assert only(points, CALLS).as_int != spans * math.floor(exact)


async def test_an_absurd_threshold_is_bounded_and_no_count_leaves_63_bits(kit):
    """The highest threshold counts 2^32; a count that is nearly full begins again under a new start time."""
    gateway = kit.Gateway()
    await gateway.send(kit.span_of(trace_state="ot=th:ffffffffffffff"))
    points, _ = await gateway.flush()
    assert only(points, CALLS).as_int == ADJUSTED_COUNT_MAX
    family = gateway.connector.state.families["red"]
    family.table.column("count")[family.table.live()] = 1 << 62
    before, _ = await gateway.flush()
    await gateway.send(kit.span_of())
    after, _ = await gateway.flush()
    assert only(after, CALLS).as_int == 1
    assert only(after, CALLS).start_time_unix_nano == only(before, CALLS).time_unix_nano


# Bounds.


async def test_series_over_the_limit_are_counted_in_one_series_per_resource(kit):
    """The default limit is 2000; every span is counted, and named series are not displaced."""
    gateway = kit.Gateway()
    await gateway.send(*(kit.span_of(name=f"n{number}", span=number + 1) for number in range(2005)))
    await gateway.send(
        *(kit.span_of(name=f"n{number}") for number in (0, 1999, 2004, 9999)),
        kit.span_of(resource={"service.name": "b"}),
    )
    calls = of_metric((await gateway.flush())[0], CALLS)
    overflow = kit.frozen({"otel.metric.overflow": True})
    assert len(calls) == 2002
    assert calls[overflow][-1].as_int == 7
    assert sum(found[-1].as_int for found in calls.values()) == 2010
    assert gateway.telemetry.value("tailrace_span_metrics_overflowed_items") == 7
    assert gateway.telemetry.value("tailrace_span_metrics_series") == 2001


async def test_max_series_applies_to_all_resources_and_expired_series_make_room(kit):
    gateway = kit.Gateway({"max_series": 3, "aggregation_cardinality_limit": 0, "series_expiration": "60s"})
    await gateway.send(*(kit.span_of(resource={"service.name": f"s{number}"}) for number in range(5)))
    points, _ = await gateway.flush(61)
    calls = {key: found[-1].as_int for key, found in points.items() if key[1] == CALLS}
    assert list(calls.values()) == [1] * 5
    assert sum(key[2] == kit.frozen({"otel.metric.overflow": True}) for key in calls) == 2
    assert gateway.telemetry.value("tailrace_span_metrics_series") == 0
    await gateway.send(kit.span_of(resource={"service.name": "new"}))
    assert gateway.telemetry.value("tailrace_span_metrics_series") == 1


async def test_resources_are_bounded(kit):
    """Between flushes there may be twice as many as are kept; further ones share one, and nothing is lost."""
    gateway = kit.Gateway({"resource_metrics_cache_size": 3})
    await gateway.send(*(kit.span_of(resource={"service.name": f"s{number}"}) for number in range(10)))
    points, _ = await gateway.flush()
    resources = {key[0] for key in points}
    assert len(resources) == 7
    assert kit.frozen({"otel.metric.overflow": True}) in resources
    assert sum(found[-1].as_int for key, found in points.items() if key[1] == CALLS) == 10
    again, _ = await gateway.flush()
    assert len({key[0] for key in again}) == 4
    assert gateway.telemetry.value("tailrace_span_metrics_resources") == 3


async def test_key_attributes_tell_resources_apart(kit):
    """A changed process id continues the series; the resource stays the first one."""
    gateway = kit.Gateway({"resource_metrics_key_attributes": ["service.name", "service.name"]})
    await gateway.send(*(kit.span_of(resource={"service.name": "a", "process.pid": pid}) for pid in (1, 2)))
    points, _ = await gateway.flush()
    assert {key[0] for key in points} == {kit.frozen({"service.name": "a", "process.pid": 1})}
    assert only(points, CALLS).as_int == 2


async def test_a_series_that_comes_back_starts_again(kit):
    gateway = kit.Gateway({"series_expiration": "60s"})
    await gateway.send(kit.span_of())
    await gateway.flush(61)
    assert (await gateway.flush(1))[0] == {}
    await gateway.send(kit.span_of())
    points, _ = await gateway.flush(1)
    found = of_metric(points, CALLS).popitem()[1]
    assert [point.as_int for point in found] == [0, 1]
    assert found[0].start_time_unix_nano == kit.START + 62 * kit.SECOND


# Temporality.


async def test_delta_points_join_and_a_resting_series_begins_where_it_was_last(kit):
    """As in the Collector: from the time of one point to that of the next."""
    gateway = kit.Gateway({"aggregation_temporality": DELTA})
    times = []
    for spans in (1, 0, 2):
        await gateway.send(*[kit.span_of()] * spans, kit.span_of(name="always"))
        points = of_metric((await gateway.flush(10))[0], CALLS)
        times.append(
            {
                dict(key)["span.name"]: (found[-1].as_int, found[-1].start_time_unix_nano, found[-1].time_unix_nano)
                for key, found in points.items()
            }
        )
    at = [kit.START + 10 * number * kit.SECOND for number in range(4)]
    assert times == [
        {"'op'": (1, at[0], at[1]), "'always'": (1, at[0], at[1])},
        {"'always'": (1, at[1], at[2])},
        {"'op'": (2, at[1], at[3]), "'always'": (1, at[2], at[3])},
    ]


async def test_delta_remembers_a_bounded_number_of_series(kit):
    gateway = kit.Gateway({"aggregation_temporality": DELTA, "metric_timestamp_cache_size": 2})
    for number in range(5):
        await gateway.send(kit.span_of(name=f"n{number}"))
        await gateway.flush(10)
    assert len(gateway.connector.state.families["red"].flush_times) == 2
    await gateway.send(kit.span_of(name="n0"), kit.span_of(name="n4"))
    starts = {
        dict(key)["span.name"]: found[-1].start_time_unix_nano
        for key, found in of_metric((await gateway.flush(10))[0], CALLS).items()
    }
    assert starts == {"'n0'": kit.START + 50 * kit.SECOND, "'n4'": kit.START + 50 * kit.SECOND}


async def test_time_does_not_run_backwards_when_the_clock_is_set_back(kit):
    gateway = kit.Gateway()
    await gateway.send(kit.span_of())
    first = only((await gateway.flush(10))[0], CALLS).time_unix_nano
    gateway.clock.move(-100)
    assert only((await gateway.flush(0))[0], CALLS).time_unix_nano > first


# Exemplars.


def traces_of(points, metric):
    return [int.from_bytes(each.trace_id, "big") for each in only(points, metric).exemplars]


@pytest.mark.parametrize("histogram", [{}, {"exponential": {}}])
async def test_exemplars_are_the_first_of_each_flush(kit, histogram):
    """With ids, value and the end of the span; none without a trace id, and none twice."""
    gateway = kit.Gateway({"exemplars": {"enabled": True, "max_per_data_point": 2}, "histogram": histogram})
    await gateway.send(
        kit.span_of(trace=0),
        *(kit.span_of(trace=number, span=number) for number in (1, 2, 3)),
        kit.span_of(name="x", trace=9),
    )
    points, _ = await gateway.flush()
    calls = {dict(key)["span.name"]: found[-1] for key, found in of_metric(points, CALLS).items()}
    durations = {dict(key)["span.name"]: found[-1] for key, found in of_metric(points, DURATION).items()}
    for found in (calls, durations):
        assert [int.from_bytes(each.trace_id, "big") for each in found["'op'"].exemplars] == [1, 2]
        assert [int.from_bytes(each.trace_id, "big") for each in found["'x'"].exemplars] == [9]
    [first, second] = durations["'op'"].exemplars
    assert (first.as_double, int.from_bytes(second.span_id, "big"), first.time_unix_nano) == (5.0, 2, kit.START)
    await gateway.send(kit.span_of(trace=4))
    points, _ = await gateway.flush()
    assert {
        int.from_bytes(each.trace_id, "big") for found in points.values() for point in found for each in point.exemplars
    } == {4}


class Sampler:
    """A sampling processor, as the decision registry sees it."""

    def __init__(self):
        self.by_trace = {}

    def ask(self, trace_ids):
        return np.array([self.by_trace.get(int(low), Decision.UNKNOWN) for low in trace_ids[:, 1]], np.int8)


async def test_exemplars_come_from_kept_traces_alone(kit):
    """Pending ones wait for a later flush; dropped ones are forgotten, and in the end undecided ones."""
    sampler = Sampler()
    gateway = kit.Gateway({"exemplars": {"enabled": True, "max_per_data_point": 2, "only_kept": "sampling/x"}})
    gateway.settings.shared.get(DECISIONS).register("sampling/x", sampler.ask)
    sampler.by_trace = {
        1: Decision.DROPPED,
        2: Decision.PENDING,
        3: Decision.KEPT,
        4: Decision.KEPT,
        5: Decision.KEPT,
    }
    await gateway.send(*(kit.span_of(trace=number) for number in range(1, 7)))
    assert traces_of((await gateway.flush())[0], DURATION) == [3, 4]
    sampler.by_trace[2] = Decision.KEPT
    assert traces_of((await gateway.flush())[0], CALLS) == [2]
    assert len(gateway.connector._candidates["red"]) == 1  # trace 6, which the sampler does not know
    await gateway.flush(301)
    assert len(gateway.connector._candidates["red"]) == 0


async def test_no_exemplar_without_the_sampling_processor(kit):
    """The warning with the configured id is logged once."""
    gateway = kit.Gateway({"exemplars": {"enabled": True, "only_kept": "sampling/none"}})
    for _ in range(2):
        await gateway.send(kit.span_of())
        assert traces_of((await gateway.flush())[0], CALLS) == []
    [warning] = gateway.telemetry.log.of_level("warning")
    assert warning.fields["only_kept"] == "sampling/none"


async def test_the_last_flush_does_not_miss_a_sampling_processor_that_has_stopped(kit):
    """Processors stop before the connectors that follow them."""
    gateway = kit.Gateway({"exemplars": {"enabled": True, "only_kept": "sampling/none"}})
    await gateway.connector.start(FakeHost())
    await gateway.send(kit.span_of())
    await gateway.connector.shutdown()
    assert not gateway.telemetry.log.of_level("warning")


async def test_each_point_gets_the_exemplars_of_its_own_series(kit):
    """Several resources, several series of each, and some series without an exemplar."""
    gateway = kit.Gateway({"exemplars": {"enabled": True, "max_per_data_point": 2}})
    for number in range(1, 25):
        await gateway.send(
            kit.span_of(trace=number, name=f"op{number % 3}", resource={"service.name": f"s{number % 4}"})
        )
    await gateway.send(kit.span_of(trace=0, name="without", resource={"service.name": "s0"}))
    points, _ = await gateway.flush()
    found = {
        tuple(text.strip("'") for text in (dict(key[0])["service.name"], dict(key[2])["span.name"])): sorted(
            int.from_bytes(exemplar.trace_id, "big") for exemplar in series[-1].exemplars
        )
        for key, series in points.items()
        if key[1] == CALLS
    }
    expected = {}
    for number in range(1, 25):
        expected.setdefault((f"s{number % 4}", f"op{number % 3}"), []).append(number)
    assert found == {key: numbers[:2] for key, numbers in expected.items()} | {("s0", "without"): []}


async def test_series_and_resources_with_long_texts_are_counted_in_overflow_series(kit):
    """Nothing of the texts is kept, and nothing is lost."""
    gateway = kit.Gateway({})
    await gateway.send(kit.span_of(name="x" * 20_000), kit.span_of(name="short"))
    await gateway.send(kit.span_of(name="short", resource={"service.name": "a", "long": "x" * 70_000}))
    points, _ = await gateway.flush()
    assert sum(series[-1].as_int for key, series in points.items() if key[1] == CALLS) == 3
    assert max(len(str(key)) for key in points) < 2000


async def test_candidates_are_bounded(kit):
    """Eight for each exemplar a series can get, however many traces are undecided."""
    sampler = Sampler()
    gateway = kit.Gateway({"exemplars": {"enabled": True, "max_per_data_point": 2, "only_kept": "sampling/y"}})
    gateway.settings.shared.get(DECISIONS).register("sampling/y", sampler.ask)
    for _ in range(3):
        await gateway.send(*(kit.span_of(trace=number) for number in range(1, 100)))
        await gateway.flush()
    assert len(gateway.connector._candidates["red"]) == 16


# Life cycle.


async def test_flushes_on_its_interval_and_at_shutdown(kit):
    """Nothing that was counted is lost at shutdown."""
    gateway = kit.Gateway({"metrics_flush_interval": "15s"})
    host = FakeHost()
    await gateway.connector.start(host)
    await gateway.send(kit.span_of())
    await gateway.clock.advance(15)
    await eventually(lambda: len(gateway.sink.batches) == 1)
    await gateway.send(kit.span_of())
    await gateway.connector.shutdown()
    await gateway.connector.shutdown()
    points, _ = kit.points_of(gateway.sink.batches)
    assert [point.as_int for point in of_metric(points, CALLS).popitem()[1]] == [0, 1, 2]
    assert gateway.telemetry.ledger.created[Signal.METRICS] == gateway.sink.item_count
    assert host.routes.keys() == {"/span_metrics"}


async def test_a_refusal_downstream_does_not_end_the_flushing(kit):
    """The next flush has all cumulative counts."""
    gateway = kit.Gateway()
    gateway.sink.fail_with = RetryableError("full", reason="queue_full")
    await gateway.send(kit.span_of())
    await gateway.flush()
    gateway.sink.fail_with = None
    await gateway.send(kit.span_of())
    assert only((await gateway.flush())[0], CALLS).as_int == 2


@pytest.mark.parametrize("histogram", [{}, {"exponential": {}}])
async def test_a_reload_continues_counting(kit, histogram):
    """Interval and limit may change; the series keeps its start. Other dimensions start afresh."""
    old = kit.Gateway({"histogram": histogram})
    await old.send(kit.span_of())
    start = only((await old.flush())[0], CALLS).start_time_unix_nano
    new = kit.Gateway(
        {"metrics_flush_interval": "5s", "aggregation_cardinality_limit": 1, "histogram": histogram},
        old.connector,
        old.clock,
    )
    await new.send(kit.span_of(), kit.span_of(name="over"))
    points = of_metric((await new.flush())[0], CALLS)
    assert len(points) == 2
    named = next(found[-1] for key, found in points.items() if "span.name" in dict(key))
    assert (named.as_int, named.start_time_unix_nano) == (2, start)
    other = kit.Gateway({"exclude_dimensions": ["span.kind"], "histogram": histogram}, new.connector, old.clock)
    await other.send(kit.span_of())
    assert only((await other.flush())[0], CALLS).as_int == 1


async def test_counts_nothing_of_an_empty_selection(kit):
    gateway = kit.Gateway({"kinds": ["CONSUMER"]})
    await gateway.send(kit.span_of())
    assert (await gateway.flush())[0] == {}
    assert gateway.telemetry.ledger.folded[Signal.TRACES] == 1


async def test_warns_about_a_deprecated_key(kit):
    gateway = kit.Gateway({"dimensions_cache_size": 500})
    await gateway.connector.start(FakeHost())
    await gateway.connector.shutdown()
    assert len(gateway.telemetry.log.of_level("warning")) == 1


# GET /span_metrics.


@pytest.mark.parametrize("temporality", ["AGGREGATION_TEMPORALITY_CUMULATIVE", DELTA])
@pytest.mark.parametrize("histogram", [{}, {"unit": "s", "exponential": {}}])
async def test_the_report_counts_the_entry_spans_of_a_service(kit, temporality, histogram):
    """The rate is that of the last interval; series that were flushed as delta or have expired stay in the totals."""
    gateway = kit.Gateway(
        {"aggregation_temporality": temporality, "histogram": histogram, "series_expiration": "1h"},
        component_id="span_metrics/a",
    )
    host = FakeHost()
    await gateway.connector.start(host)
    await gateway.send(
        *[kit.span_of(ns=6_000_000)] * 90,
        *[kit.span_of(ns=95_000_000, status=2)] * 10,
        *[kit.span_of(name="db", kind=3, ns=1)] * 500,
    )
    await gateway.flush(10)
    await gateway.send(*[kit.span_of(ns=6_000_000)] * 20, kit.span_of(resource={"service.name": "b"}, kind=1))
    await gateway.flush(10)
    document = (await host.routes["/span_metrics"]({}))["span_metrics/a"]
    assert document["since_unix_nano"] == kit.START
    first, second = document["services"]
    assert (first["service"], first["calls"], first["rate_per_s"], first["errors"]) == ("a", 120, 2.0, 10)
    assert first["error_ratio"] == pytest.approx(10 / 120, abs=1e-6)
    assert 4 <= first["p50_ms"] <= 6.8
    assert 50 <= first["p95_ms"] <= 110
    assert first["p95_ms"] <= first["p99_ms"]
    assert [(each["name"], each["kind"], each["calls"], each["errors"]) for each in first["operations"]] == [
        ("db", "CLIENT", 500, 0),
        ("op", "SERVER", 120, 10),
    ]
    assert (second["service"], second["calls"]) == ("b", 1)
    await gateway.flush(3601)
    await gateway.flush(1)
    assert (await gateway.connector._show({}))["span_metrics/a"]["services"][0]["calls"] == 120
    await gateway.connector.shutdown()


async def test_the_report_shows_ten_operations_and_no_quantiles_without_histogram(kit):
    gateway = kit.Gateway({"histogram": {"disable": True}, "aggregation_cardinality_limit": 12})
    await gateway.send(*(kit.span_of(name=f"n{number}") for number in range(15)))
    [service] = (await gateway.connector._show({}))["span_metrics"]["services"]
    assert (service["calls"], service["p95_ms"], len(service["operations"])) == (15, None, 10)
    assert service["operations"][0]["calls"] == 3  # the overflow series is one operation


async def test_takes_any_traces_the_generator_makes():
    """Ids, arrays, events and unknown kinds cause no error."""
    connector = make(
        factory,
        factory.config_type.model_validate({"events": {"enabled": True, "dimensions": [{"glob": "exception.*"}]}}),
    )
    for seed in range(5):
        await connector.consume(batch(Signal.TRACES, items=64, seed=seed))
    assert len(connector.state.families["red"].table) > 10


async def test_impossible_durations_are_0_and_counted(kit):
    """A start of 0 would add 56 years to the sum of the durations."""
    gateway = kit.Gateway()
    await gateway.send(kit.span_of(), kit.span_of(start=0, ns=kit.START), kit.span_of(ns=-1))
    points, _ = await gateway.flush()
    (found,) = [values for key, values in points.items() if key[1] == "traces.span.metrics.duration"]
    assert (found[-1].count, found[-1].sum) == (3, 5.0)
    assert gateway.telemetry.value("tailrace_span_metrics_invalid_durations") == 2
