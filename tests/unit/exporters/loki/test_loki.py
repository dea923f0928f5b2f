"""Pushes against a server on the loopback that has a limit of its own."""

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest

from collector.model import Logs, Signal
from collector.testing import FakeHost, RecordingTelemetry, eventually, make_settings
from collector.transport.compression import decompress
from exporters.loki import factory

LIMIT = 100_000
SECOND = 1_000_000_000


class Rig:
    """A server that takes requests of at most LIMIT bytes and says ``refusal`` to larger ones; and an exporter."""

    def __init__(self, push_request, refusal=(413, "nginx"), **config):
        self.push_request = push_request
        self.refusal = refusal
        self.config = config
        self.taken = []
        self.refused = []

    async def __aenter__(self):
        async def handle(request):
            body = decompress("snappy", await request.read(), 100_000_000)
            if len(body) > LIMIT:
                self.refused.append(len(body))
                return web.Response(status=self.refusal[0], text=self.refusal[1])
            tenant = request.headers.get("X-Scope-OrgID", "")
            self.taken += [
                ((tenant, stream.labels), entry.timestamp.seconds, entry.line)
                for stream in self.push_request.FromString(body).streams
                for entry in stream.entries
            ]
            return web.Response(status=204)

        app = web.Application(client_max_size=100_000_000, handler_args={"auto_decompress": False})
        app.router.add_post("/loki/api/v1/push", handle)
        self.server = TestServer(app)
        await self.server.start_server()
        self.telemetry = RecordingTelemetry()
        config = factory.config_type.model_validate({"endpoint": str(self.server.make_url("")), **self.config})
        self.exporter = factory.create(make_settings(factory, telemetry=self.telemetry, signals={Signal.LOGS}), config)
        await self.exporter.start(FakeHost())
        return self

    async def __aexit__(self, *_):
        await self.exporter.shutdown()
        await self.server.close()

    async def take(self, made):
        await self.exporter.consume(Logs.from_wire(made.SerializeToString()))
        await eventually(lambda: not any(self.exporter.in_flight_items().values()), timeout_s=20)


def request(count, *, begin=0, size=200):
    """Records of three services by turns, numbered in time order, the number in front of each line."""
    made = ExportLogsServiceRequest()
    services = []
    for name in ("a", "b", "c"):
        logs = made.resource_logs.add()
        logs.resource.attributes.add(key="service.name").value.string_value = name
        logs.resource.attributes.add(key="tenant").value.string_value = "t-" + name
        services.append(logs.scope_logs.add().log_records)
    for number in range(begin, begin + count):
        record = services[number % 3 if number % 10 else 0].add(time_unix_nano=(1 + number) * SECOND)
        record.body.string_value = f"{number} ".ljust(size, "x")
    return made


def numbers(taken):
    return [int(line.split()[0]) for _, _, line in taken]


def assert_in_order(taken):
    times = {}
    for stream, time, _ in taken:
        assert time > times.get(stream, -1)
        times[stream] = time


@pytest.mark.parametrize(
    "refusal",
    [
        (413, "<html>413 Request Entity Too Large</html>"),
        (400, "received message larger than max (409600 vs 100000)"),
        (
            500,
            "rpc error: code = ResourceExhausted desc = grpc: received message larger than max (409600 vs. 100000)\n",
        ),
    ],
)
@pytest.mark.parametrize("tenant", [{}, {"attribute": "tenant"}])
async def test_what_is_too_large_for_loki_goes_in_parts(push_request, refusal, tenant):
    """Each record arrives once, those of a stream in order; what follows is split beforehand."""
    async with Rig(push_request, refusal, tenant=tenant, sending_queue={"num_consumers": 1}) as rig:
        await rig.take(request(2000))
        assert sorted(numbers(rig.taken)) == list(range(2000))
        assert_in_order(rig.taken)
        assert rig.telemetry.ledger.delivered[Signal.LOGS] == 2000
        refused_before = len(rig.refused)
        assert refused_before in range(1, 12)
        await rig.take(request(2000, begin=2000))
        assert sorted(numbers(rig.taken)) == list(range(4000))
        assert_in_order(rig.taken)
        assert len(rig.refused) == refused_before, "the limit is known by now"
        assert (rig.telemetry.ledger.delivered[Signal.LOGS], dict(rig.telemetry.ledger.refused)) == (4000, {})
        assert len(rig.telemetry.log.of_level("warning")) == 1


async def test_a_record_that_is_too_large_itself_is_refused_alone(push_request):
    """All others of its request arrive."""
    async with Rig(push_request, max_line_size=0) as rig:
        made = request(600)
        made.resource_logs[1].scope_logs[0].log_records[50].body.string_value = "y" * 2 * LIMIT
        await rig.take(made)
        assert len(set(numbers(rig.taken))) == len(rig.taken) == 599
        assert rig.telemetry.ledger.delivered[Signal.LOGS] == 599
        assert rig.telemetry.ledger.refused == {(Signal.LOGS, "http_413"): 1}


async def test_a_refusal_for_another_reason_is_not_tried_in_parts(push_request):
    """Loki stores the good entries of a request it answers with 400: parts of it would be stored twice."""
    said = "entry for stream '{app=\"request body too large\"}' has timestamp too old"
    async with Rig(push_request, (400, said)) as rig:
        await rig.take(request(2000))
        assert len(rig.refused) == 1
        assert rig.telemetry.ledger.refused == {(Signal.LOGS, "http_400"): 2000}
