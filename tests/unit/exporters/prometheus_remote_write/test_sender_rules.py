"""Each MUST and SHOULD of the remote-write specifications 1.0 and 2.0 for senders, by its section.

The rules about the content of requests are in ``tests/support/remote_write_rules.py``. Statuses that are sent again are
tested for all exporters in ``tests/contract/test_retryable_statuses.py``.
"""

import asyncio
import contextlib

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from remote_write_rules import check_v1, check_v2

from collector.model import Metrics, Signal
from collector.testing import FakeHost, eventually, make_settings
from collector.transport.compression import decompress
from exporters.prometheus_remote_write import factory

V1_MESSAGE, V2_MESSAGE = "prometheus.WriteRequest", "io.prometheus.write.v2.Request"
WRITTEN = {"X-Prometheus-Remote-Write-Samples-Written": "1"}
BASE_NS = 1_700_000_000 * 10**9


class Receiver:
    """Answers with what ``answer(version)`` returns: status and headers. ``requests`` has what it was sent."""

    def __init__(self, write_request, write_request_v2):
        self._messages = write_request, write_request_v2
        self.requests = []
        self.found = []
        self.answer = lambda _: (204, WRITTEN)
        self.concurrent = {}
        self.most_concurrent = 0
        self.gate = None

    async def handle(self, request):
        body = decompress("snappy", await request.read(), 1 << 24)
        is_v2 = "proto=io.prometheus.write.v2.Request" in request.headers["Content-Type"]
        status, headers = self.answer(2 if is_v2 else 1)
        message = self._messages[is_v2].FromString(body)
        found = check_v2(message) if is_v2 else check_v1(message)
        self.requests.append((2 if is_v2 else 1, dict(request.headers), found, status))
        for labels in found:
            self.concurrent[labels] = self.concurrent.get(labels, 0) + 1
            self.most_concurrent = max(self.most_concurrent, self.concurrent[labels])
        await asyncio.sleep(0)
        for labels in found:
            self.concurrent[labels] -= 1
        return web.Response(status=status, headers=headers)

    def times(self):
        """The times of the samples of each series that were accepted, in the order of arrival."""
        found = {}
        for _, _, series, status in self.requests:
            for labels, one in series.items() if status == 204 else ():
                found.setdefault(labels, []).extend(time for _, time, _ in one.samples)
        return found


@pytest.fixture
def receiver(write_request, write_request_v2):
    return Receiver(write_request, write_request_v2)


@contextlib.asynccontextmanager
async def exporter(receiver, **keys):
    application = web.Application(client_max_size=1 << 24, handler_args={"auto_decompress": False})
    application.router.add_post("/", receiver.handle)
    async with TestServer(application) as server:
        config = {"endpoint": str(server.make_url("/")), "retry_on_failure": {"initial_interval": "1ms"}} | keys
        settings = make_settings(factory, signals={Signal.METRICS})
        sut = factory.create(settings, factory.config_type.model_validate(config))
        await sut.start(FakeHost())
        try:
            yield sut
        finally:
            await sut.shutdown()


def gauges(count=1, *, time_s=0, points=1):
    made = ExportMetricsServiceRequest()
    resource = made.resource_metrics.add()
    for key in ("service.name", "host.name"):
        resource.resource.attributes.add(key=key).value.string_value = "api"
    gauge = resource.scope_metrics.add().metrics.add(name="g").gauge
    for p in range(points):
        for i in range(count):
            point = gauge.data_points.add(time_unix_nano=BASE_NS + (time_s + p) * 10**9, as_int=i)
            point.attributes.add(key="i").value.int_value = i
    return Metrics.from_wire(made.SerializeToString())


async def send(sut, *batches):
    """Wait until they are settled; the clock goes on, so that requests are sent again."""
    for batch in batches:
        await sut.consume(batch)
    async with asyncio.timeout(30):
        while sum(sut.in_flight_items().values()):
            await sut.settings.clock.advance(1)


@pytest.mark.parametrize("message", [V1_MESSAGE, V2_MESSAGE])
async def test_protocol_requests_have_the_required_headers(receiver, message):
    """1.0 Protocol, 2.0 Required Headers: POST, snappy's block format, content type, user agent, version."""
    async with exporter(receiver, protobuf_message=message) as sut:
        await send(sut, gauges())
        await eventually(lambda: receiver.requests)
    version, headers, _, _ = receiver.requests[0]
    assert version == (2 if message == V2_MESSAGE else 1)
    assert headers["Content-Encoding"] == "snappy"
    expected = "application/x-protobuf" + (f";proto={V2_MESSAGE}" if version == 2 else "")
    assert headers["Content-Type"] == expected
    assert headers["X-Prometheus-Remote-Write-Version"] == ("2.0.0" if version == 2 else "0.1.0")
    assert headers["User-Agent"]


