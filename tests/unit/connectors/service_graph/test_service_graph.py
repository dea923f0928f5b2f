"""The connector, compared with a slow and obvious implementation that takes span by span."""

import bisect
import collections
import errno
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from collector.model import EMPTY_CONTEXT, Signal, Traces, TracesBuilder
from collector.testing import FakeClock, FakeHost, FakeStorage, RecordingTelemetry, hand_over, make_settings
from connectors.service_graph import factory
from connectors.service_graph.config import ServiceGraphConfig

SERVER, CLIENT, PRODUCER, CONSUMER, INTERNAL = 2, 3, 4, 5, 1
BOUNDS = (0.002, 0.004, 0.006, 0.008, 0.01, 0.05, 0.1, 0.2, 0.4, 0.8, 1.0, 1.4, 2.0, 5.0, 10.0, 15.0)
NOW = 1_700_000_000_000_000_000


def span(
    kind,
    trace=1,
    span_id=0,
    parent=0,
    service="a",
    seconds=0.003,
    failed=False,
    state="",
    attributes=None,
    resource=None,
):
    return {
        "kind": kind,
        "trace": trace,
        "span_id": span_id,
        "parent": parent,
        "service": service,
        "seconds": seconds,
        "failed": failed,
        "state": state,
        "attributes": attributes or {},
        "resource": resource or {},
    }


def batch(spans):
    builder = TracesBuilder()
    for each in spans:
        own = {"service.name": each["service"]} if each["service"] is not None else {}
        scope = builder.scope(builder.resource({**own, **each["resource"]}))
        builder.spans(
            scope,
            names="x",
            trace_ids=np.array([[0, each["trace"]]], np.uint64),
            span_ids=np.array([each["span_id"]], np.uint64),
            parent_span_ids=np.array([each["parent"]], np.uint64),
            start_times=np.array([each.get("start", NOW)], np.uint64),
            end_times=np.array([NOW + round(each["seconds"] * 1e9)], np.uint64),
            kinds=np.array([each["kind"]], np.int32),
            status_codes=np.array([2 if each["failed"] else 0], np.int32),
            trace_states=[each["state"] or None],
            attributes=[each["attributes"] or None],
        )
    return Traces.from_wire(builder.build_wire(), EMPTY_CONTEXT)


class Rig:
    def __init__(self, previous=None, clock=None, telemetry=None, **config):
        self.clock = clock or FakeClock()
        self.telemetry = telemetry or RecordingTelemetry()
        self.settings = make_settings(factory, clock=self.clock, telemetry=self.telemetry)
        self.sink = self.settings.outputs[Signal.METRICS]
        loaded = factory.config_type.model_validate(config)
        self.component = hand_over(previous, factory.create(self.settings, loaded), loaded)

    async def __aenter__(self):
        await self.component.start(FakeHost())
        return self

    async def __aexit__(self, *_):
        await self.component.shutdown()

    async def take(self, *spans):
        await self.component.consume(batch(spans))

    def points(self, name, which=-1):
        """{labels: value} of a metric in the newest emission; histograms as (count, sum, bucket counts)."""
        if not self.sink.batches:
            return {}
        return read(self.sink.batches[which]).get(name, {})

    def requests(self, which=-1):
        return self.points("traces_service_graph_request_total", which)


def read(metrics):
    from google.protobuf.json_format import MessageToDict
    from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest

    found, times = {}, {}
    for resource in ExportMetricsServiceRequest.FromString(metrics.wire).resource_metrics:
        for scope in resource.scope_metrics:
            for metric in scope.metrics:
                body = getattr(metric, metric.WhichOneof("data"))
                points = found.setdefault(metric.name, {})
                for point in body.data_points:
                    labels = tuple(
                        sorted((each.key, next(iter(MessageToDict(each.value).values()))) for each in point.attributes)
                    )
                    if labels in points:
                        assert is_zero(points[labels]), "one series twice"
                        assert times[metric.name, labels] < point.time_unix_nano
                    times[metric.name, labels] = point.time_unix_nano
                    if metric.HasField("sum"):
                        assert body.is_monotonic
                        points[labels] = point.as_int
                    elif metric.HasField("histogram"):
                        assert tuple(point.explicit_bounds) == BOUNDS
                        points[labels] = (point.count, point.sum, tuple(point.bucket_counts))
                    else:
                        points[labels] = point
                    assert body.aggregation_temporality == 2
                    assert point.start_time_unix_nano <= point.time_unix_nano
    return found


