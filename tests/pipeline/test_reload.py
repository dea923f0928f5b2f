"""Reload while clients send: nothing is refused or lost, whatever has changed, and nothing is left behind."""

import asyncio
import socket
from collections import Counter
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp
import grpc
import pytest
from aiohttp import web
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from collector.registry import Registry
from collector.service import Service
from collector.testing import eventually, free_port, traces
from config.load import load

METHOD = "/opentelemetry.proto.collector.trace.v1.TraceService/Export"
SPANS = 5
_PAUSE_S = 0.04  # between the requests of a client

CONFIG = """
receivers:
  otlp:
    protocols:
      grpc: {{endpoint: "127.0.0.1:{grpc}", transport: {transport}, max_recv_msg_size_mib: {receiver}}}
      http: {{endpoint: "{host}:{http}", max_request_body_size: {receiver}000000}}
processors: {{batch: {{timeout: {batch}ms, send_batch_size: 50}}, memory_limiter: {{check_interval: 1s, limit_mib: 4000}}}}
exporters:
  otlp_http: {{endpoint: "http://127.0.0.1:{backend}", timeout: {exporter}s, compression: none}}
  otlp_http/b: {{endpoint: "http://127.0.0.1:{backend}/b", compression: none}}
service:
  shutdown_timeout: 20s
  telemetry: {{metrics: {{level: none}}}}
  pipelines:
    traces: {{receivers: [otlp], processors: [{processors}], exporters: [{exporters}]}}
"""


class Rig:
    """A service with real components, a slow backend, and clients that send less than it can take.

    Otherwise exporters that a reload replaces would have more to send than they may before they are ended.
    """

    def __init__(self) -> None:
        self.values = {
            "grpc": free_port(), "http": free_port(), "host": "127.0.0.1", "transport": "tcp", "backend": 0, "receiver": 4, "batch": 20,
            "exporter": 5, "processors": "memory_limiter, batch", "exporters": "otlp_http",
        }  # fmt: skip
        self.registry = Registry()
        self.delivered: Counter[str] = Counter()
        self.accepted: Counter[str] = Counter()
        self.failed: list[str] = []
        self.latency_s = 0.1
        self.service: Service | None = None
        self.stopping = False
        self.wire = traces(spans=SPANS).wire

    def config(self, **changes):
        self.values |= changes
        return load([f"yaml:{CONFIG.format(**self.values)}"], (), self.registry)

    async def reload(self, **changes):
        assert await self.service.reload(self.config(**changes))

    async def _receive(self, request: web.Request) -> web.Response:
        body = await request.read()
        await asyncio.sleep(self.latency_s)
        message = ExportTraceServiceRequest.FromString(body)
        name = "b" if request.path.startswith("/b/") else "a"
        self.delivered[name] += sum(
            len(scope.spans) for resource in message.resource_spans for scope in resource.scope_spans
        )
        return web.Response(content_type="application/x-protobuf")

    @asynccontextmanager
    async def running(self, **changes):
        app = web.Application(client_max_size=1 << 26)
        app.router.add_post("/v1/traces", self._receive)
        app.router.add_post("/b/v1/traces", self._receive)
        runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        self.service = Service(self.config(backend=runner.addresses[0][1], **changes))
        await self.service.start()
        try:
            yield self.service
        finally:
            await self.service.shutdown()
            await runner.cleanup()
            assert self.service.ledger.imbalances() == []

    async def _send(self, kind, once) -> None:
        while not self.stopping:
            try:
                await once()
            except (OSError, aiohttp.ClientError, grpc.aio.AioRpcError) as error:
                self.failed.append(f"{kind}: {error!r}")
            else:
                self.accepted[kind] += SPANS
            await asyncio.sleep(_PAUSE_S)

    async def post(self, session) -> None:
        url = f"http://127.0.0.1:{self.values['http']}/v1/traces"
        async with session.post(url, data=self.wire, headers={"Content-Type": "application/x-protobuf"}) as response:
            response.raise_for_status()

    @asynccontextmanager
    async def load(self):
        """Clients over gRPC and HTTP, with connections that stay open and with a new one for each request."""
        address = f"127.0.0.1:{self.values['grpc']}"
        options = [("grpc.use_local_subchannel_pool", 1)]

        async def over_new_channel() -> None:
            async with grpc.aio.insecure_channel(address, options=options) as channel:
                await channel.unary_unary(METHOD)(self.wire, timeout=20)

        self.stopping = False
        async with (
            grpc.aio.insecure_channel(address, options=options) as channel,
            aiohttp.ClientSession() as kept,
            aiohttp.ClientSession(connector=aiohttp.TCPConnector(force_close=True)) as renewed,
        ):
            clients = {
                "grpc": lambda: channel.unary_unary(METHOD)(self.wire, timeout=20),
                "grpc, new": over_new_channel,
                "http": lambda: self.post(kept),
                "http, new": lambda: self.post(renewed),
            }
            tasks = [asyncio.ensure_future(self._send(kind, once)) for kind, once in clients.items() for _ in range(3)]
            await eventually(lambda: len(self.accepted) == len(clients))
            try:
                yield
            finally:
                self.stopping = True
                await asyncio.gather(*tasks)

    async def progress(self) -> None:
        """Return when each kind of client was answered again."""
        before = Counter(self.accepted)
        await eventually(lambda: self.failed or all(self.accepted[kind] > count for kind, count in before.items()))


