"""Property: span_metrics counts exactly what a slow loop over spans counts."""

import math
from collections import defaultdict
from decimal import Decimal, getcontext

from hypothesis import given, settings
from hypothesis import strategies as st

from collector.model import Signal
from connectors.span_metrics import factory

SECOND = 1_000_000_000
KINDS = ["UNSPECIFIED", "INTERNAL", "SERVER", "CLIENT", "PRODUCER", "CONSUMER"]
DELTA = "AGGREGATION_TEMPORALITY_DELTA"


class Reference:
    """The same, span by span."""

    def __init__(self, config, frozen):
        self.frozen = frozen
        self.config = factory.config_type.model_validate(config)
        self.resources = {}
        self.last = {}

    def take(self, spans, now):
        config = self.config
        for span in spans:
            if "service.name" not in span["resource"]:
                continue
            if config.kinds and KINDS[span["kind"]] not in config.kinds:
                continue
            resource_key = self.frozen(span["resource"])
            families = self.resources.setdefault(resource_key, {"seen": now, "calls": {}, "duration": {}})
            families["seen"] = now
            weight = {"": 1, "ot=th:8": 2, "ot=th:c": 4, "ot=th:xyz": 1, "a=b,ot=rv:00000000000001;th:e": 8}[
                span["trace_state"]
            ]
            value = max(0, span["ns"]) / (1e9 if config.histogram.unit == "s" else 1e6)
            for family, more in (("calls", config.calls_dimensions), ("duration", config.histogram.dimensions)):
                attributes = {
                    "service.name": str(span["resource"]["service.name"]),
                    "span.name": span["name"],
                    "span.kind": "SPAN_KIND_" + KINDS[span["kind"]],
                    "status.code": "STATUS_CODE_" + ["UNSET", "OK", "ERROR"][span["status"]],
                }
                attributes = {key: each for key, each in attributes.items() if key not in config.exclude_dimensions}
                for dimension in (*config.dimensions, *more):
                    found = span["attributes"].get(
                        dimension.name, span["resource"].get(dimension.name, dimension.default)
                    )
                    if found is not None:
                        attributes[dimension.name] = found
                series = families[family]
                key = self.frozen({name: str(each) for name, each in attributes.items()})
                limit = config.aggregation_cardinality_limit
                if key not in series and limit and sum(each["named"] for each in series.values()) >= limit:
                    key, attributes = "overflow", {"otel.metric.overflow": True}
                one = series.get(key)
                if one is None:
                    start = self.last.get((resource_key, family, key), now) if config.is_delta else now
                    one = series[key] = {
                        "attributes": attributes,
                        "count": 0,
                        "sum": 0.0,
                        "values": [],
                        "start": start,
                        "named": key != "overflow",
                        "fresh": True,
                    }
                one["seen"] = now
                one["count"] += weight
                one["sum"] += weight * value
                one["values"] += [value] * weight

    def flush(self, now):
        """{(resource, metric, attributes): [(start, time, count, sum, buckets)]}."""
        config, expected = self.config, defaultdict(list)
        for resource_key, families in self.resources.items():
            for family in ("calls", "duration"):
                for key, one in families[family].items():
                    where = expected[resource_key, f"traces.span.metrics.{family}", self.frozen(one["attributes"])]
                    if one["fresh"] and not config.is_delta and config.initial_zero and one["start"] < now:
                        where.append((one["start"], one["start"], 0, 0.0, []))
                    where.append((one["start"], now, one["count"], one["sum"], list(one["values"])))
                    one["fresh"] = False
                    self.last[resource_key, family, key] = now
        for resource_key, families in list(self.resources.items()):
            if config.is_delta or (
                config.metrics_expiration and now - families["seen"] >= config.metrics_expiration * SECOND
            ):
                del self.resources[resource_key]
                continue
            for family in ("calls", "duration"):
                for key, one in list(families[family].items()):
                    if config.series_expiration and now - one["seen"] >= config.series_expiration * SECOND:
                        del families[family][key]
        return expected


def expected_buckets(values, bounds):
    counts = [0] * (len(bounds) + 1)
    for value in values:
        counts[next((index for index, bound in enumerate(bounds) if value <= bound), len(bounds))] += 1
    return counts


def expected_exponential(values, size):
    """(scale, zero count, offset, counts) with 50 digits."""
    getcontext().prec = 50
    positive = [value for value in values if value > 0]
    if not positive:
        return 20, len(values), 0, []
    logs = {value: Decimal(value).ln() / Decimal(2).ln() for value in set(positive)}
    scale = 20
    while True:
        index = {value: math.ceil(log * Decimal(2) ** scale) - 1 for value, log in logs.items()}
        low, high = min(index.values()), max(index.values())
        if high - low < size:
            break
        scale -= 1
    counts = [0] * (high - low + 1)
    for value in positive:
        counts[index[value] - low] += 1
    return scale, len(values) - len(positive), low, counts