def is_zero(value):
    """Whether a series begins with this value."""
    if isinstance(value, int):
        return value == 0
    if isinstance(value, tuple):
        return value[:2] == (0, 0.0) and not any(value[2])
    return (value.count, value.sum, value.zero_count) == (0, 0, 0) and not any(value.positive.bucket_counts)


def labels(client, server, connection="", failed=False, **more):
    return tuple(
        sorted({"client": client, "server": server, "connection_type": connection, "failed": failed, **more}.items())
    )


class Slow:
    """The Collector's algorithm, one span after the other, with a store that is never full."""

    def __init__(self, dimensions=(), virtual=("peer.service", "db.name", "db.system")):
        self.dimensions, self.virtual = dimensions, virtual
        self.open = {}
        self.requests, self.failures, self.unpaired = (
            collections.Counter(),
            collections.Counter(),
            collections.Counter(),
        )
        self.sums = collections.defaultdict(lambda: [0.0, 0.0])
        self.buckets = collections.defaultdict(lambda: [[0.0] * (len(BOUNDS) + 1) for _ in range(2)])

    def take(self, each, now):
        if each["kind"] not in {SERVER, CLIENT, PRODUCER, CONSUMER} or not each["service"]:
            return
        attributes = {**each["attributes"], **each["resource"]}
        is_client = each["kind"] in {CLIENT, PRODUCER}
        key = each["trace"], each["span_id"] if is_client else each["parent"]
        is_root = not is_client and not each["parent"]
        edge = {} if is_root else self.open.setdefault(key, {"time": now})
        side = "client" if is_client else "server"
        edge[side] = each["service"]
        edge[f"{side}_s"] = each["seconds"]
        edge["connection"] = "messaging_system" if each["kind"] in {PRODUCER, CONSUMER} else ""
        edge["failed"] = edge.get("failed", False) or each["failed"]
        edge["weight"] = max(edge.get("weight", 0), {"": 1, "ot=th:8": 2, "ot=th:c": 4}[each["state"]])
        edge[f"{side}_dims"] = {f"{side}_{name}": attributes[name] for name in self.dimensions if name in attributes}
        if is_client:
            edge["peer"] = next((each["attributes"][name] for name in self.virtual if name in each["attributes"]), None)
            if database := attributes.get("db.name"):
                edge |= {"server": database, "connection": "database", "server_s": each["seconds"]}
        if is_root:
            self.alone(edge, is_root=True)
        elif "client" in edge and "server" in edge:
            self.count(self.open.pop(key))

    def count(self, edge):
        key = labels(
            edge["client"],
            edge["server"],
            edge["connection"],
            edge["failed"],
            **edge.get("client_dims", {}),
            **edge.get("server_dims", {}),
        )
        self.requests[key] += edge["weight"]
        if edge["failed"]:
            self.failures[key] += edge["weight"]
        for i, side in enumerate(("server_s", "client_s")):
            self.sums[key][i] += edge["weight"] * edge.get(side, 0.0)
            self.buckets[key][i][bisect.bisect_left(BOUNDS, edge.get(side, 0.0))] += edge["weight"]

    def alone(self, edge, *, is_root=False):
        if self.virtual and (is_root or "client" in edge):
            side = {"server": edge.get("peer") or "unknown"} if "client" in edge else {"client": "user"}
            self.count({**edge, **side, "connection": "virtual_node"})
        else:
            self.unpaired[edge.get("client", ""), edge.get("server", ""), edge["connection"]] += 1

    def expire(self, before=math.inf):
        for key in [key for key, edge in self.open.items() if edge["time"] < before]:
            self.alone(self.open.pop(key))


SPANS = st.builds(
    span,
    kind=st.sampled_from([SERVER, CLIENT, PRODUCER, CONSUMER, INTERNAL]),
    trace=st.integers(1, 2),
    span_id=st.integers(1, 3),
    parent=st.integers(0, 3),
    service=st.sampled_from(["a", "b", "", None]),
    seconds=st.sampled_from([0.0, 0.002, 0.003, 0.5, 20.0]),
    failed=st.booleans(),
    state=st.sampled_from(["", "", "ot=th:8", "ot=th:c"]),
    attributes=st.dictionaries(
        st.sampled_from(["db.name", "peer.service", "tenant"]), st.sampled_from(["x", "y"]), max_size=2
    ),
    resource=st.dictionaries(st.just("tenant"), st.just("r"), max_size=1),
)