@pytest.fixture
def rig() -> Rig:
    return Rig()


CHANGES = {
    "nothing": [{}],
    "receiver": [{"receiver": 5}, {"receiver": 6}],
    "exporter": [{"exporter": 6}, {"exporter": 7}],
    "processor": [{"batch": 30}, {"batch": 40}],
    "pipeline": [{"processors": "batch"}, {"processors": "memory_limiter"}, {"processors": "memory_limiter, batch"}],
    "everything": [
        {"receiver": 5, "exporter": 6, "batch": 30},
        {"receiver": 6, "exporter": 7, "batch": 40, "processors": "batch"},
    ],
    "host": [{"host": "0.0.0.0"}, {"host": "127.0.0.1"}],
}


@pytest.mark.timeout(120)
@pytest.mark.parametrize("change", CHANGES)
async def test_no_request_is_refused_and_nothing_is_lost(rig, change):
    """Twelve reloads under load with a slow backend: all requests are accepted, and each item is delivered once."""
    async with rig.running() as service, rig.load():
        for number in range(12):
            await rig.reload(**CHANGES[change][number % len(CHANGES[change])])
            assert service.ready()
            await rig.progress()
    assert not rig.failed, rig.failed
    assert rig.delivered == {"a": sum(rig.accepted.values())}


def open_descriptors() -> int:
    return sum(1 for _ in Path("/proc/self/fd").iterdir())


@pytest.mark.timeout(120)
async def test_reloads_leave_no_task_descriptor_or_graph_behind(rig):
    """After the old graphs have drained, six reloads have added less than one task or descriptor per reload."""
    rig.latency_s = 0.0
    async with rig.running() as service:

        async def settled(number):
            await rig.reload(receiver=number, exporter=number, batch=number)
            async with rig.load():
                await rig.progress()
            await eventually(lambda: not service._draining and rig.delivered["a"] == sum(rig.accepted.values()))

        await settled(5)
        await eventually(lambda: True)
        before = len(asyncio.all_tasks()), open_descriptors()
        for number in range(6, 12):
            await settled(number)
        await eventually(lambda: len(asyncio.all_tasks()) < before[0] + 6)
        await eventually(lambda: open_descriptors() < before[1] + 6)
        assert len(service.sockets._all) <= 4
    assert not rig.failed, rig.failed


async def test_a_reload_can_change_the_port(rig):
    """The new port is served; a request that has begun on the old one is finished, and then the old port is closed."""
    rest = asyncio.Event()

    async def body():
        yield rig.wire[:10]
        await rest.wait()
        yield rig.wire[10:]

    async with rig.running() as service, aiohttp.ClientSession() as session:
        old_url = f"http://127.0.0.1:{rig.values['http']}/v1/traces"
        headers = {"Content-Type": "application/x-protobuf", "Expect": "100-continue"}
        waiting = asyncio.ensure_future(session.post(old_url, data=body(), headers=headers))
        await rig.post(session)
        await rig.reload(http=free_port())
        await rig.post(session)
        rest.set()
        response = await waiting
        assert response.status == 200
        await eventually(lambda: not service._draining)
        with pytest.raises(aiohttp.ClientConnectionError):
            await session.post(old_url)
    assert rig.delivered == {"a": 3 * SPANS}


