"""The scrape page, read by prometheus_client's own parser."""

import aiohttp
import pytest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families

from collector.model import Metrics, Signal
from collector.testing import FakeClock, FakeHost, make_settings
from exporters.prometheus import factory
from exporters.prometheus.config import PrometheusConfig

SECOND = 1_000_000_000


def batch(*numbers, name="http.requests", service="api", time_s=1, kind="int_value", flags=0):
    made = ExportMetricsServiceRequest()
    resource = made.resource_metrics.add()
    resource.resource.attributes.add(key="service.name").value.string_value = service
    resource.resource.attributes.add(key="host.name").value.string_value = "h"
    metric = resource.scope_metrics.add().metrics.add(name=name, description="line one\nline two")
    metric.sum.aggregation_temporality, metric.sum.is_monotonic = 2, True
    for i, number in enumerate(numbers):
        point = metric.sum.data_points.add(time_unix_nano=time_s * SECOND, as_int=number, flags=flags)
        point.attributes.add(key="user").value.string_value = f'u"{i}\\'
    return Metrics.from_wire(made.SerializeToString())


def histogram_batch():
    made = ExportMetricsServiceRequest()
    metric = made.resource_metrics.add().scope_metrics.add().metrics.add(name="d", unit="s")
    metric.histogram.aggregation_temporality = 2
    for i in range(3):
        point = metric.histogram.data_points.add(
            time_unix_nano=SECOND, count=6, sum=1.5, bucket_counts=[1, 2, 3], explicit_bounds=[0.5, 1]
        )
        point.attributes.add(key="i").value.int_value = i
    return Metrics.from_wire(made.SerializeToString())


async def page(sut, **headers):
    async with (
        aiohttp.ClientSession() as session,
        session.get(f"http://127.0.0.1:{sut.port}/metrics", headers=headers) as response,
    ):
        assert response.status == 200
        return await response.text()


@pytest.fixture
async def serve():
    started = []

    async def start(clock=None, **keys):
        config = PrometheusConfig.model_validate({"endpoint": "127.0.0.1:0", **keys})
        sut = factory.create(make_settings(factory, signals={Signal.METRICS}, clock=clock), config)
        await sut.start(FakeHost())
        started.append(sut)
        return sut

    yield start
    for sut in started:
        await sut.shutdown()


async def test_counters_with_escapes_and_target_info(serve):
    """A real parser reads the original values, labels, help and type."""
    sut = await serve()
    await sut.consume(batch(3, 4))
    families = {family.name: family for family in text_string_to_metric_families(await page(sut))}
    assert {sample.labels["user"]: sample.value for sample in families["http_requests"].samples} == {
        'u"0\\': 3,
        'u"1\\': 4,
    }
    assert families["http_requests"].documentation == "line one\nline two"
    assert families["target_info"].samples[0].labels == {"host_name": "h", "job": "api"}


async def test_histograms(serve):
    """Cumulative buckets, +Inf, sum and count."""
    sut = await serve()
    await sut.consume(histogram_batch())
    (family,) = [f for f in text_string_to_metric_families(await page(sut)) if f.name == "d_seconds"]
    assert family.type == "histogram"
    first = {(s.name, s.labels.get("le")): s.value for s in family.samples if s.labels["i"] == "0"}
    assert first == {
        ("d_seconds_bucket", "0.5"): 1, ("d_seconds_bucket", "1"): 3, ("d_seconds_bucket", "+Inf"): 6,
        ("d_seconds_sum", None): 1.5, ("d_seconds_count", None): 6,
    }  # fmt: skip
    assert len(family.samples) == 15


async def test_last_value_wins_and_an_older_one_is_ignored(serve):
    """A point that arrives late does not replace a newer one."""
    sut = await serve()
    await sut.consume(batch(5, time_s=10))
    await sut.consume(batch(4, time_s=9))
    (sample,) = [
        s for f in text_string_to_metric_families(await page(sut)) for s in f.samples if s.name == "http_requests_total"
    ]
    assert sample.value == 5


async def test_series_expire_and_stale_markers_remove(serve):
    """This happens after ``metric_expiration``, or when a point has the flag NO_RECORDED_VALUE."""
    clock = FakeClock()
    sut = await serve(clock, metric_expiration="60s")
    await sut.consume(batch(5))
    await sut.consume(batch(1, name="other"))
    await sut.consume(batch(0, name="other", time_s=2, flags=1))
    assert "other_total" not in await page(sut)
    await clock.advance(61)
    assert "http_requests_total" not in await page(sut)


async def test_openmetrics_if_the_scraper_accepts_it_and_it_is_enabled(serve):
    """The scraper requests it in its Accept header."""
    sut = await serve(enable_open_metrics=True, send_timestamps=True)
    await sut.consume(batch(5))
    text = await page(sut, Accept="application/openmetrics-text; version=1.0.0")
    families = {family.name: family for family in parse_openmetrics(text)}
    assert families["http_requests"].samples[0].value == 5
    assert float(families["http_requests"].samples[0].timestamp) == 1.0


async def test_a_family_with_a_conflicting_type_is_left_out(serve):
    """One name with two types would make the whole scrape fail."""
    sut = await serve(without_scope_info=True)
    await sut.consume(batch(5, name="x"))
    made = ExportMetricsServiceRequest()
    made.resource_metrics.add().scope_metrics.add().metrics.add(name="x.total").gauge.data_points.add(
        time_unix_nano=1, as_int=1
    )
    await sut.consume(Metrics.from_wire(made.SerializeToString()))
    text = await page(sut)
    assert text.count("# TYPE x_total ") == 1
    assert list(text_string_to_metric_families(text))


async def test_delta_is_dropped_and_counted(serve):
    """Delivered + dropped = received."""
    sut = await serve()
    made = ExportMetricsServiceRequest()
    metric = made.resource_metrics.add().scope_metrics.add().metrics.add(name="x")
    metric.sum.aggregation_temporality = 1
    metric.sum.data_points.add(time_unix_nano=1, as_int=1)
    await sut.consume(Metrics.from_wire(made.SerializeToString()))
    assert sut._settings.telemetry.ledger.dropped[Signal.METRICS, "temporality"] == 1


async def test_busy_port_is_named(serve):
    """The message names the key that changes it."""
    sut = await serve()
    with pytest.raises(OSError, match=r"exporters::prometheus.*endpoint"):
        await serve(endpoint=f"127.0.0.1:{sut.port}")