@pytest.mark.timeout(300)
@settings(max_examples=150, deadline=None)
@given(
    steps=st.lists(st.tuples(st.lists(SPANS, max_size=12), st.sampled_from([0.0, 1.0, 3.0])), max_size=5),
    virtual=st.sampled_from([(), ("peer.service", "db.system")]),
)
async def test_agrees_with_span_by_span(steps, virtual):
    """In one batch or several, with pauses in which spans expire: every series equals that of the slow one."""
    slow = Slow(("tenant",), virtual)
    rig = Rig(
        dimensions=["tenant"],
        virtual_node_peer_attributes=list(virtual),
        store={"ttl": "2s"},
        store_expiration_loop="500ms",
    )
    taken = 0
    async with rig:
        for spans, pause_s in steps:
            if spans:
                await rig.take(*spans)
                taken += len(spans)
            for each in spans:
                slow.take(each, rig.clock.monotonic_s())
            if pause_s:
                await rig.clock.advance(pause_s)
                slow.expire(rig.clock.monotonic_s() - 2.0)
            assert rig.component.held_items() == {Signal.TRACES: len(slow.open)}
    slow.expire()
    assert rig.requests() == dict(slow.requests)
    assert rig.points("traces_service_graph_request_failed_total") == dict(slow.failures)
    for i, side in enumerate(("server", "client")):
        found = rig.points(f"traces_service_graph_request_{side}")
        assert {key: (count, buckets) for key, (count, _, buckets) in found.items()} == {
            key: (sum(buckets[i]), tuple(buckets[i])) for key, buckets in slow.buckets.items()
        }
        for key, (_, total, _) in found.items():
            assert total == pytest.approx(slow.sums[key][i], abs=1e-6)
    unpaired = {
        tuple(dict(key)[name] for name in ("client", "server", "connection_type")): value
        for key, value in rig.points("traces_service_graph_unpaired_spans_total").items()
    }
    assert unpaired == dict(slow.unpaired)
    ledger = rig.telemetry.ledger
    assert ledger.folded[Signal.TRACES] + ledger.dropped_count(Signal.TRACES) == taken
    assert ledger.created[Signal.METRICS] == rig.sink.item_count


async def test_both_sides_make_an_edge():
    """Over two batches, the server first; the status of either side fails the request."""
    async with Rig() as rig:
        await rig.take(span(SERVER, span_id=2, parent=1, service="shop", seconds=0.2))
        assert sum(rig.component.held_items().values()) == 1
        await rig.take(span(CLIENT, span_id=1, service="web", seconds=0.3, failed=True))
        assert sum(rig.component.held_items().values()) == 0
        await rig.clock.advance(60)
        key = labels("web", "shop", failed=True)
        assert rig.requests() == {key: 1}
        assert rig.points("traces_service_graph_request_failed_total") == {key: 1}
        assert rig.points("traces_service_graph_request_server")[key][1] == pytest.approx(0.2)
        assert rig.points("traces_service_graph_request_client")[key][1] == pytest.approx(0.3)
    assert rig.telemetry.value("otelcol_connector_servicegraph_total_edges") == 1


async def test_messaging_and_databases():
    """A producer with its consumer; a client with a database name is complete on its own."""
    async with Rig() as rig:
        await rig.take(span(PRODUCER, span_id=1, service="etl"), span(CONSUMER, span_id=2, parent=1, service="train"))
        await rig.take(span(CLIENT, span_id=5, service="train", seconds=0.5, attributes={"db.name": "vectors"}))
    assert rig.requests() == {labels("etl", "train", "messaging_system"): 1, labels("train", "vectors", "database"): 1}
    assert rig.points("traces_service_graph_request_server")[labels("train", "vectors", "database")][
        1
    ] == pytest.approx(0.5)


