"""Remote write to a server that has a size limit of its own."""

import pytest
from aiohttp import web
from limited_server import LimitedServerRig
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest

from collector.model import Metrics, Signal
from collector.testing import make_settings
from collector.transport.compression import decompress
from exporters.prometheus_remote_write import factory
from exporters.prometheus_remote_write.config import PrometheusRemoteWriteConfig

SECOND = 1_000_000_000


class Rig(LimitedServerRig):
    """Keeps the sample times of every series it accepts, in the order of arrival."""

    factory = factory
    signal = Signal.METRICS
    path = "/api/v1/write"

    def __init__(self, write_request, refusal=(413, ""), **config):
        super().__init__(refusal, **config)
        self.write_request = write_request
        self.samples = {}

    def accept(self, body, headers):
        for series in self.write_request.FromString(body).timeseries:
            labels = {label.name: label.value for label in series.labels}
            name = labels.pop("__name__")
            key = name, *sorted(item for item in labels.items() if item[0] in {"i", "le", "instance"})
            self.samples.setdefault(key, []).extend(sample.timestamp for sample in series.samples)

    def times_of(self, name):
        """The sample times of each series of a metric."""
        return {key[1:]: times for key, times in self.samples.items() if key[0] == name}


def metric_batch(*, series, points=2, histograms=0, resources=1, begin_s=1):
    """Gauge series with a few points each, spread over resources, and histogram series."""
    request = ExportMetricsServiceRequest()
    for r in range(resources):
        metrics = request.resource_metrics.add()
        for key, value in (("service.name", "api"), ("service.instance.id", str(r)), ("host.name", "h" * 300)):
            metrics.resource.attributes.add(key=key).value.string_value = value
        kinds = metrics.scope_metrics.add().metrics
        gauge, histogram = kinds.add(name="g").gauge, kinds.add(name="h").histogram
        histogram.aggregation_temporality = 2
        for p in range(points):
            for i in range(r, series, resources):
                gauge.data_points.add(time_unix_nano=(begin_s + p) * SECOND, as_int=i).attributes.add(
                    key="i"
                ).value.int_value = i
            for i in range(r, histograms, resources):
                point = histogram.data_points.add(time_unix_nano=(begin_s + p) * SECOND, count=3, sum=3)
                point.explicit_bounds.extend((1, 2))
                point.bucket_counts.extend((1, 1, 1))
                point.attributes.add(key="i").value.int_value = i
    return Metrics.from_wire(request.SerializeToString())


TOO_LARGE = {
    "mimir": (
        413,
        (
            "the incoming push request has been rejected because its message size of 409600 bytes "
            "is larger than the allowed limit"
        ),
    ),
    "victoriametrics": (
        400,
        (
            'error in "/api/v1/write": too big unpacked request; '
            "mustn't exceed `-maxInsertRequestSize=100000` bytes; got 409600 bytes"
        ),
    ),
    "grpc": (
        503,
        "rpc error: code = ResourceExhausted desc = grpc: received message larger than max (409600 vs. 100000)",
    ),
}


@pytest.mark.parametrize("refusal", TOO_LARGE.values(), ids=TOO_LARGE)
async def test_a_batch_that_is_too_large_for_the_receiver_is_sent_in_parts(write_request, refusal):
    """Each sample arrives once, those of a series in order in whatever shard; later batches are split beforehand."""
    async with Rig(write_request, refusal, remote_write_queue={"num_consumers": 3}) as rig:
        await rig.send(metric_batch(series=3000, histograms=200))
        points = 2 * 3200
        assert rig.delivered_count == points
        refused_before = len(rig.refused_sizes)
        assert refused_before in range(1, 20)
        await rig.send(metric_batch(series=3000, histograms=200, begin_s=3))
        assert (rig.delivered_count, rig.refused) == (2 * points, {})
        assert len(rig.refused_sizes) == refused_before, "the limit is known by now"
        assert len(rig.telemetry.log.of_level("warning")) == 1
        in_order = [1000, 2000, 3000, 4000]
        for name, count in (("g", 3000), ("h_bucket", 600), ("h_sum", 200), ("h_count", 200)):
            found = rig.times_of(name)
            assert len(found) == count
            assert all(times == in_order for times in found.values()), name


