"""A service with real components between a sender and a backend that fails, and the books of all three."""

import io
import time
from contextlib import asynccontextmanager

import aiohttp
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest

from collector.registry import Registry
from collector.service import Service
from collector.testing import eventually, free_port, logs_request, traces_request
from config.load import load

__all__ = ["EXPORTERS", "SIGNALS", "FaultRig"]

SIGNALS = {
    "otlp_grpc": "traces", "jaeger": "traces", "otlp_http": "traces", "loki": "logs",
    "prometheus_remote_write": "metrics", "file": "logs",
}  # fmt: skip
EXPORTERS = tuple(name for name in SIGNALS if name != "file")
GRPC = frozenset({"otlp_grpc", "jaeger"})
_DELIVERY = """
    timeout: 300ms
    retry_on_failure: {initial_interval: 20ms, max_interval: 50ms}
    circuit_breaker: {probe_interval: 100ms}
"""
_REGISTRY = Registry()


class FaultRig:
    """``send`` posts requests to the receiver; ``check_books`` compares the sender, the ledger and the backend."""

    def __init__(
        self, exporter, sink, *, scheme="http", storage=None, endpoint="", more="", others="", clock=None, file=None
    ):
        self.exporter, self.signal, self.sink, self.clock = exporter, SIGNALS[exporter], sink, clock
        self.port, self.registry = free_port(), _REGISTRY
        self.acknowledged = self.refused = self._number = 0
        endpoint = endpoint or f"127.0.0.1:{sink.port}"
        endpoint = endpoint if exporter in GRPC and scheme == "http" else f"{scheme}://{endpoint}"
        block = f"endpoint: '{endpoint}'{_DELIVERY}"
        if file:
            block = f"path: '{file}'{_DELIVERY}"
        if exporter in GRPC and scheme == "http":
            block += "    tls: {insecure: true}\n"
        queue = "storage: file_storage" if storage else "storage: ''"
        if exporter == "prometheus_remote_write":
            block += f"    remote_write_queue: {{num_consumers: 2, {queue}}}\n"
        else:
            block += f"    sending_queue: {{num_consumers: 2, {queue}}}\n"
        if exporter == "loki":
            block = block.replace(endpoint, f"{endpoint}/loki/api/v1/push")
        extension = "file_storage" if storage else ""
        extensions = (
            f"extensions: {{file_storage: {{directory: '{storage}', create_directory: true}}}}" if storage else ""
        )
        names = ", ".join([exporter, *(line.split(":")[0].strip() for line in others.splitlines() if line.strip())])
        self.text = f"""
{extensions}
receivers: {{otlp: {{protocols: {{http: {{endpoint: "127.0.0.1:{self.port}"}}}}}}}}
exporters:
  {exporter}:
    {block}{more}{others}
service:
  extensions: [{extension}]
  telemetry: {{metrics: {{level: none}}}}
  pipelines: {{{self.signal}: {{receivers: [otlp], exporters: [{names}]}}}}
"""

    @asynccontextmanager
    async def running(self, shutdown_timeout_s=10.0):
        """One life of the process; its ledger closes at the end."""
        self.acknowledged = self.refused = 0
        self.service = Service(
            load([f"yaml:{self.text}"], (), _REGISTRY), clock=self.clock, shutdown_timeout_s=shutdown_timeout_s
        )
        await self.service.start()
        try:
            async with aiohttp.ClientSession() as self._session:
                yield self
        finally:
            await self.service.shutdown()
            assert self.service.ledger.imbalances() == []

    def _request(self, items):
        self._number += 1
        if self.signal == "traces":
            return traces_request(spans=items, seed=self._number)
        if self.signal == "logs":
            message = logs_request(records=items, seed=self._number)
            for resource in message.resource_logs:
                for record in (record for scope in resource.scope_logs for record in scope.log_records):
                    record.time_unix_nano = record.observed_time_unix_nano = time.time_ns()
            return message
        message = ExportMetricsServiceRequest()
        metric = message.resource_metrics.add().scope_metrics.add().metrics.add(name="load")
        for item in range(items):
            point = metric.gauge.data_points.add(as_int=1, time_unix_nano=time.time_ns())
            point.attributes.add(key="item", value={"string_value": f"{self._number}/{item}"})
        return message

    async def send(self, requests=5, items=10):
        """Post them one after the other; what is not answered with OK counts as refused."""
        for _ in range(requests):
            await self.send_wire(self._request(items).SerializeToString(), items)

    async def send_wire(self, wire, items):
        """Post one request."""
        url, headers = f"http://127.0.0.1:{self.port}/v1/{self.signal}", {"Content-Type": "application/x-protobuf"}
        async with self._session.post(url, data=io.BytesIO(wire), headers=headers) as answer:
            await answer.read()
            assert answer.status in {200, 503}, answer.status
            assert answer.status == 200 or answer.headers["Retry-After"]
        if answer.status == 200:
            self.acknowledged += items
        else:
            self.refused += items

    def row(self, node=""):
        """The line of a node in the ledger, by default of the exporter."""
        return next(row for row in self.service.ledger.snapshot() if row.node == (node or f"exporters/{self.exporter}"))

    async def settled(self, timeout_s=20):
        """Wait until nothing is in flight."""
        await eventually(lambda: self.row().held == 0, timeout_s=timeout_s)

    def check_books(self):
        """Sender, receiver, exporter and backend agree to the item. Returns the exporter's line."""
        door, end = self.row("receivers/otlp"), self.row()
        assert self.service.ledger.imbalances() == []
        assert (door.out, sum(door.refused.values())) == (self.acknowledged, self.refused)
        assert end.received == self.acknowledged
        assert end.delivered == self.sink.taken
        return end