async def test_deprecated_database_name_attribute():
    """It replaces the default, or is appended to a configured list."""
    assert ServiceGraphConfig(database_name_attribute="db.namespace").database_keys == ("db.namespace",)
    both = ServiceGraphConfig(database_name_attribute="db.namespace", database_name_attributes=("db.name",))
    assert both.database_keys == ("db.name", "db.namespace")
    assert ServiceGraphConfig().database_keys == ("db.name",)


async def test_virtual_nodes():
    """A root server is called by the user at once; a client without server calls its peer, or unknown, after ttl."""
    async with Rig(virtual_node_extra_label=True) as rig:
        await rig.take(
            span(SERVER, span_id=1, service="web"),
            span(CLIENT, span_id=2, service="web", attributes={"peer.service": "paypal"}),
            span(CLIENT, span_id=3, service="web"),
            span(SERVER, span_id=4, parent=9, service="web"),
        )
        assert sum(rig.component.held_items().values()) == 3
        await rig.clock.advance(4)
        assert sum(rig.component.held_items().values()) == 0
    expected = {("user", "web"): "client", ("web", "paypal"): "server", ("web", "unknown"): "server"}
    assert rig.requests() == {labels(*key, "virtual_node", virtual_node=side): 1 for key, side in expected.items()}
    lone = (("client", ""), ("connection_type", ""), ("server", "web"))
    assert rig.points("traces_service_graph_unpaired_spans_total") == {lone: 1}
    assert rig.telemetry.value("otelcol_connector_servicegraph_expired_edges") == 3


async def test_the_store_is_bounded():
    """Beyond max_items spans are dropped and counted; expired spans make room; pairs of one batch need no room."""
    async with Rig(store={"max_items": 3, "ttl": "1s"}, store_expiration_loop="1h") as rig:
        await rig.take(*(span(CLIENT, span_id=i, service="a") for i in range(1, 6)))
        assert sum(rig.component.held_items().values()) == 3
        assert rig.telemetry.ledger.dropped_count(Signal.TRACES, "store_full") == 2
        assert rig.telemetry.value("otelcol_connector_servicegraph_dropped_spans") == 2
        pairs = [
            one
            for i in range(10, 20)
            for one in (span(CLIENT, span_id=i, service="b"), span(SERVER, parent=i, service="c"))
        ]
        await rig.take(*pairs)
        assert rig.telemetry.ledger.dropped_count(Signal.TRACES) == 2
        rig.clock.move(1.5)
        await rig.take(span(CLIENT, span_id=30, service="d"))
        assert sum(rig.component.held_items().values()) == 1
        await rig.take(span(SERVER, parent=30, service="e"))
    assert rig.requests()[labels("b", "c")] == 10
    assert rig.requests()[labels("a", "unknown", "virtual_node")] == 3
    assert rig.requests()[labels("d", "e")] == 1
    assert rig.points("traces_service_graph_dropped_spans_total") == {
        (("client", "a"), ("connection_type", ""), ("server", "")): 2
    }
    assert rig.telemetry.ledger.folded[Signal.TRACES] == 5 + 20 + 2 - 2


async def test_series_are_bounded():
    """Beyond the limit requests are counted in the overflow series: none is lost, and the state does not grow."""
    async with Rig(aggregation_cardinality_limit=5, include_collector_instance_id=True) as rig:
        for i in range(200):
            await rig.take(
                span(SERVER, span_id=1, service=f"s{i}", failed=i % 2 == 0),
                span(SERVER, parent=77, trace=i, service=f"s{i}"),
            )
            await rig.clock.advance(3)
        assert len(rig.component.state.series) == 6
    found = rig.requests()
    assert len(found) == 6
    assert sum(found.values()) == 200
    overflow = (("collector.instance.id", "test-instance"), ("otel.metric.overflow", True))
    assert found[overflow] == 195
    failed = rig.points("traces_service_graph_request_failed_total")
    assert sum(failed.values()) == 100
    assert rig.telemetry.value("tailrace_service_graph_overflow_edges") == 195
    unpaired = rig.points("traces_service_graph_unpaired_spans_total")
    assert len(unpaired) == 6
    assert unpaired[overflow] == 195


