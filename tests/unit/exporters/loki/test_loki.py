"""Pushes to a server that has a size limit of its own."""

import pytest
from aiohttp import web
from limited_server import LimitedServerRig
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest

from collector.model import Logs, Signal
from collector.transport.compression import decompress
from exporters.loki import factory

SECOND = 1_000_000_000


class Rig(LimitedServerRig):
    """Keeps (tenant and stream, time in seconds, line) of every entry it accepts."""

    factory = factory
    signal = Signal.LOGS
    path = "/loki/api/v1/push"

    def __init__(self, push_request, refusal=(413, "nginx"), **config):
        super().__init__(refusal, **config)
        self.push_request = push_request
        self.entries = []

    def accept(self, body, headers):
        tenant = headers.get("X-Scope-OrgID", "")
        self.entries += [
            ((tenant, stream.labels), entry.timestamp.seconds, entry.line)
            for stream in self.push_request.FromString(body).streams
            for entry in stream.entries
        ]


def log_batch(count, *, begin=0, size=200):
    """Records of three services in turns, numbered in time order; each line starts with its number."""
    request = ExportLogsServiceRequest()
    services = []
    for name in ("a", "b", "c"):
        logs = request.resource_logs.add()
        logs.resource.attributes.add(key="service.name").value.string_value = name
        logs.resource.attributes.add(key="tenant").value.string_value = "t-" + name
        services.append(logs.scope_logs.add().log_records)
    for number in range(begin, begin + count):
        record = services[number % 3 if number % 10 else 0].add(time_unix_nano=(1 + number) * SECOND)
        record.body.string_value = f"{number} ".ljust(size, "x")
    return Logs.from_wire(request.SerializeToString())


def numbers(entries):
    return [int(line.split()[0]) for _, _, line in entries]


def assert_in_order(entries):
    times = {}
    for stream, time, _ in entries:
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
async def test_a_batch_that_is_too_large_for_loki_is_sent_in_parts(push_request, refusal, tenant):
    """Each record arrives once, and those of a stream in order; later batches are split beforehand."""
    async with Rig(push_request, refusal, tenant=tenant, sending_queue={"num_consumers": 1}) as rig:
        await rig.send(log_batch(2000))
        assert sorted(numbers(rig.entries)) == list(range(2000))
        assert_in_order(rig.entries)
        assert rig.delivered_count == 2000
        refused_before = len(rig.refused_sizes)
        assert refused_before in range(1, 12)
        await rig.send(log_batch(2000, begin=2000))
        assert sorted(numbers(rig.entries)) == list(range(4000))
        assert_in_order(rig.entries)
        assert len(rig.refused_sizes) == refused_before, "the limit is known by now"
        assert (rig.delivered_count, rig.refused) == (4000, {})
        assert len(rig.telemetry.log.of_level("warning")) == 1


async def test_a_record_that_is_too_large_itself_is_refused_alone(push_request):
    """All other records of its request arrive."""
    async with Rig(push_request, max_line_size=0) as rig:
        request = ExportLogsServiceRequest.FromString(log_batch(600).wire)
        request.resource_logs[1].scope_logs[0].log_records[50].body.string_value = "y" * 2 * rig.limit_bytes
        await rig.send(Logs.from_wire(request.SerializeToString()))
        assert len(set(numbers(rig.entries))) == len(rig.entries) == 599
        assert rig.delivered_count == 599
        assert rig.refused == {"http_413": 1}


class PickyRig(Rig):
    """Answers as Loki does: it stores the good entries of a request, ignores those it has, and then refuses it."""

    async def _handle(self, request):
        body = decompress("snappy", await request.read(), 100_000_000)
        before = set(self.entries)
        self.accept(body, request.headers)
        is_good = [not entry[2].startswith("bad") for entry in self.entries]
        self.entries = [entry for entry in dict.fromkeys(self.entries) if not entry[2].startswith("bad")]
        assert before <= set(self.entries)
        return web.Response(status=204) if all(is_good) else web.Response(status=400, text="line too long")


async def test_a_record_that_loki_refuses_is_refused_alone(push_request):
    """The others are counted as delivered and stored once; the log names the stream of the refused one."""
    async with PickyRig(push_request) as rig:
        request = ExportLogsServiceRequest.FromString(log_batch(600).wire)
        for number in (3, 70):
            request.resource_logs[1].scope_logs[0].log_records[number].body.string_value = f"bad {number}"
        await rig.send(Logs.from_wire(request.SerializeToString()))
        assert len(set(numbers(rig.entries))) == len(rig.entries) == 598
        assert (rig.delivered_count, rig.refused) == (598, {"http_400": 2})
        assert rig.telemetry.log.of_level("error")[0].fields["names"] == '{service="b"}'