@pytest.mark.parametrize(
    "name", ["Content-Encoding", "Content-Type", "User-Agent", "X-Prometheus-Remote-Write-Version", "Host"]
)
def test_protocol_users_cannot_override_the_headers(name):
    """1.0 and 2.0: senders must not let users set them."""
    with pytest.raises(ValueError, match=f"{name} cannot be configured"):
        factory.config_type.model_validate({"endpoint": "http://localhost:1/", "headers": {name: "x"}})


@pytest.mark.parametrize("message", [V1_MESSAGE, V2_MESSAGE])
async def test_ordering_samples_of_a_series_are_sent_in_order_and_never_in_parallel(receiver, message):
    """1.0 Ordering, 2.0 Ordering: also while requests fail and are sent again, from several shards."""
    failures = iter([503] * 3)
    receiver.answer = lambda _: (next(failures, 204), WRITTEN)
    async with exporter(
        receiver, protobuf_message=message, max_batch_size_bytes=20_000, target_info={"enabled": False}
    ) as sut:
        await send(sut, *(gauges(3000, time_s=2 * i, points=2) for i in range(3)))
    times = receiver.times()
    assert len(times) == 3000
    begin = BASE_NS // 10**6
    assert set(map(tuple, times.values())) == {tuple(begin + 1000 * i for i in range(6))}
    assert receiver.most_concurrent == 1


@pytest.mark.parametrize("message", [V1_MESSAGE, V2_MESSAGE])
async def test_retries_server_errors_are_sent_again_and_client_errors_are_not(receiver, message):
    """1.0 Retries & Backoff, 2.0 Retries: 5xx must be retried, 4xx must not."""
    answers = iter([500, 503, 429, 204, 404])
    receiver.answer = lambda _: (next(answers), WRITTEN)
    async with exporter(receiver, protobuf_message=message, target_info={"enabled": False}) as sut:
        await send(sut, gauges())
        assert [status for *_, status in receiver.requests] == [500, 503, 429, 204]
        await send(sut, gauges(time_s=1))
        assert [status for *_, status in receiver.requests][4:] == [404]
        assert sut.settings.telemetry.ledger.refused == {(Signal.METRICS, "http_404"): 1}


@pytest.mark.parametrize("refusal", [(415, {}), (204, {})], ids=["415", "no Written header"])
async def test_compatibility_receivers_of_version_1_get_version_1(receiver, refusal):
    """2.0 Backward Compatibility, Required Written Response Headers: a 2xx without them means nothing was stored."""
    receiver.answer = lambda version: refusal if version == 2 else (204, {})
    async with exporter(receiver, protobuf_message=V2_MESSAGE, send_metadata=True) as sut:
        await send(sut, gauges(5))
        await send(sut, gauges(5, time_s=1))
        await eventually(lambda: len(receiver.requests) >= 4)
        versions = [version for version, *_ in receiver.requests]
        assert versions[0] == 2
        assert set(versions[1:]) == {1}, "it is not tried again with every request"
        ledger = sut.settings.telemetry.ledger
        assert (ledger.delivered[Signal.METRICS], dict(ledger.refused), dict(ledger.dropped)) == (10, {}, {})
        assert len(sut.settings.telemetry.log.of_level("warning")) == 1
        await sut.settings.clock.advance(3601)
        receiver.answer = lambda _: (204, WRITTEN)
        await send(sut, gauges(5, time_s=2))
        assert receiver.requests[-1][0] == 2, "after an hour"
    samples = [labels for labels, times in receiver.times().items() if dict(labels)["__name__"] == "g"]
    assert len(samples) == 5


@pytest.mark.parametrize("status", [400, 500])
async def test_compatibility_other_errors_do_not_change_the_version(receiver, status):
    """2.0: only 415 says that the version is not understood."""
    answers = iter([status])
    receiver.answer = lambda _: (next(answers, 204), WRITTEN)
    async with exporter(receiver, protobuf_message=V2_MESSAGE, target_info={"enabled": False}) as sut:
        await send(sut, gauges())
        await send(sut, gauges(time_s=1))
    assert {version for version, *_ in receiver.requests} == {2}


async def test_metadata_of_version_2_is_sent_without_being_asked_for(receiver):
    """2.0 SHOULD: and not in requests of its own, which would have no series."""
    async with exporter(receiver, protobuf_message=V2_MESSAGE, send_metadata=True) as sut:
        await send(sut, gauges())
        await eventually(lambda: len(receiver.requests) == 2)
    assert all(series.metadata[0] == 2 for _, _, found, _ in receiver.requests for series in found.values())