async def test_texts_are_forgotten():
    """Names that no waiting span has are forgotten, so hostile names cannot fill the memory."""
    async with Rig(aggregation_cardinality_limit=1, store={"ttl": "1h"}) as rig:
        await rig.take(span(CLIENT, trace=9, span_id=9, service="first"))
        for i in range(60):
            await rig.take(
                *(span(SERVER, span_id=1, trace=100 + j, service=f"n{i}-{j}" + "x" * 5000) for j in range(50))
            )
        assert len(rig.component.state.texts) < 1200
        await rig.take(span(SERVER, trace=9, parent=9, service="second"))
        texts = rig.component.state.texts
        assert max(len(texts[code]) for code in range(1, len(texts) + 1)) == 1024
    assert sum(rig.requests().values()) == 60 * 50 + 1


async def test_waiting_spans_keep_their_names_when_codes_change():
    """A span that waited while thousands of names were added and forgotten still has its name."""
    async with Rig(store={"ttl": "1h"}, dimensions=["tenant"], aggregation_cardinality_limit=0) as rig:
        await rig.take(
            span(SERVER, trace=5, service="noise"),
            span(CLIENT, trace=9, span_id=9, service="first", attributes={"tenant": "acme"}),
        )
        for i in range(50):
            await rig.take(*(span(SERVER, span_id=1, trace=100, service=f"n{i}-{j}") for j in range(100)))
        await rig.take(span(SERVER, trace=9, parent=9, service="second", attributes={"tenant": "globex"}))
    assert rig.requests()[labels("first", "second", client_tenant="acme", server_tenant="globex")] == 1


async def test_counts_are_adjusted():
    """A pair stands for as many requests as the rarer of its spans; a malformed threshold counts once."""
    async with Rig() as rig:
        await rig.take(
            span(CLIENT, span_id=1, service="a", state="ot=th:c"),
            span(SERVER, parent=1, service="b", state="ot=th:8"),
            span(SERVER, trace=2, service="c", state="ot=th:zz"),
            span(SERVER, trace=3, service="d", state="ot=th:ffffffffffffff"),
        )
        for turn in range(10):
            await rig.take(
                *(
                    span(SERVER, trace=trace, service="e", state="ot=th:55555555555555")
                    for trace in range(300 * turn, 300 * (turn + 1))
                )
            )
    found = rig.requests()
    assert found[labels("a", "b")] == 4
    assert found[labels("user", "c", "virtual_node")] == 1
    assert found[labels("user", "d", "virtual_node")] == 2**32
    assert found[labels("user", "e", "virtual_node")] == 4500
    assert rig.points("traces_service_graph_request_server")[labels("user", "e", "virtual_node")][0] == 4500


async def test_stale_series_are_removed_and_start_again():
    """After 15 minutes without an edge a series is removed; later it starts at 0 under a new start time."""
    async with Rig() as rig:
        await rig.take(span(SERVER, service="a"))
        await rig.clock.advance(60)
        first = rig.sink.batches[-1]
        await rig.clock.advance(17 * 60)
        count = len(rig.sink.batches)
        await rig.clock.advance(120)
        assert len(rig.sink.batches) == count
        assert len(rig.component.state.series) == 0
        await rig.take(span(SERVER, service="a"))
        await rig.clock.advance(60)
        again = rig.sink.batches[-1]
    assert rig.requests() == {labels("user", "a", "virtual_node"): 1}
    assert again.field("start_time_unix_nano").min() > first.field("time_unix_nano").max()


async def test_times():
    """Flushes every interval, also without new spans; the offset moves points and their start."""
    async with Rig(metrics_flush_interval="10s", metrics_timestamp_offset="2s") as rig:
        start = rig.clock.time_unix_nano()
        await rig.take(span(SERVER, service="a"))
        await rig.clock.advance(30)
        assert len(rig.sink.batches) == 3
        assert rig.sink.batches[-1].field("time_unix_nano").tolist() == [start + 28 * 10**9] * 3
        assert rig.sink.batches[-1].field("start_time_unix_nano").tolist() == [start - 2 * 10**9] * 3


async def test_flush_after_each_batch():
    """A ``metrics_flush_interval`` of 0 writes the metrics after every batch."""
    async with Rig(metrics_flush_interval="0") as rig:
        await rig.take(span(SERVER, service="a"))
        await rig.take(span(SERVER, service="a"))
        assert len(rig.sink.batches) == 2
        times = [one.field("time_unix_nano").max() for one in rig.sink.batches]
        assert times[0] < times[1]