async def test_a_series_that_is_too_large_itself_is_refused_alone(write_request):
    """All other series of its request arrive."""
    async with Rig(write_request, target_info={"enabled": False}) as rig:
        request = ExportMetricsServiceRequest.FromString(metric_batch(series=500).wire)
        gauge = request.resource_metrics[0].scope_metrics[0].metrics[0].gauge
        for p in range(10_000):
            gauge.data_points.add(time_unix_nano=(1 + p) * SECOND, as_int=p).attributes.add(
                key="i"
            ).value.int_value = 1000
        await rig.send(Metrics.from_wire(request.SerializeToString()))
        found = rig.times_of("g")
        assert len(found) == 500
        assert all(times == [1000, 2000] for times in found.values())
        assert rig.delivered_count == 1000
        assert rig.refused == {"http_413": 10_000}


async def test_target_info_counts_towards_the_limit(write_request):
    """However many resources a batch has, their target_info arrives and displaces no point."""
    async with Rig(write_request) as rig:
        for begin_s in (1, 63):
            await rig.send(metric_batch(series=1000, resources=1000, begin_s=begin_s))
        assert (rig.delivered_count, rig.refused) == (4000, {})
        assert [len(times) for times in rig.times_of("target_info").values()] == [2] * 1000
        assert [len(times) for times in rig.times_of("g").values()] == [4] * 1000


async def test_words_of_a_size_limit_in_a_label_value_do_not_lower_the_limit(write_request):
    """The request is halved, as after any refusal, and later ones have their full size."""
    answer = "label value too long, label: 'x', value: 'request body too large'"
    async with Rig(write_request, (400, answer), remote_write_queue={"num_consumers": 1}) as rig:
        await rig.send(metric_batch(series=3000, points=1))
        assert rig.refused == {}
        assert rig.exporter.max_request_bytes == 3_000_000


class PickyRig(Rig):
    """Answers as Prometheus does: 400 for a request with a sample it does not take, of which it then stores nothing."""

    answer = ""

    def __init__(self, write_request, refuses, **config):
        super().__init__(write_request, (400, ""), **config)
        self.refuses = refuses
        self.request_count = 0
        self.newest = {}

    async def _handle(self, request):
        body = decompress("snappy", await request.read(), 100_000_000)
        self.request_count += 1
        newest = dict(self.newest)
        for series in self.write_request.FromString(body).timeseries:
            labels = tuple((label.name, label.value) for label in series.labels)
            for sample in series.samples:
                if sample.timestamp < newest.get(labels, 0):
                    return web.Response(status=400, text="out of order sample")
                if self.refuses(dict(labels), sample):
                    return web.Response(status=400, text="out of bounds")
                newest[labels] = sample.timestamp
        self.newest = newest
        self.accept(body, request.headers)
        return web.Response(status=204)


def gauges(*samples, service="api"):
    """One series per number: (number, time in seconds)."""
    request = ExportMetricsServiceRequest()
    metrics = request.resource_metrics.add()
    for key, value in (("service.name", service), ("host.name", "h")):
        metrics.resource.attributes.add(key=key).value.string_value = value
    gauge = metrics.scope_metrics.add().metrics.add(name="g").gauge
    for number, time_s in samples:
        gauge.data_points.add(time_unix_nano=int(time_s * SECOND), as_int=number).attributes.add(
            key="i"
        ).value.int_value = number
    return Metrics.from_wire(request.SerializeToString())


async def test_a_sample_without_a_time_costs_only_itself(write_request):
    """Nor does one that is days ahead. Both are counted with a reason and named in the log."""
    async with PickyRig(write_request, lambda labels, sample: False) as rig:
        await rig.send(gauges(*((i, 100) for i in range(20)), (20, 0), (21, 1_700_000_000 + 90_000)))
        assert rig.delivered_count == 20
        assert rig.telemetry.ledger.dropped == {
            (Signal.METRICS, "no_timestamp"): 1,
            (Signal.METRICS, "future_timestamp"): 1,
        }
        lines = [line.fields for line in rig.telemetry.log.of_level("warning")]
        assert [(line["reason"], line["points"], line["metrics"]) for line in lines] == [
            ("no_timestamp", 1, "g of api"),
            ("future_timestamp", 1, "g of api"),
        ]


async def test_a_sample_that_the_receiver_refuses_costs_only_itself(write_request):
    """Even among the samples of one series: its request is cut by time. The log names the series."""
    async with PickyRig(write_request, lambda labels, sample: sample.timestamp == 7000) as rig:
        await rig.send(gauges(*((i, 100) for i in range(50)), *((50, time_s) for time_s in range(1, 20))))
        assert rig.delivered_count == 68
        assert rig.refused == {"http_400": 1}
        assert rig.times_of("g")[(("i", "50"),)] == [1000 * t for t in range(1, 20) if t != 7]
        assert rig.telemetry.log.of_level("error")[0].fields["names"] == 'g{i="50", job="api"}'


