"""What real Prometheus and Loki refuse, among what they must store, and by which labels Loki finds it."""

import asyncio
import json
import time
import urllib.parse
import urllib.request

import pytest
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest

from collector.model import Logs, Metrics, Signal
from collector.service.process import SystemClock
from collector.testing import FakeHost, RecordingTelemetry, eventually, make_settings
from exporters.loki import factory as loki_factory
from exporters.prometheus_remote_write import factory as remote_write_factory

SECOND = 1_000_000_000

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(120)]


class Started:
    """An exporter with a real clock."""

    def __init__(self, factory, signal, **config):
        self.telemetry = RecordingTelemetry()
        settings = make_settings(factory, telemetry=self.telemetry, signals={signal}, clock=SystemClock())
        self.exporter = factory.create(settings, factory.config_type.model_validate(config))

    async def __aenter__(self):
        await self.exporter.start(FakeHost())
        return self

    async def __aexit__(self, *_):
        await self.exporter.shutdown()

    async def send(self, batch):
        await self.exporter.consume(batch)
        await eventually(lambda: not self.telemetry.value("otelcol_exporter_queue_size"), timeout_s=20)

    def counts(self, kind):
        return {key[1]: count for key, count in getattr(self.telemetry.ledger, kind).items()}


async def ask(url, **parameters):
    def fetch():
        with urllib.request.urlopen(f"{url}?{urllib.parse.urlencode(parameters)}", timeout=10) as answer:
            return json.load(answer)["data"]["result"]

    return await asyncio.to_thread(fetch)


def gauges(name, *samples):
    """One service per sample: (service, time)."""
    request = ExportMetricsServiceRequest()
    for service, time_unix_nano in samples:
        metrics = request.resource_metrics.add()
        for key, value in (("service.name", service), ("host.name", "h")):
            metrics.resource.attributes.add(key=key).value.string_value = value
        metrics.scope_metrics.add().metrics.add(name=name).gauge.data_points.add(
            time_unix_nano=time_unix_nano, as_int=1
        )
    return Metrics.from_wire(request.SerializeToString())


async def stored(prometheus, query):
    found = await ask(f"{prometheus}/api/v1/query", query=query)
    return float(found[0]["value"][1]) if found else 0.0


async def test_prometheus_stores_all_but_the_bad_samples(prometheus):
    """No time, too far ahead, too old, out of order, a native histogram that contradicts itself."""
    now = time.time_ns() - 60 * SECOND
    good = [f"bad_samples_{number}" for number in range(20)]
    async with Started(remote_write_factory, Signal.METRICS, endpoint=f"{prometheus}/api/v1/write") as sut:
        await sut.send(gauges("bad_samples", *((service, now) for service in good), ("zero", 0)))
        ahead, old = ("ahead", now + 1800 * SECOND), ("old", now - 7200 * SECOND)
        await sut.send(gauges("bad_samples", *((service, now + SECOND) for service in good), ahead, old))
        late = (good[3], now)
        await sut.send(gauges("bad_samples", *((service, now + 2 * SECOND) for service in good[:3]), late))
        request = ExportMetricsServiceRequest()
        metrics = request.resource_metrics.add().scope_metrics.add().metrics
        for number in range(10):
            histogram = metrics.add(name=f"bad_histogram_{number}").exponential_histogram
            histogram.aggregation_temporality = 2
            point = histogram.data_points.add(time_unix_nano=now, count=4 if number == 5 else 3, sum=3)
            point.positive.bucket_counts.extend((1, 2))
        await sut.send(Metrics.from_wire(request.SerializeToString()))
        assert await stored(prometheus, "sum(count_over_time(bad_samples[5m]))") == 43
        assert await stored(prometheus, 'count({__name__=~"bad_histogram_.*"})') == 9
        assert sum(sut.telemetry.ledger.delivered.values()) == 43 + 9
        assert sut.counts("dropped") == {"no_timestamp": 1, "histogram_count": 1}
        assert sut.counts("refused") == {"http_400": 3}


