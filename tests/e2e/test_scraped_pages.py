"""Pages of the exporter ``prometheus`` that real Prometheus scrapes, with names of any characters."""

import asyncio
import json
import urllib.parse
import urllib.request

import pytest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest

from collector.model import Metrics, Signal
from collector.testing import FakeHost, make_settings
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