async def test_a_reload_continues_series_and_waiting_spans():
    """The predecessor, once it has handed over, emits nothing at its shutdown. Other labels start afresh."""
    old = Rig()
    await old.component.start(FakeHost())
    await old.take(span(SERVER, service="a"), span(CLIENT, span_id=5, trace=5, service="a"))
    new = Rig(previous=old.component, clock=old.clock, telemetry=old.telemetry, store={"max_items": 5})
    await old.component.shutdown()
    assert old.sink.batches == []
    async with new:
        assert new.component.held_items() == {Signal.TRACES: 1}
        await new.take(span(SERVER, service="b", trace=5, parent=5), span(SERVER, trace=6, service="a"))
    assert new.requests() == {labels("user", "a", "virtual_node"): 2, labels("a", "b"): 1}
    assert old.telemetry.ledger.folded[Signal.TRACES] == 4
    other = Rig(previous=new.component, clock=old.clock, dimensions=["tenant"])
    async with other:
        await other.take(span(SERVER, service="a"))
    assert other.requests() == {labels("user", "a", "virtual_node"): 1}


async def test_exponential_histograms():
    """One range of buckets holds all values."""
    seconds = [0.0, 0.001, 0.0013, 0.25, 1.0, 64.0, 1.0]
    async with Rig(exponential_histogram_max_size=20) as rig:
        await rig.take(*(span(SERVER, trace=i, service="a", seconds=value) for i, value in enumerate(seconds, 1)))
    point = rig.points("traces_service_graph_request_server")[labels("user", "a", "virtual_node")]
    assert (point.count, point.zero_count) == (7, 1)
    assert point.sum == pytest.approx(sum(seconds))
    base = 2.0 ** (2.0**-point.scale)
    assert len(point.positive.bucket_counts) <= 20
    expected = collections.Counter(math.ceil(math.log(value, base) - 1e-9) - 1 for value in seconds if value)
    found = {point.positive.offset + i: count for i, count in enumerate(point.positive.bucket_counts) if count}
    assert found == dict(expected)


async def test_many_spans_of_one_key():
    """Thousands of spans with one key, alternating or not, are paired without work per span."""
    alternating = [
        span(CLIENT if i % 2 else SERVER, span_id=1, parent=1, service="a" if i % 2 else "b") for i in range(2000)
    ]
    runs = [
        span(CLIENT if i % 4 else SERVER, span_id=1, parent=1, service="a" if i % 4 else "b", trace=2)
        for i in range(2000)
    ]
    async with Rig(virtual_node_peer_attributes=[]) as rig:
        await rig.take(*alternating, *runs)
    slow = Slow(virtual=())
    for each in [*alternating, *runs]:
        slow.take(each, 0)
    slow.expire()
    assert rig.requests() == dict(slow.requests)


@pytest.mark.parametrize(
    ("config", "key"),
    [
        ({"store": {"max_items": 0}}, "max_items"),
        ({"store": {"ttl": "-1s"}}, "ttl"),
        ({"store": {"size": 1}}, "size"),
        ({"dimensions": [""]}, "dimensions"),
        ({"dimensions": ["a", "a"]}, "dimensions"),
        ({"database_name_attributes": []}, "database_name_attributes"),
        ({"latency_histogram_buckets": ["2s", "1s"]}, "latency_histogram_buckets"),
        ({"latency_histogram_buckets": ["-1s", "1s"]}, "latency_histogram_buckets"),
        ({"latency_histogram_buckets": ["1s"], "exponential_histogram_max_size": 10}, "use either"),
        ({"exponential_histogram_max_size": -1}, "exponential_histogram_max_size"),
        ({"exponential_histogram_max_size": 10**6}, "exponential_histogram_max_size"),
        ({"metrics_flush_interval": "-1s"}, "metrics_flush_interval"),
        ({"cache_loop": "-1s"}, "cache_loop"),
        ({"store_expiration_loop": "-1s"}, "store_expiration_loop"),
        ({"aggregation_cardinality_limit": -1}, "aggregation_cardinality_limit"),
    ],
)
def test_bad_configuration(config, key):
    """Each is refused with a message that names the key."""
    with pytest.raises(ValidationError, match=key):
        ServiceGraphConfig.model_validate(config)