async def test_what_a_receiver_refuses_as_out_of_order_is_sorted_out_afterwards(write_request):
    """It is learned from the first refusal, because others accept samples out of order; an exact repetition is sent."""
    async with PickyRig(write_request, lambda labels, sample: False, target_info={"enabled": False}) as rig:
        await rig.send(gauges(*((i, 100) for i in range(20))))
        await rig.send(gauges((3, 99), *((i, 101) for i in range(10, 20))))
        assert rig.refused == {"http_400": 1}
        before = rig.request_count
        await rig.send(gauges((3, 100), (4, 99), (5, 98), *((i, 102) for i in range(10, 20))))
        assert rig.request_count == before + 1
        assert rig.delivered_count == 20 + 10 + 11
        assert rig.telemetry.ledger.dropped == {(Signal.METRICS, "out_of_order"): 2}


async def test_refused_samples_do_not_count_as_sent(write_request):
    """A sample of the future that is refused does not make later ones look old."""
    now_s = 1_700_000_000
    async with PickyRig(
        write_request, lambda labels, sample: sample.timestamp > (now_s + 600) * 1000, target_info={"enabled": False}
    ) as rig:
        await rig.send(gauges((1, now_s), (2, now_s + 3000)))
        await rig.send(gauges((1, now_s - 1), (2, now_s + 1), (3, now_s + 3000)))
        await rig.send(gauges((1, now_s + 2), (2, now_s + 2), (3, now_s + 2)))
        assert len(rig.times_of("g")[(("i", "2"),)]) == 2
        assert rig.refused == {"http_400": 2}, "the first of the future, the first out of order"
        assert rig.telemetry.ledger.dropped == {(Signal.METRICS, "future_timestamp"): 1}


async def test_target_info_cannot_cost_a_sample(write_request):
    """Another gateway may have sent a newer one: the receiver refuses ours, and every point is stored."""
    async with PickyRig(write_request, lambda labels, sample: labels["__name__"] == "target_info") as rig:
        await rig.send(gauges(*((i, 100) for i in range(20))))
        assert (rig.delivered_count, rig.refused) == (20, {})
        assert rig.telemetry.log.of_level("error") == []


async def test_target_info_is_sent_once_a_minute_whatever_the_clocks(write_request):
    """A point of the future does not silence it for longer than ten minutes."""
    now_s = 1_700_000_000
    async with PickyRig(write_request, lambda labels, sample: False) as rig:
        for time_s in (now_s, now_s + 10, now_s + 59, now_s + 80_000, now_s + 61):
            await rig.send(gauges((int(time_s), time_s)))
        (times,) = rig.times_of("target_info").values()
        assert times == [now_s * 1000, (now_s + 61) * 1000]


@pytest.mark.parametrize(
    "name", ["User-Agent", "host", "Content-Encoding", "content-type", "X-Prometheus-Remote-Write-Version"]
)
def test_reserved_headers_cannot_be_configured(name):
    """The specification: senders must not let users set them."""
    config = {"endpoint": "http://localhost:9090/api/v1/write", "headers": {name: "x"}}
    with pytest.raises(ValueError, match=f"{name} cannot be configured"):
        factory.config_type.model_validate(config)


@pytest.mark.parametrize("limit", [1_000_000, 300])
def test_each_part_knows_the_rows_of_its_samples(write_request, limit, monkeypatch):
    """Over series of several samples, histograms, shards and requests."""
    monkeypatch.setattr("exporters.prometheus_remote_write.prometheus_remote_write._POINTS_PER_SHARD", 20)
    batch = metric_batch(series=30, points=3, histograms=10, resources=2)
    config = PrometheusRemoteWriteConfig.model_validate(
        {"endpoint": "http://localhost:1/api/v1/write", "max_batch_size_bytes": limit,
         "remote_write_queue": {"num_consumers": 3}}
    )  # fmt: skip
    sut = factory.create(make_settings(factory, signals={Signal.METRICS}), config)
    parts = [part for part in sut.encode(batch) if part.item_count]
    times, names = batch.field("time_unix_nano") // 1_000_000, batch.field("name", "metrics")
    metric_of = batch.table().parent
    for part in parts:
        rows = part.rows.tolist()
        assert len(rows) == part.item_count
        expected = [(names.distinct[names.codes[metric_of[row]]], int(times[row])) for row in rows]
        sent = [
            (label.value.removesuffix("_count"), sample.timestamp)
            for series in write_request.FromString(part.payload.body).timeseries
            for label in series.labels
            if label.name == "__name__" and (label.value == "g" or label.value == "h_count")
            for sample in series.samples
        ]
        assert sorted(sent) == sorted(expected)
    assert sorted(row for part in parts for row in part.rows.tolist()) == list(range(batch.item_count))
