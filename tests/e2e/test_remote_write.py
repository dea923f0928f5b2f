"""What a real Prometheus answers to queries about data that was sent with remote write 1.0 and 2.0."""

import asyncio
import contextlib
import json
import time
import urllib.parse
import urllib.request

import pytest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest

from collector.model import Metrics, Signal
from collector.service.process import SystemClock
from collector.testing import FakeHost, RecordingTelemetry, eventually, make_settings
from exporters.prometheus_remote_write import factory

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(240)]

V1, V2 = "prometheus.WriteRequest", "io.prometheus.write.v2.Request"
STEPS, STEP_S = 12, 15
SECOND = 10**9
STRATEGIES = (
    "UnderscoreEscapingWithSuffixes",
    "UnderscoreEscapingWithoutSuffixes",
    "NoUTF8EscapingWithSuffixes",
    "NoTranslation",
)


@pytest.fixture(scope="module")
def receiver(scraping):
    with scraping(
        "", "--web.enable-remote-write-receiver", "--web.enable-otlp-receiver",
        "--enable-feature=exemplar-storage",
    ) as url:  # fmt: skip
        yield url


@contextlib.asynccontextmanager
async def exporter(receiver, **keys):
    telemetry = RecordingTelemetry()
    settings = make_settings(factory, telemetry=telemetry, signals={Signal.METRICS}, clock=SystemClock())
    config = factory.config_type.model_validate({"endpoint": f"{receiver}/api/v1/write"} | keys)
    sut = factory.create(settings, config)
    await sut.start(FakeHost())

    async def send(made):
        await sut.consume(Metrics.from_wire(made.SerializeToString()))
        await eventually(lambda: not telemetry.value("otelcol_exporter_queue_size"), timeout_s=20)

    try:
        yield send
    finally:
        await sut.shutdown()
    assert (dict(telemetry.ledger.refused), dict(telemetry.ledger.dropped)) == ({}, {})
    assert not telemetry.log.of_level("warning")


def step(number, begin, case, *, resets=False):
    """Each type and temporality at one step: counters gain 3, histograms 4 observations with the sum 10."""
    made = ExportMetricsServiceRequest()
    resource = made.resource_metrics.add()
    for key, value in (("service.name", "api"), ("service.instance.id", case)):
        resource.resource.attributes.add(key=key).value.string_value = value
    metrics = resource.scope_metrics.add().metrics
    at = begin + number * STEP_S * SECOND
    # The source restarts in the middle; a counter that is cumulative begins anew then.
    since = STEPS // 2 if resets and number > STEPS // 2 else 0
    total = number - since
    for name, temporality in (("cumulative", 2), ("delta", 1)):
        count = total if temporality == 2 else 1
        start = begin + since * STEP_S * SECOND if temporality == 2 else at - STEP_S * SECOND
        when = {"time_unix_nano": at, "start_time_unix_nano": start}
        for kind, is_monotonic in (("counter", True), ("level", False)):
            sums = metrics.add(name=f"t.{kind}.{name}").sum
            sums.aggregation_temporality, sums.is_monotonic = temporality, is_monotonic
            point = sums.data_points.add(as_int=3 * count, **when)
            if kind == "counter" and temporality == 2:
                point.exemplars.add(time_unix_nano=at, as_double=3, trace_id=bytes(range(16)), span_id=bytes(range(8)))
        histogram = metrics.add(name=f"t.histogram.{name}").histogram
        histogram.aggregation_temporality = temporality
        histogram.data_points.add(
            count=4 * count, sum=10 * count, bucket_counts=[count, 3 * count, 0], explicit_bounds=[1, 5], **when
        )
    native = metrics.add(name="t.native").exponential_histogram
    native.aggregation_temporality = 2
    point = native.data_points.add(
        time_unix_nano=at, start_time_unix_nano=begin + since * STEP_S * SECOND, count=4 * total, sum=10 * total,
        scale=10, zero_count=total,
    )  # fmt: skip
    point.positive.offset = 1023  # (2, 2 * 2^(1/1024)]
    point.positive.bucket_counts.extend([0, 3 * total])
    gauge = metrics.add(name="t.gauge").gauge.data_points.add(time_unix_nano=at, as_double=number + 0.5)
    gauge.attributes.add(key="path").value.string_value = "/x"
    summary = metrics.add(name="t.summary").summary.data_points.add(time_unix_nano=at, count=4 * total, sum=10 * total)
    summary.quantile_values.add(quantile=0.5, value=2.5)
    return made


async def query(receiver, text, path="query", **parameters):
    def fetch():
        with urllib.request.urlopen(
            f"{receiver}/api/v1/{path}?{urllib.parse.urlencode({'query': text, **parameters})}", timeout=10
        ) as answer:
            return json.load(answer)["data"]

    return await asyncio.to_thread(fetch)


async def value(receiver, text, at):
    """The only value of the answer."""
    (found,) = (await query(receiver, text, time=at / SECOND))["result"]
    return float(found["value"][1])


