"""Remote write to a server that has a size limit of its own."""

import pytest
from limited_server import LimitedServerRig
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest

from collector.model import Metrics, Signal
from collector.testing import make_settings
from exporters.prometheus_remote_write import factory

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
    """All others of its request arrive."""
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
        for begin_s in (1, 3):
            await rig.send(metric_batch(series=1000, resources=1000, begin_s=begin_s))
        assert (rig.delivered_count, rig.refused) == (4000, {})
        assert [len(times) for times in rig.times_of("target_info").values()] == [2] * 1000
        assert [len(times) for times in rig.times_of("g").values()] == [4] * 1000


async def test_a_batch_refused_for_another_reason_is_not_sent_in_parts(write_request):
    """A label value that contains the words of a size limit is not mistaken for one."""
    answer = "label value too long, label: 'x', value: 'request body too large'"
    async with Rig(write_request, (400, answer), remote_write_queue={"num_consumers": 1}) as rig:
        await rig.send(metric_batch(series=3000, points=1))
        assert len(rig.refused_sizes) == 1
        assert rig.refused == {"http_400": 3000}


@pytest.mark.parametrize(
    "name", ["User-Agent", "host", "Content-Encoding", "content-type", "X-Prometheus-Remote-Write-Version"]
)
def test_reserved_headers_cannot_be_configured(name):
    """The specification: senders must not let users set them."""
    config = {"endpoint": "http://localhost:9090/api/v1/write", "headers": {name: "x"}}
    with pytest.raises(ValueError, match=f"::headers: {name} cannot be configured"):
        factory.create(make_settings(factory), factory.config_type.model_validate(config))
