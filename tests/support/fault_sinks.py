"""Backends that fail in one way until they are healed, and count the items of the requests that they answered with OK.

``HttpSink`` speaks HTTP/1.1 for OTLP, Prometheus remote write and Loki; ``GrpcSink`` speaks OTLP over gRPC.
"""

import asyncio
import gzip
import socket
import ssl

import grpc
from google.rpc import error_details_pb2, status_pb2
from opentelemetry.proto.collector.logs.v1 import logs_service_pb2
from opentelemetry.proto.collector.metrics.v1 import metrics_service_pb2
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2
from reference_messages import message_class

from collector.transport.compression import decompress

__all__ = ["RAW", "GrpcSink", "HttpSink"]

RAW = frozenset({"refused", "hangs", "resets", "garbage", "slow-loris", "certificate expired"})
"""Faults of the connection, which have nothing to do with the protocol."""
_PUSH = message_class(
    "Push", {"Push": ["*Group groups 1"], "Group": ["*Item items 2"], "Item": ["int64 unused 15"]}
)  # remote write: series and samples; Loki: streams and entries
_SIGNALS = {
    "traces": ("trace.v1.TraceService", trace_service_pb2.ExportTraceServiceRequest),
    "metrics": ("metrics.v1.MetricsService", metrics_service_pb2.ExportMetricsServiceRequest),
    "logs": ("logs.v1.LogsService", logs_service_pb2.ExportLogsServiceRequest),
}


def _otlp_items(message):
    """Items of an OTLP request; metrics have gauges only."""
    count = 0
    for resource in [*getattr(message, "resource_spans", ()), *getattr(message, "resource_logs", ())]:
        for scope in [*getattr(resource, "scope_spans", ()), *getattr(resource, "scope_logs", ())]:
            count += len(getattr(scope, "spans", ())) + len(getattr(scope, "log_records", ()))
    for resource in getattr(message, "resource_metrics", ()):
        count += sum(len(metric.gauge.data_points) for scope in resource.scope_metrics for metric in scope.metrics)
    return count


class _Sink:
    """``hits`` counts connections or requests that met the fault; ``taken`` the items that were answered with OK."""

    def __init__(self, fault="", *, port=0, tls=None):
        self.fault, self.port, self.tls = fault, port, tls
        self.hits = self.taken = 0
        self.handshake = None
        """The TLS context while the fault lasts; ``tls`` is that of the healed server."""
        self._raw = self._server = None
        self._writers = set()

    async def __aenter__(self):
        if self.fault in RAW:
            await self._listen(self._misbehave, self.handshake)
            if self.fault == "refused":
                await self._close()
        else:
            await self.open()
        return self

    async def __aexit__(self, *_):
        await self._close()

    async def heal(self):
        """Behave from now on."""
        if self.fault in RAW:
            await self._close()
            self.fault = ""
            await self.open()
        self.fault = ""

    async def _listen(self, handler, tls=None):
        self._raw = await asyncio.start_server(handler, "127.0.0.1", self.port, ssl=tls)
        self.port = self._raw.sockets[0].getsockname()[1]

    async def _close(self):
        if self._raw is not None:
            self._raw.close()
            for writer in self._writers:
                writer.transport.abort()
            self._writers.clear()
            await self._raw.wait_closed()
            self._raw = None

    async def _misbehave(self, reader, writer):
        self._writers.add(writer)
        self.hits += 1
        if self.fault == "resets":
            writer.transport.get_extra_info("socket").setsockopt(
                socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0"
            )
            writer.transport.abort()
        elif self.fault == "garbage":
            writer.write(b"\x00\xffneither HTTP/1.1 nor HTTP/2\r\n\r\n" * 10)
        elif self.fault == "slow-loris":
            for byte in b"HTTP/1.1 200 OK\r\n" + b"X-Padding: 1\r\n" * 1000:
                if writer.is_closing():
                    return
                writer.write(bytes([byte]))
                await asyncio.sleep(0.02)