def test_defaults_are_the_collectors():
    config = ServiceGraphConfig()
    assert (config.store.ttl, config.store.max_items) == (2.0, 1000)
    assert (config.cache_loop_s, config.store_expiration_loop_s, config.metrics_flush_interval) == (60.0, 2.0, 60.0)
    assert config.virtual_node_peer_attributes == ("peer.service", "db.name", "db.system")
    assert ServiceGraphConfig.model_validate({"cache_loop": "0", "store_expiration_loop": "0"}).cache_loop_s == 60.0
    assert factory.aliases == ("servicegraph",)


def numbers_of(batches, name):
    """(time, value) of every point of a metric; of histograms the count."""
    from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest

    return [
        (point.time_unix_nano, point.as_int if hasattr(point, "as_int") else point.count)
        for made in batches
        for resource in ExportMetricsServiceRequest.FromString(made.wire).resource_metrics
        for scope in resource.scope_metrics
        for metric in scope.metrics
        if metric.name == name
        for point in getattr(metric, metric.WhichOneof("data")).data_points
    ]


@pytest.mark.parametrize("size", [0, 160])
async def test_series_begin_with_a_zero(size):
    """Without one, a backend that computes increases would not see what the first flush has."""
    rig = Rig(exponential_histogram_max_size=size, aggregation_cardinality_limit=1, virtual_node_peer_attributes=[])
    async with rig:
        await rig.clock.advance(7)
        began = rig.clock.time_unix_nano()
        await rig.take(span(CLIENT, 1, 1), span(SERVER, 1, 2, 1, service="b"), span(CLIENT, 7, 1))
        await rig.clock.advance(60)
        await rig.take(span(CLIENT, 2, 1), span(SERVER, 2, 2, 1, service="b"))
        await rig.clock.advance(60)
    for name in ("request_total", "request_server", "request_client"):
        found = numbers_of(rig.sink.batches, f"traces_service_graph_{name}")
        assert [value for _, value in found][:3] == [0, 1, 2]
        assert [time for time, _ in found] == sorted({time for time, _ in found})
        assert found[0][0] == began
    unpaired = [value for _, value in numbers_of(rig.sink.batches, "traces_service_graph_unpaired_spans_total")]
    assert unpaired[:2] == [0, 1]


async def test_the_first_failure_of_the_overflow_series_is_an_increase():
    """It is older than its first failure; until the flush before, it had none."""
    async with Rig(aggregation_cardinality_limit=1) as rig:
        for trace, failed in ((1, False), (2, False), (3, True)):
            service = f"s{trace}"
            await rig.take(span(CLIENT, trace, 1), span(SERVER, trace, 2, 1, service=service, failed=failed))
            await rig.clock.advance(60)
    name = "traces_service_graph_request_failed_total"
    (zero_time, zero), (_, value), *_ = numbers_of(rig.sink.batches, name)
    assert (zero, value) == (0, 1)
    assert zero_time == numbers_of(rig.sink.batches[1:2], "traces_service_graph_request_total")[-1][0]


async def test_a_flush_after_each_batch_begins_with_a_zero():
    """There is no time between span and flush, so the zero is a millisecond before."""
    async with Rig(metrics_flush_interval="0s") as rig:
        await rig.clock.advance(1)
        await rig.take(span(CLIENT, 1, 1), span(SERVER, 1, 2, 1, service="b"))
        now = rig.clock.time_unix_nano()
    assert numbers_of(rig.sink.batches[:1], "traces_service_graph_request_total") == [(now - 1_000_000, 0), (now, 1)]


async def test_impossible_durations_are_0_and_counted():
    """A start of 0 would add 56 years to the sums."""
    async with Rig() as rig:
        lost, client = span(SERVER, 1, 2, 1, service="b"), span(CLIENT, 1, 1)
        await rig.component.consume(batch([client, {**lost, "start": 0}]))
        await rig.clock.advance(60)
        key = labels("a", "b")
        assert rig.points("traces_service_graph_request_server")[key][:2] == (1, 0.0)
        assert rig.points("traces_service_graph_request_client")[key][1] == pytest.approx(0.003)
        assert rig.telemetry.value("tailrace_service_graph_invalid_durations") == 1


# A restart with a storage.


