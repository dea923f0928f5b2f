"""Idle series are forgotten and their memory is given back; nothing that is still used changes."""

import pytest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from reference_messages import message_class
from remote_write_rules import V1, check_v1

from collector.model import Metrics, Signal
from collector.testing import FakeClock, make_settings
from exporters.prometheus import factory as page_factory
from exporters.prometheus_remote_write import factory as remote_write_factory

MIB = 2**20
WRITE_REQUEST = message_class("WriteRequest", V1)


class Rig:
    """One of the two exporters, and its clock. ``put`` sends one value of each type for each host."""

    def __init__(self, factory, **config):
        self.clock = FakeClock()
        self.start_unix_nano = self.clock.time_unix_nano() - 10**9
        settings = make_settings(factory, signals={Signal.METRICS}, clock=self.clock)
        endpoint = {"endpoint": "127.0.0.1:0" if factory is page_factory else "http://localhost:1/"}
        self.sut = factory.create(settings, factory.config_type.model_validate(endpoint | config))
        self.ledger = settings.telemetry.ledger
        self.is_page = factory is page_factory
        self.cache = self.sut._store._cache if self.is_page else self.sut._cache

    def put(self, hosts, *, value=1, name="", label="host"):
        """Returns the values that are sent or shown, by metric and host."""
        made = ExportMetricsServiceRequest()
        now = self.clock.time_unix_nano()
        when = {"time_unix_nano": now, "start_time_unix_nano": self.start_unix_nano}
        metrics = made.resource_metrics.add().scope_metrics.add().metrics
        counter, histogram = metrics.add(name=name + "c").sum, metrics.add(name=name + "h").histogram
        native = metrics.add(name=name + "n").exponential_histogram
        counter.is_monotonic = True
        counter.aggregation_temporality = histogram.aggregation_temporality = native.aggregation_temporality = 2
        for host in hosts:
            points = [
                counter.data_points.add(as_int=value, **when),
                histogram.data_points.add(count=value, sum=1, bucket_counts=[value, 0], explicit_bounds=[1], **when),
                native.data_points.add(count=value, sum=1, zero_count=value, **when),
            ]
            for point in points:
                point.attributes.add(key=label).value.string_value = host
        batch = Metrics.from_wire(made.SerializeToString())
        if self.is_page:
            self.sut.try_consume(batch)
            return {}
        found = {}
        for part in self.sut.encode(batch):
            for labels, series in check_v1(WRITE_REQUEST.FromString(part.payload.body)).items():
                labels = dict(labels)
                found[labels["__name__"], labels.get("host", "")] = (
                    series.values() or [histogram.count_int for histogram in series.histograms]
                )[-1]
        return found

    async def sweep(self, seconds):
        self.clock.move(seconds)
        await self.sut._sweep()

    def counts(self):
        return len(self.cache.sources), len(self.cache.series)


@pytest.fixture(params=[page_factory, remote_write_factory], ids=["page", "remote write"])
def rig(request):
    return Rig(request.param)


async def test_idle_series_are_forgotten_and_their_memory_is_given_back(rig):
    """Also names, buckets and values of a page, and what each table keeps as room."""
    rig.put(["stays"])
    await rig.sweep(0)
    before = rig.cache.memory_bytes
    for i in range(20):
        rig.put([f"host {i} {j}" for j in range(500)], name=f"name{i}_")
        for j in range(60):
            rig.put(["x"], name=f"only_{i}_{j}_")
    assert rig.cache.memory_bytes > before + 5 * MIB
    for _ in range(4):
        await rig.sweep(300)
        rig.put(["stays"])
    assert rig.counts() == (3, 3)
    assert rig.cache.memory_bytes < before + MIB
    assert rig.cache.generation == 1, "nothing else was forgotten"


async def test_what_is_used_is_not_changed_when_memory_is_given_back():
    """The labels and values of remaining series, while most others go."""
    rig = Rig(remote_write_factory)
    kept = [f"kept {i}" for i in range(300)]
    expected = rig.put(kept, value=5)
    for i in range(10):
        rig.put([f"gone {i} {j}" for j in range(2000)])
    for _ in range(5):
        await rig.sweep(200)
        found = rig.put(kept, value=5)
    assert found == expected
    assert rig.counts() == (900, 900)
    assert rig.put(["gone 0 1", "kept 7"], value=6)["c_total", "gone 0 1"] == 6


async def test_a_page_shows_the_same_before_and_after():
    """Numbers and buckets move in the tables, not on the page."""
    rig = Rig(page_factory, enable_open_metrics=True)
    for i in range(10):
        rig.put([f"gone {i} {j}" for j in range(2000)])
    for _ in range(4):
        await rig.sweep(200)
        rig.put([f"kept {j}" for j in range(50)], value=7)
    page = rig.sut.render("application/openmetrics-text")[0].decode()
    assert "gone" not in page
    assert 'c_total{host="kept 31"} 7' in page
    assert page.count('h_bucket{host="kept') == 100
    assert rig.counts() == (150, 150)


async def test_the_sum_of_a_shared_series_outlives_the_streams_that_it_adds_up():
    """A stream that ends keeps its part; the one that remains is not sent as if it were alone."""
    rig = Rig(remote_write_factory, external_labels={"host": "x"})
    names = ["c_total", "h_count", "n"]

    def put(of, value):
        found = rig.put(of, label="__name__", value=value)  # an attribute that becomes no label
        return [found[name, "x"] for name in names]

    assert put(["one", "two"], 5) == [10, 10, 10]
    for i in range(20):
        await rig.sweep(250)
        assert put(["one"], 6 + i) == [11 + i] * 3
    assert rig.counts() == (3, 3), "the stream is forgotten after an hour"


async def test_delta_totals_are_forgotten_when_they_are_stale():
    """And begin again, with a start of their own, which Prometheus takes for a reset."""
    rig = Rig(remote_write_factory, delta_temporality={"max_stale": "60s"})
    assert len(rig.sut._deltas._streams) == 0
    made = ExportMetricsServiceRequest()
    total = made.resource_metrics.add().scope_metrics.add().metrics.add(name="d").sum
    total.aggregation_temporality, total.is_monotonic = 1, True
    point = total.data_points.add(as_int=3)

    def put():
        point.time_unix_nano = rig.clock.time_unix_nano()
        point.start_time_unix_nano = point.time_unix_nano - 10**9
        (part,) = rig.sut.encode(Metrics.from_wire(made.SerializeToString()))
        (series,) = check_v1(WRITE_REQUEST.FromString(part.payload.body)).values()
        return series.values()

    assert put() == [3]
    rig.clock.move(10)
    assert put() == [6]
    await rig.sweep(61)
    assert len(rig.sut._deltas._streams) == 0
    assert put() == [3]


def test_max_series_bounds_what_is_remembered(rig):
    """Points of further series are dropped and counted; those of known ones are not."""
    rig.cache._max_series = 6
    rig.put(["a", "b"])
    rig.put(["b", "c"])
    assert rig.ledger.dropped == {(Signal.METRICS, "series_limit"): 3}
    rig.put(["a", "b"])
    assert rig.ledger.dropped == {(Signal.METRICS, "series_limit"): 3}