spans_strategy = st.lists(
    st.builds(
        dict,
        resource=st.sampled_from(
            [
                {"service.name": "a"},
                {"service.name": "b", "host.name": "h", "tenant": "r"},
                {"service.name": 7},
                {"host.name": "x"},
            ]
        ),
        name=st.sampled_from(["op", "other", ""]),
        kind=st.integers(0, 5),
        status=st.integers(0, 2),
        ns=st.one_of(
            st.just(0),
            st.just(-5),
            st.integers(1, 40_000_000_000),
            st.sampled_from([2_000_000, 1_000_000_000, 1 << 30]),
        ),
        attributes=st.dictionaries(
            st.sampled_from(["tenant", "http.method", "only.calls"]),
            st.sampled_from(["x", "y", "", 1, "1", True, 2.5]),
            max_size=3,
        ),
        trace_state=st.sampled_from(["", "", "ot=th:8", "ot=th:c", "ot=th:xyz", "a=b,ot=rv:00000000000001;th:e"]),
    ),
    min_size=1,
    max_size=25,
)
steps_strategy = st.lists(
    st.tuples(spans_strategy, st.sampled_from([0.5, 20.0, 61.0]), st.booleans()), min_size=1, max_size=5
)
config_strategy = st.fixed_dictionaries(
    {
        "aggregation_temporality": st.sampled_from(["AGGREGATION_TEMPORALITY_CUMULATIVE", DELTA]),
        "aggregation_cardinality_limit": st.sampled_from([0, 1, 3]),
        "dimensions": st.sampled_from(
            [[], [{"name": "tenant"}], [{"name": "http.method", "default": "GET"}, {"name": "tenant"}]]
        ),
        "calls_dimensions": st.sampled_from([[], [{"name": "only.calls"}]]),
        "exclude_dimensions": st.sampled_from([[], ["span.kind", "status.code"]]),
        "kinds": st.sampled_from([[], ["SERVER", "CONSUMER"]]),
        "series_expiration": st.sampled_from(["0", "60s"]),
        "metrics_expiration": st.sampled_from(["0", "60s"]),
        "initial_zero": st.booleans(),
        "histogram": st.sampled_from(
            [
                {},
                {"unit": "s"},
                {"unit": "s", "explicit": {"buckets": ["1ms", "1s"]}},
                {"exponential": {"max_size": 4}},
                {"exponential": {}, "unit": "s"},
            ]
        ),
    }
)


@settings(max_examples=120)
@given(config=config_strategy, steps=steps_strategy)
async def test_counts_what_a_loop_over_spans_counts(kit, config, steps):
    """With all histograms and temporalities, expiry, limits and adjusted counts; exactly, after every flush."""
    gateway, reference = kit.Gateway(config), Reference(config, kit.frozen)
    steps = [([kit.span_of(**span) for span in spans], wait_s, flushes) for spans, wait_s, flushes in steps]
    for spans, wait_s, flushes in steps:
        await gateway.send(*spans)
        reference.take(spans, gateway.clock.time_unix_nano())
        if not flushes:
            gateway.clock.move(wait_s)
            continue
        points, metrics = await gateway.flush(wait_s)
        expected = reference.flush(gateway.clock.time_unix_nano())
        assert points.keys() == expected.keys()
        for key, found in points.items():
            assert len(found) == len(expected[key])
            for point, (start, time, count, total, values) in zip(found, expected[key], strict=True):
                assert (point.start_time_unix_nano, point.time_unix_nano) == (start, time)
                if key[1].endswith("calls"):
                    assert point.as_int == count
                    continue
                assert point.count == count
                assert math.isclose(point.sum, total, rel_tol=1e-9, abs_tol=1e-12)
                check_buckets(gateway.connector.config, metrics[key[1]], point, values)
    check_ledger(gateway, [span for spans, _, _ in steps for span in spans])


def check_buckets(config, metric, point, values):
    if metric.WhichOneof("data") == "histogram":
        assert list(point.explicit_bounds) == list(config.histogram.bounds)
        assert list(point.bucket_counts) == expected_buckets(values, point.explicit_bounds)
        return
    if not values:
        assert (point.zero_count, sum(point.positive.bucket_counts)) == (0, 0)
        return
    scale, zeros, offset, counts = expected_exponential(values, config.histogram.exponential.size)
    assert (point.scale, point.zero_count, list(point.positive.bucket_counts)) == (scale, zeros, counts)
    assert point.positive.offset == (offset if counts else 0)
    assert (point.min, point.max) == (min(values), max(values))


def check_ledger(gateway, spans):
    """Every span is counted as folded or dropped."""
    nameless = sum("service.name" not in span["resource"] for span in spans)
    assert gateway.telemetry.ledger.folded[Signal.TRACES] == len(spans) - nameless
    assert gateway.telemetry.ledger.dropped_count(Signal.TRACES) == nameless
