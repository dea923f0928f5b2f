"""Sends the simulated platform's telemetry to the gateway over real OTLP, and retries until it is acknowledged."""

import gzip
import http.client
import json
import time
from collections.abc import Callable
from typing import Final

import grpc
from google.protobuf import json_format
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

__all__ = ["SEND_ERRORS", "Sender"]

SEND_ERRORS: Final = (grpc.RpcError, OSError, http.client.HTTPException)
"""What sending raises once all retries have failed."""
_RETRY_WAITS_S: Final = (0.1, 0.2, 0.5, 1.0, 2.0)
_TIMEOUT_S: Final = 10.0


class Sender:
    """Delivers requests, retrying each one as an SDK does. Raises one of ``SEND_ERRORS`` when it gives up."""

    def __init__(self, grpc_endpoint: str, http_endpoint: str) -> None:
        self._channel = grpc.insecure_channel(grpc_endpoint)
        self._export = self._channel.unary_unary(
            "/opentelemetry.proto.collector.trace.v1.TraceService/Export",
            request_serializer=lambda body: body,
            response_deserializer=lambda body: body,
        )
        host, _, port = http_endpoint.rpartition(":")
        self._http = http.client.HTTPConnection(host, int(port), timeout=_TIMEOUT_S)
        self.failures = 0
        """Attempts that were not acknowledged."""

    def close(self) -> None:
        """Close both connections."""
        self._channel.close()
        self._http.close()

    def traces(self, request: ExportTraceServiceRequest) -> None:
        """Send over gRPC."""
        body = request.SerializeToString()
        self._retry(lambda: self._export(body, timeout=_TIMEOUT_S))

    def metrics(self, request: ExportMetricsServiceRequest) -> None:
        """Send over HTTP as protobuf, compressed with gzip."""
        self._post("/v1/metrics", request.SerializeToString(), "application/x-protobuf")

    def logs(self, request: ExportLogsServiceRequest) -> None:
        """Send over HTTP as OTLP/JSON, with ids in hex, compressed with gzip."""
        document = json_format.MessageToDict(request)
        for position, resource in enumerate(document.get("resourceLogs", [])):
            for scope in resource.get("scopeLogs", []):
                for record, ids in zip(scope.get("logRecords", []), _hex_ids(request, position), strict=False):
                    record["traceId"], record["spanId"] = ids
        self._post("/v1/logs", json.dumps(document).encode(), "application/json")

    def _post(self, path: str, body: bytes, content_type: str) -> None:
        compressed = gzip.compress(body, 1)
        headers = {"Content-Type": content_type, "Content-Encoding": "gzip"}

        def attempt() -> None:
            try:
                self._http.request("POST", path, compressed, headers)
                response = self._http.getresponse()
                text = response.read()
            except OSError:
                self._http.close()
                raise
            if response.status != http.HTTPStatus.OK:
                raise ConnectionError(f"{path} answered with status {response.status}: {text[:200]!r}")

        self._retry(attempt)

    def _retry(self, attempt: Callable[[], object]) -> None:
        for wait_s in (*_RETRY_WAITS_S, None):
            try:
                attempt()
            except SEND_ERRORS:
                self.failures += 1
                if wait_s is None:
                    raise
                time.sleep(wait_s)
            else:
                return


def _hex_ids(request: ExportLogsServiceRequest, position: int) -> list[tuple[str, str]]:
    """Trace and span ids of the records of one resource, in order (protobuf's own JSON form has them in base64)."""
    return [
        (record.trace_id.hex(), record.span_id.hex())
        for scope in request.resource_logs[position].scope_logs
        for record in scope.log_records
    ]