class HttpSink(_Sink):
    """``fault``: one of ``RAW``, ``dies mid-request``, ``dies before the answer``, ``1xx for ever``, ``truncated answer``,
    ``partial``, or a status with headers, such as ``429 Retry-After: 1``.
    """

    async def open(self):
        """Listen as a server that behaves."""
        await self._listen(self._serve, self.tls)

    async def _serve(self, reader, writer):
        self._writers.add(writer)
        try:
            while True:
                await self._answer(reader, writer)
        except (ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError, ssl.SSLError):
            writer.transport.abort()

    async def _answer(self, reader, writer):
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
        first, *lines = head.splitlines()
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
        length, fault = int(headers["content-length"]), self.fault
        self.hits += bool(fault)
        if fault == "dies mid-request":
            await reader.readexactly(min(length, 10))
            raise ConnectionError
        body = await reader.readexactly(length)
        await self.on_request()
        items = self._items(first.split()[1], headers.get("content-encoding", ""), body)
        if fault == "dies before the answer":
            raise ConnectionError
        if fault == "truncated answer":
            writer.write(b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 1000\r\n\r\nx")
            await writer.drain()
            raise ConnectionError
        if fault == "1xx for ever":
            while True:
                writer.write(b"HTTP/1.1 103 Early Hints\r\n\r\n")
                await writer.drain()
                await asyncio.sleep(0.001)
        status, _, more = (fault or "200").partition(" ")
        answer = b""
        if fault == "partial":
            status, more = "200", "Content-Type: application/x-protobuf"
            answer = trace_service_pb2.ExportTraceServiceResponse(
                partial_success={"rejected_spans": items // 2, "error_message": "half is too old"}
            ).SerializeToString()  # field numbers of all signals are the same
            items -= items // 2
        if status == "200":
            self.taken += items
        more = f"{more}\r\n" if more else ""
        writer.write(f"HTTP/1.1 {status} S\r\nContent-Length: {len(answer)}\r\n{more}\r\n".encode() + answer)
        await writer.drain()

    async def on_request(self):
        """Called for each request that was read, before it is counted and answered."""

    @staticmethod
    def _items(path, encoding, body):
        for signal, (_, request_type) in _SIGNALS.items():
            if path.endswith(f"/v1/{signal}"):
                return _otlp_items(request_type.FromString(gzip.decompress(body) if encoding == "gzip" else body))
        push = _PUSH.FromString(decompress("snappy", body, 100_000_000))
        return sum(len(group.items) for group in push.groups)


class GrpcSink(_Sink):
    """``fault``: one of ``RAW``, ``partial``, or a status code such as ``UNAVAILABLE``, or ``UNAVAILABLE retry``."""

    async def open(self):
        """Listen as a server that behaves."""
        self._server = grpc.aio.server()
        handlers = [
            grpc.method_handlers_generic_handler(
                f"opentelemetry.proto.collector.{service}",
                {"Export": grpc.unary_unary_rpc_method_handler(self._export_of(request_type))},
            )
            for service, request_type in _SIGNALS.values()
        ]
        self._server.add_generic_rpc_handlers(tuple(handlers))
        address = f"127.0.0.1:{self.port}"
        self.port = (
            self._server.add_secure_port(address, self.tls) if self.tls else self._server.add_insecure_port(address)
        )
        await self._server.start()

    async def _close(self):
        await super()._close()
        server, self._server = self._server, None
        if server is not None:
            await server.stop(None)

    def _export_of(self, request_type):
        async def export(wire, context):
            items, fault = _otlp_items(request_type.FromString(wire)), self.fault
            self.hits += bool(fault)
            if fault in {"", "partial"}:
                rejected = items // 2 if fault else 0
                self.taken += items - rejected
                return trace_service_pb2.ExportTraceServiceResponse(
                    partial_success={"rejected_spans": rejected}
                ).SerializeToString()
            name, _, has_retry = fault.partition(" ")
            code = grpc.StatusCode[name]
            if has_retry:
                details = status_pb2.Status(code=code.value[0], message="later")
                details.details.add().Pack(error_details_pb2.RetryInfo(retry_delay={"nanos": 100_000_000}))
                context.set_trailing_metadata((("grpc-status-details-bin", details.SerializeToString()),))
            return await context.abort(code, "as ordered")  # it raises

        return export