async def restarted(storage, previous=None, **config):
    """The connector of a process whose state is in ``storage``."""
    rig = Rig(clock=previous.clock if previous else None, storage="disk", **config)
    await rig.component.start(FakeHost(extensions={"disk": storage}))
    return rig


async def end(rig, *, is_killed):
    if is_killed:
        for task in (rig.component._flush_task, *rig.component._expiry_tasks):
            await task.stop()
    else:
        await rig.component.shutdown()


@pytest.mark.parametrize("is_killed", [True, False], ids=["kill -9", "SIGTERM"])
@pytest.mark.parametrize("size", [0, 20], ids=["explicit", "exponential"])
async def test_continues_after_a_restart_like_a_connector_that_never_ended(is_killed, size):
    """Same values and start times, no zero again, and the sides of a request find each other over the restart."""
    config = {"exponential_histogram_max_size": size, "aggregation_cardinality_limit": 3}
    before = [
        span(CLIENT, 1, 1, service="a"),
        span(SERVER, 1, 2, parent=1, service="b", failed=True),
        span(CLIENT, 2, 5, service="a", seconds=0.3),
        *(span(CLIENT, 10 + i, 1, service="a", attributes={"db.name": f"db{i}"}) for i in range(4)),
        span(SERVER, 7, 1, parent=9, service="alone"),
    ]
    after = [
        span(SERVER, 2, 6, parent=5, service="b", seconds=0.2),
        span(CLIENT, 3, 1, service="a"),
        span(SERVER, 3, 2, parent=1, service="b", failed=True),
    ]
    storage, clock = FakeStorage(), FakeClock()
    whole = Rig(clock=clock, storage="disk", **config)
    await whole.component.start(FakeHost(extensions={"disk": FakeStorage()}))
    first = Rig(clock=clock, storage="disk", **config)
    await first.component.start(FakeHost(extensions={"disk": storage}))
    for rig in (whole, first):
        await rig.take(*before)
    await clock.advance(1)
    for rig in (whole, first):
        await rig.component._flush()
    await end(first, is_killed=is_killed)
    second = await restarted(storage, first, **config)
    assert second.component.held_items() == {Signal.TRACES: 2}
    assert second.telemetry.ledger.created[Signal.TRACES] == 2
    await clock.advance(1)
    for rig in (whole, second):
        await rig.take(*after)
        await rig.component._flush()
    assert read(second.sink.batches[-1]) == read(whole.sink.batches[-1])
    assert second.requests()
    await end(whole, is_killed=True)
    await end(second, is_killed=True)


async def test_waiting_spans_count_as_unpaired_if_the_disk_is_full_at_the_end():
    """They are not lost without being counted, and a later process does not continue from an older state."""
    storage = FakeStorage()
    rig = await restarted(storage, virtual_node_peer_attributes=[])
    await rig.take(span(CLIENT, 1, 1, service="a"))
    await rig.component._flush()
    [state] = storage.states.values()
    assert state.value
    state.fail_with = OSError(errno.ENOSPC, "No space left on device")
    await end(rig, is_killed=False)
    assert rig.component.held_items() == {Signal.TRACES: 0}
    assert rig.telemetry.ledger.folded[Signal.TRACES] == 1
    assert sum(rig.points("traces_service_graph_unpaired_spans_total").values()) == 1
    assert state.value is None


@pytest.mark.parametrize("change", [b"", b'"version": 9', b'"kind": "other"'])
async def test_a_saved_state_that_cannot_be_used_is_like_none(change):
    storage = FakeStorage()
    first = await restarted(storage)
    await first.take(span(CLIENT, 1, 1, service="a"), span(SERVER, 1, 2, parent=1, service="b"))
    await end(first, is_killed=False)
    [state] = storage.states.values()
    name = change.partition(b":")[0]
    state.value = state.value.replace(name + b": 1", change).replace(name + b': "service_graph"', change) or change
    if not change:
        state.value = b"\0" * 100
    second = await restarted(storage, first)
    assert second.component.held_items() == {Signal.TRACES: 0}
    assert second.telemetry.value("tailrace_state_failures", operation="load") == 1
    await end(second, is_killed=True)


def test_a_storage_needs_a_flush_interval():
    with pytest.raises(ValidationError, match="storage needs a metrics_flush_interval above 0"):
        ServiceGraphConfig.model_validate({"storage": "disk", "metrics_flush_interval": 0})