async def test_two_gateways_with_the_same_services_lose_nothing(prometheus):
    """Their target_info is out of order from time to time, the samples are not."""
    now = time.time_ns() - 600 * SECOND
    endpoint = f"{prometheus}/api/v1/write"
    services = [f"two_gateways_{number}" for number in range(10)]
    async with (
        Started(remote_write_factory, Signal.METRICS, endpoint=endpoint) as first,
        Started(remote_write_factory, Signal.METRICS, endpoint=endpoint) as second,
    ):
        for step in range(13):
            at = now + step * 20 * SECOND
            await first.send(gauges("gateway_first", *((service, at) for service in services)))
            await second.send(gauges("gateway_second", *((service, at - 7 * SECOND) for service in services)))
        for sut, name in ((first, "gateway_first"), (second, "gateway_second")):
            assert await stored(prometheus, f"sum(count_over_time({name}[30m]))") == 130
            assert sut.counts("refused") == {}
        assert await stored(prometheus, 'count(count_over_time(target_info{job=~"two_gateways_.*"}[30m]))') == 10


async def test_loki_stores_all_but_the_bad_records(loki):
    """Too many attributes, and a label that is too long; the others are stored once and counted as delivered."""
    now = time.time_ns()
    request = ExportLogsServiceRequest()
    logs = request.resource_logs.add()
    logs.resource.attributes.add(key="service.name").value.string_value = "bad_records"
    records = logs.scope_logs.add().log_records
    for number in range(40):
        records.add(time_unix_nano=now + number * 1000).body.string_value = f"line {number}"
    for number in range(130):
        records[7].attributes.add(key=f"k{number}").value.string_value = "v"
    records[20].attributes.add(key="long").value.string_value = "x" * 3000
    labels = {"service": "service.name", "long": "long"}
    async with Started(loki_factory, Signal.LOGS, endpoint=loki, labels=labels) as sut:
        await sut.send(Logs.from_wire(request.SerializeToString()))
        assert sum(sut.telemetry.ledger.delivered.values()) == 38
        assert sut.counts("refused") == {"http_400": 2}
    query = 'sum(count_over_time({service="bad_records"}[10m]))'
    (found,) = await ask(f"{loki}/loki/api/v1/query", query=query)
    assert found["value"][1] == "38"


async def test_loki_finds_records_by_the_labels_of_the_collectors_former_exporter(loki):
    """Its dashboards' queries work: by job, instance, exporter and level, and by what a hint made a label."""
    request = ExportLogsServiceRequest()
    logs = request.resource_logs.add()
    attributes = {
        "service.namespace": "shop",
        "service.name": "former",
        "service.instance.id": "i1",
        "loki.resource.labels": "host.name",
        "host.name": "h1",
    }
    for key, value in attributes.items():
        logs.resource.attributes.add(key=key).value.string_value = value
    record = logs.scope_logs.add().log_records.add(time_unix_nano=time.time_ns(), severity_number=9)
    record.body.string_value = "found"
    for key, value in (("host.name", "of the record"), ("service.name", "of the record")):
        record.attributes.add(key=key).value.string_value = value
    endpoint = f"{loki}/loki/api/v1/push"
    async with Started(loki_factory, Signal.LOGS, endpoint=endpoint, default_labels_enabled={}) as sut:
        await sut.send(Logs.from_wire(request.SerializeToString()))
        assert sut.telemetry.ledger.delivered[Signal.LOGS] == 1
    labels = 'job="shop/former", instance="i1", exporter="OTLP", level="INFO", host_name="h1"'
    (found,) = await ask(f"{loki}/loki/api/v1/query_range", query=f"{{{labels}}}")
    assert [line for _, line in found["values"]] == ["found"]
    # Loki shows structured metadata beside the labels; a name that is a label already gets a suffix.
    assert (found["stream"]["service_name_extracted"], found["stream"]["host_name_extracted"]) == ("of the record",) * 2


async def test_series_of_a_vanished_source_end_in_prometheus(prometheus):
    """With ``stale_after``, long before the five minutes of the lookback, and the other series stay."""
    async with Started(
        remote_write_factory, Signal.METRICS, endpoint=f"{prometheus}/api/v1/write", stale_after="1s"
    ) as sut:
        await sut.send(gauges("vanishing", ("stays", time.time_ns()), ("vanishes", time.time_ns())))
        assert await stored(prometheus, "count(vanishing)") == 2
        for _ in range(100):
            await sut.send(gauges("vanishing", ("stays", time.time_ns())))
            if await stored(prometheus, "count(vanishing)") == 1:
                break
            await asyncio.sleep(0.1)
        assert await stored(prometheus, 'count(vanishing{job="stays"})') == 1
        assert await stored(prometheus, 'count(vanishing{job="vanishes"})') == 0
        assert not sut.counts("refused")