@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize("message", [V1, V2])
@pytest.mark.parametrize("resets", [False, True], ids=["", "restart"])
async def test_queries_return_the_truth(receiver, message, strategy, resets):
    """Every type and temporality, with every strategy, also over a restart of the source."""
    case = f"{message} {strategy} {resets}"
    begin = time.time_ns() // SECOND * SECOND - STEPS * STEP_S * SECOND
    async with exporter(receiver, protobuf_message=message, translation_strategy=strategy) as send:
        for number in range(1, STEPS + 1):
            await send(step(number, begin, case, resets=resets))
    end = begin + STEPS * STEP_S * SECOND

    def series(kind, suffix="", more=""):
        return f'{{__name__=~"t[._]{kind}.*{suffix}",instance="{case}"{more}}}'

    last = STEPS - STEPS // 2 if resets else STEPS
    for temporality in ("cumulative", "delta"):
        total = last if temporality == "cumulative" else STEPS
        assert await value(receiver, series(f"counter[._]{temporality}"), end) == 3 * total
        assert await value(receiver, series(f"level[._]{temporality}"), end) == 3 * total
        histogram = f"histogram[._]{temporality}"
        assert await value(receiver, series(histogram, "_count"), end) == 4 * total
        assert await value(receiver, series(histogram, "_sum"), end) == 10 * total
        assert await value(receiver, series(histogram, "_bucket", ',le="1"'), end) == total
        quantile = f"histogram_quantile(0.5, sum by (le) (increase({series(histogram, '_bucket')}[2m])))"
        assert await value(receiver, quantile, end) == pytest.approx(1 + 4 / 3)
        # The rate is that at the source, however often it restarts.
        rate = await value(receiver, f"rate({series(f'counter[._]{temporality}')}[2m])", end)
        assert rate == pytest.approx(3 / STEP_S, rel=0.15 if resets and temporality == "cumulative" else 0.01)
    assert await value(receiver, f"histogram_count({series('native')})", end) == 4 * last
    assert await value(receiver, f"histogram_sum({series('native')})", end) == 10 * last
    assert await value(receiver, f"histogram_quantile(0.9, {series('native')})", end) == pytest.approx(2, rel=0.01)
    assert await value(receiver, series("gauge", "", ',path="/x"'), end) == STEPS + 0.5
    assert await value(receiver, series("summary", "", ',quantile="0.5"'), end) == 2.5
    assert await value(receiver, series("summary", "_count"), end) == 4 * last
    exemplars = await query(
        receiver, series("counter.cumulative"), "query_exemplars", start=begin / SECOND, end=end / SECOND + 1
    )
    assert {exemplar["labels"]["trace_id"] for one in exemplars for exemplar in one["exemplars"]} == {
        bytes(range(16)).hex()
    }


async def test_histograms_with_custom_buckets(receiver):
    """They are one series each, and quantiles are those of the buckets."""
    case = "custom"
    begin = time.time_ns() // SECOND * SECOND - STEPS * STEP_S * SECOND
    async with exporter(receiver, protobuf_message=V2, convert_histograms_to_nhcb=True) as send:
        for number in range(1, STEPS + 1):
            await send(step(number, begin, case))
    end = begin + STEPS * STEP_S * SECOND
    for temporality in ("cumulative", "delta"):
        series = f't_histogram_{temporality}{{instance="{case}"}}'
        assert await value(receiver, f"histogram_count({series})", end) == 4 * STEPS
        assert await value(receiver, f"histogram_sum({series})", end) == 10 * STEPS
        assert await value(receiver, f"histogram_quantile(0.5, {series})", end) == pytest.approx(1 + 4 / 3)
        assert not (await query(receiver, f't_histogram_{temporality}_count{{instance="{case}"}}'))["result"]


@pytest.mark.parametrize("message", [V1, V2])
async def test_series_are_those_of_the_otlp_endpoint(receiver, message):
    """The same request sent to Prometheus itself: equal series with equal values."""
    begin = time.time_ns() // SECOND * SECOND - 2 * STEP_S * SECOND
    cases = [f"{message} ours", f"{message} theirs"]
    requests = []
    for case in cases:
        made = step(1, begin, case)
        metrics = made.resource_metrics[0].scope_metrics[0].metrics
        kept = [metric for metric in metrics if "delta" not in metric.name]  # which that endpoint refuses
        del metrics[:]
        metrics.extend(kept)
        requests.append(made)
    async with exporter(receiver, protobuf_message=message, disable_scope_info=True) as send:
        await send(requests[0])
    headers = {"Content-Type": "application/x-protobuf"}
    request = urllib.request.Request(f"{receiver}/api/v1/otlp/v1/metrics", requests[1].SerializeToString(), headers)
    with await asyncio.to_thread(urllib.request.urlopen, request, timeout=10) as answer:
        assert answer.status == 200
    found = []
    for case in cases:
        answer = await query(receiver, f'{{instance="{case}"}}', time=begin / SECOND + STEP_S)
        found.append(
            {
                tuple(sorted((k, v) for k, v in one["metric"].items() if k != "instance")): str(
                    one.get("value", one.get("histogram"))[1]
                )
                for one in answer["result"]
            }
        )
    assert found[0] == found[1]
    assert len(found[0]) > 10
