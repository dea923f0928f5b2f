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


async def test_unspecified_temporality_is_dropped_and_counted(serve):
    """Delivered + dropped = received."""
    sut = await serve()
    made = ExportMetricsServiceRequest()
    metric = made.resource_metrics.add().scope_metrics.add().metrics.add(name="x")
    metric.sum.data_points.add(time_unix_nano=1, as_int=1)
    await sut.consume(Metrics.from_wire(made.SerializeToString()))
    assert sut._settings.telemetry.ledger.dropped[Signal.METRICS, "temporality"] == 1


async def test_busy_port_is_named(serve):
    """The message names the key that changes it."""
    sut = await serve()
    with pytest.raises(OSError, match=r"exporters::prometheus.*endpoint"):
        await serve(endpoint=f"127.0.0.1:{sut.port}")


def utf8_batch():
    """A gauge and a histogram whose names and labels no legacy parser reads."""
    made = ExportMetricsServiceRequest()
    metrics = made.resource_metrics.add().scope_metrics.add().metrics
    point = metrics.add(name='größe "x"').gauge.data_points.add(time_unix_nano=SECOND, as_double=1.5)
    for key, value in (("a.b", 'v",="{}'), ("a_b", "2"), ("ключ", "3"), ("c:d", "4")):
        point.attributes.add(key=key).value.string_value = value
    histogram = metrics.add(name="http.duration").histogram
    histogram.aggregation_temporality = 2
    histogram.data_points.add(time_unix_nano=SECOND, count=2, sum=1, bucket_counts=[1, 1], explicit_bounds=[1])
    metrics.add(name="plain").gauge.data_points.add(time_unix_nano=SECOND, as_int=1)
    return Metrics.from_wire(made.SerializeToString())


@pytest.mark.parametrize("strategy", ["NoTranslation", "NoUTF8EscapingWithSuffixes"])
@pytest.mark.parametrize("openmetrics", [False, True])
async def test_utf8_names_are_quoted_for_scrapers_that_accept_them(serve, strategy, openmetrics):
    """As Prometheus 3 asks for them, and in the content type of the answer."""
    sut = await serve(translation_strategy=strategy, without_scope_info=True, enable_open_metrics=openmetrics)
    await sut.consume(utf8_batch())
    accept = "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.6,text/plain;version=1.0.0;escaping=allow-utf-8;q=0.5"
    text, content_type = await page_and_type(sut, accept)
    kind = "application/openmetrics-text" if openmetrics else "text/plain"
    assert content_type == f"{kind}; version=1.0.0; charset=utf-8; escaping=allow-utf-8"
    assert text.splitlines()[1:3] == [
        '# TYPE "größe \\"x\\"" gauge',
        '{"größe \\"x\\"","a.b"="v\\",=\\"{}",a_b="2","c:d"="4","ключ"="3"} 1.5',
    ]
    assert '{"http.duration_bucket",le="+Inf"} 2' in text
    assert '{"http.duration_count"} 2' in text
    assert "\nplain 1\n" in text


@pytest.mark.parametrize(
    ("scheme", "sample"),
    [
        ("", r'gr__e__x_{a_b="v\",=\"{}",c_d="4",____="3"} 1.5'),
        ("underscores", r'gr__e__x_{a_b="v\",=\"{}",c_d="4",____="3"} 1.5'),
        ("dots", r'gr____e____x__{a_dot_b="v\",=\"{}",a__b="2",c_d="4",________="3"} 1.5'),
        (
            "values",
            r'U__gr_f6__df_e_20__22_x_22_{U__a_2e_b="v\",=\"{}",a_b="2",c_d="4",U___43a__43b__44e__447_="3"} 1.5',
        ),
    ],
)
async def test_utf8_names_are_escaped_for_other_scrapers(serve, scheme, sample):
    """By the scheme that the scraper names, otherwise with underscores; of two labels of one name the first stays."""
    sut = await serve(translation_strategy="NoTranslation", without_scope_info=True)
    await sut.consume(utf8_batch())
    parameter = f"; escaping={scheme}" if scheme else ""
    text, content_type = await page_and_type(sut, "text/plain;version=0.0.4" + parameter)
    assert content_type == "text/plain; version=0.0.4; charset=utf-8" + parameter
    lines = text.splitlines()
    metric = sample.partition("{")[0]
    at = lines.index(f"# TYPE {metric} gauge")
    assert (lines[at - 1], lines[at + 1]) == (f"# HELP {metric} ", sample)
    text = "\n".join(line for line in lines if metric not in line) + "\n"
    plain, duration = sorted(text_string_to_metric_families(text), key=lambda family: family.type)
    assert (plain.name, plain.samples[0].value) == ("plain", 1)
    assert [found.value for found in duration.samples] == [1, 2, 1, 2]


async def page_and_type(sut, accept):
    async with (
        aiohttp.ClientSession() as session,
        session.get(f"http://127.0.0.1:{sut.port}/metrics", headers={"Accept": accept}) as response,
    ):
        return await response.text(), response.headers["Content-Type"]


def numbers(**metrics):
    """Metrics with one point each: a number is a gauge, a tuple the bucket counts of a histogram, else a counter."""
    made = ExportMetricsServiceRequest()
    added = made.resource_metrics.add().scope_metrics.add().metrics
    for name, value in metrics.items():
        metric = added.add(name=name)
        if isinstance(value, tuple):
            metric.histogram.aggregation_temporality = 2
            metric.histogram.data_points.add(time_unix_nano=1, count=sum(value), bucket_counts=value)
        elif isinstance(value, str):
            metric.sum.aggregation_temporality, metric.sum.is_monotonic = 2, True
            metric.sum.data_points.add(time_unix_nano=1, as_int=int(value))
        else:
            metric.gauge.data_points.add(time_unix_nano=1, as_double=value)
    return Metrics.from_wire(made.SerializeToString())