async def test_reloads_while_old_graphs_drain_neither_pile_up_nor_lose_anything(rig):
    """The backend takes longer than the reloads: at most three old exporters drain at a time."""
    rig.latency_s = 0.5
    async with rig.running() as service, rig.load():
        for number in range(6, 14):
            reloading = asyncio.ensure_future(rig.reload(exporter=number))
            await eventually(reloading.done)
            assert len(service._draining) <= 3
            await rig.progress()
    assert not rig.failed, rig.failed
    assert rig.delivered == {"a": sum(rig.accepted.values())}


async def test_a_shutdown_while_an_old_graph_drains_settles_both(rig):
    """What the old and the new exporter hold is delivered before the service ends."""
    rig.latency_s = 0.7
    async with rig.running() as service:
        async with rig.load():
            await rig.reload(exporter=6)
            await rig.progress()
        assert service._draining
        await service.shutdown()
        assert not service._draining
        assert rig.delivered == {"a": sum(rig.accepted.values())}
        assert all(row.held == 0 for row in service.ledger.snapshot())


async def test_what_an_old_graph_cannot_deliver_in_time_is_counted(rig):
    """The backend hangs; a second signal cuts the drain of both graphs short, and the ledger balances."""
    rig.latency_s = 3600.0
    async with rig.running() as service:
        async with rig.load():
            await rig.reload(exporter=6)
            await rig.progress()
        ending = asyncio.ensure_future(service.shutdown())
        service.stop()
        service.stop()
        async with asyncio.timeout(20):
            await ending
        row = next(row for row in service.ledger.snapshot() if row.node == "exporters/otlp_http")
        assert (row.received, row.held, row.dropped) == (row.received, 0, {"shutdown": row.received})


async def test_grpcio_gets_its_port_back(rig):
    """It cannot share a socket, so the old server ends first; clients that try again find the new one."""
    async with rig.running(transport="grpcio"):
        address = f"127.0.0.1:{rig.values['grpc']}"
        for number in (5, 6, 6):
            await rig.reload(receiver=number)
            async with grpc.aio.insecure_channel(address) as channel:
                await channel.unary_unary(METHOD)(rig.wire, timeout=20, wait_for_ready=True)
    assert rig.delivered == {"a": 3 * SPANS}


async def test_a_configuration_that_cannot_be_started_changes_nothing(rig):
    """Its exporter and its gRPC server had started when the port of HTTP turned out to be in use; the load goes on."""
    async with rig.running() as service, rig.load():
        before, values = service.graph.nodes(), dict(rig.values)
        with socket.socket() as taken:
            taken.bind(("127.0.0.1", 0))
            taken.listen()
            config = rig.config(http=taken.getsockname()[1], exporter=9, receiver=9)
            rig.values = values
            assert not await service.reload(config)
        assert service.graph.nodes() == before
        assert service.ready()
        page = service.telemetry.render()
        assert "tailrace_config_last_reload_successful 0" in page
        assert 'otelcol_exporter_queue_size{data_type="traces",exporter="otlp_http"}' in page
        await rig.progress()
        await rig.reload(exporter=9)
        assert "tailrace_config_last_reload_successful 1" in service.telemetry.render()
        await rig.progress()
    assert not rig.failed, rig.failed


async def test_the_counters_continue_over_a_reload(rig):
    """Old and new components of one id count into one series."""
    async with rig.running() as service:
        async with rig.load():
            await rig.progress()
            await rig.reload(receiver=7, exporter=7, batch=70)
            await rig.progress()
        await eventually(lambda: rig.delivered["a"] == sum(rig.accepted.values()))
        await eventually(lambda: not service._draining and all(row.held == 0 for row in service.ledger.snapshot()))
        page = service.telemetry.render()
        assert f'otelcol_exporter_sent_spans{{exporter="otlp_http"}} {float(rig.delivered["a"])}' in page
        assert page.count("otelcol_exporter_queue_size{") == 1
