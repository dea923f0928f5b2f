"""A simulated embedding platform: an API, an embedding server with a GPU, a vector database. It sends real OTLP.

Run as a process of its own (``python -m collector.cli.demo.platform``), it knows nothing of the gateway but its two
endpoints: traces go over gRPC, metrics over HTTP as protobuf, logs over HTTP as JSON. What it sent and was acknowledged
it reports on standard output, one JSON object a second, the totals last; those are one side of the demo's claims.

Metric and label names are those of services in the field (``http_requests_total``, ``http_request_duration_seconds``,
``embedding_requests_total``, ``qdrant_operations_total``); spans follow the HTTP, GenAI and database conventions. The
API puts a ``user_id`` on its counter, which is the label explosion. Nothing here is random beyond its seed but the
clock.
"""

import argparse
import gzip
import http.client
import json
import random
import signal
import sys
import time
from collections import Counter
from dataclasses import dataclass, field
from typing import Any, Final

import grpc
from google.protobuf import json_format
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue
from opentelemetry.proto.metrics.v1.metrics_pb2 import AGGREGATION_TEMPORALITY_CUMULATIVE

from collector.cli.demo.names import API, GPU_HOST, SERVICES

__all__ = ["Platform", "Totals", "main"]

MODELS: Final = ("BAAI/bge-small-en-v1.5", "intfloat/e5-large-v2", "jinaai/jina-embeddings-v2-base-en")
COLLECTIONS: Final = ("documents", "products", "tickets")
ENDPOINTS: Final = (
    ("POST", "/v1/embeddings", 50),
    ("POST", "/v1/search", 30),
    ("GET", "/v1/documents/{id}", 15),
    ("GET", "/health", 5),
)
BOUNDS: Final = (0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 0.75, 1.0, 2.0, 2.5, 5.0, 10.0, 30.0)
SERVER, CLIENT, INTERNAL = 2, 3, 1
_SLOW_S: Final = 2.0
_NS: Final = 1_000_000_000


@dataclass
class Totals:
    """What was sent and acknowledged."""

    traces: int = 0
    spans: int = 0
    server_spans: int = 0
    error_traces: int = 0
    slow_traces: int = 0
    health_traces: int = 0
    gpu_spans: int = 0
    metric_points: int = 0
    series: int = 0
    log_records: int = 0
    requests_value: int = 0
    """Sum of http_requests_total over all its series."""
    user_ids: int = 0
    failures: int = 0
    """Requests that were not acknowledged."""


def _attributes(values: dict[str, Any]) -> list[KeyValue]:
    made = []
    for key, value in values.items():
        if isinstance(value, bool):
            wrapped = AnyValue(bool_value=value)
        elif isinstance(value, int):
            wrapped = AnyValue(int_value=value)
        elif isinstance(value, float):
            wrapped = AnyValue(double_value=value)
        else:
            wrapped = AnyValue(string_value=value)
        made.append(KeyValue(key=key, value=wrapped))
    return made


@dataclass
class _Histogram:
    buckets: list[int] = field(default_factory=lambda: [0] * (len(BOUNDS) + 1))
    count: int = 0
    total: float = 0.0

    def add(self, value: float) -> None:
        self.buckets[sum(value > bound for bound in BOUNDS)] += 1
        self.count += 1
        self.total += value


