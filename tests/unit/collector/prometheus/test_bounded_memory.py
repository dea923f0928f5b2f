"""What senders choose (names, labels, texts, buckets) is held in bounded memory by both exporters."""

import pytest
from held_memory import assert_bounded
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest

from collector.model import Metrics, Signal
from collector.testing import make_settings
from exporters.prometheus import factory as page_factory
from exporters.prometheus_remote_write import factory as remote_write_factory

SECOND = 1_000_000_000
LONG = "x" * 70_000
CONFIGS = {
    page_factory: {"endpoint": "127.0.0.1:0"},
    remote_write_factory: {"endpoint": "http://127.0.0.1:1", "send_metadata": True},
}


@pytest.fixture(params=CONFIGS, ids=lambda factory: factory.component_type)
def feed(request):
    """A function that puts a batch through the exporter, and the exporter."""
    config = request.param.config_type.model_validate(
        CONFIGS[request.param] | {"resource_to_telemetry_conversion": {"enabled": True}}
    )
    sut = request.param.create(make_settings(request.param, signals={Signal.METRICS}), config)
    take = sut.try_consume if request.param is page_factory else sut.encode

    def put(made):
        take(Metrics.from_wire(made.SerializeToString()))

    put.exporter = sut
    put.ledger = (sut._settings if request.param is page_factory else sut.settings).telemetry.ledger
    put.log = (sut._settings if request.param is page_factory else sut.settings).telemetry.log
    return put


def gauge(made, name="x", unit="", description="", service="api", key="k", value="v", host="h"):
    resource = made.resource_metrics.add()
    for attribute, text in (("service.name", service), ("host.name", host)):
        resource.resource.attributes.add(key=attribute).value.string_value = text
    metric = resource.scope_metrics.add().metrics.add(name=name, unit=unit, description=description)
    point = metric.gauge.data_points.add(time_unix_nano=SECOND, as_int=1)
    point.attributes.add(key=key).value.string_value = value
    return made


def test_texts_from_outside(feed):
    """A text in each place of its own metric; a few very long ones, and many."""

    def put(text):
        made = ExportMetricsServiceRequest()
        for place in ("name", "unit", "description", "service", "host", "key", "value"):
            gauge(made, **{place: text})
        feed(made)

    assert_bounded(put, max_bytes=16 * 1024 * 1024, short_texts=300)


@pytest.mark.parametrize("place", ["name", "unit", "service", "host", "key", "value"])
def test_points_with_labels_beyond_the_limit_are_dropped_and_named(feed, place):
    """Each time they come; the points beside them are kept."""
    for _ in range(2):
        feed(gauge(gauge(ExportMetricsServiceRequest()), **{place: LONG}))
    assert feed.ledger.dropped == {(Signal.METRICS, "label_size"): 2}
    assert feed.log.of_level("warning")[0].fields["reason"] == "label_size"


def test_a_long_description_is_cut(feed):
    """The point is kept."""
    feed(gauge(ExportMetricsServiceRequest(), description=LONG))
    assert not feed.ledger.dropped
    cache = getattr(feed.exporter, "_cache", None) or feed.exporter._store._cache
    assert len(cache.families[0].description) == 1024


def test_more_buckets_than_any_histogram_needs_are_dropped(feed):
    """Also quantiles of a summary. A million equal bounds take a few kilobytes on the wire, but as many series."""

    def distributions(bucket_count):
        made = ExportMetricsServiceRequest()
        metrics = made.resource_metrics.add().scope_metrics.add().metrics
        histogram = metrics.add(name="h").histogram
        histogram.aggregation_temporality = 2
        point = histogram.data_points.add(time_unix_nano=SECOND, count=1, explicit_bounds=range(bucket_count))
        point.bucket_counts.extend([1] + [0] * bucket_count)
        summary = metrics.add(name="s").summary.data_points.add(time_unix_nano=SECOND, count=1)
        for i in range(bucket_count):
            summary.quantile_values.add(quantile=i / bucket_count, value=1)
        return made

    feed(distributions(10_000))
    assert not feed.ledger.dropped
    feed(distributions(10_001))
    assert feed.ledger.dropped == {(Signal.METRICS, "bucket_count"): 2}


def test_ever_new_histograms_of_many_buckets(feed, monkeypatch):
    """The values on the page count towards the limit of the caches, which are cleared beyond it."""
    monkeypatch.setattr("collector.prometheus.series._CACHES_MAX_BYTES", 8 * 1024 * 1024)
    cache = getattr(feed.exporter, "_cache", None) or feed.exporter._store._cache
    for i in range(60):
        made = ExportMetricsServiceRequest()
        histogram = made.resource_metrics.add().scope_metrics.add().metrics.add(name="h").histogram
        histogram.aggregation_temporality = 2
        for j in range(10):
            point = histogram.data_points.add(time_unix_nano=SECOND, count=1, explicit_bounds=range(999))
            point.bucket_counts.extend([1] + [0] * 999)
            point.attributes.add(key="i").value.string_value = f"{i} {j}"
        feed(made)
        assert cache.memory_bytes < 16 * 1024 * 1024
    assert cache.generation > 1 or feed.exporter.__class__.__name__ != "PrometheusExporter"