async def test_an_openmetrics_page_has_one_type_line_per_title(serve):
    """A counter whose title is that of a gauge is of unknown type; the parser accepts the page, and nothing is lost."""
    sut = await serve(enable_open_metrics=True)
    await sut.consume(numbers(x=1.0, x_total="2", y_total="3"))
    text = await page(sut, Accept="application/openmetrics-text; version=1.0.0")
    families = {family.name: family for family in parse_openmetrics(text)}
    assert [(name, families[name].type, families[name].samples[0].value) for name in sorted(families)] == [
        ("x", "gauge", 1), ("x_total", "unknown", 2), ("y", "counter", 3),
    ]  # fmt: skip


async def test_a_metric_named_like_a_sample_of_a_histogram_is_left_out(serve):
    """``foo_count`` beside the histogram ``foo``: counted and named."""
    sut = await serve()
    await sut.consume(numbers(foo=(1, 2), foo_count=9.0, foo_counts=8.0))
    families = {family.name: family for family in text_string_to_metric_families(await page(sut))}
    assert sorted(families) == ["foo", "foo_counts"]
    (line,) = sut._settings.telemetry.log.of_level("warning")
    assert (line.fields["reason"], line.fields["metrics"]) == ("name_conflict", "foo_count")
    await sut.consume(batch(1, name="foo.sum"))
    assert "foo_sum_total" in await page(sut), "another name"
    made = ExportMetricsServiceRequest()
    point = made.resource_metrics.add().scope_metrics.add().metrics.add(name="foo_sum").gauge.data_points.add(as_int=1)
    point.attributes.add(key="a").value.string_value = "b"
    await sut.consume(Metrics.from_wire(made.SerializeToString()))
    assert 'a="b"' not in await page(sut)
    assert sut._settings.telemetry.log.of_level("warning")[-1].fields == {"series": 1, "metrics": "foo_sum"}


async def test_a_time_far_ahead_does_not_hide_later_points(serve):
    """Until the clock has caught up: nothing further ahead than ten minutes is believed."""
    clock = FakeClock()
    now_s = clock.time_unix_nano() // SECOND
    sut = await serve(clock)
    await sut.consume(batch(5, time_s=now_s + 86_400))
    await clock.advance(1)
    await sut.consume(batch(6, time_s=now_s + 1))
    assert "} 6\n" in await page(sut)


async def test_streams_of_one_series_are_added_up(serve):
    """Two services without labels to tell them apart."""
    sut = await serve(without_scope_info=True)
    made = ExportMetricsServiceRequest()
    for host, value in (("a", 3), ("b", 4)):
        resource = made.resource_metrics.add()
        resource.resource.attributes.add(key="host.name").value.string_value = host
        metric = resource.scope_metrics.add().metrics.add(name="x")
        metric.sum.aggregation_temporality, metric.sum.is_monotonic = 2, True
        metric.sum.data_points.add(time_unix_nano=SECOND, as_int=value)
    await sut.consume(Metrics.from_wire(made.SerializeToString()))
    assert "\nx_total 7\n" in await page(sut)
    assert sut._settings.telemetry.ledger.folded[Signal.METRICS] == 1


async def test_exponential_histograms_have_count_and_sum(serve):
    """As in the Collector: the text formats have no native histograms. An attribute ``le`` does not repeat the label."""
    sut = await serve(enable_open_metrics=True)
    made = ExportMetricsServiceRequest()
    metrics = made.resource_metrics.add().scope_metrics.add().metrics
    native, plain = metrics.add(name="n").exponential_histogram, metrics.add(name="p").histogram
    native.aggregation_temporality = plain.aggregation_temporality = 2
    point = native.data_points.add(time_unix_nano=SECOND, count=7, sum=2.5, zero_count=1, scale=3)
    point.positive.bucket_counts.extend([1, 2, 3])
    point.attributes.add(key="le").value.string_value = "x"
    point.exemplars.add(as_double=2, time_unix_nano=SECOND, span_id=b"1" * 8)
    native.data_points.add(time_unix_nano=SECOND, count=2).attributes.add(key="k").value.string_value = "without_sum"
    plain.data_points.add(time_unix_nano=SECOND, count=3, sum=1, bucket_counts=[3])
    await sut.consume(Metrics.from_wire(made.SerializeToString()))
    text = await page(sut)
    families = {family.name: family for family in text_string_to_metric_families(text)}
    assert families["n"].type == "histogram"
    found = {(s.name, s.labels.get("k", ""), s.labels.get("le", "")): s.value for s in families["n"].samples}
    assert found == {
        ("n_bucket", "", "+Inf"): 7, ("n_sum", "", ""): 2.5, ("n_count", "", ""): 7,
        ("n_bucket", "without_sum", "+Inf"): 2, ("n_count", "without_sum", ""): 2,
    }  # fmt: skip
    assert [sample.value for sample in families["p"].samples] == [3, 1, 3]
    text = await page(sut, Accept="application/openmetrics-text; version=1.0.0")
    assert f'n_bucket{{le="+Inf"}} 7 # {{span_id="{(b"1" * 8).hex()}"}} 2 1.000\n' in text
    assert not sut._settings.telemetry.ledger.dropped
