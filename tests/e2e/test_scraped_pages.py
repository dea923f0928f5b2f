"""Pages of the exporter ``prometheus`` that real Prometheus scrapes, with names of any characters."""

import asyncio
import json
import time
import urllib.parse
import urllib.request

import pytest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest

from collector.model import Metrics, Signal
from collector.testing import FakeClock, FakeHost, make_settings
from exporters.prometheus import factory

SECOND = 1_000_000_000

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(120)]

UTF8 = {'größe "x"', "http.duration_bucket", "http.duration_count", "http.duration_sum", "x", "x_total"}
ESCAPED = {"gr__e__x_", "http_duration_bucket", "http_duration_count", "http_duration_sum", "x", "x_total"}
JOBS = {
    "no_translation": ({"translation_strategy": "NoTranslation"}, "", UTF8),
    "no_translation_om": ({"translation_strategy": "NoTranslation", "enable_open_metrics": True}, "", UTF8),
    "no_translation_legacy": (
        {"translation_strategy": "NoTranslation"},
        "metric_name_validation_scheme: legacy, metric_name_escaping_scheme: underscores",
        ESCAPED,
    ),
    "suffixes_om": (
        {"translation_strategy": "NoUTF8EscapingWithSuffixes", "enable_open_metrics": True},
        "",
        UTF8,
    ),
}


def batch():
    """A gauge and a histogram with names that need quotes, and a gauge and a counter with one OpenMetrics title."""
    made = ExportMetricsServiceRequest()
    metrics = made.resource_metrics.add().scope_metrics.add().metrics
    point = metrics.add(name='größe "x"').gauge.data_points.add(time_unix_nano=SECOND, as_double=1.5)
    for key, value in (("a.b", 'v",="{}'), ("a_b", "2"), ("ключ", "3")):
        point.attributes.add(key=key).value.string_value = value
    histogram = metrics.add(name="http.duration").histogram
    histogram.aggregation_temporality = 2
    histogram.data_points.add(time_unix_nano=SECOND, count=2, sum=1, bucket_counts=[1, 1], explicit_bounds=[1])
    metrics.add(name="x").gauge.data_points.add(time_unix_nano=SECOND, as_int=1)
    counter = metrics.add(name="x_total").sum
    counter.aggregation_temporality, counter.is_monotonic = 2, True
    counter.data_points.add(time_unix_nano=SECOND, as_int=2)
    return Metrics.from_wire(made.SerializeToString())


async def ask(url, path, **parameters):
    def fetch():
        with urllib.request.urlopen(f"{url}/api/v1/{path}?{urllib.parse.urlencode(parameters)}", timeout=10) as answer:
            return json.load(answer)["data"]

    return await asyncio.to_thread(fetch)


async def test_every_page_is_accepted(scraping):
    """Whatever the strategy and the format; no sample is missing."""
    exporters, configs = [], ""
    try:
        for job, (config, scheme, _) in JOBS.items():
            sut = factory.create(
                make_settings(factory, signals={Signal.METRICS}),
                factory.config_type.model_validate({"endpoint": "127.0.0.1:0", "without_scope_info": True, **config}),
            )
            await sut.start(FakeHost())
            exporters.append(sut)
            await sut.consume(batch())
            targets = f"static_configs: [{{targets: ['127.0.0.1:{sut.port}']}}]"
            configs += f"- {{job_name: {job}, {targets}{', ' if scheme else ''}{scheme}}}\n"
        with scraping(configs) as url:
            for job, (_, _, names) in JOBS.items():
                for _ in range(60):
                    found = (await ask(url, "query", query=f'{{job="{job}"}}'))["result"]
                    if found:
                        break
                    await asyncio.sleep(0.25)
                stored = {series["metric"]["__name__"] for series in found}
                assert {name for name in stored if name != "up" and not name.startswith("scrape_")} == names, job
            targets = (await ask(url, "targets"))["activeTargets"]
            assert {target["lastError"] for target in targets} == {""}
            (series,) = (await ask(url, "query", query='{"größe \\"x\\"",job="no_translation"}'))["result"]
            assert (series["metric"]["a.b"], series["metric"]["ключ"], series["value"][1]) == ('v",="{}', "3", "1.5")
    finally:
        for sut in exporters:
            await sut.shutdown()


@pytest.mark.parametrize("strategy", ["UnderscoreEscapingWithSuffixes", "NoTranslation"])
async def test_exemplars_are_stored(scraping, strategy):
    """Those of a counter and of each bucket, with their ids, attributes, values and times.

    Escapes in their values are left out: Prometheus 3 stores those of exemplars as they are written.
    """
    now_ms = time.time_ns() // 1_000_000
    made = ExportMetricsServiceRequest()
    metrics = made.resource_metrics.add().scope_metrics.add().metrics
    counter = metrics.add(name="c_total").sum
    counter.aggregation_temporality, counter.is_monotonic = 2, True
    points = [counter.data_points.add(time_unix_nano=now_ms * 1_000_000, as_int=2)]
    histogram = metrics.add(name="h").histogram
    histogram.aggregation_temporality = 2
    points.append(histogram.data_points.add(time_unix_nano=now_ms * 1_000_000, count=3, sum=1, bucket_counts=[1, 1, 1]))
    points[1].explicit_bounds.extend((1, 2))
    expected = set()
    name = "user.id" if strategy == "NoTranslation" else "user_id"
    for point, value, le in (
        (points[0], 1, ""),
        (points[1], 0.5, "1.0"),
        (points[1], 1.5, "2.0"),
        (points[1], 7, "+Inf"),
    ):
        exemplar = point.exemplars.add(as_double=value, time_unix_nano=now_ms * 1_000_000, trace_id=b"\1" * 16)
        exemplar.span_id = b"\2" * 8
        exemplar.filtered_attributes.add(key="user.id").value.string_value = f"ü {value} # {{"
        labels = {"trace_id": "01" * 16, "span_id": "02" * 8, name: f"ü {value} # {{"}
        expected.add((le, value, tuple(sorted(labels.items())), now_ms))
    sut = factory.create(
        make_settings(factory, signals={Signal.METRICS}, clock=FakeClock(start_unix_nano=now_ms * 1_000_000)),
        factory.config_type.model_validate(
            {"endpoint": "127.0.0.1:0", "enable_open_metrics": True, "translation_strategy": strategy}
        ),
    )
    await sut.start(FakeHost())
    try:
        await sut.consume(Metrics.from_wire(made.SerializeToString()))
        targets = f"- {{job_name: exemplars, static_configs: [{{targets: ['127.0.0.1:{sut.port}']}}]}}\n"
        found = set()
        with scraping(targets, "--enable-feature=exemplar-storage") as url:
            for _ in range(60):
                for query in ("c_total", "h_bucket"):
                    start, end = now_ms / 1000 - 60, now_ms / 1000 + 60
                    for series in await ask(url, "query_exemplars", query=query, start=start, end=end):
                        for one in series["exemplars"]:
                            labels = tuple(sorted(one["labels"].items()))
                            found.add(
                                (series["seriesLabels"].get("le", ""), float(one["value"]), labels,
                                 round(one["timestamp"] * 1000))
                            )  # fmt: skip
                if len(found) >= len(expected):
                    break
                await asyncio.sleep(0.25)
            assert {target["lastError"] for target in (await ask(url, "targets"))["activeTargets"]} == {""}
        assert found == expected
    finally:
        await sut.shutdown()