class Platform:
    """Makes requests happen and turns them into telemetry."""

    def __init__(self, seed: int = 7, users: int = 5000, environment: str = "demo") -> None:
        self._random = random.Random(seed)  # noqa: S311 - a simulation
        self._users = users
        self._environment = environment
        self._start_time = time.time_ns()
        self._counter: Counter[tuple[str, str, str, str, str]] = Counter()
        self._durations: dict[tuple[str, str], _Histogram] = {}
        self._embeddings: Counter[tuple[str, str]] = Counter()
        self._operations: Counter[tuple[str, str, str]] = Counter()
        self._in_progress = 0
        self.totals = Totals()

    def resource(self, service: str) -> list[KeyValue]:
        """The resource of a service."""
        return _attributes(
            {
                "service.name": service,
                "service.instance.id": f"{service}-0",
                "host.name": SERVICES[service],
                "deployment.environment.name": self._environment,
                "telemetry.sdk.language": "python",
            }
        )

    def requests(self, count: int) -> tuple[ExportTraceServiceRequest, ExportLogsServiceRequest]:
        """Telemetry of ``count`` requests that just ended: the spans of each service, and the log lines."""
        traces, logs = ExportTraceServiceRequest(), ExportLogsServiceRequest()
        spans, records = {}, {}
        for service in SERVICES:
            by_service = traces.resource_spans.add()
            by_service.resource.attributes.extend(self.resource(service))
            scope = by_service.scope_spans.add()
            scope.scope.name = "opentelemetry.instrumentation.fastapi"
            spans[service] = scope.spans
            log_service = logs.resource_logs.add()
            log_service.resource.attributes.extend(self.resource(service))
            log_scope = log_service.scope_logs.add()
            log_scope.scope.name = "structlog"
            records[service] = log_scope.log_records
        for _ in range(count):
            self._one_request(spans, records)
        return traces, logs

    def _one_request(self, spans: dict[str, Any], records: dict[str, Any]) -> None:
        chance = self._random
        method, route, _ = chance.choices(ENDPOINTS, weights=[weight for *_, weight in ENDPOINTS])[0]
        tenant = f"tenant-{int(chance.paretovariate(1.2)) % 20:02d}"
        user = f"user-{chance.randrange(self._users):05d}"
        health = route == "/health"
        failed = not health and chance.random() < 0.006
        slow = not health and chance.random() < 0.004
        model = chance.choice(MODELS)
        queue_s = chance.expovariate(1 / 0.01)
        model_s = chance.lognormvariate(-3.2, 0.5) + (chance.uniform(_SLOW_S, 3.0) if slow else 0.0)
        search_s = chance.lognormvariate(-4.2, 0.4) if "search" in route or "documents" in route else 0.0
        own_s = 0.001 + chance.expovariate(1 / 0.003)
        uses_model = route in {"/v1/embeddings", "/v1/search"}
        total_s = (
            own_s + (queue_s + model_s if uses_model else chance.uniform(_SLOW_S, 3.0) if slow else 0.0) + search_s
        )
        end = time.time_ns()
        start = end - int(total_s * _NS)
        status = chance.choice((500, 503)) if failed else 200
        path = route.replace("{id}", str(chance.randrange(100000)))
        trace_id = chance.randbytes(16)
        root_id = chance.randbytes(8)

        root = self._span(
            spans[API], trace_id, root_id, b"", f"{method} {route}", SERVER, start, end,
            {"http.request.method": method, "http.route": route, "url.path": path, "http.response.status_code": status,
             "tenant_id": tenant, "user.id": user},
        )  # fmt: skip
        for part in ("http send", "http receive"):
            self._span(
                spans[API],
                trace_id,
                chance.randbytes(8),
                root_id,
                f"{method} {route} {part}",
                INTERNAL,
                end - 200_000,
                end,
                {},
            )
        at = start + int(own_s / 2 * _NS)
        error = (
            "CUDA out of memory"
            if failed and uses_model and chance.random() < 0.5
            else "upstream timed out"
            if failed
            else ""
        )
        if uses_model:
            at = self._embed(spans, trace_id, root_id, at, model, tenant, queue_s, model_s, error)
            self._embeddings[model, "error" if failed else "success"] += 1
        if search_s:
            at = self._search(spans, trace_id, root_id, at, search_s)
        if failed:
            root.status.code = 2
            root.status.message = error
        self._count(
            method,
            path if route == "/v1/documents/{id}" and chance.random() < 0.3 else route,
            status,
            tenant,
            user,
            total_s,
            health=health,
        )
        self._log(records, trace_id, root_id, end, route, status, tenant, total_s, error, health=health)
        totals = self.totals
        totals.traces += 1
        totals.error_traces += failed
        totals.slow_traces += (end - start) / _NS >= _SLOW_S and not failed
        totals.health_traces += health

    def _embed(
        self,
        spans: dict[str, Any],
        trace_id: bytes,
        parent: bytes,
        at: int,
        model: str,
        tenant: str,
        queue_s: float,
        model_s: float,
        error: str,
    ) -> int:
        chance = self._random
        tokens = chance.randrange(8, 512)
        end = at + int((queue_s + model_s) * _NS)
        client_id = chance.randbytes(8)
        common = {"gen_ai.operation.name": "embeddings", "gen_ai.provider.name": "tei", "gen_ai.request.model": model}
        self._span(spans[API], trace_id, client_id, parent, f"embeddings {model}", CLIENT, at, end,
                   {**common, "server.address": GPU_HOST, "server.port": 8080})  # fmt: skip
        span = self._span(
            spans["embedding-server"], trace_id, chance.randbytes(8), client_id, f"embeddings {model}", SERVER, at + 50_000, end - 50_000,
            {**common, "gen_ai.usage.input_tokens": tokens, "gen_ai.embeddings.dimension.count": 384,
             "gen_ai.latency.time_in_queue": queue_s,
             "tenant_id": tenant},
        )  # fmt: skip
        self.totals.gpu_spans += 1
        if error:
            span.status.code = 2
            span.status.message = error
            event = span.events.add(name="exception", time_unix_nano=end - 60_000)
            event.attributes.extend(_attributes({"exception.type": "RuntimeError", "exception.message": error}))
        return end

    def _search(self, spans: dict[str, Any], trace_id: bytes, parent: bytes, at: int, search_s: float) -> int:
        chance = self._random
        collection = chance.choice(COLLECTIONS)
        end = at + int(search_s * _NS)
        client_id = chance.randbytes(8)
        common = {"db.system.name": "qdrant", "db.operation.name": "search", "db.collection.name": collection}
        self._span(spans[API], trace_id, client_id, parent, f"search {collection}", CLIENT, at, end, common)
        self._span(spans["vector-db"], trace_id, chance.randbytes(8), client_id, f"search {collection}", SERVER, at + 30_000, end - 30_000,
                   {**common, "db.response.returned_rows": chance.randrange(1, 20)})  # fmt: skip
        self._operations["search", collection, "success"] += 1
        return end

    def _span(
        self,
        spans: Any,
        trace_id: bytes,
        span_id: bytes,
        parent: bytes,
        name: str,
        kind: int,
        start: int,
        end: int,
        values: dict[str, Any],
    ) -> Any:
        span = spans.add(
            trace_id=trace_id, span_id=span_id, parent_span_id=parent, name=name, kind=kind, start_time_unix_nano=start,
            end_time_unix_nano=end, flags=0x101,
        )  # fmt: skip
        span.attributes.extend(_attributes(values))
        self.totals.spans += 1
        self.totals.server_spans += kind == SERVER
        return span

    def _count(
        self, method: str, endpoint: str, status: int, tenant: str, user: str, seconds: float, *, health: bool
    ) -> None:
        self._counter[method, endpoint, str(status), tenant, "" if health else user] += 1
        self._durations.setdefault(
            (method, endpoint if endpoint.startswith("/v1/e") or endpoint == "/health" else "/v1/search"), _Histogram()
        ).add(seconds)
        self.totals.requests_value += 1

    def _log(
        self,
        records: dict[str, Any],
        trace_id: bytes,
        span_id: bytes,
        at: int,
        route: str,
        status: int,
        tenant: str,
        seconds: float,
        error: str,
        *,
        health: bool,
    ) -> None:
        if health:
            return
        service = "embedding-server" if error.startswith("CUDA") else API
        number, text = (17, "ERROR") if error else (13, "WARN") if seconds >= _SLOW_S else (9, "INFO")
        body = error or f"{route} answered {status} in {seconds * 1000:.0f} ms"
        record = records[service].add(
            time_unix_nano=at,
            observed_time_unix_nano=at,
            severity_number=number,
            severity_text=text,
            trace_id=trace_id,
            span_id=span_id,
        )
        record.body.string_value = body
        record.attributes.extend(_attributes({"http.route": route, "tenant_id": tenant, "request_id": f"req-{at:x}"}))
        self.totals.log_records += 1

    def metrics(self) -> ExportMetricsServiceRequest:
        """All metrics as they stand: cumulative, as an SDK exports them."""
        request = ExportMetricsServiceRequest()
        now = time.time_ns()
        scopes = {}
        for service in SERVICES:
            resource = request.resource_metrics.add()
            resource.resource.attributes.extend(self.resource(service))
            scope = resource.scope_metrics.add()
            scope.scope.name = "prometheus_client"
            scopes[service] = scope.metrics
        self._sum(
            scopes[API], "http_requests_total", now,
            {tuple(zip(("method", "endpoint", "status", "tenant_id", "user_id"), key, strict=True)): value
             for key, value in self._counter.items()},
        )  # fmt: skip
        self._sum(
            scopes["embedding-server"], "embedding_requests_total", now,
            {(("model", model), ("status", status)): value for (model, status), value in self._embeddings.items()},
        )  # fmt: skip
        self._sum(
            scopes["vector-db"], "qdrant_operations_total", now,
            {(("operation", operation), ("collection", collection), ("status", status)): value
             for (operation, collection, status), value in self._operations.items()},
        )  # fmt: skip
        metric = scopes[API].add(name="http_request_duration_seconds", unit="s")
        metric.histogram.aggregation_temporality = AGGREGATION_TEMPORALITY_CUMULATIVE
        for (method, endpoint), histogram in self._durations.items():
            point = metric.histogram.data_points.add(
                start_time_unix_nano=self._start_time, time_unix_nano=now, count=histogram.count, sum=histogram.total,
                bucket_counts=histogram.buckets, explicit_bounds=BOUNDS,
            )  # fmt: skip
            point.attributes.extend(_attributes({"method": method, "endpoint": endpoint}))
        gauge = scopes[API].add(name="http_requests_in_progress")
        gauge.gauge.data_points.add(time_unix_nano=now, as_int=self._random.randrange(1, 20))
        gauge = scopes["embedding-server"].add(name="cache_hit_rate")
        for model in MODELS:
            rate = gauge.gauge.data_points.add(time_unix_nano=now, as_double=round(self._random.uniform(0.6, 0.9), 3))
            rate.attributes.extend(_attributes({"model": model}))
        self.totals.series = (
            len(self._counter) + len(self._embeddings) + len(self._operations) + len(self._durations) + 1 + len(MODELS)
        )
        self.totals.user_ids = len({user for *_, user in self._counter if user})
        self.totals.metric_points += self.totals.series
        return request

    def _sum(self, metrics: Any, name: str, now: int, values: dict[tuple[tuple[str, str], ...], int]) -> None:
        metric = metrics.add(name=name)
        metric.sum.aggregation_temporality = AGGREGATION_TEMPORALITY_CUMULATIVE
        metric.sum.is_monotonic = True
        for labels, value in values.items():
            point = metric.sum.data_points.add(start_time_unix_nano=self._start_time, time_unix_nano=now, as_int=value)
            point.attributes.extend(_attributes({key: text for key, text in labels if text}))


