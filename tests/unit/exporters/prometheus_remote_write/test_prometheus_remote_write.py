"""Remote-write against a server on the loopback that has a limit of its own."""

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest

from collector.model import Metrics, Signal
from collector.testing import FakeHost, RecordingTelemetry, eventually, make_settings
from collector.transport.compression import decompress
from exporters.prometheus_remote_write import factory

LIMIT = 100_000
SECOND = 1_000_000_000


class Rig:
    """A server that takes requests of at most LIMIT bytes and says ``refusal`` to larger ones; and an exporter."""

    def __init__(self, write_request, refusal=(413, ""), **config):
        self.write_request = write_request
        self.refusal = refusal
        self.config = config
        self.samples = {}
        self.refused = []

    async def __aenter__(self):
        async def handle(request):
            body = decompress("snappy", await request.read(), 100_000_000)
            if len(body) > LIMIT:
                self.refused.append(len(body))
                return web.Response(status=self.refusal[0], text=self.refusal[1])
            for series in self.write_request.FromString(body).timeseries:
                labels = {label.name: label.value for label in series.labels}
                name = labels.pop("__name__")
                key = name, *sorted(item for item in labels.items() if item[0] in {"i", "le", "instance"})
                self.samples.setdefault(key, []).extend(sample.timestamp for sample in series.samples)
            return web.Response(status=204)

        app = web.Application(client_max_size=100_000_000, handler_args={"auto_decompress": False})
        app.router.add_post("/api/v1/write", handle)
        self.server = TestServer(app)
        await self.server.start_server()
        self.telemetry = RecordingTelemetry()
        config = factory.config_type.model_validate(
            {"endpoint": str(self.server.make_url("/api/v1/write")), **self.config}
        )
        self.exporter = factory.create(
            make_settings(factory, telemetry=self.telemetry, signals={Signal.METRICS}), config
        )
        await self.exporter.start(FakeHost())
        return self

    async def __aexit__(self, *_):
        await self.exporter.shutdown()
        await self.server.close()

    async def take(self, made):
        await self.exporter.consume(Metrics.from_wire(made.SerializeToString()))
        await eventually(lambda: not any(self.exporter.in_flight_items().values()), timeout_s=20)

    def of(self, name):
        """Times of each series of a metric, as they came."""
        return {key[1:]: times for key, times in self.samples.items() if key[0] == name}


def request(*, series, points=2, histograms=0, resources=1, begin_s=1):
    """Gauge series with a few points each, spread over resources, and histogram series."""
    made = ExportMetricsServiceRequest()
    for r in range(resources):
        metrics = made.resource_metrics.add()
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
    return made


@pytest.mark.parametrize(
    "refusal",
    [
        (
            413,
            "the incoming push request has been rejected because its message size of 409600 bytes is larger than the allowed limit",
        ),
        (
            400,
            'error in "/api/v1/write": too big unpacked request; mustn\'t exceed `-maxInsertRequestSize=100000` bytes; got 409600 bytes',
        ),
        (503, "rpc error: code = ResourceExhausted desc = grpc: received message larger than max (409600 vs. 100000)"),
    ],
)
async def test_what_is_too_large_for_the_receiver_goes_in_parts(write_request, refusal):
    """Each sample arrives once, those of a series in order, whatever the shard; what follows is split beforehand."""
    async with Rig(write_request, refusal, remote_write_queue={"num_consumers": 3}) as rig:
        await rig.take(request(series=3000, histograms=200))
        points = 2 * 3200
        assert rig.telemetry.ledger.delivered[Signal.METRICS] == points
        refused_before = len(rig.refused)
        assert refused_before in range(1, 20)
        await rig.take(request(series=3000, histograms=200, begin_s=3))
        assert (rig.telemetry.ledger.delivered[Signal.METRICS], dict(rig.telemetry.ledger.refused)) == (2 * points, {})
        assert len(rig.refused) == refused_before, "the limit is known by now"
        assert len(rig.telemetry.log.of_level("warning")) == 1
        in_order = [1000, 2000, 3000, 4000]
        for name, count in (("g", 3000), ("h_bucket", 600), ("h_sum", 200), ("h_count", 200)):
            found = rig.of(name)
            assert len(found) == count
            assert all(times == in_order for times in found.values()), name


async def test_a_series_that_is_too_large_itself_is_refused_alone(write_request):
    """All others of its request arrive."""
    async with Rig(write_request, target_info={"enabled": False}) as rig:
        made = request(series=500)
        gauge = made.resource_metrics[0].scope_metrics[0].metrics[0].gauge
        for p in range(10_000):
            gauge.data_points.add(time_unix_nano=(1 + p) * SECOND, as_int=p).attributes.add(
                key="i"
            ).value.int_value = 1000
        await rig.take(made)
        found = rig.of("g")
        assert len(found) == 500
        assert all(times == [1000, 2000] for times in found.values())
        assert rig.telemetry.ledger.delivered[Signal.METRICS] == 1000
        assert rig.telemetry.ledger.refused == {(Signal.METRICS, "http_413"): 10_000}


async def test_target_info_counts_for_the_limit(write_request):
    """However many resources a batch has, their target_info arrives and keeps no point from being taken."""
    async with Rig(write_request) as rig:
        for begin_s in (1, 3):
            await rig.take(request(series=1000, resources=1000, begin_s=begin_s))
        assert (rig.telemetry.ledger.delivered[Signal.METRICS], dict(rig.telemetry.ledger.refused)) == (4000, {})
        assert [len(times) for times in rig.of("target_info").values()] == [2] * 1000
        assert [len(times) for times in rig.of("g").values()] == [4] * 1000


async def test_a_refusal_for_another_reason_is_not_tried_in_parts(write_request):
    """A label value with the words of a size limit does not make one."""
    said = "label value too long, label: 'x', value: 'request body too large'"
    async with Rig(write_request, (400, said), remote_write_queue={"num_consumers": 1}) as rig:
        await rig.take(request(series=3000, points=1))
        assert len(rig.refused) == 1
        assert rig.telemetry.ledger.refused == {(Signal.METRICS, "http_400"): 3000}
