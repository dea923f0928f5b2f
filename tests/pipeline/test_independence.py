"""One faulty backend does not change what the others receive, and each item ends in the books of every exporter."""

import asyncio
import socket

import pytest

from collector.api import ComponentKind
from collector.model import Signal
from collector.registry import Registry
from collector.testing import eventually, logs, metrics, traces

BATCHES = 40
ITEMS = 5
MAKE = {
    "traces": lambda seed: traces(spans=ITEMS, seed=seed),
    "logs": lambda seed: logs(records=ITEMS, seed=seed),
    "metrics": lambda seed: metrics(points=ITEMS, seed=seed),
}
GRAPH = """
receivers: {{source: {{}}}}
exporters:
  otlp_http/good: {{endpoint: "{good}", compression: none}}
  otlp_http/good2: {{endpoint: "{good}/second", compression: none}}
  {faulty}:
    endpoint: "{bad}"
    timeout: 200ms
    sending_queue: {{num_consumers: 2, queue_size: 4}}
    retry_on_failure: {{initial_interval: 10ms, max_interval: 20ms, max_elapsed_time: 300ms}}
service: {{pipelines: {{{signal}: {{receivers: [source], exporters: [{faulty}, otlp_http/good, otlp_http/good2]}}}}}}
"""


class Server:
    """An HTTP server that accepts everything, or one that is faulty in the way of ``fault``."""

    def __init__(self, fault=""):
        self.fault = fault
        self.bodies = {}
        self.requests = 0
        self._writers = set()

    async def __aenter__(self):
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        if self.fault == "refused":
            self._server.close()
            await self._server.wait_closed()
        return self

    async def __aexit__(self, *_):
        self._server.close()
        for writer in self._writers:
            writer.transport.abort()

    async def _serve(self, reader, writer):
        self._writers.add(writer)
        if self.fault == "hang":
            return
        if self.fault == "reset":
            writer.transport.get_extra_info("socket").setsockopt(
                socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\x00\x00\x00\x00\x00\x00\x00"
            )
            writer.transport.abort()
            return
        if self.fault == "garbage":
            writer.write(b"\x00\xffnot HTTP at all\r\n\r\n" * 10)
            return
        try:
            while True:
                await self._answer(reader, writer)
        except (ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            writer.transport.abort()

    async def _answer(self, reader, writer):
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        self.requests += 1
        length = next(int(line.split(":")[1]) for line in head.splitlines() if line.lower().startswith("content-len"))
        if self.fault == "dies mid-request":
            await reader.readexactly(min(length, 10))
            raise ConnectionError
        body = await reader.readexactly(length)
        if not self.fault:
            self.bodies.setdefault(head.split()[1], []).append(body)
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
        elif self.fault == "interim answers":
            while True:
                writer.write(b"HTTP/1.1 103 Early Hints\r\n\r\n")
                await writer.drain()
                await asyncio.sleep(0)
        elif self.fault == "slow answer":
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Le")
            await asyncio.Event().wait()
        elif self.fault == "truncated answer":
            writer.write(b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 1000\r\n\r\nx")
            raise ConnectionError
        else:
            status, _, more = self.fault.partition(" ")
            writer.write(f"HTTP/1.1 {status} No\r\nContent-Length: 0\r\n{more}\r\n\r\n".encode())
        await writer.drain()


TRANSPORT_FAULTS = ["refused", "hang", "reset", "garbage"]
HTTP_FAULTS = [
    "dies mid-request",
    "interim answers",
    "slow answer",
    "truncated answer",
    "400",
    "401",
    "413",
    "429 Retry-After: 3600",
    "429 Retry-After: Wed, 21 Oct 2099 07:28:00 GMT",
    "500",
    "503",
    "503 Retry-After: nonsense",
    "307 Location: http://127.0.0.1:1/",
]
SOME_FAULTS = ["refused", "dies mid-request", "400", "429 Retry-After: 3600", "503"]
CASES = [
    *(("otlp_grpc", "traces", fault) for fault in TRANSPORT_FAULTS),
    ("jaeger", "traces", "refused"),
    *(("otlp_http", "traces", fault) for fault in (*TRANSPORT_FAULTS, *HTTP_FAULTS)),
    *(("loki", "logs", fault) for fault in SOME_FAULTS),
    *(("prometheus_remote_write", "metrics", fault) for fault in SOME_FAULTS),
]


@pytest.fixture
def graph(world, monkeypatch):
    """A world that also has the real exporters."""
    others = world.registry

    def registry():
        made = others()
        real = Registry()
        exporters = [
            real.find(ComponentKind.EXPORTER, name) for name in ("otlp_http", *{component for component, _, _ in CASES})
        ]
        made._offers[ComponentKind.EXPORTER].update(Registry.of(exporters)._offers[ComponentKind.EXPORTER])
        return made

    monkeypatch.setattr(world, "registry", registry)
    return world


def rows(service):
    return {row.node.removeprefix("exporters/"): row for row in service.ledger.snapshot() if "exporters" in row.node}


@pytest.mark.parametrize(("component", "signal", "fault"), CASES)
async def test_a_faulty_backend_affects_only_itself(graph, component, signal, fault):
    """The healthy ones have everything, exactly once, whatever the other one does; the ledger closes meanwhile."""
    async with Server() as good, Server(fault) as bad:
        scheme = "" if component in {"otlp_grpc", "jaeger"} else "http://"
        text = GRAPH.format(
            good=f"http://127.0.0.1:{good.port}",
            bad=f"{scheme}127.0.0.1:{bad.port}",
            faulty=f"{component}/faulty",
            signal=signal,
        )
        if component == "prometheus_remote_write":
            text = text.replace("sending_queue: {num_consumers: 2, ", "remote_write_queue: {num_consumers: 2, ")
        if component == "otlp_grpc":
            text = text.replace("timeout: 200ms", "timeout: 200ms\n    tls: {insecure: true}")
        service = graph.service(text, shutdown_timeout_s=0.1)
        await service.start()
        batches = [MAKE[signal](seed) for seed in range(BATCHES)]
        for batch in batches:
            await graph.source(signal=Signal(signal)).consume(batch)
        total = sum(batch.item_count for batch in batches)
        await eventually(
            lambda: all(rows(service)[f"otlp_http/{name}"].delivered == total for name in ("good", "good2"))
        )
        assert service.ledger.imbalances() == []
        await service.shutdown()
        assert service.ledger.imbalances() == []
        for path in (f"/v1/{signal}", f"/second/v1/{signal}"):
            assert sorted(good.bodies[path]) == sorted(batch.wire for batch in batches)
        row = rows(service)[f"{component}/faulty"]
        assert row.delivered == row.held == 0
        assert row.received == total == sum(row.dropped.values()) + sum(row.refused.values())