class Sender:
    """Delivers requests; repeats until acknowledged, as an SDK does."""

    def __init__(self, grpc_endpoint: str, http_endpoint: str) -> None:
        self._channel = grpc.insecure_channel(grpc_endpoint)
        self._export = self._channel.unary_unary(
            "/opentelemetry.proto.collector.trace.v1.TraceService/Export",
            request_serializer=lambda body: body,
            response_deserializer=lambda body: body,
        )
        host, _, port = http_endpoint.rpartition(":")
        self._http = http.client.HTTPConnection(host, int(port), timeout=10)
        self.failures = 0

    def close(self) -> None:
        """Close both connections."""
        self._channel.close()
        self._http.close()

    def traces(self, request: ExportTraceServiceRequest) -> None:
        """Over gRPC."""
        body = request.SerializeToString()
        self._repeat(lambda: self._export(body, timeout=10))

    def metrics(self, request: ExportMetricsServiceRequest) -> None:
        """Over HTTP, protobuf, gzip."""
        self._post("/v1/metrics", gzip.compress(request.SerializeToString(), 1), "application/x-protobuf")

    def logs(self, request: ExportLogsServiceRequest) -> None:
        """Over HTTP, OTLP/JSON (ids in hex), gzip."""
        document = json_format.MessageToDict(request)
        for position, resource in enumerate(document.get("resourceLogs", [])):
            for scope in resource.get("scopeLogs", []):
                for record, original in zip(scope.get("logRecords", []), _ids_of(request, position), strict=False):
                    record["traceId"], record["spanId"] = original
        self._post("/v1/logs", gzip.compress(json.dumps(document).encode(), 1), "application/json")

    def _post(self, path: str, body: bytes, content_type: str) -> None:
        def attempt() -> None:
            try:
                self._http.request("POST", path, body, {"Content-Type": content_type, "Content-Encoding": "gzip"})
                response = self._http.getresponse()
                answer = response.read()
            except OSError:
                self._http.close()
                raise
            if response.status != http.HTTPStatus.OK:
                raise ConnectionError(f"{path}: {response.status} {answer[:200]!r}")

        self._repeat(attempt)

    def _repeat(self, attempt: Any) -> None:
        for wait_s in (0.1, 0.2, 0.5, 1.0, 2.0, None):
            try:
                attempt()
            except (grpc.RpcError, OSError, http.client.HTTPException):
                self.failures += 1
                if wait_s is None:
                    raise
                time.sleep(wait_s)
            else:
                return


def _ids_of(request: ExportLogsServiceRequest, position: int) -> list[tuple[str, str]]:
    """Hex ids of the records of one resource, in order (protobuf's own JSON form has them in base64)."""
    return [
        (record.trace_id.hex(), record.span_id.hex())
        for scope in request.resource_logs[position].scope_logs
        for record in scope.log_records
    ]


def main() -> None:
    """Send until the duration is over or SIGTERM/SIGINT; report totals."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--grpc", required=True)
    parser.add_argument("--http", required=True)
    parser.add_argument("--duration", type=float, default=0.0, help="seconds; 0: until told to stop")
    parser.add_argument("--rate", type=float, default=80.0, help="requests a second")
    parser.add_argument("--seed", type=int, default=7)
    arguments = parser.parse_args()
    stopping = False

    def stop(*_: object) -> None:
        nonlocal stopping
        stopping = True

    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGINT, stop)
    platform = Platform(arguments.seed)
    sender = Sender(arguments.grpc, arguments.http)
    started = time.monotonic()
    tick, made, last_metrics, last_report = 0.2, 0, started, started
    try:
        while not stopping and not (arguments.duration and time.monotonic() - started >= arguments.duration):
            due = int((time.monotonic() - started + tick) * arguments.rate) - made
            if due > 0:
                traces, logs = platform.requests(due)
                made += due
                sender.traces(traces)
                sender.logs(logs)
            if time.monotonic() - last_metrics >= 1.0:
                last_metrics = time.monotonic()
                sender.metrics(platform.metrics())
            if time.monotonic() - last_report >= 1.0:
                last_report = time.monotonic()
                _report(platform, sender, final=False)
            time.sleep(tick)
        sender.metrics(platform.metrics())
    except (grpc.RpcError, OSError, http.client.HTTPException) as exc:
        print(f"platform: the gateway does not answer: {exc}", file=sys.stderr)  # noqa: T201 - a command's output
    finally:
        _report(platform, sender, final=True)
        sender.close()


def _report(platform: Platform, sender: Sender, *, final: bool) -> None:
    platform.totals.failures = sender.failures
    print(json.dumps({**vars(platform.totals), "final": final}), flush=True)  # noqa: T201 - the report


if __name__ == "__main__":
    main()
